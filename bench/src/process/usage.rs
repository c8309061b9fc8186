//! What this process has used.

use nix::sys::resource::{UsageWho, getrusage};

/// The most memory that this process ever had (VmHWM; 0 where /proc does not tell), with the most that
/// a child of it had.
pub(crate) fn peak_rss_bytes() -> u64 {
    let of_children = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_or(0, |usage| u64::try_from(usage.max_rss()).unwrap_or(0) << 10);
    own_peak_bytes() + of_children
}

fn own_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib << 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_answers() {
        assert!(super::peak_rss_bytes() > 100 << 10);
    }
}
