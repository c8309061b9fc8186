//! A ring's files and operations in flight: what may be submitted, and who owns what until then.
//!
//! Both backends keep their books here, so that they refuse alike. An operation lives in a slab
//! from `admit` to `finish`; its [`Key`] is what the kernel carries as `user_data`. Keys have a
//! generation, so that a late completion can never be taken for that of a later operation.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::nonblock::Nonblock;
use super::op::Direction;
use super::{Done, FileId, FileKind, Op, Rejected, Token};
use crate::errno;

/// How often an operation that nobody cancelled is begun again after an interruption. A kernel
/// worker can be interrupted by the kernel's own housekeeping; a driver that answers so for ever
/// is believed in the end.
pub(super) const INTERRUPTIONS_MAX: u8 = 3;

/// The name of an operation in flight: a place in the slab, and how often it was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// As the kernel carries it.
    pub(super) fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// As it comes back.
    pub(super) fn from_user_data(user_data: u64) -> Key {
        // Both halves are meant to be cut to 32 bits.
        Key { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

/// An operation in flight, with the state `S` that a backend keeps for it.
#[derive(Debug)]
pub(super) struct Flight<S> {
    pub(super) token: Token,
    pub(super) op: Op,
    /// Bytes of a send or receive that are done with.
    pub(super) moved: usize,
    /// Whether somebody asked for its end.
    pub(super) cancelled: bool,
    /// A worker has it, and its buffer.
    pub(super) away: bool,
    pub(super) state: S,
}

/// A file of a ring, with the state `F` that a backend keeps for it.
#[derive(Debug)]
pub(super) struct File<F> {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) kind: FileKind,
    pub(super) state: F,
    /// Holds O_NONBLOCK on the file, if the ring set it.
    _nonblock: Option<Nonblock>,
    reading: bool,
    writing: bool,
    watching: bool,
}

impl<F> File<F> {
    fn busy(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::In => &mut self.reading,
            Direction::Out => &mut self.writing,
            Direction::Nowhere => &mut self.watching,
        }
    }
}

#[derive(Debug)]
struct Place<S> {
    generation: u32,
    flight: Option<Flight<S>>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Table<F, S> {
    files: Vec<Option<File<F>>>,
    places: Vec<Place<S>>,
    free: Vec<u32>,
    tokens: HashMap<Token, Key>,
}

impl<F, S: Default> Table<F, S> {
    /// A table for `files` files and `depth` operations; it never grows.
    pub(super) fn new(files: u32, depth: u32) -> Table<F, S> {
        Table {
            files: (0..files).map(|_| None).collect(),
            places: (0..depth).map(|_| Place { generation: 0, flight: None }).collect(),
            free: (0..depth).rev().collect(),
            tokens: HashMap::with_capacity(depth as usize),
        }
    }

    /// Adds a file and makes it ready for its kind. EMFILE: the table is full.
    pub(super) fn add_file(
        &mut self,
        fd: Arc<OwnedFd>,
        kind: FileKind,
        state: F,
    ) -> io::Result<FileId> {
        let index = self.files.iter().position(Option::is_none).ok_or(error(errno::EMFILE))?;
        let nonblock = match kind {
            FileKind::Pollable => Nonblock::set(&fd)?,
            FileKind::Socket | FileKind::Blocking => None,
        };
        let (reading, writing, watching) = (false, false, false);
        let file = File { fd, kind, state, _nonblock: nonblock, reading, writing, watching };
        self.files[index] = Some(file);
        // The table's length came as a u32.
        Ok(FileId(index as u32))
    }

    /// Takes a file out. EBADF: no such file. EBUSY: something is in flight on it.
    pub(super) fn remove_file(&mut self, id: FileId) -> io::Result<File<F>> {
        let place = self.files.get_mut(id.0 as usize).ok_or(error(errno::EBADF))?;
        match place {
            None => Err(error(errno::EBADF)),
            Some(file) if file.reading || file.writing || file.watching => Err(error(errno::EBUSY)),
            Some(_) => place.take().ok_or(error(errno::EBADF)),
        }
    }

    pub(super) fn file_mut(&mut self, id: FileId) -> Option<&mut File<F>> {
        self.files.get_mut(id.0 as usize)?.as_mut()
    }

    pub(super) fn file(&self, id: FileId) -> Option<&File<F>> {
        self.files.get(id.0 as usize)?.as_ref()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &File<F>> {
        self.files.iter().flatten()
    }

    /// Takes an operation, or gives it back with the errno that says why not.
    pub(super) fn admit(&mut self, token: Token, op: Op) -> Result<Key, Rejected> {
        let index = match self.place_for(token, &op) {
            Ok(index) => index,
            Err(errno) => return Err(Rejected { op, errno }),
        };
        let place = &mut self.places[index as usize];
        let state = S::default();
        let flight = Flight { token, op, moved: 0, cancelled: false, away: false, state };
        place.flight = Some(flight);
        let key = Key { index, generation: place.generation };
        self.tokens.insert(token, key);
        Ok(key)
    }

    /// Checks an operation, marks its file busy and takes a place for it.
    fn place_for(&mut self, token: Token, op: &Op) -> Result<u32, i32> {
        let file = self.files.get_mut(op.file.0 as usize).and_then(Option::as_mut);
        let file = file.ok_or(errno::EBADF)?;
        op.check(file.kind)?;
        if self.tokens.contains_key(&token) {
            return Err(errno::EEXIST);
        }
        let busy = file.busy(op.kind.direction());
        if *busy {
            return Err(errno::EBUSY);
        }
        let index = self.free.pop().ok_or(errno::EBUSY)?;
        *busy = true;
        Ok(index)
    }

    /// The operation with this key and its file, if it is in flight.
    pub(super) fn flight(&mut self, key: Key) -> Option<(&mut Flight<S>, &mut File<F>)> {
        let place = self.places.get_mut(key.index as usize)?;
        let flight = place.flight.as_mut().filter(|_| place.generation == key.generation)?;
        let file = self.files.get_mut(flight.op.file.0 as usize)?.as_mut()?;
        Some((flight, file))
    }

    /// The key of the operation with this token.
    pub(super) fn key(&self, token: Token) -> Option<Key> {
        self.tokens.get(&token).copied()
    }

    /// The keys of all operations in flight.
    pub(super) fn keys(&self) -> impl Iterator<Item = (Key, &Flight<S>)> {
        self.places.iter().zip(0..).filter_map(|(place, index)| {
            let flight = place.flight.as_ref()?;
            Some((Key { index, generation: place.generation }, flight))
        })
    }

    /// Ends an operation: its file is free for the next one, its buffer goes back.
    pub(super) fn finish(&mut self, key: Key, result: Result<usize, i32>) -> Option<Done> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let Flight { token, op, .. } = place.flight.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index);
        self.tokens.remove(&token);
        if let Some(file) = self.files.get_mut(op.file.0 as usize).and_then(Option::as_mut) {
            *file.busy(op.kind.direction()) = false;
        }
        Some(Done { token, result, buffer: op.buffer })
    }

    /// Gives up on the operations in flight without freeing their buffers, which the kernel may
    /// still write into; their files stay open.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.places));
        std::mem::forget(std::mem::take(&mut self.files));
        self.free.clear();
    }

    /// Bytes that have moved of the operation with this token.
    pub(super) fn moved(&self, token: Token) -> usize {
        let key = self.key(token);
        let place = key.and_then(|key| self.places.get(key.index as usize));
        place.and_then(|place| place.flight.as_ref()).map_or(0, |flight| flight.moved)
    }

    /// Operations in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
