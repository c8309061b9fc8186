//! Replays the corpora of the fuzz targets that run whole sessions, an acceptor, or both.

#[path = "../../tests/fuzz/acceptor.rs"]
mod acceptor;
#[path = "../../tests/fuzz/double.rs"]
mod double;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/pki.rs"]
mod pki;
#[path = "../../tests/fuzz/session.rs"]
mod session;
#[path = "../../tests/fuzz/tls.rs"]
mod tls;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = format!("{}/../tests/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the corpus is committed") {
        let path = file.expect("an entry").path();
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("a file"));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn what_the_fuzzer_of_sessions_found_holds() {
    replay("session", session::session);
}

#[test]
fn what_the_fuzzer_of_the_acceptor_found_holds() {
    replay("acceptor", acceptor::acceptor);
}

#[test]
fn what_the_fuzzer_of_tls_found_holds() {
    replay("tls", tls::tls);
}
