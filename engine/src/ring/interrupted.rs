//! Calls that were interrupted, and by nobody: begun again, but not for ever.

use rustix::io::Errno;

/// How often an operation that nobody cancelled is begun again after an interruption. A kernel
/// worker can be interrupted by the kernel's own housekeeping; a driver that answers so for ever
/// is believed in the end.
pub(super) const INTERRUPTIONS_MAX: u8 = 3;

/// Makes a call again that a signal has interrupted.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 0..INTERRUPTIONS_MAX {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
    call()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_is_always_interrupted_is_believed_in_the_end() {
        for interruptions in 0..8 {
            let mut asked = 0;
            let result = uninterrupted(|| {
                asked += 1;
                if asked > interruptions { Ok(asked) } else { Err(Errno::INTR) }
            });
            let expected =
                if interruptions <= 3 { Ok(interruptions + 1) } else { Err(Errno::INTR) };
            assert_eq!(result, expected);
            assert_eq!(asked, (interruptions + 1).min(4));
        }
    }
}
