//! A whole session over a socket.
#![no_main]

#[allow(dead_code)]
#[path = "../double.rs"]
mod double;
#[path = "../session.rs"]
mod session;
#[path = "../threads.rs"]
mod threads;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    threads::until_they_end(|| session::session(data));
});
