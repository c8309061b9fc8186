//! The least embedders in Rust, as two processes, and in how few lines they are written.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// What README.md says of them.
const LINES_MAX: usize = 60;

/// An example that cargo has built beside this test.
fn example(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("this test is a program");
    folder.pop();
    let program = folder.with_file_name("examples").join(name);
    assert!(program.exists(), "{}: cargo build --examples", program.display());
    program
}

fn start(name: &str, address: &str, state: &std::path::Path) -> Child {
    Command::new(example(name))
        .arg(address)
        .arg(state)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts")
}

#[test]
fn the_least_embedders_move_a_device() {
    let folder = std::env::temp_dir().join(format!("vfio-ferry-examples-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let (leaving, coming) = (folder.join("leaving"), folder.join("coming"));
    let state: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 7) as u8).collect();
    fs::write(&leaving, &state).expect("a file");

    let mut target = start("target", "127.0.0.1:0", &coming);
    let mut said = BufReader::new(target.stdout.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says where it listens");
    let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
    // Nobody reads on: what it says has room in the pipe.
    let source = start("source", &address, &leaving);
    let sent = source.wait_with_output().expect("it ends");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
    assert!(target.wait().expect("it ends").success());
    assert_eq!(fs::read(&coming).expect("a file"), state);
    fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn the_least_embedders_are_short() {
    for text in [include_str!("../examples/source.rs"), include_str!("../examples/target.rs")] {
        assert!(text.lines().count() < LINES_MAX, "{} lines", text.lines().count());
    }
}
