//! Two hosts, a link and a [`Controller`], in simulated time: what a policy is worth, without
//! the noise of a real machine (and with some of its own, from a seed).
//!
//! ```text
//! reader -> [choose] -> workers -> in order -> sender thread -> socket buffer -> link
//!        -> socket buffer -> receiver thread -> workers -> in order -> writer
//! ```
//! A host's runnable threads share its cores evenly. Costs are PERF's on one core, in nanoseconds
//! per byte: read 4.6 GB/s, write 6.5, TCP send 0.15 s/GB and receive 0.08, zstd as measured.

use std::collections::VecDeque;

use super::{Choice, Controller, LEVELS, Policy, QueueView};

const CHUNK: u64 = 256 << 10;
const READ_NS: f64 = 1.0 / 4.6;
const WRITE_NS: f64 = 1.0 / 6.5;
const SEND_NS: f64 = 0.15;
const RECEIVE_NS: f64 = 0.08;
const PROBE_NS: f64 = 10_000.0;
const SOCKET_BYTES: f64 = 2e6;

/// What a kind of data does at each of LEVELS: compression and decompression in GB/s, and ratio.
#[derive(Clone, Copy)]
struct Data {
    name: &'static str,
    compress: [f64; 4],
    ratio: [f64; 4],
    decompress: [f64; 4],
}

const STATE: Data = Data {
    name: "state",
    compress: [1.5, 1.2, 0.8, 0.3],
    ratio: [5.0, 7.7, 7.0, 7.9],
    decompress: [3.6, 3.7, 3.2, 3.2],
};
const ELF: Data = Data {
    name: "elf",
    compress: [0.69, 0.47, 0.27, 0.1],
    ratio: [1.89, 2.67, 2.96, 3.1],
    decompress: [2.1, 1.3, 1.1, 1.1],
};
const WEAK: Data = Data {
    name: "weak",
    compress: [0.9, 0.5, 0.3, 0.12],
    ratio: [1.1, 1.3, 1.4, 1.45],
    decompress: [3.0, 2.0, 1.8, 1.8],
};
const NOISE: Data =
    Data { name: "noise", compress: [5.7, 5.0, 4.0, 3.0], ratio: [1.0; 4], decompress: [14.0; 4] };

/// The data of chunk `index` of `total`.
type Contents = fn(u64, u64) -> Data;
const CONTENTS: [(&str, Contents); 6] = [
    ("state", |_, _| STATE),
    ("elf", |_, _| ELF),
    ("weak", |_, _| WEAK),
    ("noise", |_, _| NOISE),
    ("elf+noise", |index, _| if index / 20 % 2 == 0 { ELF } else { NOISE }),
    ("elf>state", |index, total| if index < total / 2 { ELF } else { STATE }),
];

#[derive(Clone, Copy)]
struct World {
    link_gb_s: f64,
    cores: u32,
    /// Both ends on the same cores, as a benchmark over loopback has it.
    shared: bool,
    chunks: u64,
    /// Slots of the sender, and of the receiver.
    pool: usize,
    contents: Contents,
    seed: u64,
}

struct Chunk {
    data: Data,
    choice: Choice,
    level: Option<usize>,
    wire: f64,
    encoded: bool,
    decoded: bool,
    started_ns: f64,
}

/// A thread or the link: what it works on, and the work left in nanoseconds.
#[derive(Clone, Copy)]
struct Server {
    host: Option<usize>,
    job: Option<(usize, f64)>,
}

struct Simulation {
    world: World,
    controller: Controller,
    now: f64,
    chunks: Vec<Chunk>,
    servers: Vec<Server>,
    to_encode: VecDeque<usize>,
    to_decode: VecDeque<usize>,
    next_send: usize,
    next_write: usize,
    on_link: VecDeque<usize>,
    to_receive: VecDeque<usize>,
    arrived: usize,
    written: usize,
    sender_socket: f64,
    receiver_socket: f64,
    sent: usize,
    /// A send is in flight, be it blocked by a full socket.
    submitted: bool,
    queued: f64,
    streak: u32,
    random: u64,
}

// Places in `servers`; the encoders and decoders follow.
const READER: usize = 0;
const SENDER: usize = 1;
const LINK: usize = 2;
const RECEIVER: usize = 3;
const WRITER: usize = 4;
const WORKERS: usize = 5;

impl Simulation {
    fn new(world: World, policy: Policy) -> Simulation {
        let target = usize::from(!world.shared);
        let mut servers: Vec<Server> = [Some(0), Some(0), None, Some(target), Some(target)]
            .map(|host| Server { host, job: None })
            .to_vec();
        for host in [0, target] {
            servers.extend((0..world.cores).map(|_| Server { host: Some(host), job: None }));
        }
        Simulation {
            controller: Controller::new(policy, world.cores, CHUNK as u32),
            now: 0.0,
            chunks: Vec::new(),
            servers,
            to_encode: VecDeque::new(),
            to_decode: VecDeque::new(),
            next_send: 0,
            next_write: 0,
            on_link: VecDeque::new(),
            to_receive: VecDeque::new(),
            arrived: 0,
            written: 0,
            sender_socket: 0.0,
            receiver_socket: 0.0,
            sent: 0,
            submitted: false,
            queued: 0.0,
            streak: 0,
            random: world.seed | 1,
            world,
        }
    }

    /// Between 0.8 and 1.2, and one job in sixteen takes twice as long.
    fn noise(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let part = (self.random >> 40) as f64 / (1u64 << 24) as f64;
        (0.8 + 0.4 * part) * if self.random & 15 == 0 { 2.0 } else { 1.0 }
    }

    fn give(&mut self, server: usize, chunk: usize, work_ns: f64) {
        let work_ns = if server == LINK { work_ns } else { work_ns * self.noise() };
        self.servers[server].job = Some((chunk, work_ns));
    }

    fn idle(&self, server: usize) -> bool {
        self.servers[server].job.is_none()
    }

    /// Gives work to every server that can have some.
    fn dispatch(&mut self) {
        let raw = CHUNK as f64;
        let encoders = WORKERS..WORKERS + self.world.cores as usize;
        let decoders = encoders.end..self.servers.len();
        if self.idle(READER)
            && (self.chunks.len() as u64) < self.world.chunks
            && self.chunks.len() - self.sent < self.world.pool
        {
            let index = self.chunks.len() as u64;
            self.chunks.push(Chunk {
                data: (self.world.contents)(index, self.world.chunks),
                choice: Choice::Raw,
                level: None,
                wire: raw,
                encoded: false,
                decoded: false,
                started_ns: 0.0,
            });
            self.give(READER, index as usize, raw * READ_NS);
        }
        for server in encoders {
            if !self.idle(server) {
                continue;
            }
            let Some(chunk) = self.to_encode.pop_front() else { break };
            let Choice::Zstd { level, probe } = self.chunks[chunk].choice else { unreachable!() };
            let index = LEVELS.iter().position(|&known| known == level).expect("a known level");
            let data = self.chunks[chunk].data;
            let hopeless = data.ratio[index] < 16.0 / 15.0;
            let mut work = if probe { PROBE_NS } else { 0.0 };
            if !(probe && hopeless) {
                work += raw / data.compress[index];
            }
            if !hopeless {
                self.chunks[chunk].wire = raw / data.ratio[index];
                self.chunks[chunk].level = Some(index);
            }
            self.chunks[chunk].started_ns = self.now;
            self.give(server, chunk, work);
        }
        if self.idle(SENDER)
            && let Some(chunk) = self.chunks.get(self.next_send).filter(|chunk| chunk.encoded)
        {
            let wire = chunk.wire;
            if !self.submitted {
                self.submitted = true;
                self.controller.sending(self.now as u64);
            }
            if self.sender_socket + wire <= SOCKET_BYTES {
                self.sender_socket += wire;
                self.give(SENDER, self.next_send, wire * SEND_NS);
            }
        }
        if self.idle(LINK)
            && let Some(&chunk) = self.on_link.front()
            && self.receiver_socket + self.chunks[chunk].wire <= SOCKET_BYTES
        {
            self.on_link.pop_front();
            self.receiver_socket += self.chunks[chunk].wire;
            let work = self.chunks[chunk].wire / self.world.link_gb_s;
            self.give(LINK, chunk, work);
        }
        if self.idle(RECEIVER)
            && self.arrived - self.written < self.world.pool
            && let Some(chunk) = self.to_receive.pop_front()
        {
            self.arrived += 1;
            let work = self.chunks[chunk].wire * RECEIVE_NS;
            self.give(RECEIVER, chunk, work);
        }
        for server in decoders {
            if !self.idle(server) {
                continue;
            }
            let Some(chunk) = self.to_decode.pop_front() else { break };
            let level = self.chunks[chunk].level.expect("compressed");
            let work = raw / self.chunks[chunk].data.decompress[level];
            self.give(server, chunk, work);
        }
        if self.idle(WRITER) && self.chunks.get(self.next_write).is_some_and(|chunk| chunk.decoded)
        {
            self.give(WRITER, self.next_write, raw * WRITE_NS);
            self.next_write += 1;
        }
    }

    fn choose(&mut self, chunk: usize) {
        let encoders = WORKERS..WORKERS + self.world.cores as usize;
        let busy = encoders.filter(|&server| !self.idle(server)).count();
        let view = QueueView {
            queued_wire_bytes: self.queued as u64,
            streams_idle: !self.submitted,
            encoding_now: (busy + self.to_encode.len()) as u32,
            incompressible_streak: self.streak,
        };
        let choice = self.controller.choose(self.now as u64, &view);
        self.chunks[chunk].choice = choice;
        match choice {
            Choice::Raw => self.ready(chunk),
            Choice::Zstd { .. } => self.to_encode.push_back(chunk),
        }
    }

    fn ready(&mut self, chunk: usize) {
        self.chunks[chunk].encoded = true;
        self.queued += self.chunks[chunk].wire;
    }

    fn done(&mut self, server: usize, chunk: usize) {
        match server {
            READER => self.choose(chunk),
            SENDER => {
                self.on_link.push_back(chunk);
                self.next_send += 1;
                self.sent += 1;
                let wire = self.chunks[chunk].wire as u64;
                self.controller.sent(self.now as u64, wire, CHUNK);
                self.queued -= self.chunks[chunk].wire;
                self.submitted = false;
            }
            LINK => {
                self.sender_socket -= self.chunks[chunk].wire;
                self.to_receive.push_back(chunk);
            }
            RECEIVER => {
                self.receiver_socket -= self.chunks[chunk].wire;
                if self.chunks[chunk].level.is_some() {
                    self.to_decode.push_back(chunk);
                } else {
                    self.chunks[chunk].decoded = true;
                }
            }
            WRITER => self.written += 1,
            _ if server < WORKERS + self.world.cores as usize => {
                let Choice::Zstd { level, .. } = self.chunks[chunk].choice else { unreachable!() };
                self.ready(chunk);
                self.streak = if self.chunks[chunk].level.is_some() { 0 } else { self.streak + 1 };
                let wire = self.chunks[chunk].wire as u64;
                let worker_ns = (self.now - self.chunks[chunk].started_ns) as u64;
                self.controller.encoded(self.now as u64, level, CHUNK, wire, worker_ns);
            }
            _ => self.chunks[chunk].decoded = true,
        }
    }

    /// Goes on to the next thing that is done.
    fn step(&mut self) {
        let rate = |server: &Server, servers: &[Server], cores: u32| match server.host {
            None => 1.0,
            Some(host) => {
                let busy = servers.iter().filter(|s| s.host == Some(host) && s.job.is_some());
                (f64::from(cores) / busy.count() as f64).min(1.0)
            }
        };
        let rates: Vec<f64> =
            self.servers.iter().map(|s| rate(s, &self.servers, self.world.cores)).collect();
        let wait = self
            .servers
            .iter()
            .zip(&rates)
            .filter_map(|(server, rate)| server.job.map(|(_, left)| left / rate))
            .fold(f64::INFINITY, f64::min);
        assert!(wait.is_finite(), "stuck with {} of {} written", self.written, self.world.chunks);
        self.now += wait;
        let mut over = Vec::new();
        for (index, server) in self.servers.iter_mut().enumerate() {
            if let Some((chunk, left)) = &mut server.job {
                *left -= wait * rates[index];
                if *left <= 1e-6 {
                    over.push((index, *chunk));
                    server.job = None;
                }
            }
        }
        for (server, chunk) in over {
            self.done(server, chunk);
        }
    }

    /// GB/s of raw state over the whole run.
    fn run(mut self) -> f64 {
        while (self.written as u64) < self.world.chunks {
            self.dispatch();
            self.step();
        }
        (self.world.chunks * CHUNK) as f64 / self.now
    }
}

const FIXED: [Policy; 5] =
    [Policy::Raw, Policy::Zstd(-5), Policy::Zstd(1), Policy::Zstd(3), Policy::Zstd(6)];
const LINKS: [f64; 8] = [0.1, 0.2, 0.3, 0.6, 1.25, 3.0, 6.0, 12.0];

/// Adaptive's speed as a share of the best fixed choice's, with that choice and its speed.
fn share(world: World) -> (f64, Policy, f64) {
    let adaptive = Simulation::new(world, Policy::Adaptive).run();
    let (best, speed) = FIXED
        .map(|policy| (policy, Simulation::new(world, policy).run()))
        .into_iter()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .expect("five of them");
    (adaptive / speed, best, speed)
}

fn table(chunks: u64, pool: impl Fn(u32) -> usize) -> (String, f64, f64) {
    use std::fmt::Write;
    let mut text = String::new();
    let mut shares = Vec::new();
    for (name, contents) in CONTENTS {
        for (cores, shared) in [(2, true), (4, true), (2, false), (4, false), (8, false)] {
            let hosts = if shared { "shared" } else { "apart" };
            let _ = write!(text, "{name:>9} {cores} {hosts:6}");
            for link_gb_s in LINKS {
                let world = World {
                    link_gb_s,
                    cores,
                    shared,
                    chunks,
                    pool: pool(cores),
                    contents,
                    seed: 0x5eed + chunks,
                };
                let (share, best, speed) = share(world);
                let best = match best {
                    Policy::Zstd(level) => format!("{level}"),
                    _ => "raw".into(),
                };
                let _ = write!(text, " {:3.0}% ({best} {speed:.2})", share * 100.0);
                shares.push(share);
            }
            text.push('\n');
        }
    }
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    let mean = (shares.iter().map(|share| share.ln()).sum::<f64>() / shares.len() as f64).exp();
    (text, least, mean)
}

#[test]
fn adaptive_keeps_up_with_the_best_fixed_choice() {
    let (text, least, mean) = table(4096, |workers| 4 * workers as usize + 8);
    println!("{text}least {least:.3}, mean {mean:.3}");
    assert!(least >= 0.9, "least {least:.3}");
    assert!(mean >= 1.0, "mean {mean:.3}");
}

#[test]
fn trace() {
    let link: f64 = std::env::var("LINK").map_or(0.1, |s| s.parse().unwrap());
    let cores: u32 = std::env::var("CORES").map_or(2, |s| s.parse().unwrap());
    let which: usize = std::env::var("WHICH").map_or(0, |s| s.parse().unwrap());
    let world = World {
        link_gb_s: link,
        cores,
        shared: std::env::var("SHARED").is_ok(),
        chunks: 4096,
        pool: 4 * cores as usize + 8,
        contents: CONTENTS[which].1,
        seed: 0x5eed + 4096,
    };
    println!("{:?}", share(world));
    let mut s = Simulation::new(world, Policy::Adaptive);
    let mut last = (None, 0);
    while (s.written as u64) < s.world.chunks {
        s.dispatch();
        s.step();
        if let Some(l) = s.controller.arms.trace()
            && (Some(l.0), l.1.to_bits()) != last
        {
            last = (Some(l.0), l.1.to_bits());
            let mut count = std::collections::BTreeMap::new();
            for c in s.chunks.iter().rev().take(24) {
                *count.entry(format!("{:?}", c.choice)).or_insert(0) += 1;
            }
            println!(
                "{:.1} ms sent {} rung {} value {:.3} link {:.3} credit {:.1} {:?}",
                s.now / 1e6,
                s.sent,
                l.0,
                l.1,
                s.controller.link_bytes_per_s().unwrap_or(0.0) / 1e9,
                s.controller.arms.credit() / 1e6,
                count
            );
        }
    }
}
