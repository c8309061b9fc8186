//! The boundary: C's pointers become references, slices and fds here, or a failure. The rest of the
//! crate is ordinary Rust.
//!
//! What cannot be checked is the caller's part of the contract, and the header says so: that a
//! pointer which is not NULL points to what the function asks for, and that a handle was not freed.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use crate::failure::Failure;
use crate::status::vferry_status::{self, *};

/// An opaque type of the header. The type itself is empty and is never made in Rust, so a reference
/// to one can only have come from C, and is what [`handle`] made.
pub(crate) trait Handle {
    /// What is behind it.
    type Inner: Send + Sync;
    /// Its name in messages.
    const WHAT: &'static str;
}

/// Gives a value to C.
pub(crate) fn handle<T: Handle>(inner: T::Inner) -> *mut T {
    Box::into_raw(Box::new(inner)).cast()
}

/// What is behind a handle.
pub(crate) fn inner<'a, T: Handle + 'a>(
    handle: Option<impl Deref<Target = T> + 'a>,
) -> Result<&'a T::Inner, Failure> {
    let handle = handle.ok_or_else(|| null(T::WHAT))?;
    let pointer = (&raw const *handle).cast::<T::Inner>();
    // SAFETY: needed because C knows handles by their address. Only `handle` makes one, from a box
    // of this type that lives until `take`, and the caller has not freed it.
    Ok(unsafe { &*pointer })
}

/// Takes a handle back and clears the variable that held it; none if that was NULL.
pub(crate) fn take<T: Handle>(variable: Option<&mut *mut T>) -> Option<Box<T::Inner>> {
    let pointer = std::mem::replace(variable?, std::ptr::null_mut()).cast::<T::Inner>();
    if pointer.is_null() {
        return None;
    }
    // SAFETY: needed because C owned the box. It came from `handle`, and the variable that held it
    // no longer does.
    Some(unsafe { Box::from_raw(pointer) })
}

/// A place for a result.
pub(crate) fn out<'a, T>(
    place: Option<&'a mut MaybeUninit<T>>,
    what: &'static str,
) -> Result<&'a mut MaybeUninit<T>, Failure> {
    place.ok_or_else(|| null(what))
}

/// A C string, which must be UTF-8.
///
/// # Safety
/// `text` is NULL or a string that ends with NUL and stays as it is for as long as the result.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &'static str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(null(what));
    }
    // SAFETY: needed to find its end. It is not NULL, and the caller promises the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::new(VFERRY_ERR_NOT_UTF8, format!("{what} is not UTF-8")))
}

/// A C string, or none for NULL.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(
    text: *const c_char,
    what: &'static str,
) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: handed on.
    unsafe { self::text(text, what) }.map(Some)
}

/// An array that is read. NULL is an empty one if the count is 0.
///
/// # Safety
/// `first` is NULL or points to `count` values that stay as they are for as long as the result.
pub(crate) unsafe fn array<'a, T>(
    first: *const T,
    count: usize,
    what: &'static str,
) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    check_extent(first, count, what)?;
    // SAFETY: needed because C gives a length beside a pointer. It is not NULL, aligned and within
    // the address space; the caller promises the rest.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// A number of 16 bytes, little-endian; none for NULL.
///
/// # Safety
/// `bytes` is NULL or points to 16 bytes.
pub(crate) unsafe fn number(bytes: *const u8) -> Option<u128> {
    // SAFETY: needed because C has no type of so many bits. The caller promises so many bytes.
    let bytes = unsafe { bytes.cast::<[u8; 16]>().as_ref() };
    bytes.map(|bytes| u128::from_le_bytes(*bytes))
}

/// An array that is written. NULL is an empty one if the count is 0.
///
/// # Safety
/// `first` is NULL or points to room for `count` values that nobody else uses meanwhile. What is in
/// it may be anything: it is memory of C's, of which Rust knows no history.
pub(crate) unsafe fn room<'a, T: Copy>(
    first: *mut T,
    count: usize,
    what: &'static str,
) -> Result<&'a mut [T], Failure> {
    if count == 0 {
        return Ok(&mut []);
    }
    check_extent(first, count, what)?;
    // SAFETY: as in `array`, and nobody else uses it.
    Ok(unsafe { std::slice::from_raw_parts_mut(first, count) })
}

fn check_extent<T>(first: *const T, count: usize, what: &'static str) -> Result<(), Failure> {
    if first.is_null() {
        return Err(null(what));
    }
    let fits =
        count.checked_mul(size_of::<T>()).is_some_and(|bytes| isize::try_from(bytes).is_ok());
    if !fits || !first.is_aligned() {
        let message = format!("{what}: {count} at {first:p} is not an array");
        return Err(Failure::new(VFERRY_ERR_RANGE, message));
    }
    Ok(())
}

/// A struct of the header. Its first field is `size`, which the caller sets to what it has room
/// for, so that either side may be the newer one.
///
/// # Safety
/// The type is `repr(C)` and begins with a `u32`; every value of its bytes is valid.
pub(crate) unsafe trait Sized32: Copy {
    /// Size of the struct in the first version that had it.
    const SIZE_MIN: usize;
    /// Its name in C.
    const NAME: &'static str;
    /// The field that goes out with the number of bytes that were filled in.
    fn set_size(&mut self, size: u32);
}

/// A place for a struct, of a size that was checked.
#[derive(Debug)]
pub(crate) struct StructOut<T> {
    place: *mut T,
    bytes: usize,
}

/// Looks at a struct's `size` before anything is done whose result would go there.
///
/// # Safety
/// `place` is NULL or points to a struct of the type, of this version of the header or another one,
/// whose `size` was set to its size, and which nobody else uses until the result is written.
pub(crate) unsafe fn struct_out<T: Sized32>(place: *mut T) -> Result<StructOut<T>, Failure> {
    if place.is_null() {
        return Err(null(T::NAME));
    }
    // SAFETY: needed because how much of the struct is there is known only from its first field.
    // It is not NULL, and has at least that field; reading it needs no alignment.
    let size = unsafe { place.cast::<u32>().read_unaligned() } as usize;
    if size < T::SIZE_MIN {
        let message =
            format!("{}.size is {size}; set it to sizeof({}) before the call", T::NAME, T::NAME);
        return Err(Failure::new(VFERRY_ERR_STRUCT_SIZE, message));
    }
    Ok(StructOut { place, bytes: size.min(size_of::<T>()) })
}

impl<T: Sized32> StructOut<T> {
    /// Writes as much as the caller has room for.
    pub(crate) fn write(self, mut value: T) {
        value.set_size(self.bytes as u32);
        let from = (&raw const value).cast::<u8>();
        // SAFETY: needed because the caller's struct may be a shorter one. It has room for so many
        // bytes by its own word (see `struct_out`), and the value has no fewer.
        unsafe { from.copy_to_nonoverlapping(self.place.cast(), self.bytes) }
    }
}

/// Copies a text into a buffer of C's, cut where it does not fit, with a NUL after it. Returns the
/// length that it would have had. A NULL or empty buffer is given nothing.
///
/// # Safety
/// As [`room`].
pub(crate) unsafe fn put_text(text: &str, buffer: *mut c_char, capacity: usize) -> usize {
    // SAFETY: handed on.
    if let Ok(room) = unsafe { room(buffer, capacity, "buffer") } {
        fill_text(text, room);
    }
    text.len()
}

/// Copies a text into an array of a struct, cut at a character where it does not fit. What follows
/// it is NUL.
pub(crate) fn fill_text(text: &str, room: &mut [c_char]) {
    let most = room.len().saturating_sub(1).min(text.len());
    let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    // C sees the text up to the first NUL; one inside would hide the rest.
    let bytes = text.as_bytes()[..end].iter().map(|&byte| if byte == 0 { b'?' } else { byte });
    let padded = bytes.chain(std::iter::repeat(0));
    room.iter_mut().zip(padded).for_each(|(place, byte)| *place = byte as c_char);
}

/// A duplicate of an fd of C's, which keeps its own.
pub(crate) fn duplicate(fd: c_int, what: &'static str) -> Result<OwnedFd, Failure> {
    if fd < 0 {
        return Err(Failure::new(VFERRY_ERR_BAD_FD, format!("{what}: {fd} is no fd")));
    }
    // SAFETY: needed because C knows fds by their number. The number is not negative; if nothing is
    // open under it, the kernel says so in the only call that is made.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map_err(|errno| {
        let status =
            if errno == rustix::io::Errno::BADF { VFERRY_ERR_BAD_FD } else { VFERRY_ERR_SYSTEM };
        Failure::system(status, format!("{what}: fd {fd}"), errno.into())
    })
}

/// Takes an fd over from C.
///
/// # Safety
/// The fd is the caller's to give, and it does not use the number again.
pub(crate) unsafe fn adopt(fd: c_int, what: &'static str) -> Result<OwnedFd, Failure> {
    drop(duplicate(fd, what)?);
    // SAFETY: needed because ownership is passed by number. It is open, and the caller's to give.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn null(what: &'static str) -> Failure {
    Failure::new(vferry_status::VFERRY_ERR_NULL, format!("{what} is NULL"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A handle as a function of the ABI gets it.
    pub(crate) fn borrow<'a, T: Handle>(handle: *mut T) -> Option<&'a mut T> {
        // SAFETY: needed because C passes pointers. A test gives one that `handle` made.
        unsafe { handle.as_mut() }
    }

    /// A handle that a function of the ABI makes.
    pub(crate) fn made<T>(
        make: impl FnOnce(Option<&mut MaybeUninit<*mut T>>) -> vferry_status,
    ) -> *mut T {
        let mut place = MaybeUninit::new(std::ptr::null_mut());
        assert_eq!(make(Some(&mut place)), vferry_status::VFERRY_OK);
        // SAFETY: needed because C has variables that a call initialises. This one was before.
        unsafe { place.assume_init() }
    }

    fn filled<const N: usize>(text: &str) -> String {
        let mut room = [1 as c_char; N];
        fill_text(text, &mut room);
        room.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8 as char).collect()
    }

    #[test]
    fn texts_are_cut_at_a_character_and_always_end() {
        assert_eq!(filled::<8>("seven"), "seven");
        assert_eq!(filled::<4>("seven"), "sev");
        assert_eq!(filled::<3>("s\u{e9}ven"), "s");
        assert_eq!(filled::<1>("seven"), "");
        assert_eq!(filled::<8>("a\0b"), "a?b");
        fill_text("seven", &mut []);
    }
}
