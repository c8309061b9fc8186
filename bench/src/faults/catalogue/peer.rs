//! Peers that die, freeze, or do not say what they owe.

use std::time::Duration;

use super::super::fault::{Fault, HEARD, Kind, NEAR};
use super::super::plan::{Does, Trigger};
use super::super::promise::{Also, Cause, Ending};
use super::super::proxy::{Deed, Kind as FrameKind, Point, Rule};
use super::{HANDOVER, RUNNING, STAGES, fills};
use crate::spec::Side::{self, Source, Target};
use crate::spec::Time;

/// How long a frozen peer is waited for.
const SILENCE: Option<Time> = Some(Time(Duration::from_millis(1500)));

pub(super) fn faults() -> Vec<Fault> {
    let mut all = kills();
    all.extend(freezes());
    all.extend(handshakes());
    all.extend(chatter());
    all.extend(trickles());
    all.extend(aborts());
    all
}

fn fault(name: impl Into<String>, about: impl Into<String>) -> Fault {
    Fault::new(Kind::Peer, name, about)
}

/// kill -9 at each stage, while a frame is on its way; what is on its way arrives.
fn kills() -> Vec<Fault> {
    let kill = |side: Side, stage: &str, place| {
        let name = format!("kill-{}-at-{stage}", side.name());
        let about = format!("the {} is killed while {stage} is on its way", side.name());
        let fault = fault(name, about).while_waits(place, Does::Kill(side), None);
        fault.ends(side, Ending::Killed, &[])
    };
    let mut all = Vec::new();
    for (stage, place) in STAGES {
        let survivor = kill(Target, stage, place).ends(Source, Ending::Returned, &[Cause::Network]);
        // What the target has said last may let the source hand over to a host that is gone.
        all.push(match stage {
            "loaded" => survivor.ends(Source, Ending::Unconfirmed, &[Cause::Network]),
            _ => survivor,
        });
        all.push(kill(Source, stage, place).ends(Target, Ending::Blank, &[Cause::Network]));
    }
    all.extend([
        kill(Target, "handover", HANDOVER).ends(Source, Ending::Unconfirmed, &[Cause::Network]),
        kill(Source, "handover", HANDOVER).ends(Target, Ending::Running, &[]),
        // The target may have told its VMM already.
        kill(Target, "running", RUNNING)
            .ends(Target, Ending::Running, &[])
            .ends(Source, Ending::HandedOver, &[])
            .ends(Source, Ending::Unconfirmed, &[Cause::Network]),
        kill(Source, "running", RUNNING).ends(Target, Ending::Running, &[]),
    ]);
    all
}

/// SIGSTOP, while a frame is on its way; the frozen host goes on when the other has given up.
fn freezes() -> Vec<Fault> {
    let freeze = |side: Side, stage: &str, place| {
        let other = if side == Source { Target } else { Source };
        let about = format!("the {} is frozen while {stage} is on its way", side.name());
        fault(format!("freeze-{}-at-{stage}", side.name()), about)
            .while_waits(place, Does::Freeze(side), None)
            .on(Trigger::Ended(other), Does::Thaw(side))
            .limit(other, |limits| limits.peer_silence = SILENCE)
    };
    let data = (Target, Point::Frame(FrameKind::Data));
    let stop_copy = (Target, Point::StopCopy);
    vec![
        freeze(Target, "data", data).returns(Source, &[Cause::Network]),
        freeze(Target, "stop-copy", stop_copy).returns(Source, &[Cause::Network]),
        freeze(Target, "handover", HANDOVER)
            .ends(Source, Ending::Unconfirmed, &[Cause::Network])
            .ends(Target, Ending::Running, &[]),
        // Nor is there room for its last word, which nobody waits for: its devices are back.
        freeze(Target, "full", stop_copy)
            .with(fills)
            .returns(Source, &[Cause::Network])
            .also(Also::StillBelow(Duration::from_millis(6500))),
        freeze(Source, "data", data).returns(Target, &[Cause::Network]),
        freeze(Source, "stop-copy", stop_copy).returns(Target, &[Cause::Network]),
        freeze(Source, "running", RUNNING).completes(),
    ]
}

/// Handshakes that do not come to their end.
fn handshakes() -> Vec<Fault> {
    let near =
        |fault: Fault, side| fault.limit(side, |limits| limits.handshake_limit = Some(Time(NEAR)));
    let second = Point::Connection(1);
    let hello = Point::Frame(FrameKind::Hello);
    vec![
        near(fault("hello-on-one-stream", "a source says hello on one of two streams"), Target)
            .at(Target, second, Deed::Withhold(second))
            .returns(Target, &[Cause::TimeLimit])
            .also(Also::Untouched(Source)),
        near(fault("accept-on-one-stream", "a target accepts one of two streams"), Source)
            .at(Source, second, Deed::Withhold(second))
            .returns(Source, &[Cause::TimeLimit])
            .also(Also::Untouched(Source)),
        near(
            near(fault("silent-after-connect", "a peer connects and says nothing"), Source),
            Target,
        )
        .at(Target, hello, Deed::Silence)
        .ends(Source, Ending::Returned, &[Cause::TimeLimit])
        .ends(Target, Ending::Blank, &[Cause::TimeLimit])
        .also(Also::Untouched(Source)),
    ]
}

/// Peers that live, and owe something.
fn chatter() -> Vec<Fault> {
    let frame = Point::Frame;
    let withheld = |name: &str, about: &str, toward: Side, kind| {
        fault(name, about).at(toward, frame(kind), Deed::Withhold(frame(kind)))
    };
    let only_pings = |name: &str, about: &str, toward: Side, at| {
        fault(name, about).at(toward, at, Deed::OnlyPings)
    };
    let confirms =
        |fault: Fault| fault.limit(Source, |limits| limits.confirm_limit = Some(Time(NEAR)));
    vec![
        withheld("never-credits", "a target gives no credit", Source, FrameKind::Credit)
            .stalls(Source)
            .returns(Source, &[Cause::TimeLimit]),
        only_pings(
            "pings-only-target",
            "a target says nothing but pings once it has accepted",
            Source,
            frame(FrameKind::Credit),
        )
        .stalls(Source)
        .returns(Source, &[Cause::TimeLimit]),
        withheld(
            "never-initial-data-loaded",
            "a target never says that the initial data is loaded",
            Source,
            FrameKind::InitialDataLoaded,
        )
        .completes(),
        withheld("never-loaded", "a target never says loaded", Source, FrameKind::Loaded)
            .stalls(Source)
            .returns(Source, &[Cause::TimeLimit]),
        confirms(withheld(
            "never-running",
            "a target never says running",
            Source,
            FrameKind::Running,
        ))
        .ends(Source, Ending::Unconfirmed, &[Cause::TimeLimit])
        .ends(Target, Ending::Running, &[]),
        only_pings(
            "pings-only-source-pre-copy",
            "a source says nothing but pings before its switchover",
            Target,
            frame(FrameKind::Data),
        )
        .limit(Target, |limits| limits.idle_limit = Some(Time(NEAR)))
        .returns(Target, &[Cause::TimeLimit]),
        only_pings(
            "pings-only-source-stop-copy",
            "a source says nothing but pings once STOP_COPY has begun",
            Target,
            frame(FrameKind::End),
        )
        .stalls(Target)
        .returns(Target, &[Cause::TimeLimit]),
        withheld("never-hands-over", "a source never hands over", Target, FrameKind::Handover)
            .stalls(Target)
            .returns(Target, &[Cause::TimeLimit]),
        fault("source-never-stops", "a source's VMM never stops its guest")
            .with(|plan| plan.source.choices.switches_over = false)
            .limit(Target, |limits| limits.idle_limit = Some(Time(NEAR)))
            .returns(Target, &[Cause::TimeLimit]),
    ]
}

/// One byte each 120 ms.
fn trickles() -> Vec<Fault> {
    let data = Point::Frame(FrameKind::Data);
    let mut all = vec![
        fault("trickling-target", "a target's frames come byte by byte")
            .at(Source, Point::Frame(FrameKind::Credit), Deed::Trickle)
            .stalls(Source)
            .returns(Source, &[Cause::TimeLimit]),
    ];
    for (name, at) in [("pre-copy", data), ("stop-copy", Point::StopCopy)] {
        // Neither host hears the other's last word: each has its own limit.
        all.push(
            fault(
                format!("trickling-source-{name}"),
                format!("a source's frames come byte by byte from {name} on"),
            )
            .at(Target, at, Deed::Trickle)
            .stalls(Source)
            .limit(Target, |limits| {
                (limits.stall_limit, limits.idle_limit) =
                    (Some(Time(2 * NEAR)), Some(Time(2 * NEAR)));
            })
            .ends(Source, Ending::Returned, &[Cause::TimeLimit])
            .ends(Source, Ending::Returned, HEARD)
            .ends(Target, Ending::Blank, &[Cause::TimeLimit])
            .ends(Target, Ending::Blank, HEARD),
        );
    }
    all
}

/// Aborts whose words are not to be trusted.
fn aborts() -> Vec<Fault> {
    const WORDS: &str =
        "\u{1b}[2J\u{1b}[31mall is well\r\nsource: handed over\n\u{202e}dellac\u{202c}\u{7}\u{0}";
    let rule = |toward, kind| Rule {
        skip: 1,
        ..Rule::new(toward, Point::Frame(kind), Deed::Abort(WORDS))
    };
    vec![
        fault(
            "spoofing-target",
            "a target aborts with terminal escapes and bidi marks in its words",
        )
        .net(rule(Source, FrameKind::Credit))
        .returns(Source, &[Cause::PeerAbort])
        .also(Also::CleanText(Source))
        .also(Also::Says(Source, "all is well")),
        fault(
            "spoofing-source",
            "a source aborts with terminal escapes and bidi marks in its words",
        )
        .net(rule(Target, FrameKind::Data))
        .returns(Target, &[Cause::PeerAbort])
        .also(Also::CleanText(Target))
        .also(Also::Says(Target, "all is well")),
    ]
}
