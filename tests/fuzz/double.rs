// A device in memory, and sessions that have one: for the fuzz targets that run whole sessions.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use vfio_ferry::session::Streams;
use vfio_ferry::{
    BackendChoice, Capabilities, DeviceOptions, DeviceState, MigrationDevice, Options, Policy,
    PrecopyInfo, SourceDevice, SourceSession, TargetDevice, TargetSession,
};

/// Longer than any session here takes, on whatever machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// A device whose data fd is a file in memory.
#[derive(Debug)]
pub(crate) struct Double(Mutex<Content>);

#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) state: DeviceState,
    file: Option<File>,
    /// State of another device may be in it.
    pub(crate) touched: bool,
}

impl Double {
    pub(crate) fn new() -> Arc<Double> {
        let content = Content { state: DeviceState::Running, file: None, touched: false };
        Arc::new(Double(Mutex::new(content)))
    }

    pub(crate) fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// More state, of which a part compresses and a part is zero.
    fn grow(&mut self, bytes: usize) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.seek(SeekFrom::End(0))?;
        let byte = |at: usize| if at / 4096 % 2 == 1 { 0 } else { (at * 31 / 7) as u8 };
        file.write_all(&(0..bytes).map(byte).collect::<Vec<u8>>())
    }

    /// What was saved of it, or loaded into it.
    pub(crate) fn bytes(&self) -> io::Result<Vec<u8>> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let mut bytes = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn open(&mut self) -> io::Result<OwnedFd> {
        let file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
        // Another open file: its place is its own.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let other = File::options().read(true).write(true).open(path)?;
        self.file = Some(file);
        Ok(other.into())
    }
}

impl MigrationDevice for Double {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(Capabilities { p2p: false, precopy: true })
    }

    fn state(&self) -> io::Result<DeviceState> {
        Ok(self.content().state)
    }

    fn set_state(&self, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        let mut content = self.content();
        let from = std::mem::replace(&mut content.state, to);
        match (from, to) {
            (_, DeviceState::PreCopy) => {
                let fd = content.open()?;
                content.grow(9000)?;
                Ok(Some(fd))
            }
            (DeviceState::PreCopy, DeviceState::StopCopy) => content.grow(5000).map(|()| None),
            (_, DeviceState::StopCopy) => {
                let fd = content.open()?;
                content.grow(14_000)?;
                Ok(Some(fd))
            }
            (_, DeviceState::Resuming) => {
                content.touched = true;
                content.open().map(Some)
            }
            _ => Ok(None),
        }
    }

    fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        Ok(PrecopyInfo { initial_bytes: 0, dirty_bytes: 0, reinit: false })
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        Ok(5000)
    }

    fn reset(&self) -> io::Result<()> {
        let mut content = self.content();
        (content.state, content.touched) = (DeviceState::Running, false);
        Ok(())
    }
}

/// The first bits choose the backend and the policy. Waits are short: a peer that lies lets them pass.
pub(crate) fn options(choices: u8) -> Options {
    let policies = [Policy::Raw, Policy::Zstd(1)];
    Options {
        chunk_bytes: 4096,
        workers: 1,
        policy: policies[usize::from(choices >> 2 & 1)],
        backend: if choices & 2 == 0 { BackendChoice::Syscalls } else { BackendChoice::Auto },
        precopy_poll: Duration::from_millis(1),
        stall_limit: Duration::from_millis(400),
        idle_limit: Duration::from_millis(400),
        handshake_limit: Duration::from_millis(400),
        confirm_limit: Duration::from_millis(400),
        ..Options::default()
    }
}

pub(crate) fn source(
    device: &Arc<Double>,
    stream: impl Into<Streams>,
    options: Options,
) -> SourceSession {
    let device = device.clone() as Arc<dyn MigrationDevice>;
    let device = SourceDevice { name: "net0".into(), device, options: DeviceOptions::default() };
    SourceSession::start(vec![device], stream, options).expect("a session")
}

pub(crate) fn target(
    device: &Arc<Double>,
    stream: impl Into<Streams>,
    options: Options,
) -> TargetSession {
    let device = device.clone() as Arc<dyn MigrationDevice>;
    let device = TargetDevice { name: "net0".into(), device };
    TargetSession::start(vec![device], stream, options).expect("a session")
}

/// As [`options`], for hosts that are both honest.
pub(crate) fn patient(choices: u8) -> Options {
    Options {
        stall_limit: PATIENCE,
        confirm_limit: PATIENCE,
        handshake_limit: PATIENCE,
        idle_limit: PATIENCE,
        peer_silence: PATIENCE,
        ..options(choices)
    }
}
