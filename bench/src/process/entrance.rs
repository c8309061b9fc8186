//! Where a receiver with test devices meets its sender, whoever else connects first: everybody is heard
//! at the same time, each for as long as a sender may take for its first word.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::control::{Control, Hello};

/// Who is heard at once: as many threads. One more is let go unheard.
const HEARD_MAX: usize = 64;
/// How soon a word that has come is seen.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What became of a connection.
type Heard = (SocketAddr, Result<(Control, Hello), String>);

/// Counts those that are being heard, those of an earlier wait too: each has a reference.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<()>);

/// Waits for a sender, for as long as it takes; `let_go` is told of everybody else.
pub(crate) fn next_sender(
    listener: &TcpListener,
    places: &Places,
    mut let_go: impl FnMut(SocketAddr, &str),
) -> io::Result<(Control, Hello)> {
    listener.set_nonblocking(true)?;
    let (sender, heard) = unbounded::<Heard>();
    loop {
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&LOOK_EVERY)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for (from, said) in heard.try_iter() {
            match said {
                Ok(sender) => return Ok(sender),
                Err(why) => let_go(from, &why),
            }
        }
        match listener.accept() {
            Ok((_, from)) if Arc::strong_count(&places.0) > HEARD_MAX => {
                let_go(from, "too many others are being heard");
            }
            Ok((stream, from)) => hear(stream, from, places.clone(), sender.clone())?,
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn hear(stream: TcpStream, from: SocketAddr, place: Places, to: Sender<Heard>) -> io::Result<()> {
    thread::Builder::new()
        .name("greeting".to_owned())
        .spawn(move || {
            let greeted = Control::new(stream).map_err(|error| error.to_string());
            let greeted =
                greeted.and_then(|mut control| control.greeted().map(|hello| (control, hello)));
            // Another one was first.
            let _ = to.send((from, greeted));
            drop(place);
        })
        .map(drop)
}

/// Nobody is there any more, or a signal came.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_sender_is_met_past_the_silent_and_the_many() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
        let connect = move || TcpStream::connect(address).unwrap_or_else(|e| panic!("{e}"));
        let _silent: Vec<TcpStream> = (0..8).map(|_| connect()).collect();
        let browser = connect();
        assert!((&browser).write_all(b"GET / HTTP/1.1\r\n\r\n").is_ok());
        let sender = thread::spawn(move || {
            let spec = crate::process::message::tests::spec();
            let mut control = Control::new(connect()).unwrap_or_else(|e| panic!("{e}"));
            control.greet(&spec, 2, 3)
        });
        let mut let_go = Vec::new();
        let met = next_sender(&listener, &Places::default(), |from, _| let_go.push(from));
        let (mut control, hello) = met.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((hello.run, hello.runs), (2, 3));
        assert!(let_go.iter().all(|from| Some(*from) == browser.local_addr().ok()), "{let_go:?}");
        assert!(control.welcome(Ok(())).is_ok());
        assert_eq!(sender.join().ok(), Some(Ok(())));
    }
}
