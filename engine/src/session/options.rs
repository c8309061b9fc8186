//! What a session is made with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::engine::{Engine, workers_default};
use crate::buffers::Share;
use crate::compress::policy::Policy;
use crate::error::{UsageError, range};
use crate::limits;
use crate::machine::{NO_LIMIT_NS, SlotBudget, TimeLimits, limit_ns};
use crate::outcome::DeviceOptions;
use crate::ring::BackendChoice;
use crate::threads::ThreadHook;
use crate::vfio::device::MigrationDevice;
use crate::wire::unseen;

/// The embedder's choices for a session. Both hosts have their own; what must be the same is
/// agreed in the handshake.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of state in one frame at most; the smaller of both hosts' counts. Where `memory_bytes`
    /// does not reach for so many devices, it is halved until it does.
    pub chunk_bytes: usize,
    /// Threads that compress (source) or decompress (target).
    pub workers: usize,
    /// Raw, zstd, or decided per chunk (source).
    pub policy: Policy,
    /// What the streams take together, in bytes per second, where the embedder knows (source): what is
    /// to be compressed then need not be found out. None: it is found out, with a megabyte of padding
    /// while there is nothing else to send (TCP; not on streams that the embedder carries).
    pub path_bytes_per_s: Option<u64>,
    /// io_uring, plain system calls, or the first where it is granted.
    pub backend: BackendChoice,
    /// Send raw chunks with SEND_ZC where that is proven to copy nothing.
    pub zero_copy: bool,
    /// Most memory for buffers, in bytes.
    pub memory_bytes: usize,
    /// What the session shares with others of this process: its workers, in place of `workers`, and its
    /// memory, of which it takes `memory_bytes` or what is left.
    pub engine: Option<Engine>,
    /// Most bytes per second that all streams together send; none: no limit. For TCP streams
    /// (SO_MAX_PACING_RATE); on the VMM's own [`Channel`](super::Channel) the VMM is the limit.
    pub rate_bytes_per_s: Option<u64>,
    /// Whether a stream that leaves this host may be in plaintext. Only for sockets that the embedder
    /// connected itself, and only where the path is guarded otherwise: whoever is on it can read and
    /// change the guest's state. Streams that are no TCP are the embedder's to guard.
    pub plaintext: bool,
    /// The session's number, where the embedder chooses it so that the target can be told which one
    /// to expect ([`DoorOptions::session`](crate::DoorOptions::session)). It is the embedder's to make
    /// it random and to keep it secret. None: a random one (source).
    pub session: Option<u128>,
    /// How long the peer may be silent before it counts as lost.
    pub peer_silence: Duration,
    /// How long the handshake may take, from the start until every stream is agreed on. Then the
    /// session is given up with [`Cause::TimeLimit`](crate::Cause::TimeLimit), as with every limit
    /// here. [`Duration::MAX`] is no limit, here and in every other duration.
    pub handshake_limit: Duration,
    /// How long something that is owed may make no progress: a request, a read in STOP_COPY or a
    /// write that a driver (or the VMM of an embedded device) holds, frames that the peer does not
    /// take, state that does not come. For what the peer owes it is five times as long, because that
    /// may take it several calls of its driver. Pings are no progress, nor are bytes that trickle. A
    /// link that takes longer than this for one chunk counts as stalled.
    pub stall_limit: Duration,
    /// How long a source may send none of the state while it owes none: before its switchover
    /// (target).
    pub idle_limit: Duration,
    /// How long the guest may stand still: from [`switchover`](crate::SourceSession::switchover)
    /// until the state is handed over. Then the migration is given up and the guest runs on at the
    /// source (source). None: as long as there is progress.
    pub switchover_budget: Option<Duration>,
    /// How long the source waits, after the handover, for the target's word that it runs. Then the
    /// session ends as unconfirmed.
    pub confirm_limit: Duration,
    /// How long a session that is given up may take to its end: half of it for operations that
    /// drivers hold, the rest for the devices' way back.
    pub cancel_bound: Duration,
    /// How long to wait before a drained PRE_COPY device is asked again.
    pub precopy_poll: Duration,
    /// What is done on each of the session's threads before it begins its work: a seccomp filter, an
    /// affinity. None: nothing.
    pub thread_start: Option<ThreadHook>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            chunk_bytes: limits::CHUNK_BYTES_DEFAULT,
            workers: workers_default(),
            policy: Policy::Adaptive,
            path_bytes_per_s: None,
            backend: BackendChoice::Auto,
            zero_copy: true,
            memory_bytes: limits::ARENA_BYTES_DEFAULT,
            engine: None,
            rate_bytes_per_s: None,
            plaintext: false,
            session: None,
            peer_silence: limits::PEER_SILENCE_DEFAULT,
            handshake_limit: limits::HANDSHAKE_LIMIT_DEFAULT,
            stall_limit: limits::STALL_LIMIT_DEFAULT,
            idle_limit: limits::IDLE_LIMIT_DEFAULT,
            switchover_budget: None,
            confirm_limit: limits::CONFIRM_LIMIT_DEFAULT,
            cancel_bound: limits::CANCEL_BOUND_DEFAULT,
            precopy_poll: limits::PRECOPY_POLL_DEFAULT,
            thread_start: None,
        }
    }
}

/// A device that leaves this host.
#[derive(Clone)]
pub struct SourceDevice {
    /// The name that both hosts know it by.
    pub name: String,
    /// The device.
    pub device: Arc<dyn MigrationDevice>,
    /// The embedder's choices for it.
    pub options: DeviceOptions,
}

/// A device that receives state.
#[derive(Clone)]
pub struct TargetDevice {
    /// The name that both hosts know it by.
    pub name: String,
    /// The device.
    pub device: Arc<dyn MigrationDevice>,
}

impl fmt::Debug for SourceDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceDevice")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TargetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetDevice").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The slots of a session: from the options, and the numbers of devices, streams and workers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// What was chosen, or less where the memory does not reach.
    pub(super) chunk_bytes: usize,
    pub(super) slots_per_device: usize,
    pub(super) slots: usize,
}

impl Shape {
    /// Memory for the buffers.
    pub(super) fn bytes(&self) -> usize {
        self.slots * (self.chunk_bytes + limits::SLOT_HEAD_BYTES)
    }
}

impl Options {
    /// The limits of time, as the machines know them.
    pub(super) fn time_limits(&self) -> TimeLimits {
        TimeLimits {
            handshake_ns: limit_ns(self.handshake_limit),
            stall_ns: limit_ns(self.stall_limit),
            idle_ns: limit_ns(self.idle_limit),
            budget_ns: self.switchover_budget.map_or(NO_LIMIT_NS, limit_ns),
            confirm_ns: limit_ns(self.confirm_limit),
            cancel_ns: limit_ns(self.cancel_bound),
        }
    }

    /// Takes this session's share of the engine, if it has one, and reckons with that from here on.
    pub(super) fn take_share(&mut self) -> Result<Option<Share>, UsageError> {
        range("the memory for buffers", self.memory_bytes, (1, limits::ARENA_BYTES_MAX))?;
        let Some(engine) = &self.engine else { return Ok(None) };
        let share = engine.take(self.memory_bytes);
        self.workers = engine.workers();
        self.memory_bytes = share.bytes();
        Ok(Some(share))
    }

    /// Checks everything that can be wrong before anything is started.
    pub(super) fn shape(
        &self,
        devices: usize,
        streams: usize,
        secured: usize,
    ) -> Result<Shape, UsageError> {
        let chunk = (limits::CHUNK_BYTES_MIN, limits::CHUNK_BYTES_MAX);
        range("the number of devices", devices, (1, limits::DEVICES_MAX))?;
        range("the number of streams", streams, (1, limits::STREAMS_MAX))?;
        range("the chunk size", self.chunk_bytes, chunk)?;
        range("the number of workers", self.workers, (1, limits::WORKERS_MAX))?;
        // What TLS's records take is no longer there for the slots.
        let memory_bytes = self.memory_bytes.saturating_sub(secured * limits::TLS_STREAM_BYTES);
        let slots = |per_device| SlotBudget::total(devices, per_device, self.workers);
        let bytes =
            |per_device, chunk_bytes| slots(per_device) * (chunk_bytes + limits::SLOT_HEAD_BYTES);
        // Of many devices each has small chunks rather than none.
        let mut chunk_bytes = self.chunk_bytes;
        let least = |chunk_bytes| bytes(limits::SLOTS_PER_DEVICE_MIN, chunk_bytes);
        while least(chunk_bytes) > memory_bytes && chunk_bytes > limits::CHUNK_BYTES_MIN {
            chunk_bytes = (chunk_bytes / 2).max(limits::CHUNK_BYTES_MIN);
        }
        if least(chunk_bytes) > memory_bytes {
            return Err(UsageError::Memory {
                devices,
                chunk_bytes,
                needed: least(chunk_bytes),
                allowed: memory_bytes,
            });
        }
        let mut slots_per_device = SlotBudget::per_device(devices, self.workers, streams);
        while bytes(slots_per_device, chunk_bytes) > memory_bytes {
            slots_per_device -= 1;
        }
        Ok(Shape { chunk_bytes, slots_per_device, slots: slots(slots_per_device) })
    }
}

/// Checks the devices' names: they are how the two hosts know that they mean the same device.
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), UsageError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if name.is_empty() || !seen.insert(name) || unseen(name).is_some() {
            return Err(UsageError::Name { name: name.to_owned() });
        }
        if name.len() > limits::NAME_BYTES_MAX {
            let (what, max) = ("a device's name", limits::NAME_BYTES_MAX);
            return Err(UsageError::TooLong { what, found: name.len(), max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_devices_as_may_be_fit_into_the_default_memory() {
        let options = Options { workers: limits::WORKERS_MAX, ..Options::default() };
        for devices in 1..=limits::DEVICES_MAX {
            let shape = options.shape(devices, 2, 0).expect("the memory reaches");
            let taken = shape.slots * (shape.chunk_bytes + limits::SLOT_HEAD_BYTES);
            assert!(taken <= options.memory_bytes, "{devices}: {shape:?}");
            assert!(shape.slots_per_device >= limits::SLOTS_PER_DEVICE_MIN, "{devices}: {shape:?}");
            assert!(shape.chunk_bytes >= limits::CHUNK_BYTES_MIN, "{devices}: {shape:?}");
        }
        let few = Options { workers: 2, ..Options::default() }.shape(8, 2, 0).expect("it reaches");
        assert_eq!(few.chunk_bytes, limits::CHUNK_BYTES_DEFAULT, "nothing asks for less");
    }

    #[test]
    fn each_limit_is_its_own_and_in_nanoseconds() {
        let ms = Duration::from_millis;
        let options = Options {
            handshake_limit: ms(1),
            stall_limit: ms(2),
            idle_limit: ms(3),
            switchover_budget: Some(ms(4)),
            confirm_limit: ms(5),
            cancel_bound: ms(6),
            ..Options::default()
        };
        let TimeLimits { handshake_ns, stall_ns, idle_ns, budget_ns, confirm_ns, cancel_ns } =
            options.time_limits();
        let found = [handshake_ns, stall_ns, idle_ns, budget_ns, confirm_ns, cancel_ns];
        assert_eq!(found, [1, 2, 3, 4, 5, 6].map(|ms| ms * 1_000_000));
        let none = Options { switchover_budget: None, stall_limit: Duration::MAX, ..options };
        let limits = none.time_limits();
        assert_eq!((limits.budget_ns, limits.stall_ns), (NO_LIMIT_NS, NO_LIMIT_NS));
    }

    #[test]
    fn what_tls_takes_is_not_there_for_the_slots() {
        let options = Options { memory_bytes: 12 << 20, ..Options::default() };
        let shape = options.shape(1, 4, 4).expect("it fits");
        let slots = shape.slots * (shape.chunk_bytes + limits::SLOT_HEAD_BYTES);
        assert!(slots + 4 * limits::TLS_STREAM_BYTES <= options.memory_bytes, "{shape:?}");
        let less = Options { memory_bytes: 4 * limits::TLS_STREAM_BYTES, ..options };
        assert!(less.shape(1, 4, 4).is_err() && less.shape(1, 4, 0).is_ok());
    }

    #[test]
    fn what_does_not_fit_with_the_smallest_chunks_is_refused() {
        let least = 5 * (limits::CHUNK_BYTES_MIN + limits::SLOT_HEAD_BYTES);
        let options = Options { workers: 1, memory_bytes: least, ..Options::default() };
        assert_eq!(options.shape(1, 1, 0).expect("it fits").chunk_bytes, limits::CHUNK_BYTES_MIN);
        let refused = options.shape(2, 1, 0).expect_err("it does not fit");
        assert!(matches!(refused, UsageError::Memory { chunk_bytes: 4096, .. }), "{refused}");
    }

    #[test]
    fn memory_that_reaches_is_used_to_its_end() {
        let slot = |chunk_bytes: usize| chunk_bytes + limits::SLOT_HEAD_BYTES;
        let shape = |memory_bytes| {
            let chunk_bytes = 64 << 10;
            let options = Options { workers: 1, chunk_bytes, memory_bytes, ..Options::default() };
            let shape = options.shape(1, 1, 0).expect("it fits");
            assert_eq!(shape.bytes(), shape.slots * slot(shape.chunk_bytes));
            (shape.chunk_bytes >> 10, shape.slots_per_device, shape.slots)
        };
        let least = 5;
        assert_eq!(shape(least * slot(64 << 10) - 1), (32, 6, 8), "halved");
        assert_eq!(shape(least * slot(64 << 10)), (64, 3, 5));
        assert_eq!(shape(10 * slot(64 << 10) - 1), (64, 7, 9));
        assert_eq!(shape(10 * slot(64 << 10)), (64, 8, 10), "what is wanted of it");
        assert_eq!(shape(64 << 20), (64, 8, 10), "and no more");
    }

    #[test]
    fn a_name_tells_its_device_from_the_others() {
        let check = |names: &[&str]| check_names(names.iter().copied());
        assert_eq!(check(&["net0", "net1", "net 2"]), Ok(()));
        for names in [&["net0", ""][..], &["net0", "net1", "net0"], &["net0", "net\n1"]] {
            let error = check(names).expect_err("one is no name");
            assert!(matches!(error, UsageError::Name { .. }), "{names:?}: {error}");
        }
        let longest = "n".repeat(limits::NAME_BYTES_MAX);
        assert_eq!(check(&[&longest]), Ok(()));
        let error = check(&[&format!("{longest}n")]).expect_err("a byte too many");
        assert!(matches!(error, UsageError::TooLong { found: 256, max: 255, .. }), "{error}");
    }
}
