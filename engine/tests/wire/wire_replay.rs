//! The fuzz targets' corpora on a stable compiler: seeds, and whatever fuzzing once found.

use std::fs;

use crate::checks;
use crate::wire_samples::tests_dir;

fn replay(target: &str, mut check: impl FnMut(&str, &[u8])) {
    let dir = tests_dir().join("fuzz/corpus").join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&dir).expect("the corpus is committed") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        check(&name, &fs::read(&path).expect("readable"));
        seeds += 1;
    }
    assert!(seeds > 0, "{} is empty", dir.display());
}

#[test]
fn wire_fuzz_corpus_header() {
    replay("header", |_, data| checks::header(data));
}

#[test]
fn wire_fuzz_corpus_body() {
    replay("body", |_, data| checks::body(data));
}

#[test]
fn wire_fuzz_corpus_stream() {
    replay("stream", |name, data| {
        let frames = checks::stream(data);
        // A cut stream whose last frame is a bare header still loses that one.
        let expected = match name {
            "source" => 13,
            "target" => 7,
            "aborted" => 4,
            "newer" => 2,
            "source_cut" => 12,
            "target_cut" => 6,
            "aborted_cut" => 3,
            "newer_cut" => 1,
            // Of the four that are there, the third shows that one is missing before it.
            "gap" | "gap_cut" => 2,
            _ => frames,
        };
        assert_eq!(frames, expected, "{name}");
    });
}
