//! Test devices and harnesses of vfio-ferry: what the tests under `host/` share.

pub mod device;
pub mod fuse;
pub mod moment;
pub mod mutate;
pub mod pair;
pub mod peer;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod refuse;
pub mod runs;
pub mod script;
pub mod skip;
pub mod watched;
