//! An honest migration through an acceptor, and how long it takes.

use std::net::SocketAddr;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vfio_ferry::outcome::DeviceOptions;
use vfio_ferry::session::{
    Acceptor, ConnectOptions, DoorOptions, Error, Options, Policy, Protection, SourceSession,
    Streams, TargetSession, connect_with,
};
use vfio_ferry_tests::device::{Plan, TestDevice};
use vfio_ferry_tests::moment::Moment;
use vfio_ferry_tests::pair::{PATIENCE, end, sources, targets};
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved};

/// Set when it goes, a panic's way too.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

pub(crate) fn door(options: DoorOptions) -> Acceptor {
    Acceptor::bind("127.0.0.1:0", options).expect("a port")
}

/// One migration: its own two streams, its own session, and its own device.
pub(crate) struct Visit {
    from: Arc<TestDevice>,
    to: Arc<TestDevice>,
    options: Options,
}

impl Visit {
    pub(crate) fn new(bytes: u64) -> Visit {
        static SESSIONS: AtomicU64 = AtomicU64::new(1);
        let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let plan = Plan { rest_bytes: bytes, ..Plan::default() };
        Visit {
            to: Arc::new(TestDevice::new(plan.target())),
            from: Arc::new(TestDevice::new(plan)),
            options: Options {
                policy: Policy::Raw,
                // Beyond what a stranger's hello names.
                session: Some(u128::from(session) << 64),
                ..Options::default()
            },
        }
    }

    pub(crate) fn source(&self, streams: Streams) -> SourceSession {
        let devices = sources(from_ref(&self.from), &DeviceOptions::default());
        SourceSession::start(devices, streams, self.options.clone()).expect("a source")
    }

    /// Migrates, and lets in whoever else comes with a whole session: `others` says what they
    /// migrate. How long it took, without the time in `knock`, which is called at each moment and
    /// gives what stays until the end.
    pub(crate) fn migrate<T>(
        self,
        door: &Acceptor,
        protection: &Protection,
        knock: impl FnMut(Moment, SocketAddr) -> T,
    ) -> Duration {
        self.migrate_beside(door, protection, &[], knock)
    }

    pub(crate) fn migrate_beside<T>(
        self,
        door: &Acceptor,
        protection: &Protection,
        others: &[Visit],
        mut knock: impl FnMut(Moment, SocketAddr) -> T,
    ) -> Duration {
        let address = door.local_addr();
        let over = AtomicBool::new(false);
        let options = ConnectOptions {
            protection: protection.clone(),
            timeout: PATIENCE,
            ..ConnectOptions::default()
        };
        let connect = |count| connect_with(address, count, &options).expect("it listens");
        thread::scope(|scope| {
            let is_over = Set(&over);
            let keeper = scope.spawn(|| self.keep(door, others, &over));
            let mut beside = Duration::ZERO;
            let mut knock = |moment| {
                let started = Instant::now();
                let kept = knock(moment, address);
                beside += started.elapsed();
                kept
            };
            let started = Instant::now();
            let mut open = vec![knock(Moment::Before)];
            // TLS wants both streams of one connect.
            let streams = match protection {
                Protection::Tls(_) => {
                    open.push(knock(Moment::Between));
                    connect(2)
                }
                _ => {
                    let mut fds = connect(1).into_fds().expect("plain");
                    open.push(knock(Moment::Between));
                    fds.extend(connect(1).into_fds().expect("plain"));
                    fds.into()
                }
            };
            let source = self.source(streams);
            open.push(knock(Moment::During));
            source.switchover();
            let source = end(source);
            let time = started.elapsed() - beside;
            // The other sources have to be let in before it is over.
            drop(open);
            drop(is_over);
            assert_handed_over(&source, &keeper.join().expect("no panic"));
            assert_moved(&self.from, &self.to);
            time
        })
    }

    /// Keeps the door until it is over. Whoever is neither this visit nor one of the others is let in
    /// by mistake.
    fn keep(
        &self,
        door: &Acceptor,
        others: &[Visit],
        over: &AtomicBool,
    ) -> vfio_ferry_tests::pair::Ended<vfio_ferry::session::Target> {
        let mut sessions = Vec::new();
        while !over.load(Ordering::Acquire) {
            let streams = match door.wait(Duration::from_millis(5), None) {
                Ok(streams) => streams,
                Err(Error::Network { source, .. })
                    if source.kind() == std::io::ErrorKind::TimedOut =>
                {
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let named = streams.session();
            let all = [self].into_iter().chain(others);
            let whose = all.into_iter().find(|visit| visit.options.session == named);
            let whose = whose.expect("a stranger is no session");
            let devices = targets(from_ref(&whose.to));
            let session = TargetSession::start(devices, streams, whose.options.clone());
            sessions.push((std::ptr::eq(whose, self), session.expect("a target")));
        }
        let mut own = None;
        for (is_own, session) in sessions {
            let ended = end(session);
            if is_own {
                own = Some(ended);
            } else {
                assert_eq!(ended.report.ending, vfio_ferry::session::TargetEnding::Running);
            }
        }
        own.expect("it came")
    }
}

/// Waits until so many were turned away, in all.
pub(crate) fn wait_for_total(door: &Acceptor, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while door.turned_away().total() < count {
        assert!(Instant::now() < deadline, "{:?}", door.turned_away());
        assert!(door.poll().expect("it listens").is_none(), "a stranger is no session");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(door.turned_away().total(), count);
}
