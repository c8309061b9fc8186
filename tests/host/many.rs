//! Several devices in one session: all arrive whole, in order, and none is starved.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use vfio_ferry::compress::policy::Policy;
use vfio_ferry::limits::DEVICES_MAX;
use vfio_ferry::outcome::DeviceOptions;
use vfio_ferry::session::{
    Options, Readiness, SourceDevice, SourceSession, TargetDevice, TargetSession,
};
use vfio_ferry::vfio::device::{MigrationDevice, PrecopyInfo};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry_tests::device::{Conduit, Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, end, sources, streams, targets};
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved};

const DEVICES: usize = 8;
const STREAMS: usize = 4;
const STATE_BYTES: u64 = 64 << 20;

/// A device that notes in a common log what is written to it.
struct Logged {
    device: Arc<TestDevice>,
    number: usize,
    log: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl MigrationDevice for Logged {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.device.capabilities()
    }
    fn state(&self) -> io::Result<DeviceState> {
        self.device.state()
    }
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        self.device.set_state(state)
    }
    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.device.precopy_info(data_fd)
    }
    fn stop_copy_length(&self) -> io::Result<u64> {
        self.device.stop_copy_length()
    }
    fn reset(&self) -> io::Result<()> {
        self.device.reset()
    }
    fn observe(&self, data_fd: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        let result = self.device.observe(data_fd, result);
        if let Ok(bytes) = result {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push((self.number, bytes));
        }
        result
    }
}

#[test]
fn eight_devices_over_four_streams_arrive_whole_and_share_fairly() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut from = Vec::new();
    let mut to = Vec::new();
    let mut logged = Vec::new();
    for number in 0..DEVICES {
        let plan = Plan {
            index: number as u8,
            capabilities: Capabilities::ALL[number % 4],
            rest_bytes: STATE_BYTES,
            ..Plan::default()
        };
        let device = Arc::new(TestDevice::new(plan.target()));
        from.push(Arc::new(TestDevice::new(plan)));
        to.push(device.clone());
        let name = format!("device-{number}");
        let device = Arc::new(Logged { device, number, log: log.clone() });
        logged.push(TargetDevice { name, device });
    }
    let (ours, theirs) = streams(STREAMS);
    // From STOP_COPY alone: then all have their whole state to send at the same time.
    let options = DeviceOptions { precopy: false, ..DeviceOptions::default() };
    let devices: Vec<SourceDevice> = sources(&from, &options);
    let options = Options { policy: Policy::Raw, ..Options::default() };
    let source = SourceSession::start(devices, ours, options).expect("source");
    let target = TargetSession::start(logged, theirs, Options::default()).expect("target");
    source.switchover();
    let (source, target) = (end(source), end(target));
    assert_handed_over(&source, &target);
    for (from, to) in from.iter().zip(&to) {
        assert_moved(from, to);
    }
    let streams = &source.report.metrics.streams;
    assert!(streams.iter().all(|stream| stream.sent_frames > 50), "{streams:?}");

    // None had to wait until another was through; `fairness.rs` is exact about the sender's part,
    // here the machine's scheduling of eight devices' threads counts as well.
    let mut written = [0u64; DEVICES];
    for (number, bytes) in log.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        written[*number] += *bytes as u64;
        if written[*number] == STATE_BYTES {
            break;
        }
    }
    assert!(written.iter().all(|bytes| *bytes > STATE_BYTES / 16), "starved: {written:?}");
}

#[test]
fn as_many_devices_as_may_be_migrate_with_default_options() {
    let plan = |number: usize| Plan {
        index: number as u8,
        capabilities: Capabilities::ALL[number % 4],
        conduit: if number.is_multiple_of(2) { Conduit::Pipe } else { Conduit::File },
        initial_bytes: 100_000,
        rest_bytes: 300_000,
        ..Plan::default()
    };
    let device = |plan| Arc::new(TestDevice::new(plan));
    let from: Vec<_> = (0..DEVICES_MAX).map(|number| device(plan(number))).collect();
    let to: Vec<_> = (0..DEVICES_MAX).map(|number| device(plan(number).target())).collect();
    let (ours, theirs) = streams(2);
    let devices = sources(&from, &DeviceOptions::default());
    let source = SourceSession::start(devices, ours, Options::default()).expect("source");
    let target = TargetSession::start(targets(&to), theirs, Options::default()).expect("target");
    let ready = source.wait_until_ready(PATIENCE, PATIENCE, |_| {});
    assert!(matches!(ready, Readiness::Ready(_)), "{ready:?}");
    source.switchover();
    assert_handed_over(&end(source), &end(target));
    for (from, to) in from.iter().zip(&to) {
        assert_moved(from, to);
    }
}
