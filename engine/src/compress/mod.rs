//! Compression: a pure controller that chooses raw or zstd for each chunk ([`policy`]), the codec
//! itself ([`codec`]), and a pool of workers (`workers`).

pub mod codec;
pub mod policy;
pub mod workers;
