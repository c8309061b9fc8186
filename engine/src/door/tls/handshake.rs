//! The handshake: rustls, on a socket that does not block. Whoever drives it waits for the socket and
//! bounds the time.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{AlertDescription, CertificateError, Error as RustlsError};

use super::credentials::Side;
use super::secured::{Kernel, Secured};
use super::verify::key_hash;
use super::{ALPN, Tls};
use crate::error::{Error, TlsFault, UsageError};

/// Most bytes of the peer's that wait to be understood: more than any chain of certificates that is
/// meant well.
const INCOMING_MAX: usize = 32 << 10;
/// So much is read at a time.
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
    /// What the peer said behind its last flight, opened.
    early: Vec<u8>,
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
    early: &mut Vec<u8>,
) -> (usize, Result<Step, RustlsError>) {
    let mut used = discard;
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
        Ok(ConnectionState::ReadTraffic(mut data)) => {
            let mut result = Ok(Step::Again);
            while let Some(record) = data.next_record() {
                match record {
                    Ok(record) => {
                        used += record.discard;
                        early.extend_from_slice(record.payload);
                    }
                    Err(error) => result = Err(error),
                }
            }
            result
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(_) => Ok(Step::Over),
    };
    (used, result)
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
        Ok(Handshake { connection, incoming: Vec::new(), outgoing: Vec::new(), early: Vec::new() })
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
                step(connection.process_tls_records(incoming), outgoing, &mut self.early)
            }
            Connection::Target(connection) => {
                step(connection.process_tls_records(incoming), outgoing, &mut self.early)
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
        if start + READ > INCOMING_MAX {
            return Err(TlsFault::Changed("a handshake that is too long"));
        }
        self.incoming.resize(start + READ, 0);
        let got = rustix::io::retry_on_intr(|| {
            recv(socket, &mut self.incoming[start..], RecvFlags::DONTWAIT)
        });
        self.incoming.truncate(start + got.as_ref().map_or(0, |(bytes, _)| *bytes));
        match got {
            Ok((0, _)) => Err(TlsFault::Cut),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(_) => Err(TlsFault::Cut),
        }
    }

    /// The connection after a handshake that is [`Progress::Done`].
    pub(in crate::door) fn finish(self, socket: OwnedFd) -> Result<Secured, TlsFault> {
        let Handshake { connection, incoming, early, .. } = self;
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
        Secured::new(socket, &secrets, kernel, peer_key, incoming, early)
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

/// What a peer says by an alert.
pub(super) fn refused(alert: AlertDescription) -> TlsFault {
    TlsFault::Refused(format!("{alert:?}"))
}
