//! On what a report was measured: without it, figures of two reports cannot be compared.

use std::fs;

use serde::Serialize;

/// The host, as far as the figures depend on it. What the host does not tell is empty or 0.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Its name.
    pub(crate) host: String,
    /// The kernel's release and version.
    pub(crate) kernel: String,
    /// The processor's name, and its architecture.
    cpu: String,
    /// Processors that this process may use.
    pub(crate) cpus: usize,
    /// Bytes of memory.
    memory_bytes: u64,
    /// Processes that wanted a processor in the last minute, on average, when the report was written:
    /// the benchmark's own are among them.
    load: f64,
    /// This program's version.
    pub(crate) ferry_bench: &'static str,
    /// Optimised, or a build for tests.
    pub(crate) build: &'static str,
}

impl Machine {
    /// This one, now.
    pub(crate) fn new() -> Machine {
        let cpu = of_table("/proc/cpuinfo", "model name").unwrap_or_default();
        let load = read("/proc/loadavg");
        Machine {
            host: read("/proc/sys/kernel/hostname"),
            kernel: [read("/proc/sys/kernel/osrelease"), read("/proc/sys/kernel/version")]
                .join(" "),
            cpu: format!("{cpu} {}", std::env::consts::ARCH).trim_start().to_owned(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_bytes("MemTotal"),
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            ferry_bench: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

/// A line of /proc/meminfo in bytes; 0 if there is none.
pub(crate) fn memory_bytes(name: &str) -> u64 {
    let line = of_table("/proc/meminfo", name).unwrap_or_default();
    let kib = line.strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib << 10)
}

fn of_table(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split(':').next().map(str::trim) == Some(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells() {
        let machine = Machine::new();
        assert!(machine.cpus > 0 && machine.memory_bytes > 64 << 20, "{machine:?}");
        assert!(!machine.kernel.trim().is_empty() && !machine.cpu.is_empty(), "{machine:?}");
        assert!(memory_bytes("MemAvailable") > 0);
        assert_eq!(memory_bytes("NoSuchMemory"), 0);
    }
}
