//! A whole session over TLS, and somebody on its path.
#![no_main]

#[path = "../double.rs"]
mod double;
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/pki.rs"]
mod pki;
#[path = "../tls.rs"]
mod tls;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tls::tls(data);
});
