//! Suite `ferry-dev-faults`: everything that our kernel test device can do wrong, each at its
//! place, on fds of both kinds and on both backends, with the cause and the observation that the
//! engine must give for it; and what the embedder chose for a reset.

mod abort;
mod restart;
mod run;
mod table;
mod trail;

use vfio_ferry::ring::BackendChoice;

use crate::checks::Checks;
use table::CASES;

/// Runs the suite.
pub(crate) fn run(checks: &mut Checks) {
    for (ring, backend) in
        [("io_uring", BackendChoice::IoUring), ("system calls", BackendChoice::Syscalls)]
    {
        for (fd, pollable) in [("pollable", true), ("not pollable", false)] {
            for case in CASES {
                let name = format!("{}: {fd}, {ring}", case.name);
                checks.check(name, || run::run(case, pollable, backend));
            }
            abort::run(checks, &format!("{fd}, {ring}"), pollable, backend);
            restart::run(checks, &format!("{fd}, {ring}"), pollable, backend);
        }
    }
}
