//! The C interface.
#![no_main]

#[path = "../calls.rs"]
mod calls;
#[path = "../threads.rs"]
mod threads;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    threads::until_they_end(|| calls::calls(data));
});
