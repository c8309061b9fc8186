//! All that is unsafe about C's pointers is in `src/raw.rs`: elsewhere an unsafe block only hands an
//! argument of an exported function to it.

use std::path::Path;

/// What an unsafe block outside of raw.rs may begin with.
const HANDED_ON: [&str; 5] = ["raw::", "self::name(", "Parts::new(", "duplicates(", "close_fds("];

#[test]
fn only_raw_looks_at_pointers() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in std::fs::read_dir(sources).expect("src") {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        if path.ends_with("raw.rs") {
            continue;
        }
        for (index, _) in text.match_indices("unsafe {") {
            let inside = text[index + "unsafe {".len()..].trim_start();
            let handed_on = HANDED_ON.iter().any(|call| inside.starts_with(call));
            let line = text[..index].lines().count();
            assert!(handed_on, "{}:{line}: belongs in raw.rs", path.display());
        }
    }
}
