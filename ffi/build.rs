//! The shared library's soname: while the version is 0.x, each x may break the ABI.

fn main() {
    let part = |name: &str| std::env::var(name).unwrap_or_default();
    let (major, minor) = (part("CARGO_PKG_VERSION_MAJOR"), part("CARGO_PKG_VERSION_MINOR"));
    let version = if major == "0" { format!("0.{minor}") } else { major };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libvfio_ferry.so.{version}");
    println!("cargo:rerun-if-changed=build.rs");
}
