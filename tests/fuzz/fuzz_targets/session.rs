//! A whole session over a socket.
#![no_main]

#[path = "../double.rs"]
mod double;
#[path = "../session.rs"]
mod session;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    session::session(data);
});
