//! What a running session measured, for the embedder to look at: a copy, published now and then.

use std::sync::{Arc, Mutex, PoisonError};

use crate::drive::waits::FIGURES_EVERY;
use crate::metrics::{Metrics, StreamMetrics};

const EVERY_NS: u64 = FIGURES_EVERY.as_nanos() as u64;

/// See the module's text.
#[derive(Debug)]
pub(in crate::drive) struct Live {
    shared: Arc<Mutex<Metrics>>,
    /// When the next copy is due; none while nothing was measured since the last.
    due_ns: Option<u64>,
    published_ns: u64,
}

impl Live {
    pub(in crate::drive) fn new(shared: Arc<Mutex<Metrics>>) -> Live {
        Live { shared, due_ns: None, published_ns: 0 }
    }

    /// Something may have been measured.
    pub(in crate::drive) fn touch(&mut self) {
        self.due_ns.get_or_insert(self.published_ns + EVERY_NS);
    }

    /// When the drive should look again.
    pub(in crate::drive) fn deadline_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// Publishes if it is time.
    pub(in crate::drive) fn look(
        &mut self,
        now_ns: u64,
        metrics: &Metrics,
        streams: impl Iterator<Item = StreamMetrics>,
    ) {
        if self.due_ns.is_none_or(|due| due > now_ns) {
            return;
        }
        (self.due_ns, self.published_ns) = (None, now_ns);
        let mut copy = metrics.clone();
        copy.streams.iter_mut().zip(streams).for_each(|(slot, measured)| *slot = measured);
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = copy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_made_when_it_is_due_and_not_before() {
        let shared = Arc::new(Mutex::new(Metrics::new(1, 0)));
        let mut live = Live::new(Arc::clone(&shared));
        let mut metrics = Metrics::new(1, 0);
        metrics.devices[0].state_bytes = 7;
        let seen = || shared.lock().expect("no panic").devices[0].state_bytes;

        live.look(EVERY_NS, &metrics, std::iter::empty());
        assert_eq!((seen(), live.deadline_ns()), (0, None), "nothing was measured");
        live.touch();
        assert_eq!(live.deadline_ns(), Some(EVERY_NS));
        live.look(EVERY_NS - 1, &metrics, std::iter::empty());
        assert_eq!(seen(), 0);
        live.look(EVERY_NS, &metrics, std::iter::empty());
        assert_eq!((seen(), live.deadline_ns()), (7, None));
        live.touch();
        assert_eq!(live.deadline_ns(), Some(2 * EVERY_NS));
    }
}
