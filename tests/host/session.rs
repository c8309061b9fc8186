//! Whole sessions in one process, on real fds and real sockets.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vfio_ferry::outcome::DeviceOptions;
use vfio_ferry::session::{Options, Session, SourceDevice, TargetDevice};
use vfio_ferry::vfio::device::{MigrationDevice, PrecopyInfo};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};

struct FileDevice {
    state: Mutex<DeviceState>,
    content: File,
}

impl FileDevice {
    fn new(bytes: &[u8]) -> Arc<FileDevice> {
        let fd = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut content = File::from(fd);
        content.write_all(bytes).unwrap();
        content.seek(SeekFrom::Start(0)).unwrap();
        Arc::new(FileDevice { state: Mutex::new(DeviceState::Running), content })
    }
    fn bytes(&self) -> Vec<u8> {
        let mut file = self.content.try_clone().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

impl MigrationDevice for FileDevice {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(Capabilities { p2p: true, precopy: false })
    }
    fn state(&self) -> io::Result<DeviceState> {
        Ok(*self.state.lock().unwrap())
    }
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        *self.state.lock().unwrap() = state;
        match state {
            DeviceState::StopCopy | DeviceState::Resuming => {
                Ok(Some(self.content.try_clone()?.into()))
            }
            _ => Ok(None),
        }
    }
    fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        Err(io::Error::from_raw_os_error(22))
    }
    fn stop_copy_length(&self) -> io::Result<u64> {
        Ok(1 << 20)
    }
    fn reset(&self) -> io::Result<()> {
        *self.state.lock().unwrap() = DeviceState::Running;
        Ok(())
    }
}

#[test]
fn one_device_arrives_whole() {
    let bytes: Vec<u8> =
        (0..40_000_003u32).map(|i| ((i >> 9) ^ (i.wrapping_mul(2654435761) >> 28)) as u8).collect();
    let source = FileDevice::new(&bytes);
    let target = FileDevice::new(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let streams = vfio_ferry::session::connect(addr, 2).unwrap();
    let source_session = Session::source(
        vec![SourceDevice {
            name: "d0".into(),
            device: source.clone(),
            options: DeviceOptions::default(),
        }],
        streams,
        Options::default(),
    )
    .unwrap();
    let streams = vfio_ferry::session::accept(&listener, Duration::from_secs(5)).unwrap();
    let target_session = Session::target(
        vec![TargetDevice { name: "d0".into(), device: target.clone() }],
        streams,
        Options::default(),
    )
    .unwrap();
    source_session.switchover().unwrap();
    let s = source_session.finish();
    let t = target_session.finish();
    println!("{:?}\n{:?}", s.finish, t.finish);
    println!("{:?} {:?}", s.timeline, t.timeline);
    assert!(s.is_complete() && t.is_complete());
    assert!(bytes == target.bytes());
    println!("{:?}", s.sides);
}
