//! The statuses that every call returns. A number means one thing for ever: the ledger is
//! `ffi/status.txt`, and a test compares the two.

use std::ffi::{CStr, c_char};

/// What a call returns: VFERRY_OK, or why it did nothing. The number's range says who can act:
/// 1 to 99 nothing is wrong, but there is nothing to be had now; 100 the caller; 200 the device or
/// its set-up on this host; 300 the peer; 400 the network; 500 this host's system; 900 a bug of the
/// library. A number keeps its meaning for ever. Later versions may return new ones.
///
/// Out-parameters are written on success only.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_status {
    /// Done.
    VFERRY_OK = 0,

    /// Nothing waits at this moment.
    VFERRY_ERR_EMPTY = 1,
    /// The timeout expired.
    VFERRY_ERR_TIMEOUT = 2,
    /// There is no room at this moment.
    VFERRY_ERR_FULL = 3,
    /// The session or the channel has ended: nothing more will come.
    VFERRY_ERR_ENDED = 4,
    /// The wait was cancelled. Since version 5.
    VFERRY_ERR_CANCELLED = 5,

    /// A pointer is NULL that must not be.
    VFERRY_ERR_NULL = 100,
    /// A number is outside its range, or names nothing.
    VFERRY_ERR_RANGE = 101,
    /// A struct's `size` is not the size of any version of the struct.
    VFERRY_ERR_STRUCT_SIZE = 102,
    /// A device's name is empty, or given twice.
    VFERRY_ERR_DEVICE_NAME = 103,
    /// A name, message or opaque part has more bytes than are allowed.
    VFERRY_ERR_TOO_LONG = 104,
    /// The buffers would need more memory than `vferry_options_set_memory_bytes` allows.
    VFERRY_ERR_MEMORY_LIMIT = 105,
    /// The call belongs to the other host's session or device.
    VFERRY_ERR_WRONG_HOST = 106,
    /// The session has no device or stream of this number.
    VFERRY_ERR_UNKNOWN_NUMBER = 107,
    /// An fd is not open, given twice, or of the wrong kind.
    VFERRY_ERR_BAD_FD = 108,
    /// The device already belongs to a session, or is given twice.
    VFERRY_ERR_DEVICE_IN_USE = 109,
    /// The call is for embedded devices only.
    VFERRY_ERR_NOT_EMBEDDED = 110,
    /// The session has not ended yet.
    VFERRY_ERR_NOT_ENDED = 111,
    /// The buffer is too small.
    VFERRY_ERR_BUFFER_TOO_SMALL = 112,
    /// A string is not UTF-8.
    VFERRY_ERR_NOT_UTF8 = 113,
    /// A rate limit was set, and a stream is not TCP.
    VFERRY_ERR_RATE_NEEDS_TCP = 114,
    /// The process already collects log lines.
    VFERRY_ERR_LOG_TAKEN = 115,
    /// A stream would leave this host in plaintext, and that was not asked for. Since version 5.
    VFERRY_ERR_PLAINTEXT = 116,
    /// A certificate, key or name of this host's own cannot be used. Since version 5.
    VFERRY_ERR_CREDENTIALS = 117,
    /// Bytes and whole frames were pushed into one channel. Since version 7.
    VFERRY_ERR_MIXED = 118,

    /// A call to the device failed; `vferry_last_errno` is the kernel's errno.
    VFERRY_ERR_DEVICE_IO = 200,
    /// The device's driver has no migration support.
    VFERRY_ERR_NOT_MIGRATABLE = 201,
    /// There is no such device.
    VFERRY_ERR_NO_SUCH_DEVICE = 202,
    /// The device is not bound to a VFIO driver, or has no IOMMU group.
    VFERRY_ERR_NOT_BOUND = 203,
    /// This process may not open the device.
    VFERRY_ERR_ACCESS_DENIED = 204,
    /// Another process uses the device's IOMMU group.
    VFERRY_ERR_GROUP_BUSY = 205,
    /// Another device of the IOMMU group is not bound to VFIO.
    VFERRY_ERR_GROUP_NOT_VIABLE = 206,
    /// The kernel's vfio modules are not loaded.
    VFERRY_ERR_NO_VFIO = 207,
    /// The device is not in a state in which a migration begins: RUNNING, or STOP under a paused VM.
    /// Since version 4.
    VFERRY_ERR_DEVICE_STATE = 208,
    /// The library was built without this function. Since version 5.
    VFERRY_ERR_NOT_BUILT_IN = 209,

    /// The peer does not speak this protocol, or broke it.
    VFERRY_ERR_PEER_PROTOCOL = 300,
    /// The peer is not who it has to be, or its certificate is not valid today. Since version 5.
    VFERRY_ERR_PEER_UNTRUSTED = 301,
    /// The peer does not trust this host. Since version 5.
    VFERRY_ERR_PEER_REFUSED = 302,

    /// A connection failed; `vferry_last_errno` is the kernel's errno.
    VFERRY_ERR_CONNECTION = 400,
    /// An address cannot be parsed or resolved.
    VFERRY_ERR_ADDRESS = 401,
    /// A protected stream was changed or cut on its way, or is none. Since version 5.
    VFERRY_ERR_STREAM_CHANGED = 402,

    /// The system refused memory, threads, fds or a ring; `vferry_last_errno` is the kernel's errno.
    VFERRY_ERR_SYSTEM = 500,

    /// A bug of the library. Sessions that exist can still be freed.
    VFERRY_ERR_INTERNAL = 900,
}

use vferry_status::*;

impl vferry_status {
    /// All of them, with their texts.
    const TEXTS: [(vferry_status, &'static CStr); 43] = [
        (VFERRY_OK, c"done"),
        (VFERRY_ERR_EMPTY, c"nothing waits at this moment"),
        (VFERRY_ERR_TIMEOUT, c"the timeout expired"),
        (VFERRY_ERR_FULL, c"there is no room at this moment"),
        (VFERRY_ERR_ENDED, c"the session or channel has ended"),
        (VFERRY_ERR_CANCELLED, c"the wait was cancelled"),
        (VFERRY_ERR_NULL, c"a pointer is NULL that must not be"),
        (VFERRY_ERR_RANGE, c"a number is outside its range"),
        (
            VFERRY_ERR_STRUCT_SIZE,
            c"a struct's size is not set, or not of any version of the struct",
        ),
        (VFERRY_ERR_DEVICE_NAME, c"a device's name is empty or given twice"),
        (VFERRY_ERR_TOO_LONG, c"more bytes than are allowed"),
        (VFERRY_ERR_MEMORY_LIMIT, c"the buffers need more memory than was allowed"),
        (VFERRY_ERR_WRONG_HOST, c"the call belongs to the other host"),
        (VFERRY_ERR_UNKNOWN_NUMBER, c"the session has no device or stream of this number"),
        (VFERRY_ERR_BAD_FD, c"an fd is not open, given twice, or of the wrong kind"),
        (VFERRY_ERR_DEVICE_IN_USE, c"the device already belongs to a session"),
        (VFERRY_ERR_NOT_EMBEDDED, c"the call is for embedded devices"),
        (VFERRY_ERR_NOT_ENDED, c"the session has not ended yet"),
        (VFERRY_ERR_BUFFER_TOO_SMALL, c"the buffer is too small"),
        (VFERRY_ERR_NOT_UTF8, c"a string is not UTF-8"),
        (VFERRY_ERR_RATE_NEEDS_TCP, c"a rate can be set for TCP streams only"),
        (VFERRY_ERR_LOG_TAKEN, c"the process already collects log lines"),
        (VFERRY_ERR_PLAINTEXT, c"a stream would leave this host in plaintext"),
        (VFERRY_ERR_CREDENTIALS, c"this host's credentials cannot be used"),
        (VFERRY_ERR_MIXED, c"bytes and whole frames in one channel"),
        (VFERRY_ERR_DEVICE_IO, c"a call to the device failed"),
        (VFERRY_ERR_NOT_MIGRATABLE, c"the device's driver has no migration support"),
        (VFERRY_ERR_NO_SUCH_DEVICE, c"there is no such device"),
        (VFERRY_ERR_NOT_BOUND, c"the device is not bound to a VFIO driver"),
        (VFERRY_ERR_ACCESS_DENIED, c"this process may not open the device"),
        (VFERRY_ERR_GROUP_BUSY, c"the device's IOMMU group is in use"),
        (VFERRY_ERR_GROUP_NOT_VIABLE, c"the device's IOMMU group is not viable"),
        (VFERRY_ERR_NO_VFIO, c"vfio is not loaded"),
        (VFERRY_ERR_DEVICE_STATE, c"the device is not where a migration begins"),
        (VFERRY_ERR_NOT_BUILT_IN, c"the library was built without this function"),
        (VFERRY_ERR_PEER_PROTOCOL, c"the peer does not speak this protocol"),
        (VFERRY_ERR_PEER_UNTRUSTED, c"the peer is not trusted"),
        (VFERRY_ERR_PEER_REFUSED, c"the peer does not trust this host"),
        (VFERRY_ERR_CONNECTION, c"a connection failed"),
        (VFERRY_ERR_ADDRESS, c"an address cannot be parsed or resolved"),
        (VFERRY_ERR_STREAM_CHANGED, c"a protected stream was changed or cut on its way"),
        (VFERRY_ERR_SYSTEM, c"the system refused memory, threads, fds or a ring"),
        (VFERRY_ERR_INTERNAL, c"a bug of vfio-ferry"),
    ];

    /// Whether nothing is wrong: there is only nothing to be had now, or any more.
    pub(crate) fn is_not_now(self) -> bool {
        (1..100).contains(&(self as i32))
    }
}

/// What a status means, in a few words. Static, never NULL; for numbers of later versions too.
/// `vferry_last_error` says more.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_status_text(status: i32) -> *const c_char {
    let known = vferry_status::TEXTS.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"unknown status", |(_, text)| text).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_text() {
        let ledger = include_str!("../status.txt").lines();
        let live = ledger.filter(|line| !line.starts_with('#') && !line.ends_with(" retired"));
        let numbers: Vec<i32> = live
            .map(|line| line.split(' ').next().unwrap_or("").parse().expect("a number"))
            .collect();
        let known: Vec<i32> = vferry_status::TEXTS.iter().map(|(known, _)| *known as i32).collect();
        assert_eq!(numbers, known);
    }
}
