//! When the source's guest is stopped: the decision that a VMM makes from the engine's estimates.

use std::time::Duration;

use vfio_ferry::session::{Completion, EpochEnding, Estimate, Notice};

/// What the source's session showed.
pub(crate) enum Sight {
    /// A notice.
    Notice(Notice),
    /// None for as long as [`Switchover::patience`].
    Nothing,
}

/// The decision. Without PRE_COPY: when the streams are agreed on and the engine has found out how fast
/// they are, as it has long before a VMM stops its guest. With it: when the initial
/// data is loaded on the target and nothing is left to be moved before the stop, or the downtime
/// that the engine expects is short, or no longer gets shorter.
pub(crate) struct Switchover {
    precopy: bool,
    connected: bool,
    least_ns: Option<u64>,
    no_better: u32,
    decided: bool,
}

/// A downtime that need not get shorter; QEMU's default limit is 300 ms.
const SHORT_NS: u64 = 100_000_000;
/// How long is waited for anything at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long, once the streams are agreed on, for how fast they are: of some nobody finds out.
const PATH_WITHIN: Duration = Duration::from_millis(200);
/// After so many estimates that are no better than the best, more PRE_COPY does not help.
const NO_BETTER_MAX: u32 = 5;

impl Switchover {
    /// Without a sign of life for so long there is nothing to wait for.
    pub(crate) fn patience(&self) -> Duration {
        match self.connected && !self.precopy {
            true => PATH_WITHIN,
            false => PATIENCE,
        }
    }

    pub(crate) fn new(precopy: bool) -> Switchover {
        Switchover { precopy, connected: false, least_ns: None, no_better: 0, decided: false }
    }

    /// Whether the guest is to be stopped now.
    pub(crate) fn is_decided(&self) -> bool {
        self.decided
    }

    /// Takes in what the session showed.
    pub(crate) fn saw(&mut self, sight: Sight) {
        match sight {
            Sight::Nothing => self.decided = true,
            Sight::Notice(Notice::Connected { .. }) => self.connected = true,
            Sight::Notice(Notice::Path { .. }) => self.decided |= !self.precopy,
            Sight::Notice(Notice::Estimate(estimate)) if self.precopy => self.weigh(&estimate),
            // What was saved is void, and so is what was reckoned from it.
            Sight::Notice(Notice::Completion(Completion {
                ending: EpochEnding::Restarted,
                ..
            })) => {
                (self.least_ns, self.no_better) = (None, 0);
            }
            Sight::Notice(_) => {}
        }
    }

    fn weigh(&mut self, estimate: &Estimate) {
        if !estimate.initial_data_loaded {
            return;
        }
        // The rest can only go once the device is stopped: waiting makes it no less. A device that
        // saves nothing in PRE_COPY, or not any more, is so from the start.
        self.decided |= estimate.pending_bytes == 0;
        let Some(downtime_ns) = estimate.downtime_ns else { return };
        if self.least_ns.is_none_or(|least| downtime_ns < least) {
            (self.least_ns, self.no_better) = (Some(downtime_ns), 0);
        } else {
            self.no_better += 1;
        }
        self.decided |= downtime_ns <= SHORT_NS || self.no_better >= NO_BETTER_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_ferry::session::{
        EmbeddedConfig, EmbeddedDevice, Options, SessionEvent, SourceDevice, SourceSession,
    };
    use vfio_ferry::{DeviceOptions, Host};

    fn estimate(initial_data_loaded: bool, ms: u64) -> Sight {
        let mut estimate = Estimate::default();
        estimate.initial_data_loaded = initial_data_loaded;
        (estimate.pending_bytes, estimate.downtime_ns) = (1, Some(ms * 1_000_000));
        Sight::Notice(Notice::Estimate(estimate))
    }

    fn decided_after(precopy: bool, sights: impl IntoIterator<Item = Sight>) -> Option<usize> {
        let mut switchover = Switchover::new(precopy);
        sights.into_iter().position(|sight| {
            switchover.saw(sight);
            switchover.is_decided()
        })
    }

    #[test]
    fn without_precopy_once_the_path_is_known() {
        let connected = || Sight::Notice(Notice::Connected { version: 1, chunk_bytes: 1 << 18 });
        let path = || Sight::Notice(Notice::Path { bytes_per_s: 1, round_trip_ns: 1 });
        assert_eq!(decided_after(false, [connected(), path()]), Some(1));
        // That nothing is pending before the stop is so from the start.
        assert_eq!(decided_after(false, [connected(), estimate(true, 1), path()]), Some(2));
        assert_eq!(decided_after(false, [connected(), Sight::Nothing]), Some(1));
        assert_eq!(decided_after(true, [connected(), path()]), None);
        let mut switchover = Switchover::new(false);
        assert_eq!(switchover.patience(), PATIENCE);
        switchover.saw(connected());
        assert_eq!(switchover.patience(), PATH_WITHIN);
    }

    #[test]
    fn short_enough_and_loaded() {
        let sights = [estimate(false, 1), estimate(true, 900), estimate(true, 90)];
        assert_eq!(decided_after(true, sights), Some(2));
    }

    #[test]
    fn a_drained_device_is_waited_for_no_longer() {
        let pending = |pending_bytes, downtime_ns| {
            let Sight::Notice(Notice::Estimate(mut estimate)) = estimate(true, 0) else {
                unreachable!("what it makes")
            };
            (estimate.pending_bytes, estimate.downtime_ns) = (pending_bytes, downtime_ns);
            Sight::Notice(Notice::Estimate(estimate))
        };
        let slow = Some(900_000_000);
        assert_eq!(decided_after(true, [pending(9, slow), pending(0, slow)]), Some(1));
        // Too small for a rate to be measured by.
        assert_eq!(decided_after(true, [pending(9, None), pending(0, None)]), Some(1));
    }

    #[test]
    fn never_better_is_good_enough() {
        assert_eq!(decided_after(true, (0..20).map(|_| estimate(true, 900))), Some(5));
        assert_eq!(decided_after(true, (0..20).map(|i| estimate(true, 900 - i))), None);
    }

    /// A restart of the only device: only an engine makes one.
    fn restarted() -> Sight {
        let device = EmbeddedDevice::new(Host::Source, EmbeddedConfig::default());
        let device = SourceDevice {
            name: "net0".to_owned(),
            device: device.expect("an eventfd"),
            options: DeviceOptions::default(),
        };
        let (here, _there) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let session = SourceSession::start(vec![device], vec![here.into()], Options::default());
        let session = session.expect("it starts");
        session.cancel();
        let completion = std::iter::from_fn(|| session.wait_event(None)).find_map(|event| {
            let SessionEvent::Notice(Notice::Completion(found)) = event else { return None };
            Some(found)
        });
        let mut completion = completion.expect("its device has one");
        completion.ending = EpochEnding::Restarted;
        Sight::Notice(Notice::Completion(completion))
    }

    #[test]
    fn what_was_reckoned_before_a_restart_is_void() {
        let slow = || (0..NO_BETTER_MAX).map(|_| estimate(true, 900));
        let never_better = slow().chain([estimate(true, 900)]);
        assert_eq!(decided_after(true, never_better), Some(NO_BETTER_MAX as usize));
        // One is missing, and all begins anew: with less to hope for.
        let anew = slow().chain([restarted()]).chain((0..20).map(|_| estimate(true, 950)));
        assert_eq!(decided_after(true, anew), Some(2 * NO_BETTER_MAX as usize + 1));
    }

    #[test]
    fn silence_ends_the_wait() {
        assert_eq!(decided_after(true, [Sight::Nothing]), Some(0));
    }
}
