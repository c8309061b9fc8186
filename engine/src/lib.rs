//! An io_uring engine that carries a VFIO device's migration state.
