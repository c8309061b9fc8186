//! Measures the downtime of a VFIO device migration.
fn main() {}
