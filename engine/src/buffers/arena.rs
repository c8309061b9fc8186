//! One anonymous mapping per session, cut into slots when it is made. After that no memory is
//! allocated for state: a full set of slots in use is back-pressure.
//!
//! ```text
//! slot i:  | unused, 4096 - 64 | header, 64 | body, chunk_bytes | next header, 64 | unused up to a page |
//!          ^ page              ^ frame      ^ page
//! ```
//!
//! The body starts on a page, so that the kernel copies into whole pages and registered buffers
//! pin no more than they carry; the header stands right before it, so that a raw frame is one
//! contiguous range and one send. Behind the longest body there is room for the header that follows it on
//! a stream: one receive brings both.
//!
//! A [`Slot`] is the only way to a slot's bytes, there is exactly one for each, and it cannot be
//! cloned: the borrow checker keeps two users of one slot apart, across threads too. Dropping a
//! slot gives nothing back to anybody; who takes slots out of the pool returns them.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::Share;
use crate::ids::SlotId;
use crate::limits::{ARENA_BYTES_MAX, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, HEADER_BYTES};

/// The unit of alignment of a body. Not asked of the kernel: a larger page is a multiple of it,
/// and nothing here depends on more.
const PAGE_BYTES: usize = 4096;

/// The mapping behind a session's slots. Held by each slot, so that it outlives them all.
pub struct Arena {
    base: NonNull<u8>,
    bytes: usize,
    chunk_bytes: usize,
    stride_bytes: usize,
    /// What others may not have for as long. Only its drop matters.
    _share: Option<Share>,
}

// SAFETY: needed because a raw pointer is not Send. The mapping belongs to this value alone and is
// not tied to a thread; unmapping it from another thread is sound.
unsafe impl Send for Arena {}

// SAFETY: needed because a raw pointer is not Sync. `&Arena` gives away addresses and sizes only;
// the bytes are reached through a `Slot`, of which there is one for each disjoint range.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps an arena of `slots` slots of `chunk_bytes` each, all zero, and returns it with its
    /// slots. Refuses sizes outside [`limits`](crate::limits) with `InvalidInput`.
    pub fn new(slots: usize, chunk_bytes: usize) -> io::Result<(Arc<Arena>, Vec<Slot>)> {
        Arena::with_share(slots, chunk_bytes, None)
    }

    /// The same out of a budget, whose share is given back when the last slot is dropped.
    pub fn with_share(
        slots: usize,
        chunk_bytes: usize,
        share: Option<Share>,
    ) -> io::Result<(Arc<Arena>, Vec<Slot>)> {
        if !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk_bytes) {
            return Err(invalid("chunk size outside the limits"));
        }
        let count = u32::try_from(slots).map_err(|_| invalid("too many slots"))?;
        let stride_bytes = PAGE_BYTES + (chunk_bytes + HEADER_BYTES).next_multiple_of(PAGE_BYTES);
        let bytes = match stride_bytes.checked_mul(slots) {
            Some(bytes) if (1..=ARENA_BYTES_MAX).contains(&bytes) => bytes,
            _ => return Err(invalid("arena size outside the limits")),
        };
        let base = map(bytes)?;
        let arena = Arc::new(Arena { base, bytes, chunk_bytes, stride_bytes, _share: share });
        let slots =
            (0..count).map(|index| Slot { arena: Arc::clone(&arena), id: SlotId(index) }).collect();
        Ok((arena, slots))
    }

    /// Size of each slot's body, in bytes.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.bytes / self.stride_bytes
    }

    /// Size of the mapping, in bytes: what registering it with a ring counts against
    /// RLIMIT_MEMLOCK.
    pub fn mapped_bytes(&self) -> usize {
        self.bytes
    }

    /// The mapping's first byte, for registration with a ring.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Whether `slot` is one of this arena's.
    pub(crate) fn owns(&self, slot: &Slot) -> bool {
        ptr::eq(self, &*slot.arena)
    }

    /// Where the header of slot `id` starts, as an offset from the base.
    fn frame_offset(&self, id: SlotId) -> usize {
        id.index() * self.stride_bytes + PAGE_BYTES - HEADER_BYTES
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let base: *mut c_void = self.base.as_ptr().cast();
        // SAFETY: needed because only munmap frees a mapping. `base` and `bytes` are what mmap
        // gave; every slot held an Arc of this arena, so no reference into it is left, and a ring
        // holds the slots of operations in flight, so the kernel does not write here any more.
        let unmapped = unsafe { munmap(base, self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of an arena: {unmapped:?}");
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("slots", &self.slots())
            .field("chunk_bytes", &self.chunk_bytes)
            .finish_non_exhaustive()
    }
}

/// One slot of an arena, owned: a frame's header and a chunk's bytes.
pub struct Slot {
    arena: Arc<Arena>,
    id: SlotId,
}

impl Slot {
    /// The slot's number in its arena.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// The arena that the slot belongs to.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// The frame's header.
    pub fn header(&self) -> &[u8; HEADER_BYTES] {
        match self.frame().first_chunk() {
            Some(header) => header,
            None => unreachable!("a frame is longer than its header"),
        }
    }

    /// The frame's header, to be written.
    pub fn header_mut(&mut self) -> &mut [u8; HEADER_BYTES] {
        match self.frame_mut().first_chunk_mut() {
            Some(header) => header,
            None => unreachable!("a frame is longer than its header"),
        }
    }

    /// The chunk's bytes: all `chunk_bytes` of them.
    pub fn body(&self) -> &[u8] {
        &self.frame()[HEADER_BYTES..]
    }

    /// The chunk's bytes, to be written.
    pub fn body_mut(&mut self) -> &mut [u8] {
        &mut self.frame_mut()[HEADER_BYTES..]
    }

    /// Header and body as one range.
    pub fn frame(&self) -> &[u8] {
        &self.whole()[..HEADER_BYTES + self.arena.chunk_bytes]
    }

    /// Header and body as one range, to be written.
    pub fn frame_mut(&mut self) -> &mut [u8] {
        let bytes = HEADER_BYTES + self.arena.chunk_bytes;
        &mut self.whole_mut()[..bytes]
    }

    /// Header, body, and the room for the next header as one range.
    pub fn whole(&self) -> &[u8] {
        let Range { start, end } = self.frame_range();
        // SAFETY: needed because a slot's bytes lie in a mapping that Rust knows nothing of.
        // `start` lies inside the mapping, as `frame_range` says.
        let first = unsafe { self.arena.base.as_ptr().add(start) };
        // SAFETY: needed as above. The range lies inside the mapping, which is initialised (the
        // kernel zeroes it) and lives as long as `self`; slots do not overlap, there is one `Slot`
        // for each, and `&self` rules out a `&mut` to it.
        unsafe { slice::from_raw_parts(first, end - start) }
    }

    /// Header, body, and the room for the next header as one range, to be written.
    pub fn whole_mut(&mut self) -> &mut [u8] {
        let Range { start, end } = self.frame_range();
        // SAFETY: needed because a slot's bytes lie in a mapping that Rust knows nothing of.
        // `start` lies inside the mapping, as `frame_range` says.
        let first = unsafe { self.arena.base.as_ptr().add(start) };
        // SAFETY: needed as above. The range lies inside the mapping, which is initialised (the
        // kernel zeroes it) and lives as long as `self`; slots do not overlap, there is one `Slot`
        // for each, and `&mut self` rules out any other reference to it.
        unsafe { slice::from_raw_parts_mut(first, end - start) }
    }

    /// The slot's place in the mapping. It lies inside: `id` is below the number of slots, and a
    /// stride is a page more than a chunk and a header, rounded up.
    fn frame_range(&self) -> Range<usize> {
        let start = self.arena.frame_offset(self.id);
        let end = start + HEADER_BYTES + self.arena.chunk_bytes + HEADER_BYTES;
        debug_assert!(end <= self.arena.bytes);
        start..end
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.id.0).finish()
    }
}

fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // Its pages are there from the start, and not found one by one while a VM stands still.
    let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
    // SAFETY: needed because the arena must be page-aligned memory of its own. A new private
    // mapping at an address of the kernel's choice overlaps nothing.
    let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, flags) }?;
    NonNull::new(base.cast()).ok_or_else(|| invalid("mmap gave the null page"))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_page_aligned_and_headers_stand_right_before_them() {
        for chunk_bytes in [CHUNK_BYTES_MIN, 5000, 256 << 10] {
            let (arena, slots) = Arena::new(3, chunk_bytes).expect("arena");
            assert_eq!(arena.slots(), 3);
            for slot in &slots {
                let body = slot.body().as_ptr() as usize;
                assert_eq!(body % PAGE_BYTES, 0);
                assert_eq!(slot.header().as_ptr() as usize + HEADER_BYTES, body);
                assert_eq!(slot.body().len(), chunk_bytes);
                assert_eq!(slot.frame().len(), HEADER_BYTES + chunk_bytes);
                assert!(arena.owns(slot));
            }
        }
    }

    #[test]
    fn slots_do_not_overlap() {
        let (_, mut slots) = Arena::new(4, 4097).expect("arena");
        for (slot, fill) in slots.iter_mut().zip(1u8..) {
            slot.frame_mut().fill(fill);
        }
        for (slot, fill) in slots.iter().zip(1u8..) {
            assert!(slot.frame().iter().all(|byte| *byte == fill));
            assert_eq!(slot.id().index() + 1, usize::from(fill));
        }
    }

    #[test]
    fn sizes_outside_the_limits_are_refused() {
        for (slots, chunk_bytes) in [
            (0, CHUNK_BYTES_MIN),
            (1, 0),
            (1, CHUNK_BYTES_MIN - 1),
            (1, CHUNK_BYTES_MAX + 1),
            (1, usize::MAX),
            (ARENA_BYTES_MAX / CHUNK_BYTES_MAX, CHUNK_BYTES_MAX),
            (usize::MAX, CHUNK_BYTES_MIN),
        ] {
            let refused = Arena::new(slots, chunk_bytes).expect_err("out of bounds");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{slots} x {chunk_bytes}");
        }
    }

    #[test]
    fn a_slot_outlives_the_arena_handle_and_the_thread_that_made_it() {
        let (arena, mut slots) = Arena::new(2, CHUNK_BYTES_MIN).expect("arena");
        drop(arena);
        let mut slot = slots.pop().expect("two slots");
        drop(slots);
        let slot = std::thread::spawn(move || {
            slot.body_mut().fill(7);
            slot
        })
        .join()
        .expect("thread");
        assert!(slot.body().iter().all(|byte| *byte == 7));
    }
}
