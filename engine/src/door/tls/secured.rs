//! A connection after its handshake: a key for each direction, and what the peer says beside data.

use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error as RustlsError, ExtractedSecrets};

use super::record::{
    ALERT, DATA, HANDSHAKE, HEADER, Key, PEER_RECORD_MAX, RECORD_MAX, record_length,
};
use crate::error::TlsFault;

/// What is left of rustls: the secrets from which the next keys are made.
pub(super) enum Kernel {
    Source(KernelConnection<ClientConnectionData>),
    Target(KernelConnection<ServerConnectionData>),
}

type Secrets = (u64, ConnectionTrafficSecrets);

impl Kernel {
    fn next_sealing(&mut self) -> Result<Secrets, RustlsError> {
        match self {
            Kernel::Source(connection) => connection.update_tx_secret(),
            Kernel::Target(connection) => connection.update_tx_secret(),
        }
    }

    fn next_opening(&mut self) -> Result<Secrets, RustlsError> {
        match self {
            Kernel::Source(connection) => connection.update_rx_secret(),
            Kernel::Target(connection) => connection.update_rx_secret(),
        }
    }
}

/// A KeyUpdate that asks for none in return (RFC 8446, 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// What a record was.
#[derive(Debug, PartialEq)]
pub(super) enum Opened {
    /// Data, which stands there.
    Data(Range<usize>),
    /// Nothing for the stream.
    Nothing,
    /// The peer says that it sends no more.
    End,
}

pub(in crate::door) struct Secured {
    pub(super) socket: OwnedFd,
    sealing: Key,
    opening: Key,
    kernel: Kernel,
    /// The peer asked for a new key of ours.
    wants_update: bool,
    pub(in crate::door) peer_key: [u8; 32],
    /// Sealed bytes that came with the first ones, and are not a whole record.
    pub(super) incoming: Vec<u8>,
    /// What was opened before anybody took it: the first of the stream's bytes.
    pub(super) early: Vec<u8>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// What a peer says by an alert.
pub(super) fn refused(alert: AlertDescription) -> TlsFault {
    TlsFault::Refused(format!("{alert:?}"))
}

fn local(error: RustlsError) -> TlsFault {
    TlsFault::Local(error.to_string())
}

impl Secured {
    pub(super) fn new(
        socket: OwnedFd,
        secrets: &ExtractedSecrets,
        kernel: Kernel,
        peer_key: [u8; 32],
    ) -> Result<Secured, TlsFault> {
        let (sealing, opening) = (Key::new(&secrets.tx)?, Key::new(&secrets.rx)?);
        let (wants_update, incoming, early) = (false, Vec::new(), Vec::new());
        Ok(Secured { socket, sealing, opening, kernel, wants_update, peer_key, incoming, early })
    }

    /// Seals a record of data; where the key has to be replaced, that is said in a record before it,
    /// for which the buffer has room in front: see [`update`](Self::update).
    pub(super) fn seal(
        &mut self,
        record: &mut [u8],
        payload: usize,
        content: u8,
    ) -> Result<usize, TlsFault> {
        self.sealing.seal(record, payload, content)
    }

    /// A KeyUpdate, where the next record should have a new key.
    pub(super) fn update(&mut self) -> Result<Option<Vec<u8>>, TlsFault> {
        if !self.sealing.is_used_up() && !self.wants_update {
            return Ok(None);
        }
        let record = self.message(&KEY_UPDATE, HANDSHAKE)?;
        self.sealing = Key::new(&self.kernel.next_sealing().map_err(local)?)?;
        self.wants_update = false;
        Ok(Some(record))
    }

    /// A short record by itself.
    pub(super) fn message(&mut self, payload: &[u8], content: u8) -> Result<Vec<u8>, TlsFault> {
        let mut record = vec![0; RECORD_MAX.min(HEADER + payload.len() + 64)];
        record[HEADER..HEADER + payload.len()].copy_from_slice(payload);
        let length = self.seal(&mut record, payload.len(), content)?;
        record.truncate(length);
        Ok(record)
    }

    /// Warning, close_notify: nothing more comes.
    pub(super) fn close_notify(&mut self) -> Result<Vec<u8>, TlsFault> {
        self.message(&[1, 0], ALERT)
    }

    /// Fatal, bad_record_mac.
    pub(super) fn alarm(&mut self) -> Result<Vec<u8>, TlsFault> {
        self.message(&[2, 20], ALERT)
    }

    /// Opens a whole record where it stands.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, TlsFault> {
        let (content, range) = self.opening.open(record)?;
        match (content, &record[range.clone()]) {
            (DATA, []) => Ok(Opened::Nothing),
            (DATA, _) => Ok(Opened::Data(range)),
            (ALERT, [_, 0]) => Ok(Opened::End),
            (ALERT, [_, why]) => Err(refused(AlertDescription::from(*why))),
            (HANDSHAKE, [24, 0, 0, 1, asks @ (0 | 1)]) => {
                self.opening = Key::new(&self.kernel.next_opening().map_err(local)?)?;
                self.wants_update |= *asks == 1;
                Ok(Opened::Nothing)
            }
            _ => Err(TlsFault::Changed("a record that has no place here")),
        }
    }

    /// Takes in, without waiting, until `enough` bytes of the stream are there or no more have come.
    /// False when the stream has ended. What is taken is kept: it is the first that the pump gives on.
    pub(in crate::door) fn listen(&mut self, enough: usize) -> Result<bool, TlsFault> {
        let mut chunk = [0u8; 2048];
        loop {
            while let Some(length) = record_length(&self.incoming)? {
                if self.incoming.len() < length {
                    break;
                }
                let mut record: Vec<u8> = self.incoming.drain(..length).collect();
                match self.open(&mut record)? {
                    Opened::Data(range) => self.early.extend_from_slice(&record[range]),
                    Opened::Nothing => {}
                    Opened::End => return Ok(false),
                }
                if self.early.len() >= enough {
                    return Ok(true);
                }
            }
            debug_assert!(self.incoming.len() <= PEER_RECORD_MAX);
            let socket = &self.socket;
            let got =
                rustix::io::retry_on_intr(|| recv(socket, &mut chunk[..], RecvFlags::DONTWAIT));
            match got {
                Ok((0, _)) => return Err(TlsFault::Cut),
                Ok((bytes, _)) => self.incoming.extend_from_slice(&chunk[..bytes]),
                Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Err(_) => return Err(TlsFault::Cut),
            }
        }
    }

    /// What was taken so far.
    pub(in crate::door) fn heard(&self) -> &[u8] {
        &self.early
    }

    /// Says a last word, and that nothing follows, without waiting.
    pub(in crate::door) fn part(&mut self, word: &[u8]) -> Result<(), TlsFault> {
        let mut bytes = self.message(word, DATA)?;
        bytes.extend(self.close_notify()?);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        send(&self.socket, &bytes, flags).map_err(|_| TlsFault::Cut)?;
        shutdown(&self.socket, Shutdown::Write).map_err(|_| TlsFault::Cut)
    }

    pub(in crate::door) fn socket(&self) -> &OwnedFd {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use rustls::{ServerConnection, Stream};

    use super::*;
    use crate::door::tls::credentials::{Side, throw_away as credentials};
    use crate::door::tls::{Credentials, Finished, Handshake, Progress, Tls, Trust};

    fn heard(secured: &mut Secured, count: usize) -> Vec<u8> {
        while secured.heard().len() < count {
            assert!(secured.listen(count).expect("a good record"), "it goes on");
            std::thread::yield_now();
        }
        std::mem::take(&mut secured.early)
    }

    /// The oracle is rustls's own record layer at the other end, over key updates in both directions.
    #[test]
    fn rustls_opens_what_is_sealed_and_the_reverse_over_new_keys() {
        let (ours, theirs) = (credentials(), credentials());
        let pin = |of: &Credentials| Trust::Keys(vec![of.key_hash().expect("a key")]);
        let source = Tls::source(&ours, &pin(&theirs)).expect("credentials");
        let target = Tls::target(&theirs, &pin(&ours)).expect("credentials");
        let Side::Target(config) = target.side else { panic!("a target's") };
        let (here, mut there) = UnixStream::pair().expect("sockets");
        let echo = std::thread::spawn(move || {
            let mut connection = ServerConnection::new(config).expect("a connection");
            let mut word = [0; 5];
            for round in 0..6 {
                if round % 2 == 1 {
                    connection.refresh_traffic_keys().expect("TLS 1.3");
                }
                let mut stream = Stream::new(&mut connection, &mut there);
                stream.read_exact(&mut word).expect("opened");
                stream.write_all(&word).expect("room");
                stream.flush().expect("room");
            }
        });
        let socket = OwnedFd::from(here);
        let mut handshake = Handshake::new(&source).expect("a handshake");
        while handshake.turn(&socket).expect("a good peer") != Progress::Done {
            std::thread::yield_now();
        }
        let Finished::Secured(mut secured) = handshake.finish(socket).expect("keys") else {
            panic!("a socket that is no TCP has no TLS of the kernel's")
        };
        assert_eq!(secured.peer_key, theirs.key_hash().expect("a key"));
        for round in 0..6u8 {
            let mut bytes = Vec::new();
            if round >= 3 {
                secured.wants_update = true;
                bytes = secured.update().expect("a new key").expect("it is due");
                assert_eq!(secured.update().expect("no key"), None);
            }
            let word = [round; 5];
            bytes.extend(secured.message(&word, DATA).expect("sealed"));
            let sent = send(&secured.socket, &bytes, SendFlags::NOSIGNAL).expect("room");
            assert_eq!(sent, bytes.len());
            assert_eq!(heard(&mut secured, 5), word, "round {round}");
        }
        echo.join().expect("no panic");
    }
}
