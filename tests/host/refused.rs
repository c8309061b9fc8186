//! Whole sessions where io_uring is refused: they run on plain system calls and say so.

use vfio_ferry::ring::{Backend, BackendChoice};
use vfio_ferry::session::Report;
use vfio_ferry::vfio::state::Capabilities;
use vfio_ferry_tests::device::{Conduit, Drained, Plan};
use vfio_ferry_tests::pair::Setup;
use vfio_ferry_tests::refuse::where_refused;
use vfio_ferry_tests::runs::{migrate, talkative};

fn runs_on_system_calls(errno: i32, word: &'static str) {
    where_refused(libc::SYS_io_uring_setup, errno, move || {
        for conduit in [Conduit::Pipe, Conduit::File] {
            for capabilities in Capabilities::ALL {
                for drained in [Drained::NoMsg, Drained::Zero] {
                    let plan = Plan { conduit, capabilities, drained, ..talkative() };
                    let (source, target) = migrate(plan, &Setup::default());
                    assert_fell_back(&source.report, word);
                    assert_fell_back(&target.report, word);
                }
            }
        }
    });
}

fn assert_fell_back<E>(report: &Report<E>, word: &str) {
    assert_eq!(report.backend, Backend::Syscalls);
    let why = report.fallback.as_ref().expect("a fallback is told");
    assert!(why.contains(word), "{why}");
}

#[test]
fn io_uring_that_is_not_permitted_is_done_without() {
    runs_on_system_calls(libc::EPERM, "EPERM");
}

#[test]
fn io_uring_that_does_not_exist_is_done_without() {
    runs_on_system_calls(libc::ENOSYS, "ENOSYS");
}

#[test]
fn a_choice_of_plain_system_calls_is_no_fallback() {
    let mut setup = Setup::default();
    setup.source.backend = BackendChoice::Syscalls;
    let (source, _) = migrate(talkative(), &setup);
    assert_eq!((source.report.backend, source.report.fallback), (Backend::Syscalls, None));
}
