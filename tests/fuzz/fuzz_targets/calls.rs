//! The C interface.
#![no_main]

#[path = "../calls.rs"]
mod calls;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    calls::calls(data);
});
