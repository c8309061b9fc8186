//! Every bounded wait of the ioctls, as its bound: see `drive/waits.rs`.

use std::time::Duration;

/// whoever asks
/// | VFIO_DEVICE_FEATURE GET, the opt-in to PRECOPY_INFOv2, VFIO_MIG_GET_PRECOPY_INFO, where the
/// driver answers EINTR
/// | 10 EINTRs in a row, 1 ms apart
/// | it has failed with EINTR
pub(super) const INTERRUPTED_MAX: u32 = 10;
/// The pause between two of them.
pub(super) const INTERRUPTED_PAUSE: Duration = Duration::from_millis(1);
