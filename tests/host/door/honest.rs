//! An honest migration through an acceptor, with a place for strangers in each of its moments.

use std::net::SocketAddr;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vfio_ferry::outcome::DeviceOptions;
use vfio_ferry::session::{
    Acceptor, DoorOptions, Options, Reason, SourceSession, Streams, TargetSession, connect,
};
use vfio_ferry_tests::device::{Plan, TestDevice};
use vfio_ferry_tests::moment::Moment;
use vfio_ferry_tests::pair::{PATIENCE, end, sources, targets};
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved, talkative};

/// An acceptor on a port of its own, whose honest callers have all the time that a busy machine needs.
pub(crate) fn door(options: DoorOptions) -> Arc<Acceptor> {
    let options = DoorOptions { greeting_limit: PATIENCE, gathering_limit: PATIENCE, ..options };
    Arc::new(Acceptor::bind("127.0.0.1:0", options).expect("a port"))
}

pub(crate) fn device(plan: Plan) -> Arc<TestDevice> {
    Arc::new(TestDevice::new(plan))
}

pub(crate) fn start_source(from: &Arc<TestDevice>, streams: impl Into<Streams>) -> SourceSession {
    let devices = sources(from_ref(from), &DeviceOptions::default());
    SourceSession::start(devices, streams, Options::default()).expect("a source")
}

pub(crate) fn start_target(to: &Arc<TestDevice>, streams: impl Into<Streams>) -> TargetSession {
    TargetSession::start(targets(from_ref(to)), streams, Options::default()).expect("a target")
}

/// Migrates a device over two streams. `knock` is called at each moment and gives what is to stay
/// open until the end.
pub(crate) fn migrate_past<T>(
    door: &Arc<Acceptor>,
    mut knock: impl FnMut(Moment, SocketAddr) -> T,
) {
    let address = door.local_addr();
    let plan = talkative();
    let (from, to) = (device(plan.clone()), device(plan.target()));
    let over = Arc::new(AtomicBool::new(false));
    let target = {
        let (door, to, over) = (door.clone(), to.clone(), over.clone());
        thread::spawn(move || {
            let streams = door.wait(PATIENCE, None).expect("the honest source");
            assert_eq!(streams.count(), 2);
            let session = start_target(&to, streams);
            while !over.load(Ordering::Acquire) {
                assert!(door.poll().expect("it listens").is_none(), "a stranger is no session");
                thread::sleep(Duration::from_millis(1));
            }
            end(session)
        })
    };
    let mut open = vec![knock(Moment::Before, address)];
    let mut streams = connect(address, 1).expect("it listens");
    open.push(knock(Moment::Between, address));
    streams.extend(connect(address, 1).expect("it listens"));
    let source = start_source(&from, streams);
    open.push(knock(Moment::During, address));
    source.wait_until_ready(PATIENCE, PATIENCE, |_| {});
    source.switchover();
    let source = end(source);
    over.store(true, Ordering::Release);
    let target = target.join().expect("no panic");
    assert_handed_over(&source, &target);
    assert_moved(&from, &to);
    drop(open);
}

/// Waits until so many were turned away for a reason.
pub(crate) fn wait_for_count(door: &Acceptor, reason: Reason, count: u64) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        assert!(door.poll().expect("it listens").is_none(), "a stranger is no session");
        if door.turned_away().count(reason) >= count {
            break;
        }
        // Its fd alone says when there is something to do, as an embedder's loop has it.
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec::try_from(left).expect("it fits");
        let fd = door.fd();
        let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left));
        assert_eq!(ready, Ok(1), "nothing happens: {:?}", door.turned_away());
    }
    assert_eq!(door.turned_away().count(reason), count);
}
