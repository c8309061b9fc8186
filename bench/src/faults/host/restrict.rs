//! What a host's kernel does not allow it.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

use crate::faults::message::Choices;

/// Takes away what the description says.
pub(super) fn restrict(choices: &Choices) -> Result<(), String> {
    if choices.no_io_uring {
        refuse_io_uring().map_err(|error| format!("seccomp: {error}"))?;
    }
    if let Some(spare) = choices.spare_fds {
        limit_fds(spare).map_err(|error| format!("RLIMIT_NOFILE: {error}"))?;
    }
    Ok(())
}

/// As container runtimes do: io_uring_setup answers EPERM.
fn refuse_io_uring() -> Result<(), Box<dyn std::error::Error>> {
    let filter = SeccompFilter::new(
        [(libc::SYS_io_uring_setup, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter_all_threads(&program)?;
    Ok(())
}

/// Lets this process open so many more fds.
fn limit_fds(spare: u64) -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // The folder's own fd is one of those that are listed, and gone when that is done.
    let open = std::fs::read_dir("/proc/self/fd")?.count() as u64 - 1;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(open + spare), maximum })?;
    Ok(())
}
