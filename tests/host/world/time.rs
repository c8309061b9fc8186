//! What a plan says of time: the limits of both sessions, and the drivers, peers and links that try
//! them. Drawn apart from the rest, so that the seeds of before keep their devices and faults.

use vfio_ferry::machine::{NO_LIMIT_NS, Request, TimeLimits};
use vfio_ferry::outcome::Phase;
use vfio_ferry::vfio::state::DeviceState;

use super::plan::{DeviceFault, Happening, Muted, Plan, Trigger, When, Wrong};
use super::rng::Rng;
use super::schedule::{SOURCE, TARGET};

const MS: u64 = 1_000_000;
const EIO: i32 = 5;

impl Plan {
    /// Gives the plan its limits and what tries them.
    pub(crate) fn draw_time(&mut self, rng: &mut Rng) {
        if !rng.one_in(6) {
            self.limits = [SOURCE, TARGET].map(|_| limits(rng, self.bound_ns));
        }
        if rng.one_in(20) {
            self.silence_ns = NO_LIMIT_NS;
        }
        if rng.one_in(8) {
            let some = rng.one_in(3);
            self.devices.iter_mut().for_each(|device| device.paused = !some || rng.one_in(2));
        }
        for device in &mut self.devices {
            device.options.reset_to_return = rng.one_in(4);
            device.zeros = rng.one_in(10);
            if device.zeros {
                // Enough of them to fill what may wait.
                device.last = device.last.max(40);
                device.piece = device.piece.max(40);
                device.segment = (device.piece * device.last / 400).max(1);
            }
        }
        for _ in 0..rng.pick(&[0, 0, 0, 0, 1, 1, 2, 4]) {
            let fault = DeviceFault::draw_late(rng, self.devices.len() as u64, self.bound_ns);
            self.faults.push(fault);
        }
        for _ in 0..rng.pick(&[0, 0, 0, 0, 0, 1, 1, 2]) {
            let happening = Happening::draw_slow(rng, self.streams);
            self.happenings.push((When::draw_any(rng), happening));
        }
        match rng.below(60) {
            0 | 1 => self.refuse(rng),
            2 | 3 => self.greet_badly(rng),
            4..=7 => self.part_badly(rng),
            8..=14 => self.chatter(rng),
            15..=17 => self.crawl(rng),
            _ => {}
        }
    }

    /// A device of the source that refuses to go back where it was found, once or for good.
    fn refuse(&mut self, rng: &mut Rng) {
        let device = rng.below(self.devices.len() as u64) as u32;
        let paused = self.devices[device as usize].paused;
        let home = if paused { DeviceState::Stop } else { DeviceState::Running };
        for number in 0..rng.range(1, 4) {
            let when = Trigger::Asked(Request::SetState(home), number);
            let what = Wrong::Fails(EIO);
            self.faults.push(DeviceFault { host: SOURCE, device, when, what });
        }
        self.happenings.push((When::draw_any(rng), Happening::Cancel(SOURCE)));
    }

    /// A handshake that loses a frame, and does not wait for long.
    fn greet_badly(&mut self, rng: &mut Rng) {
        let host = rng.pick(&[SOURCE, TARGET]);
        let (seen, when) = (false, When::Step(rng.below(4)));
        self.happenings.push((when, Happening::Lose { host, seen }));
        self.limits[rng.pick(&[SOURCE, TARGET])].handshake_ns = rng.range(MS, 15 * MS);
    }

    /// All goes well until the handover. Then a driver is late, or the target does not say that it
    /// runs, and an embedder loses its patience.
    fn part_badly(&mut self, rng: &mut Rng) {
        if !rng.one_in(4) {
            self.faults.clear();
            self.happenings.clear();
        }
        let device = rng.below(self.devices.len() as u64) as u32;
        let late = [rng.range(1, 8) * self.bound_ns / 4, rng.log(300 * MS)];
        let what = if rng.one_in(6) { Wrong::Never } else { Wrong::Late(rng.pick(&late)) };
        let (host, state) = rng.pick(&[
            (TARGET, DeviceState::Running),
            (TARGET, DeviceState::RunningP2p),
            (SOURCE, DeviceState::Stop),
        ]);
        let when = Trigger::Asked(Request::SetState(state), 0);
        self.faults.push(DeviceFault { host, device, when, what });
        if rng.one_in(4) {
            let stall = Happening::StallAll(2 * self.bound_ns);
            self.happenings.push((When::After(TARGET, Phase::Resume, rng.log(8)), stall));
        }
        if rng.one_in(3) {
            let mute = Happening::Mute(TARGET, Muted::Running);
            self.happenings.push((When::After(TARGET, Phase::Load, 0), mute));
        }
        for (host, phase) in [(SOURCE, Phase::Handover), (TARGET, Phase::Resume)] {
            if rng.one_in(2) {
                let when = When::After(host, phase, rng.log(8));
                self.happenings.push((when, Happening::Cancel(host)));
            }
        }
    }

    /// A peer that goes on to live and leaves out what it owes. The other has its limits.
    fn chatter(&mut self, rng: &mut Rng) {
        if !rng.one_in(4) {
            self.faults.clear();
            self.happenings.clear();
        }
        let host = rng.pick(&[SOURCE, TARGET]);
        let what = match host {
            SOURCE => rng.pick(&[Muted::Data, Muted::Handover, Muted::AllButLife]),
            _ => rng.pick(&[Muted::Credit, Muted::Loaded, Muted::Running, Muted::AllButLife]),
        };
        let when = match rng.below(3) {
            // These come once, and late.
            _ if matches!(what, Muted::Handover | Muted::Loaded | Muted::Running) => When::Step(1),
            0 => When::Step(rng.log(200)),
            1 => When::After(SOURCE, Phase::PreCopy, rng.log(60)),
            _ => When::After(SOURCE, Phase::StopCopy, rng.log(60)),
        };
        self.happenings.push((when, Happening::Mute(host, what)));
        self.silence_ns = 20 * MS;
        self.limits = [SOURCE, TARGET].map(|each| TimeLimits {
            handshake_ns: 100 * MS,
            stall_ns: if each == host { 300 * MS } else { rng.range(10 * MS, 60 * MS) },
            idle_ns: rng.range(20 * MS, 120 * MS),
            budget_ns: NO_LIMIT_NS,
            confirm_ns: rng.range(20 * MS, 100 * MS),
            cancel_ns: self.bound_ns,
        });
    }

    /// Nothing goes wrong, but a device or the path is slow: the whole takes many times the limits,
    /// and each step far less.
    fn crawl(&mut self, rng: &mut Rng) {
        self.faults.clear();
        self.happenings.clear();
        self.honest = true;
        self.silence_ns = 40 * MS;
        self.worker_ns = self.worker_ns.min(1000);
        self.slow_stream = (0, 1);
        let stall_ns = rng.range(8 * MS, 20 * MS);
        self.limits = [TimeLimits {
            handshake_ns: 100 * MS,
            stall_ns,
            idle_ns: 900 * MS,
            budget_ns: NO_LIMIT_NS,
            confirm_ns: 100 * MS,
            cancel_ns: 20 * MS,
        }; 2];
        self.bound_ns = 20 * MS;
        self.detach_bound_ns = 10 * MS;
        let pace_ns = (stall_ns / 12).min(1000 * MS / (350 * self.devices.len() as u64));
        match rng.below(3) {
            0 => self.frame_ns = pace_ns,
            host => self.pace_ns[host as usize - 1] = pace_ns,
        }
    }

    /// Whether a session may wait for ever, because its embedder wants that.
    pub(crate) fn may_hang(&self) -> bool {
        self.limits.iter().any(|limits| {
            let TimeLimits { handshake_ns, stall_ns, idle_ns, confirm_ns, .. } = *limits;
            [handshake_ns, stall_ns, idle_ns, confirm_ns].contains(&NO_LIMIT_NS)
        })
    }
}

/// Mostly such as honest drivers keep, at times some that they do not.
fn limits(rng: &mut Rng, cancel_ns: u64) -> TimeLimits {
    let limit = |rng: &mut Rng, low: u64, high: u64| match rng.below(16) {
        0 => NO_LIMIT_NS,
        1 => rng.range(MS, low),
        _ => rng.range(low, high),
    };
    TimeLimits {
        handshake_ns: match rng.below(12) {
            0 => NO_LIMIT_NS,
            1 => rng.range(1000, MS),
            _ => rng.range(20 * MS, 200 * MS),
        },
        stall_ns: limit(rng, 60 * MS, 250 * MS),
        idle_ns: limit(rng, 400 * MS, 900 * MS),
        confirm_ns: limit(rng, 40 * MS, 200 * MS),
        budget_ns: match rng.below(6) {
            0 => rng.range(MS / 10, 10 * MS),
            1 => rng.range(10 * MS, 200 * MS),
            _ => NO_LIMIT_NS,
        },
        cancel_ns,
    }
}

impl When {
    /// Anywhere, often in a phase that is met late.
    fn draw_any(rng: &mut Rng) -> When {
        match rng.below(4) {
            0 => When::After(SOURCE, rng.pick(&[Phase::Load, Phase::Handover]), rng.log(12)),
            1 => When::After(TARGET, rng.pick(&[Phase::Load, Phase::Resume]), rng.log(12)),
            _ => When::draw(rng),
        }
    }
}

impl DeviceFault {
    /// A driver that answers late or never, or an embedder's device that panics.
    fn draw_late(rng: &mut Rng, devices: u64, bound_ns: u64) -> DeviceFault {
        let host = rng.pick(&[SOURCE, TARGET]);
        let device = rng.below(devices) as u32;
        let set = Request::SetState;
        let asked = match host {
            SOURCE => rng.pick(&[
                set(DeviceState::PreCopy),
                set(DeviceState::PreCopyP2p),
                set(DeviceState::RunningP2p),
                set(DeviceState::StopCopy),
                set(DeviceState::StopCopy),
                set(DeviceState::Stop),
                set(DeviceState::Running),
                Request::GetState,
                Request::PrecopyInfo,
                Request::StopCopyLength,
            ]),
            _ => rng.pick(&[
                set(DeviceState::Resuming),
                set(DeviceState::Stop),
                set(DeviceState::RunningP2p),
                set(DeviceState::Running),
                set(DeviceState::Running),
                Request::GetState,
                Request::Reset,
            ]),
        };
        let when = match rng.below(5) {
            0 => Trigger::Control(rng.log(14)),
            1 => Trigger::Data(rng.log(120)),
            _ => Trigger::Asked(asked, rng.log(2)),
        };
        let what = match rng.below(8) {
            0 => Wrong::Never,
            1 | 2 if !matches!(when, Trigger::Data(_)) => Wrong::Panics,
            3 => Wrong::Late(rng.range(1, 4) * bound_ns / 2),
            _ => Wrong::Late(rng.log(500 * MS)),
        };
        DeviceFault { host, device, when, what }
    }
}

impl Happening {
    /// A peer that chatters, a frame that is lost, a link that crawls, a cancel late in a session.
    fn draw_slow(rng: &mut Rng, streams: u16) -> Happening {
        let host = rng.pick(&[SOURCE, TARGET]);
        let stream = rng.below(u64::from(streams)) as u16;
        match rng.below(8) {
            0 => Happening::Lose { host, seen: false },
            1 => Happening::Lose { host, seen: true },
            2 | 3 => {
                let says = match host {
                    SOURCE => [Muted::Data, Muted::Handover, Muted::Abort, Muted::AllButLife],
                    _ => [Muted::Credit, Muted::Loaded, Muted::Running, Muted::AllButLife],
                };
                Happening::Mute(host, rng.pick(&says))
            }
            4 | 5 => {
                let stream = if rng.one_in(2) { None } else { Some(stream) };
                let bytes = rng.pick(&[1, 100, 64 << 10, 1 << 20]);
                Happening::Crawl(stream, rng.range(MS, 400 * MS), bytes)
            }
            _ => Happening::Cancel(host),
        }
    }
}
