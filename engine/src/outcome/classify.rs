//! From what the kernel answered, and the device's state read twice, to a cause. One table:
//! [`RULES`], of which the first row that fits decides.
//!
//! Source of the rows: the reset race of mlx5, virtio, xe and mtty (`*_state_mutex_unlock` applying
//! a deferred reset), `hisi_acc_vf_disable_fds`, `qat_vf_*`, and pds's asynchronous ERROR.
//!
//! After ENODEV the state tells: RUNNING means a reset (or our own cancel), an unchanged state
//! means that firmware or the PF failed, ERROR means that the device must be reset. The state must
//! have settled: while a deferred reset is pending the first GET_STATE is stale and the second is
//! right ([`MigrationDevice::settled_state`](crate::vfio::device::MigrationDevice::settled_state)).
//!
//! The answer to every operation x errno x state is pinned in `tests/vectors/classify_grid.txt`.

use super::{Cause, Observation};
use crate::errno;
use crate::vfio::state::DeviceState;

/// What the engine was doing when the kernel answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reading the data fd; `first` is the first read of a new fd.
    Read {
        /// No byte has come out of this fd yet.
        first: bool,
    },
    /// Polling the data fd.
    Poll,
    /// VFIO_MIG_GET_PRECOPY_INFO.
    PrecopyInfo,
    /// SET_STATE.
    SetState,
    /// SET_STATE inside the saving states gave a new fd.
    UnexpectedFd,
    /// GET_STATE before an arc that relies on it.
    StateCheck,
    /// Writing the resume fd.
    Write,
}

/// What was seen: the operation, its errno if it failed, whether the engine itself had cancelled,
/// and the state that the device should have and has, the latter read twice and the second kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceAnswer {
    /// The operation.
    pub operation: Operation,
    /// The positive errno, or none where no call failed (an unexpected fd, a state check, a poll
    /// that reported RDHUP).
    pub errno: Option<i32>,
    /// The engine had asked for this operation to be cancelled.
    pub cancelled: bool,
    /// The state in which the migration had left the device.
    pub expected: DeviceState,
    /// The state that the device was found in; none if it could not be read, or if the embedder
    /// keeps the device fd to itself.
    pub found: Option<DeviceState>,
}

/// Whether the answer ends anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The epoch, or the migration, cannot go on.
    Fault,
    /// Nothing was lost and nothing is wrong (EAGAIN, a signal, no data for now, the state that
    /// was expected): what was asked can be asked again.
    Harmless,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Finding {
    /// Who or what; only of meaning for a [`Verdict::Fault`].
    pub cause: Cause,
    /// How it was seen.
    pub observed: Observation,
    /// Whether it is a fault at all.
    pub verdict: Verdict,
    /// The answer is that of a device that is gone, and its state is unchanged: a reset in progress
    /// (a function-level reset takes 100 ms) looks the same until it is done, and a later GET_STATE
    /// may make a [`Cause::DeviceReset`] of this [`Cause::DeviceFailure`].
    pub settles: bool,
    /// The name of the row that decided: for logs and tests.
    pub rule: &'static str,
    /// What happened, and what to do about it where there is something: one or two sentences.
    pub message: &'static str,
}

/// Says what a device's answer means.
pub fn classify(answer: DeviceAnswer) -> Finding {
    let seen = Seen::from(&answer);
    let rule =
        RULES.iter().find(|rule| rule.fits(&answer, seen)).expect("the last row fits everything");
    Finding {
        cause: rule.cause,
        observed: observation(&answer),
        verdict: rule.verdict,
        // A device that is to be in RUNNING cannot be found there by a reset.
        settles: rule.settles && answer.expected != DeviceState::Running,
        rule: rule.name,
        message: rule.message,
    }
}

fn observation(answer: &DeviceAnswer) -> Observation {
    match answer.operation {
        Operation::Read { first: true } if answer.errno == Some(errno::ENODEV) => {
            Observation::DeadOnArrival
        }
        Operation::Read { .. } => Observation::Read,
        Operation::Poll => Observation::Poll,
        Operation::PrecopyInfo => Observation::PrecopyInfo,
        Operation::SetState => Observation::SetState,
        Operation::UnexpectedFd => Observation::UnexpectedFd,
        Operation::StateCheck => Observation::StateCheck,
        Operation::Write => Observation::Write,
    }
}

/// What the state says, the expected one taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// In RUNNING, and the migration did not put it there.
    Lost,
    /// In ERROR.
    Error,
    /// Where the migration had left it.
    Unchanged,
    /// In another state.
    Moved,
    /// Not known.
    Unknown,
}

impl Seen {
    fn from(answer: &DeviceAnswer) -> Seen {
        // Who uses a data fd is in a saving or resuming state, whatever was expected.
        let has_fd = !matches!(answer.operation, Operation::SetState | Operation::StateCheck);
        match answer.found {
            None => Seen::Unknown,
            Some(DeviceState::Error) => Seen::Error,
            Some(DeviceState::Running) if has_fd || answer.expected != DeviceState::Running => {
                Seen::Lost
            }
            Some(found) if found == answer.expected => Seen::Unchanged,
            Some(_) => Seen::Moved,
        }
    }
}

/// The operations that a row is about.
#[derive(Clone, Copy)]
enum On {
    Any,
    Reading,
    Polling,
    Asking,
    Setting,
    NewFd,
    Checking,
    Writing,
}

impl On {
    fn fits(self, operation: Operation) -> bool {
        match self {
            On::Any => true,
            On::Reading => matches!(operation, Operation::Read { .. }),
            On::Polling => operation == Operation::Poll,
            On::Asking => operation == Operation::PrecopyInfo,
            On::Setting => operation == Operation::SetState,
            On::NewFd => operation == Operation::UnexpectedFd,
            On::Checking => operation == Operation::StateCheck,
            On::Writing => operation == Operation::Write,
        }
    }
}

/// The errnos that a row is about.
#[derive(Clone, Copy)]
enum Errno {
    /// Any, or none.
    Any,
    /// No call failed.
    None,
    /// One of these.
    Of(&'static [i32]),
}

impl Errno {
    fn fits(self, errno: Option<i32>) -> bool {
        match self {
            Errno::Any => true,
            Errno::None => errno.is_none(),
            Errno::Of(errnos) => errno.is_some_and(|errno| errnos.contains(&errno)),
        }
    }
}

/// One row.
struct Rule {
    name: &'static str,
    on: On,
    errno: Errno,
    /// The states that it is about; empty: any.
    seen: &'static [Seen],
    /// Only if the engine had cancelled the operation.
    cancelled: bool,
    verdict: Verdict,
    /// See [`Finding::settles`].
    settles: bool,
    cause: Cause,
    message: &'static str,
}

impl Rule {
    fn fits(&self, answer: &DeviceAnswer, seen: Seen) -> bool {
        (!self.cancelled || answer.cancelled)
            && self.on.fits(answer.operation)
            && self.errno.fits(answer.errno)
            && (self.seen.is_empty() || self.seen.contains(&seen))
    }
}

const fn rule(
    name: &'static str,
    (on, errno, seen): (On, Errno, &'static [Seen]),
    cause: Cause,
    message: &'static str,
) -> Rule {
    let (verdict, settles, cancelled) = (Verdict::Fault, false, false);
    Rule { name, on, errno, seen, cancelled, verdict, settles, cause, message }
}

/// A failure, as long as the device does not turn out to have been in a reset.
const fn settling(name: &'static str, on: On, errno: Errno, message: &'static str) -> Rule {
    let cause = Cause::DeviceFailure;
    Rule { settles: true, ..rule(name, (on, errno, &[Seen::Unchanged]), cause, message) }
}

const fn no_fault(
    name: &'static str,
    when: (On, Errno, &'static [Seen]),
    message: &'static str,
) -> Rule {
    // The cause is that of a driver which never has another answer.
    Rule { verdict: Verdict::Harmless, ..rule(name, when, Cause::DeviceFailure, message) }
}

/// The table. The order matters: our own cancel first, then what the state says by itself, and
/// only then the errno.
const RULES: &[Rule] = &[
    // While aborting nothing else can be told: a read that is cancelled ends with ECANCELED, EINTR
    // or a leaked ERESTARTSYS, and one that a reset overtook with ENODEV. The outcome stays.
    Rule {
        name: "own-cancel",
        on: On::Any,
        errno: Errno::Any,
        seen: &[],
        cancelled: true,
        verdict: Verdict::Fault,
        settles: false,
        cause: Cause::Cancelled,
        message: "the operation was cancelled by this side",
    },
    // pds sets ERROR on its own; any driver may on a failing arc.
    rule(
        "device-error",
        (On::Any, Errno::Any, &[Seen::Error]),
        Cause::DeviceError,
        "the device is in ERROR: only VFIO_DEVICE_RESET brings it back to RUNNING, and what it \
         held is lost",
    ),
    // RUNNING behind our back. Whatever the errno: ENODEV from a dead fd, EINVAL from the precopy
    // ioctl (it looks at the state first), ENOMEM from an oversized write (checked before the fd
    // is found dead), or none at all where a reset in RESUMING was silent.
    rule(
        "reset-while-resuming",
        (On::Writing, Errno::Any, &[Seen::Lost]),
        Cause::DeviceReset,
        "the device was reset while its state was being loaded: it runs blank, and must not be \
         given to a guest",
    ),
    rule(
        "reset-found",
        (On::Checking, Errno::Any, &[Seen::Lost]),
        Cause::DeviceReset,
        "the device is in RUNNING though the migration did not put it there: it was reset without \
         any call failing, and its migration state is worthless",
    ),
    rule(
        "reset",
        (On::Any, Errno::Any, &[Seen::Lost]),
        Cause::DeviceReset,
        "the device was reset (by the guest, or VFIO_DEVICE_RESET) and is in RUNNING again: the \
         state of this epoch is worthless",
    ),
    rule(
        "reset-at-switchover",
        (On::NewFd, Errno::Any, &[]),
        Cause::DeviceReset,
        "stopping the device opened a new saving session: it had been reset since, and the \
         PRE_COPY state already sent is worthless",
    ),
    no_fault(
        "as-expected",
        (On::Checking, Errno::None, &[Seen::Unchanged]),
        "the device is in the state that the migration left it in",
    ),
    // Not faults.
    no_fault(
        "again",
        (On::Any, Errno::Of(&[errno::EAGAIN]), &[]),
        "no data, or the device is taken, at this moment: ask again",
    ),
    no_fault(
        "drained",
        (On::Reading, Errno::Of(&[errno::ENOMSG]), &[]),
        "the device has no more PRE_COPY data for now",
    ),
    no_fault(
        "interrupted",
        (On::Any, Errno::Of(&[errno::EINTR, errno::ERESTARTSYS]), &[]),
        "a signal interrupted the driver: ask again",
    ),
    // This host's own shortcomings.
    rule(
        "ring-cancelled",
        (On::Any, Errno::Of(&[errno::ECANCELED]), &[]),
        Cause::Local,
        "the operation was cancelled, and not by the engine: its ring or thread is going away",
    ),
    rule(
        "fd-limit",
        (On::Setting, Errno::Of(&[errno::EMFILE, errno::ENFILE]), &[]),
        Cause::Local,
        "the device changed its state, but the kernel had no fd to give out for its data: raise \
         RLIMIT_NOFILE, and put the device back into RUNNING before trying again",
    ),
    rule(
        "image-too-long",
        (On::Writing, Errno::Of(&[errno::ENOMEM]), &[]),
        Cause::DeviceFailure,
        "the device takes no more state than it has got (ENOMEM), or its host is out of memory: \
         the source's device is probably of another size, model or firmware",
    ),
    rule(
        "no-memory",
        (On::Any, Errno::Of(&[errno::ENOMEM]), &[]),
        Cause::Local,
        "the kernel had no memory for the device's migration state",
    ),
    rule(
        "stream-mismatch",
        (On::Writing, Errno::Of(&[errno::EFAULT]), &[]),
        Cause::DeviceFailure,
        "the driver does not recognise the migration stream (EFAULT): the source's device or \
         driver is of another kind or version",
    ),
    rule(
        "bad-fd",
        (On::Any, Errno::Of(&[errno::EFAULT, errno::EBADF]), &[]),
        Cause::Local,
        "the kernel refused the fd or the buffer: was the fd closed while it was in use?",
    ),
    // The device, its firmware or its PF.
    rule(
        "unsupported-record",
        (On::Writing, Errno::Of(&[errno::EOPNOTSUPP]), &[]),
        Cause::DeviceFailure,
        "the stream has a mandatory record that this driver does not know: the target's kernel is \
         older than the source's",
    ),
    rule(
        "stream-refused",
        (On::Writing, Errno::Of(&[errno::EINVAL]), &[]),
        Cause::DeviceFailure,
        "the driver refused the migration stream (EINVAL): the source's device or driver is of \
         another kind or version",
    ),
    rule(
        "pf-gone",
        (On::Any, Errno::Of(&[errno::ENOTCONN]), &[]),
        Cause::DeviceFailure,
        "the device's physical function is gone or in recovery: see the kernel log for its PF",
    ),
    rule(
        "no-migration",
        (On::Any, Errno::Of(&[errno::ENOTTY]), &[]),
        Cause::DeviceFailure,
        "the driver does not offer this migration call (ENOTTY): is the device bound to its \
         migration driver?",
    ),
    rule(
        "incomplete",
        (On::Setting, Errno::Of(&[errno::EINVAL]), &[Seen::Unchanged]),
        Cause::DeviceFailure,
        "the device refused to change its state (EINVAL): on the target, part of its migration \
         state is missing; on the source, it does not support that state",
    ),
    rule(
        "precopy-refused",
        (On::Asking, Errno::Of(&[errno::EINVAL]), &[Seen::Unchanged]),
        Cause::DeviceFailure,
        "the driver refused the precopy question (EINVAL) although the device is where it should \
         be",
    ),
    rule(
        "reset-or-failure",
        (On::Any, Errno::Of(&[errno::ENODEV]), &[Seen::Unknown]),
        Cause::DeviceFailure,
        "the data fd is dead and the device's state could not be read: it was reset, or its \
         firmware failed; the device fd would tell which",
    ),
    settling(
        "save-failed",
        On::Reading,
        Errno::Of(&[errno::ENODEV, errno::EIO]),
        "the device's firmware or PF failed to save: the data fd is dead and the state unchanged; \
         see the kernel log",
    ),
    settling(
        "load-failed",
        On::Writing,
        Errno::Of(&[errno::ENODEV, errno::EIO]),
        "the device's firmware or PF failed to load the state; see the kernel log",
    ),
    settling(
        "hung-up",
        On::Polling,
        Errno::None,
        "the data fd hung up and the state is unchanged: the device's firmware or PF failed to \
         save; see the kernel log",
    ),
    settling(
        "gone",
        On::Any,
        Errno::Of(&[errno::ENODEV]),
        "the driver says that the device is gone (ENODEV), and its state is unchanged; see the \
         kernel log",
    ),
    // What is left.
    rule(
        "moved",
        (On::Any, Errno::Any, &[Seen::Moved]),
        Cause::DeviceFailure,
        "the device is in another state than the migration left it in: it stopped half-way, or \
         someone else moved it",
    ),
    rule(
        "unreadable",
        (On::Any, Errno::Any, &[Seen::Unknown]),
        Cause::DeviceFailure,
        "the device failed and its state could not be read",
    ),
    rule(
        "failed",
        (On::Any, Errno::Any, &[]),
        Cause::DeviceFailure,
        "the device failed and its state is unchanged; see the kernel log",
    ),
];

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
