//! What the VMM does on the library's threads before they work, and what they then ask of the kernel.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;

use vfio_ferry::{Backend, SystemCall, ThreadHook, ThreadKind, ThreadStart};

use crate::failure::{Failure, guarded};
use crate::options::{backend_number, set, vferry_backend, vferry_options};
use crate::raw;
use crate::status::vferry_status::{self, *};
use crate::values::unknown;

/// What a thread does, and so which system calls it makes.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_thread_kind {
    /// Not one of the library's: the VMM's, which makes sessions and talks to them. The library's own
    /// are such a thread until their hook is called.
    VFERRY_THREAD_EMBEDDER = 0,
    /// ferry-net: one a session, its streams and its decisions.
    VFERRY_THREAD_NET = 1,
    /// ferry-ctl-N: one a device, its ioctls.
    VFERRY_THREAD_CONTROL = 2,
    /// ferry-fd-N: one a device: reads and writes of data fds that have a poll, and of all with plain
    /// system calls. For the others io_uring has workers in the kernel.
    VFERRY_THREAD_DATA = 3,
    /// ferry-zstd-N: compresses, decompresses, checks.
    VFERRY_THREAD_WORKER = 4,
    /// ferry-tls-N: carries a stream that is guarded by TLS. Since version 5.
    VFERRY_THREAD_TLS = 5,
}

/// Room for a thread's name, the NUL included; as much as the kernel keeps.
pub const VFERRY_THREAD_NAME_BYTES: usize = 16;

/// A thread of the library that is about to begin its work.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vferry_thread {
    /// sizeof(vferry_thread) in the library that runs. A later one may be longer.
    pub size: u32,
    /// A `vferry_thread_kind`.
    pub kind: u32,
    /// Which of its kind: the device's number, the worker's, or the stream's; 0 for VFERRY_THREAD_NET.
    pub index: u32,
    /// How it does its I/O: VFERRY_BACKEND_IO_URING or VFERRY_BACKEND_SYSCALLS.
    pub backend: u32,
    /// Its name, as the system shows it.
    pub name: [c_char; VFERRY_THREAD_NAME_BYTES],
}

/// What the VMM does on a thread before it works. `thread` lives for as long as the call. Returns 0,
/// or an errno: then the session is not made.
pub type vferry_thread_hook =
    Option<extern "C" fn(thread: &vferry_thread, opaque: *mut c_void) -> c_int>;

/// The numbers of `ThreadKind::ALL` in their order.
const KINDS: [vferry_thread_kind; 6] = [
    vferry_thread_kind::VFERRY_THREAD_EMBEDDER,
    vferry_thread_kind::VFERRY_THREAD_NET,
    vferry_thread_kind::VFERRY_THREAD_CONTROL,
    vferry_thread_kind::VFERRY_THREAD_DATA,
    vferry_thread_kind::VFERRY_THREAD_WORKER,
    vferry_thread_kind::VFERRY_THREAD_TLS,
];

fn number(kind: ThreadKind) -> u32 {
    let place = ThreadKind::ALL.iter().position(|known| *known == kind);
    place.and_then(|place| KINDS.get(place)).map_or(u32::MAX, |kind| *kind as u32)
}

fn start(start: &ThreadStart<'_>) -> vferry_thread {
    let mut thread = vferry_thread {
        size: size_of::<vferry_thread>() as u32,
        kind: number(start.kind),
        index: start.index,
        backend: backend_number(start.backend),
        name: [0; VFERRY_THREAD_NAME_BYTES],
    };
    raw::fill_text(start.name, &mut thread.name);
    thread
}

/// What is done on each of a session's threads before it works: a seccomp filter, an affinity. NULL,
/// the default, for nothing. Since version 5.
///
/// This is the only thing that the library ever calls. It is called once on each thread, on that
/// thread, while `vferry_session_source` or `vferry_session_target` waits for it, and must not call
/// the library with the session's handles. The thread has its ring and its fds by then, so a filter
/// that is set here need allow no more than what `vferry_system_calls` gives for `kind` and `backend`;
/// whatever the filter's action is, such a thread does not meet it. ferry-net comes last. The signals
/// that a thread brings upon itself are not blocked, SIGSYS among them: where a filter traps, the VMM's
/// handler runs.
///
/// Where the hook returns an errno, `vferry_session_source` and `vferry_session_target` return
/// VFERRY_ERR_SYSTEM, and `vferry_last_error` names the thread. `opaque` is the VMM's own, must be good
/// for any thread, and for as long as these options may be used.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_thread_start(
    options: Option<&mut vferry_options>,
    hook: vferry_thread_hook,
    opaque: *mut c_void,
) -> vferry_status {
    // The library does not look at it, so a number does; pointers do not go from thread to thread.
    let opaque = opaque.expose_provenance();
    set(options, |options| {
        options.thread_start = hook.map(|hook| {
            ThreadHook::new(move |thread| {
                match hook(&start(thread), std::ptr::with_exposed_provenance_mut(opaque)) {
                    0 => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                }
            })
        });
        Ok(())
    })
}

/// Gives the system calls of threads of a kind (a `vferry_thread_kind`), as numbers of this
/// architecture, ascending. `backend` is VFERRY_BACKEND_IO_URING or VFERRY_BACKEND_SYSCALLS; with the
/// latter none of io_uring's is among them, and a session with that backend does not even look whether
/// there is one. Since version 5.
///
/// For the library's own threads these are their calls from their hook until their end. For
/// VFERRY_THREAD_EMBEDDER those that make a session, talk to it and free it, all threads' included,
/// because a filter passes on to the threads that are started under it. What another allocator than
/// glibc's does is not in here. glibc's is why every thread may call openat: it reads a file, so a
/// filter may demand that the third argument is O_RDONLY | O_CLOEXEC on the library's own threads.
///
/// `numbers` has room for `capacity` of them: VFERRY_ERR_BUFFER_TOO_SMALL if that is too little, 128 is
/// enough. `*count` is how many there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_system_calls(
    kind: u32,
    backend: u32,
    numbers: *mut i64,
    capacity: usize,
    count: Option<&mut MaybeUninit<usize>>,
) -> vferry_status {
    const IO_URING: u32 = vferry_backend::VFERRY_BACKEND_IO_URING as u32;
    const SYSCALLS: u32 = vferry_backend::VFERRY_BACKEND_SYSCALLS as u32;
    guarded(|| {
        let place = raw::out(count, "count")?;
        let found = ThreadKind::ALL.into_iter().find(|known| number(*known) == kind);
        let kind = found.ok_or_else(|| unknown("kind of thread", kind))?;
        let backend = match backend {
            IO_URING => Backend::IoUring,
            SYSCALLS => Backend::Syscalls,
            _ => return Err(unknown("backend of a thread", backend)),
        };
        let calls: Vec<SystemCall> = kind.system_calls(backend).collect();
        // SAFETY: the caller's array of this capacity, as the header asks.
        let room = unsafe { raw::room(numbers, capacity, "numbers") }?;
        let Some(room) = room.get_mut(..calls.len()) else {
            let message = format!("there are {} system calls; room for {capacity}", calls.len());
            return Err(Failure::new(VFERRY_ERR_BUFFER_TOO_SMALL, message));
        };
        room.iter_mut().zip(&calls).for_each(|(place, call)| *place = call.number);
        place.write(calls.len());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::vferry_thread_kind::*;
    use super::*;

    #[test]
    fn the_headers_numbers_are_these() {
        for (kind, expected) in [
            (ThreadKind::Embedder, VFERRY_THREAD_EMBEDDER),
            (ThreadKind::Net, VFERRY_THREAD_NET),
            (ThreadKind::Control, VFERRY_THREAD_CONTROL),
            (ThreadKind::Data, VFERRY_THREAD_DATA),
            (ThreadKind::Worker, VFERRY_THREAD_WORKER),
            (ThreadKind::Tls, VFERRY_THREAD_TLS),
        ] {
            assert_eq!(number(kind), expected as u32, "{kind:?}");
        }
        assert_eq!(KINDS.len(), ThreadKind::ALL.len());
    }
}
