//! What parsing hostile bytes allocates, counted: nothing for a header, and for a body no more
//! than its own length and a sentence.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::wire::{WireLimits, chunk_hash, decode, decode_header};

thread_local! {
    /// Bytes that this thread has asked for; threads are counted apart, as tests run side by side.
    static ASKED_BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing,
// because the cell is initialised at compile time and has no destructor.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED_BYTES.with(|asked| asked.set(asked.get() + layout.size()));
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's pointer, which came from the call above, and its layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn asked_bytes(work: impl FnOnce()) -> usize {
    let before = ASKED_BYTES.with(Cell::get);
    work();
    ASKED_BYTES.with(Cell::get) - before
}

fn seal(bytes: &mut [u8; HEADER_BYTES]) {
    let hash = chunk_hash(&bytes[..60]) as u32;
    bytes[60..].copy_from_slice(&hash.to_le_bytes());
}

fn header(kind: u16, body_bytes: u32, body: &[u8]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(b"VFRY");
    bytes[4] = 1;
    bytes[6..8].copy_from_slice(&kind.to_le_bytes());
    bytes[8..12].copy_from_slice(&body_bytes.to_le_bytes());
    bytes[40..48].copy_from_slice(&chunk_hash(body).to_le_bytes());
    seal(&mut bytes);
    bytes
}

#[test]
fn wire_the_counter_counts() {
    let asked = asked_bytes(|| drop(std::hint::black_box(vec![0u8; 12_345])));
    assert!(asked >= 12_345);
}

#[test]
fn wire_a_header_allocates_nothing_whatever_it_announces() {
    for kind in (0..=20).chain([0x8000, 0x8123, u16::MAX]) {
        for body_bytes in [0, 1, 24, 40, 1 << 16, 1 << 22, u32::MAX] {
            let bytes = header(kind, body_bytes, &[]);
            let asked = asked_bytes(|| {
                let _ = std::hint::black_box(decode_header(&bytes, &WireLimits::MAX));
            });
            assert_eq!(asked, 0, "kind {kind}, {body_bytes} bytes announced");
        }
    }
}

#[test]
fn wire_a_body_allocates_no_more_than_it_is_long() {
    let mut bodies = 0;
    // All lengths inside the bodies are the largest that their fields can say.
    for kind in 1..=17 {
        for len in [0, 4, 8, 12, 16, 24, 32, 40, 100, 1036, 32_768] {
            for fill in [0x00, 0x01, 0x10, 0x7f, 0xff] {
                let body = vec![fill; len];
                let bytes = header(kind, len as u32, &body);
                let Ok(header) = decode_header(&bytes, &WireLimits::MAX) else { continue };
                bodies += 1;
                let asked = asked_bytes(|| {
                    let _ = std::hint::black_box(decode(&header, &body));
                });
                // A sentence about a newer peer, grown by doubling.
                let sentence = 256 + 2 * len;
                assert!(asked <= sentence, "kind {kind}: {asked} bytes for a body of {len}");
            }
        }
    }
    // Headers that announce another length than their kind allows were refused before.
    assert!(bodies > 100, "only {bodies} bodies were parsed");
}
