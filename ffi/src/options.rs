//! A session's options.

use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vfio_ferry::{Backend, BackendChoice, Options, Policy};

use crate::failure::{Failure, guarded};
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, VFERRY_ERR_RANGE};
use crate::values::{VFERRY_NO_LIMIT, unknown};
use crate::wait::FOREVER;

/// The options of a session. Each host has its own; the hosts agree on what must be the same. Every
/// option has a default, and a session made with NULL for options has all defaults.
///
/// Made by `vferry_options_new`, freed by `vferry_options_free`. A session copies its options: they
/// may be used for several sessions, changed and freed at any time.
pub struct vferry_options {
    _opaque: [u8; 0],
}

impl Handle for vferry_options {
    type Inner = Mutex<Options>;
    const WHAT: &'static str = "options";
}

/// Whether to compress (source).
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_policy {
    /// For each chunk what is faster at that moment. The default.
    VFERRY_POLICY_ADAPTIVE = 0,
    /// Never.
    VFERRY_POLICY_RAW = 1,
    /// Every chunk that shrinks, with zstd at a given level.
    VFERRY_POLICY_ZSTD = 2,
}

/// How the engine does its I/O.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_backend {
    /// io_uring where the system allows it, plain system calls otherwise. The default.
    VFERRY_BACKEND_AUTO = 0,
    /// io_uring, or no session.
    VFERRY_BACKEND_IO_URING = 1,
    /// Plain system calls.
    VFERRY_BACKEND_SYSCALLS = 2,
}

pub(crate) fn backend_number(backend: Backend) -> u32 {
    match backend {
        Backend::IoUring => vferry_backend::VFERRY_BACKEND_IO_URING as u32,
        Backend::Syscalls => vferry_backend::VFERRY_BACKEND_SYSCALLS as u32,
    }
}

pub(crate) fn copy(options: Option<&vferry_options>) -> Result<Options, Failure> {
    match options {
        Some(options) => Ok(lock(raw::inner(Some(options))?).clone()),
        None => Ok(Options::default()),
    }
}

fn lock(options: &Mutex<Options>) -> MutexGuard<'_, Options> {
    options.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets one option.
fn set(
    options: Option<&mut vferry_options>,
    change: impl FnOnce(&mut Options) -> Result<(), Failure>,
) -> vferry_status {
    guarded(|| change(&mut lock(raw::inner(options)?)))
}

/// A day, in milliseconds.
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A time from 1 ms to a day.
fn period(milliseconds: i64, what: &'static str) -> Result<Duration, Failure> {
    match u64::try_from(milliseconds) {
        Ok(some) if (1..=DAY_MS).contains(&milliseconds) => Ok(Duration::from_millis(some)),
        _ => Err(Failure::new(VFERRY_ERR_RANGE, format!("{what} of {milliseconds} ms"))),
    }
}

/// Makes options, all at their defaults.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_new(
    options: Option<&mut MaybeUninit<*mut vferry_options>>,
) -> vferry_status {
    guarded(|| {
        raw::out(options, "options")?.write(raw::handle(Mutex::new(Options::default())));
        Ok(())
    })
}

/// Frees options and sets the variable to NULL. Does nothing where it, or `options`, is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_free(options: Option<&mut *mut vferry_options>) {
    guarded(|| {
        drop(raw::take(options));
        Ok(())
    });
}

/// Most bytes of state in one frame: 4096 to 4194304, by default 262144. The smaller of both hosts'
/// numbers is used. The range is checked when a session is made.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_chunk_bytes(
    options: Option<&mut vferry_options>,
    bytes: usize,
) -> vferry_status {
    set(options, |options| {
        options.chunk_bytes = bytes;
        Ok(())
    })
}

/// Threads that compress (source) or decompress (target): 1 to 64, by default one for each core, but
/// no more than 8. The range is checked when a session is made.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_workers(
    options: Option<&mut vferry_options>,
    workers: usize,
) -> vferry_status {
    set(options, |options| {
        options.workers = workers;
        Ok(())
    })
}

/// Whether to compress: a `vferry_policy`. `level` is zstd's, -7 to 19, and is used for
/// VFERRY_POLICY_ZSTD only.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_policy(
    options: Option<&mut vferry_options>,
    policy: u32,
    level: i32,
) -> vferry_status {
    set(options, |options| {
        options.policy = match policy {
            0 => Policy::Adaptive,
            1 => Policy::Raw,
            2 if (-7..=19).contains(&level) => Policy::Zstd(level),
            2 => return Err(unknown("zstd level", level)),
            _ => return Err(unknown("policy", policy)),
        };
        Ok(())
    })
}

/// How the engine does its I/O: a `vferry_backend`.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_backend(
    options: Option<&mut vferry_options>,
    backend: u32,
) -> vferry_status {
    set(options, |options| {
        options.backend = match backend {
            0 => BackendChoice::Auto,
            1 => BackendChoice::IoUring,
            2 => BackendChoice::Syscalls,
            _ => return Err(unknown("backend", backend)),
        };
        Ok(())
    })
}

/// Whether the source may send with IORING_OP_SEND_ZC, on sockets where the kernel reports that it
/// did not copy. On by default.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_zero_copy(
    options: Option<&mut vferry_options>,
    zero_copy: bool,
) -> vferry_status {
    set(options, |options| {
        options.zero_copy = zero_copy;
        Ok(())
    })
}

/// Most memory for buffers, in bytes: up to 1 GiB, by default 32 MiB. A session allocates what it can
/// use of that at its start, and nothing later, whatever the state's size, the link or the peer.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_memory_bytes(
    options: Option<&mut vferry_options>,
    bytes: usize,
) -> vferry_status {
    set(options, |options| {
        options.memory_bytes = bytes;
        Ok(())
    })
}

/// Most bytes per second that all streams together send; 0, the default, for no limit. The kernel
/// enforces it (SO_MAX_PACING_RATE, an equal share for each stream), so the streams must be TCP:
/// otherwise `vferry_session_source` returns VFERRY_ERR_RATE_NEEDS_TCP. The limit of a
/// `vferry_channel` is how fast the VMM pulls.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_rate(
    options: Option<&mut vferry_options>,
    bytes_per_s: u64,
) -> vferry_status {
    set(options, |options| {
        options.rate_bytes_per_s = (bytes_per_s > 0).then_some(bytes_per_s);
        Ok(())
    })
}

/// How long the peer may be silent before it counts as lost: 1 to 86400000 ms (a day), or
/// VFERRY_NO_LIMIT where something else watches the connection. By default 10000. An engine that has
/// nothing to send sends pings.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_peer_silence_ms(
    options: Option<&mut vferry_options>,
    timeout_ms: i64,
) -> vferry_status {
    set(options, |options| {
        options.peer_silence = match timeout_ms {
            VFERRY_NO_LIMIT => FOREVER,
            some => period(some, "a silence")?,
        };
        Ok(())
    })
}

/// How long a cancelled session waits for an operation that is blocked in a driver, and an aborted
/// one for its devices to return: 1 to 86400000 ms (a day), by default 2000. An operation that is
/// still blocked then keeps a thread of its own, and the report says so (`stuck`).
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_cancel_bound_ms(
    options: Option<&mut vferry_options>,
    timeout_ms: i64,
) -> vferry_status {
    set(options, |options| {
        options.cancel_bound = period(timeout_ms, "a cancel bound")?;
        Ok(())
    })
}

/// How long the engine waits before it asks a device again that had no PRE_COPY data: 1 to 86400000
/// ms (a day), by default 20.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_precopy_poll_ms(
    options: Option<&mut vferry_options>,
    interval_ms: i64,
) -> vferry_status {
    set(options, |options| {
        options.precopy_poll = period(interval_ms, "a poll interval")?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_millisecond_to_a_day() {
        assert_eq!(period(1, "").ok(), Some(Duration::from_millis(1)));
        assert_eq!(period(86_400_000, "").ok(), Some(Duration::from_secs(24 * 3600)));
        for refused in [0, 86_400_001, VFERRY_NO_LIMIT, i64::MIN, i64::MAX] {
            assert!(period(refused, "").is_err(), "{refused}");
        }
    }

    /// Every setter changes its own option, to what it was told.
    #[test]
    fn setters_set_what_they_say() {
        let handle: *mut vferry_options = raw::handle(Mutex::new(Options::default()));
        let mut variable = handle;
        let set = |call: &dyn Fn(Option<&mut vferry_options>) -> vferry_status| {
            assert_eq!(call(raw::tests::borrow(handle)), vferry_status::VFERRY_OK);
        };
        set(&|o| vferry_options_set_chunk_bytes(o, 8192));
        set(&|o| vferry_options_set_workers(o, 3));
        set(&|o| vferry_options_set_policy(o, vferry_policy::VFERRY_POLICY_ZSTD as u32, -7));
        set(&|o| vferry_options_set_backend(o, vferry_backend::VFERRY_BACKEND_IO_URING as u32));
        set(&|o| vferry_options_set_zero_copy(o, false));
        set(&|o| vferry_options_set_memory_bytes(o, 1 << 20));
        set(&|o| vferry_options_set_rate(o, 1000));
        set(&|o| vferry_options_set_peer_silence_ms(o, 11));
        set(&|o| vferry_options_set_cancel_bound_ms(o, 12));
        set(&|o| vferry_options_set_precopy_poll_ms(o, 13));
        let found = copy(raw::tests::borrow(handle).as_deref()).expect("options");
        assert_eq!((found.chunk_bytes, found.workers, found.memory_bytes), (8192, 3, 1 << 20));
        assert_eq!((found.policy, found.backend), (Policy::Zstd(-7), BackendChoice::IoUring));
        assert_eq!((found.zero_copy, found.rate_bytes_per_s), (false, Some(1000)));
        let ms = Duration::from_millis;
        assert_eq!((found.peer_silence, found.cancel_bound), (ms(11), ms(12)));
        assert_eq!(found.precopy_poll, ms(13));

        set(&|o| vferry_options_set_rate(o, 0));
        set(&|o| vferry_options_set_policy(o, vferry_policy::VFERRY_POLICY_RAW as u32, 99));
        set(&|o| vferry_options_set_backend(o, vferry_backend::VFERRY_BACKEND_SYSCALLS as u32));
        set(&|o| vferry_options_set_peer_silence_ms(o, VFERRY_NO_LIMIT));
        let found = copy(raw::tests::borrow(handle).as_deref()).expect("options");
        assert_eq!((found.rate_bytes_per_s, found.peer_silence), (None, FOREVER));
        assert_eq!((found.policy, found.backend), (Policy::Raw, BackendChoice::Syscalls));
        vferry_options_free(Some(&mut variable));
        assert!(variable.is_null());
    }
}
