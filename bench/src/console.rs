//! Standard output and standard error, of which either may be closed or full.
//!
//! `print!` panics there. A reader that has gone away (`ferry-bench | head -1`) is no failure: what it
//! does not want to hear is not said, and the exit status is the migrations'. A disk that is full is one:
//! the report is not whole.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The first thing that went wrong with standard output; nothing is written after it.
static BROKEN: Mutex<Option<io::Error>> = Mutex::new(None);

/// `print!`, without its panic.
macro_rules! say {
    ($($what:tt)*) => { $crate::console::out(format_args!($($what)*)) };
}
pub(crate) use say;

/// Writes to standard output.
pub(crate) fn out(what: Arguments<'_>) {
    let mut broken = broken();
    if broken.is_none() {
        *broken = io::stdout().write_fmt(what).err();
    }
}

/// A line on standard error. If that cannot be written, nobody can be told so.
pub(crate) fn complain(what: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "ferry-bench: {what}");
}

/// Writes what is still buffered, and says why not all of standard output was written, unless it is
/// that nobody reads it any more.
pub(crate) fn close() -> io::Result<()> {
    let mut broken = broken();
    if broken.is_none() {
        *broken = io::stdout().flush().err();
    }
    match broken.take() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn broken() -> MutexGuard<'static, Option<io::Error>> {
    BROKEN.lock().unwrap_or_else(PoisonError::into_inner)
}
