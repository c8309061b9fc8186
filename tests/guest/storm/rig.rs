//! A device that tells when the engine is about to ask it something, and the thread that resets it
//! at that moment. What the engine asks goes to the kernel unchanged.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vfio_ferry::outcome::Host;
use vfio_ferry::vfio::device::{MigrationDevice, PrecopyInfo};
use vfio_ferry::vfio::ioctl;
use vfio_ferry::vfio::real::VfioDevice;
use vfio_ferry::vfio::state::{Capabilities, DeviceState};

use super::plan::{Strike, When};
use crate::checks::Outcome;
use crate::mtty::Mtty;

/// The last moments before a reset are not slept through, so that it comes when it is due.
const SPIN_MAX: Duration = Duration::from_micros(200);

/// What both devices and the resetting thread share.
#[derive(Debug)]
pub(super) struct Rig {
    orders: Sender<Order>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Strikes that wait for their moment.
    waiting: Vec<Strike>,
    /// Strikes that were ordered and have not been carried out.
    ordered: usize,
    /// Resets are wanted: a round runs.
    armed: bool,
    /// The target was found in RESUMING and is being told to leave it. The kernel has no means to
    /// see a reset between these two calls: an arc from RUNNING looks the same as one from
    /// RESUMING, and the host would have to reset a device whose guest does not run yet. No reset
    /// is let in between.
    leaving_resuming: bool,
    source_resets: u32,
    target_resets: u32,
    /// When the last reset of the source returned.
    source_reset_at: Option<Instant>,
}

#[derive(Debug)]
struct Order {
    strike: Strike,
    since: Instant,
}

/// The resets of a round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resets {
    pub(super) source: u32,
    pub(super) target: u32,
    pub(super) source_at: Option<Instant>,
}

impl Rig {
    /// Starts the thread, which works on duplicates of both devices' fds. It ends with the rig.
    pub(super) fn new(source: &Mtty, target: &Mtty) -> Outcome<Arc<Rig>> {
        let (orders, queue) = channel();
        let rig = Rig { orders, state: Mutex::default(), changed: Condvar::new() };
        let rig = Arc::new(rig);
        let (source, target) = (source.mdev.fd()?, target.mdev.fd()?);
        let weak = Arc::downgrade(&rig);
        std::thread::Builder::new().name("resetter".to_owned()).spawn(move || {
            for order in &queue as &Receiver<Order> {
                let Some(rig) = weak.upgrade() else { return };
                let fd = match order.strike.host {
                    Host::Source => &source,
                    Host::Target => &target,
                };
                rig.carry_out(&order, fd.as_fd());
            }
        })?;
        Ok(rig)
    }

    /// A round begins.
    pub(super) fn arm(&self, strikes: &[Strike]) {
        let mut state = self.lock();
        *state = State { waiting: strikes.to_vec(), armed: true, ..State::default() };
    }

    /// From now on nothing is reset. Waits for a reset that is under way.
    pub(super) fn disarm(&self) -> Resets {
        let mut state = self.lock();
        state.armed = false;
        state.waiting.clear();
        state.leaving_resuming = false;
        self.changed.notify_all();
        while state.ordered > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Resets {
            source: state.source_resets,
            target: state.target_resets,
            source_at: state.source_reset_at,
        }
    }

    /// A moment has come: orders the resets that wait for it.
    pub(super) fn now(&self, host: Option<Host>, when: When) {
        let since = Instant::now();
        let mut state = self.lock();
        let (now, waiting) = state.waiting.drain(..).partition(|strike: &Strike| {
            strike.when == when && host.is_none_or(|host| host == strike.host)
        });
        state.waiting = waiting;
        let now: Vec<Strike> = now;
        state.ordered += now.len();
        drop(state);
        for strike in now {
            // The thread lives as long as the rig.
            let _ = self.orders.send(Order { strike, since });
        }
    }

    /// As [`now`](Self::now), and waits until all that was ordered is carried out.
    pub(super) fn now_and_wait(&self, host: Option<Host>, when: When) {
        self.now(host, when);
        let mut state = self.lock();
        while state.armed && state.ordered > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn carry_out(&self, order: &Order, device: BorrowedFd<'_>) {
        let at = order.since + order.strike.delay;
        let left = at.saturating_duration_since(Instant::now());
        std::thread::sleep(left.saturating_sub(SPIN_MAX));
        while Instant::now() < at {
            std::hint::spin_loop();
        }
        let mut state = self.lock();
        while state.armed && order.strike.host == Host::Target && state.leaving_resuming {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.armed {
            match order.strike.host {
                Host::Source => {
                    // The engine must be able to run into it.
                    drop(state);
                    let done = ioctl::reset(device).is_ok();
                    state = self.lock();
                    state.source_resets += u32::from(done);
                    state.source_reset_at = Some(Instant::now());
                }
                Host::Target => state.target_resets += u32::from(ioctl::reset(device).is_ok()),
            }
        }
        state.ordered -= 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The real device, with a word to the rig before it is asked.
pub(super) struct Watched {
    host: Host,
    inner: Arc<VfioDevice>,
    rig: Arc<Rig>,
}

impl Watched {
    pub(super) fn new(host: Host, device: &Mtty, rig: &Arc<Rig>) -> Arc<Watched> {
        Arc::new(Watched { host, inner: device.mdev.device(), rig: Arc::clone(rig) })
    }
}

impl MigrationDevice for Watched {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.inner.capabilities()
    }

    fn state(&self) -> io::Result<DeviceState> {
        self.inner.state()
    }

    fn settled_state(&self) -> io::Result<DeviceState> {
        self.rig.now_and_wait(Some(self.host), When::BeforeCheck);
        let mut state = self.rig.lock();
        let found = self.inner.settled_state()?;
        state.leaving_resuming = self.host == Host::Target && found == DeviceState::Resuming;
        Ok(found)
    }

    /// Not a check: nothing was moved yet.
    fn state_at_start(&self) -> io::Result<DeviceState> {
        self.inner.settled_state()
    }

    fn set_state(&self, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        self.rig.now(Some(self.host), When::Setting(to));
        let answer = self.inner.set_state(to);
        self.leaves();
        answer
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.inner.precopy_info(data_fd)
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        self.inner.stop_copy_length()
    }

    fn reset(&self) -> io::Result<()> {
        let answer = self.inner.reset();
        self.leaves();
        answer
    }
}

impl Watched {
    /// The target is not on its way from the check to STOP any more.
    fn leaves(&self) {
        if self.host == Host::Target {
            self.rig.lock().leaving_resuming = false;
            self.rig.changed.notify_all();
        }
    }
}
