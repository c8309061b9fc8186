//! A descriptor that is kept free for the data fd that SET_STATE will give: where a process is short
//! of them, a session fails at its start and not when the VM stands still.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::EventfdFlags;

use crate::vfio::state::DeviceState;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Spare(Option<OwnedFd>);

impl Spare {
    /// Keeps one.
    pub(super) fn new() -> io::Result<Spare> {
        Ok(Spare(Some(keep()?)))
    }

    /// SET_STATE is about to be called: where it may give a data fd, there is room for it. Other
    /// threads of the process might take that; between these two calls nothing can be done about it.
    pub(super) fn make_room(&mut self, state: DeviceState) {
        if state.is_saving() || state == DeviceState::Resuming {
            self.0 = None;
        }
    }

    /// SET_STATE gave no data fd: its place is kept again, if that can be.
    pub(super) fn keep_again(&mut self) {
        if self.0.is_none() {
            self.0 = keep().ok();
        }
    }
}

/// The cheapest of descriptors.
fn keep() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?)
}

#[cfg(test)]
impl Spare {
    pub(super) fn is_kept(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio::state::DeviceState::{PreCopy, Resuming, Running, Stop, StopCopy};

    #[test]
    fn there_is_room_where_set_state_may_give_a_data_fd() {
        for (state, may_give) in
            [(PreCopy, true), (StopCopy, true), (Resuming, true), (Running, false), (Stop, false)]
        {
            let mut spare = Spare::new().expect("a descriptor");
            spare.make_room(state);
            assert_eq!(spare.is_kept(), !may_give, "{state}");
            spare.keep_again();
            assert!(spare.is_kept(), "{state}");
        }
    }
}
