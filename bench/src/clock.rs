//! Clocks.

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, the same for all processes of the host.
pub(crate) fn monotonic_ns() -> u64 {
    read(ClockId::Monotonic)
}

/// CPU that all threads of this process have used, in user space and in the kernel.
pub(crate) fn process_cpu_ns() -> u64 {
    read(ClockId::ProcessCPUTime)
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
