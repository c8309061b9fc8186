//! What an operation costs on each backend: it prints that, and sees that the bytes are right.
//!
//! `cargo test --release -p vfio-ferry ring::tests::figures -- --ignored --nocapture`

use std::io::Write;

use super::*;
use crate::buffers::Arena;
use crate::ring::FileKind;

const CHUNK_BYTES: usize = 256 << 10;
const ROUNDS: u32 = 2000;

/// Reads `ROUNDS` chunks of ones, one after the other; gives the median and the mean time of one,
/// and the bytes of the average one.
fn reads(ring: &mut dyn Ring, fd: Arc<OwnedFd>, kind: FileKind, rewind: bool) -> [f64; 3] {
    let (_, mut slots) = Arena::new(1, CHUNK_BYTES).expect("arena");
    let file = ring.add_file(Arc::clone(&fd), kind).expect("add");
    let mut times = Vec::new();
    let mut bytes = 0;
    let mut done = Vec::new();
    for _ in 0..ROUNDS {
        let buffer = Buffer::Slot(slots.pop().expect("slot"));
        let start = Instant::now();
        submit(ring, 1, Op::read(file, buffer, 64..64 + CHUNK_BYTES));
        while done.is_empty() {
            ring.wait(None, &mut done).expect("wait");
        }
        times.push(start.elapsed().as_secs_f64() * 1e6);
        let Some(Done { result, buffer: Buffer::Slot(slot), .. }) = done.pop() else {
            panic!("another buffer came back")
        };
        let moved = result.expect("read");
        assert!(moved > 0 && slot.body()[..moved].iter().all(|&byte| byte == 1));
        bytes += moved;
        slots.push(slot);
        if rewind {
            rustix::fs::seek(&*fd, rustix::fs::SeekFrom::Current(-(CHUNK_BYTES as i64)))
                .expect("seek");
        }
    }
    ring.remove_file(file).expect("remove");
    let mean = times.iter().sum::<f64>() / f64::from(ROUNDS);
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], mean, bytes as f64 / f64::from(ROUNDS)]
}

/// A pipe of 1 MiB whose writer keeps it full.
fn full_pipe() -> Arc<OwnedFd> {
    let (reader, writer) = pipe();
    rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20).expect("pipe size");
    std::thread::spawn(move || {
        let mut writer = std::fs::File::from(writer);
        while writer.write_all(&[1; 1 << 20]).is_ok() {}
    });
    reader
}

#[test]
#[ignore = "takes a while; prints what a read costs"]
fn a_chunk_read_has_its_cost_and_its_bytes() {
    let memory = vec![1u8; CHUNK_BYTES];
    for round in 0..3 {
        for mut ring in rings() {
            let backend = ring.backend();
            let tell = |what: &str, [median, mean, bytes]: [f64; 3]| {
                let rate = bytes / mean / 1e3;
                println!(
                    "{round} {backend:?} {what}: median {median:.1} us, mean {mean:.1} us, \
                     {bytes:.0} bytes each, {rate:.2} GB/s"
                );
            };
            tell("pipe", reads(&mut *ring, full_pipe(), FileKind::Pollable, false));
            let file = std::fs::File::open("/proc/self/mem").expect("open");
            let own = Arc::new(OwnedFd::from(file));
            let place = rustix::fs::SeekFrom::Start(memory.as_ptr() as u64);
            rustix::fs::seek(&*own, place).expect("seek");
            let figures = reads(&mut *ring, own, FileKind::Blocking, true);
            tell("/proc/self/mem", figures);
            assert_eq!(figures[2], CHUNK_BYTES as f64, "memory is read whole");
        }
    }
}
