//! One host's process is killed at a random moment of a migration; the other one must end by
//! itself, with the device where it belongs. One seed is one round: `FERRY_SEED=7` replays it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{Cause, DeviceOptions, EpochEnding, Phase, SourceEnding, TargetEnding};
use vfio_ferry::session::{
    Options, Session, SessionEvent, Side as Host, SourceSession, TargetSession, accept, connect,
};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry_tests::device::{Holding, Plan, TestDevice};
use vfio_ferry_tests::pair::{Ended, PATIENCE, end, sources, targets};
use vfio_ferry_tests::process::{Side, Spec};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ferry-side");
const ROUNDS: u64 = 100;
/// Longer than any pause of a busy machine, shorter than the test's patience.
const SILENCE: Duration = Duration::from_secs(20);
const STATE_BYTES: u64 = 4 << 20;

/// Small random numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// When to kill: so long after the survivor, or else the victim, enters a phase.
#[derive(Debug)]
struct Moment {
    phase: Phase,
    survivors: bool,
    after: Duration,
}

impl Moment {
    fn from_seed(seed: u64) -> Moment {
        let mut dice = Dice(seed ^ 0x5eed);
        let phases = [
            Phase::Connect,
            Phase::Start,
            Phase::PreCopy,
            Phase::Stop,
            Phase::StopCopy,
            Phase::Load,
            Phase::Handover,
            Phase::Resume,
        ];
        Moment {
            phase: phases[dice.below(8) as usize],
            survivors: dice.below(2) == 0,
            after: Duration::from_micros(dice.below(4) * dice.below(1500)),
        }
    }

    /// Waits for it; true if the session ended before it came.
    fn wait<H: Host>(
        &self,
        survivor: &Session<H>,
        victim: &Side,
        notices: &mut Vec<Notice>,
    ) -> bool {
        let mut ended = false;
        if self.phase == Phase::Connect {
            // At once: the sessions have just been made.
        } else if self.survivors {
            ended = loop {
                match survivor.wait_event(Some(PATIENCE)) {
                    Some(SessionEvent::Notice(notice)) => {
                        let is_it =
                            matches!(&notice, Notice::Phase { phase, .. } if *phase == self.phase);
                        notices.push(notice);
                        if is_it {
                            break false;
                        }
                    }
                    Some(SessionEvent::Finished) => break true,
                    _ => panic!("the session does not go on: {notices:?}"),
                }
            };
        } else {
            let wanted = format!("phase {}", self.phase);
            // Its output ends with it: then the phase was none of this role's.
            while victim.line(PATIENCE).is_ok_and(|line| line != wanted) {}
        }
        std::thread::sleep(self.after);
        ended
    }
}

fn plan() -> Plan {
    Plan { initial_bytes: STATE_BYTES / 2, rest_bytes: STATE_BYTES / 2, ..Plan::default() }
}

fn spec(is_source: bool, port: u16) -> Spec {
    let (initial_bytes, rest_bytes) = (STATE_BYTES / 2, STATE_BYTES / 2);
    Spec { is_source, port, initial_bytes, rest_bytes, ..Spec::default() }
}

fn options() -> Options {
    Options { peer_silence: SILENCE, precopy_poll: Duration::from_millis(1), ..Options::default() }
}

/// Kills the victim at the moment and waits for the survivor's end.
fn kill<H: Host>(moment: &Moment, survivor: Session<H>, victim: Side) -> Ended<H> {
    let mut notices = Vec::new();
    let ended = moment.wait(&survivor, &victim, &mut notices);
    victim.signal(Signal::KILL);
    if ended {
        return Ended { report: survivor.finish(), notices };
    }
    let mut ended = end(survivor);
    // A dead peer's streams end: nobody had to wait until it was silent for too long.
    if let Some(fault) = ended.fault() {
        assert!(!fault.message.contains("silent"), "{fault}");
    }
    ended.notices.splice(0..0, notices);
    ended
}

fn has_phase<H: Host>(ended: &Ended<H>, wanted: Phase) -> bool {
    ended.notices.iter().any(|n| matches!(n, Notice::Phase { phase, .. } if *phase == wanted))
}

/// Every device gets exactly one last completion, which fits the session's ending, and nothing but
/// the network was at fault. How it ended.
fn assert_completed<H: Host>(ended: &Ended<H>, expected: EpochEnding) -> EpochEnding {
    let endings: Vec<EpochEnding> = ended
        .notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::Completion(completion) => Some(completion.ending),
            _ => None,
        })
        .collect();
    assert_eq!(endings, [expected]);
    if let Some(fault) = ended.fault() {
        assert_eq!(fault.cause, Cause::Network, "{fault}");
    }
    expected
}

fn a_source_survives(seed: u64) -> EpochEnding {
    let moment = Moment::from_seed(seed);
    let victim = Side::spawn(PROGRAM, &spec(false, 0));
    let streams = connect(("127.0.0.1", victim.port()), 2).expect("it listens");
    let device = Arc::new(TestDevice::new(plan()));
    let devices = sources(std::slice::from_ref(&device), &DeviceOptions::default());
    let session = SourceSession::start(devices, streams, options()).expect("a session");
    // A little PRE_COPY, sometimes none.
    if !seed.is_multiple_of(3) {
        std::thread::sleep(Duration::from_micros(seed % 7 * 700));
    }
    session.switchover();
    let ended = kill(&moment, session, victim);
    let expected = match &ended.report.ending {
        // The guest runs on here, with the device as it was.
        SourceEnding::Returned(fault) => {
            assert_eq!(device.state_now(), DeviceState::Running);
            assert_eq!((device.holding(), device.resets()), (Holding::Own, 0));
            assert!(!has_phase(&ended, Phase::Handover), "{fault}");
            EpochEnding::Aborted
        }
        // The target may run: this device must not.
        SourceEnding::Unconfirmed(_) => {
            assert_eq!(device.state_now(), DeviceState::Stop);
            assert!(has_phase(&ended, Phase::Handover));
            EpochEnding::Unconfirmed
        }
        SourceEnding::HandedOver => {
            assert_eq!(device.state_now(), DeviceState::Stop);
            EpochEnding::Complete
        }
        SourceEnding::NotReturned(fault) => panic!("{fault}"),
    };
    assert_completed(&ended, expected)
}

fn a_target_survives(seed: u64) -> EpochEnding {
    let moment = Moment::from_seed(seed);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let victim = Side::spawn(PROGRAM, &spec(true, port));
    let streams: Vec<OwnedFd> = accept(&listener, PATIENCE).expect("it connects");
    let device = Arc::new(TestDevice::new(plan().target()));
    let session = TargetSession::start(targets(std::slice::from_ref(&device)), streams, options());
    let ended = kill(&moment, session.expect("a session"), victim);
    let handed_over = ended.notices.contains(&Notice::HandedOver);
    let expected = match &ended.report.ending {
        // Nothing of the source's device is left here.
        TargetEnding::Blank(fault) => {
            assert_eq!(device.state_now(), DeviceState::Running);
            let begun = device.trail().contains(&DeviceState::Resuming);
            let left = if begun { Holding::Blank } else { Holding::Own };
            assert_eq!(device.holding(), left);
            assert!(!handed_over, "{fault}");
            EpochEnding::Aborted
        }
        TargetEnding::Running => {
            assert_eq!(device.state_now(), DeviceState::Running);
            assert_eq!(device.holding(), Holding::Loaded(device.passed()));
            assert_eq!(device.passed().bytes, STATE_BYTES);
            assert!(handed_over);
            EpochEnding::Complete
        }
        TargetEnding::NotBlank(fault) => panic!("{fault}"),
    };
    assert_completed(&ended, expected)
}

/// All rounds, or the one that FERRY_SEED names; and how they ended.
fn rounds(round: fn(u64) -> EpochEnding) {
    if let Some(seed) = std::env::var("FERRY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        println!("seed {seed}: {:?}, {}", Moment::from_seed(seed), round(seed));
        return;
    }
    let mut endings = Vec::new();
    for seed in 0..ROUNDS {
        println!("seed {seed}: {:?}", Moment::from_seed(seed));
        endings.push(round(seed));
    }
    let count = |ending| endings.iter().filter(|e| **e == ending).count();
    let (complete, aborted) = (count(EpochEnding::Complete), count(EpochEnding::Aborted));
    println!("{complete} complete, {aborted} aborted, of {ROUNDS}");
    assert!(aborted >= 20, "hardly anything was interrupted");
}

#[test]
fn a_source_survives_its_target() {
    rounds(a_source_survives);
}

#[test]
fn a_target_survives_its_source() {
    rounds(a_target_survives);
}
