//! Reading a body field by field, with every step checked against what is left.

#![forbid(unsafe_code)]

use super::{Kind, WireFault};

/// What is left of a body.
pub(super) struct Reader<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(kind: Kind, body: &'a [u8]) -> Reader<'a> {
        Reader { kind, rest: body }
    }

    /// The next `len` bytes.
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireFault> {
        let missing = len.saturating_sub(self.rest.len());
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireFault::Truncated { kind: self.kind, missing })?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `len` bytes as text, where `len` itself came from the peer.
    pub(super) fn text(
        &mut self,
        field: &'static str,
        len: usize,
        max: usize,
    ) -> Result<&'a str, WireFault> {
        within(field, len, max)?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| WireFault::Text { field })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireFault> {
        let missing = N.saturating_sub(self.rest.len());
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireFault::Truncated { kind: self.kind, missing })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireFault> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireFault> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireFault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireFault> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, WireFault> {
        self.array().map(u128::from_le_bytes)
    }

    /// `found`, which the reader has just given, is reserved.
    pub(super) fn reserved(&self, found: impl Into<u64>) -> Result<(), WireFault> {
        match found.into() {
            0 => Ok(()),
            found => Err(WireFault::Reserved { kind: self.kind, found }),
        }
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), WireFault> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(WireFault::Trailing { kind: self.kind, extra }),
        }
    }
}

/// A variable part against its limit, both in bytes.
pub(super) fn within(field: &'static str, found: usize, max: usize) -> Result<(), WireFault> {
    if found > max { Err(WireFault::TooLong { field, found, max }) } else { Ok(()) }
}
