//! The C ABI of vfio-ferry.
