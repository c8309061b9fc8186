//! What the sessions of a process share.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::lore::Lore;
use crate::buffers::{Budget, Share};
use crate::drive::Workers;
use crate::error::{Error, range};
use crate::limits;
use crate::ring::Backend;
use crate::threads::{ThreadHook, Threads};

/// Compression workers and memory for buffers that several sessions share, as where a VMM has a session
/// for each device: [`Options::engine`](super::Options::engine). Without one each session has its own.
///
/// It also keeps what sources have found out, at their ends, about the paths to at most 64 other hosts
/// and about compression: the next source begins with that in place of a guess, and measures all the
/// same. Ten minutes later it is forgotten. Sources with a rate limit neither add to it nor go by it.
///
/// A handle: clones are the same engine. Its threads end once it and all sessions that have it are
/// dropped. Any thread may use it.
#[derive(Clone)]
pub struct Engine {
    workers: Arc<Workers>,
    count: usize,
    memory: Budget,
    bytes: usize,
    lore: Lore,
}

/// What an engine is made with.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Threads that compress or decompress, for all sessions together. By default one a core, at most
    /// 8.
    pub workers: usize,
    /// Most memory for the buffers of all sessions together, in bytes. A session gets what its
    /// [`Options::memory_bytes`](super::Options::memory_bytes) says, or what is left, and holds it until nothing uses its buffers any
    /// more. By default 128 MiB.
    pub memory_bytes: usize,
    /// Called on each worker's thread before it works: see [`ThreadHook`].
    pub thread_start: Option<ThreadHook>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            workers: workers_default(),
            memory_bytes: limits::ENGINE_BYTES_DEFAULT,
            thread_start: None,
        }
    }
}

impl Engine {
    /// Starts the workers.
    ///
    /// # Errors
    /// [`UsageError::Range`](crate::error::UsageError::Range), and [`Error::System`] where the system gives no threads or memory.
    pub fn new(options: EngineOptions) -> Result<Engine, Error> {
        let EngineOptions { workers: count, memory_bytes: bytes, thread_start } = options;
        range("the number of workers", count, (1, limits::WORKERS_MAX))?;
        range("the memory for buffers", bytes, (1, limits::ENGINE_BYTES_MAX))?;
        // What a worker does is the same with either backend.
        let threads = Threads::new(thread_start);
        let workers = Workers::start(count, &threads, Backend::Syscalls).map_err(Error::System)?;
        Ok(Engine {
            workers: Arc::new(workers),
            count,
            memory: Budget::new(bytes),
            bytes,
            lore: Lore::default(),
        })
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.count
    }

    /// Bytes of memory that no session has.
    pub fn memory_left(&self) -> usize {
        self.memory.left()
    }

    /// What the path to this host takes, in bytes per second on the wire, as the last source over TCP
    /// has found it out; none where that is not known, or is ten minutes old.
    pub fn path_bytes_per_s(&self, host: IpAddr) -> Option<u64> {
        self.lore.recall(Some(host.to_canonical()), Instant::now()).bytes_per_s
    }

    pub(super) fn lore(&self) -> Lore {
        self.lore.clone()
    }

    /// A share of its memory.
    pub(super) fn take(&self, most_bytes: usize) -> Share {
        self.memory.take(most_bytes)
    }

    pub(super) fn threads(&self) -> Arc<Workers> {
        Arc::clone(&self.workers)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("workers", &self.count)
            .field("memory_bytes", &self.bytes)
            .field("memory_left", &self.memory_left())
            .finish()
    }
}

/// One a core, but no more than pay.
pub(super) fn workers_default() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_says_what_it_has() {
        let options = EngineOptions { workers: 3, memory_bytes: 5000, ..EngineOptions::default() };
        let engine = Engine::new(options).expect("threads");
        assert_eq!((engine.workers(), engine.memory_left()), (3, 5000));
        let share = engine.take(2000);
        assert_eq!((share.bytes(), engine.memory_left()), (2000, 3000));
        drop(share);
        assert_eq!(engine.memory_left(), 5000);
    }

    #[test]
    fn a_machine_of_several_cores_has_several_workers() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = workers_default();
        assert!(workers <= cores && (workers > 1 || cores == 1), "{workers} of {cores}");
    }
}
