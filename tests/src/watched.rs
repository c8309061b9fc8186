//! A test device that says how far an engine has come with it: so that a test goes on when the
//! device has been reached, and not when some time is over.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vfio_ferry::vfio::device::{MigrationDevice, PrecopyInfo};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};

use crate::device::TestDevice;
use crate::pair::PATIENCE;

/// See the module's text.
pub struct Watched {
    device: Arc<TestDevice>,
    /// What SET_STATE was asked for last, whether it has returned or not.
    asked: Mutex<Option<DeviceState>>,
    /// Bytes read or written, those of the call that does not return included.
    bytes: AtomicU64,
}

impl Watched {
    /// This device, watched from now on.
    pub fn of(device: &Arc<TestDevice>) -> Arc<Watched> {
        let (asked, bytes) = (Mutex::new(None), AtomicU64::new(0));
        Arc::new(Watched { device: device.clone(), asked, bytes })
    }

    /// Waits until the device stands where its plan lets it: in a SET_STATE, a read or a write.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn wait_until_it_stands(&self) {
        let plan = self.device.plan();
        let deadline = Instant::now() + PATIENCE;
        let stands = || {
            let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = self.bytes.load(Ordering::SeqCst);
            plan.holds.is_none_or(|state| asked == Some(state))
                && plan.sticks_at.or(plan.stalls_at).is_none_or(|at| bytes >= at)
        };
        while !stands() {
            assert!(Instant::now() < deadline, "it does not come to where it is to stand");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl MigrationDevice for Watched {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.device.capabilities()
    }
    fn state(&self) -> io::Result<DeviceState> {
        self.device.state()
    }
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        self.device.set_state(state)
    }
    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.device.precopy_info(data_fd)
    }
    fn stop_copy_length(&self) -> io::Result<u64> {
        self.device.stop_copy_length()
    }
    fn reset(&self) -> io::Result<()> {
        self.device.reset()
    }
    fn interrupt(&self) {
        self.device.interrupt();
    }
    fn observe(&self, data_fd: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        if let Ok(bytes) = &result {
            self.bytes.fetch_add(*bytes as u64, Ordering::SeqCst);
        }
        self.device.observe(data_fd, result)
    }
}
