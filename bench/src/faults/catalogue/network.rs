//! What the network does to two honest hosts.

use std::time::Duration;

use super::super::fault::{Fault, HEARD, Kind};
use super::super::promise::{Cause, Ending};
use super::super::proxy::{Deed, Kind as FrameKind, Point, Rule};
use super::{HANDOVER, RUNNING, STAGES};
use crate::spec::Side::{self, Source, Target};
use crate::spec::Time;

/// How long nothing may be heard.
const SILENCE: Option<Time> = Some(Time(Duration::from_millis(1500)));

pub(super) fn faults() -> Vec<Fault> {
    let mut all = cuts();
    all.extend(out());
    all.extend(damage());
    all
}

fn fault(name: impl Into<String>, about: impl Into<String>) -> Fault {
    Fault::new(Kind::Network, name, about)
}

/// Both hosts see it by themselves.
fn both(fault: Fault) -> Fault {
    fault.ends(Source, Ending::Returned, &[Cause::Network, Cause::PeerAbort]).ends(
        Target,
        Ending::Blank,
        &[Cause::Network, Cause::PeerAbort],
    )
}

/// Every connection is closed at each stage: the frame does not arrive.
fn cuts() -> Vec<Fault> {
    let cut = |stage: &str, (toward, at)| {
        fault(
            format!("cut-at-{stage}"),
            format!("every connection is closed before {stage} arrives"),
        )
        .at(toward, at, Deed::Cut)
    };
    let mut all: Vec<Fault> = STAGES.map(|(stage, place)| both(cut(stage, place))).into();
    all.extend([
        cut("handover", HANDOVER).ends(Source, Ending::Unconfirmed, &[Cause::Network]).ends(
            Target,
            Ending::Blank,
            &[Cause::Network],
        ),
        cut("running", RUNNING).ends(Source, Ending::Unconfirmed, &[Cause::Network]).ends(
            Target,
            Ending::Running,
            &[],
        ),
        both(fault("cut-one-of-two", "one of two connections is closed in STOP_COPY").at(
            Target,
            Point::StopCopy,
            Deed::CutOne,
        )),
    ]);
    all
}

/// A cable is out: nothing arrives any more, and nobody is told.
fn out() -> Vec<Fault> {
    let out = |stage: &str, (toward, at)| {
        let about =
            format!("nothing arrives any more from {stage} on, and no connection is closed");
        let silence =
            |fault: Fault, side: Side| fault.limit(side, |limits| limits.peer_silence = SILENCE);
        let fault = fault(format!("half-open-at-{stage}"), about).at(toward, at, Deed::Silence);
        silence(silence(fault, Source), Target)
    };
    let network = &[Cause::Network];
    let gone = |fault: Fault| {
        fault.ends(Source, Ending::Returned, network).ends(Target, Ending::Blank, network)
    };
    vec![
        gone(out("data", (Target, Point::Frame(FrameKind::Data)))),
        gone(out("stop-copy", (Target, Point::StopCopy))),
        gone(out("loaded", (Source, Point::Frame(FrameKind::Loaded)))),
        out("handover", HANDOVER).ends(Source, Ending::Unconfirmed, network).ends(
            Target,
            Ending::Blank,
            network,
        ),
        out("running", RUNNING).ends(Source, Ending::Unconfirmed, network).ends(
            Target,
            Ending::Running,
            &[],
        ),
    ]
}

/// One frame is lost, or a bit of it flips: on one connection, so that the next frame tells.
fn damage() -> Vec<Fault> {
    let mut all = Vec::new();
    for (how, deed, what) in
        [("lost", Deed::Lose, "is lost"), ("damaged", Deed::Flip, "comes with a flipped bit")]
    {
        for (frame, skip, (toward, at)) in [
            ("data", 2, (Target, Point::Frame(FrameKind::Data))),
            ("stop-copy", 0, (Target, Point::StopCopy)),
            ("credit", 1, (Source, Point::Frame(FrameKind::Credit))),
        ] {
            let rule = Rule { skip, ..Rule::new(toward, at, deed.clone()) };
            let fault = fault(format!("{how}-{frame}"), format!("one {frame} frame {what}"));
            all.push(
                fault
                    .with(|plan| plan.net.streams = 1)
                    .net(rule)
                    .returns(toward, &[Cause::Network]),
            );
        }
        // After the handover: what the target has said is not known.
        let rule = Rule::new(RUNNING.0, RUNNING.1, deed.clone());
        if deed == Deed::Flip {
            all.push(
                fault(format!("{how}-running"), format!("the running frame {what}"))
                    .with(|plan| plan.net.streams = 1)
                    .net(rule)
                    .ends(Source, Ending::Unconfirmed, &[Cause::Network])
                    .ends(Target, Ending::Running, &[]),
            );
        }
    }
    all.push(
        fault("damaged-handover", "the handover frame comes with a flipped bit")
            .with(|plan| plan.net.streams = 1)
            .at(HANDOVER.0, HANDOVER.1, Deed::Flip)
            // The target is blank again and says so: the source may run on.
            .ends(Source, Ending::Returned, HEARD)
            .ends(Source, Ending::Unconfirmed, HEARD)
            .ends(Target, Ending::Blank, &[Cause::Network]),
    );
    all
}
