//! Making an io_uring: the best set-up that this kernel grants, and a plain answer where it lacks
//! what the backend cannot do without.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::errno;
use crate::ring::RingConfig;
use crate::ring::refusal::{OpenError, refusal};

/// Operations that the backend needs, by the kernel's names.
const NEEDED: [(u8, &str); 6] = [
    (opcode::Read::CODE, "IORING_OP_READ"),
    (opcode::Write::CODE, "IORING_OP_WRITE"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::Recv::CODE, "IORING_OP_RECV"),
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
];

/// An io_uring, and what it turned out to have.
pub(super) struct Setup {
    pub(super) ring: IoUring,
    /// A table for registered files is in place.
    pub(super) fixed_files: bool,
    /// The kernel knows SEND_ZC.
    pub(super) send_zc: bool,
}

/// How completions are delivered, the best first. DEFER_TASKRUN (6.1, with SINGLE_ISSUER) runs
/// them inside `wait` only; COOP_TASKRUN (5.19) spares the interrupt; older kernels have neither
/// and answer EINVAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Deferred,
    Cooperative,
    Plain,
}

/// Makes the ring on the calling thread, which becomes its single issuer.
pub(super) fn setup(config: &RingConfig) -> Result<Setup, OpenError> {
    let ring = build(config).map_err(refusal)?;
    check_features(&ring)?;
    let mut probe = Probe::new();
    match ring.submitter().register_probe(&mut probe) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(errno::EINVAL) => {
            return Err(lacking("IORING_REGISTER_PROBE"));
        }
        Err(error) => return Err(refusal(error)),
    }
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(code, _)| !probe.is_supported(*code))
        .map(|(_, name)| *name)
        .collect();
    if !missing.is_empty() {
        return Err(lacking(&missing.join(", ")));
    }
    bound_workers(&ring, config);
    let fixed_files = register_file_table(&ring, config.files);
    Ok(Setup { ring, fixed_files, send_zc: probe.is_supported(opcode::SendZc::CODE) })
}

fn build(config: &RingConfig) -> io::Result<IoUring> {
    // Submissions: each operation has one entry at a time, and a cancel; then the waker's poll.
    let submissions = 2 * config.depth + 1;
    // Completions: an operation's own, a notification, its cancel's, and a second cancel's when
    // the first was late; the waker's. An overflow is not lost (NODROP), only slow.
    let completions = 4 * config.depth + 1;
    let mut refused = io::Error::from_raw_os_error(errno::EINVAL);
    for mode in [Mode::Deferred, Mode::Cooperative, Mode::Plain] {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(completions);
        match mode {
            Mode::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag()
            }
            Mode::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
            Mode::Plain => &mut builder,
        };
        match builder.build(submissions.next_power_of_two()) {
            Ok(ring) => {
                tracing::debug!(?mode, "io_uring is set up");
                return Ok(ring);
            }
            Err(error) if error.raw_os_error() == Some(errno::EINVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// Features without a fallback here: completions that are never dropped, reads at the file's own
/// position, and waiting with a timeout.
fn check_features(ring: &IoUring) -> Result<(), OpenError> {
    let params = ring.params();
    let features = [
        (params.is_feature_nodrop(), "IORING_FEAT_NODROP"),
        (params.is_feature_rw_cur_pos(), "IORING_FEAT_RW_CUR_POS"),
        (params.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
    ];
    let missing: Vec<&str> =
        features.iter().filter(|(present, _)| !present).map(|(_, name)| *name).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(lacking(&missing.join(", "))),
    }
}

/// Kernel workers are otherwise bounded by RLIMIT_NPROC alone. A file has at most one read and one
/// write on a worker, so that this many never keep one another waiting.
fn bound_workers(ring: &IoUring, config: &RingConfig) {
    let workers = (2 * config.files).min(config.depth);
    if let Err(error) = ring.submitter().register_iowq_max_workers(&mut [workers, workers]) {
        tracing::debug!(%error, "the number of kernel workers stays unbounded");
    }
}

/// Registered files spare a reference count on every operation. Without them all works as well.
pub(super) fn register_file_table(ring: &IoUring, files: u32) -> bool {
    let empty = || ring.submitter().register_files(&vec![-1; files as usize]);
    match ring.submitter().register_files_sparse(files).or_else(|_| empty()) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "files cannot be registered; using plain descriptors");
            false
        }
    }
}

fn lacking(missing: &str) -> OpenError {
    OpenError::Lacking { missing: missing.to_owned() }
}
