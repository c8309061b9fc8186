//! An invariant that does not hold.

/// Which one, and what was found instead.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) found: String,
}

/// Nothing, or the invariant that was broken.
pub(crate) type Check = Result<(), Violation>;

/// Ends the run unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $invariant:literal, $($found:tt)*) => {
        if !$holds {
            return Err($crate::check::Violation {
                invariant: $invariant,
                found: format!($($found)*),
            });
        }
    };
}
pub(crate) use ensure;
