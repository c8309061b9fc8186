//! A channel between two engines that carries whole frames and may mishandle one, as a VMM's own
//! channel with a bug would.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::wire::{Header, WireLimits, decode_header};

use crate::pair;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the source.
    ToTarget,
    /// From the target.
    ToSource,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Passes,
    /// It is lost.
    Lost,
    /// It arrives twice.
    Twice,
    /// The next one on its stream overtakes it.
    Late,
}

/// What becomes of each frame: by its way, its stream and its header.
pub type Fates = dyn Fn(Way, usize, &Header) -> Fate + Send + Sync;

/// The source's and the target's ends of `count` streams, between which `fates` rule. The threads
/// that carry the frames end with the streams.
pub fn channel(count: usize, fates: Arc<Fates>) -> (Vec<OwnedFd>, Vec<OwnedFd>) {
    let (source, from_source) = pair::streams(count);
    let (from_target, target) = pair::streams(count);
    for (number, (source, target)) in from_source.into_iter().zip(from_target).enumerate() {
        let (source, target) = (TcpStream::from(source), TcpStream::from(target));
        let clone = |stream: &TcpStream| stream.try_clone().expect("an fd");
        let ways =
            [(Way::ToTarget, clone(&source), clone(&target)), (Way::ToSource, target, source)];
        for (way, from, to) in ways {
            let fates = fates.clone();
            std::thread::spawn(move || {
                let ended = carry(&from, &to, |header| fates(way, number, header));
                // An end is passed on; a broken stream is broken for the other end, too.
                let _ = to.shutdown(Shutdown::Write);
                if ended.is_err() {
                    let _ = from.shutdown(Shutdown::Both);
                }
            });
        }
    }
    (source, target)
}

/// Carries frames until the stream ends; an error if one of the ends broke.
fn carry(
    mut from: &TcpStream,
    mut to: &TcpStream,
    fate: impl Fn(&Header) -> Fate,
) -> std::io::Result<()> {
    let mut late = Vec::new();
    loop {
        let mut frame = vec![0; HEADER_BYTES];
        if from.peek(&mut [0])? == 0 {
            return Ok(());
        }
        from.read_exact(&mut frame)?;
        let bytes = frame.first_chunk::<HEADER_BYTES>().expect("as long as a header");
        let header = decode_header(bytes, &WireLimits::MAX).expect("an engine's header");
        frame.resize(HEADER_BYTES + header.body_bytes as usize, 0);
        from.read_exact(&mut frame[HEADER_BYTES..])?;
        match fate(&header) {
            Fate::Passes => to.write_all(&frame)?,
            Fate::Lost => continue,
            Fate::Twice => to.write_all(&frame.repeat(2))?,
            Fate::Late => {
                late = frame;
                continue;
            }
        }
        to.write_all(&std::mem::take(&mut late))?;
    }
}
