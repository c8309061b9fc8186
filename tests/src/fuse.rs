//! A file whose driver is the test's: a FUSE mount of one file, whose reads and writes go to a
//! closure, which answers them or keeps them. Needs /dev/fuse and the right to mount.
//!
//! Answers to reads are as long as what was asked for: the kernel goes on reading a FUSE file after
//! a short one. fuser does not pass INTERRUPT on, so a call that is kept behaves as one in a driver
//! that cannot be interrupted: a cancel changes nothing until the driver is done. That is the hard
//! case.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};

const CACHED: Duration = Duration::from_secs(10);
const NAME: &str = "state";

/// What the kernel asks of the driver.
#[derive(Debug)]
pub enum Asked {
    /// A read of so many bytes.
    Read(ReplyData, u32),
    /// A write of so many bytes.
    Write(ReplyWrite, u32),
}

struct Driver<F>(F);

/// A mounted file. Every call is to be answered and every fd of it closed before it is dropped, which
/// unmounts it: a driver that is gone before its file leaves the process stuck.
#[derive(Debug)]
pub struct FuseFile {
    session: Option<BackgroundSession>,
    mount_point: PathBuf,
}

impl FuseFile {
    /// Mounts it under a name that no other test of this process has.
    pub fn mount(
        name: &str,
        driver: impl Fn(Asked) + Send + Sync + 'static,
    ) -> io::Result<FuseFile> {
        let mount_point =
            std::env::temp_dir().join(format!("vfio-ferry-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&mount_point)?;
        let mut options = Config::default();
        options.mount_options = vec![MountOption::FSName("vfio-ferry".into())];
        match fuser::spawn_mount(Driver(driver), &mount_point, &options) {
            Ok(session) => Ok(FuseFile { session: Some(session), mount_point }),
            Err(error) => {
                let _ = std::fs::remove_dir(&mount_point);
                Err(error)
            }
        }
    }

    /// A new open file of it.
    pub fn open(&self) -> io::Result<File> {
        File::options().read(true).write(true).open(self.mount_point.join(NAME))
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
        let _ = std::fs::remove_dir(&self.mount_point);
    }
}

fn attr(ino: INodeNo) -> FileAttr {
    let is_root = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        // io_uring answers reads past the end by itself.
        size: 1 << 40,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_root { FileType::Directory } else { FileType::RegularFile },
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl<F: Fn(Asked) + Send + Sync + 'static> Filesystem for Driver<F> {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == NAME {
            true => reply.entry(&CACHED, &attr(INodeNo(2)), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&CACHED, &attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_STREAM);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        (self.0)(Asked::Read(reply, size));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        (self.0)(Asked::Write(reply, data.len() as u32));
    }
}
