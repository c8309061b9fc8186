//! Signals are the embedder's: none is delivered to a thread of ours, whose calls would end early or
//! whose death would be the process's (SIGPIPE).

use nix::sys::signal::{SigSet, Signal};

/// As long as this lives, the calling thread takes no signal, nor does a thread that it starts then,
/// for good. What a thread does to itself is not blocked: it would end the process without its
/// handler.
pub(crate) struct Blocked {
    before: Option<SigSet>,
}

impl Blocked {
    pub(crate) fn all() -> Blocked {
        let mut set = SigSet::all();
        let own = [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGTRAP,
            // Of a seccomp filter that traps: a VMM's handler says which call it was, or answers it.
            Signal::SIGSYS,
        ];
        own.into_iter().for_each(|signal| set.remove(signal));
        // It fails for a wrong `how` only.
        Blocked { before: set.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).ok() }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = before.thread_set_mask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_takes_the_signals_again_that_it_took_before() {
        let before = SigSet::thread_get_mask().expect("a mask");
        let blocked = Blocked::all();
        let inside = SigSet::thread_get_mask().expect("a mask");
        assert!(inside.contains(Signal::SIGTERM) && !inside.contains(Signal::SIGSEGV));
        drop(blocked);
        assert_eq!(SigSet::thread_get_mask().expect("a mask"), before);
    }
}
