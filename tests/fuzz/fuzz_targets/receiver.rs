//! The receiver, in the simulated world: devices, network and clock do what the bytes choose, and a
//! source that lies as often as they say. What must hold is what holds there for every seed.
#![no_main]
#![allow(dead_code)]

include!("../world.rs");

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(broken) = tape::run(data, schedule::SOURCE) {
        panic!("{}: {}", broken.invariant, broken.found);
    }
});
