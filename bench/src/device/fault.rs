//! A driver that misbehaves: faults laid over a device, each at a call.
//!
//! A fault says which call it is at, what the driver then does, and how often. The calls that are
//! not named go through. What is [held](Deed::Held) goes on when it is [released](Faulty::release):
//! so a driver that answers late answers after something, and not after some time.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::engine::{Capabilities, DeviceState, MigrationDevice, PrecopyInfo};

/// A call into a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// SET_STATE to this state.
    SetState(#[serde(with = "super::state_name")] DeviceState),
    /// GET_STATE.
    State,
    /// VFIO_MIG_GET_PRECOPY_INFO.
    PrecopyInfo,
    /// VFIO_DEVICE_FEATURE_MIG_DATA_SIZE.
    StopCopyLength,
    /// VFIO_DEVICE_RESET.
    Reset,
    /// A read (on the source) or write (on the target) of the data fd that goes beyond so many
    /// bytes, all sessions together.
    Transfer(u64),
}

/// What the driver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// It answers after so many milliseconds.
    Late(u64),
    /// It does not answer before [`Faulty::release`], and then does what it was asked.
    Held,
    /// It fails with this errno, and nothing has changed.
    Errno(i32),
    /// It fails with EIO, and the device is in ERROR until it is reset.
    Error,
    /// It panics: the embedder's device does.
    Panic,
    /// The device is reset by somebody else before the call.
    ResetFirst,
    /// The device is reset by somebody else right after the call, which has succeeded.
    ResetAfter,
    /// VFIO_MIG_GET_PRECOPY_INFO announces 2^63 bytes of each kind.
    Boast,
    /// A read or write moves so many bytes at most. For devices on files.
    Short(u64),
    /// The data fd that SET_STATE gives is /dev/zero: a state that never ends.
    Endless,
}

/// One fault of a driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverFault {
    /// Where it is.
    pub call: Call,
    /// What happens there.
    pub deed: Deed,
    /// How many of these calls go through before.
    pub skip: u32,
    /// How many of them it then happens to.
    pub times: u32,
}

impl DriverFault {
    /// At every such call.
    pub fn always(call: Call, deed: Deed) -> DriverFault {
        DriverFault { call, deed, skip: 0, times: u32::MAX }
    }

    /// At the first such call.
    pub fn once(call: Call, deed: Deed) -> DriverFault {
        DriverFault { call, deed, skip: 0, times: 1 }
    }
}

/// Hears that a fault has come: from the thread that is in the driver, before the deed.
pub type OnFault = Box<dyn Fn(&DriverFault) + Send + Sync>;

/// A device with faults.
pub struct Faulty {
    device: Arc<dyn MigrationDevice>,
    /// And how many calls of each there were.
    faults: Vec<(DriverFault, AtomicU32)>,
    on_fault: OnFault,
    moved: AtomicU64,
    in_error: AtomicBool,
    endless: AtomicBool,
    released: Mutex<bool>,
    release: Condvar,
    /// Reads and writes that the driver holds: on which fd, what it does, and since when.
    held: Mutex<Vec<(RawFd, Deed, Instant)>>,
}

impl Faulty {
    /// Lays faults over a device.
    pub fn new(
        device: Arc<dyn MigrationDevice>,
        faults: Vec<DriverFault>,
        on_fault: OnFault,
    ) -> Faulty {
        Faulty {
            device,
            faults: faults.into_iter().map(|fault| (fault, AtomicU32::new(0))).collect(),
            on_fault,
            moved: AtomicU64::new(0),
            in_error: AtomicBool::new(false),
            endless: AtomicBool::new(false),
            released: Mutex::new(false),
            release: Condvar::new(),
            held: Mutex::default(),
        }
    }

    /// What is held goes on, and nothing is held any more.
    pub fn release(&self) {
        *self.released.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.release.notify_all();
    }

    /// Whether the device is in ERROR.
    pub fn is_in_error(&self) -> bool {
        self.in_error.load(Ordering::Relaxed)
    }

    /// The deed that is due at this call.
    fn due(&self, is_it: impl Fn(Call) -> bool) -> Option<Deed> {
        self.faults.iter().filter(|(fault, _)| is_it(fault.call)).find_map(|(fault, calls)| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            let due = call >= fault.skip && call - fault.skip < fault.times;
            due.then(|| {
                (self.on_fault)(fault);
                fault.deed
            })
        })
    }

    /// Whether a driver that does this from then on holds an operation still.
    fn holds(&self, deed: Deed, since: Instant) -> bool {
        match deed {
            Deed::Late(ms) => since.elapsed() < Duration::from_millis(ms),
            Deed::Held => !*self.released.lock().unwrap_or_else(PoisonError::into_inner),
            _ => false,
        }
    }

    /// The deed that is due at a read or write, once the driver does not hold it any more. None: it
    /// does.
    fn due_at_transfer(&self, data_fd: BorrowedFd<'_>, at: u64) -> Option<Option<Deed>> {
        let fd = data_fd.as_raw_fd();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = held.iter().position(|(of, ..)| *of == fd) {
            let (_, deed, since) = held[index];
            if self.holds(deed, since) {
                return None;
            }
            held.swap_remove(index);
            return Some(None);
        }
        let deed = self.due(|call| matches!(call, Call::Transfer(beyond) if at > beyond));
        let since = Instant::now();
        match deed {
            Some(deed @ (Deed::Late(_) | Deed::Held)) if self.holds(deed, since) => {
                held.push((fd, deed, since));
                None
            }
            Some(Deed::Late(_) | Deed::Held) => Some(None),
            deed => Some(deed),
        }
    }

    /// What comes before the call itself.
    fn before(&self, deed: Option<Deed>) -> io::Result<()> {
        match deed {
            Some(Deed::Late(ms)) => thread::sleep(Duration::from_millis(ms)),
            Some(Deed::Held) => {
                let released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
                let wait = self.release.wait_while(released, |released| !*released);
                drop(wait.unwrap_or_else(PoisonError::into_inner));
            }
            Some(Deed::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Deed::Error) => {
                self.in_error.store(true, Ordering::Relaxed);
                return Err(Errno::IO.into());
            }
            Some(Deed::Panic) => panic!("a fault of the test device"),
            Some(Deed::ResetFirst) => self.device.reset()?,
            Some(Deed::ResetAfter | Deed::Boast | Deed::Short(_) | Deed::Endless) | None => {}
        }
        Ok(())
    }

    /// A call with what comes before and after it.
    fn call<T>(
        &self,
        deed: Option<Deed>,
        call: impl FnOnce(&dyn MigrationDevice) -> io::Result<T>,
    ) -> io::Result<T> {
        self.before(deed)?;
        let result = call(&*self.device)?;
        if deed == Some(Deed::ResetAfter) {
            self.device.reset()?;
        }
        Ok(result)
    }

    /// Makes a read or write one of `most` bytes: what a file's fd was moved beyond is taken back. A
    /// pipe's stays taken.
    fn shorten(&self, data_fd: BorrowedFd<'_>, bytes: usize, most: u64) -> io::Result<usize> {
        if bytes as u64 <= most {
            return Ok(bytes);
        }
        match rustix::fs::seek(data_fd, SeekFrom::Current(most as i64 - bytes as i64)) {
            Ok(at) if self.device.state()? == DeviceState::Resuming => {
                rustix::fs::ftruncate(data_fd, at)?;
            }
            Ok(_) => {}
            Err(_pipe) => return Ok(bytes),
        }
        Ok(most as usize)
    }
}

impl MigrationDevice for Faulty {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.device.capabilities()
    }

    fn state(&self) -> io::Result<DeviceState> {
        self.before(self.due(|call| call == Call::State))?;
        if self.is_in_error() { Ok(DeviceState::Error) } else { self.device.state() }
    }

    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        let deed = self.due(|call| call == Call::SetState(state));
        if self.is_in_error() {
            self.before(deed)?;
            return Err(Errno::IO.into());
        }
        let data_fd = self.call(deed, |device| device.set_state(state))?;
        if deed == Some(Deed::Endless) && data_fd.is_some() {
            self.endless.store(true, Ordering::Relaxed);
            return Ok(Some(File::open("/dev/zero")?.into()));
        }
        Ok(data_fd)
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        let deed = self.due(|call| call == Call::PrecopyInfo);
        let info = self.call(deed, |device| device.precopy_info(data_fd.as_fd()))?;
        if deed == Some(Deed::Boast) {
            return Ok(PrecopyInfo { initial_bytes: 1 << 63, dirty_bytes: 1 << 63, ..info });
        }
        Ok(info)
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        let deed = self.due(|call| call == Call::StopCopyLength);
        self.call(deed, |device| device.stop_copy_length())
    }

    fn reset(&self) -> io::Result<()> {
        let deed = self.due(|call| call == Call::Reset);
        self.call(deed, |device| device.reset())?;
        self.in_error.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn interrupt(&self) {
        self.device.interrupt();
    }

    fn observe(&self, data_fd: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        let Ok(bytes) = result else { return self.device.observe(data_fd, result) };
        if self.endless.load(Ordering::Relaxed) && self.device.state()?.is_saving() {
            self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
            return Ok(bytes);
        }
        let at = self.moved.load(Ordering::Relaxed) + bytes as u64;
        let Some(deed) = self.due_at_transfer(data_fd, at) else {
            return Err(Errno::INPROGRESS.into());
        };
        let bytes = match deed {
            Some(Deed::Short(most)) => self.shorten(data_fd, bytes, most)?,
            // What failed has moved nothing.
            Some(Deed::Errno(_)) => {
                self.shorten(data_fd, bytes, 0)?;
                bytes
            }
            _ => bytes,
        };
        let moved = self.call(deed, |device| device.observe(data_fd, Ok(bytes)))?;
        self.moved.fetch_add(moved as u64, Ordering::Relaxed);
        Ok(moved)
    }
}

#[cfg(test)]
mod tests;
