//! Whole sessions in jails: each of the engine's threads under a seccomp filter that allows what
//! `ThreadKind::system_calls` names and kills for anything else, or traps. A process of its own for
//! each, because what a filter kills is the process.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use seccompiler::SeccompCmpArgLen::Qword;
use seccompiler::SeccompCmpOp::Eq;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};
use vfio_ferry::session::{
    Acceptor, Backend, BackendChoice, ConnectOptions, DoorOptions, Error, Options, Protection,
    SourceEnding, SourceSession, SystemCall, TargetEnding, TargetSession, ThreadHook, ThreadKind,
    connect_with,
};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry_tests::device::{Conduit, Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, Pair, Setup, sources, streams, targets};
use vfio_ferry_tests::pki::Authority;
use vfio_ferry_tests::runs::{migrate, talkative};
use vfio_ferry_tests::skip::skip;

/// Set in the process that is to be jailed: `ACTION BACKEND LEFT_OUT`.
const JAIL: &str = "FERRY_TEST_JAIL";

/// What the test device does where a real one makes an ioctl, and what the test's own hook does after
/// the filter is set.
const OF_THE_TEST: [libc::c_long; 12] = [
    libc::SYS_clone3,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_pipe2,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_rseq,
    libc::SYS_seccomp,
    libc::SYS_set_robust_list,
];

fn jail(calls: impl Iterator<Item = SystemCall>, action: &str, left_out: &str) -> io::Result<()> {
    let action = match action {
        "kill" => SeccompAction::KillProcess,
        "trap" => SeccompAction::Trap,
        _ => panic!("{action}"),
    };
    let allowed = |call: SystemCall| {
        let only = |(place, value)| {
            let condition = SeccompCondition::new(place, Qword, Eq, value).expect("a condition");
            SeccompRule::new(vec![condition]).expect("a rule")
        };
        (call.number, call.fixed.map(only).into_iter().collect::<Vec<_>>())
    };
    let calls = calls.filter(|call| call.name != left_out).map(allowed);
    let rules = calls.chain(OF_THE_TEST.map(|number| (number, Vec::new()))).collect();
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let filter = SeccompFilter::new(rules, action, SeccompAction::Allow, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a filter of plain rules");
    apply_filter(&program).map_err(io::Error::other)
}

/// Migrates a device whose data fd is a pipe and one whose is a file, in this process, for good; and
/// takes one through an acceptor, begins migrations that are cancelled, and that the target gives up.
fn in_jail(action: &'static str, choice: BackendChoice, left_out: String) {
    let backend = match choice {
        BackendChoice::Syscalls => Backend::Syscalls,
        _ => Backend::IoUring,
    };
    let missing = left_out.clone();
    let hook = ThreadHook::new(move |thread| jail(thread.system_calls(), action, missing.as_str()));
    let options = Options { backend: choice, thread_start: Some(hook), ..Setup::default().source };
    let setup = Setup { source: options.clone(), target: options, ..Setup::default() };
    let guarded = Authority::throw_away().hosts();
    // Whoever starts a session passes its own filter on.
    jail(ThreadKind::Embedder.system_calls(backend), action, &left_out).expect("a filter");
    through_the_door(&setup, (Protection::Loopback, Protection::Loopback));
    through_the_door(&setup, guarded);
    for conduit in [Conduit::Pipe, Conduit::File] {
        let (source, target) = migrate(Plan { conduit, ..talkative() }, &setup);
        assert_eq!((source.report.backend, target.report.backend), (backend, backend));
        for cancelled in [true, false] {
            let plan = Plan { conduit, ..talkative() };
            let to = [Arc::new(TestDevice::new(plan.target()))];
            let pair = Pair::start(&[Arc::new(TestDevice::new(plan))], &to, &setup);
            match cancelled {
                true => pair.source.cancel(),
                false => pair.target.cancel(),
            }
            let (source, target) = pair.end();
            assert!(matches!(source.report.ending, SourceEnding::Returned(_)), "{source:?}");
            assert!(matches!(target.report.ending, TargetEnding::Blank(_)), "{target:?}");
        }
    }
}

/// One migration whose streams a target's acceptor gives, so guarded on the source and on the target.
fn through_the_door(setup: &Setup, (here, there): (Protection, Protection)) {
    let options = DoorOptions { protection: there, ..DoorOptions::default() };
    let door = Acceptor::bind("127.0.0.1:0", options).expect("a door");
    let (from, to) = (TestDevice::new(Plan::default()), TestDevice::new(Plan::default().target()));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let streams = door.wait(PATIENCE, None).expect("a source");
            let (devices, options) = (targets(&[Arc::new(to)]), setup.target.clone());
            let target = TargetSession::start(devices, streams, options).expect("a session");
            assert_eq!(target.finish().ending, TargetEnding::Running);
        });
        let options = ConnectOptions { protection: here, ..ConnectOptions::default() };
        let streams = connect_with(door.local_addr(), 2, &options).expect("a connection");
        let (devices, options) =
            (sources(&[Arc::new(from)], &Default::default()), setup.source.clone());
        let source = SourceSession::start(devices, streams, options).expect("a session");
        source.switchover();
        assert_eq!(source.finish().ending, SourceEnding::HandedOver);
    });
}

#[test]
fn in_the_jail() {
    let Ok(jail) = std::env::var(JAIL) else { return };
    let [action, backend, left_out] = jail.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{jail}")
    };
    let action = if action == "kill" { "kill" } else { "trap" };
    let choice = match backend {
        "io_uring" => BackendChoice::IoUring,
        _ => BackendChoice::Syscalls,
    };
    in_jail(action, choice, left_out.to_owned());
}

fn jailed(action: &str, backend: &str, left_out: &str) -> Output {
    let program = std::env::current_exe().expect("this test");
    let mut command = Command::new(program);
    command.args(["in_the_jail", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(JAIL, format!("{action} {backend} {left_out}")).env_remove("RUST_BACKTRACE");
    command.output().expect("it runs")
}

fn has_io_uring() -> bool {
    let options = Options { backend: BackendChoice::IoUring, ..Options::default() };
    let device = Arc::new(TestDevice::new(Plan::default()));
    let (ours, _theirs) = streams(1);
    match SourceSession::start(sources(&[device], &Default::default()), ours, options) {
        Ok(_) => true,
        Err(error) => {
            skip(error.to_string());
            false
        }
    }
}

#[test]
fn whole_sessions_run_under_filters_that_allow_what_the_table_names() {
    for backend in ["io_uring", "syscalls"] {
        if backend == "io_uring" && !has_io_uring() {
            continue;
        }
        for action in ["kill", "trap"] {
            let output = jailed(action, backend, "-");
            assert!(
                output.status.success(),
                "{action}, {backend}: {}; `strace -f` names the call that is not in the table\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
        }
    }
}

#[test]
fn what_is_not_allowed_ends_the_process() {
    for (action, call) in [("kill", "sendto"), ("trap", "sendto"), ("kill", "ppoll")] {
        let output = jailed(action, "syscalls", call);
        let signal = output.status.signal();
        assert_eq!(signal, Some(libc::SIGSYS), "{action} without {call}: {}", output.status);
    }
}

#[test]
fn the_hook_runs_once_on_each_thread_under_its_name() {
    let of_session = ["ferry-ctl-0", "ferry-fd-0", "ferry-net", "ferry-zstd-0", "ferry-zstd-1"];
    hook_runs_on(BackendChoice::Auto, &of_session, has_io_uring());
    hook_runs_on(BackendChoice::Syscalls, &of_session, true);
}

fn hook_runs_on(backend: BackendChoice, expected: &[&str], can: bool) {
    if !can {
        return;
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let here = seen.clone();
    let hook = ThreadHook::new(move |thread| {
        assert_eq!(std::thread::current().name(), Some(thread.name));
        let entry = (thread.kind, thread.index, thread.name.to_owned());
        here.lock().expect("no panic").push(entry);
        Ok(())
    });
    let mut setup = Setup::default();
    setup.source = Options { workers: 2, backend, thread_start: Some(hook), ..setup.source };
    migrate(talkative(), &setup);
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.last().map(|last| last.0), Some(ThreadKind::Net), "it comes last");
    let names: BTreeSet<&str> = seen.iter().map(|(_, _, name)| name.as_str()).collect();
    assert_eq!((names, seen.len()), (expected.iter().copied().collect(), expected.len()));
    assert!(seen.contains(&(ThreadKind::Worker, 1, "ferry-zstd-1".to_owned())));
}

/// A hook that fails for one kind of thread: no session, and nothing of it is left.
#[test]
fn a_hook_that_fails_or_panics_means_no_session() {
    let kinds = [ThreadKind::Net, ThreadKind::Control, ThreadKind::Data, ThreadKind::Worker];
    for refused in kinds {
        for panics in [false, true] {
            let hook = ThreadHook::new(move |thread| match thread.kind == refused {
                true if panics => panic!("on purpose"),
                true => Err(io::Error::from_raw_os_error(libc::EPERM)),
                false => Ok(()),
            });
            // All kinds of threads are there with plain system calls only.
            let backend = BackendChoice::Syscalls;
            let options = Options { backend, thread_start: Some(hook), ..Options::default() };
            let device = Arc::new(TestDevice::new(Plan::default()));
            let (ours, _theirs) = streams(1);
            let devices = sources(std::slice::from_ref(&device), &Default::default());
            let error = SourceSession::start(devices, ours, options).expect_err("refused");
            assert!(matches!(error, Error::System(_)), "{refused:?}: {error}");
            let (text, why) = (error.to_string(), if panics { "panicked" } else { "(os error 1)" });
            assert!(text.contains("at the start of ferry-") && text.contains(why), "{text}");
            assert_eq!(device.state_now(), DeviceState::Running);
            // Its threads let go of the device.
            while Arc::strong_count(&device) > 1 {
                std::thread::yield_now();
            }
        }
    }
}
