//! A pool of threads that compress, or verify and decompress, one chunk each at a time.
//!
//! Jobs own their two slots and give both back. The pool never blocks whoever submits: the number
//! of jobs is bounded by the slots that there are.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::time::{ClockId, clock_gettime};

use super::codec::{Codec, CodecError};
use super::policy::{LEVELS, Sample};
use crate::buffers::Slot;
use crate::ring::Backend;
use crate::threads::{Ready, ThreadKind, Threads};
use crate::wire::chunk_hash;

/// One chunk's work. `T` comes back with it.
#[derive(Debug)]
pub struct Job<T> {
    /// The submitter's own.
    pub tag: T,
    /// The slot that the work starts from.
    pub slot: Slot,
    /// The slot that the result goes to.
    pub into: Slot,
    /// What is to be done.
    pub work: Work,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Compress the chunk of `raw_bytes` bytes.
    Encode {
        /// Size of the chunk in bytes.
        raw_bytes: u32,
        /// zstd level.
        level: i32,
        /// Try samples first.
        probe: bool,
        /// If it shrinks, try samples of it at every level.
        sample: bool,
    },
    /// Verify the body and decompress it.
    Decode {
        /// Size of the body in bytes.
        body_bytes: u32,
        /// Its hash.
        body_hash: u64,
        /// Size of the chunk in bytes.
        raw_bytes: u32,
        /// Its hash.
        raw_hash: u64,
    },
}

/// A job's end. Both slots are here again.
#[derive(Debug)]
pub struct Worked<T> {
    /// The submitter's own.
    pub tag: T,
    /// The slot that the work started from, unchanged.
    pub slot: Slot,
    /// The slot with the result.
    pub into: Slot,
    /// What came of it.
    pub result: WorkResult,
    /// What the samples came to, where they were asked for.
    pub samples: Option<[Sample; LEVELS.len()]>,
    /// The worker's time in nanoseconds, without the samples.
    pub worker_ns: u64,
    /// What of it was on a core.
    pub cpu_ns: u64,
}

/// What came of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkResult {
    /// Compressed: size and hash of the body.
    Encoded {
        /// Size in bytes.
        body_bytes: u32,
        /// Its hash.
        body_hash: u64,
    },
    /// Not worth compressing.
    Incompressible,
    /// Decompressed, both hashes right.
    Decoded,
    /// The body is not what its header says.
    BodyDamaged,
    /// The body does not decompress to what its header says.
    ChunkWrong(&'static str),
    /// The worker panicked over it: a defect of the engine. It lives on.
    Panicked,
}

/// Takes a job's end, on the worker's thread.
pub type Taker<T> = Arc<dyn Fn(Worked<T>) + Send + Sync>;

/// The threads, which may be several submitters'. Dropping the pool ends them once they have finished what they have; it does not
/// wait for them.
pub struct Workers<T> {
    jobs: Sender<(Job<T>, Taker<T>)>,
    count: usize,
}

impl<T: Send + 'static> Workers<T> {
    /// Starts `count` threads; the session's ring is of this backend.
    ///
    /// # Errors
    /// What the system says where it starts no more threads, and ENOMEM without zstd contexts.
    pub fn start(count: usize, on: &Threads, backend: Backend) -> io::Result<Workers<T>> {
        let (jobs, queue) = unbounded();
        let mut starting = Vec::with_capacity(count);
        for index in 0..count {
            let codec = Codec::new()
                .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error.to_string()))?;
            let queue: Receiver<(Job<T>, Taker<T>)> = queue.clone();
            let body = move || work_all(codec, queue);
            starting.push(on.spawn_ready(ThreadKind::Worker, index as u32, backend, body)?);
        }
        starting.into_iter().try_for_each(Ready::wait)?;
        Ok(Workers { jobs, count })
    }

    /// Queues a job, whose end `done` takes. It comes back if there is no thread to take it.
    pub fn submit(&self, job: Job<T>, done: &Taker<T>) -> Result<(), Box<Job<T>>> {
        if self.count == 0 {
            return Err(Box::new(job));
        }
        self.jobs.send((job, Arc::clone(done))).map_err(|error| Box::new(error.into_inner().0))
    }
}

fn work_all<T>(mut codec: Codec, queue: Receiver<(Job<T>, Taker<T>)>) {
    for (mut job, done) in queue {
        let (start, start_ns) = (Instant::now(), cpu_ns());
        let result = guarded(|| work(&mut codec, &job.slot, &mut job.into, job.work));
        let cpu_ns = cpu_ns().saturating_sub(start_ns);
        let worker_ns = start.elapsed().as_nanos() as u64;
        let samples = match (job.work, result) {
            (Work::Encode { raw_bytes, sample: true, .. }, WorkResult::Encoded { .. }) => {
                codec.sample(&job.slot.body()[..raw_bytes as usize], self::cpu_ns)
            }
            _ => None,
        };
        let Job { tag, slot, into, .. } = job;
        done(Worked { tag, slot, into, result, samples, worker_ns, cpu_ns });
    }
}

/// What this thread has had of a core. Time that it waited for one is not the chunk's.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn guarded(work: impl FnOnce() -> WorkResult) -> WorkResult {
    // What a panic leaves behind is a slot's content and a codec's, which the session's end discards.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(WorkResult::Panicked)
}

fn work(codec: &mut Codec, slot: &Slot, into: &mut Slot, work: Work) -> WorkResult {
    match work {
        Work::Encode { raw_bytes, level, probe, .. } => {
            let chunk = &slot.body()[..raw_bytes as usize];
            if probe && !codec.probe(chunk) {
                return WorkResult::Incompressible;
            }
            match codec.compress(chunk, into.body_mut(), level) {
                Ok(Some(bytes)) => WorkResult::Encoded {
                    body_bytes: bytes as u32,
                    body_hash: chunk_hash(&into.body()[..bytes]),
                },
                // A chunk that zstd would not take goes raw: nothing is lost by that.
                Ok(None) | Err(_) => WorkResult::Incompressible,
            }
        }
        Work::Decode { body_bytes, body_hash, raw_bytes, raw_hash } => {
            let body = &slot.body()[..body_bytes as usize];
            if chunk_hash(body) != body_hash {
                return WorkResult::BodyDamaged;
            }
            let chunk = &mut into.body_mut()[..raw_bytes as usize];
            match codec.decompress(body, chunk) {
                Ok(()) if chunk_hash(chunk) == raw_hash => WorkResult::Decoded,
                Ok(()) => WorkResult::ChunkWrong("its bytes have another hash"),
                Err(CodecError::Size { .. }) => {
                    WorkResult::ChunkWrong("it holds another number of bytes")
                }
                Err(_) => WorkResult::ChunkWrong("it is no zstd frame"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Arena;

    #[test]
    fn a_worker_that_panics_gives_its_slots_back_and_lives_on() {
        let (_, mut slots) = Arena::new(2, 4096).expect("memory");
        let (done, results) = unbounded();
        let done: Taker<()> = Arc::new(move |worked| {
            let _ = done.send(worked);
        });
        let workers = Workers::start(1, &Threads::default(), Backend::Syscalls);
        let workers = workers.expect("a thread");
        // More bytes than a slot has: nobody asks for that but a defect.
        for (raw_bytes, expected) in [(1 << 20, true), (4096, false)] {
            let (slot, into) = (slots.remove(0), slots.remove(0));
            let work = Work::Encode { raw_bytes, level: 1, probe: false, sample: false };
            workers.submit(Job { tag: (), slot, into, work }, &done).expect("there is a thread");
            let worked = results.recv().expect("it answers");
            assert_eq!(worked.result == WorkResult::Panicked, expected, "{:?}", worked.result);
            slots.extend([worked.slot, worked.into]);
        }
    }
}
