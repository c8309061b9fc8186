//! A simulated VFIO device, one on each host: states and arcs as the engine's table has them, and
//! what a fair double must keep (sessions, deferred resets, dead fds, drained flavours, REINIT).
//!
//! An operation takes effect at the moment at which it ends. While a call holds the driver's
//! `state_mutex` a reset from outside is only noted; whoever leaves applies it
//! (`*_state_mutex_unlock`), after his own effect: SET_STATE returns 0 with a dead fd, the last
//! write succeeds and is thrown away, PRECOPY_INFO succeeds and the next one does not.

use vfio_ferry::ids::Epoch;
use vfio_ferry::vfio::device::PrecopyInfo;
use vfio_ferry::vfio::state::{Capabilities, DeviceState, path};

use super::plan::{DevicePlan, Drained};
use super::rng::Rng;

pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENODEV: i32 = 19;
pub(crate) const ENOMSG: i32 = 42;
pub(crate) const ENOTTY: i32 = 25;

/// A saving session: everything that it has to say, and how much of it was read.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) bytes: Vec<u8>,
    pub(crate) read: usize,
    /// Bytes that the driver has already got from the device.
    there: usize,
    pub(crate) initial_end: usize,
    rounds: u64,
    alive: bool,
    /// STOP_COPY was reached: `bytes` is the whole state.
    pub(crate) whole: bool,
}

/// What was written since RESUMING was entered.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    pub(crate) bytes: Vec<u8>,
    pub(crate) epoch: Option<Epoch>,
    alive: bool,
}

/// State that was taken in by leaving RESUMING for STOP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) epoch: Option<Epoch>,
}

#[derive(Debug)]
pub(crate) struct SimDevice {
    plan: DevicePlan,
    caps: Capabilities,
    pub(crate) state: DeviceState,
    pub(crate) sessions: Vec<Session>,
    pub(crate) resumes: Vec<Resume>,
    pub(crate) loaded: Option<Loaded>,
    holders: u32,
    deferred: bool,
    pub(crate) resets: u32,
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Bytes(Vec<u8>),
    Zero,
    Errno(i32),
    Parks,
}

impl SimDevice {
    /// A device in this state, with none of another host's.
    pub(crate) fn new(plan: DevicePlan, caps: Capabilities, state: DeviceState) -> SimDevice {
        SimDevice {
            plan,
            caps,
            state,
            sessions: Vec::new(),
            resumes: Vec::new(),
            loaded: None,
            holders: 0,
            deferred: false,
            resets: 0,
        }
    }

    /// A call takes the driver's mutex.
    pub(crate) fn enter_mutex(&mut self) {
        self.holders += 1;
    }

    /// A call leaves it, and applies what was deferred. True if that was a reset.
    pub(crate) fn leave_mutex(&mut self) -> bool {
        self.holders -= 1;
        let deferred = std::mem::take(&mut self.deferred);
        if deferred {
            self.apply_reset();
        }
        deferred
    }

    /// Someone resets the device. True if it happened at once.
    pub(crate) fn reset(&mut self) -> bool {
        self.deferred = self.holders > 0;
        if !self.deferred {
            self.apply_reset();
        }
        !self.deferred
    }

    pub(crate) fn apply_reset(&mut self) {
        self.resets += 1;
        self.disable();
        self.loaded = None;
        self.state = DeviceState::Running;
    }

    /// The device fails by itself.
    pub(crate) fn fail(&mut self) {
        self.disable();
        self.loaded = None;
        self.state = DeviceState::Error;
    }

    /// All data fds are dead from now on.
    fn disable(&mut self) {
        self.sessions.iter_mut().for_each(|session| session.alive = false);
        self.resumes.iter_mut().for_each(|resume| resume.alive = false);
    }

    /// Saving fails behind the fd of this session, and the fd is dead from now on; the device's
    /// state stays as it is. A newer session does not know the old one's fd.
    pub(crate) fn save_fails(&mut self, session: usize) {
        self.sessions[session].alive = false;
    }

    /// SET_STATE. The number of the session behind the new fd, if there is one. With `fails_at`
    /// the driver gives up there on the path.
    pub(crate) fn set_state(
        &mut self,
        to: DeviceState,
        fails: Option<i32>,
        rng: &mut Rng,
    ) -> Result<Option<usize>, i32> {
        let Some(mut steps) = path(self.state, to, self.caps) else { return Err(EINVAL) };
        if fails.is_some() {
            steps.truncate(rng.below(steps.len() as u64) as usize);
        }
        let mut fd = None;
        for step in steps {
            fd = self.step(step, rng).or(fd.filter(|_| step.is_saving()));
        }
        fails.map_or(Ok(fd), Err)
    }

    fn step(&mut self, to: DeviceState, rng: &mut Rng) -> Option<usize> {
        let from = std::mem::replace(&mut self.state, to);
        match (from.is_saving(), to.is_saving()) {
            (true, false) => self.disable(),
            (false, true) => {
                let mut session =
                    Session { alive: true, rounds: self.plan.rounds, ..Session::default() };
                let pieces = match to {
                    DeviceState::StopCopy => self.plan.initial + self.plan.last,
                    _ => self.plan.initial,
                };
                session.add(pieces, &self.plan, rng);
                session.there = session.bytes.len();
                session.initial_end = session.bytes.len();
                session.whole = to == DeviceState::StopCopy;
                self.sessions.push(session);
                return Some(self.sessions.len() - 1);
            }
            (true, true) if to == DeviceState::StopCopy => {
                if let Some(session) = self.sessions.last_mut() {
                    session.add(self.plan.last, &self.plan, rng);
                    session.there = session.bytes.len();
                    session.whole = true;
                }
            }
            _ => {}
        }
        if to == DeviceState::Resuming {
            self.loaded = None;
            self.resumes.push(Resume { alive: true, ..Resume::default() });
            return Some(self.resumes.len() - 1);
        }
        if from == DeviceState::Resuming {
            self.loaded = self
                .resumes
                .last()
                .filter(|resume| resume.alive)
                .map(|resume| Loaded { bytes: resume.bytes.clone(), epoch: resume.epoch });
            self.disable();
        }
        None
    }

    /// A read; what comes is short as often as not.
    pub(crate) fn read(&mut self, session: usize, rng: &mut Rng) -> Got {
        let plan = &self.plan;
        let entry = &mut self.sessions[session];
        if !entry.alive {
            return if plan.false_end { Got::Zero } else { Got::Errno(ENODEV) };
        }
        if entry.there == entry.read && !entry.whole && !plan.wants_info && rng.one_in(3) {
            entry.dirty(plan, rng);
            entry.there = entry.bytes.len();
        }
        let left = entry.there - entry.read;
        if left == 0 {
            return match plan.drained {
                _ if entry.whole => Got::Zero,
                Drained::NoMessage => Got::Errno(ENOMSG),
                Drained::Zero => Got::Zero,
                Drained::Parks => Got::Parks,
            };
        }
        let bytes = rng.range(1, plan.segment.min(left as u64)) as usize;
        let start = entry.read;
        entry.read += bytes;
        Got::Bytes(entry.bytes[start..entry.read].to_vec())
    }

    /// VFIO_MIG_GET_PRECOPY_INFO on the fd of this session. The state is looked at first.
    pub(crate) fn precopy_info(
        &mut self,
        session: usize,
        rng: &mut Rng,
    ) -> Result<PrecopyInfo, i32> {
        if !self.state.is_precopy() {
            return Err(EINVAL);
        }
        let plan = &self.plan;
        let entry = &mut self.sessions[session];
        if !entry.alive {
            return Err(ENODEV);
        }
        let mut reinit = false;
        if entry.there == entry.bytes.len() && !rng.one_in(3) {
            let before = entry.bytes.len();
            entry.dirty(plan, rng);
            reinit = plan.reinit && entry.bytes.len() > before && rng.one_in(2);
            if reinit {
                entry.initial_end = entry.bytes.len();
            }
        }
        let initial_bytes = entry.initial_end.saturating_sub(entry.read) as u64;
        let dirty_bytes = (entry.bytes.len() - entry.read) as u64 - initial_bytes;
        Ok(PrecopyInfo { initial_bytes, dirty_bytes, reinit })
    }

    /// What PRECOPY_INFO had made the driver fetch is there.
    pub(crate) fn data_there(&mut self, session: usize) {
        let entry = &mut self.sessions[session];
        entry.there = entry.bytes.len();
    }

    /// MIG_DATA_SIZE.
    pub(crate) fn length(&self) -> Result<u64, i32> {
        if self.plan.sized { Ok(self.plan.piece * self.plan.last) } else { Err(ENOTTY) }
    }

    /// A write to the fd of this resuming session.
    pub(crate) fn write(&mut self, resume: usize, bytes: &[u8]) -> Result<(), i32> {
        let entry = &mut self.resumes[resume];
        if !entry.alive {
            return Err(ENODEV);
        }
        entry.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Session {
    /// The guest changes something.
    fn dirty(&mut self, plan: &DevicePlan, rng: &mut Rng) {
        if self.rounds > 0 {
            self.rounds -= 1;
            self.add(rng.below(plan.dirty + 1), plan, rng);
        }
    }

    /// More state: pieces of zeros, and pieces that no other session has.
    fn add(&mut self, pieces: u64, plan: &DevicePlan, rng: &mut Rng) {
        for _ in 0..pieces {
            let length = 1 + rng.below(plan.piece);
            let zeros = rng.one_in(4) || plan.zeros;
            for _ in 0..length {
                self.bytes.push(if zeros { 0 } else { rng.next() as u8 });
            }
        }
    }
}
