//! The handshake: rustls, on a socket that does not block. Whoever drives it waits for the socket and
//! bounds the time.
//!
//! It is read record by record, so that nothing of what follows is ever taken out of the socket: the
//! kernel, which may be given the keys, takes them for the first record behind the handshake.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CertificateError, Error as RustlsError};

use super::credentials::Side;
use super::record::HEADER;
use super::secured::{Kernel, Secured, refused};
use super::verify::key_hash;
use super::{ALPN, Finished, InKernel, Tls};
use crate::error::{Error, TlsFault, UsageError};
use crate::kernel_tls;

/// Most bytes of the peer's that wait to be understood: more than any chain of certificates that is
/// meant well.
const INCOMING_MAX: usize = 32 << 10;
/// So much is read at a time, at most.
const READ: usize = 4096;

enum Connection {
    Source(UnbufferedClientConnection),
    Target(UnbufferedServerConnection),
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::door) enum Progress {
    /// The socket has to be readable first.
    Reads,
    /// The socket has to be writable first.
    Writes,
    Done,
}

pub(in crate::door) struct Handshake {
    connection: Box<Connection>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    framing: Framing,
    /// The kernel may have the keys.
    kernel: bool,
}

/// Where in a record the bytes end that have come so far.
#[derive(Debug, Default)]
struct Framing {
    header: [u8; HEADER],
    known: usize,
    /// Behind the header.
    left: usize,
}

impl Framing {
    /// How many bytes may be read before the record's end has to be looked for again.
    fn next(&self) -> usize {
        match self.left {
            0 => HEADER - self.known,
            left => left,
        }
    }

    /// They have come, or some of them.
    fn came(&mut self, bytes: &[u8]) {
        if self.left > 0 {
            self.left -= bytes.len();
            return;
        }
        self.header[self.known..self.known + bytes.len()].copy_from_slice(bytes);
        self.known += bytes.len();
        if self.known == HEADER {
            self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            self.known = 0;
        }
    }
}

/// What one look at the incoming bytes came to.
enum Step {
    Again,
    Blocked,
    Done,
    Over,
}

/// Handles one state; how many bytes of `incoming` are used up, too.
fn step<Data>(
    UnbufferedStatus { discard, state, .. }: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
) -> (usize, Result<Step, RustlsError>) {
    let result = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = outgoing.len();
            let room = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(error)) => error.required_size,
                _ => 0,
            };
            outgoing.resize(start + room, 0);
            match data.encode(&mut outgoing[start..]) {
                Ok(bytes) => {
                    outgoing.truncate(start + bytes);
                    Ok(Step::Again)
                }
                Err(error) => Err(RustlsError::General(error.to_string())),
            }
        }
        // It is sent before anything else is.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(_) => Ok(Step::Over),
    };
    (discard, result)
}

impl Handshake {
    /// One that has not begun.
    pub(in crate::door) fn new(tls: &Tls) -> Result<Handshake, Error> {
        let failed = |error: RustlsError| Error::from(TlsFault::Local(error.to_string()));
        let connection = match &tls.side {
            Side::Source(config, name) => Connection::Source(
                UnbufferedClientConnection::new(config.clone(), name.clone()).map_err(failed)?,
            ),
            Side::Target(config) => {
                Connection::Target(UnbufferedServerConnection::new(config.clone()).map_err(failed)?)
            }
        };
        let connection = Box::new(connection);
        Ok(Handshake {
            connection,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            framing: Framing::default(),
            kernel: tls.kernel,
        })
    }

    /// That this side's credentials are for this side.
    pub(in crate::door) fn check_side(tls: &Tls, is_source: bool) -> Result<(), UsageError> {
        match tls.is_source() == is_source {
            true => Ok(()),
            false => Err(UsageError::TlsSide),
        }
    }

    /// Goes on as far as the socket lets it. Never blocks.
    pub(in crate::door) fn turn(&mut self, socket: &OwnedFd) -> Result<Progress, TlsFault> {
        loop {
            if !self.flush(socket)? {
                return Ok(Progress::Writes);
            }
            match self.look() {
                Ok(Step::Again) => {}
                Ok(Step::Done) if self.outgoing.is_empty() => return Ok(Progress::Done),
                Ok(Step::Done) => {}
                Ok(Step::Over) => return Err(TlsFault::Cut),
                Ok(Step::Blocked) => {
                    if !self.outgoing.is_empty() {
                        continue;
                    }
                    if !self.read(socket)? {
                        return Ok(Progress::Reads);
                    }
                }
                Err(error) => {
                    if !matches!(error, RustlsError::AlertReceived(_)) {
                        self.say_why(socket);
                    }
                    return Err(fault(&error));
                }
            }
        }
    }

    fn look(&mut self) -> Result<Step, RustlsError> {
        let (incoming, outgoing) = (&mut self.incoming, &mut self.outgoing);
        let (used, step) = match &mut *self.connection {
            Connection::Source(connection) => {
                step(connection.process_tls_records(incoming), outgoing)
            }
            Connection::Target(connection) => {
                step(connection.process_tls_records(incoming), outgoing)
            }
        };
        self.incoming.drain(..used.min(self.incoming.len()));
        step
    }

    /// The peer is told by an alert, if it goes out at once. After an error rustls has one that waits,
    /// which is the first that one more look gives; what was wrong stays where it is, and a look beyond
    /// that would stumble over it again.
    fn say_why(&mut self, socket: &OwnedFd) {
        let _ = self.look();
        let _ = self.flush(socket);
    }

    /// Whether all has gone out.
    fn flush(&mut self, socket: &OwnedFd) -> Result<bool, TlsFault> {
        while !self.outgoing.is_empty() {
            match send(socket, &self.outgoing, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(_) => return Err(TlsFault::Cut),
            }
        }
        Ok(true)
    }

    /// Whether anything has come.
    fn read(&mut self, socket: &OwnedFd) -> Result<bool, TlsFault> {
        let start = self.incoming.len();
        let most = self.framing.next().min(READ);
        if start + most > INCOMING_MAX {
            return Err(TlsFault::Changed("a handshake that is too long"));
        }
        self.incoming.resize(start + most, 0);
        let got = rustix::io::retry_on_intr(|| {
            recv(socket, &mut self.incoming[start..], RecvFlags::DONTWAIT)
        });
        self.incoming.truncate(start + got.as_ref().map_or(0, |(bytes, _)| *bytes));
        self.framing.came(&self.incoming[start..]);
        match got {
            Ok((0, _)) => Err(TlsFault::Cut),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(_) => Err(TlsFault::Cut),
        }
    }

    /// The connection after a handshake that is [`Progress::Done`]: its keys go to the kernel, where
    /// that takes them.
    pub(in crate::door) fn finish(self, socket: OwnedFd) -> Result<Finished, TlsFault> {
        let Handshake { connection, incoming, kernel: may_have, .. } = self;
        let other = TlsFault::Changed("the peer speaks another protocol");
        let failed = |error: RustlsError| fault(&error);
        let (peer_key, secrets, kernel) = match *connection {
            Connection::Source(connection) => {
                if connection.alpn_protocol() != Some(ALPN) {
                    return Err(other);
                }
                let peer_key = peer_key(connection.peer_certificates())?;
                let parts = connection.dangerous_into_kernel_connection().map_err(failed)?;
                (peer_key, parts.0, Kernel::Source(parts.1))
            }
            Connection::Target(connection) => {
                if connection.alpn_protocol() != Some(ALPN) {
                    return Err(other);
                }
                let peer_key = peer_key(connection.peer_certificates())?;
                let parts = connection.dangerous_into_kernel_connection().map_err(failed)?;
                (peer_key, parts.0, Kernel::Target(parts.1))
            }
        };
        if !incoming.is_empty() {
            return Err(TlsFault::Changed("something behind the handshake, in its last record"));
        }
        if may_have && let Some(tls) = kernel_tls::attach(&socket, &secrets)? {
            return Ok(Finished::Kernel(Box::new(InKernel::new(socket, tls, peer_key))));
        }
        let secured = Secured::new(socket, &secrets, kernel, peer_key)?;
        Ok(Finished::Secured(Box::new(secured)))
    }
}

/// The hash of the key that the peer has shown.
fn peer_key(
    certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>,
) -> Result<[u8; 32], TlsFault> {
    let leaf = certificates.and_then(<[_]>::first);
    let leaf = leaf.ok_or_else(|| TlsFault::Untrusted("it shows no certificate".into()))?;
    key_hash(leaf).map_err(|error| fault(&error))
}

/// Who failed: them or us, untrusted or expired.
fn fault(error: &RustlsError) -> TlsFault {
    use CertificateError as Certificate;
    match error {
        RustlsError::InvalidCertificate(
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. },
        ) => TlsFault::Expired(error.to_string()),
        RustlsError::InvalidCertificate(Certificate::ApplicationVerificationFailure) => {
            TlsFault::Untrusted("its key is not one of those that are pinned".into())
        }
        RustlsError::InvalidCertificate(_) => TlsFault::Untrusted(error.to_string()),
        RustlsError::NoCertificatesPresented => {
            TlsFault::Untrusted("it shows no certificate".into())
        }
        RustlsError::AlertReceived(alert) => refused(*alert),
        RustlsError::NoApplicationProtocol => TlsFault::Changed("the peer speaks another protocol"),
        RustlsError::General(why) => TlsFault::Local(why.clone()),
        _ => TlsFault::Changed("what came is no handshake of TLS 1.3"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_followed_however_they_are_cut() {
        let records = [&[22, 3, 3, 0, 3, 1, 2, 3][..], &[20, 3, 3, 0, 1, 1], &[23, 3, 3, 0, 0]];
        let bytes = records.concat();
        let ends: Vec<usize> = (1..=3).map(|count| records[..count].concat().len()).collect();
        for most in 1..=bytes.len() {
            let (mut framing, mut at, mut seen) = (Framing::default(), 0, Vec::new());
            while at < bytes.len() {
                let part = framing.next().min(most);
                framing.came(&bytes[at..at + part]);
                at += part;
                if framing.known == 0 && framing.left == 0 {
                    seen.push(at);
                }
                assert!(framing.next() > 0, "it would read nothing, for ever");
            }
            assert_eq!(seen, ends, "at most {most} at a time");
        }
    }
}
