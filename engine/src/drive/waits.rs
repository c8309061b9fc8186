//! Every bounded wait of the drive's threads, as its bound. A new one is a constant here. Its text is
//! its row in ARCHITECTURE.md's table, where a test prints it: who waits | for what | until when |
//! then what. The machines' waits are in `machine/waits.rs`.

use std::time::Duration;

/// ferry-ctl-N
/// | SET_STATE, where EINTR has left the device in the state that it was in
/// | 10 calls
/// | the machine takes the EINTR for the driver's answer
pub(super) const SET_STATE_MAX: u32 = 10;

/// ferry-ctl-N of an embedded device, of which the engine has no device fd
/// | the VMM to say that it has stopped the device, where GET_PRECOPY_INFO was refused
/// | 300 ms
/// | the device was reset
pub(crate) const SAID_AFTER: Duration = Duration::from_millis(300);

/// ferry-fd-N on the target
/// | the driver to take more of a chunk, where it answers EAGAIN: a resume fd cannot be polled
/// | 1000 EAGAINs in a row, 1 ms apart
/// | the write has failed with EAGAIN
pub(super) const WRITE_AGAIN_MAX: u32 = 1000;
/// The pause between two of them.
pub(super) const WRITE_PAUSE: Duration = Duration::from_millis(1);

/// ferry-net
/// | nothing: a copy of the figures is 250 KB, and is published at a pace that costs nothing
/// | 100 ms after the last copy
/// | the next copy is published
pub(super) const FIGURES_EVERY: Duration = Duration::from_millis(100);

/// ferry-net, for a data fd's thread that was told to end
/// | the operation that the driver holds, which was cancelled
/// | `cancel_bound` / 2; the other half is left for the devices' way back
/// | the device is reported as stuck; thread, slot and fd stay with the driver until it returns
pub(super) const DETACH_PART: u32 = 2;

/// ferry-net, once the machine has ended
/// | the peer to close every stream, so that a reset of the connection loses nothing that was sent
/// | 500 ms
/// | the streams are closed from this end
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// ferry-net, at the session's end
/// | the kernel to complete what is in flight on the streams, which are shut down
/// | 100 ms, twice
/// | first the connections are aborted, which drops unacknowledged bytes; then the ring is closed,
/// which waits for the kernel without a bound
pub(super) const CLOSE: Duration = Duration::from_millis(100);
