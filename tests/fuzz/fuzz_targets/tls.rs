//! A whole session over TLS, and somebody on its path.
#![no_main]

#[path = "../double.rs"]
mod double;
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/pki.rs"]
mod pki;
#[path = "../tls.rs"]
mod tls;
#[path = "../threads.rs"]
mod threads;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    threads::until_they_end(|| tls::tls(data));
});
