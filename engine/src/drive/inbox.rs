//! What reaches the drive's thread from the others.

use std::os::fd::OwnedFd;

use crossbeam_channel::Sender;

use crate::compress::workers::Worked;
use crate::ids::DeviceId;
use crate::machine::{ChunkKey, Command, Reply, Request};
use crate::outcome::Fault;
use crate::ring::Waker;
use crate::wire::DataHeader;

/// Something that happened on another thread. Slots travel with it.
#[derive(Debug)]
pub(crate) enum Input {
    Command(Command),
    Control {
        device: DeviceId,
        request: Request,
        result: Result<Reply, i32>,
        fd: Option<OwnedFd>,
        ns: u64,
    },
    Worked(Worked<WorkTag>),
    /// The session cannot go on.
    Local(Fault),
}

/// Which chunk a worker's result belongs to, and when the work was given out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkTag {
    pub(crate) chunk: Chunk,
    pub(crate) since_ns: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Chunk {
    Encode(ChunkKey),
    Decode(DataHeader),
}

/// The way to the drive's thread. What is sent after that thread has ended is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    sender: Sender<Input>,
    waker: Waker,
}

impl Inbox {
    pub(super) fn new(sender: Sender<Input>, waker: Waker) -> Inbox {
        Inbox { sender, waker }
    }

    pub(crate) fn send(&self, input: Input) {
        if self.sender.send(input).is_ok() {
            self.waker.wake();
        }
    }
}
