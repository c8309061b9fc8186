//! `ferry-bench` measures the downtime of a VFIO device migration: see the library of this package.

fn main() -> std::process::ExitCode {
    vfio_ferry_bench::main()
}
