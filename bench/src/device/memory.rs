//! A state in memory that is there before anybody asks for it: a device that costs next to nothing.
//!
//! The data fd is a memory file, read and written by plain file operations. On the source it is filled
//! beforehand; on the target it has its pages beforehand, with bytes in them that no state has, so that
//! what was not written does not look like zeros that were. Neither end looks at a byte while a migration
//! runs: digests are taken over the files afterwards.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::SeekFrom;
use xxhash_rust::xxh3::Xxh3;

use super::plan::Plan;
use super::stream::{PIECE_BYTES, memory_file};
use crate::data::Origin;

/// What a target's file holds where nothing was written.
const UNWRITTEN: u8 = 0xa5;

/// A source's file, with all of the state that is known before it is saved.
pub(super) fn filled(plan: &Plan, origin: Origin) -> io::Result<OwnedFd> {
    write(plan.total_bytes(), |at, piece| plan.content.fill(origin, at, piece))
}

/// A target's file.
pub(super) fn empty(plan: &Plan) -> io::Result<OwnedFd> {
    write(plan.expects_bytes, |_, piece| {
        piece.fill(UNWRITTEN);
        Ok(())
    })
}

fn write(bytes: u64, fill: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> io::Result<OwnedFd> {
    let file = memory_file()?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        let length = buffer.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
        let piece = &mut buffer[..length];
        fill(at, piece)?;
        at += rustix::io::pwrite(&file, piece, at)? as u64;
    }
    Ok(file)
}

/// How far the user of the fd is, by the kernel's count.
pub(super) fn position(file: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, SeekFrom::Current(0))?)
}

/// XXH3-128 over the first bytes; none if the file does not have as many.
pub(super) fn digest(file: impl AsFd, bytes: u64) -> Option<u128> {
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        let length = buffer.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
        match rustix::io::pread(&file, &mut buffer[..length], at) {
            Ok(0) | Err(_) => return None,
            Ok(count) => {
                hash.update(&buffer[..count]);
                at += count as u64;
            }
        }
    }
    Some(hash.digest128())
}

/// The first bytes.
pub(super) fn bytes(file: impl AsFd, count: u64) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(count).unwrap_or(0)];
    let read = rustix::io::pread(file, &mut all, 0).unwrap_or(0);
    all.truncate(read);
    all
}
