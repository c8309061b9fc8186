//! Where io_uring is refused, `Auto` takes plain system calls, says why, and works; a choice of
//! io_uring fails with the reason. The refusal is real: a seccomp filter on the test's own thread,
//! as container runtimes install it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use vfio_ferry::buffers::Buffer;
use vfio_ferry::ring::{
    Backend, BackendChoice, BlockingThreads, Classes, Op, OpenError, RingConfig, Token, open,
};
use vfio_ferry_tests::refuse::where_refused;
use vfio_ferry_tests::skip::skip;

const CONFIG: RingConfig = RingConfig {
    backend: BackendChoice::Auto,
    depth: 4,
    files: 2,
    blocking: BlockingThreads::plain(1),
    zero_copy: None,
};

fn falls_back_and_says(call: libc::c_long, errno: i32, word: &'static str) {
    where_refused(call, errno, move || {
        let mut opened = open(&CONFIG).expect("Auto opens a ring");
        assert_eq!(opened.ring.backend(), Backend::Syscalls);
        let why = opened.fallback.take().expect("a fallback is told");
        assert!(why.contains(word) && !why.contains('\n'), "{why}");
        println!("{why}");

        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        rustix::io::write(&writer, b"works").expect("write");
        let classes = Classes::new().expect("a descriptor");
        let kind = classes.class(reader.as_fd()).expect("class");
        let file = opened.ring.add_file(Arc::new(reader), kind).expect("add");
        let op = Op::read(file, Buffer::Small(vec![0; 8]), 0..8);
        opened.ring.submit(Token(1), op).expect("submit");
        let mut done = Vec::new();
        opened.ring.wait(Some(Duration::from_secs(5)), &mut done).expect("wait");
        assert_eq!(done[0].result, Ok(5));

        let only = RingConfig { backend: BackendChoice::IoUring, ..CONFIG };
        match open(&only).map(|_| ()) {
            Err(refused @ OpenError::Refused { .. }) => {
                assert!(refused.to_string().contains(word), "{refused}");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn setup_refused_with_eperm() {
    falls_back_and_says(libc::SYS_io_uring_setup, libc::EPERM, "EPERM");
}

#[test]
fn setup_refused_with_enosys() {
    falls_back_and_says(libc::SYS_io_uring_setup, libc::ENOSYS, "ENOSYS");
}

#[test]
fn setup_refused_with_eacces() {
    falls_back_and_says(libc::SYS_io_uring_setup, libc::EACCES, "EACCES");
}

#[test]
fn setup_without_memory() {
    falls_back_and_says(libc::SYS_io_uring_setup, libc::ENOMEM, "ENOMEM");
}

#[test]
fn register_refused_where_setup_is_not() {
    falls_back_and_says(libc::SYS_io_uring_register, libc::EPERM, "EPERM");
}

#[test]
fn enter_refused_where_setup_is_not() {
    falls_back_and_says(libc::SYS_io_uring_enter, libc::EPERM, "EPERM");
}

#[test]
fn what_is_not_a_refusal_is_an_error() {
    where_refused(libc::SYS_io_uring_setup, libc::EMFILE, || match open(&CONFIG).map(|_| ()) {
        Err(OpenError::Io(error)) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE)),
        other => panic!("{other:?}"),
    });
}

#[test]
fn without_a_filter_nothing_is_told() {
    let opened = open(&CONFIG).expect("a ring");
    match opened.fallback {
        None => assert_eq!(opened.ring.backend(), Backend::IoUring),
        Some(why) => skip(why),
    }
}
