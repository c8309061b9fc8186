//! What a test prints where this machine lacks something. The file needs nothing else of this
//! crate: the unit tests of `engine` include it with `#[path]`.

use std::fmt::Display;

/// Prints the one line that `tests/run` counts as a skipped test, and with CI=true as a failed
/// one. The test then returns; what it could check without the missing thing still counts.
pub fn skip(reason: impl Display) {
    println!("{}", line(reason));
}

/// The line: one, whatever the reason looks like.
fn line(reason: impl Display) -> String {
    format!("SKIP host: {}", reason.to_string().replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(line("no FUSE:\nEPERM"), "SKIP host: no FUSE: EPERM");
    }
}
