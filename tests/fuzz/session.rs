// A whole session over a socket, against a peer that replays a recorded one, changed as the bytes say:
// hashes and frame numbers are put right, so that what is changed reaches the machines and the drive.
// Shared by the fuzz target and by the ordinary test run, which replays the corpus.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::wire::{Frame, Kind, WireLimits, chunk_hash, decode, decode_header, encode};
use vfio_ferry::{DeviceState, SourceEnding, TargetEnding};

use super::double::{Double, PATIENCE, options, patient, source, target};

/// How long the peer waits for a word that may never come, before it goes on with its own.
const WORD: Duration = Duration::from_millis(150);

/// The next whole frame; none at the end of the stream, or where none comes in time.
fn next_frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    stream.read_exact(&mut frame).ok()?;
    let header = decode_header(frame.first_chunk()?, &WireLimits::MAX).expect("an engine's header");
    frame.resize(HEADER_BYTES + header.body_bytes as usize, 0);
    stream.read_exact(&mut frame[HEADER_BYTES..]).ok()?;
    Some(frame)
}

fn kind(frame: &[u8]) -> Kind {
    Kind(u16::from_le_bytes([frame[6], frame[7]]))
}

/// An honest migration's frames in the order in which they passed, and whether the source sent each.
/// Pings are not in it.
fn recorded() -> &'static [(bool, Vec<u8>)] {
    static RECORDED: OnceLock<Vec<(bool, Vec<u8>)>> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let ((ours, there), (theirs, here)) =
            (UnixStream::pair().expect("sockets"), UnixStream::pair().expect("sockets"));
        let source = source(&Double::new(), vec![OwnedFd::from(ours)], patient(4));
        let target = target(&Double::new(), vec![OwnedFd::from(theirs)], patient(4));
        let passed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let pass = |mut from: UnixStream, mut to: UnixStream, is_source: bool| {
                while let Some(frame) = next_frame(&mut from) {
                    if ![Kind::PING, Kind::PONG].contains(&kind(&frame)) {
                        passed.lock().expect("no panic").push((is_source, frame.clone()));
                    }
                    if to.write_all(&frame).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Write);
            };
            let (from, to) = (there.try_clone().expect("fds"), here.try_clone().expect("fds"));
            scope.spawn(move || pass(from, to, true));
            scope.spawn(move || pass(here, there, false));
            source.wait_until_ready(PATIENCE, PATIENCE, |_| {});
            source.switchover();
            assert_eq!(source.finish().ending, SourceEnding::HandedOver);
            assert_eq!(target.finish().ending, TargetEnding::Running);
        });
        passed.into_inner().expect("no panic")
    })
}

/// The peer: its stream, the number of its next frame, and what it is to do.
struct Liar<'a> {
    stream: UnixStream,
    number: u32,
    deeds: std::slice::Iter<'a, u8>,
    /// The session that the source has named.
    session: u128,
    /// Up to which sequence the target takes frames.
    credit: u64,
}

impl Liar<'_> {
    fn deed(&mut self) -> u8 {
        self.deeds.next().copied().unwrap_or(0)
    }

    /// Sends a frame, with what the engine checks first put right.
    fn send(&mut self, mut frame: Vec<u8>) {
        let body = frame.split_off(HEADER_BYTES);
        frame[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        frame[40..48].copy_from_slice(&chunk_hash(&body).to_le_bytes());
        if kind(&frame) == Kind::DATA && frame[5] == 1 {
            frame[48..56].copy_from_slice(&chunk_hash(&body).to_le_bytes());
        }
        frame[56..60].copy_from_slice(&self.number.to_le_bytes());
        self.number += 1;
        let hash = chunk_hash(&frame[..60]) as u32;
        frame[60..64].copy_from_slice(&hash.to_le_bytes());
        let _ = self.stream.write_all(&[frame, body].concat());
    }

    /// Leads its part; `sent` hears of each frame that had its turn.
    fn lead(&mut self, is_source: bool, sent: impl Fn(Kind)) {
        let script = recorded();
        for (by_source, frame) in script {
            if *by_source != is_source {
                // How often credit is granted is a matter of time.
                if kind(frame) != Kind::CREDIT {
                    self.hear(|frame_kind, _| frame_kind == kind(frame));
                }
                continue;
            }
            let mut number = [0; 8];
            number.copy_from_slice(&frame[24..32]);
            let sequence = u64::from_le_bytes(number);
            if is_source && kind(frame) != Kind::HELLO && self.credit <= sequence {
                self.hear(|_, credit| credit > sequence);
            }
            let script_kind = kind(frame);
            let mut frame = frame.clone();
            if kind(&frame) == Kind::ACCEPT {
                frame = self.accept(&frame);
            }
            match self.deed() {
                // Most are sent as they were.
                0..=159 => self.send(frame),
                160..=175 => {}
                176..=185 => {
                    self.send(frame.clone());
                    self.send(frame);
                }
                186..=219 => {
                    let (at, value) = (usize::from(self.deed()), self.deed());
                    let at =
                        if at < 2 * HEADER_BYTES { at % HEADER_BYTES } else { at - HEADER_BYTES };
                    if let Some(byte) = frame.get_mut(at) {
                        *byte ^= value;
                    }
                    self.send(frame);
                }
                220..=229 => {
                    let left = usize::from(self.deed());
                    frame.truncate(HEADER_BYTES + left);
                    self.send(frame);
                }
                230..=247 => {
                    let other = usize::from(self.deed()) % script.len();
                    self.send(script[other].1.clone());
                    self.send(frame);
                }
                248..=251 => self.hear(|_, _| false),
                _ => {
                    let _ = self.stream.shutdown(Shutdown::Both);
                    return;
                }
            }
            sent(script_kind);
        }
    }

    /// Hears frames until one of this kind, or this credit, has come; for a while.
    fn hear(&mut self, wanted: impl Fn(Kind, u64) -> bool) {
        self.stream.set_read_timeout(Some(WORD)).expect("a timeout");
        while let Some(frame) = next_frame(&mut self.stream) {
            let header = decode_header(frame.first_chunk().expect("whole"), &WireLimits::MAX);
            let header = header.expect("an engine's header");
            if header.kind != Kind::DATA {
                match decode(&header, &frame[HEADER_BYTES..]).expect("an engine's body") {
                    Frame::Hello(hello) => self.session = hello.session,
                    Frame::Credit { up_to, .. } => self.credit = up_to.0,
                    _ => {}
                }
            }
            if wanted(header.kind, self.credit) {
                return;
            }
        }
    }

    /// The recorded accept, of the session that there is.
    fn accept(&self, frame: &[u8]) -> Vec<u8> {
        let header = decode_header(frame.first_chunk().expect("whole"), &WireLimits::MAX);
        let frame = decode(&header.expect("recorded"), &frame[HEADER_BYTES..]);
        let Ok(Frame::Accept(mut accept)) = frame else { panic!("recorded: {frame:?}") };
        accept.session = self.session;
        let mut bytes = Vec::new();
        encode(&Frame::Accept(accept), 0, &mut bytes).expect("an accept");
        bytes
    }

    /// Hears the engine out.
    fn end(mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            let reset = error.kind() == io::ErrorKind::ConnectionReset;
            assert!(reset, "the session does not close its stream: {error}");
        }
    }
}

/// One session. The first byte chooses the host that the engine is, and its options.
pub(crate) fn session(data: &[u8]) {
    let [choices, deeds @ ..] = data else { return };
    recorded();
    let (ours, stream) = UnixStream::pair().expect("sockets");
    let ours = vec![OwnedFd::from(ours)];
    let mut liar = Liar { stream, number: 0, deeds: deeds.iter(), session: 0, credit: 0 };
    let device = Double::new();
    let fault = if choices & 1 == 0 {
        let session = target(&device, ours, options(*choices));
        liar.lead(true, |_| {});
        liar.end();
        let ending = session.finish().ending;
        let content = device.content();
        let running = content.state == DeviceState::Running;
        match &ending {
            TargetEnding::Running => assert!(running && content.touched, "{content:?}"),
            TargetEnding::Blank(why) => assert!(running && !content.touched, "{content:?}: {why}"),
            TargetEnding::NotBlank(_) => {}
        }
        ending.fault().cloned()
    } else {
        let session = source(&device, ours, options(*choices));
        liar.lead(false, |kind| {
            if kind == Kind::INITIAL_DATA_LOADED {
                session.switchover();
            }
        });
        session.switchover();
        liar.end();
        let ending = session.finish().ending;
        let state = device.content().state;
        match &ending {
            SourceEnding::HandedOver => assert_eq!(state, DeviceState::Stop),
            SourceEnding::Returned(why) => assert_eq!(state, DeviceState::Running, "{why}"),
            SourceEnding::NotReturned(_) | SourceEnding::Unconfirmed(_) => {}
        }
        ending.fault().cloned()
    };
    if let Some(fault) = fault {
        assert!(!fault.message.contains("panicked"), "{fault}");
    }
}
