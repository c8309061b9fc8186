//! What happened, line by line: written only for a seed that is being replayed.

use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Starts to keep lines on this thread.
pub(crate) fn start() {
    LINES.set(Some(Vec::new()));
}

/// The lines that were kept.
pub(crate) fn stop() -> Vec<String> {
    LINES.take().unwrap_or_default()
}

pub(crate) fn is_on() -> bool {
    LINES.with_borrow(Option::is_some)
}

pub(crate) fn push(line: String) {
    LINES.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            lines.push(line);
        }
    });
}

/// Keeps a line; costs nothing while no seed is being replayed.
macro_rules! trace {
    ($($part:tt)*) => {
        if $crate::trace::is_on() {
            $crate::trace::push(format!($($part)*));
        }
    };
}
pub(crate) use trace;
