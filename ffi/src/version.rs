//! Versions, and the last error.

use std::ffi::c_char;

use vfio_ferry::{WIRE_VERSION_MAX, WIRE_VERSION_MIN};

use crate::failure::{guarded_or, last};
use crate::raw;

/// Version of this interface. It grows when something is added. Nothing is changed or removed under
/// one soname.
pub const VFERRY_ABI_VERSION: u32 = 7;
/// Oldest version of this interface whose programs run with this library; the number of its soname,
/// libvfio_ferry.so.3.
pub const VFERRY_ABI_VERSION_MIN: u32 = 3;
/// The first number of the library's release.
pub const VFERRY_VERSION_MAJOR: u32 = 0;
/// The second number of the library's release.
pub const VFERRY_VERSION_MINOR: u32 = 1;
/// The third number of the library's release.
pub const VFERRY_VERSION_PATCH: u32 = 0;
/// Oldest version of the wire that this library speaks.
pub const VFERRY_WIRE_VERSION_MIN: u32 = 1;
/// Newest version of the wire that this library speaks. Two hosts use the newest that both speak.
pub const VFERRY_WIRE_VERSION_MAX: u32 = 1;

const _: () = assert!(VFERRY_WIRE_VERSION_MIN == WIRE_VERSION_MIN as u32);
const _: () = assert!(VFERRY_WIRE_VERSION_MAX == WIRE_VERSION_MAX as u32);

/// `VFERRY_ABI_VERSION` of the library that runs. Where it is the header's or larger, the library has
/// everything that the header declares.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_abi_version() -> u32 {
    VFERRY_ABI_VERSION
}

/// `VFERRY_WIRE_VERSION_MIN` of the library that runs.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_wire_version_min() -> u32 {
    VFERRY_WIRE_VERSION_MIN
}

/// `VFERRY_WIRE_VERSION_MAX` of the library that runs.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_wire_version_max() -> u32 {
    VFERRY_WIRE_VERSION_MAX
}

/// The library's release, such as "0.1.0". Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_version_text() -> *const c_char {
    const TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    TEXT.as_ptr().cast()
}

/// Copies a sentence about the last call that failed on this thread: more than its status tells.
/// Calls that succeed, and statuses below 100, do not change it.
///
/// Up to `capacity - 1` bytes and a NUL are written to `buffer`; with a `capacity` of 0 it may be
/// NULL. Returns the length of the whole sentence without the NUL, 0 if no call has failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_last_error(buffer: *mut c_char, capacity: usize) -> usize {
    guarded_or(0, || {
        last(|text, _| {
            // SAFETY: the caller's buffer of this capacity, as the header asks.
            unsafe { raw::put_text(text, buffer, capacity) }
        })
    })
}

/// The errno that belongs to `vferry_last_error`: the kernel's, or 0 where it gave none.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_last_errno() -> i32 {
    guarded_or(0, || last(|_, errno| errno))
}
