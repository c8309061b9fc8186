//! Every bounded wait of the drive's threads, as its bound. A new one is a constant here. Its text is
//! its row in ARCHITECTURE.md's table, where a test prints it: who waits | for what | until when |
//! then what. The machines' waits are in `machine/waits.rs`.

use std::time::Duration;

/// ferry-ctl-N
/// | SET_STATE, where EINTR or EAGAIN has left the device in the state that it was in, or on its way
/// | 100 calls, 1 ms apart
/// | the machine takes the errno for the driver's answer
pub(super) const SET_STATE_MAX: u32 = 100;
/// The pause between two of them.
pub(super) const SET_STATE_PAUSE: Duration = Duration::from_millis(1);

/// ferry-net on the source, for a data fd
/// | the driver to give the first byte of a chunk, where it answers EAGAIN and has no poll, or EINTR
/// though nobody interrupted it
/// | 1 ms
/// | the read has failed with that errno; the machine asks again, 1000 times in a row at most
pub(super) const READ_PAUSE: Duration = Duration::from_millis(1);

/// ferry-ctl-N of an embedded device that is in PRE_COPY for the engine
/// | the VMM to say that it has stopped the device, where GET_STATE says so, or nobody can ask and
/// GET_PRECOPY_INFO was refused
/// | 300 ms
/// | the device was reset, or is where nobody has put it
pub(crate) const SAID_AFTER: Duration = Duration::from_millis(300);

/// ferry-net on the target, for a data fd
/// | the driver to take more of a chunk, where it answers EAGAIN: a resume fd cannot be polled
/// | 1000 EAGAINs in a row, 1 ms apart
/// | the write has failed with EAGAIN
pub(super) const WRITE_AGAIN_MAX: u32 = 1000;

/// ferry-net on the target, for a data fd
/// | a write that nobody interrupted, where the driver answers EINTR
/// | 10 EINTRs in a row, 1 ms apart
/// | it has failed with EINTR
pub(super) const INTERRUPTED_MAX: u32 = 10;
/// The pause between two of each of these writes.
pub(super) const AGAIN_PAUSE: Duration = Duration::from_millis(1);

/// ferry-net, for a data fd of a test double
/// | `observe` to say what the driver has answered, where it says EINPROGRESS: the driver has not
/// | the double answers, without a bound, asked every 1 ms
/// | the answer is the operation's; meanwhile it counts as held by the driver
pub(super) const HELD_PAUSE: Duration = Duration::from_millis(1);

/// ferry-net
/// | nothing: a copy of the figures is 250 KB, and is published at a pace that costs nothing
/// | 100 ms after the last copy
/// | the next copy is published
pub(super) const FIGURES_EVERY: Duration = Duration::from_millis(100);

/// ferry-net, while a frame is under way on a stream, or the kernel had no room for TLS's last word
/// | nothing: what has moved of it so far is looked at, so that a slow path is not taken for a silent
/// one
/// | 50 ms after the last look
/// | the machine is told of the part that has moved; the last word is tried again
pub(super) const PARTS_EVERY: Duration = Duration::from_millis(50);

/// ferry-net, for a data fd that was taken away
/// | the operation that the driver holds, which was cancelled
/// | `cancel_bound` / 2; the other half is left for the devices' way back
/// | the device is reported as stuck; a worker of the ring, slot and fd stay with the driver until it
/// returns
pub(super) const DETACH_PART: u32 = 2;

/// ferry-net, at the session's end
/// | the threads of the devices that are not late to let go of them, which may run the embedder's
/// code that drops a device
/// | 1000 ms for all of them
/// | the session's end is told all the same
pub(super) const RELEASE: Duration = Duration::from_millis(1000);

/// ferry-net, once the session's end was told; nobody waits for it
/// | the driver of a late device to answer, so that the device can be brought back
/// | the driver answers, without a bound
/// | its data fd is closed, the device is brought back, and the embedder is told that it came back
pub(super) const LATE_DRIVER: Option<Duration> = None;

/// ferry-net, once the session's end was told
/// | the last frame to go out, and the peer to close every stream, so that a reset of the connection loses nothing that was sent
/// | 500 ms
/// | the streams are closed from this end
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// ferry-net, once it has lingered
/// | the kernel to complete what is in flight on the streams, which are shut down
/// | 100 ms, twice
/// | first the connections are aborted, which drops unacknowledged bytes; then this thread is left
/// with what the kernel still holds, and nobody waits for it
pub(super) const CLOSE: Duration = Duration::from_millis(100);
