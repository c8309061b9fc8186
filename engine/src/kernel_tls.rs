//! A stream whose records the kernel seals and opens, once it has the keys of a handshake that was made
//! elsewhere: kTLS (Documentation/networking/tls.rst). Its socket is sent to and received from as any
//! other, by plain system calls and io_uring alike. What differs, of Linux 6.12:
//!
//! | | |
//! |---|---|
//! | a record that is no data (close_notify, another alert, a KeyUpdate) | waits for a recvmsg with room for its type; a plain receive answers EIO, or comes short before it, and leaves it where it is |
//! | a record that does not open | EBADMSG; one whose header is wrong EMSGSIZE or EINVAL; afterwards sends fail, too |
//! | the connection's end | 0 bytes, as without TLS: whether close_notify came before it is ours to know |
//! | shutdown and close | send no close_notify |
//! | MSG_WAITALL on a send, SEND_ZC, connect to AF_UNSPEC | EOPNOTSUPP |
//! | MSG_PEEK, poll and epoll, POLLRDHUP, O_NONBLOCK, TCP_INFO, TCP_NOTSENT_LOWAT | as without TLS; the kernel tells of whole records |
//! | another key | not before 6.14: see [`RECORDS_MAX`] |

#![forbid(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::socket::sockopt::{TcpTlsRx, TcpTlsTx, TcpUlp, TlsCryptoInfo};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, TlsGetRecordType, getsockopt, recvmsg, setsockopt,
};
use nix::{getsockopt_impl, sockopt_impl};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ExtractedSecrets};
use socket2::{MsgHdr, SockRef};

use crate::errno;
use crate::error::TlsFault;

/// Records that AES-GCM is good for with one key: 2^24.5 (RFC 8446, 5.5), which is 362 GiB in whole
/// records. The kernel's next key is one that it takes since 6.14, and we do not give it one: a stream
/// that gets so far ends, with [`TlsFault::KeyUsedUp`]. ChaCha20-Poly1305 has no such bound.
const RECORDS_MAX: u64 = 23_726_566;
/// The kernel is asked how many there were after so many that may have been sent.
const LOOK_AFTER: u64 = 1 << 16;
/// A session ends so many before the bound: what may be on its way between two looks.
const MARGIN: u64 = 4 * LOOK_AFTER;
/// Payload of a whole record.
const RECORD_BYTES: u64 = 1 << 14;

/// Content types.
const ALERT: u8 = 21;

const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// Fatal, bad_record_mac.
const ALARM: [u8; 2] = [2, 20];

sockopt_impl!(
    /// The sending key of AES-128-GCM, with the number of the next record.
    SendingAes128,
    GetOnly,
    libc::SOL_TLS,
    libc::TLS_TX,
    libc::tls12_crypto_info_aes_gcm_128
);
sockopt_impl!(
    /// The same of AES-256-GCM.
    SendingAes256,
    GetOnly,
    libc::SOL_TLS,
    libc::TLS_TX,
    libc::tls12_crypto_info_aes_gcm_256
);

/// What is used up, and has to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Aes128,
    Aes256,
    Unbounded,
}

/// What is known of such a stream beside its socket.
#[derive(Debug)]
pub(crate) struct KernelTls {
    cipher: Cipher,
    /// Records that were sent, at least as many as there are.
    sent: AtomicU64,
    /// After so many of them the kernel is asked.
    look_at: AtomicU64,
    fault: OnceLock<TlsFault>,
    /// Its last word was said.
    parted: AtomicBool,
}

/// How a stream ended that gives no more bytes.
#[derive(Debug, PartialEq)]
pub(crate) enum Ended {
    /// The peer has said so.
    Parted,
    Broken(TlsFault),
}

/// Gives a socket's keys to the kernel. None where it takes none (it has no TLS, or not this cipher,
/// or the peer is gone): the socket is as it was.
///
/// Nothing may have been received behind the handshake. Where the module is not loaded, the kernel
/// loads it for who has CAP_NET_ADMIN, and for nobody else.
///
/// # Errors
/// The kernel has taken one key and not the other: the socket is of no use.
pub(crate) fn attach(
    socket: &OwnedFd,
    secrets: &ExtractedSecrets,
) -> Result<Option<KernelTls>, TlsFault> {
    let (Some((cipher, sending)), Some((_, opening))) = (key(&secrets.tx), key(&secrets.rx)) else {
        return Ok(None);
    };
    // Without a key the layer does nothing.
    let attached = setsockopt(socket, TcpUlp::default(), b"tls")
        .and_then(|()| setsockopt(socket, TcpTlsRx, &opening));
    if let Err(errno) = attached {
        tracing::debug!(%errno, "the kernel takes no TLS keys");
        return Ok(None);
    }
    setsockopt(socket, TcpTlsTx, &sending)
        .map_err(|errno| TlsFault::Local(format!("the kernel takes half of the keys: {errno}")))?;
    Ok(Some(KernelTls::new(cipher)))
}

/// A key as the kernel takes it.
fn key((number, secrets): &(u64, ConnectionTrafficSecrets)) -> Option<(Cipher, TlsCryptoInfo)> {
    let info = |cipher_type| libc::tls_crypto_info { version: libc::TLS_1_3_VERSION, cipher_type };
    let rec_seq = number.to_be_bytes();
    Some(match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
            let (salt, iv) = iv.as_ref().split_first_chunk()?;
            let info = info(libc::TLS_CIPHER_AES_GCM_128);
            let (salt, iv, key) = (*salt, *iv.first_chunk()?, *key.as_ref().first_chunk()?);
            let parts = libc::tls12_crypto_info_aes_gcm_128 { info, iv, key, salt, rec_seq };
            (Cipher::Aes128, TlsCryptoInfo::Aes128Gcm(parts))
        }
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            let (salt, iv) = iv.as_ref().split_first_chunk()?;
            let info = info(libc::TLS_CIPHER_AES_GCM_256);
            let (salt, iv, key) = (*salt, *iv.first_chunk()?, *key.as_ref().first_chunk()?);
            let parts = libc::tls12_crypto_info_aes_gcm_256 { info, iv, key, salt, rec_seq };
            (Cipher::Aes256, TlsCryptoInfo::Aes256Gcm(parts))
        }
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            let info = info(libc::TLS_CIPHER_CHACHA20_POLY1305);
            let (iv, key) = (*iv.as_ref().first_chunk()?, *key.as_ref().first_chunk()?);
            let parts =
                libc::tls12_crypto_info_chacha20_poly1305 { info, iv, key, salt: [], rec_seq };
            (Cipher::Unbounded, TlsCryptoInfo::Chacha20Poly1305(parts))
        }
        _ => return None,
    })
}

impl KernelTls {
    fn new(cipher: Cipher) -> KernelTls {
        KernelTls {
            cipher,
            sent: AtomicU64::new(0),
            look_at: AtomicU64::new(LOOK_AFTER),
            fault: OnceLock::new(),
            parted: AtomicBool::new(false),
        }
    }

    /// How TLS broke, if it did.
    pub(crate) fn fault(&self) -> Option<&TlsFault> {
        self.fault.get()
    }

    /// Why a receive came short, or failed with this errno. Never blocks.
    pub(crate) fn why(&self, socket: impl AsFd, errno: Option<i32>) -> Ended {
        match errno {
            None | Some(errno::EIO) => next_record(socket),
            Some(errno) => Ended::Broken(fault_of(errno)),
        }
    }

    /// Says, once, that nothing follows. False where the socket has no room for it now.
    pub(crate) fn part(&self, socket: impl AsFd) -> bool {
        if self.parted.swap(true, Ordering::AcqRel) {
            return true;
        }
        match say(socket, &CLOSE_NOTIFY) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.parted.store(false, Ordering::Release);
                return false;
            }
            Err(error) => tracing::debug!(%error, "close_notify was not sent"),
            Ok(()) => {}
        }
        true
    }

    /// Notes how it broke, and tells the peer. A peer that is gone when all is said has broken nothing.
    pub(crate) fn broke(&self, socket: impl AsFd, fault: TlsFault) {
        if !self.parted.swap(true, Ordering::AcqRel) {
            tracing::warn!(%fault, "a protected stream broke");
            let _ = self.fault.set(fault);
            let _ = say(socket, &ALARM);
        }
    }

    /// So many bytes were sent at once. Whether the key is used up.
    pub(crate) fn is_used_up(&self, socket: impl AsFd, bytes: u64) -> bool {
        let records = bytes / RECORD_BYTES + 1;
        let sent = self.sent.fetch_add(records, Ordering::Relaxed).saturating_add(records);
        if sent < self.look_at.load(Ordering::Relaxed) || self.cipher == Cipher::Unbounded {
            return false;
        }
        self.look_at.store(sent.saturating_add(LOOK_AFTER), Ordering::Relaxed);
        is_beyond(self.records_sent(socket).unwrap_or(sent))
    }

    /// How many records the key has sealed; none if the kernel does not say.
    pub(crate) fn records_sent(&self, socket: impl AsFd) -> Option<u64> {
        let number = match self.cipher {
            Cipher::Aes128 => getsockopt(&socket, SendingAes128).ok()?.rec_seq,
            Cipher::Aes256 => getsockopt(&socket, SendingAes256).ok()?.rec_seq,
            Cipher::Unbounded => return None,
        };
        Some(u64::from_be_bytes(number))
    }
}

fn is_beyond(records: u64) -> bool {
    records >= RECORDS_MAX - MARGIN
}

/// What an errno of the kernel's TLS means.
fn fault_of(errno: i32) -> TlsFault {
    match errno {
        errno::EBADMSG => TlsFault::Changed("a record's tag is not its key's"),
        errno::EMSGSIZE | errno::EINVAL => TlsFault::Changed("not a record of this connection"),
        _ => TlsFault::Cut,
    }
}

/// Takes the record, or the end, that waits on the socket.
fn next_record(socket: impl AsFd) -> Ended {
    let mut word = [0; 64];
    let mut parts = [IoSliceMut::new(&mut word)];
    let mut control = nix::cmsg_space!(u8);
    let fd = socket.as_fd().as_raw_fd();
    let got = recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT);
    let (bytes, content) = match got {
        Ok(message) => {
            let content = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|control| match control {
                    ControlMessageOwned::TlsGetRecordType(content) => Some(content),
                    _ => None,
                })
            });
            (message.bytes, content)
        }
        Err(errno) => return Ended::Broken(fault_of(errno as i32)),
    };
    Ended::Broken(match (content, &word[..bytes]) {
        (None, []) => TlsFault::Cut,
        (Some(TlsGetRecordType::Alert), [_, 0]) => return Ended::Parted,
        (Some(TlsGetRecordType::Alert), [_, why]) => {
            TlsFault::Refused(format!("{:?}", AlertDescription::from(*why)))
        }
        (Some(TlsGetRecordType::Handshake), [24, ..]) => {
            TlsFault::Local("the peer has a new key, and the kernel's TLS keeps the old one".into())
        }
        _ => TlsFault::Changed("a record that has no place here"),
    })
}

/// Sends an alert: a record whose type goes along as a control message, which neither nix nor rustix
/// has.
fn say(socket: impl AsFd, alert: &[u8]) -> std::io::Result<()> {
    // struct cmsghdr, one byte, and what aligns the next one.
    let mut control = [0; 24];
    control[..8].copy_from_slice(&17_usize.to_ne_bytes());
    control[8..12].copy_from_slice(&libc::SOL_TLS.to_ne_bytes());
    control[12..16].copy_from_slice(&libc::TLS_SET_RECORD_TYPE.to_ne_bytes());
    control[16] = ALERT;
    let parts = [IoSlice::new(alert)];
    let message = MsgHdr::new().with_buffers(&parts).with_control(&control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    SockRef::from(&socket).sendmsg(&message, flags).map(drop)
}

// `say` writes a header of this layout.
const _: () = assert!(size_of::<libc::cmsghdr>() == 16 && size_of::<usize>() == 8);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_key_is_used_up_before_its_bound() {
        assert!(!is_beyond(RECORDS_MAX - MARGIN - 1));
        assert!(is_beyond(RECORDS_MAX - MARGIN));
        // Between two looks there are at most so many, and one send of the longest frame more.
        let longest = (crate::limits::CHUNK_BYTES_MAX as u64) / RECORD_BYTES + 2;
        assert!(LOOK_AFTER + longest < MARGIN);
    }

    #[test]
    fn the_kernel_is_asked_only_now_and_then() {
        let (socket, _) = std::os::unix::net::UnixStream::pair().expect("sockets");
        // This one has no TLS, and cannot say: then what was counted here holds.
        let bounded = KernelTls::new(Cipher::Aes128);
        let all = (RECORDS_MAX - MARGIN) * RECORD_BYTES;
        assert!(!bounded.is_used_up(&socket, all / 2));
        assert_eq!(
            bounded.look_at.load(Ordering::Relaxed),
            (RECORDS_MAX - MARGIN) / 2 + 1 + LOOK_AFTER
        );
        assert!(bounded.is_used_up(&socket, all / 2));
        let unbounded = KernelTls::new(Cipher::Unbounded);
        assert!(!unbounded.is_used_up(&socket, u64::MAX / 2));
    }

    #[test]
    fn what_is_no_tls_has_nothing_to_say_and_its_end_is_a_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = TcpStream::connect(listener.local_addr().expect("an address")).expect("there");
        let (there, _) = listener.accept().expect("here");
        drop(there);
        while next_record(&here) != Ended::Broken(TlsFault::Cut) {
            std::thread::yield_now();
        }
        assert_eq!(fault_of(errno::EBADMSG), TlsFault::Changed("a record's tag is not its key's"));
    }
}
