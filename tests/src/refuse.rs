//! A kernel that refuses a system call: a seccomp filter on a thread of its own and on the threads
//! that it starts, as container runtimes install it on processes.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Runs `test` where `call` answers `errno`. A filter cannot be taken off again.
pub fn where_refused(call: libc::c_long, errno: i32, test: impl FnOnce() + Send + 'static) {
    let filtered = move || {
        let filter = SeccompFilter::new(
            [(call, Vec::new())].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.unsigned_abs()),
            std::env::consts::ARCH.try_into().expect("a known architecture"),
        );
        let program: BpfProgram = filter.expect("filter").try_into().expect("a filter of one rule");
        apply_filter(&program).expect("seccomp");
        test();
    };
    std::thread::spawn(filtered).join().expect("the filtered thread");
}
