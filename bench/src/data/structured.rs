//! Bytes that look like the state of a network or accelerator device: mostly empty pages, rings of
//! descriptors, blocks of counters, sparse tables (flow steering, address translation), and some
//! pages of keys and firmware that no compressor shrinks.

use fastrand::Rng;

use super::PAGE_BYTES;

/// Makes a template; the same seed makes the same bytes.
pub(super) fn template(seed: u64, bytes: usize) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let mut template = vec![0; bytes];
    let mut pages = template.chunks_mut(PAGE_BYTES);
    loop {
        // Objects of a device span pages: a kind comes in runs.
        let (run_max, write): (usize, fn(&mut Rng, &mut [u8])) = match rng.u32(0..100) {
            0..34 => (16, |_, _| {}),
            34..66 => (16, descriptors),
            66..78 => (8, counters),
            78..94 => (8, sparse),
            _ => (8, random),
        };
        for _ in 0..rng.usize(1..=run_max) {
            match pages.next() {
                Some(page) => write(&mut rng, page),
                None => return template,
            }
        }
    }
}

/// A descriptor ring: address, length, flags, index.
fn descriptors(rng: &mut Rng, page: &mut [u8]) {
    let base = rng.u64(0..1 << 28) << 12;
    let first = rng.u16(..);
    for (index, descriptor) in page.chunks_exact_mut(16).enumerate() {
        let used = rng.u32(0..8) == 0;
        let length: u32 = if used { rng.u32(60..1515) } else { 2048 };
        let flags: u16 = if used { 0x8003 } else { 0x0002 };
        descriptor[..8].copy_from_slice(&(base + index as u64 * 2048).to_le_bytes());
        descriptor[8..12].copy_from_slice(&length.to_le_bytes());
        descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
        descriptor[14..].copy_from_slice(&first.wrapping_add(index as u16).to_le_bytes());
    }
}

/// 64-bit counters: most small, some large.
fn counters(rng: &mut Rng, page: &mut [u8]) {
    for counter in page.chunks_exact_mut(8) {
        let value = match rng.u32(0..8) {
            0..4 => 0,
            4..7 => rng.u64(0..1 << 16),
            _ => rng.u64(0..1 << 40),
        };
        counter.copy_from_slice(&value.to_le_bytes());
    }
}

/// A table of 32-byte entries of which one in ten is in use.
fn sparse(rng: &mut Rng, page: &mut [u8]) {
    for entry in page.chunks_exact_mut(32) {
        if rng.u32(0..10) == 0 {
            rng.fill(&mut entry[..16]);
            entry[31] = 0x80;
        }
    }
}

/// Keys, firmware, packet data.
fn random(rng: &mut Rng, page: &mut [u8]) {
    rng.fill(page);
}
