//! Programs of `tests/c` against the library as cargo has just built it. `tests/run c` tries all of
//! them, with the installed library, under every compiler and sanitizer; here a change of the ABI's
//! behaviour is noticed by `cargo test`.

#[path = "../../tests/src/skip.rs"]
#[expect(unreachable_pub, reason = "the file is another crate's, too")]
mod skip;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Beside this test: cargo builds all kinds of the library that a test is linked with.
const BUILT: &str = "libvfio_ferry_ffi.so";
/// By which a program finds it at run time.
const SONAME: &str = "libvfio_ferry.so.3";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compiles the program, and runs it.
fn holds(program: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program);
    std::fs::create_dir_all(&folder).expect("a folder");
    let test = std::env::current_exe().expect("this program");
    let library = folder.join(SONAME);
    let _ = std::fs::remove_file(&library);
    std::os::unix::fs::symlink(test.with_file_name(BUILT), &library).expect("a link");
    let sources = root().join("tests/c");
    let compiled = folder.join(program);
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-D_GNU_SOURCE", "-pthread", "-I"]).arg(root().join("include"));
    compiler.arg(sources.join(program).with_extension("c")).arg(sources.join("double.c"));
    compiler.arg("-o").arg(&compiled).arg(&library);
    compiler.arg(format!("-Wl,-rpath,{}", folder.display()));
    let output = match compiler.output() {
        Ok(output) => output,
        Err(error) => return skip::skip(format!("no C compiler: {error}")),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(&compiled).output().expect("it was just compiled");
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "{program}: {}\n{}", output.status, said.join("\n"));
}

#[test]
fn devices_of_the_vmm_move() {
    holds("embedded");
}

#[test]
fn devices_of_the_engine_move() {
    holds("driven");
}

#[test]
fn every_ending_is_told() {
    holds("endings");
}

#[test]
fn channels_carry_a_session() {
    holds("channel");
}

#[test]
fn misuse_is_refused() {
    holds("misuse");
}

#[test]
fn misuse_of_streams_is_refused() {
    holds("misuse_streams");
}

#[test]
fn misuse_of_sessions_is_refused() {
    holds("misuse_session");
}

#[test]
fn whole_frames_arrive_in_any_order() {
    holds("frames");
}
