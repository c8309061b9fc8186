//! How the two ends of a session fit together, once nothing is left to happen.

use vfio_ferry::ids::DeviceId;
use vfio_ferry::limits::RESTARTS_DEFAULT;
use vfio_ferry::outcome::{Cause, EpochEnding, Fallback, Fault, OnReset};

use super::check::{Check, ensure};
use super::schedule::{HostId, SOURCE, TARGET};
use super::side::Ended;
use super::world::World;

impl World {
    /// How the two ends of a session fit together.
    pub(crate) fn check_both(&self) -> Check {
        let [Some(source), Some(target)] = [SOURCE, TARGET].map(|h| self.sides[h].ended.as_ref())
        else {
            return Ok(());
        };
        let both = format!("source {source:?}, target {target:?}");
        let agreed = match (source.epochs(), target.epochs()) {
            (EpochEnding::Complete, target) => target == EpochEnding::Complete,
            (EpochEnding::Aborted, target) => target == EpochEnding::Aborted,
            (EpochEnding::Unconfirmed, EpochEnding::Complete) => self.may_be_unheard(),
            // A target that cannot reset its device does not give its word.
            (EpochEnding::Unconfirmed, _) => self.may_be_unheard() || self.allowed.troubled(TARGET),
            _ => false,
        };
        ensure!(agreed, "the two hosts' endings fit", "{both}");
        ensure!(
            !self.plan.honest || source.epochs() == EpochEnding::Complete,
            "what is only slow comes to its good end",
            "{both}"
        );
        for h in [SOURCE, TARGET] {
            ensure!(
                self.sides[h].messages <= self.sent_messages(1 - h),
                "messages are those that were sent",
                "host {h}"
            );
            if let Some(fault) = self.sides[h].ended.as_ref().and_then(Ended::fault) {
                ensure!(self.explains(h, fault), "an abort has a reason", "host {h}: {both}");
            }
        }
        for index in 0..self.plan.devices.len() {
            self.check_restarts(index, target.epochs())?;
        }
        let reports = [SOURCE, TARGET].map(|h| self.sides[h].real.look().reports());
        for (sent, loaded) in reports[SOURCE].iter().zip(&reports[TARGET]) {
            let whole = source.epochs() == EpochEnding::Complete && sent.epoch.0 == 0;
            ensure!(
                !whole || (sent.chunks, sent.wire_bytes) == (loaded.chunks, loaded.wire_bytes),
                "what was sent is what arrived",
                "{sent:?}, {loaded:?}"
            );
            ensure!(
                sent.total.bytes == 0
                    || source.epochs() != EpochEnding::Complete
                    || (sent.chunks.iter().sum::<u64>() > 0 && sent.wire_bytes > 0),
                "chunks are counted",
                "{sent:?}"
            );
        }
        Ok(())
    }

    /// Whether the target's last word may not have reached the source.
    fn may_be_unheard(&self) -> bool {
        let allowed = &self.allowed;
        let fault = self.sides[SOURCE].ended.as_ref().and_then(Ended::fault);
        // Its embedder did not wait for as long as that takes.
        let impatient =
            fault.is_some_and(|fault| matches!(fault.cause, Cause::TimeLimit | Cause::Cancelled));
        let lost = allowed.lost[TARGET] || allowed.lost[SOURCE];
        impatient || allowed.network || allowed.damage || allowed.local[SOURCE] || lost
    }

    fn check_restarts(&self, index: usize, ending: EpochEnding) -> Check {
        let restarts = [SOURCE, TARGET].map(|h| {
            let of = |c: &&vfio_ferry::outcome::Completion| {
                c.device.index() == index && c.ending == EpochEnding::Restarted
            };
            self.sides[h].completions.iter().filter(of).count()
        });
        ensure!(
            restarts[0] == restarts[1]
                || (restarts[1] < restarts[0] && ending == EpochEnding::Aborted),
            "every restart is a discard at the target, or an abort",
            "device {index}: {restarts:?}"
        );
        // So many, and then what the embedder wants instead: the whole state from STOP_COPY, once.
        let bound = match self.plan.devices[index].options.on_reset {
            OnReset::Abort => 0,
            OnReset::Restart { attempts, then } => {
                attempts as usize + usize::from(then == Fallback::StopCopy)
            }
            _ => RESTARTS_DEFAULT as usize,
        };
        ensure!(restarts[0] <= bound, "restarts are bounded", "device {index}: {restarts:?}");
        let fault = self.sides[SOURCE].ended.as_ref().and_then(Ended::fault);
        let reset = fault.is_some_and(|fault| {
            fault.cause == Cause::DeviceReset && fault.device == Some(DeviceId(index as u32))
        });
        ensure!(
            !reset || restarts[0] == bound,
            "a reset is given up on when the restarts are used up",
            "device {index}: {} of {bound}",
            restarts[0]
        );
        Ok(())
    }

    /// Whether something was done to the run from which this fault follows.
    fn explains(&self, h: HostId, fault: &Fault) -> bool {
        let allowed = &self.allowed;
        let peer = self.sides[1 - h].ended.as_ref().and_then(Ended::fault);
        match fault.cause {
            Cause::DeviceReset => allowed.reset[h] || allowed.discard,
            // SET_STATE from ERROR is EINVAL; a reset may have hidden the ERROR since.
            Cause::DeviceFailure => allowed.failure[h] || allowed.error[h],
            Cause::DeviceError => allowed.error[h] || allowed.failure[h],
            // With the peer's own words.
            Cause::PeerAbort => peer.is_some_and(|peer| {
                peer.cause != Cause::PeerAbort && fault.message.contains(&peer.message)
            }),
            // Where a frame is missing, the next one may be one too early.
            Cause::PeerMisbehaviour => allowed.damage || allowed.lost[1 - h],
            Cause::Network => {
                let lost = allowed.lost.contains(&true);
                let word = self.sides[1 - h].gave_word && !lost;
                allowed.network || allowed.damage || !word
            }
            // When it struck, it was over.
            Cause::TimeLimit => true,
            Cause::Cancelled => allowed.cancel[h],
            Cause::Local => allowed.local[h],
            _ => false,
        }
    }

    /// What a peer that sends what it likes cannot break.
    pub(crate) fn check_victim(&self) -> Check {
        let Some(hostile) = self.plan.hostile else { return Ok(()) };
        let ended = self.sides[1 - hostile.host].ended.as_ref();
        if let Some(fault) = ended.and_then(Ended::fault)
            && fault.cause == Cause::PeerMisbehaviour
        {
            ensure!(fault.breach.is_some(), "misbehaviour is named", "{fault}");
        }
        Ok(())
    }
}
