//! The faults and what must become of them.

use vfio_ferry::outcome::{Cause, Host, Observation};

use Cause::{Cancelled, DeviceError, DeviceFailure, DeviceReset};
use Host::{Source, Target};
use Observation::{
    DeadOnArrival, Embedder, Poll, PrecopyInfo, Read, SetState, StateCheck, UnexpectedFd, Write,
};

const ENODEV: i32 = 19;
const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const ENOTCONN: i32 = 107;
const ETIMEDOUT: i32 = 110;

/// One thing that goes wrong in a migration of [`STATE_BYTES`].
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Whose device misbehaves.
    pub(super) host: Host,
    /// As the device's `control/fault` takes it; empty: nothing is armed.
    pub(super) fault: &'static str,
    /// Knobs of that device.
    pub(super) knobs: &'static [(&'static str, &'static str)],
    pub(super) precopy: bool,
    pub(super) then: Then,
    pub(super) expect: Expect,
}

/// What happens besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The embedder stops the devices when they are ready.
    Switchover,
    /// The embedder of that host cancels once a call is blocked in the driver.
    CancelWhenBlocked(Host),
    /// The source's device is reset by VFIO_DEVICE_RESET once it is drained in PRE_COPY.
    ResetWhenDrained,
    /// As `ResetWhenDrained`, while something holds the device's state mutex: the reset returns and
    /// is applied afterwards.
    ResetDeferred,
}

/// How the migration must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// As if nothing had happened.
    Complete,
    /// Aborted by the host whose device misbehaves: why, seen in one of these ways, with one of
    /// these errnos (none: no call failed).
    Abort(Cause, &'static [Observation], &'static [Option<i32>]),
}

/// Size of the devices' state.
pub(super) const STATE_BYTES: &str = "1M";

const PLAIN: Case = Case {
    name: "",
    host: Source,
    fault: "",
    knobs: &[],
    precopy: true,
    then: Then::Switchover,
    expect: Expect::Complete,
};

const fn reset(observed: &'static [Observation], errnos: &'static [Option<i32>]) -> Expect {
    Expect::Abort(DeviceReset, observed, errnos)
}

const fn failure(observed: &'static [Observation], errno: &'static [Option<i32>]) -> Expect {
    Expect::Abort(DeviceFailure, observed, errno)
}

const DEAD: &[Option<i32>] = &[Some(ENODEV)];
/// In PRE_COPY a device is read, polled and asked at the same time: which of the three meets the
/// fault first is chance. A poll fails no call; the precopy ioctl looks at the state first.
const IN_USE: &[Observation] = &[Read, Poll, PrecopyInfo];
const IN_USE_ERRNO: &[Option<i32>] = &[None, Some(ENODEV), Some(EINVAL)];

pub(super) const CASES: &[Case] = &[
    // Resets of the source.
    Case {
        name: "reset in use, in PRE_COPY",
        fault: "reset@read=64K",
        expect: reset(IN_USE, IN_USE_ERRNO),
        ..PLAIN
    },
    Case {
        name: "reset in use, in STOP_COPY",
        fault: "reset@read=64K",
        precopy: false,
        expect: reset(&[Read], DEAD),
        ..PLAIN
    },
    Case {
        name: "reset where the state's end would have been read",
        fault: "reset@read=end",
        expect: reset(&[Read], DEAD),
        ..PLAIN
    },
    Case {
        name: "reset between PRE_COPY and STOP_COPY",
        fault: "reset@before=PRE_COPY-STOP_COPY",
        expect: reset(&[UnexpectedFd, Poll], &[None]),
        ..PLAIN
    },
    Case {
        name: "reset on the way from PRE_COPY to STOP_COPY",
        fault: "reset@after=PRE_COPY-STOP_COPY",
        expect: reset(&[Read, Poll], IN_USE_ERRNO),
        ..PLAIN
    },
    Case {
        name: "reset on the way to PRE_COPY",
        fault: "reset@after=RUNNING-PRE_COPY",
        expect: reset(&[DeadOnArrival], DEAD),
        ..PLAIN
    },
    Case {
        name: "reset on the way to STOP_COPY",
        fault: "reset@after=RUNNING-STOP_COPY",
        precopy: false,
        expect: reset(&[DeadOnArrival], DEAD),
        ..PLAIN
    },
    Case {
        // Its answer may be what the switchover waited for, and it may come before the first read.
        name: "reset while the precopy ioctl is answered",
        fault: "reset@precopy_info",
        expect: reset(&[Read, Poll, PrecopyInfo, UnexpectedFd, DeadOnArrival], IN_USE_ERRNO),
        ..PLAIN
    },
    Case {
        // Two are asked at the session's start, and two on the way to PRE_COPY.
        name: "reset while the state is asked for, with a stale answer",
        fault: "reset@get_state=5",
        expect: reset(&[StateCheck], &[None]),
        ..PLAIN
    },
    Case {
        name: "VFIO_DEVICE_RESET of a drained device",
        then: Then::ResetWhenDrained,
        expect: reset(IN_USE, IN_USE_ERRNO),
        ..PLAIN
    },
    Case {
        name: "VFIO_DEVICE_RESET of a drained device, plain",
        knobs: &[("reset_kind", "plain")],
        then: Then::ResetWhenDrained,
        expect: reset(IN_USE, IN_USE_ERRNO),
        ..PLAIN
    },
    Case {
        name: "VFIO_DEVICE_RESET that is deferred",
        then: Then::ResetDeferred,
        expect: reset(IN_USE, IN_USE_ERRNO),
        ..PLAIN
    },
    // Resets of the target.
    Case {
        name: "reset of the target, silent in RESUMING",
        host: Target,
        fault: "reset@write=end",
        expect: reset(&[StateCheck], &[None]),
        ..PLAIN
    },
    Case {
        name: "reset of the target between two writes",
        host: Target,
        fault: "reset@write=64K",
        expect: reset(&[Write], DEAD),
        ..PLAIN
    },
    Case {
        // Two are asked at the session's start.
        name: "reset of the target while its state is asked for, with a stale answer",
        host: Target,
        fault: "reset@get_state=3",
        expect: reset(&[StateCheck], &[None]),
        ..PLAIN
    },
    Case {
        name: "reset of the target when it has taken the state in",
        host: Target,
        fault: "reset@after=RESUMING-STOP",
        expect: reset(&[StateCheck], &[None]),
        ..PLAIN
    },
    // Failures of the source.
    Case {
        name: "save failure with the state unchanged, in PRE_COPY",
        fault: "savefail@read=64K",
        expect: failure(IN_USE, IN_USE_ERRNO),
        ..PLAIN
    },
    Case {
        name: "save failure with the state unchanged, in STOP_COPY",
        fault: "savefail@read=64K",
        precopy: false,
        expect: failure(&[Read], DEAD),
        ..PLAIN
    },
    Case {
        name: "save failure that the precopy ioctl meets",
        fault: "savefail@precopy_info",
        expect: failure(IN_USE, IN_USE_ERRNO),
        ..PLAIN
    },
    Case {
        name: "ERROR out of nothing, in PRE_COPY",
        fault: "error@read=64K",
        expect: Expect::Abort(DeviceError, IN_USE, IN_USE_ERRNO),
        ..PLAIN
    },
    Case {
        name: "ERROR on the way to STOP_COPY",
        fault: "error@after=PRE_COPY-STOP_COPY",
        expect: Expect::Abort(
            DeviceError,
            &[Read, Poll, SetState],
            &[Some(ENODEV), Some(EIO), None],
        ),
        ..PLAIN
    },
    Case {
        name: "EIO from a read",
        fault: "eio@read=64K",
        expect: failure(&[Read], &[Some(EIO)]),
        ..PLAIN
    },
    Case {
        name: "ENOTCONN from a read",
        fault: "enotconn@read=64K",
        expect: failure(&[Read], &[Some(ENOTCONN)]),
        ..PLAIN
    },
    Case {
        name: "ENOTCONN on the way to PRE_COPY",
        fault: "enotconn@before=RUNNING-PRE_COPY",
        expect: failure(&[SetState], &[Some(ENOTCONN)]),
        ..PLAIN
    },
    Case {
        name: "ETIMEDOUT on the way to STOP_COPY",
        fault: "etimedout@before=PRE_COPY-STOP_COPY",
        expect: failure(&[SetState], &[Some(ETIMEDOUT)]),
        ..PLAIN
    },
    Case {
        name: "a path to STOP_COPY left half-way",
        fault: "eio@step=STOP-STOP_COPY",
        precopy: false,
        expect: failure(&[SetState], &[Some(EIO)]),
        ..PLAIN
    },
    Case {
        name: "a read that blocks for ever, and a cancel",
        fault: "block@read=64K",
        then: Then::CancelWhenBlocked(Source),
        expect: Expect::Abort(Cancelled, &[Embedder], &[None]),
        ..PLAIN
    },
    Case {
        name: "a read that blocks for ever in STOP_COPY, and a cancel",
        fault: "block@read=64K",
        precopy: false,
        then: Then::CancelWhenBlocked(Source),
        expect: Expect::Abort(Cancelled, &[Embedder], &[None]),
        ..PLAIN
    },
    // Failures of the target.
    Case {
        name: "EIO from a write",
        host: Target,
        fault: "eio@write=64K",
        expect: failure(&[Write], &[Some(EIO)]),
        ..PLAIN
    },
    Case {
        name: "ENOMEM from a write",
        host: Target,
        fault: "enomem@write=64K",
        expect: failure(&[Write], &[Some(ENOMEM)]),
        ..PLAIN
    },
    Case {
        name: "a record that the target's driver does not know",
        host: Target,
        fault: "eopnotsupp@write=64K",
        expect: failure(&[Write], &[Some(EOPNOTSUPP)]),
        ..PLAIN
    },
    Case {
        name: "a target of another size",
        host: Target,
        knobs: &[("state_bytes", "512K")],
        expect: failure(&[Write], &[Some(EFAULT), Some(ENOMEM)]),
        ..PLAIN
    },
    Case {
        name: "load failure with the state unchanged",
        host: Target,
        fault: "savefail@write=64K",
        expect: failure(&[Write], DEAD),
        ..PLAIN
    },
    Case {
        name: "ERROR of the target out of nothing",
        host: Target,
        fault: "error@write=64K",
        expect: Expect::Abort(DeviceError, &[Write], &[Some(ENODEV), Some(EIO)]),
        ..PLAIN
    },
    Case {
        name: "a target that does not take the state in",
        host: Target,
        fault: "einval@before=RESUMING-STOP",
        expect: failure(&[SetState], &[Some(EINVAL)]),
        ..PLAIN
    },
    Case {
        name: "a write that blocks for ever, and a cancel of the target",
        host: Target,
        fault: "block@write=64K",
        then: Then::CancelWhenBlocked(Target),
        expect: Expect::Abort(Cancelled, &[Embedder], &[None]),
        ..PLAIN
    },
    Case {
        name: "a write that blocks for ever, and a cancel of the source",
        host: Target,
        fault: "block@write=64K",
        then: Then::CancelWhenBlocked(Source),
        expect: Expect::Abort(Cancelled, &[Embedder], &[None]),
        ..PLAIN
    },
    // What is no fault.
    Case { name: "EAGAIN from a read", fault: "eagain@read=64K", ..PLAIN },
    Case { name: "EINTR from a read", fault: "eintr@read=64K", ..PLAIN },
    Case { name: "EAGAIN from a write", host: Target, fault: "eagain@write=64K", ..PLAIN },
    Case { name: "EINTR from a write", host: Target, fault: "eintr@write=64K", ..PLAIN },
    Case { name: "EINTR from the precopy ioctl", fault: "eintr@precopy_info", ..PLAIN },
    Case { name: "EINTR on the way to PRE_COPY", fault: "eintr@before=RUNNING-PRE_COPY", ..PLAIN },
    Case { name: "a driver that stalls for a while", fault: "stall@read=64K,200", ..PLAIN },
];
