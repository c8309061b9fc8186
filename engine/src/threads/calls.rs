//! The system calls of each thread, for an embedder's seccomp filter. A test runs whole sessions under
//! filters that kill for any other (`tests/host/jails`).

use std::collections::BTreeMap;

use super::ThreadKind;
use crate::ring::Backend;

/// A system call of this architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemCall {
    /// Its number, as a seccomp filter compares it.
    pub number: i64,
    /// Its name in the kernel.
    pub name: &'static str,
    /// An argument that never has another value: its place, counted from 0, and the value. None: any
    /// may have any. openat is called by glibc only, to read; where a filter demands that, nothing can
    /// be opened to be written.
    pub fixed: Option<(u8, u64)>,
}

/// `SYS_read` becomes number and name. Old calls, which newer architectures lack, come behind a `;`.
macro_rules! calls {
    ($($call:ident)* $(; $($old:ident)*)?) => {
        &[
            $(call(libc::$call, stringify!($call)),)*
            $($(#[cfg(target_arch = "x86_64")] call(libc::$old, stringify!($old)),)*)?
        ]
    };
}

const fn call(number: libc::c_long, constant: &'static str) -> SystemCall {
    let (_, name) = constant.split_at("SYS_".len());
    SystemCall { number, name, fixed: None }
}

/// The first time that glibc's `free` gives memory of a heap back it reads
/// /proc/sys/vm/overcommit_memory, on whichever thread that is (`check_may_shrink_heap`); before 2.34
/// it reads a file to count the cores.
const OPEN_TO_READ: &[SystemCall] = &[SystemCall {
    fixed: Some((2, (libc::O_RDONLY | libc::O_CLOEXEC) as u64)),
    ..call(libc::SYS_openat, "SYS_openat")
}];

/// Every thread: the allocator, locks and clocks, waking another thread (an eventfd), a line of a
/// panic, its own end. `sched_getaffinity` is glibc's, which counts the cores before it makes a
/// heap; `fcntl` is, besides O_NONBLOCK, that of Rust's debug builds, which look at a descriptor before
/// they close it; `restart_syscall` is the kernel's, after a stop.
const EVERY: &[SystemCall] = calls!(
    SYS_brk SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_exit SYS_exit_group SYS_fcntl SYS_futex
    SYS_getpid SYS_getrandom SYS_gettid SYS_madvise SYS_mmap SYS_mprotect SYS_mremap SYS_munmap
    SYS_nanosleep SYS_read SYS_restart_syscall SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sched_getaffinity
    SYS_sched_yield SYS_sigaltstack SYS_write
);

/// Streams are sent and received (on plain system calls), asked where they lead and how fast, shut down,
/// or aborted; what the kernel's TLS says beside data is sent and received with its type; the ring is
/// awaited.
const NET: &[SystemCall] = calls!(
    SYS_connect SYS_getpeername SYS_getsockname SYS_getsockopt SYS_ppoll SYS_recvfrom SYS_recvmsg
    SYS_sendmsg SYS_sendto SYS_setsockopt SYS_shutdown; SYS_poll
);

/// The ioctls, and the descriptor that is kept free for a data fd.
const CONTROL: &[SystemCall] = calls!(SYS_eventfd2 SYS_ioctl SYS_ppoll; SYS_poll);

/// A data fd is asked whether it can be polled.
const DATA: &[SystemCall] = calls!(SYS_epoll_ctl SYS_getsockopt);

/// A protected stream is carried between its sockets, one of which is told to take much, and to
/// acknowledge it.
const TLS: &[SystemCall] = calls!(
    SYS_getsockopt SYS_ppoll SYS_recvfrom SYS_recvmsg SYS_sendmsg SYS_sendto SYS_setsockopt SYS_shutdown;
    SYS_poll
);

/// Of a thread with a ring, where it is an io_uring.
const RING: &[SystemCall] = calls!(SYS_io_uring_enter SYS_io_uring_register);

/// Making an io_uring.
const RING_START: &[SystemCall] = calls!(SYS_io_uring_setup);

/// Starting threads, and the rest of a session's start: descriptors, the streams' options and
/// addresses, the number of cores. Opening files is for that number (a cgroup's limit) and for
/// [`VfioDevice::open`](crate::VfioDevice::open).
const START: &[SystemCall] = calls!(
    SYS_clone SYS_clone3 SYS_dup SYS_epoll_create1 SYS_fstat SYS_getpeername SYS_getsockname SYS_lseek
    SYS_newfstatat SYS_openat SYS_prctl SYS_readlinkat SYS_rseq
    SYS_set_robust_list SYS_statx; SYS_readlink SYS_stat
);

/// Connecting and accepting (an acceptor is an epoll with a timer in it), addresses given as numbers,
/// and the socket pairs of channels.
const DOOR: &[SystemCall] = calls!(
    SYS_accept4 SYS_bind SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_listen
    SYS_socket SYS_socketpair
    SYS_timerfd_create SYS_timerfd_settime; SYS_epoll_wait
);

impl ThreadKind {
    /// The system calls that threads of this kind make, sorted by their numbers. For the engine's own
    /// threads: from the moment when their hook is called until they have ended. For
    /// [`ThreadKind::Embedder`]: to start a session, to talk to it and to drop it, to connect and to
    /// accept (host names are looked up by libc, in ways of its own), all threads' calls included,
    /// because a filter passes on to the threads that are started under it.
    ///
    /// With [`Backend::Syscalls`] none of io_uring's is among them: where
    /// [`BackendChoice::Syscalls`](crate::BackendChoice::Syscalls) was chosen, the engine does not
    /// even look whether there is one.
    ///
    /// What the embedder's own code does on these threads is not in here (see
    /// [`ThreadHook`](super::ThreadHook)), nor what another allocator or C library may do.
    pub fn system_calls(self, backend: Backend) -> impl Iterator<Item = SystemCall> + use<> {
        let ring = if backend == Backend::IoUring { RING } else { &[] };
        let ring_start = if backend == Backend::IoUring { RING_START } else { &[] };
        let parts: &[&[SystemCall]] = match self {
            ThreadKind::Net => &[NET, DATA, ring],
            ThreadKind::Control => &[CONTROL],
            ThreadKind::Data => &[],
            ThreadKind::Worker => &[],
            ThreadKind::Tls => &[TLS],
            ThreadKind::Embedder => &[NET, CONTROL, DATA, TLS, START, DOOR, ring, ring_start],
        };
        // A start may open as it likes, and comes after what every thread may.
        let all = [OPEN_TO_READ, EVERY].into_iter().chain(parts.iter().copied()).flatten();
        let calls: BTreeMap<i64, SystemCall> = all.map(|call| (call.number, *call)).collect();
        calls.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: ThreadKind, backend: Backend) -> Vec<&'static str> {
        kind.system_calls(backend).map(|call| call.name).collect()
    }

    #[test]
    fn names_are_the_kernels() {
        let calls = names(ThreadKind::Worker, Backend::IoUring);
        assert!(calls.contains(&"futex") && !calls.contains(&"ioctl"), "{calls:?}");
    }

    #[test]
    fn nothing_of_io_uring_is_in_the_other_backends_calls() {
        for kind in ThreadKind::ALL {
            let calls = names(kind, Backend::Syscalls);
            assert!(calls.iter().all(|name| !name.starts_with("io_uring")), "{kind:?}: {calls:?}");
        }
    }

    #[test]
    fn no_thread_may_more_than_the_one_that_starts_it() {
        for backend in [Backend::IoUring, Backend::Syscalls] {
            let all = names(ThreadKind::Embedder, backend);
            for kind in ThreadKind::ALL {
                assert!(names(kind, backend).iter().all(|name| all.contains(name)), "{kind:?}");
            }
        }
    }

    #[test]
    fn no_thread_can_become_another_program_or_open_but_to_read_once_it_works() {
        let never = ["execve", "execveat", "fork", "open", "socket", "ptrace", "clone", "clone3"];
        for backend in [Backend::IoUring, Backend::Syscalls] {
            for kind in ThreadKind::ALL.into_iter().filter(|kind| *kind != ThreadKind::Embedder) {
                let calls = names(kind, backend);
                assert!(never.iter().all(|name| !calls.contains(name)), "{kind:?}: {calls:?}");
                let open = kind.system_calls(backend).find(|call| call.name == "openat");
                assert_eq!(open.and_then(|call| call.fixed), Some((2, 0o2000000)), "{kind:?}");
            }
        }
    }
}
