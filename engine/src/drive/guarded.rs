//! The embedder's code on our threads: what panics there has failed, and the thread lives on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::ids::DeviceId;
use crate::outcome::{Cause, Fault, Observation};

/// Calls, and gives what a panic said. What the call had under its hands is the embedder's to mend;
/// the engine gives such a session up.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| said(&*panic))
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

/// That the code of a device's embedder panicked.
pub(super) fn panicked(what: &str, device: DeviceId, said: &str) -> Fault {
    let message = format!("{what} of {device} panicked: {said}");
    Fault::session(Cause::Local, Observation::Engine, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_said_is_kept_whatever_it_was_made_of() {
        assert_eq!(guarded(|| 7), Ok(7));
        let number = 7;
        assert_eq!(guarded(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        assert_eq!(guarded(|| panic!("with {number}")), Err::<(), _>("with 7".to_owned()));
        let other = || std::panic::panic_any(7);
        assert_eq!(guarded(other), Err::<(), _>("no text".to_owned()));
    }
}
