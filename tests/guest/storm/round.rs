//! One migration with resets, and the judgement over how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vfio_ferry::outcome::{
    Cause, Completion, DeviceOptions, EpochEnding, Fault, Host, Observation, SourceEnding,
    TargetEnding,
};
use vfio_ferry::session::Options;
use vfio_ferry::vfio::ioctl;
use vfio_ferry::vfio::state::DeviceState;

use super::plan::{Plan, When};
use super::rig::{Resets, Rig, Watched};
use crate::checks::{Outcome, ensure, fail};
use crate::mtty::Mtty;
use crate::pair::{Pair, Route, SourceEnd, TargetEnd, patient, same_state};

/// The ways in which the source can see that its device was reset.
const SOURCE_SEES: [Observation; 6] = [
    Observation::Read,
    Observation::PrecopyInfo,
    Observation::UnexpectedFd,
    Observation::DeadOnArrival,
    Observation::StateCheck,
    Observation::SetState,
];
/// The ways in which the target can.
const TARGET_SEES: [Observation; 3] =
    [Observation::Write, Observation::StateCheck, Observation::SetState];

/// Two devices, and what is needed to migrate between them again and again.
pub(super) struct Bench {
    // In this order: a device is removed only when nobody has it open.
    watched: (Arc<Watched>, Arc<Watched>),
    rig: Arc<Rig>,
    source: Mtty,
    target: Mtty,
}

/// How a round ended that ended well.
#[derive(Debug)]
pub(super) struct Ended {
    /// The source's ending by name.
    pub(super) source: &'static str,
    pub(super) cause: Option<Cause>,
    pub(super) restarts: usize,
    /// How each host saw resets, those that an epoch was started anew for included.
    pub(super) seen: Vec<(Host, Observation)>,
    /// The source was reset after it had been told to give up, and nobody noticed.
    pub(super) reset_while_aborting: bool,
    pub(super) took: Duration,
}

impl Bench {
    /// Makes the devices.
    pub(super) fn create() -> Outcome<Bench> {
        let (source, target) = (Mtty::create()?, Mtty::create()?);
        let rig = Rig::new(&source, &target)?;
        let watched =
            (Watched::new(Host::Source, &source, &rig), Watched::new(Host::Target, &target, &rig));
        Ok(Bench { watched, rig, source, target })
    }

    /// After a round that went wrong: both devices back to RUNNING.
    pub(super) fn recover(&self) -> Outcome {
        self.rig.disarm();
        for device in [&self.source, &self.target] {
            ioctl::reset(std::os::fd::AsFd::as_fd(&device.mdev.fd()?))?;
            device.mdev.set_state(DeviceState::Running)?;
        }
        Ok(())
    }

    /// Migrates once.
    pub(super) fn round(&mut self, plan: &Plan, rng: &mut fastrand::Rng) -> Outcome<Ended> {
        self.source.scribble(rng)?;
        let state = self.source.mdev.read_state()?;
        let started = Instant::now();
        self.rig.arm(&plan.strikes);
        let route = Route {
            source: self.watched.0.clone(),
            target: self.watched.1.clone(),
            options: DeviceOptions {
                precopy: plan.precopy,
                on_reset: plan.on_reset,
                ..DeviceOptions::default()
            },
        };
        let mut pair = Pair::start(vec![route], 1, &options(plan))?;
        self.rig.now(None, When::Start);
        let cancelled_at = self.lead(plan, &mut pair)?;
        let (sent, target) = pair.source_ends();
        let resets = self.rig.disarm();
        let loaded = target.ends();
        let took = started.elapsed();
        self.judge(&state, &sent, &loaded, resets, cancelled_at.is_some())?;
        Ok(ended(&sent, &loaded, resets, cancelled_at, took))
    }

    /// What the embedder does: lets the guest run on for a while and stops it, or gives up.
    fn lead(&self, plan: &Plan, pair: &mut Pair) -> Outcome<Option<Instant>> {
        if let Some(after) = plan.cancel_after {
            pair.listen(after);
            let at = Instant::now();
            self.rig.now(None, When::Cancel);
            pair.source.cancel();
            return Ok(Some(at));
        }
        if pair.wait_until_ready()? {
            pair.listen(plan.dwell);
            self.rig.now_and_wait(None, When::BeforeSwitchover);
            pair.source.switchover();
        }
        Ok(None)
    }

    fn judge(
        &self,
        state: &[u8],
        sent: &SourceEnd,
        loaded: &TargetEnd,
        resets: Resets,
        cancelled: bool,
    ) -> Outcome {
        for fault in restarts(sent) {
            ensure!(resets.source > 0, "started anew without a reset: {fault}");
            ensure!(fault.cause == Cause::DeviceReset, "started anew because of {fault}");
            ensure!(SOURCE_SEES.contains(&fault.observed), "started anew: {fault}");
        }
        let after = (self.source.mdev.state()?, self.target.mdev.state()?);
        ensure!(after.1 == DeviceState::Running, "the target is in {}", after.1);
        let (at_source, at_target) = match (&sent.report.ending, &loaded.report.ending) {
            (SourceEnding::HandedOver, TargetEnding::Running) => {
                let stays = after.0 == DeviceState::Stop || resets.source > 0;
                ensure!(stays, "complete, and the source is in {}", after.0);
                self.source.mdev.set_state(DeviceState::Running)?;
                return same_state(state, &self.target.mdev.read_state()?);
            }
            (SourceEnding::Returned(source), TargetEnding::Blank(target)) => (source, target),
            (source, target) => fail!("the source's end is {source}, the target's {target}"),
        };
        ensure!(after.0 == DeviceState::Running, "aborted, and the source is in {}", after.0);
        same_state(state, &self.source.mdev.read_state()?)?;
        let source_saw = resets.source > 0
            && at_source.cause == Cause::DeviceReset
            && SOURCE_SEES.contains(&at_source.observed);
        let target_saw = resets.target > 0
            && at_target.cause == Cause::DeviceReset
            && TARGET_SEES.contains(&at_target.observed);
        let gave_up = cancelled && at_source.cause == Cause::Cancelled;
        let told = at_source.cause == Cause::PeerAbort && target_saw;
        ensure!(
            source_saw || gave_up || told,
            "{resets:?}: the source says {at_source}; the target says {at_target}"
        );
        let heard = at_target.cause == Cause::PeerAbort || target_saw;
        ensure!(heard, "the source says {at_source}; the target says {at_target}");
        Ok(())
    }
}

fn options(plan: &Plan) -> Options {
    Options {
        workers: 1,
        chunk_bytes: 4096,
        zero_copy: false,
        precopy_poll: Duration::from_millis(2),
        ..patient(plan.backend)
    }
}

fn ended(
    sent: &SourceEnd,
    loaded: &TargetEnd,
    resets: Resets,
    cancelled_at: Option<Instant>,
    took: Duration,
) -> Ended {
    let cause = sent.fault().map(|fault| fault.cause);
    let source = restarts(sent).chain(sent.fault()).map(|fault| (Host::Source, fault));
    let target = loaded.fault().into_iter().map(|fault| (Host::Target, fault));
    let after_cancel = matches!(
        (cancelled_at, resets.source_at), (Some(cancel), Some(reset)) if reset >= cancel
    );
    Ended {
        source: sent.report.ending.name(),
        cause,
        restarts: restarts(sent).count(),
        seen: source
            .chain(target)
            .filter(|(_, fault)| fault.cause == Cause::DeviceReset)
            .map(|(host, fault)| (host, fault.observed))
            .collect(),
        reset_while_aborting: cause == Some(Cause::Cancelled) && after_cancel,
        took,
    }
}

/// Why epochs of the source were started anew.
fn restarts(sent: &SourceEnd) -> impl Iterator<Item = &Fault> {
    sent.completions
        .iter()
        .filter(|completion: &&Completion| completion.ending == EpochEnding::Restarted)
        .filter_map(|completion| completion.fault.as_ref())
}
