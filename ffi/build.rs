//! The shared library's soname: VFERRY_ABI_VERSION_MIN. The ledger's test compares the two.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libvfio_ferry.so.3");
    println!("cargo:rerun-if-changed=build.rs");
}
