//! The codec: one chunk in, one independent zstd frame out, and back.
//!
//! Independent frames, so that workers need no order and share nothing; the content size in each
//! frame's header, no checksum (the wire has one over what travels, and the state's digest is over
//! the raw bytes), no dictionary. One [`Codec`] per worker: its contexts are allocated once, on
//! first use, and reused for every chunk.
//!
//! What a peer sent is not trusted to size anything. A body must be exactly one zstd frame whose
//! content size is the length that the (checked) frame header of the wire gave, and it is decoded
//! in one pass straight into a buffer of that length, which is its window too: the decoder
//! allocates nothing by the peer's numbers.

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, ErrorCode, ResetDirective, find_frame_compressed_size,
    get_error_name, get_frame_content_size,
};

use super::policy::{LEVELS, Sample};
use crate::limits;

/// The probe's samples: how many, and how long each is, in bytes. 10 us on a 256 KiB chunk, where
/// compressing it in full to find that it does not shrink takes 37 us.
const SAMPLES: usize = 3;
const SAMPLE_BYTES: usize = 4 << 10;

/// How long a compressed chunk may be and still count as smaller. The last sixteenth is not worth
/// the other side's decompression.
const fn worth_at_most(raw_bytes: usize) -> usize {
    raw_bytes - raw_bytes.div_ceil(16)
}

/// Why a chunk could not be compressed or a body not decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// zstd could not allocate its context.
    #[error("out of memory for a zstd context")]
    Memory,
    /// zstd refused its input or its parameters.
    #[error("zstd: {0}")]
    Zstd(&'static str),
    /// The body is not one zstd frame that ends where the body ends.
    #[error("the body is not exactly one zstd frame")]
    NotOneFrame,
    /// The frame holds another number of bytes than was announced, or does not say how many.
    #[error("the zstd frame does not hold the {expected} bytes that were announced")]
    Size {
        /// Bytes announced.
        expected: usize,
    },
}

/// A worker's compressor and decompressor.
pub struct Codec {
    compressor: CCtx<'static>,
    decompressor: DCtx<'static>,
    /// The level that the compressor is set to.
    level: Option<i32>,
    /// The probe's samples side by side, and where they are compressed into.
    samples: Box<[u8; SAMPLES * SAMPLE_BYTES]>,
    scratch: Box<[u8; SAMPLES * SAMPLE_BYTES]>,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Codec {
    /// Allocates the contexts.
    pub fn new() -> Result<Codec, CodecError> {
        let mut compressor = CCtx::try_create().ok_or(CodecError::Memory)?;
        let mut decompressor = DCtx::try_create().ok_or(CodecError::Memory)?;
        for parameter in [
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            compressor.set_parameter(parameter).map_err(named)?;
        }
        // A second line: one-pass decoding has no window of its own, and anything that streams
        // with this context is held to a chunk's.
        let window_log = limits::CHUNK_BYTES_MAX.ilog2();
        decompressor.set_parameter(DParameter::WindowLogMax(window_log)).map_err(named)?;
        Ok(Codec {
            compressor,
            decompressor,
            level: None,
            samples: Box::new([0; SAMPLES * SAMPLE_BYTES]),
            scratch: Box::new([0; SAMPLES * SAMPLE_BYTES]),
        })
    }

    /// Compresses a chunk at a zstd level (negative ones are the fast ones) into `into`, and
    /// returns the length there. None if it did not get at least a sixteenth smaller, or did not
    /// fit: then `into` holds nothing of use and the chunk goes raw. `into` needs no more than
    /// the chunk's own length.
    pub fn compress(
        &mut self,
        chunk: &[u8],
        into: &mut [u8],
        level: i32,
    ) -> Result<Option<usize>, CodecError> {
        self.set_level(level)?;
        compress_at_most(&mut self.compressor, chunk, into, worth_at_most(chunk.len()))
    }

    /// Decompresses a body into `into`, which must be exactly as long as the chunk was. On an
    /// error `into` may hold part of something.
    pub fn decompress(&mut self, body: &[u8], into: &mut [u8]) -> Result<(), CodecError> {
        // Also refuses what ZSTD_decompressDCtx would take besides: skippable frames, and several
        // frames in a row.
        if find_frame_compressed_size(body) != Ok(body.len()) {
            return Err(CodecError::NotOneFrame);
        }
        let size = CodecError::Size { expected: into.len() };
        match get_frame_content_size(body) {
            Ok(Some(bytes)) if bytes == into.len() as u64 => {}
            _ => return Err(size),
        }
        match self.decompressor.decompress(into, body) {
            Ok(bytes) if bytes == into.len() => Ok(()),
            Ok(_) => Err(size),
            Err(code) => {
                // The context is usable again whatever the failed frame left in it.
                self.decompressor.reset(ResetDirective::SessionOnly).map_err(named)?;
                Err(named(code))
            }
        }
    }

    /// Whether a chunk looks worth compressing: three samples of 4 KiB, from its first, middle and
    /// last third, at level 1. A chunk no longer than the samples is tried in full. It may be
    /// wrong either way; a chunk is never wrong, only larger or slower than it could be.
    pub fn probe(&mut self, chunk: &[u8]) -> bool {
        let length = self.take_samples(chunk);
        if self.set_level(1).is_err() {
            return false;
        }
        let at_most = worth_at_most(length);
        let samples = &self.samples[..length];
        matches!(
            compress_at_most(&mut self.compressor, samples, &mut self.scratch[..], at_most),
            Ok(Some(_))
        )
    }

    /// What the probe's samples of a chunk that shrinks come to at each of [`LEVELS`], and what that
    /// takes by this clock, in nanoseconds. None if zstd fails.
    pub fn sample(
        &mut self,
        chunk: &[u8],
        clock_ns: fn() -> u64,
    ) -> Option<[Sample; LEVELS.len()]> {
        let length = self.take_samples(chunk);
        let mut samples = [Sample::default(); LEVELS.len()];
        for (level, sample) in LEVELS.into_iter().zip(&mut samples) {
            // A context that changes its level is set up anew, which is not part of a chunk's time.
            self.set_level(level).ok()?;
            let mut cpu_ns = 0;
            for _ in 0..2 {
                let start_ns = clock_ns();
                let samples = &self.samples[..length];
                let made =
                    compress_at_most(&mut self.compressor, samples, &mut self.scratch[..], length);
                cpu_ns = clock_ns().saturating_sub(start_ns);
                sample.wire_bytes = made.ok()?.unwrap_or(length) as u32;
            }
            (sample.raw_bytes, sample.cpu_ns) = (length as u32, cpu_ns);
        }
        Some(samples)
    }

    /// Puts the samples of a chunk side by side; how many bytes they are.
    fn take_samples(&mut self, chunk: &[u8]) -> usize {
        let total = SAMPLES * SAMPLE_BYTES;
        if chunk.len() <= total {
            self.samples[..chunk.len()].copy_from_slice(chunk);
            chunk.len()
        } else {
            let third = chunk.len() / SAMPLES;
            for (index, sample) in
                self.samples.as_chunks_mut::<SAMPLE_BYTES>().0.iter_mut().enumerate()
            {
                let start = index * third + (third - SAMPLE_BYTES) / 2;
                sample.copy_from_slice(&chunk[start..start + SAMPLE_BYTES]);
            }
            total
        }
    }

    fn set_level(&mut self, level: i32) -> Result<(), CodecError> {
        if self.level != Some(level) {
            self.level = None;
            self.compressor.set_parameter(CParameter::CompressionLevel(level)).map_err(named)?;
            self.level = Some(level);
        }
        Ok(())
    }
}

/// Whether every byte is zero: 78 GB/s from L2, and a chunk that is not zero early is left early.
pub fn is_zero(bytes: &[u8]) -> bool {
    // A block's OR has no branch inside, so that it becomes vector instructions.
    let (blocks, rest) = bytes.as_chunks::<256>();
    blocks.iter().all(|block| {
        let (words, _) = block.as_chunks::<8>();
        words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0
    }) && rest.iter().all(|&byte| byte == 0)
}

/// One frame of `chunk` in `into`, of at most `bytes_max` bytes, or none.
fn compress_at_most(
    compressor: &mut CCtx<'static>,
    chunk: &[u8],
    into: &mut [u8],
    bytes_max: usize,
) -> Result<Option<usize>, CodecError> {
    let room = bytes_max.min(into.len());
    match compressor.compress2(&mut into[..room], chunk) {
        Ok(length) => Ok(Some(length)),
        Err(code) => {
            compressor.reset(ResetDirective::SessionOnly).map_err(named)?;
            if code.wrapping_neg() == DESTINATION_TOO_SMALL { Ok(None) } else { Err(named(code)) }
        }
    }
}

/// ZSTD_error_dstSize_tooSmall of zstd_errors.h, stable there; zstd's codes are negated into a
/// size_t.
const DESTINATION_TOO_SMALL: usize = 70;

fn named(code: ErrorCode) -> CodecError {
    CodecError::Zstd(get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// xorshift64: incompressible, and the same in every run.
    fn noise(length: usize, mut seed: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.extend_from_slice(&seed.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Compressible: records that differ in a few bytes.
    fn records(length: usize) -> Vec<u8> {
        (0..length / 16 + 1)
            .flat_map(|i| (i as u64 * 7919).to_le_bytes().into_iter().chain(*b"register"))
            .take(length)
            .collect()
    }

    fn codec() -> Codec {
        Codec::new().expect("memory for a codec")
    }

    #[test]
    fn chunks_survive_the_round_trip_at_every_level() {
        let mut codec = codec();
        for level in [-5, 1, 3, 6] {
            for length in [64, 4 << 10, (256 << 10) - 3, 256 << 10, 4 << 20] {
                let chunk = records(length);
                let mut body = vec![0; length];
                let sent = codec.compress(&chunk, &mut body, level).expect("compressed");
                let Some(sent) = sent else {
                    assert_eq!(length, 64, "records shrink");
                    continue;
                };
                assert!(sent <= length - length / 16);
                let mut back = vec![0xaa; length];
                codec.decompress(&body[..sent], &mut back).expect("decompressed");
                assert!(back == chunk, "level {level}, {length} bytes");
            }
        }
    }

    #[test]
    fn noise_is_none_and_the_codec_goes_on() {
        let mut codec = codec();
        let chunk = noise(256 << 10, 1);
        let mut body = vec![0; chunk.len()];
        assert_eq!(codec.compress(&chunk, &mut body, 1), Ok(None));
        assert_eq!(codec.compress(&[], &mut body, 1), Ok(None));
        let chunk = records(256 << 10);
        let sent = codec.compress(&chunk, &mut body, 1).expect("ok").expect("records shrink");
        // A buffer that is too small is no error either.
        assert_eq!(codec.compress(&chunk, &mut body[..sent - 1], 1), Ok(None));
        assert_eq!(codec.compress(&chunk, &mut body, 1), Ok(Some(sent)));
    }

    #[test]
    fn just_not_small_enough_is_none() {
        // 16 KiB of noise and zeros so that the frame comes close to 15/16 from both sides.
        let mut codec = codec();
        let mut body = vec![0; 16 << 10];
        for zeros in [900, 1500] {
            let mut chunk = noise(16 << 10, 3);
            chunk[..zeros].fill(0);
            let sent = codec.compress(&chunk, &mut body, 1).expect("ok");
            assert_eq!(sent.is_some(), zeros == 1500, "{zeros} zeros gave {sent:?}");
        }
    }

    #[test]
    fn probe_tells_noise_from_records() {
        let mut codec = codec();
        for length in [100, 4096, 12 << 10, 100_001, 256 << 10, 4 << 20] {
            assert!(!codec.probe(&noise(length, 9)), "{length} bytes of noise");
            assert!(codec.probe(&records(length.max(200))), "{length} bytes of records");
        }
        assert!(!codec.probe(&[]));
        let mut mixed = noise(256 << 10, 5);
        mixed[100 << 10..156 << 10].fill(7);
        assert!(codec.probe(&mixed), "the middle sample shrinks");
    }

    #[test]
    fn samples_tell_the_levels_apart() {
        let mut codec = codec();
        let mut body = vec![0; 256 << 10];
        let made = codec.compress(&records(256 << 10), &mut body, 1).expect("ok");
        for length in [100, 12 << 10, 256 << 10] {
            let samples = codec.sample(&records(length), || 7).expect("zstd works");
            assert!(samples.iter().all(|sample| sample.raw_bytes as usize == length.min(12 << 10)));
            assert!(samples.iter().all(|sample| sample.wire_bytes <= sample.raw_bytes));
        }
        let samples = codec.sample(&records(256 << 10), || 7).expect("zstd works");
        assert!(samples[0].wire_bytes > samples[3].wire_bytes, "{samples:?}");
        // The next chunk is as if nothing had been.
        assert_eq!(codec.compress(&records(256 << 10), &mut body, 1).expect("ok"), made);
    }

    #[test]
    fn a_body_must_be_one_frame_of_the_announced_size() {
        let mut codec = codec();
        let chunk = records(8 << 10);
        let mut body = vec![0; chunk.len()];
        let sent = codec.compress(&chunk, &mut body, 1).expect("ok").expect("shrinks");
        let body = &body[..sent];
        let mut back = vec![0; chunk.len()];
        let mut refuse = |body: &[u8], length: usize| {
            codec.decompress(body, &mut back[..length]).expect_err("refused")
        };
        let size = |expected| CodecError::Size { expected };
        assert_eq!(refuse(body, chunk.len() - 1), size(chunk.len() - 1));
        assert_eq!(refuse(body, 0), size(0));
        assert_eq!(refuse(&body[..sent - 1], chunk.len()), CodecError::NotOneFrame);
        assert_eq!(refuse(&[], chunk.len()), CodecError::NotOneFrame);
        assert_eq!(refuse(&[body, &[0]].concat(), chunk.len()), CodecError::NotOneFrame);
        assert_eq!(refuse(&[body, body].concat(), chunk.len()), CodecError::NotOneFrame);
        // RFC 8878, 3.1.2: a skippable frame of 4 bytes.
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        assert!(matches!(refuse(&skippable, 4), CodecError::Size { .. }));
        assert_eq!(refuse(&[&skippable[..], body].concat(), chunk.len()), CodecError::NotOneFrame);
        // A window of 2 GiB in a frame without a content size (RFC 8878, 3.1.1.1).
        let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        assert_eq!(refuse(&window, chunk.len()), size(chunk.len()));
        codec.decompress(body, &mut back).expect("usable afterwards");
        assert_eq!(back, chunk);
    }

    #[test]
    fn is_zero_looks_at_every_byte() {
        for length in [0, 1, 7, 255, 256, 257, 4096, 5000] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in 0..length {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "byte {at} of {length}");
                bytes[at] = 0;
            }
        }
    }

    proptest! {
        /// Whatever the bytes, a chunk comes back as it was, or is left raw.
        #[test]
        fn any_chunk_survives(
            chunk in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..9000),
            level in -7..7,
        ) {
            let mut codec = codec();
            let mut body = vec![0; chunk.len()];
            if let Some(sent) = codec.compress(&chunk, &mut body, level).expect("ok") {
                let mut back = vec![1; chunk.len()];
                codec.decompress(&body[..sent], &mut back).expect("own frame");
                prop_assert_eq!(back, chunk);
            }
        }

        /// Damaged and invented bodies give errors or bytes, never a panic, and never harm the
        /// codec for the next one.
        #[test]
        fn hostile_bodies_are_survived(
            mut body in prop::collection::vec(any::<u8>(), 0..400),
            magic in any::<bool>(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut codec = codec();
            let mut back = vec![0; 5000];
            if magic && body.len() >= 4 {
                body[..4].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
            }
            let _ = codec.decompress(&body, &mut back);
            let chunk = records(5000);
            let mut good = vec![0; chunk.len()];
            let sent = codec.compress(&chunk, &mut good, 1).expect("ok").expect("shrinks");
            let mut bad = good[..sent].to_vec();
            for (at, with) in flips {
                let at = at.index(bad.len());
                bad[at] ^= with;
            }
            let _ = codec.decompress(&bad, &mut back);
            codec.decompress(&good[..sent], &mut back).expect("still works");
            prop_assert_eq!(&back, &chunk);
        }
    }
}
