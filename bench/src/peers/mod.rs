//! What other programs do today, over the same devices, connections and clocks as the engine.
//!
//! Shapes, not code: written from what QEMU 10.0's and Cloud Hypervisor's sources do. A peer is a
//! pair of functions, one that carries the devices' data from their fds into the stream and one that
//! carries it from the stream into the other devices' fds. Everything around them is the same for
//! all and is here: the target is in RESUMING before the source stops; the source goes to
//! STOP_COPY, its devices one after another; the target goes to RUNNING when it has them all.
//! Buffers are allocated before the device is stopped, where the original does so.

mod file;
mod pipeline;
mod qemu_main;
mod qemu_multifd;
mod snapshot;
mod tokio_loop;

pub(crate) use pipeline::Pipeline;
pub(crate) use qemu_main::QemuMain;
pub(crate) use qemu_multifd::QemuMultifd;
pub(crate) use snapshot::Snapshot;
pub(crate) use tokio_loop::TokioLoop;

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::monotonic_ns;
use crate::engine::{DeviceState, Inputs, MigrationDevice};
use crate::outcome::SideOutcome;
use crate::spec::{Contender, Side};
use file::DataFd;

/// A way to carry devices' states. The numbers returned are bytes on the stream.
pub(crate) trait Peer: Sync {
    /// What is done before the device is stopped.
    fn prepare(&self, _side: Side, _stream: &TcpStream) -> io::Result<()> {
        Ok(())
    }
    /// From the data fds, each to its end, into the stream, with whatever tells the end.
    fn send(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64>;
    /// From the stream, up to the end of the last device's data, into the data fds.
    fn receive(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64>;
}

/// Either side says with it that it is where it should be.
const READY: u8 = 0x52;

/// Runs one side.
pub(crate) fn run(peer: &dyn Peer, side: Side, inputs: Inputs) -> Result<SideOutcome, String> {
    let streams = inputs.streams.into_fds().map_err(|error| error.to_string())?;
    let stream = TcpStream::from(streams.into_iter().next().ok_or("a peer needs a stream")?);
    let mut phases = Vec::new();
    peer.prepare(side, &stream).map_err(|error| error.to_string())?;
    let wire_bytes = match side {
        Side::Source => run_source(peer, &inputs.devices, &stream, &mut phases),
        Side::Target => run_target(peer, &inputs.devices, &stream, &mut phases),
    };
    let (wire_bytes, fault) = match wire_bytes {
        Ok(bytes) => (bytes, None),
        Err(error) => (0, Some(error.to_string())),
    };
    let ended_ns = monotonic_ns();
    let (backend, protection) = ("syscalls", "none");
    Ok(SideOutcome {
        phases,
        wire_bytes,
        backend,
        protection,
        fault,
        ended_ns,
        ..SideOutcome::default()
    })
}

/// Why this host cannot run a contender; none if it can.
pub(crate) fn missing(contender: Contender) -> Option<String> {
    match contender {
        Contender::Pipeline => pipeline::missing(),
        Contender::TokioUring => tokio_loop::missing(),
        _ => None,
    }
}

type Phases = Vec<(&'static str, Duration)>;

fn run_source(
    peer: &dyn Peer,
    devices: &[Arc<dyn MigrationDevice>],
    stream: &TcpStream,
    phases: &mut Phases,
) -> io::Result<u64> {
    expect_ready(stream)?;
    let started = Instant::now();
    // All are stopped before the first is read: the guest has stopped.
    let fds = enter(devices, DeviceState::StopCopy)?;
    let stop = started.elapsed();
    let wire_bytes = peer.send(&fds, stream).map_err(named("sending"))?;
    drop(fds);
    for device in devices {
        device.set_state(DeviceState::Stop).map_err(named("SET_STATE(STOP)"))?;
    }
    phases.push(("stop", stop));
    phases.push(("stop_copy", started.elapsed() - stop));
    let sent = Instant::now();
    expect_ready(stream)?;
    phases.push(("handover", sent.elapsed()));
    Ok(wire_bytes)
}

fn run_target(
    peer: &dyn Peer,
    devices: &[Arc<dyn MigrationDevice>],
    stream: &TcpStream,
    phases: &mut Phases,
) -> io::Result<u64> {
    let fds = enter(devices, DeviceState::Resuming)?;
    say_ready(stream)?;
    let wire_bytes = peer.receive(&fds, stream).map_err(named("receiving"))?;
    drop(fds);
    let loaded = Instant::now();
    for device in devices {
        device.set_state(DeviceState::Running).map_err(named("SET_STATE(RUNNING)"))?;
    }
    phases.push(("resume", loaded.elapsed()));
    say_ready(stream)?;
    Ok(wire_bytes)
}

fn enter(devices: &[Arc<dyn MigrationDevice>], state: DeviceState) -> io::Result<Vec<DataFd<'_>>> {
    devices
        .iter()
        .map(|device| {
            let fd = device.set_state(state).map_err(named(format!("SET_STATE({state})")))?;
            let fd = fd.ok_or_else(|| io::Error::other(format!("{state} gave no data fd")))?;
            Ok(DataFd::new(device.as_ref(), fd))
        })
        .collect()
}

fn say_ready(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(&[READY])
}

fn expect_ready(mut stream: &TcpStream) -> io::Result<()> {
    let mut answer = [0];
    stream.read_exact(&mut answer).map_err(named("waiting for the target"))?;
    if answer[0] != READY {
        return Err(io::Error::other("the target did not say what was expected"));
    }
    Ok(())
}

fn named(what: impl Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests;
