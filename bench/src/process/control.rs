//! What two hosts with test devices say to each other beside the migration: `send` and `receive` without a
//! real device.
//!
//! ```text
//! send                                   receive
//! connects
//! Hello: the run, which one of how many  ->
//!                                        <- Welcome, or why not
//! streams, migration  =======================>
//! its devices, digests                   ->
//!                                        <- its devices, digests
//! ```
//!
//! A connection for each run, a line of JSON for each word. The other host may be anybody: lines have a
//! longest length and a time within which they must be there, and no number in them is believed.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::message::{RunSpec, SideReport};
use crate::engine::limits;

/// More than a report of as many devices as there may be.
const LINE_BYTES_MAX: usize = 1 << 20;
/// How long the other host may take for its first word.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// How long it may take to say what it has: digests of a state in memory are taken then.
const REPORT_MAX: Duration = Duration::from_secs(300);
/// The version of these words.
const VERSION: u32 = 1;

/// The sender's first word.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    ferry_bench_send: u32,
    /// What is run. Its content and reset are the source's alone.
    pub(crate) spec: RunSpec,
    /// Which run, from 1 on.
    pub(crate) run: u32,
    /// Of how many.
    pub(crate) runs: u32,
}

/// The receiver's answer.
type Welcome = Result<u32, String>;

/// A connection beside the migration's.
pub(crate) struct Control {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Control {
    /// Over a connection that was made or taken.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Control> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(GREETING_MAX))?;
        Ok(Control { writer: stream.try_clone()?, reader: BufReader::new(stream) })
    }

    /// The sender's greeting. The error is a sentence.
    pub(crate) fn greet(&mut self, spec: &RunSpec, run: u32, runs: u32) -> Result<(), String> {
        let hello = Hello { ferry_bench_send: VERSION, spec: spec.clone(), run, runs };
        let said = self.say(&hello).and_then(|()| self.hear(GREETING_MAX));
        let welcome: Welcome = said
            .map_err(|error| format!("{error}: is it `ferry-bench receive` without --device?"))?;
        welcome.map(|_| ()).map_err(|why| format!("the receiver: {}", printable(&why)))
    }

    /// The receiver hears it, and checks what it is asked for.
    pub(crate) fn greeted(&mut self) -> Result<Hello, String> {
        let hello: Hello = self.hear(GREETING_MAX).map_err(|error| {
            format!(
                "{error}: it is no `ferry-bench send` without --device; with a real device on the \
                     other host, name one here, too"
            )
        })?;
        let spec = &hello.spec;
        let is_sound = hello.ferry_bench_send == VERSION
            && (1..=limits::DEVICES_MAX as u16).contains(&spec.devices)
            && (1..=limits::STREAMS_MAX as u16).contains(&spec.streams)
            && spec.state.0 > 0
            // A rate of nothing is divided by.
            && spec.device_rate.is_none_or(|rate| rate.0 > 0)
            && (1..=hello.runs).contains(&hello.run);
        if is_sound { Ok(hello) } else { Err("it asks for what cannot be".to_owned()) }
    }

    /// The receiver's answer.
    pub(crate) fn welcome(&mut self, answer: Result<(), String>) -> io::Result<()> {
        self.say(&answer.map(|()| VERSION))
    }

    /// Both tell each other what their devices have.
    pub(crate) fn exchange(&mut self, own: &SideReport) -> io::Result<SideReport> {
        self.say(own)?;
        let other: SideReport = self.hear(REPORT_MAX)?;
        match other.devices.len() == own.devices.len() {
            true => Ok(other),
            false => Err(io::Error::other("the other host has another number of devices")),
        }
    }

    fn say(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.writer.write_all(&line)
    }

    /// A whole line within this time, however it trickles in.
    fn hear<T: DeserializeOwned>(&mut self, within: Duration) -> io::Result<T> {
        let deadline = Instant::now() + within;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || line.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("the other host said nothing"));
            }
            self.reader.get_ref().set_read_timeout(Some(left))?;
            let come = match self.reader.fill_buf() {
                Err(error) if is_pause(&error) => continue,
                come => come?,
            };
            if come.is_empty() {
                return Err(io::Error::other("the other host said nothing"));
            }
            let length =
                come.iter().position(|&byte| byte == b'\n').map_or(come.len(), |at| at + 1);
            line.extend_from_slice(&come[..length]);
            self.reader.consume(length);
        }
        serde_json::from_slice(&line)
            .map_err(|_| io::Error::other("the other host said something else"))
    }
}

/// The read's own time is over, or a signal came.
fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// What a stranger says, as far as it goes on one line of a terminal.
fn printable(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
        let one = TcpStream::connect(address).unwrap_or_else(|e| panic!("{e}"));
        let (two, _) = listener.accept().unwrap_or_else(|e| panic!("{e}"));
        (one, two)
    }

    #[test]
    fn strangers_are_no_senders() {
        let long = vec![b'x'; 2 << 20];
        for said in [&b""[..], b"\n", b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b"\xff\xfe\n", &long] {
            let (mut one, two) = pair();
            let mut control = Control::new(two).unwrap_or_else(|e| panic!("{e}"));
            let said = said.to_vec();
            let stranger = thread::spawn(move || {
                // What is too long is not read to its end.
                let _ = one.write_all(&said);
            });
            assert!(control.greeted().is_err());
            drop(control);
            assert!(stranger.join().is_ok());
        }
    }

    /// A byte now and then is no word, however long it goes on.
    #[test]
    fn a_word_has_its_time_as_a_whole() {
        let (mut one, two) = pair();
        let mut control = Control::new(two).unwrap_or_else(|e| panic!("{e}"));
        let trickle = thread::spawn(move || {
            for byte in [&[b' '; 400][..], b"1\n"].concat() {
                if one.write_all(&[byte]).is_err() {
                    return false;
                }
                thread::sleep(Duration::from_millis(10));
            }
            true
        });
        assert!(control.hear::<u32>(Duration::from_millis(200)).is_err());
        drop(control);
        assert_eq!(trickle.join().ok(), Some(false), "it was waited for to the end");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let spec = |devices: u16, state: u64| {
            let mut spec = crate::process::message::tests::spec();
            (spec.devices, spec.state.0) = (devices, state);
            spec
        };
        for (spec, run, runs, is_sound) in [
            (spec(1, 1), 1, 1, true),
            (spec(64, u64::MAX), 3, 9, true),
            (spec(0, 1), 1, 1, false),
            (spec(65, 1), 1, 1, false),
            (spec(1, 0), 1, 1, false),
            (spec(1, 1), 0, 1, false),
            (spec(1, 1), 2, 1, false),
        ] {
            let (one, two) = pair();
            let sender = thread::spawn(move || {
                let mut control = Control::new(one).unwrap_or_else(|e| panic!("{e}"));
                control.greet(&spec, run, runs)
            });
            let mut control = Control::new(two).unwrap_or_else(|e| panic!("{e}"));
            let answer = control.greeted().map(|_| ());
            assert_eq!(answer.is_ok(), is_sound, "{answer:?}");
            assert!(control.welcome(answer).is_ok());
            let greeted = sender.join().unwrap_or_else(|_| panic!("the sender panicked"));
            assert_eq!(greeted.is_ok(), is_sound, "{greeted:?}");
        }
    }
}
