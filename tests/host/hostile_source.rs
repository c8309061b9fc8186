//! A source against a target that says wrong things, at every frame: a fault that names what was
//! wrong, the device running on as it was, or stopped for good once the target has confirmed.

use std::slice::from_ref;
use std::sync::Arc;

use bytes::Bytes;
use vfio_ferry::compress::policy::Policy;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence, StreamId};
use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{Cause, DeviceOptions, Fault, Observation};
use vfio_ferry::session::{Options, SessionEvent, SourceSession};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{
    Accept, Begin, DataPhase, DevicePlace, Digest, Discard, Encoding, Features, Frame, Kind, Offer,
    StateDigest, Total, chunk_hash,
};
use vfio_ferry_tests::device::{Conduit, Holding, Plan, TestDevice};
use vfio_ferry_tests::mutate::{Expected, assert_expected};
use vfio_ferry_tests::pair::{PATIENCE, sources, streams};
use vfio_ferry_tests::peer::{Peer, bytes, data};
use vfio_ferry_tests::process::peak_bytes;
use vfio_ferry_tests::script::{Case, Step, after, before, find, instead, lead, mutations, step};

const CHUNK: usize = 4096;
/// More than the sessions of all tests of this file need, which run side by side; far less than
/// any length that the frames announce.
const PEAK_BYTES_MAX: u64 = 256 << 20;
const DEVICE: DeviceId = DeviceId(0);
const EPOCH: Epoch = Epoch(0);

/// A device on a file, whose reads are as long as they can be: so the chunks are known.
fn plan() -> Plan {
    Plan {
        conduit: Conduit::File,
        initial_bytes: CHUNK as u64,
        rest_bytes: 2 * CHUNK as u64 + 100,
        ..Plan::default()
    }
}

/// What the source's end must say.
fn total() -> Total {
    let mut digest = StateDigest::new();
    for chunk in plan().state().expect("no file").chunks(CHUNK) {
        digest.chunk(chunk_hash(chunk), chunk.len() as u32);
    }
    Total { bytes: digest.bytes(), digest: digest.finish() }
}

fn loaded(epoch: Epoch, total: Total) -> Vec<u8> {
    bytes(&Frame::Loaded { device: DEVICE, epoch, total })
}

fn credit(device: DeviceId, epoch: Epoch, up_to: u64) -> Vec<u8> {
    bytes(&Frame::Credit { device, epoch, up_to: Sequence(up_to) })
}

/// What a target says in a whole migration. The accept's session is put in when it is known.
fn migration(session: u128) -> Vec<Step> {
    let mark = bytes(&Frame::InitialDataLoaded { device: DEVICE, epoch: EPOCH });
    vec![
        step("accept", bytes(&Frame::Accept(accept(session)))),
        after(Kind::BEGIN, "message", bytes(&Frame::Message(Bytes::from_static(b"hello")))),
        step("ping", bytes(&Frame::Ping(1))),
        after(Kind::PONG, "pong", bytes(&Frame::Pong(7))),
        step("credit", credit(DEVICE, EPOCH, 50)),
        after(Kind::INITIAL_DATA_SENT, "initial", mark),
        after(Kind::END, "loaded", loaded(EPOCH, total())),
        after(Kind::HANDOVER, "running", bytes(&Frame::Running)),
    ]
}

fn accept(session: u128) -> Accept {
    Accept { version: 1, features: Features::ALL, chunk_bytes: CHUNK as u32, session }
}

/// A conversation that the session's number, which is in the hello, makes.
type Conversation<'a> = dyn Fn(u128) -> (Vec<Step>, Option<Case>) + Sync + 'a;

fn play(conversation: &Conversation<'_>) {
    let device = Arc::new(TestDevice::new(plan()));
    let (ours, mut theirs) = streams(1);
    let options = Options {
        workers: 1,
        chunk_bytes: CHUNK,
        policy: Policy::Raw,
        precopy_poll: std::time::Duration::from_millis(1),
        ..Options::default()
    };
    let devices = sources(from_ref(&device), &DeviceOptions::default());
    let session = SourceSession::start(devices, ours, options).expect("a session");
    let mut peer = Peer::from(theirs.remove(0));
    std::thread::scope(|scope| {
        let target = scope.spawn(move || {
            let hello = peer.expect_hello();
            let (script, case) = conversation(hello.session);
            let led = lead(&mut peer, &script, case.as_ref());
            let aborted = peer.last_word().is_some();
            (script, case, led, aborted)
        });
        loop {
            match session.wait_event(Some(PATIENCE)) {
                Some(SessionEvent::Notice(Notice::InitialDataLoaded { .. })) => {
                    session.switchover();
                }
                Some(SessionEvent::Finished) => break,
                Some(_) => {}
                None => panic!("the session does not end"),
            }
        }
        let ended = session.finish().ending;
        let (script, case, led, aborted) = target.join().expect("the peer");
        let what = case.as_ref().map_or("nothing wrong", |case| case.what.as_str());
        let expected = case.as_ref().map_or(&Expected::Nothing, |case| &case.expected);
        assert!(led, "{what}: the source did not answer: {ended}");
        assert_expected(expected, ended.fault(), what);
        assert_eq!(device.violations(), [""; 0]);

        let confirmed = case.as_ref().is_none_or(|case| {
            let at = find(&script, "loaded");
            case.at > at || (case.at == at && case.bytes.starts_with(&loaded(EPOCH, total())))
        });
        let ending = match expected {
            Expected::Nothing => "handed_over",
            Expected::Fault(Cause::PeerAbort, _) => "returned",
            Expected::Fault(..) if confirmed => "unconfirmed",
            Expected::Fault(..) => "returned",
        };
        assert_eq!(ended.name(), ending, "{what}: {ended}");
        let returned = ending == "returned";
        let state = if returned { DeviceState::Running } else { DeviceState::Stop };
        assert_eq!(device.state_now(), state, "{what}");
        assert_eq!((device.holding(), device.resets()), (Holding::Own, 0), "{what}");
        if let Some(fault) = ended.fault()
            && returned
            && (fault.cause, fault.observed) == (Cause::PeerMisbehaviour, Observation::Peer)
            // One that does not read is not told either.
            && case.as_ref().is_some_and(|case| case.times == 1)
        {
            assert!(aborted, "{what}: the target was not told");
        }
    });
}

/// Plays all cases that `cases` makes of the conversation.
fn play_all(cases: impl Fn(u128, &[Step]) -> Vec<Case> + Sync) {
    let count = cases(0, &migration(0)).len();
    for number in 0..count {
        play(&|session| {
            let script = migration(session);
            let case = cases(session, &script).swap_remove(number);
            println!("{}", case.what);
            (script, Some(case))
        });
    }
    println!("{count} cases, at most {} MiB", peak_bytes() >> 20);
    assert!(peak_bytes() < PEAK_BYTES_MAX, "{} bytes of memory", peak_bytes());
}

fn wrong(breach: &'static str) -> Expected {
    Expected::Fault(Cause::PeerMisbehaviour, breach)
}

#[test]
fn the_conversation_is_right_to_begin_with() {
    play(&|session| (migration(session), None));
}

#[test]
fn a_frame_that_is_damaged_on_the_way_is_refused() {
    play_all(|_, script| mutations(script));
}

#[test]
fn accepts_that_do_not_fit_are_refused() {
    play_all(|session, script| {
        let good = accept(session);
        let case = |what: &str, accept: Accept, breach| {
            instead(script, "accept", what, bytes(&Frame::Accept(accept)), wrong(breach))
        };
        let again = script[0].frame.clone();
        vec![
            case("another session", accept(!session), "OtherSession"),
            case("version 9", Accept { version: 9, ..good }, "Handshake"),
            case("version 0", Accept { version: 0, ..good }, "Handshake"),
            case("long chunks", Accept { chunk_bytes: 8192, ..good }, "Handshake"),
            case("short chunks", Accept { chunk_bytes: 1, ..good }, "Handshake"),
            case("unknown features", Accept { features: Features(1 << 40), ..good }, "Handshake"),
            before(script, "message", "accepted twice", again, wrong("Unexpected")),
        ]
    });
}

#[test]
fn frames_that_are_the_sources_own_are_refused() {
    let place = DevicePlace { device: DEVICE, epoch: EPOCH, sequence: Sequence(0) };
    let begin =
        Begin { name: "device-0".to_owned(), precopy: true, p2p: true, opaque: Bytes::new() };
    let frames = [
        ("hello", bytes(&Frame::Hello(Offer::new(1, 1, CHUNK).hello(1, StreamId(0))))),
        ("begin", bytes(&Frame::Begin(place, begin))),
        ("raw", data(place, 0, Encoding::Raw, &[7; 100], &[7; 100])),
        ("zeros", data(place, 0, Encoding::Zero, &[0; 100], &[])),
        ("phase", bytes(&Frame::Phase(place, DataPhase::StopCopy))),
        ("initial data sent", bytes(&Frame::InitialDataSent(place))),
        (
            "discard",
            bytes(&Frame::Discard(place, Discard { discarded_bytes: 0, stop_copy_only: true })),
        ),
        ("end", bytes(&Frame::End(place, total()))),
        ("handover", bytes(&Frame::Handover)),
    ];
    play_all(|_, script| {
        let mut cases = Vec::new();
        for (what, frame) in &frames {
            for label in ["accept", "credit", "initial", "loaded", "running"] {
                let what = format!("{what} in place of {label}");
                cases.push(instead(script, label, &what, frame.clone(), wrong("Unexpected")));
            }
        }
        cases
    });
}

#[test]
fn frames_out_of_turn_are_refused() {
    let mark = |device, epoch| bytes(&Frame::InitialDataLoaded { device, epoch });
    let running = bytes(&Frame::Running);
    let abort = Fault::session(Cause::Cancelled, Observation::Embedder, "enough");
    let abort = bytes(&Frame::Abort((&abort).into()));
    let bad = Total { digest: Digest(1), ..total() };
    let later = Epoch(3);
    play_all(|_, script| {
        let case = |label, what: &str, bytes: &[u8], expected| {
            instead(script, label, what, bytes.to_vec(), expected)
        };
        let gave_up = Expected::Fault(Cause::PeerAbort, "none");
        let mut cases = vec![
            case("accept", "credit first", &credit(DEVICE, EPOCH, 9), wrong("Unexpected")),
            case("accept", "loaded first", &loaded(EPOCH, total()), wrong("Unexpected")),
            case("accept", "running first", &running, wrong("Unexpected")),
            case("credit", "credit of a later epoch", &credit(DEVICE, later, 9), wrong("Epoch")),
            case(
                "credit",
                "credit of another device",
                &credit(DeviceId(1), EPOCH, 9),
                wrong("DeviceNumber"),
            ),
            case("accept", "a mark before the session", &mark(DEVICE, EPOCH), wrong("Unexpected")),
            case("initial", "a mark of a later epoch", &mark(DEVICE, later), wrong("Epoch")),
            case(
                "initial",
                "another device's mark",
                &mark(DeviceId(1), EPOCH),
                wrong("DeviceNumber"),
            ),
            case("initial", "two marks", &mark(DEVICE, EPOCH).repeat(2), wrong("Unexpected")),
            case("credit", "loaded before data", &loaded(EPOCH, total()), wrong("Unexpected")),
            case("initial", "loaded before the end", &loaded(EPOCH, total()), wrong("Unexpected")),
            case("loaded", "loaded in a later epoch", &loaded(later, total()), wrong("Epoch")),
            case("loaded", "loaded with other bytes", &loaded(EPOCH, bad), wrong("Total")),
            case("loaded", "loaded twice", &loaded(EPOCH, total()).repeat(2), wrong("Unexpected")),
            case("loaded", "running before loaded", &running, wrong("Unexpected")),
            case("running", "running twice", &running.repeat(2), Expected::Nothing),
            case(
                "running",
                "running, then not",
                &[&running[..], &abort].concat(),
                Expected::Nothing,
            ),
            before(
                script,
                "initial",
                "all credit",
                credit(DEVICE, EPOCH, u64::MAX),
                Expected::Nothing,
            ),
            before(script, "initial", "no credit", credit(DEVICE, EPOCH, 0), Expected::Nothing),
        ];
        for label in ["accept", "credit", "initial", "loaded", "running"] {
            let what = format!("an abort in place of {label}");
            cases.push(case(label, &what, &abort, gave_up.clone()));
        }
        cases
    });
}

#[test]
fn questions_whose_answers_nobody_reads_are_bounded() {
    // 64 MiB, far more than both sockets hold.
    let pings = bytes(&Frame::Ping(1)).repeat(1024);
    play_all(|_, script| {
        let expected = wrong("Answers");
        let case = instead(script, "credit", "many pings", pings.clone(), expected);
        vec![Case { times: 1024, ..case }]
    });
}
