//! A session's options.

use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vfio_ferry::session::{Backend, BackendChoice, Options, Policy};

use crate::failure::{Failure, guarded};
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, VFERRY_ERR_RANGE};
use crate::values::unknown;

/// What a session is made with. Each host has its own; what must be the same is agreed between
/// them. Every option has a default, and a session made without options has them all.
///
/// Made by `vferry_options_new`, freed by `vferry_options_free`. A session copies what it needs:
/// options may be used for several, changed and freed at any time.
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
    /// Decided for each chunk by what is faster at that moment. The default.
    VFERRY_POLICY_ADAPTIVE = 0,
    /// Never.
    VFERRY_POLICY_RAW = 1,
    /// Whatever shrinks, with zstd at a level of your choice.
    VFERRY_POLICY_ZSTD = 2,
}

/// How the engine does its I/O.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_backend {
    /// io_uring where it is granted, plain system calls otherwise. The default.
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

/// A time that is not nothing.
fn time(milliseconds: u32, what: &'static str) -> Result<Duration, Failure> {
    match milliseconds {
        0 => Err(Failure::new(VFERRY_ERR_RANGE, format!("{what} of 0 ms"))),
        some => Ok(Duration::from_millis(some.into())),
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

/// Frees options and sets the variable to NULL. Where it, or `options` itself, is NULL there is
/// nothing to do.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_free(options: Option<&mut *mut vferry_options>) {
    guarded(|| {
        drop(raw::take(options));
        Ok(())
    });
}

/// Bytes of state that one frame carries at most: 4096 to 4194304, by default 262144. The smaller
/// of both hosts' counts holds. Whether a count can be used is said when a session is made.
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

/// Threads that compress (source) or decompress (target): 1 to 64, by default one for each core, 8
/// at most.
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

/// Whether to compress: a `vferry_policy`. `level` is zstd's, -7 to 19, and counts for
/// `VFERRY_POLICY_ZSTD` only.
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

/// Whether the source may send with IORING_OP_SEND_ZC, on sockets where the kernel proves to copy
/// nothing. On by default.
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

/// Most memory for buffers, in bytes: up to 1 GiB, by default 32 MiB. A session takes what it can
/// use of it at its start and never more, whatever the state's size, the link or the peer.
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

/// Most bytes per second that all streams together send; 0 for no limit, which is the default. The
/// kernel keeps it, with SO_MAX_PACING_RATE and an equal share for each stream, so streams must be
/// TCP: for others `vferry_session_source` answers VFERRY_ERR_RATE_NEEDS_TCP. What a `vferry_channel` carries is
/// limited by how fast it is pulled.
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

/// How long the peer may be silent before it counts as lost, in milliseconds; by default 10000. An
/// engine that has nothing to say sends pings.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_peer_silence_ms(
    options: Option<&mut vferry_options>,
    milliseconds: u32,
) -> vferry_status {
    set(options, |options| {
        options.peer_silence = time(milliseconds, "a silence")?;
        Ok(())
    })
}

/// How long a cancel waits for an operation that a driver holds, and an abort for the devices' way
/// back, in milliseconds; by default 2000. What is still held then is left to a thread of its own,
/// and the report says so.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_cancel_bound_ms(
    options: Option<&mut vferry_options>,
    milliseconds: u32,
) -> vferry_status {
    set(options, |options| {
        options.cancel_bound = time(milliseconds, "a cancel bound")?;
        Ok(())
    })
}

/// How long to wait before a device that had no PRE_COPY data is asked again, in milliseconds; by
/// default 20.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_precopy_poll_ms(
    options: Option<&mut vferry_options>,
    milliseconds: u32,
) -> vferry_status {
    set(options, |options| {
        options.precopy_poll = time(milliseconds, "a poll interval")?;
        Ok(())
    })
}
