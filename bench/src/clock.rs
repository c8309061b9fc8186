//! Clocks.

use nix::sys::resource::{UsageWho, getrusage};
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, the same for all processes of the host.
pub(crate) fn monotonic_ns() -> u64 {
    read(ClockId::Monotonic)
}

/// CPU that all threads of this process have used, and its children that it has waited for, in user
/// space and in the kernel.
pub(crate) fn process_cpu_ns() -> u64 {
    let of_children = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| {
        [usage.user_time(), usage.system_time()]
            .map(|time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_usec() as u64 * 1000)
            .iter()
            .sum()
    });
    read(ClockId::ProcessCPUTime) + of_children
}

/// CPU that the calling thread has used.
pub(crate) fn thread_cpu_ns() -> u64 {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_on() {
        let before = monotonic_ns();
        assert!(monotonic_ns() >= before);
        assert!(process_cpu_ns() > 0 && thread_cpu_ns() > 0);
    }
}
