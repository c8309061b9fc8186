//! A peer's text, made safe to print: in a terminal, a log or a C string it can be what it says and
//! nothing else.
//!
//! What moves a cursor, ends a line or a string, turns the direction of the text around it or
//! cannot be seen at all would let a peer forge what an operator reads.

#![forbid(unsafe_code)]

use crate::limits::TEXT_BYTES_MAX;

/// Unicode's control characters are asked of the standard library; these are its other characters
/// without a shape of their own: the line and paragraph separators, those of
/// `Default_Ignorable_Code_Point` (marks of direction, zero-width spaces and joiners, fillers,
/// variation selectors, tags), and the marks of interlinear annotation.
const UNSEEN: [(char, char); 17] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// The first character of the text that has no shape of its own; none if all can be seen.
pub(crate) fn unseen(text: &str) -> Option<char> {
    text.chars().find(|c| is_unseen(*c))
}

/// The text with U+FFFD for each character that has no shape of its own, cut to
/// [`TEXT_BYTES_MAX`] bytes. Cleaning a second time changes nothing.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        let c = if is_unseen(c) { char::REPLACEMENT_CHARACTER } else { c };
        if clean.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        clean.push(c);
    }
    clean
}

fn is_unseen(c: char) -> bool {
    c.is_control() || UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_says_what_it_is_stays() {
        let seen = [
            "",
            "device 0 was reset (ENODEV), see the log: 50 % \\ \"quoted\" 'it' <b>",
            "Gerät 0000:3b:00.2 é \u{65}\u{301}",
            "устройство, 設備, التهجير",
            "\u{fffd} 🦀",
        ];
        for text in seen {
            assert_eq!((clean(text).as_str(), unseen(text)), (text, None));
        }
    }

    #[test]
    fn what_would_forge_a_log_a_terminal_or_a_c_string_is_replaced() {
        let table = [
            ("\x1b[2J\x1b[31mall is well\x1b[0m", "\u{fffd}[2J\u{fffd}[31mall is well\u{fffd}[0m"),
            ("\u{9b}31mC1", "\u{fffd}31mC1"),
            ("one\ntwo\r\nthree\ttab", "one\u{fffd}two\u{fffd}\u{fffd}three\u{fffd}tab"),
            ("a C string\0ends", "a C string\u{fffd}ends"),
            (
                "back\u{8}space \u{7}bell \u{7f}delete",
                "back\u{fffd}space \u{fffd}bell \u{fffd}delete",
            ),
            ("next\u{85}line", "next\u{fffd}line"),
            ("line\u{2028}paragraph\u{2029}", "line\u{fffd}paragraph\u{fffd}"),
            (
                "\u{feff}\u{ad}\u{200b}\u{200c}\u{200d}\u{2060}",
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            ),
            ("tag\u{e0041}\u{e007f}", "tag\u{fffd}\u{fffd}"),
            ("filler\u{3164}\u{ffa0}\u{115f}", "filler\u{fffd}\u{fffd}\u{fffd}"),
        ];
        for (text, expected) in table {
            assert_eq!(clean(text), expected, "{text:?}");
            assert_eq!(clean(expected), expected);
            assert!(unseen(text).is_some() && unseen(expected).is_none(), "{text:?}");
        }
    }

    #[test]
    fn no_mark_of_direction_passes() {
        let marks = ['\u{200e}', '\u{200f}', '\u{61c}'].into_iter();
        for mark in marks.chain('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            assert_eq!(clean(&format!("a{mark}b")), "a\u{fffd}b", "{mark:?}");
        }
    }

    #[test]
    fn what_grows_is_cut_between_characters() {
        let long = clean(&"\x1b".repeat(TEXT_BYTES_MAX));
        assert_eq!(long, "\u{fffd}".repeat(TEXT_BYTES_MAX / 3));
        let whole = "x".repeat(TEXT_BYTES_MAX);
        assert_eq!(clean(&whole), whole);
        assert_eq!(clean(&format!("{whole}y")), whole);
    }
}
