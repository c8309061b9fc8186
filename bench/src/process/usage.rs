//! Clocks and counters of this process.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, the same for all processes of the host.
pub(crate) fn monotonic_ns() -> u64 {
    read(ClockId::Monotonic)
}

/// CPU that all threads of this process have used, in user space and in the kernel.
pub(crate) fn process_cpu_ns() -> u64 {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

static DEVICE_CPU_NS: AtomicU64 = AtomicU64::new(0);

/// Adds what the calling thread has used since it last called this to [`device_cpu_ns`].
pub(crate) fn count_device_thread() {
    thread_local!(static COUNTED_NS: Cell<u64> = const { Cell::new(0) });
    let used = read(ClockId::ThreadCPUTime);
    DEVICE_CPU_NS.fetch_add(used - COUNTED_NS.replace(used), Ordering::Relaxed);
}

/// CPU that the test devices' own threads have used: the part of the process's that a real device
/// would not use.
pub(crate) fn device_cpu_ns() -> u64 {
    DEVICE_CPU_NS.load(Ordering::Relaxed)
}

/// The most memory that this process ever had (VmHWM); 0 where /proc does not tell.
pub(crate) fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        assert!(peak_rss_bytes() > 100 << 10);
        assert!(process_cpu_ns() > 0);
        let before = monotonic_ns();
        assert!(monotonic_ns() >= before);
    }

    #[test]
    fn a_device_thread_counts_once() {
        let before = device_cpu_ns();
        let used = std::thread::spawn(|| {
            std::hint::black_box((0..1_000_000u64).fold(0, |sum, i| sum ^ std::hint::black_box(i)));
            count_device_thread();
            count_device_thread();
            read(ClockId::ThreadCPUTime)
        });
        let used = used.join().unwrap_or(0);
        assert!(device_cpu_ns() > before && used > 0);
    }
}
