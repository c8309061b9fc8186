//! Replays the corpus of the fuzz target `session`.

#[path = "../../tests/fuzz/session.rs"]
mod session;

#[test]
fn what_the_fuzzer_found_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/session");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the corpus is committed") {
        let path = file.expect("an entry").path();
        println!("{}", path.display());
        session::session(&std::fs::read(&path).expect("a file"));
        count += 1;
    }
    assert!(count > 0);
}
