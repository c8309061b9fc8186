//! A session's options.

use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vfio_ferry::{Backend, BackendChoice, Options, Policy};

use crate::failure::{Failure, guarded};
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, VFERRY_ERR_RANGE};
use crate::values::{VFERRY_NO_LIMIT, unknown};

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
pub(crate) fn set(
    options: Option<&mut vferry_options>,
    change: impl FnOnce(&mut Options) -> Result<(), Failure>,
) -> vferry_status {
    guarded(|| change(&mut lock(raw::inner(options)?)))
}

/// A day, in milliseconds.
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A time from 1 ms to a day.
pub(crate) fn period(milliseconds: i64, what: &'static str) -> Result<Duration, Failure> {
    match u64::try_from(milliseconds) {
        Ok(some) if (1..=DAY_MS).contains(&milliseconds) => Ok(Duration::from_millis(some)),
        _ => Err(Failure::new(VFERRY_ERR_RANGE, format!("{what} of {milliseconds} ms"))),
    }
}

/// The same, or no limit.
fn limit(milliseconds: i64, what: &'static str) -> Result<Duration, Failure> {
    match milliseconds {
        VFERRY_NO_LIMIT => Ok(Duration::MAX),
        some => period(some, what),
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

/// Most bytes of state in one frame: 4096 to 4194304, by default 1048576. What is to be compressed is read in
/// 262144 bytes at most, or a quarter of this if that is more. The smaller of both hosts'
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

/// What the streams take together, in bytes per second, where the VMM knows (source); 0, the default,
/// where it does not. What is to be compressed need not be found out then. Without it the engine
/// sends a megabyte of padding while there is nothing else to send, over TCP, and none through a
/// `vferry_channel`, of which it learns from the first megabytes of state. Since version 6.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_path_rate(
    options: Option<&mut vferry_options>,
    bytes_per_s: u64,
) -> vferry_status {
    set(options, |options| {
        options.path_bytes_per_s = (bytes_per_s > 0).then_some(bytes_per_s);
        Ok(())
    })
}

/// Whether a stream that leaves this host may be in plaintext: for fds that the VMM connected itself, or
/// that it had from `vferry_listener_accept`, where the path is guarded otherwise. False by default: such
/// a stream is VFERRY_ERR_PLAINTEXT. Whoever is on an unguarded path can read and change the guest's
/// state. What is no IP, a `vferry_channel` among it, is the VMM's to guard. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_plaintext(
    options: Option<&mut vferry_options>,
    plaintext: bool,
) -> vferry_status {
    set(options, |options| {
        options.plaintext = plaintext;
        Ok(())
    })
}

/// The 16 bytes that name the session, which the target can be told to expect
/// (`vferry_door_set_session`); of the source. They are the caller's to make random and to keep secret.
/// NULL, the default: the library makes them. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_options_set_session(
    options: Option<&mut vferry_options>,
    session: *const u8,
) -> vferry_status {
    set(options, |options| {
        // SAFETY: the caller's 16 bytes, or NULL, as the header asks.
        options.session = unsafe { raw::number(session) };
        Ok(())
    })
}

/// How long the peer may be silent before it counts as lost: 1 to 86400000 ms (a day), or
/// VFERRY_NO_LIMIT where something else watches the connection. By default 10000. An engine that has
/// nothing to send sends pings: what must go on is limited by the stall limit.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_peer_silence_ms(
    options: Option<&mut vferry_options>,
    timeout_ms: i64,
) -> vferry_status {
    set(options, |options| {
        options.peer_silence = limit(timeout_ms, "a silence")?;
        Ok(())
    })
}

/// How long the handshake may take, from the session's start until both hosts have agreed on every
/// stream: 1 to 86400000 ms (a day), or VFERRY_NO_LIMIT. By default 10000. After it, as after each of
/// the limits below, the session is given up with VFERRY_CAUSE_TIME_LIMIT, and the text says who owed
/// what.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_handshake_limit_ms(
    options: Option<&mut vferry_options>,
    timeout_ms: i64,
) -> vferry_status {
    set(options, |options| {
        options.handshake_limit = limit(timeout_ms, "a handshake limit")?;
        Ok(())
    })
}

/// How long what is owed may make no progress: a call or an operation that a driver holds, an answer
/// that the engine wants of an embedded device's VMM, frames that the peer does not take, state that
/// does not come once its device has stopped. 1 to 86400000 ms (a day), or VFERRY_NO_LIMIT. By default
/// 30000. Pings are no progress, nor are bytes that trickle.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_stall_limit_ms(
    options: Option<&mut vferry_options>,
    timeout_ms: i64,
) -> vferry_status {
    set(options, |options| {
        options.stall_limit = limit(timeout_ms, "a stall limit")?;
        Ok(())
    })
}

/// How long a source may send none of the state before its switchover, when it owes none (target):
/// 1 to 86400000 ms (a day), or VFERRY_NO_LIMIT. By default 3600000, an hour.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_idle_limit_ms(
    options: Option<&mut vferry_options>,
    timeout_ms: i64,
) -> vferry_status {
    set(options, |options| {
        options.idle_limit = limit(timeout_ms, "an idle limit")?;
        Ok(())
    })
}

/// How long the guest may stand still (source): from `vferry_session_switchover` until the state is
/// handed over, 1 to 86400000 ms (a day). After it the migration is given up, and the guest runs on
/// here. VFERRY_NO_LIMIT, the default: for as long as there is progress.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_switchover_budget_ms(
    options: Option<&mut vferry_options>,
    timeout_ms: i64,
) -> vferry_status {
    set(options, |options| {
        options.switchover_budget = match timeout_ms {
            VFERRY_NO_LIMIT => None,
            some => Some(period(some, "a switchover budget")?),
        };
        Ok(())
    })
}

/// How long the source waits, after the handover, for the target's word that it runs: 1 to 86400000
/// ms (a day), or VFERRY_NO_LIMIT. By default 30000. After it the session ends as
/// VFERRY_ENDING_UNCONFIRMED.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_confirm_limit_ms(
    options: Option<&mut vferry_options>,
    timeout_ms: i64,
) -> vferry_status {
    set(options, |options| {
        options.confirm_limit = limit(timeout_ms, "a confirm limit")?;
        Ok(())
    })
}

/// How long a session that is cancelled, freed or given up may take to its end, in every stage of
/// either host: 1 to 86400000 ms (a day), by default 2000. Half of it is for operations that are
/// blocked in a driver, the rest for the devices' way back. What is still blocked then keeps a thread
/// of its own, and the reports say so (`stuck`, `home`).
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
        set(&|o| vferry_options_set_path_rate(o, 2000));
        set(&|o| vferry_options_set_plaintext(o, true));
        set(&|o| vferry_options_set_peer_silence_ms(o, 11));
        set(&|o| vferry_options_set_cancel_bound_ms(o, 12));
        set(&|o| vferry_options_set_precopy_poll_ms(o, 13));
        set(&|o| vferry_options_set_handshake_limit_ms(o, 14));
        set(&|o| vferry_options_set_stall_limit_ms(o, 15));
        set(&|o| vferry_options_set_idle_limit_ms(o, 16));
        set(&|o| vferry_options_set_confirm_limit_ms(o, 17));
        set(&|o| vferry_options_set_switchover_budget_ms(o, 18));
        let found = copy(raw::tests::borrow(handle).as_deref()).expect("options");
        assert_eq!((found.chunk_bytes, found.workers, found.memory_bytes), (8192, 3, 1 << 20));
        assert_eq!((found.policy, found.backend), (Policy::Zstd(-7), BackendChoice::IoUring));
        assert_eq!((found.zero_copy, found.rate_bytes_per_s), (false, Some(1000)));
        assert_eq!(found.path_bytes_per_s, Some(2000));
        assert!(found.plaintext);
        let ms = Duration::from_millis;
        assert_eq!((found.peer_silence, found.cancel_bound), (ms(11), ms(12)));
        assert_eq!(found.precopy_poll, ms(13));
        assert_eq!((found.handshake_limit, found.stall_limit), (ms(14), ms(15)));
        assert_eq!((found.idle_limit, found.confirm_limit), (ms(16), ms(17)));
        assert_eq!(found.switchover_budget, Some(ms(18)));

        set(&|o| vferry_options_set_rate(o, 0));
        set(&|o| vferry_options_set_path_rate(o, 0));
        set(&|o| vferry_options_set_policy(o, vferry_policy::VFERRY_POLICY_RAW as u32, 99));
        set(&|o| vferry_options_set_backend(o, vferry_backend::VFERRY_BACKEND_SYSCALLS as u32));
        set(&|o| vferry_options_set_peer_silence_ms(o, VFERRY_NO_LIMIT));
        set(&|o| vferry_options_set_handshake_limit_ms(o, VFERRY_NO_LIMIT));
        set(&|o| vferry_options_set_stall_limit_ms(o, VFERRY_NO_LIMIT));
        set(&|o| vferry_options_set_idle_limit_ms(o, VFERRY_NO_LIMIT));
        set(&|o| vferry_options_set_confirm_limit_ms(o, VFERRY_NO_LIMIT));
        set(&|o| vferry_options_set_switchover_budget_ms(o, VFERRY_NO_LIMIT));
        let found = copy(raw::tests::borrow(handle).as_deref()).expect("options");
        let limits = [found.peer_silence, found.handshake_limit, found.stall_limit];
        assert_eq!(limits, [Duration::MAX; 3]);
        assert_eq!((found.idle_limit, found.confirm_limit), (Duration::MAX, Duration::MAX));
        assert_eq!((found.rate_bytes_per_s, found.switchover_budget), (None, None));
        assert_eq!((found.policy, found.backend), (Policy::Raw, BackendChoice::Syscalls));
        assert_eq!(found.path_bytes_per_s, None);
        set(&|o| vferry_options_set_policy(o, vferry_policy::VFERRY_POLICY_ADAPTIVE as u32, 99));
        set(&|o| vferry_options_set_backend(o, vferry_backend::VFERRY_BACKEND_AUTO as u32));
        let found = copy(raw::tests::borrow(handle).as_deref()).expect("options");
        assert_eq!((found.policy, found.backend), (Policy::Adaptive, BackendChoice::Auto));

        // The sentence says which of the two numbers is wrong.
        for (policy, level, named) in [(2, 20, "zstd level 20"), (3, 1, "policy 3")] {
            let refused = vferry_options_set_policy(raw::tests::borrow(handle), policy, level);
            assert_eq!(refused, VFERRY_ERR_RANGE);
            crate::failure::last(|said, _| assert!(said.contains(named), "{said}"));
        }
        vferry_options_free(Some(&mut variable));
        assert!(variable.is_null());
    }
}
