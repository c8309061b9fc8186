//! Every row of the table once by the story that it comes from, and the full grid as a snapshot.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

use super::DeviceState::*;
use super::*;

const GRID: &str = "../tests/vectors/classify_grid.txt";

const OPERATIONS: [(Operation, &str); 8] = [
    (Operation::Read { first: true }, "read-first"),
    (Operation::Read { first: false }, "read"),
    (Operation::Poll, "poll"),
    (Operation::PrecopyInfo, "precopy-info"),
    (Operation::SetState, "set-state"),
    (Operation::UnexpectedFd, "unexpected-fd"),
    (Operation::StateCheck, "state-check"),
    (Operation::Write, "write"),
];

const ERRNOS: [(Option<i32>, &str); 22] = [
    (None, "-"),
    (Some(errno::ENODEV), "ENODEV"),
    (Some(errno::EINVAL), "EINVAL"),
    (Some(errno::EINTR), "EINTR"),
    (Some(errno::ERESTARTSYS), "ERESTARTSYS"),
    (Some(errno::ECANCELED), "ECANCELED"),
    (Some(errno::ENOMEM), "ENOMEM"),
    (Some(errno::EIO), "EIO"),
    (Some(errno::ENOTCONN), "ENOTCONN"),
    (Some(errno::EFAULT), "EFAULT"),
    (Some(errno::EOPNOTSUPP), "EOPNOTSUPP"),
    (Some(errno::EAGAIN), "EAGAIN"),
    (Some(errno::ENOMSG), "ENOMSG"),
    (Some(errno::ENOTTY), "ENOTTY"),
    (Some(errno::EMFILE), "EMFILE"),
    (Some(errno::ENFILE), "ENFILE"),
    (Some(errno::EBADF), "EBADF"),
    (Some(errno::EBUSY), "EBUSY"),
    (Some(errno::ETIMEDOUT), "ETIMEDOUT"),
    (Some(errno::ENOSPC), "ENOSPC"),
    (Some(errno::EPERM), "EPERM"),
    (Some(9999), "9999"),
];

const READ: Operation = Operation::Read { first: false };

fn ask(
    operation: Operation,
    errno: impl Into<Option<i32>>,
    expected: DeviceState,
    found: impl Into<Option<DeviceState>>,
) -> Finding {
    classify(DeviceAnswer {
        operation,
        errno: errno.into(),
        cancelled: false,
        expected,
        found: found.into(),
    })
}

/// What the kernel is known to answer, and what that means: each row of the table at least once.
#[test]
fn each_known_answer_of_the_kernel_has_its_row() {
    use crate::errno::*;
    use Cause::*;
    let stories = [
        // The reset race, seen from each operation.
        ("reset", ask(READ, ENODEV, PreCopy, Running), DeviceReset, Observation::Read),
        ("reset", ask(READ, ENODEV, StopCopy, Running), DeviceReset, Observation::Read),
        ("reset", ask(READ, ENOMSG, PreCopy, Running), DeviceReset, Observation::Read),
        (
            "reset",
            ask(Operation::Read { first: true }, ENODEV, PreCopy, Running),
            DeviceReset,
            Observation::DeadOnArrival,
        ),
        ("reset", ask(Operation::Poll, None, PreCopy, Running), DeviceReset, Observation::Poll),
        (
            "reset",
            ask(Operation::PrecopyInfo, EINVAL, PreCopy, Running),
            DeviceReset,
            Observation::PrecopyInfo,
        ),
        (
            "reset",
            ask(Operation::SetState, EINVAL, PreCopyP2p, Running),
            DeviceReset,
            Observation::SetState,
        ),
        (
            "reset-at-switchover",
            ask(Operation::UnexpectedFd, None, PreCopy, StopCopy),
            DeviceReset,
            Observation::UnexpectedFd,
        ),
        (
            "reset-found",
            ask(Operation::StateCheck, None, Resuming, Running),
            DeviceReset,
            Observation::StateCheck,
        ),
        (
            "reset-while-resuming",
            ask(Operation::Write, ENODEV, Resuming, Running),
            DeviceReset,
            Observation::Write,
        ),
        // Oversized, and dead as well: the size is checked first. Without the reset it is a fault
        // of the stream.
        (
            "reset-while-resuming",
            ask(Operation::Write, ENOMEM, Resuming, Running),
            DeviceReset,
            Observation::Write,
        ),
        (
            "image-too-long",
            ask(Operation::Write, ENOMEM, Resuming, Resuming),
            DeviceFailure,
            Observation::Write,
        ),
        // ENODEV again, other states.
        ("save-failed", ask(READ, ENODEV, StopCopy, StopCopy), DeviceFailure, Observation::Read),
        ("save-failed", ask(READ, EIO, PreCopy, PreCopy), DeviceFailure, Observation::Read),
        ("device-error", ask(READ, ENODEV, StopCopy, Error), DeviceError, Observation::Read),
        ("device-error", ask(READ, EIO, StopCopy, Error), DeviceError, Observation::Read),
        (
            "device-error",
            ask(Operation::StateCheck, None, Resuming, Error),
            DeviceError,
            Observation::StateCheck,
        ),
        ("reset-or-failure", ask(READ, ENODEV, PreCopy, None), DeviceFailure, Observation::Read),
        (
            "load-failed",
            ask(Operation::Write, EIO, Resuming, Resuming),
            DeviceFailure,
            Observation::Write,
        ),
        ("hung-up", ask(Operation::Poll, None, PreCopy, PreCopy), DeviceFailure, Observation::Poll),
        (
            "gone",
            ask(Operation::SetState, ENODEV, PreCopy, PreCopy),
            DeviceFailure,
            Observation::SetState,
        ),
        (
            "gone",
            ask(Operation::PrecopyInfo, ENODEV, PreCopy, PreCopy),
            DeviceFailure,
            Observation::PrecopyInfo,
        ),
        // The stream does not fit the target's device.
        (
            "stream-mismatch",
            ask(Operation::Write, EFAULT, Resuming, Resuming),
            DeviceFailure,
            Observation::Write,
        ),
        (
            "stream-refused",
            ask(Operation::Write, EINVAL, Resuming, Resuming),
            DeviceFailure,
            Observation::Write,
        ),
        (
            "unsupported-record",
            ask(Operation::Write, EOPNOTSUPP, Resuming, Resuming),
            DeviceFailure,
            Observation::Write,
        ),
        (
            "incomplete",
            ask(Operation::SetState, EINVAL, Resuming, Resuming),
            DeviceFailure,
            Observation::SetState,
        ),
        // The rest of the device's troubles.
        (
            "pf-gone",
            ask(Operation::SetState, ENOTCONN, PreCopy, PreCopy),
            DeviceFailure,
            Observation::SetState,
        ),
        (
            "no-migration",
            ask(Operation::SetState, ENOTTY, Running, None),
            DeviceFailure,
            Observation::SetState,
        ),
        (
            "precopy-refused",
            ask(Operation::PrecopyInfo, EINVAL, PreCopy, PreCopy),
            DeviceFailure,
            Observation::PrecopyInfo,
        ),
        (
            "moved",
            ask(Operation::SetState, EIO, Running, RunningP2p),
            DeviceFailure,
            Observation::SetState,
        ),
        (
            "failed",
            ask(Operation::SetState, EBUSY, Running, Running),
            DeviceFailure,
            Observation::SetState,
        ),
        (
            "unreadable",
            ask(Operation::StateCheck, EIO, Resuming, None),
            DeviceFailure,
            Observation::StateCheck,
        ),
        // This host.
        ("ring-cancelled", ask(READ, ECANCELED, PreCopy, PreCopy), Local, Observation::Read),
        (
            "fd-limit",
            ask(Operation::SetState, EMFILE, Running, PreCopy),
            Local,
            Observation::SetState,
        ),
        (
            "no-memory",
            ask(Operation::SetState, ENOMEM, Running, Running),
            Local,
            Observation::SetState,
        ),
        ("bad-fd", ask(READ, EBADF, PreCopy, PreCopy), Local, Observation::Read),
    ];
    let mut covered = HashSet::new();
    for (rule, finding, cause, observed) in stories {
        assert_eq!(finding.rule, rule);
        assert_eq!((finding.cause, finding.observed), (cause, observed), "{rule}");
        assert_eq!(finding.verdict, Verdict::Fault, "{rule}");
        covered.insert(rule);
    }
    let harmless = [
        ("again", ask(READ, EAGAIN, PreCopy, PreCopy)),
        ("drained", ask(READ, ENOMSG, PreCopy, PreCopy)),
        ("interrupted", ask(READ, EINTR, PreCopy, PreCopy)),
        ("interrupted", ask(READ, ERESTARTSYS, StopCopy, StopCopy)),
        ("as-expected", ask(Operation::StateCheck, None, Resuming, Resuming)),
    ];
    for (rule, finding) in harmless {
        assert_eq!((finding.rule, finding.verdict), (rule, Verdict::Harmless));
        covered.insert(rule);
    }
    covered.insert("own-cancel"); // the test below
    for rule in RULES {
        assert!(covered.contains(rule.name), "no story for {}", rule.name);
        assert!(rule.message.len() > 20);
    }
    assert_eq!(covered.len(), RULES.len(), "names are unique");
}

#[test]
fn what_this_side_cancelled_stays_cancelled() {
    for (operation, _) in OPERATIONS {
        for (errno, _) in ERRNOS {
            for found in DeviceState::ALL.map(Some).into_iter().chain([None]) {
                let finding = classify(DeviceAnswer {
                    operation,
                    errno,
                    cancelled: true,
                    expected: PreCopy,
                    found,
                });
                assert_eq!((finding.rule, finding.cause), ("own-cancel", Cause::Cancelled));
            }
        }
    }
}

/// The first GET_STATE after a deferred reset says PRE_COPY, the second RUNNING: only the second
/// gives the right cause, and `settled_state` is the one that gives it.
#[test]
fn a_stale_state_would_mislead() {
    use crate::vfio::device::{MigrationDevice, PrecopyInfo};
    use crate::vfio::state::Capabilities;
    use std::io;
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::sync::Mutex;

    struct Deferred(Mutex<Vec<DeviceState>>);
    impl MigrationDevice for Deferred {
        fn state(&self) -> io::Result<DeviceState> {
            Ok(self.0.lock().expect("not poisoned").pop().expect("asked twice"))
        }
        fn capabilities(&self) -> io::Result<Capabilities> {
            unreachable!()
        }
        fn set_state(&self, _: DeviceState) -> io::Result<Option<OwnedFd>> {
            unreachable!()
        }
        fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
            unreachable!()
        }
        fn stop_copy_length(&self) -> io::Result<u64> {
            unreachable!()
        }
        fn reset(&self) -> io::Result<()> {
            unreachable!()
        }
    }

    assert_eq!(ask(READ, errno::ENODEV, PreCopy, PreCopy).cause, Cause::DeviceFailure);
    let device = Deferred(Mutex::new(vec![Running, PreCopy]));
    let settled = device.settled_state().expect("a state");
    assert_eq!(ask(READ, errno::ENODEV, PreCopy, settled).cause, Cause::DeviceReset);
}

/// A reset must never be taken for something to try again, nor the other way round.
#[test]
fn running_behind_our_back_is_always_a_reset() {
    for (operation, _) in OPERATIONS {
        for (errno, _) in ERRNOS {
            for expected in [PreCopy, PreCopyP2p, StopCopy, Resuming, Stop] {
                let finding = ask(operation, errno, expected, Running);
                assert_eq!(finding.cause, Cause::DeviceReset);
                assert_eq!(finding.verdict, Verdict::Fault);
            }
        }
    }
}

/// What may settle is what a later GET_STATE would make a reset of, and nothing that the driver has
/// a reason of its own for.
#[test]
fn a_failure_that_a_reset_in_progress_would_look_like_settles() {
    use crate::errno::*;
    let mut settling = HashSet::new();
    for (operation, _) in OPERATIONS {
        for (errno, _) in ERRNOS {
            for expected in DeviceState::ALL {
                for found in DeviceState::ALL.map(Some).into_iter().chain([None]) {
                    let finding = ask(operation, errno, expected, found);
                    let dead = match operation {
                        Operation::UnexpectedFd => false,
                        Operation::Read { .. } | Operation::Write => {
                            matches!(errno, Some(ENODEV | EIO))
                        }
                        Operation::Poll => matches!(errno, None | Some(ENODEV)),
                        _ => errno == Some(ENODEV),
                    };
                    let unchanged = found == Some(expected);
                    let can_be_reset = !matches!(expected, Running | Error);
                    assert_eq!(finding.settles, dead && unchanged && can_be_reset);
                    if finding.settles {
                        let is = (finding.cause, finding.verdict);
                        assert_eq!(is, (Cause::DeviceFailure, Verdict::Fault));
                        settling.insert(finding.rule);
                        let later = ask(operation, errno, expected, Running);
                        assert_eq!((later.cause, later.settles), (Cause::DeviceReset, false));
                    }
                }
            }
        }
    }
    assert_eq!(settling, HashSet::from(["save-failed", "load-failed", "hung-up", "gone"]));
}

fn grid() -> String {
    let mut text = String::from(
        "# What classify() in engine/src/outcome/classify.rs says to every operation x errno x\n\
         # expected state x found state. Cancelled operations are not here: they stay cancelled.\n\
         # Changed on purpose? UPDATE_SNAPSHOTS=1 cargo test -p vfio-ferry classify, and read the\n\
         # difference.\n#\n# rule: verdict, cause\n",
    );
    for rule in RULES {
        let _ = writeln!(text, "# {}: {:?}, {}", rule.name, rule.verdict, rule.cause);
    }
    text.push_str("#\n# operation errno expected: rule/observation=found states; ? is a\n# state not known; rule*: a later GET_STATE may say that it was a reset\n");
    for (operation, operation_name) in OPERATIONS {
        for (errno, errno_name) in ERRNOS {
            for expected in DeviceState::ALL {
                let mut cells: Vec<(String, Vec<&str>)> = Vec::new();
                for found in DeviceState::ALL.map(Some).into_iter().chain([None]) {
                    let finding = ask(operation, errno, expected, found);
                    let settles = if finding.settles { "*" } else { "" };
                    let cell = format!("{}{settles}/{}", finding.rule, finding.observed);
                    let found = found.map_or("?", DeviceState::name);
                    match cells.iter_mut().find(|(name, _)| *name == cell) {
                        Some((_, states)) => states.push(found),
                        None => cells.push((cell, vec![found])),
                    }
                }
                let cells: Vec<String> = cells
                    .into_iter()
                    .map(|(cell, states)| format!("{cell}={}", states.join(",")))
                    .collect();
                let _ =
                    writeln!(text, "{operation_name} {errno_name} {expected}: {}", cells.join(" "));
            }
        }
    }
    text
}

#[test]
fn the_grid_is_as_pinned() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GRID);
    let now = grid();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &now).expect("written");
    }
    let pinned = std::fs::read_to_string(&path).expect("the committed grid");
    for (now, pinned) in now.lines().zip(pinned.lines()) {
        assert_eq!(now, pinned);
    }
    assert_eq!(now.lines().count(), pinned.lines().count());
}
