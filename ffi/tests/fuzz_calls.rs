//! Replays the corpus of the fuzz target `calls`.
#![allow(unsafe_code)]

#[path = "../../tests/fuzz/calls.rs"]
mod calls;

#[test]
fn what_the_fuzzer_found_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/calls");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the corpus is committed") {
        let path = file.expect("an entry").path();
        println!("{}", path.display());
        calls::calls(&std::fs::read(&path).expect("a file"));
        count += 1;
    }
    assert!(count > 0);
}
