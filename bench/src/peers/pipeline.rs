//! What a person without a program for it would do: a pipeline of processes, `zstd -T0` on the source and
//! `zstd -d` on the target, with a socket between them.
//!
//! The compressor writes into the socket and the decompressor reads from it, themselves. What they get and
//! give are pieces of at most 1 MiB with their length in front, 0 at a device's end. Both processes are
//! there before the device is stopped.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::Peer;
use super::file::DataFd;
use crate::net;
use crate::spec::Side;

/// Most bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// The peer.
#[derive(Default)]
pub(crate) struct Pipeline(Mutex<Option<Zstd>>);

/// One side's process. Dropping it waits for its end: its CPU is the peer's.
struct Zstd {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
}

/// Why this host cannot run it; none if it can.
pub(crate) fn missing() -> Option<String> {
    let mut version = Command::new("zstd");
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match version.status() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("the program zstd: {status}")),
        Err(error) => Some(format!("the program zstd: {error}")),
    }
}

impl Peer for Pipeline {
    fn prepare(&self, side: Side, stream: &TcpStream) -> io::Result<()> {
        let socket = OwnedFd::from(stream.try_clone()?);
        let mut zstd = Command::new("zstd");
        zstd.arg("-q").arg("-c");
        match side {
            Side::Source => zstd.arg("-T0").stdin(Stdio::piped()).stdout(socket),
            Side::Target => zstd.arg("-d").stdin(socket).stdout(Stdio::piped()),
        };
        let mut child = zstd.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        // Pipes as large as the device's; best effort, as there.
        if let Some(input) = &input {
            let _ = rustix::pipe::fcntl_setpipe_size(input, READ_BYTES);
        }
        if let Some(output) = &output {
            let _ = rustix::pipe::fcntl_setpipe_size(output, READ_BYTES);
        }
        *self.lock() = Some(Zstd { child, input, output });
        Ok(())
    }

    fn send(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64> {
        let mut zstd = self.lock().take().ok_or_else(unprepared)?;
        let mut input = zstd.input.take().ok_or_else(unprepared)?;
        let mut buffer = vec![0; READ_BYTES];
        for data in devices {
            loop {
                let count = data.read(&mut buffer)?;
                input.write_all(&(count as u64).to_be_bytes())?;
                input.write_all(&buffer[..count])?;
                if count == 0 {
                    break;
                }
            }
        }
        // The compressor ends, and has written all by then; its copy of the socket goes with it.
        drop(input);
        let status = zstd.child.wait()?;
        if !status.success() {
            return Err(io::Error::other(format!("zstd: {status}")));
        }
        stream.shutdown(Shutdown::Write)?;
        net::sent_bytes(stream)
    }

    fn receive(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64> {
        let mut zstd = self.lock().take().ok_or_else(unprepared)?;
        let mut output = zstd.output.take().ok_or_else(unprepared)?;
        let mut buffer = vec![0; READ_BYTES];
        for data in devices {
            loop {
                let mut length = [0; 8];
                output.read_exact(&mut length)?;
                let length = u64::from_be_bytes(length);
                let piece = usize::try_from(length).ok().and_then(|it| buffer.get_mut(..it));
                let piece =
                    piece.ok_or_else(|| io::Error::other(format!("a piece of {length}")))?;
                if piece.is_empty() {
                    break;
                }
                output.read_exact(piece)?;
                data.write_all(piece)?;
            }
        }
        // The device has all: the process's end is waited for when it runs.
        *self.lock() = Some(zstd);
        net::received_bytes(stream)
    }
}

impl Pipeline {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Zstd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unprepared() -> io::Error {
    io::Error::other("zstd was not started")
}

impl Drop for Zstd {
    fn drop(&mut self) {
        // It ends with what it reads and writes: its pipes close first.
        drop((self.input.take(), self.output.take()));
        let _ = self.child.wait();
    }
}
