//! What each connection sends when, by the kernel's count: looked at from time to time, and only where it is
//! to be shown.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::monotonic_ns;
use crate::device::Slices;
use crate::engine::Streams;
use crate::net;

const PERIOD: Duration = Duration::from_micros(250);

/// A thread that looks.
pub(super) struct Sampler {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Slices>>,
}

impl Sampler {
    /// Begins to look at these, on fds of its own.
    pub(super) fn start(streams: &Streams) -> io::Result<Sampler> {
        let own = |socket: BorrowedFd<'_>| socket.try_clone_to_owned();
        let streams = streams.sockets().map(own).collect::<io::Result<Vec<_>>>()?;
        let done = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&done);
        let thread = thread::Builder::new().name("sampler".into()).spawn(move || {
            let mut seen: Vec<(u64, Slices)> = streams.iter().map(|_| Default::default()).collect();
            loop {
                let last = ends.load(Ordering::Acquire);
                for (stream, (before, slices)) in streams.iter().zip(&mut seen) {
                    // A connection that is gone has sent its last byte.
                    let sent = net::sent_bytes(stream).unwrap_or(*before);
                    slices.add(monotonic_ns(), sent.saturating_sub(*before));
                    *before = sent;
                }
                if last {
                    return seen.into_iter().map(|(_, slices)| slices).collect();
                }
                thread::sleep(PERIOD);
            }
        })?;
        Ok(Sampler { done, thread })
    }

    /// Looks a last time, and tells.
    pub(super) fn end(self) -> Vec<Slices> {
        self.done.store(true, Ordering::Release);
        self.thread.join().unwrap_or_default()
    }
}
