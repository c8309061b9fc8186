//! A bar on a terminal, nothing elsewhere.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// The bar over all runs.
pub(crate) struct Progress {
    bar: ProgressBar,
    done_bytes: u64,
}

impl Progress {
    /// A bar for so many bytes; hidden where standard error is not a terminal.
    pub(crate) fn new(total_bytes: u64) -> Progress {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(total_bytes)
        } else {
            ProgressBar::hidden()
        };
        let template = "[{bar:30}] {binary_bytes}/{binary_total_bytes}, {eta} left; {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { bar, done_bytes: 0 }
    }

    /// A spinner, for a migration whose size nobody knows beforehand.
    pub(crate) fn of_unknown(what: &'static str) -> Progress {
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {binary_bytes}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress { bar, done_bytes: 0 }
    }

    /// Names what begins.
    pub(crate) fn begin(&mut self, what: String) {
        self.bar.set_message(what);
    }

    /// So many bytes of the current run have arrived.
    pub(crate) fn at(&mut self, bytes: u64) {
        self.bar.set_position(self.done_bytes + bytes);
    }

    /// The current run is over, and was to carry so many bytes.
    pub(crate) fn end(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        self.bar.set_position(self.done_bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
