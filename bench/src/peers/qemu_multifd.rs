//! QEMU's multifd channel, as it carries a VFIO device's state since 10.0.
//!
//! Source (`vfio_multifd_save_complete_precopy_thread`, `multifd_queue_device_state`): a blocking
//! read of at most 1 MiB into the packet, a copy of it for the channel, and then the channel: it
//! holds one job, so one is being sent while the next is being read. Target: the channel's thread
//! allocates what the header says, copies it into a queue without a bound (the default), and the
//! device's load thread writes from there, 1 MiB at a time. One channel, as one stream.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::Peer;
use super::file::DataFd;

/// Most bytes of one read and one packet (`VFIOMigration.data_buffer_size`).
const JOB_BYTES: usize = 1 << 20;
/// `MultiFDPacketDeviceState_t`, and its fields' places.
const PACKET_BYTES: usize = 276;
const DEVICE_AT: usize = 12;
const SIZE_AT: usize = 16;
/// `VFIODeviceStatePacket` without its data: version, index, flags.
const STATE_BYTES: usize = 12;
const HEADER_BYTES: usize = PACKET_BYTES + STATE_BYTES;
const INDEX_AT: usize = PACKET_BYTES + 4;
const FLAGS_AT: usize = PACKET_BYTES + 8;
/// The last packet of a device carries its configuration, here none.
const FLAG_LAST: u32 = 1;

/// The peer.
pub(crate) struct QemuMultifd;

/// One packet.
struct Job {
    device: u32,
    index: u32,
    last: bool,
    data: Vec<u8>,
}

impl Peer for QemuMultifd {
    fn send(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64> {
        thread::scope(|scope| {
            // Without room of its own: a job waits until the channel has sent the one before.
            let (sender, receiver) = bounded(0);
            let channel = scope.spawn(move || send_jobs(&receiver, stream));
            let read = read_devices(devices, &sender);
            drop(sender);
            let sent = join(channel.join())?;
            read.map(|()| sent)
        })
    }

    fn receive(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64> {
        thread::scope(|scope| {
            let (sender, receiver) = unbounded();
            let count = devices.len();
            let channel = scope.spawn(move || receive_jobs(count, stream, &sender));
            let loaded = load_devices(devices, receiver);
            let received = join(channel.join())?;
            loaded.map(|()| received)
        })
    }
}

fn join<T>(result: thread::Result<io::Result<T>>) -> io::Result<T> {
    result.unwrap_or_else(|_| Err(io::Error::other("the channel's thread panicked")))
}

fn read_devices(devices: &[DataFd<'_>], channel: &Sender<Job>) -> io::Result<()> {
    let mut buffer = vec![0; JOB_BYTES];
    for (data, device) in devices.iter().zip(0..) {
        for index in 0.. {
            let count = data.read(&mut buffer)?;
            let job = Job { device, index, last: count == 0, data: buffer[..count].to_vec() };
            let last = job.last;
            // The channel's own error is reported by its thread.
            if channel.send(job).is_err() || last {
                break;
            }
        }
    }
    Ok(())
}

fn send_jobs(jobs: &Receiver<Job>, stream: &TcpStream) -> io::Result<u64> {
    let mut sent = 0;
    for job in jobs {
        let mut header = [0; HEADER_BYTES];
        put(&mut header, DEVICE_AT, job.device);
        put(&mut header, SIZE_AT, job.data.len() as u32);
        put(&mut header, INDEX_AT, job.index);
        put(&mut header, FLAGS_AT, if job.last { FLAG_LAST } else { 0 });
        write_both(stream, &header, &job.data)?;
        sent += (header.len() + job.data.len()) as u64;
    }
    Ok(sent)
}

fn write_both(mut stream: &TcpStream, header: &[u8], data: &[u8]) -> io::Result<()> {
    let written = stream.write_vectored(&[IoSlice::new(header), IoSlice::new(data)])?;
    stream.write_all(&header[written.min(header.len())..])?;
    stream.write_all(&data[written.saturating_sub(header.len())..])
}

fn receive_jobs(devices: usize, mut stream: &TcpStream, queue: &Sender<Job>) -> io::Result<u64> {
    let mut received = 0;
    let mut left = devices;
    let mut packet = Vec::new();
    while left > 0 {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header)?;
        let size = get(&header, SIZE_AT) as usize;
        packet.resize(size, 0);
        stream.read_exact(&mut packet)?;
        received += (header.len() + size) as u64;
        let last = get(&header, FLAGS_AT) == FLAG_LAST;
        left -= usize::from(last);
        let job = Job {
            device: get(&header, DEVICE_AT),
            index: get(&header, INDEX_AT),
            last,
            data: packet.clone(),
        };
        // The load thread's own error is reported there.
        if queue.send(job).is_err() {
            break;
        }
    }
    Ok(received)
}

fn load_devices(devices: &[DataFd<'_>], queue: Receiver<Job>) -> io::Result<()> {
    let mut expected = vec![0; devices.len()];
    for job in queue {
        let device = job.device as usize;
        let (data, index) = devices
            .get(device)
            .zip(expected.get_mut(device))
            .ok_or_else(|| io::Error::other(format!("packet of unknown device {device}")))?;
        if job.index != *index {
            return Err(io::Error::other(format!("packet {} instead of {index}", job.index)));
        }
        *index += 1;
        data.write_all(&job.data)?;
    }
    Ok(())
}

fn put(header: &mut [u8], at: usize, value: u32) {
    header[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn get(header: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[at..at + 4]);
    u32::from_be_bytes(bytes)
}
