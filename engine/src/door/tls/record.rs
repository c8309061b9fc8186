//! One record of TLS 1.3, sealed or opened where it stands: RFC 8446, 5.2 and 5.3.
//!
//! ```text
//! 23 3 3 length | payload, content type | tag
//!   header 5        sealed together        16     nonce: iv xor the record's number; aad: the header
//! ```

#![forbid(unsafe_code)]

use std::ops::Range;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

use crate::error::TlsFault;

/// Most payload of one record.
pub(super) const PAYLOAD_MAX: usize = 1 << 14;
/// Bytes before a record's payload.
pub(super) const HEADER: usize = 5;
const TAG: usize = 16;
/// A record with all the payload that it may have, as it is sealed here: without padding.
pub(super) const RECORD_MAX: usize = HEADER + PAYLOAD_MAX + 1 + TAG;
/// The longest sealed part that a peer may send: RFC 8446 gives it 256 bytes beyond the payload.
const SEALED_MAX: usize = PAYLOAD_MAX + 256;
/// The longest record that a peer may send.
pub(super) const PEER_RECORD_MAX: usize = HEADER + SEALED_MAX;

/// Content types.
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

/// Records after which a key is replaced: below the 2^24.5 that AES-GCM is good for, and as late as
/// that allows, because a peer whose kernel opens them cannot follow.
pub(super) const RECORDS_MAX: u64 = 1 << 24;

/// One direction's key.
pub(super) struct Key {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// The next record's number.
    number: u64,
}

impl Key {
    pub(super) fn new(
        (number, secrets): &(u64, ConnectionTrafficSecrets),
    ) -> Result<Key, TlsFault> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsFault::Local("a cipher that this engine does not have".into())),
        };
        // AEAD keys of 256 bits' room: the algorithm's length is what counts.
        let key = key.as_ref().get(..algorithm.key_len()).unwrap_or_default();
        let key = UnboundKey::new(algorithm, key)
            .map_err(|_| TlsFault::Local("a key of another length than its cipher's".into()))?;
        let iv = iv.as_ref().try_into();
        let iv = iv.map_err(|_| TlsFault::Local("an iv of another length".into()))?;
        Ok(Key { key: LessSafeKey::new(key), iv, number: *number })
    }

    /// Whether the key has to be replaced soon.
    pub(super) fn is_used_up(&self) -> bool {
        self.number >= RECORDS_MAX
    }

    fn nonce(&mut self) -> Result<Nonce, TlsFault> {
        // Far beyond what any key is used for; a nonce must never come twice.
        let next = self.number.checked_add(1).ok_or(TlsFault::KeyUsedUp)?;
        let mut nonce = self.iv;
        let number = self.number.to_be_bytes();
        nonce[NONCE_LEN - 8..].iter_mut().zip(number).for_each(|(iv, number)| *iv ^= number);
        self.number = next;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Seals the payload that stands after the header's room in `record`. How long the record is.
    pub(super) fn seal(
        &mut self,
        record: &mut [u8],
        payload: usize,
        content: u8,
    ) -> Result<usize, TlsFault> {
        let sealed = payload + 1 + TAG;
        let length = u16::try_from(sealed).ok().filter(|_| payload <= PAYLOAD_MAX);
        let (Some(length), Some(record)) = (length, record.get_mut(..HEADER + sealed)) else {
            return Err(TlsFault::Local("a record that is too long".into()));
        };
        let (header, rest) = record.split_at_mut(HEADER);
        header[..3].copy_from_slice(&[DATA, 3, 3]);
        header[3..].copy_from_slice(&length.to_be_bytes());
        let (inner, tag) = rest.split_at_mut(payload + 1);
        inner[payload] = content;
        let nonce = self.nonce()?;
        let made = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), inner);
        tag.copy_from_slice(made.map_err(|_| TlsFault::KeyUsedUp)?.as_ref());
        Ok(HEADER + sealed)
    }

    /// Opens a whole record where it stands: its content's type, and where in it the payload is.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), TlsFault> {
        let (header, sealed) = record.split_at_mut(HEADER);
        let nonce = self.nonce()?;
        let opened = self.key.open_in_place(nonce, Aad::from(&*header), sealed);
        let inner = opened.map_err(|_| TlsFault::Changed("a record's tag is not its key's"))?;
        // Padding is zeros after the type.
        let content = inner.iter().rposition(|byte| *byte != 0);
        let end = content.ok_or(TlsFault::Changed("a record has no content"))?;
        if end > PAYLOAD_MAX {
            return Err(TlsFault::Changed("a record is too long"));
        }
        Ok((inner[end], HEADER..HEADER + end))
    }
}

/// How long the record is that begins here, once that is there.
pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, TlsFault> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    // Before the handshake's end a peer may send change_cipher_spec; afterwards all is sealed.
    if header[..3] != [DATA, 3, 3] || length > SEALED_MAX || length <= TAG {
        return Err(TlsFault::Changed("not a record of this connection"));
    }
    Ok(Some(HEADER + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of a known answer; RFC 8448 has no application record of AES-128-GCM without its whole
    /// handshake, so the oracle is rustls itself, in `secured`'s tests.
    fn key() -> Key {
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("16 bytes");
        Key { key: LessSafeKey::new(key), iv: [9; NONCE_LEN], number: 3 }
    }

    fn sealed(payload: &[u8]) -> Vec<u8> {
        let mut record = vec![0; HEADER + payload.len() + 1 + TAG];
        record[HEADER..HEADER + payload.len()].copy_from_slice(payload);
        let length = key().seal(&mut record, payload.len(), DATA).expect("sealed");
        assert_eq!(
            (length, record_length(&record).expect("a record")),
            (record.len(), Some(length))
        );
        record
    }

    #[test]
    fn what_is_sealed_opens() {
        for length in [0, 1, 1000, PAYLOAD_MAX] {
            let payload = vec![0xa5; length];
            let mut record = sealed(&payload);
            let (content, range) = key().open(&mut record).expect("its own key");
            assert_eq!((content, &record[range]), (DATA, &payload[..]));
        }
    }

    #[test]
    fn any_changed_bit_and_any_other_place_is_seen() {
        let good = sealed(b"state");
        for bit in 0..good.len() * 8 {
            let mut record = good.clone();
            record[bit / 8] ^= 1 << (bit % 8);
            assert!(key().open(&mut record).is_err(), "bit {bit}");
        }
        let mut key = key();
        key.open(&mut good.clone()).expect("in its place");
        assert!(key.open(&mut good.clone()).is_err(), "replayed");
    }

    #[test]
    fn a_length_is_checked_before_anything_is_waited_for() {
        assert_eq!(record_length(&[DATA, 3, 3, 0]).expect("part of a header"), None);
        for header in [[DATA, 3, 3, 0, 16], [DATA, 3, 3, 0x41, 1], [22, 3, 3, 1, 0], *b"VFRY\x01"] {
            assert!(record_length(&header).is_err(), "{header:?}");
        }
    }
}
