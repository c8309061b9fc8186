//! Test devices and harnesses of vfio-ferry: what the tests under `host/` share.

pub mod device;
pub mod pair;
