//! Errno numbers by their names, as the kernel answers them: positive. Everything in the crate that
//! names one names it from here.

pub use libc::{
    EACCES, EAGAIN, EBADF, EBADMSG, EBUSY, ECANCELED, ECONNRESET, EEXIST, EFAULT, EINPROGRESS,
    EINTR, EINVAL, EIO, EMFILE, EMSGSIZE, ENFILE, ENOBUFS, ENODATA, ENODEV, ENOENT, ENOMEM, ENOMSG,
    ENOSPC, ENOSYS, ENOTCONN, ENOTSOCK, ENOTTY, EOPNOTSUPP, EPERM, EPIPE, EPROTO, ETIME, ETIMEDOUT,
};

/// Which the kernel keeps to itself (include/linux/errno.h), except that io_uring workers up to
/// 6.12 leak it where they are cancelled inside a driver.
pub const ERESTARTSYS: i32 = 512;

/// Whether an operation ended early because of a signal or a cancel, not because of the device.
pub const fn is_interruption(errno: i32) -> bool {
    matches!(errno, EINTR | ECANCELED | ERESTARTSYS)
}
