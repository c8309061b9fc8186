//! Every deadline of a machine. A new wait is a variant here. Its text is its row in
//! ARCHITECTURE.md's table, where a test prints it: who waits | for what | until when | then what.

/// What a machine may wait for with a deadline. Where several are over, they are taken in this
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wait {
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
    /// | any frame of the peer
    /// | `peer_silence` / 4 after the last frame or ping
    /// | a ping is sent
    Ping,
    /// the source, for each device in PRE_COPY
    /// | data to read
    /// | `precopy_poll` after the last data or answer, at most 5 times that while data flows; at
    /// once when the fd is drained, or a quarter of it where more was promised
    /// | VFIO_MIG_GET_PRECOPY_INFO is asked
    PrecopyInfo,
    /// both hosts, once the session is given up
    /// | every device in RUNNING again (target: blank), and the abort frame sent
    /// | `cancel_bound`
    /// | the session ends as not returned (target: not blank); a thread that is in a driver is left
    /// there
    WayBack,
    /// the source, once the target runs or cannot be heard any more
    /// | every device in STOP, its data fd closed
    /// | `cancel_bound`
    /// | the session ends as handed over, or unconfirmed; that device's state is reported as unknown
    LettingGo,
    /// the target, once all devices run
    /// | the frame that says so, sent
    /// | `cancel_bound`
    /// | the session ends as running
    Farewell,
}

impl Wait {
    /// All waits, in their order.
    const ALL: [Wait; 7] = [
        Wait::LastWord,
        Wait::Silence,
        Wait::Ping,
        Wait::PrecopyInfo,
        Wait::WayBack,
        Wait::LettingGo,
        Wait::Farewell,
    ];
}

/// The deadlines of one owner: a machine, its peer, or one epoch of a device. They end with it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waits {
    until_ns: [Option<u64>; Wait::ALL.len()],
}

impl Waits {
    /// Begins a wait, or moves its deadline.
    pub(crate) fn set(&mut self, wait: Wait, until_ns: u64) {
        self.until_ns[wait as usize] = Some(until_ns);
    }

    /// When this wait is over, if it goes on.
    pub(crate) fn get(&self, wait: Wait) -> Option<u64> {
        self.until_ns[wait as usize]
    }

    /// Ends a wait.
    pub(crate) fn stop(&mut self, wait: Wait) {
        self.until_ns[wait as usize] = None;
    }

    /// The next deadline.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.until_ns.iter().flatten().copied().min()
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
