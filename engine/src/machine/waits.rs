//! Every deadline of a machine. A new wait is a variant here. Its text is its row in
//! ARCHITECTURE.md's table, where a test prints it: who waits | for what | until when | then what.

use super::NO_LIMIT_NS;

/// What a machine may wait for with a deadline. Where several are over, they are taken in this
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wait {
    /// both hosts
    /// | every stream agreed on
    /// | `handshake_limit` after the start
    /// | the session is given up, cause time_limit
    Handshake,
    /// both hosts
    /// | an abort frame on another stream, after one stream broke
    /// | `peer_silence` / 32 after the first one broke, at most 1 s
    /// | the session is given up, cause network; nothing is handed over meanwhile
    LastWord,
    /// both hosts; the target only before the handover
    /// | any frame of the peer
    /// | `peer_silence` after the last one
    /// | the session is given up, cause network; on the source after the handover it is unconfirmed
    Silence,
    /// as silence
    /// | frames in both directions
    /// | `peer_silence` / 4 after the last one from the peer, or to it, or the last ping
    /// | a ping is sent on every idle stream, each of which then shows a frame that was lost there
    Ping,
    /// the source, for each device in PRE_COPY
    /// | data to read
    /// | `precopy_poll` after the last data or answer, at most 5 times that while data flows; at
    /// once when the fd is drained, or a quarter of it where more was promised
    /// | VFIO_MIG_GET_PRECOPY_INFO is asked
    PrecopyInfo,
    /// both hosts, for each device
    /// | progress of what is owed: on the source by the driver (a request, a read in STOP_COPY) or the
    /// target (credit, initial data loaded, the state loaded, room on a stream); on the target by the
    /// driver (a request, a write) or the source (state after STOP_COPY has begun, what is missing in
    /// the order, the handover)
    /// | `stall_limit` after the last progress; for what the peer owes five times that, because it may
    /// take several calls of its driver, each of which its own host bounds
    /// | the session is given up, cause time_limit; on the target after the handover too
    Stall,
    /// the target, before the handover
    /// | any of the state, or a frame that speaks of it, while nothing is owed
    /// | `idle_limit` after the last one
    /// | the session is given up, cause time_limit
    Idle,
    /// both hosts, for a device whose call failed as if it were gone
    /// | GET_STATE to show the reset that does so
    /// | 300 ms after the failure, asked every 20 ms
    /// | the failure is taken for one of the device
    Settle,
    /// the source, once the vCPUs are stopped
    /// | the handover given out
    /// | `switchover_budget` after the switchover
    /// | the session is given up, cause time_limit; the guest runs on here
    Budget,
    /// the source, after the handover
    /// | the target's word that it runs, or does not
    /// | `confirm_limit` after the handover; after a cancel `cancel_bound` / 2
    /// | the session is unconfirmed, cause time_limit or cancelled
    Confirm,
    /// the target, after a cancel that came after the handover
    /// | every device in RUNNING
    /// | `cancel_bound` after the cancel
    /// | the session ends as not blank
    Resume,
    /// the source, once a session of several devices is given up after the switchover
    /// | all devices that have P2P states in RUNNING_P2P, then those without in RUNNING
    /// | `cancel_bound` / 4
    /// | each goes to RUNNING without the others
    Barrier,
    /// both hosts, once the session is given up
    /// | every device where it was found (target: blank)
    /// | `cancel_bound` (after a cancel that came after the handover, what is left of it)
    /// | the session ends as not returned (target: not blank); a thread that is in a driver is left
    /// there
    WayBack,
    /// the source, once the target runs or cannot be heard any more
    /// | every device in STOP, its data fd closed
    /// | `cancel_bound` (after a cancel, what is left of it)
    /// | the session ends as handed over, or unconfirmed; that device's state is reported as unknown
    LettingGo,
    /// the target, once all devices run
    /// | the frame that says so, sent
    /// | `cancel_bound` (after a cancel, what is left of it)
    /// | the session ends as running
    Farewell,
}

impl Wait {
    /// All waits, in their order.
    const ALL: [Wait; 15] = [
        Wait::Handshake,
        Wait::LastWord,
        Wait::Silence,
        Wait::Ping,
        Wait::PrecopyInfo,
        Wait::Stall,
        Wait::Idle,
        Wait::Settle,
        Wait::Budget,
        Wait::Confirm,
        Wait::Resume,
        Wait::Barrier,
        Wait::WayBack,
        Wait::LettingGo,
        Wait::Farewell,
    ];
}

/// The deadlines of one owner: a machine, its peer, or one epoch of a device. They end with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// [`NO_LIMIT_NS`] for none.
    until_ns: [u64; Wait::ALL.len()],
}

impl Default for Waits {
    fn default() -> Waits {
        Waits { until_ns: [NO_LIMIT_NS; Wait::ALL.len()] }
    }
}

impl Waits {
    /// Begins a wait, or moves its deadline. Until [`NO_LIMIT_NS`] is for ever.
    pub(crate) fn set(&mut self, wait: Wait, until_ns: u64) {
        self.until_ns[wait as usize] = until_ns;
    }

    /// Begins a wait, or moves its deadline, unless it is over earlier as it is.
    pub(crate) fn set_earlier(&mut self, wait: Wait, until_ns: u64) {
        self.set(wait, self.until_ns[wait as usize].min(until_ns));
    }

    /// When this wait is over, if it goes on.
    pub(crate) fn get(&self, wait: Wait) -> Option<u64> {
        Some(self.until_ns[wait as usize]).filter(|until_ns| *until_ns != NO_LIMIT_NS)
    }

    /// Ends a wait.
    pub(crate) fn stop(&mut self, wait: Wait) {
        self.until_ns[wait as usize] = NO_LIMIT_NS;
    }

    /// The next deadline.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.until_ns.iter().copied().min().filter(|until_ns| *until_ns != NO_LIMIT_NS)
    }

    /// A wait that is over now; it has ended.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<Wait> {
        let due = |wait: &Wait| self.get(*wait).is_some_and(|until_ns| until_ns <= now_ns);
        let wait = Wait::ALL.into_iter().find(due)?;
        self.stop(wait);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_has_its_place() {
        for (index, wait) in Wait::ALL.into_iter().enumerate() {
            assert_eq!(wait as usize, index);
        }
    }

    #[test]
    fn waits_are_over_in_their_order_and_once() {
        let mut waits = Waits::default();
        assert_eq!((waits.deadline_ns(), waits.take_due(u64::MAX)), (None, None));
        waits.set(Wait::Ping, 5);
        waits.set(Wait::Silence, 9);
        waits.set(Wait::Farewell, 1);
        waits.stop(Wait::Farewell);
        assert_eq!((waits.deadline_ns(), waits.take_due(4)), (Some(5), None));
        assert_eq!(waits.take_due(9), Some(Wait::Silence));
        assert_eq!(waits.take_due(9), Some(Wait::Ping));
        assert_eq!(waits.take_due(9), None);
    }
}
