//! What a seed stands for: the shape of the session, the devices, and everything that will go
//! wrong. All of it is drawn before the run begins.

use vfio_ferry::compress::policy::Policy;
use vfio_ferry::ids::StreamId;
use vfio_ferry::machine::{Request, TimeLimits};
use vfio_ferry::outcome::{DeviceOptions, Phase};
use vfio_ferry::vfio::state::Capabilities;

use super::schedule::HostId;

/// A run may take this many steps: a few times what the longest honest one needs.
pub(crate) const STEPS_MAX: u64 = 60_000;
/// When the embedders of both hosts lose their patience and cancel, in nanoseconds. Only an
/// operation that never ends may let it come to this.
pub(crate) const PATIENCE_NS: u64 = 3_000_000_000;

/// A whole run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) streams: u16,
    pub(crate) workers: usize,
    pub(crate) slots_per_device: usize,
    pub(crate) policy: Policy,
    /// Frames go through the codec, byte for byte.
    pub(crate) codec: bool,
    pub(crate) poll_ns: u64,
    pub(crate) bound_ns: u64,
    pub(crate) detach_bound_ns: u64,
    pub(crate) silence_ns: u64,
    /// How long each host's session waits for what.
    pub(crate) limits: [TimeLimits; 2],
    /// What each read or write of a host's device takes at least, and each frame on its stream.
    pub(crate) pace_ns: [u64; 2],
    pub(crate) frame_ns: u64,
    /// Nothing goes wrong, and no limit is over, however slow it is.
    pub(crate) honest: bool,
    /// Longest delay of a call of a control thread, a read or write, a frame, a worker.
    pub(crate) control_ns: u64,
    pub(crate) data_ns: u64,
    pub(crate) network_ns: u64,
    /// A stream that is so many times slower than the others.
    pub(crate) slow_stream: (u16, u64),
    pub(crate) worker_ns: u64,
    /// The abort that a host sends on every stream gets out on the first one only; an
    /// implementation may send no more than that.
    pub(crate) one_word: bool,
    /// The source may find out with padding how fast the path is.
    pub(crate) tries_path: bool,
    /// When the source's vCPUs are stopped.
    pub(crate) switchover: When,
    pub(crate) faults: Vec<DeviceFault>,
    pub(crate) happenings: Vec<(When, Happening)>,
    /// A peer that sends what it likes: frames of this host are changed on the way.
    pub(crate) hostile: Option<Hostile>,
}

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before this step of the run.
    Step(u64),
    /// At this time after the start.
    Ns(u64),
    /// So many steps after a device of this host first entered this phase.
    After(HostId, Phase, u64),
}

/// A device, the same on both hosts.
#[derive(Debug, Clone)]
pub(crate) struct DevicePlan {
    pub(crate) source: Capabilities,
    pub(crate) target: Capabilities,
    pub(crate) options: DeviceOptions,
    /// The VM is paused: the source finds its device in STOP.
    pub(crate) paused: bool,
    pub(crate) drained: Drained,
    /// New PRE_COPY data comes only after PRECOPY_INFO.
    pub(crate) wants_info: bool,
    pub(crate) reinit: bool,
    /// A read of a dead fd gives 0 where the drivers that are known give ENODEV.
    pub(crate) false_end: bool,
    pub(crate) sized: bool,
    /// All of its state is zeros.
    pub(crate) zeros: bool,
    /// Longest piece of state in bytes, and how many pieces there are at most: at the start, each
    /// time that the guest dirties the device, how often it does, and at the end.
    pub(crate) piece: u64,
    /// Longest read, in bytes.
    pub(crate) segment: u64,
    pub(crate) initial: u64,
    pub(crate) dirty: u64,
    pub(crate) rounds: u64,
    pub(crate) last: u64,
}

/// What a read of a drained PRE_COPY fd gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// ENOMSG: mlx5 and virtio, non-blocking.
    NoMessage,
    /// 0: mtty, hisi, qat.
    Zero,
    /// Nothing until there is something: an io_uring read on a blocking fd that polls.
    Parks,
}

/// Something goes wrong with a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeviceFault {
    pub(crate) host: HostId,
    pub(crate) device: u32,
    pub(crate) when: Trigger,
    pub(crate) what: Wrong,
}

/// During which call of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    At(When),
    /// The n-th call of the control thread.
    Control(u64),
    /// The n-th time that just this is asked.
    Asked(Request, u64),
    /// The n-th read or write.
    Data(u64),
    /// The n-th VFIO_DEVICE_RESET that the machine asks for.
    Resetting(u64),
}

/// What.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is reset from outside: now, or at some moment of the call.
    Reset,
    /// It falls into ERROR.
    Error,
    /// The call fails with this errno.
    Fails(i32),
    /// The call takes this many times as long as the longest.
    Slow(u64),
    /// The call returns only when this many bounds are over, or never.
    Stuck(Option<u64>),
    /// The read fails with this errno and nothing is wrong.
    Harmless(i32),
    /// The driver holds the call, and its mutex, for so many nanoseconds, whoever cancels it.
    Late(u64),
    /// The driver never gives the call back.
    Never,
    /// The embedder's device panics in the call.
    Panics,
}

/// Something else happens.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Cut(u16),
    /// All streams at once: the peer has died, or the network between.
    CutAll,
    /// Nothing arrives on this stream for so long.
    Stall(u16, u64),
    StallAll(u64),
    /// No frame arrives whole for so long, on this stream or on all: parts of so many bytes do.
    Crawl(Option<u16>, u64, u32),
    /// The next frame of this host is lost. Where its stream's numbers are looked at, the next one
    /// shows that; else only the clock does.
    Lose {
        host: HostId,
        seen: bool,
    },
    /// From now on nothing of this kind that the host sends arrives: it goes on to answer pings.
    Mute(HostId, Muted),
    /// A bit of this host's next data body (or, with the codec, header) changes on the way.
    Damage(HostId, bool),
    Cancel(HostId),
    Discard(u32),
    Message(HostId),
    /// Thread or ring could not be had.
    Local(HostId),
    AttachFails(HostId),
    /// The clock is looked at before anything is due.
    EarlyTick(HostId),
}

/// What a peer that only chatters leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Muted {
    /// Everything but pings, and what answers them.
    AllButLife,
    Data,
    Credit,
    Loaded,
    Handover,
    Running,
    Abort,
}

/// Which host's frames are tampered with, and one in how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hostile {
    pub(crate) host: HostId,
    pub(crate) one_in: u64,
}

impl Plan {
    /// Longest delay on this stream.
    pub(crate) fn network_ns(&self, stream: StreamId) -> u64 {
        let (slow, times) = self.slow_stream;
        if stream.0 == slow { self.network_ns * times } else { self.network_ns }
    }
}
