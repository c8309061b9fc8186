//! QEMU's main migration channel, as it carries a VFIO device.
//!
//! Source (`vfio_save_block`, `qemu-file.c`): a blocking read of at most 1 MiB; be64
//! DEV_DATA_STATE, be64 size, then the data copied into the file's 32 KiB buffer, which is written
//! to the socket whenever it is full. Target (`vfio_load_buffer`, `qemu_get_to_fd`): the socket is
//! read into a 32 KiB buffer, and what is there of the section is written to the device: at most
//! 32 KiB at a time.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::Peer;
use super::file::DataFd;

/// `VFIO_MIG_FLAG_DEV_DATA_STATE`.
const DATA_STATE: u64 = 0xffff_ffff_ef10_0004;
/// `VFIO_MIG_FLAG_END_OF_STATE`.
const END_OF_STATE: u64 = 0xffff_ffff_ef10_0001;
/// Most bytes of one read.
const READ_BYTES: usize = 1 << 20;
/// `IO_BUF_SIZE`.
const BUFFER_BYTES: usize = 32 << 10;

/// The peer.
pub(crate) struct QemuMain;

impl Peer for QemuMain {
    fn send(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64> {
        let mut file = FileOut::new(stream);
        let mut buffer = vec![0; READ_BYTES];
        for data in devices {
            loop {
                let count = data.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                file.put(&DATA_STATE.to_be_bytes())?;
                file.put(&(count as u64).to_be_bytes())?;
                file.put(&buffer[..count])?;
            }
            file.put(&END_OF_STATE.to_be_bytes())?;
        }
        file.flush()?;
        Ok(file.written)
    }

    fn receive(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64> {
        let mut file = FileIn::new(stream);
        for data in devices {
            loop {
                match file.get_u64()? {
                    DATA_STATE => {
                        let size = file.get_u64()?;
                        file.get_to(data, size)?;
                    }
                    END_OF_STATE => break,
                    other => {
                        return Err(io::Error::other(format!("unexpected section {other:#x}")));
                    }
                }
            }
        }
        Ok(file.read)
    }
}

/// A file that is written through a buffer.
struct FileOut<'a> {
    stream: &'a TcpStream,
    buffer: Vec<u8>,
    written: u64,
}

impl FileOut<'_> {
    fn new(stream: &TcpStream) -> FileOut<'_> {
        FileOut { stream, buffer: Vec::with_capacity(BUFFER_BYTES), written: 0 }
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let piece = bytes.len().min(BUFFER_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..piece]);
            bytes = &bytes[piece..];
            if self.buffer.len() == BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// A file that is read through a buffer.
struct FileIn<'a> {
    stream: &'a TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    read: u64,
}

impl FileIn<'_> {
    fn new(stream: &TcpStream) -> FileIn<'_> {
        FileIn { stream, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, read: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let count = self.stream.read(&mut self.buffer[self.end..])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end += count;
        self.read += count as u64;
        Ok(())
    }

    fn get_u64(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        while self.end - self.start < bytes.len() {
            self.fill()?;
        }
        bytes.copy_from_slice(&self.buffer[self.start..self.start + 8]);
        self.start += 8;
        Ok(u64::from_be_bytes(bytes))
    }

    fn get_to(&mut self, data: &DataFd<'_>, mut size: u64) -> io::Result<()> {
        while size > 0 {
            if self.is_empty() {
                self.fill()?;
            }
            let piece = size.min((self.end - self.start) as u64) as usize;
            data.write_all(&self.buffer[self.start..self.start + piece])?;
            self.start += piece;
            size -= piece as u64;
        }
        Ok(())
    }
}
