//! What a door is made with: how streams are guarded, and what an acceptor's bounds are. And what ends
//! its waits.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use vfio_ferry::{Canceller, Credentials, DoorOptions, Protection, Reason, Tls, Trust};

use crate::failure::{Failure, guarded};
use crate::options::period;
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, *};
use crate::values::unknown;

/// How a session's streams are guarded on their way, and what a listener lets in. NULL in its place
/// has all defaults: streams stay on this host. Since version 5.
///
/// Made by `vferry_door_new`, freed by `vferry_door_free`. What it is given to copies it: it may be used
/// several times, changed and freed at any time.
pub struct vferry_door {
    _opaque: [u8; 0],
}

impl Handle for vferry_door {
    type Inner = Mutex<DoorOptions>;
    const WHAT: &'static str = "door";
}

/// What is in it, or the defaults.
pub(crate) fn copy(door: Option<&vferry_door>) -> Result<DoorOptions, Failure> {
    match door {
        Some(door) => {
            let options = raw::inner(Some(door))?.lock();
            Ok(options.unwrap_or_else(PoisonError::into_inner).clone())
        }
        None => Ok(DoorOptions::default()),
    }
}

fn set(
    door: Option<&mut vferry_door>,
    change: impl FnOnce(&mut DoorOptions) -> Result<(), Failure>,
) -> vferry_status {
    guarded(|| change(&mut raw::inner(door)?.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Makes a door with all defaults. On success `*door` is the caller's, to be freed by
/// `vferry_door_free`. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_door_new(
    door: Option<&mut MaybeUninit<*mut vferry_door>>,
) -> vferry_status {
    guarded(|| {
        raw::out(door, "door")?.write(raw::handle(Mutex::new(DoorOptions::default())));
        Ok(())
    })
}

/// Frees a door and sets the variable to NULL. Does nothing where it, or `door`, is NULL. Since
/// version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_door_free(door: Option<&mut *mut vferry_door>) {
    guarded(|| {
        drop(raw::take(door));
        Ok(())
    });
}

/// Whether streams may leave this host in plaintext. False by default: an address that is not of this
/// host is VFERRY_ERR_PLAINTEXT. True says that the path is guarded otherwise, by a tunnel or a network
/// of its own: whoever is on it can read the guest's state, change it, or leave two hosts with the same
/// device running. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_door_set_plaintext(
    door: Option<&mut vferry_door>,
    plaintext: bool,
) -> vferry_status {
    set(door, |door| {
        door.protection = if plaintext { Protection::Plaintext } else { Protection::Loopback };
        Ok(())
    })
}

/// What guards streams, for the side that `host` (`enum vferry_host`) is.
fn set_tls(
    door: Option<&mut vferry_door>,
    host: u32,
    make: impl FnOnce(bool) -> Result<Tls, Failure>,
) -> vferry_status {
    set(door, |door| {
        let is_source = match host {
            1 => true,
            2 => false,
            _ => return Err(unknown("host", host)),
        };
        door.protection = Protection::Tls(make(is_source)?);
        Ok(())
    })
}

/// Guards streams by TLS 1.3 with certificates on both sides, from a folder as QEMU's `tls-creds-x509`
/// has it: `ca-cert.pem`, and `client-cert.pem` with `client-key.pem` for a source (VFERRY_HOST_SOURCE),
/// `server-cert.pem` with `server-key.pem` for a target. The peer is whoever has a certificate of that
/// authority with `name` in it: a DNS name or an IP address. A target may give NULL: any name; a source
/// may not. VFERRY_ERR_CREDENTIALS where anything of that cannot be used. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_door_set_tls_folder(
    door: Option<&mut vferry_door>,
    host: u32,
    folder: *const c_char,
    name: *const c_char,
) -> vferry_status {
    set_tls(door, host, |is_source| {
        // SAFETY: the caller's string, as the header asks.
        let folder = unsafe { raw::text(folder, "folder") }?;
        // SAFETY: the caller's string, or NULL, as the header asks.
        let name = unsafe { raw::optional_text(name, "name") }?;
        Ok(match (is_source, name) {
            (true, None) => return Err(raw::null("name")),
            (true, Some(name)) => Tls::source_from_folder(folder, name)?,
            (false, name) => Tls::target_from_folder(folder, name)?,
        })
    })
}

/// Guards streams by TLS 1.3, as `vferry_door_set_tls_folder`, with a certificate and its key in PEM.
/// The peer is whoever has one of `count` keys: each is SHA-256 of a certificate's SubjectPublicKeyInfo,
/// 32 bytes, one after another at `keys`, which whoever starts both hosts carries from one to the other.
/// Names and dates then mean nothing. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_door_set_tls_keys(
    door: Option<&mut vferry_door>,
    host: u32,
    certificate: *const c_char,
    key: *const c_char,
    keys: *const u8,
    count: usize,
) -> vferry_status {
    set_tls(door, host, |is_source| {
        // SAFETY: the caller's string, as the header asks.
        let certificate = unsafe { raw::text(certificate, "certificate") }?;
        // SAFETY: the same.
        let key = unsafe { raw::text(key, "key") }?;
        // SAFETY: the caller's array, as the header asks.
        let keys = unsafe { raw::array(keys.cast::<[u8; 32]>(), count, "keys") }?;
        let credentials = Credentials {
            certificates: certificate.as_bytes().to_vec(),
            key: key.as_bytes().to_vec(),
        };
        let trust = Trust::Keys(keys.to_vec());
        Ok(match is_source {
            true => Tls::source(&credentials, &trust)?,
            false => Tls::target(&credentials, &trust)?,
        })
    })
}

/// Whether the kernel may seal and open the records of streams that TLS guards, where it can (a module
/// called `tls`): that spares a thread, two copies and 264 KiB a stream. True by default; where the kernel
/// cannot, or not this cipher, the library does it: `vferry_session_tls_in_kernel` says who did. The
/// kernel keeps a stream's first keys, which are good for 362 GiB in each direction (256 GiB from a peer
/// that does it by itself), and a stream that gets there breaks: false is for whoever moves that much over
/// one stream. VFERRY_ERR_EMPTY where the door has no TLS yet. Since version 6.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_door_set_tls_kernel(
    door: Option<&mut vferry_door>,
    kernel: bool,
) -> vferry_status {
    set(door, |door| {
        let Protection::Tls(tls) = &door.protection else {
            return Err(Failure::new(VFERRY_ERR_EMPTY, "the door has no TLS"));
        };
        door.protection = Protection::Tls(tls.clone().with_kernel(kernel));
        Ok(())
    })
}

/// Most connections that a listener holds at once while their sessions are not complete, and most of
/// one address (of IPv6: of one /64): as many fds. When one more comes, the one that has been silent
/// for longest goes, of the address that has the most. 1 to 4096; by default 256 and 128. A session
/// with more streams than one address may have is kept out. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_door_set_connections(
    door: Option<&mut vferry_door>,
    in_all_max: usize,
    per_address_max: usize,
) -> vferry_status {
    set(door, |door| {
        let max = vfio_ferry::limits::DOOR_CONNECTIONS_MAX;
        for count in [in_all_max, per_address_max] {
            if !(1..=max).contains(&count) {
                return Err(unknown("listener with connections:", count));
            }
        }
        (door.connections_max, door.per_address_max) = (in_all_max, per_address_max);
        Ok(())
    })
}

/// Most complete sessions that wait at a listener to be taken: 1 to 1024, by default 16. The source of
/// another one is told that there is no room. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_door_set_sessions_max(
    door: Option<&mut vferry_door>,
    sessions_max: usize,
) -> vferry_status {
    set(door, |door| {
        if !(1..=vfio_ferry::limits::DOOR_SESSIONS_MAX).contains(&sessions_max) {
            return Err(unknown("listener with sessions:", sessions_max));
        }
        door.sessions_max = sessions_max;
        Ok(())
    })
}

/// How long a connection may take for the first words of a source: 1 to 86400000 ms (a day), by
/// default 5000. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_door_set_greeting_limit_ms(
    door: Option<&mut vferry_door>,
    limit_ms: i64,
) -> vferry_status {
    set(door, |door| {
        door.greeting_limit = period(limit_ms, "a greeting limit")?;
        Ok(())
    })
}

/// How long the streams of one session may take, from the first one's words to the last one's: 1 to
/// 86400000 ms, by default 10000. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_door_set_gathering_limit_ms(
    door: Option<&mut vferry_door>,
    limit_ms: i64,
) -> vferry_status {
    set(door, |door| {
        door.gathering_limit = period(limit_ms, "a gathering limit")?;
        Ok(())
    })
}

/// The one session that a listener lets in: the 16 bytes that its source has given to
/// `vferry_options_set_session`. NULL, the default: any. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_door_set_session(
    door: Option<&mut vferry_door>,
    session: *const u8,
) -> vferry_status {
    set(door, |door| {
        // SAFETY: the caller's 16 bytes, or NULL, as the header asks.
        door.session = unsafe { raw::number(session) };
        Ok(())
    })
}

/// Why a connection did not become a stream. Since version 5.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_reason {
    /// In place of a reason: all of them.
    VFERRY_REASON_ANY = 0,
    /// It did not say a source's first words in time.
    VFERRY_REASON_SILENT = 1,
    /// It was closed before its session was complete, or while that waited to be taken.
    VFERRY_REASON_CLOSED = 2,
    /// It spoke something else.
    VFERRY_REASON_NOT_A_HELLO = 3,
    /// It asked for what no session can have.
    VFERRY_REASON_BAD_HELLO = 4,
    /// It did not fit the other streams of the session that it named.
    VFERRY_REASON_MISFIT = 5,
    /// The other streams of its session did not come in time.
    VFERRY_REASON_INCOMPLETE = 6,
    /// It had to make room for another one.
    VFERRY_REASON_CROWDED = 7,
    /// Its session is not the one that was expected.
    VFERRY_REASON_UNEXPECTED = 8,
    /// It was in plaintext and came from another host.
    VFERRY_REASON_UNPROTECTED = 9,
    /// As many sessions as may wait did, or the listener was freed.
    VFERRY_REASON_BUSY = 10,
    /// It is not who it has to be, or its certificate is not valid today (TLS).
    VFERRY_REASON_UNTRUSTED = 11,
    /// Its handshake failed, or it spoke something else (TLS).
    VFERRY_REASON_NO_HANDSHAKE = 12,
}

const TEXTS: [(Reason, &CStr); Reason::ALL.len()] = [
    (Reason::Silent, c"silent"),
    (Reason::Closed, c"closed"),
    (Reason::NotAHello, c"not_a_hello"),
    (Reason::BadHello, c"bad_hello"),
    (Reason::Misfit, c"misfit"),
    (Reason::Incomplete, c"incomplete"),
    (Reason::Crowded, c"crowded"),
    (Reason::Unexpected, c"unexpected"),
    (Reason::Unprotected, c"unprotected"),
    (Reason::Busy, c"busy"),
    (Reason::Untrusted, c"untrusted"),
    (Reason::NoHandshake, c"no_handshake"),
];

/// The engine's reason of a number; none for any.
pub(crate) fn reason(number: u32) -> Result<Option<Reason>, Failure> {
    match number.checked_sub(1) {
        None => Ok(None),
        Some(index) => match Reason::ALL.get(index as usize) {
            Some(reason) => Ok(Some(*reason)),
            None => Err(unknown("reason", number)),
        },
    }
}

/// A reason's name, as it is in logs. Static, never NULL; for numbers of later versions too. Since
/// version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_reason_text(reason: u32) -> *const c_char {
    match self::reason(reason) {
        Ok(None) => c"any",
        Ok(Some(reason)) => TEXTS[reason as usize].1,
        Err(_) => c"unknown",
    }
    .as_ptr()
}

/// Ends waits from another thread. Since version 5.
///
/// Made by `vferry_canceller_new`, freed by `vferry_canceller_free` when no call has it any more.
pub struct vferry_canceller {
    _opaque: [u8; 0],
}

impl Handle for vferry_canceller {
    type Inner = Canceller;
    const WHAT: &'static str = "canceller";
}

/// What was given, if anything was.
pub(crate) fn canceller(cancel: Option<&vferry_canceller>) -> Result<Option<Canceller>, Failure> {
    cancel.map(|cancel| raw::inner(Some(cancel)).cloned()).transpose()
}

/// Makes a canceller. On success `*canceller` is the caller's, to be freed by `vferry_canceller_free`.
/// Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_canceller_new(
    canceller: Option<&mut MaybeUninit<*mut vferry_canceller>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(canceller, "canceller")?;
        let made = Canceller::new()
            .map_err(|error| Failure::system(VFERRY_ERR_SYSTEM, "an eventfd", error))?;
        place.write(raw::handle(made));
        Ok(())
    })
}

/// Ends the waits that the canceller was given to, and those that it will be given to: they return
/// VFERRY_ERR_CANCELLED. Returns at once; from any thread. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_canceller_cancel(canceller: Option<&vferry_canceller>) -> vferry_status {
    guarded(|| {
        raw::inner(canceller)?.cancel();
        Ok(())
    })
}

/// Frees a canceller and sets the variable to NULL. Does nothing where it, or `canceller`, is NULL.
/// Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_canceller_free(canceller: Option<&mut *mut vferry_canceller>) {
    guarded(|| {
        drop(raw::take(canceller));
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_the_engines_in_its_order() {
        for (index, (known, text)) in TEXTS.into_iter().enumerate() {
            assert_eq!(Reason::ALL[index], known);
            assert_eq!(text.to_str(), Ok(known.name()));
            assert_eq!(reason(index as u32 + 1).ok(), Some(Some(known)));
        }
        assert_eq!(vferry_reason::VFERRY_REASON_NO_HANDSHAKE as usize, Reason::ALL.len());
        assert_eq!(reason(0).ok(), Some(None));
        assert!(reason(Reason::ALL.len() as u32 + 1).is_err());
    }
}
