//! A subscriber of the engine's log that panics, once, on the thread of a session: in the middle of
//! what that does when a phase begins.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static ARMED: Mutex<Option<(&str, &str)>> = Mutex::new(None);

thread_local! {
    /// Which host's session this thread is of.
    static HOST: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Only one test at a time has sessions: which of them was to panic would be a matter of chance.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread of this host's session panics when the phase of this name begins.
pub(crate) fn arm(host: &'static str, phase: &'static str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Panics).expect("the first"));
    *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = Some((host, phase));
}

/// Whether it has panicked.
pub(crate) fn is_spent() -> bool {
    ARMED.lock().unwrap_or_else(PoisonError::into_inner).is_none()
}

struct Panics;

/// Finds a field's text.
struct Text(&'static str, Option<String>);

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.0 {
            self.1 = Some(value.to_owned());
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl Subscriber for Panics {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut host = Text("host", None);
        span.record(&mut host);
        match host.1.as_deref() {
            Some("source") => HOST.set(Some("source")),
            Some("target") => HOST.set(Some("target")),
            _ => {}
        }
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut phase = Text("phase", None);
        event.record(&mut phase);
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let here = HOST.get().zip(phase.1.as_deref());
        if armed.is_some() && *armed == here {
            *armed = None;
            drop(armed);
            panic!("a defect that this test has put in");
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
