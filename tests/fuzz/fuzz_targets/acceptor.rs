//! An acceptor, and a crowd at its door.
#![no_main]

#[path = "../acceptor.rs"]
mod acceptor;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    acceptor::acceptor(data);
});
