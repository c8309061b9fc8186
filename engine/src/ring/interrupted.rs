//! Reads and writes that were interrupted, and by nobody: begun again, but not for ever.

/// How often an operation that nobody cancelled is begun again after an interruption. A kernel
/// worker can be interrupted by the kernel's own housekeeping; a driver that answers so for ever
/// is believed in the end.
pub(super) const INTERRUPTIONS_MAX: u8 = 3;
