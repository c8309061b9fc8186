//! Versions, and the last error.

use std::ffi::c_char;

use vfio_ferry::session::{WIRE_VERSION_MAX, WIRE_VERSION_MIN};

use crate::failure::{guarded_or, last};
use crate::raw;

/// Version of this interface: larger where something was added. What was there stays as it is
/// for as long as the library's soname.
pub const VFERRY_ABI_VERSION: u32 = 2;
/// Oldest version of the wire that this library speaks.
pub const VFERRY_WIRE_VERSION_MIN: u32 = 1;
/// Newest version of the wire that this library speaks. Two hosts use the newest that both do.
pub const VFERRY_WIRE_VERSION_MAX: u32 = 1;

const _: () = assert!(VFERRY_WIRE_VERSION_MIN == WIRE_VERSION_MIN as u32);
const _: () = assert!(VFERRY_WIRE_VERSION_MAX == WIRE_VERSION_MAX as u32);

/// `VFERRY_ABI_VERSION` of the library that runs, to be compared with the header's: one that is
/// larger or equal has everything that the header has.
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

/// Says what the last call that failed on this thread failed of, in one sentence: more than its
/// status does. Calls that succeed, and statuses below 100, leave it as it was.
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

/// The errno that belongs to `vferry_last_error`: the kernel's own answer, or 0 where it gave none.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_last_errno() -> i32 {
    guarded_or(0, || last(|_, errno| errno))
}
