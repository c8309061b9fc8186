//! What strangers cost an honest migration at the same door: every kind of them, and ten thousand.
//! That it completes and that they are counted is asserted, and what the door holds; the times are
//! printed, for bench/PERFORMANCE.md.

mod honest;
mod rows;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vfio_ferry::session::{Acceptor, DoorOptions, Protection};
use vfio_ferry_tests::pki::Authority;
use vfio_ferry_tests::skip::skip;

use honest::{Visit, door, wait_for_total};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ferry-crowd");
const MIB: u64 = 1 << 20;

/// The median, the least and the most, in ms.
fn spread(times: &mut [Duration]) -> (f64, String) {
    times.sort();
    let ms = |at: usize| times[at].as_secs_f64() * 1e3;
    let (median, last) = (ms(times.len() / 2), times.len() - 1);
    (median, format!("{median:.1} ({:.1} to {:.1})", ms(0), ms(last)))
}

fn print_row(name: &str, alone: &mut [Duration], beside: &mut [Duration], strangers: u64) {
    let migrations = beside.len();
    let ((quiet, alone), (loud, beside)) = (spread(alone), spread(beside));
    let ratio = loud / quiet;
    println!("| {name} | {alone} | {beside} | {ratio:.2} | {strangers} of {migrations} |");
}

/// Each kind in each moment of every other migration.
#[test]
#[ignore = "takes a minute; prints what strangers cost"]
fn every_kind_of_stranger() {
    const ROUNDS: usize = 15;
    println!("| | alone, ms | beside them, ms | ratio | strangers, of migrations |");
    for row in rows::all() {
        let door = door(DoorOptions::default());
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        let mut expected = 0;
        for _ in 0..ROUNDS {
            alone.push(Visit::new(64 * MIB).migrate(&door, &Protection::Loopback, |_, _| ()));
            beside.push(row.round(&door, 64 * MIB));
            expected += row.count * vfio_ferry_tests::moment::MOMENTS.len() as u64;
            wait_for_total(&door, expected);
        }
        assert_eq!(door.held(), 0);
        print_row(row.name, &mut alone, &mut beside, expected);
    }
}

/// The same, once and with little state: for every run of the tests.
#[test]
fn every_kind_of_stranger_in_each_moment() {
    for row in rows::all() {
        let door = door(DoorOptions::default());
        row.round(&door, MIB);
        wait_for_total(&door, row.count * vfio_ferry_tests::moment::MOMENTS.len() as u64);
        assert_eq!(door.held(), 0, "{}", row.name);
    }
}

/// The process of a crowd, which goes with this.
struct Crowd(Child);

impl Crowd {
    fn come(door: &Acceptor, count: usize, time: Duration) -> Crowd {
        let arguments = [
            door.local_addr().to_string(),
            count.to_string(),
            time.as_secs_f64().to_string(),
            "100".to_owned(),
        ];
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
        Crowd(command.spawn().expect("a process"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// VmRSS.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a known key");
    let kib = line.trim().strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.expect("a number") << 10
}

/// The most that this process had at once, of fds and of memory, while it was looked at.
#[derive(Default)]
struct Peak {
    fds: AtomicUsize,
    memory: AtomicUsize,
    held: AtomicUsize,
    over: AtomicBool,
}

impl Peak {
    fn watch(&self, door: &Acceptor) {
        while !self.over.load(Ordering::Acquire) {
            self.fds.fetch_max(fds(), Ordering::Relaxed);
            self.memory.fetch_max(memory_bytes() as usize, Ordering::Relaxed);
            self.held.fetch_max(door.held(), Ordering::Relaxed);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Migrations one after the other, for so long.
fn migrations(
    door: &Acceptor,
    source: &Protection,
    time: Duration,
    times: &mut Vec<Duration>,
) -> Peak {
    let peak = Peak::default();
    thread::scope(|scope| {
        scope.spawn(|| peak.watch(door));
        let until = Instant::now() + time;
        while Instant::now() < until {
            times.push(Visit::new(64 * MIB).migrate(door, source, |_, _| ()));
        }
        peak.over.store(true, Ordering::Release);
    });
    peak
}

/// 10,000 half-open connections over 30 s, from a hundred addresses, at a door without and at one with
/// TLS.
#[test]
#[ignore = "takes five minutes; prints what a flood costs"]
fn ten_thousand_over_half_a_minute() {
    const ROUNDS: usize = 3;
    const CROWD: usize = 10_000;
    const TIME: Duration = Duration::from_secs(30);
    let room = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if room.is_some_and(|room| room < CROWD as u64 + 100) {
        return skip("ten thousand connections: RLIMIT_NOFILE");
    }
    let (source, target) = Authority::throw_away().hosts();
    let loopback = (Protection::Loopback, Protection::Loopback);
    println!("| | alone, ms | beside them, ms | ratio | strangers, of migrations |");
    for (name, (source, protection)) in [("plain", loopback), ("TLS", (source, target))] {
        let door = door(DoorOptions { protection, ..DoorOptions::default() });
        let most = DoorOptions::default().connections_max;
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            let quiet = migrations(&door, &source, TIME / 3, &mut alone);
            let crowd = Crowd::come(&door, CROWD, TIME);
            let loud = migrations(&door, &source, TIME, &mut beside);
            drop(crowd);
            // None of them was ever let in, none is forgotten.
            wait_for_total(&door, (round * CROWD) as u64);
            let of = |peak: &Peak| {
                let value = |it: &AtomicUsize| it.load(Ordering::Relaxed);
                (value(&peak.fds), value(&peak.memory), value(&peak.held))
            };
            let (quiet, loud) = (of(&quiet), of(&loud));
            println!(
                "{name}, round {round}: fds {} and {}, memory {} and {} MiB, held {}",
                quiet.0,
                loud.0,
                quiet.1 >> 20,
                loud.1 >> 20,
                loud.2
            );
            assert!(loud.2 > most / 2 && loud.2 <= most, "they stood at the door: {}", loud.2);
            assert!(loud.0 <= quiet.0 + most + 50, "{} fds, {} without them", loud.0, quiet.0);
            let memory = quiet.1 + (32 << 20);
            assert!(loud.1 <= memory, "{} bytes, {} without them", loud.1, quiet.1);
        }
        print_row(name, &mut alone, &mut beside, (ROUNDS * CROWD) as u64);
    }
}
