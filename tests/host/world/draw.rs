//! A plan is drawn from its seed.

use bytes::Bytes;
use vfio_ferry::compress::policy::Policy;
use vfio_ferry::machine::TimeLimits;
use vfio_ferry::outcome::{DeviceOptions, Fallback, Latencies, OnReset, Phase};
use vfio_ferry::vfio::state::Capabilities;

use super::plan::{
    DeviceFault, DevicePlan, Drained, Happening, Hostile, Plan, Trigger, When, Wrong,
};
use super::rng::Rng;
use super::schedule::{SOURCE, TARGET};

const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EIO: i32 = 5;
const EINTR: i32 = 4;
const ERESTARTSYS: i32 = 512;
const ENOTCONN: i32 = 107;

impl Plan {
    /// What this seed stands for.
    pub(crate) fn draw(rng: &mut Rng, hostile: bool) -> Plan {
        let devices = rng.pick(&[1, 1, 2, 2, 3, 5]);
        let streams = rng.pick(&[1, 1, 2, 2, 3, 4]);
        let workers = rng.pick(&[1, 1, 2, 3]);
        let unit = 1 + rng.log(30_000);
        let spread = |rng: &mut Rng| 1 + rng.log(unit * 4);
        let bound_ns = 1_000_000 + rng.below(20_000_000);
        let mut plan = Plan {
            devices: (0..devices).map(|_| DevicePlan::draw(rng)).collect(),
            streams,
            workers,
            slots_per_device: rng.pick(&[3, 3, 4, 5, 8, 12]),
            policy: rng.pick(&[Policy::Adaptive, Policy::Raw, Policy::Zstd(1), Policy::Zstd(3)]),
            codec: rng.one_in(2) || hostile,
            poll_ns: rng.pick(&[0, 10_000, 100_000, 400_000]),
            bound_ns,
            detach_bound_ns: bound_ns / 2,
            silence_ns: 20_000_000 + rng.below(40_000_000),
            limits: [TimeLimits::only_cancel(bound_ns); 2],
            pace_ns: [0; 2],
            frame_ns: 0,
            honest: false,
            control_ns: spread(rng),
            data_ns: spread(rng),
            network_ns: spread(rng),
            slow_stream: (rng.below(u64::from(streams)) as u16, rng.pick(&[1, 1, 10, 50])),
            worker_ns: spread(rng),
            one_word: false,
            tries_path: false,
            switchover: When::Ns(rng.log(4_000_000)),
            faults: Vec::new(),
            happenings: Vec::new(),
            hostile: None,
        };
        // Not drawn, so that the seeds of before keep their runs.
        plan.tries_path = plan.bound_ns.is_multiple_of(3);
        plan.one_word = plan.bound_ns.is_multiple_of(4) && plan.slow_stream.1 == 1;
        if rng.one_in(3) {
            plan.switchover = When::Step(rng.log(1000));
        }
        if hostile {
            let host = rng.pick(&[SOURCE, TARGET]);
            plan.hostile = Some(Hostile { host, one_in: rng.pick(&[5, 20, 60, 200, 600]) });
        }
        // What goes wrong often goes wrong together.
        let near = When::draw(rng);
        for _ in 0..rng.pick(&[0, 0, 1, 1, 1, 2, 3, 5, 9]) {
            plan.faults.push(DeviceFault::draw(rng, devices, near));
        }
        for _ in 0..rng.pick(&[0, 0, 0, 1, 1, 2, 3]) {
            let when = When::draw_near(rng, near);
            plan.happenings.push((when, Happening::draw(rng, devices, streams, plan.silence_ns)));
        }
        match rng.below(24) {
            0..=2 => plan.storm(rng),
            3 | 4 => plan.fail_late(rng),
            _ => {}
        }
        plan
    }
}

impl When {
    /// Anywhere, or soon after something that happens at most once in a session.
    pub(crate) fn draw(rng: &mut Rng) -> When {
        let host = rng.pick(&[SOURCE, TARGET]);
        match rng.below(3) {
            0 => When::After(host, rng.pick(&Phase::ALL), rng.log(30)),
            _ => When::Step(rng.log(3000)),
        }
    }

    /// Anywhere, or within a few steps of this.
    fn draw_near(rng: &mut Rng, near: When) -> When {
        match near {
            _ if rng.one_in(2) => When::draw(rng),
            When::Step(step) => When::Step(step + rng.log(10)),
            When::After(host, phase, steps) => When::After(host, phase, steps + rng.log(10)),
            When::Ns(ns) => When::Ns(ns),
        }
    }
}

impl Plan {
    /// One device of the source is reset again and again, and is always to start afresh.
    fn storm(&mut self, rng: &mut Rng) {
        let device = rng.below(self.devices.len() as u64) as u32;
        // Often more than will be needed, at times fewer. Not drawn, as above.
        let attempts = if self.bound_ns.is_multiple_of(3) { 2 } else { 20 };
        let then = rng.pick(&[Fallback::Abort, Fallback::StopCopy]);
        self.devices[device as usize].options.on_reset = OnReset::Restart { attempts, then };
        for _ in 0..rng.range(3, 12) {
            let when = match rng.below(3) {
                0 => Trigger::At(When::draw(rng)),
                1 => Trigger::Control(rng.log(60)),
                _ => Trigger::Data(rng.log(120)),
            };
            let what = match when {
                Trigger::Data(_) if rng.one_in(6) => {
                    Wrong::Stuck(rng.pick(&[None, Some(0), Some(1), Some(4)]))
                }
                _ => Wrong::Reset,
            };
            self.faults.push(DeviceFault { host: SOURCE, device, when, what });
        }
    }

    /// After the handover one of the target's devices fails, and others resist their reset.
    fn fail_late(&mut self, rng: &mut Rng) {
        let host = TARGET;
        let when = Trigger::At(When::After(host, Phase::Resume, rng.log(12)));
        let device = rng.below(self.devices.len() as u64) as u32;
        self.faults.push(DeviceFault { host, device, when, what: Wrong::Error });
        for device in 0..self.devices.len() as u32 {
            for number in 0..rng.below(4) {
                let (when, what) = (Trigger::Resetting(number), Wrong::Fails(EAGAIN));
                self.faults.push(DeviceFault { host, device, when, what });
            }
        }
    }
}

impl DevicePlan {
    fn draw(rng: &mut Rng) -> DevicePlan {
        let source = rng.pick(&Capabilities::ALL);
        let fallback = rng.pick(&[Fallback::Abort, Fallback::StopCopy]);
        let attempts = rng.below(4) as u32;
        let (piece, segment) = (1 + rng.log(300), 1 + rng.log(200));
        let [initial, dirty, rounds, last] = [60, 30, 12, 60].map(|high| rng.log(high));
        let bytes = piece * (initial + dirty * rounds + last);
        DevicePlan {
            source,
            target: rng.pick(&[source, source, source, Capabilities { p2p: true, precopy: true }]),
            options: DeviceOptions {
                precopy: !rng.one_in(8),
                on_reset: rng.pick(&[
                    OnReset::Abort,
                    OnReset::StopCopy,
                    OnReset::Restart { attempts, then: fallback },
                    OnReset::Restart { attempts: 20, then: fallback },
                ]),
                weight: rng.pick(&[0, 1, 1, 1, 3]),
                reset_to_return: false,
                latencies: Latencies::default(),
                opaque: Bytes::from_static(rng.pick(&[&b""[..], &b"opaque"[..]])),
            },
            paused: false,
            drained: rng.pick(&[Drained::NoMessage, Drained::Zero, Drained::Parks]),
            wants_info: rng.one_in(2),
            reinit: rng.one_in(3),
            false_end: rng.one_in(6),
            sized: !rng.one_in(4),
            zeros: false,
            piece,
            // A few hundred reads an epoch at most.
            segment: segment.max(bytes / 300),
            initial,
            dirty,
            rounds,
            last,
        }
    }
}

impl DeviceFault {
    fn draw(rng: &mut Rng, devices: u64, near: When) -> DeviceFault {
        let host = rng.pick(&[SOURCE, SOURCE, TARGET]);
        let device = rng.below(devices) as u32;
        let when = match rng.below(12) {
            0..=2 => Trigger::At(When::draw_near(rng, near)),
            3..=7 => Trigger::Control(rng.log(14)),
            8 => Trigger::Resetting(rng.below(3)),
            _ => Trigger::Data(rng.log(120)),
        };
        let what = match (rng.below(16), when) {
            (_, Trigger::Resetting(_)) => Wrong::Fails(EAGAIN),
            (0..=8, _) => Wrong::Reset,
            (9, _) => Wrong::Error,
            (10, Trigger::Data(_)) => Wrong::Stuck(rng.pick(&[None, Some(1), Some(3)])),
            (11, Trigger::Data(_)) if host == SOURCE => {
                Wrong::Harmless(rng.pick(&[EAGAIN, EINTR, ERESTARTSYS]))
            }
            (11, Trigger::Control(_)) => Wrong::Harmless(rng.pick(&[EAGAIN, EINTR])),
            (12, Trigger::Control(_)) => Wrong::Slow(rng.pick(&[10, 100, 1000])),
            (_, Trigger::At(_)) => rng.pick(&[Wrong::Reset, Wrong::Error]),
            (_, Trigger::Data(_)) if host == TARGET => {
                Wrong::Fails(rng.pick(&[ENOMEM, EFAULT, EIO, ENODEV, EINVAL]))
            }
            (_, Trigger::Data(_)) => Wrong::Fails(rng.pick(&[ENODEV, EIO, ENOTCONN])),
            (_, Trigger::Control(_) | Trigger::Asked(..)) => {
                Wrong::Fails(rng.pick(&[EIO, EINVAL, ENOTCONN]))
            }
        };
        DeviceFault { host, device, when, what }
    }
}

impl Happening {
    fn draw(rng: &mut Rng, devices: u64, streams: u16, silence_ns: u64) -> Happening {
        let host = rng.pick(&[SOURCE, TARGET]);
        let stream = rng.below(u64::from(streams)) as u16;
        let short_ns = rng.aside(|rng| rng.log(silence_ns));
        let stall_ns = rng.pick(&[short_ns, silence_ns * 2]);
        match rng.below(19) {
            0 | 1 => Happening::Cut(stream),
            2 => Happening::CutAll,
            3 => Happening::Stall(stream, stall_ns),
            4 | 16 => Happening::StallAll(stall_ns),
            5 => Happening::Damage(host, rng.one_in(2)),
            6 | 7 => Happening::Cancel(host),
            8..=10 => Happening::Discard(rng.below(devices) as u32),
            11 | 12 | 18 => Happening::Message(host),
            13 => Happening::Local(host),
            17 => Happening::AttachFails(host),
            _ => Happening::EarlyTick(host),
        }
    }
}
