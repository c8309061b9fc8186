//! Where the engine's threads are started, all of them: under what name, and with what the embedder
//! wants to do on each before it works: a seccomp filter, an affinity, a priority. `calls` has the
//! system calls that each makes after that.

mod calls;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, bounded};

use crate::ring::Backend;

pub use calls::SystemCall;

/// What a thread does, and so which system calls it makes: see
/// [`system_calls`](ThreadKind::system_calls).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ThreadKind {
    /// Not one of the engine's: the embedder's, which starts sessions and talks to them. The engine's
    /// own are such a thread until their hook is called.
    Embedder,
    /// `ferry-net`: one a session, its streams and its decisions.
    Net,
    /// `ferry-ctl-N`: one a device, its ioctls.
    Control,
    /// `ferry-fd-N`: one a device: reads and writes of data fds that have a poll, and of all with plain
    /// system calls. For the others io_uring has workers in the kernel.
    Data,
    /// `ferry-zstd-N`: compresses, decompresses, checks.
    Worker,
    /// `ferry-tls-N`: one a protected stream, whose records it seals and opens.
    Tls,
}

impl ThreadKind {
    /// All of them.
    pub const ALL: [ThreadKind; 6] = [
        ThreadKind::Embedder,
        ThreadKind::Net,
        ThreadKind::Control,
        ThreadKind::Data,
        ThreadKind::Worker,
        ThreadKind::Tls,
    ];

    /// What a thread of this kind is called. The kernel keeps 15 bytes of it.
    fn name(self, index: u32) -> String {
        match self {
            ThreadKind::Embedder => "the embedder's".to_owned(),
            ThreadKind::Net => "ferry-net".to_owned(),
            ThreadKind::Control => format!("ferry-ctl-{index}"),
            ThreadKind::Data => format!("ferry-fd-{index}"),
            ThreadKind::Worker => format!("ferry-zstd-{index}"),
            ThreadKind::Tls => format!("ferry-tls-{index}"),
        }
    }
}

/// A thread of the engine that is about to begin its work.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ThreadStart<'a> {
    /// What it does.
    pub kind: ThreadKind,
    /// Which of its kind: the device's number, the worker's, or the stream's; 0 for [`ThreadKind::Net`].
    pub index: u32,
    /// Its name, as the system shows it.
    pub name: &'a str,
    /// How it does its I/O: what [`BackendChoice::Auto`](crate::BackendChoice::Auto) came to.
    pub backend: Backend,
}

impl ThreadStart<'_> {
    /// The system calls that it makes from here on, to its end.
    pub fn system_calls(&self) -> impl Iterator<Item = SystemCall> + use<> {
        self.kind.system_calls(self.backend)
    }
}

/// What the embedder does on each of the engine's threads before it begins its work:
/// [`Options::thread_start`](crate::Options::thread_start).
///
/// It is called once on every thread, on that thread, while the session's start waits for it. The
/// thread has its ring and descriptors by then, so that a seccomp filter which is set here need allow
/// only what [`ThreadStart::system_calls`] names, and what the embedder's own code makes there: its
/// [`MigrationDevice`](crate::MigrationDevice)s, its `tracing` subscriber, its panic hook. All signals
/// but those that a thread brings upon itself (SIGSYS, SIGSEGV ...) are blocked. `ferry-net` is the
/// last one, and starts no threads any more.
///
/// An error, or a panic, means that no session is started:
/// [`Error::System`](crate::Error::System), and the devices are as they were.
#[derive(Clone)]
pub struct ThreadHook(Arc<HookFn>);

type HookFn = dyn Fn(&ThreadStart<'_>) -> io::Result<()> + Send + Sync;

impl ThreadHook {
    /// This function.
    pub fn new(
        hook: impl Fn(&ThreadStart<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> ThreadHook {
        ThreadHook(Arc::new(hook))
    }
}

impl fmt::Debug for ThreadHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ThreadHook").finish_non_exhaustive()
    }
}

/// Starts threads.
#[derive(Debug, Clone, Default)]
pub struct Threads {
    hook: Option<ThreadHook>,
}

impl Threads {
    /// Threads that begin with this.
    pub fn new(hook: Option<ThreadHook>) -> Threads {
        Threads { hook }
    }

    /// Starts a thread, which runs the hook once it has what it opens.
    pub fn spawn(
        &self,
        kind: ThreadKind,
        index: u32,
        body: impl FnOnce(Hook) + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let name = kind.name(index);
        let hook = Hook { hook: self.hook.clone(), kind, index, name: name.clone() };
        Builder::new().name(name).spawn(move || body(hook))
    }

    /// Starts a thread that opens nothing of its own; it has begun when [`Ready::wait`] says so. A
    /// thread that the hook refuses ends without its body.
    pub fn spawn_ready(
        &self,
        kind: ThreadKind,
        index: u32,
        backend: Backend,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<Ready> {
        let (told, begun) = bounded(1);
        self.spawn(kind, index, move |hook| {
            let allowed = hook.run(backend);
            let begins = allowed.is_ok();
            let _ = told.send(allowed);
            drop(told);
            if begins {
                body();
            }
        })?;
        Ok(Ready(begun))
    }
}

/// The embedder's part of one thread's start.
#[derive(Debug)]
pub struct Hook {
    hook: Option<ThreadHook>,
    kind: ThreadKind,
    index: u32,
    name: String,
}

impl Hook {
    /// Lets the embedder do it, on the thread itself.
    pub fn run(self, backend: Backend) -> io::Result<()> {
        let Hook { hook: Some(ThreadHook(hook)), kind, index, name } = self else { return Ok(()) };
        let start = ThreadStart { kind, index, name: &name, backend };
        let failed = |kind, why: &dyn fmt::Display| {
            io::Error::new(kind, format!("what the VMM does at the start of {name} failed: {why}"))
        };
        match catch_unwind(AssertUnwindSafe(|| hook(&start))) {
            Ok(done) => done.map_err(|error| failed(error.kind(), &error)),
            Err(_) => Err(failed(io::ErrorKind::Other, &"it panicked")),
        }
    }
}

/// That a thread begins, or not.
#[derive(Debug)]
pub struct Ready(Receiver<io::Result<()>>);

impl Ready {
    /// Waits for the hook.
    pub fn wait(self) -> io::Result<()> {
        self.0.recv().map_err(|_| io::Error::other("the thread died"))?
    }
}
