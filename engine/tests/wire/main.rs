//! The wire against bytes that did not come from it: golden vectors, hostile bytes, arbitrary
//! frames, replayed fuzz corpora. The vectors and corpora are in the repository's `tests/`.

#[path = "../../../tests/fuzz/checks.rs"]
mod checks;
mod wire_digest;
mod wire_grid;
mod wire_handshake;
mod wire_numbers;
mod wire_properties;
mod wire_replay;
mod wire_samples;
mod wire_vectors;
