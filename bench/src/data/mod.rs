//! The content of a test device's state: deterministic, addressable at any offset, and cheap.
//!
//! A template of a few MiB is made once and repeated over the state. So that bytes in the wrong
//! place never look right, every page that is not zero is stamped with its number, its device and
//! the device's generation (which a reset raises). Memory does not grow with the state.

mod structured;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use crate::spec::DataKind;

/// The unit of content, and of a stamp.
pub const PAGE_BYTES: usize = 4096;
/// Size of a template. Beyond any compressor's window that the engine uses.
const TEMPLATE_BYTES: usize = 8 << 20;
/// Files up to this size are kept in memory.
const FILE_IN_MEMORY_BYTES_MAX: u64 = 8 << 20;
/// The seed of every template: two processes make the same one.
const SEED: u64 = 0x5646_494f_4652_5259;

/// The size of a stamp at the start of a page.
const STAMP_BYTES: usize = 8;

/// Which device, and which of its lives, a stream of state belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The device's number.
    pub device: u8,
    /// How often the device was reset.
    pub generation: u8,
}

/// Where a state's bytes come from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Content(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// All zero.
    Zero,
    /// A template whose pages are stamped.
    Template(Arc<Template>),
    /// A short file, repeated, as it is.
    Bytes(Arc<[u8]>),
    /// A long file, read where it is needed, as it is.
    File(Arc<File>, u64),
}

/// A template and which of its pages stay zero.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    stamped: Vec<bool>,
}

impl Content {
    /// Makes the content, or says why the file cannot be read.
    pub(crate) fn new(kind: &DataKind) -> io::Result<Content> {
        Ok(match kind {
            DataKind::Zero => Content::zero(),
            DataKind::Structured => Content::structured(),
            DataKind::Random => Content::random(),
            DataKind::Elf => Content::file(File::open("/proc/self/exe")?)?,
            DataKind::File(path) => Content::file(File::open(path)?)?,
        })
    }

    /// All zero.
    pub fn zero() -> Content {
        Content(Kind::Zero)
    }

    /// What device state looks like: zero pages, tables, counters, some noise. Shrinks to a fifth.
    pub fn structured() -> Content {
        static TEMPLATE: OnceLock<Content> = OnceLock::new();
        let make = || Content::template(structured::template(SEED, TEMPLATE_BYTES));
        TEMPLATE.get_or_init(make).clone()
    }

    /// Nothing to compress.
    pub fn random() -> Content {
        static TEMPLATE: OnceLock<Content> = OnceLock::new();
        TEMPLATE.get_or_init(|| Content::template(random_template())).clone()
    }

    fn template(bytes: Vec<u8>) -> Content {
        let stamped =
            bytes.chunks(PAGE_BYTES).map(|page| page.iter().any(|&byte| byte != 0)).collect();
        Content(Kind::Template(Arc::new(Template { bytes, stamped })))
    }

    fn file(file: File) -> io::Result<Content> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        match metadata.len() {
            0 => Err(io::Error::other("the file is empty")),
            length @ 1..=FILE_IN_MEMORY_BYTES_MAX => {
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, 0)?;
                // A very short file is repeated here, not at every fill.
                let times = (PAGE_BYTES * 16).div_ceil(bytes.len());
                Ok(Content(Kind::Bytes(bytes.repeat(times).into())))
            }
            length => Ok(Content(Kind::File(Arc::new(file), length))),
        }
    }

    /// Fills `buffer` with the state's bytes from `offset` on.
    pub fn fill(&self, origin: Origin, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = offset + origin.shift();
        match &self.0 {
            Kind::Zero => buffer.fill(0),
            Kind::Bytes(bytes) => repeat(bytes, start, buffer),
            Kind::Template(template) => {
                repeat(&template.bytes, start, buffer);
                template.stamp(origin, offset, buffer);
            }
            Kind::File(file, length) => {
                let mut done = 0;
                while done < buffer.len() {
                    let from = (start + done as u64) % length;
                    let piece = (buffer.len() - done).min((length - from) as usize);
                    file.read_exact_at(&mut buffer[done..done + piece], from)?;
                    done += piece;
                }
            }
        }
        Ok(())
    }
}

impl Origin {
    /// How far into the template this stream starts: whole pages, different for each origin.
    fn shift(self) -> u64 {
        (u64::from(self.device) * 101 + u64::from(self.generation) * 37) * PAGE_BYTES as u64
    }

    fn stamp(self, page: u64) -> [u8; STAMP_BYTES] {
        let origin = u64::from(self.device) << 56 | u64::from(self.generation) << 48;
        (origin | (page + 1)).to_le_bytes()
    }
}

impl Template {
    /// Puts the stamps, or the parts of them, that fall into `buffer`.
    fn stamp(&self, origin: Origin, offset: u64, buffer: &mut [u8]) {
        let end = offset + buffer.len() as u64;
        let shift_pages = origin.shift() / PAGE_BYTES as u64;
        for page in offset / PAGE_BYTES as u64..end.div_ceil(PAGE_BYTES as u64) {
            if !self.stamped[((page + shift_pages) % self.stamped.len() as u64) as usize] {
                continue;
            }
            let stamp = origin.stamp(page);
            let at = page * PAGE_BYTES as u64;
            let (from, to) = (at.max(offset), (at + STAMP_BYTES as u64).min(end));
            if from < to {
                let source = &stamp[(from - at) as usize..(to - at) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
    }
}

fn random_template() -> Vec<u8> {
    let mut bytes = vec![0; TEMPLATE_BYTES];
    fastrand::Rng::with_seed(SEED).fill(&mut bytes);
    bytes
}

fn repeat(source: &[u8], start: u64, buffer: &mut [u8]) {
    let mut from = (start % source.len() as u64) as usize;
    let mut rest = buffer;
    while !rest.is_empty() {
        let piece = rest.len().min(source.len() - from);
        let (head, tail) = rest.split_at_mut(piece);
        head.copy_from_slice(&source[from..from + piece]);
        (rest, from) = (tail, 0);
    }
}

#[cfg(test)]
mod tests;
