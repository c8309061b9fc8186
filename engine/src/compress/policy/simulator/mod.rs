//! Two hosts, a link and a [`Controller`], in simulated time: what a policy is worth, without
//! the noise of a real machine (and with some of its own, from a seed).
//!
//! ```text
//! reader -> [offer] <-> workers; lowest first -> sender thread -> socket buffer -> link
//!        -> socket buffer -> receiver thread -> workers -> in order -> writer
//!        -> credit: half a window, or of compressed chunks all that there was -> sender
//! ```
//! A host's runnable threads share its cores evenly. Costs are PERF's on one core, in nanoseconds
//! per byte: read 4.6 GB/s, write 6.5, TCP send 0.15 s/GB and receive 0.08, zstd as measured.

mod grid;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use super::{Choice, Controller, Hosts, LEVELS, Policy, Sample};

const CHUNK: u64 = 256 << 10;
const READ_NS: f64 = 1.0 / 4.6;
const WRITE_NS: f64 = 1.0 / 6.5;
const SEND_NS: f64 = 0.15;
const RECEIVE_NS: f64 = 0.08;
const PROBE_NS: f64 = 10_000.0;
const SOCKET_BYTES: f64 = 4e6;
/// What the sender's socket takes beyond what is on its way: TCP_NOTSENT_LOWAT.
const UNSENT_BYTES: f64 = 512.0 * 1024.0;
/// The probe's samples, each of which is also compressed at every level.
const SAMPLE_BYTES: f64 = 12288.0;
/// From the end of a write to the source's machine: two wake-ups and a small frame.
const CREDIT_NS: f64 = 60_000.0;

/// What a kind of data does at each of LEVELS: compression and decompression in GB/s, and ratio.
#[derive(Clone, Copy)]
struct Data {
    compress: [f64; 4],
    ratio: [f64; 4],
    decompress: [f64; 4],
}

const STATE: Data = Data {
    compress: [1.5, 1.2, 0.8, 0.3],
    ratio: [5.0, 7.7, 7.0, 7.9],
    decompress: [3.6, 3.7, 3.2, 3.2],
};
const ELF: Data = Data {
    compress: [0.69, 0.47, 0.27, 0.1],
    ratio: [1.89, 2.67, 2.96, 3.1],
    decompress: [2.1, 1.3, 1.1, 1.1],
};
const WEAK: Data = Data {
    compress: [0.9, 0.5, 0.3, 0.12],
    ratio: [1.1, 1.3, 1.4, 1.45],
    decompress: [3.0, 2.0, 1.8, 1.8],
};
const NOISE: Data = Data { compress: [5.7, 5.0, 4.0, 3.0], ratio: [1.0; 4], decompress: [14.0; 4] };

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
    /// Slots of the sender, and the receiver's window.
    pool: usize,
    contents: Contents,
    seed: u64,
    /// The link was measured before, to a tenth.
    known: bool,
}

#[derive(Clone, Copy)]
struct Chunk {
    data: Data,
    choice: Choice,
    level: Option<usize>,
    wire: f64,
    decoded: bool,
    cpu_ns: f64,
    started_ns: f64,
    sampled: bool,
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
    to_decode: VecDeque<usize>,
    /// Chunks that can be sent.
    to_send: BTreeSet<usize>,
    /// Those of them that a worker may still take.
    open: BTreeSet<usize>,
    /// The first chunk that may not be sent; what the target has granted; credits on their way.
    credit: usize,
    acknowledged: usize,
    granted: usize,
    credits: VecDeque<(f64, usize)>,
    next_write: usize,
    on_link: VecDeque<usize>,
    to_receive: VecDeque<usize>,
    arrived: usize,
    written: usize,
    sender_socket: f64,
    receiver_socket: f64,
    sent: usize,
    /// The send in flight, be it blocked by a full socket.
    submitted: Option<usize>,
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
        let hosts = Hosts { cores: world.cores, shared: world.shared };
        let mut controller = Controller::new(policy, world.cores, CHUNK as u32);
        controller.hosts_known(hosts);
        if world.known {
            controller.link_known((world.link_gb_s * 0.9e9) as u64);
        }
        Simulation {
            controller,
            now: 0.0,
            chunks: Vec::new(),
            servers,
            to_decode: VecDeque::new(),
            to_send: BTreeSet::new(),
            open: BTreeSet::new(),
            credit: world.pool,
            acknowledged: 0,
            granted: world.pool,
            credits: VecDeque::new(),
            next_write: 0,
            on_link: VecDeque::new(),
            to_receive: VecDeque::new(),
            arrived: 0,
            written: 0,
            sender_socket: 0.0,
            receiver_socket: 0.0,
            sent: 0,
            submitted: None,
            streak: 0,
            random: world.seed | 1,
            world,
        }
    }

    fn part(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 40) as f64 / (1u64 << 24) as f64
    }

    /// Between 0.8 and 1.2, and one job in sixteen takes twice as long.
    fn noise(&mut self) -> f64 {
        let part = self.part();
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
        let encoders = WORKERS..WORKERS + self.world.cores as usize;
        let decoders = encoders.end..self.servers.len();
        self.read();
        self.encode(encoders);
        self.send();
        self.receive();
        self.decode(decoders);
        if self.idle(WRITER) && self.chunks.get(self.next_write).is_some_and(|chunk| chunk.decoded)
        {
            self.give(WRITER, self.next_write, CHUNK as f64 * WRITE_NS);
            self.next_write += 1;
        }
    }

    fn read(&mut self) {
        if self.idle(READER)
            && (self.chunks.len() as u64) < self.world.chunks
            && self.chunks.len() - self.sent < self.world.pool
        {
            let index = self.chunks.len() as u64;
            self.chunks.push(Chunk {
                data: (self.world.contents)(index, self.world.chunks),
                choice: Choice::Raw,
                level: None,
                wire: CHUNK as f64,
                decoded: false,
                cpu_ns: 0.0,
                started_ns: 0.0,
                sampled: false,
            });
            self.give(READER, index as usize, CHUNK as f64 * READ_NS);
        }
    }

    fn encode(&mut self, encoders: Range<usize>) {
        for server in encoders {
            while self.idle(server) {
                let chunk = match self.controller.holds() {
                    true => self.open.first(),
                    false => self.open.last(),
                };
                let Some(&chunk) = chunk else { return };
                let ahead =
                    self.to_send.range(..chunk).count() + usize::from(self.submitted.is_some());
                let choice = self.controller.offer(ahead, self.streak);
                if choice == Choice::Wait {
                    return;
                }
                self.open.remove(&chunk);
                if let Choice::Zstd { level, probe, sample } = choice {
                    self.to_send.remove(&chunk);
                    self.chunks[chunk].choice = choice;
                    self.begin(server, chunk, level, probe, sample);
                }
            }
        }
    }

    fn begin(&mut self, server: usize, chunk: usize, level: i32, probe: bool, sample: bool) {
        let index = LEVELS.iter().position(|&known| known == level).expect("a known level");
        let data = self.chunks[chunk].data;
        let hopeless = data.ratio[index] < 16.0 / 15.0;
        let mut work = if probe { PROBE_NS } else { 0.0 };
        if !(probe && hopeless) {
            work += CHUNK as f64 / data.compress[index];
        }
        let samples: f64 = data.compress.iter().map(|speed| SAMPLE_BYTES / speed).sum();
        let entry = &mut self.chunks[chunk];
        if !hopeless {
            entry.wire = CHUNK as f64 / data.ratio[index];
            entry.level = Some(index);
            entry.sampled = sample;
        }
        self.give(server, chunk, work);
        let (_, left) = self.servers[server].job.as_mut().expect("given");
        self.chunks[chunk].cpu_ns = *left;
        self.chunks[chunk].started_ns = self.now;
        *left += if sample && !hopeless { samples } else { 0.0 };
    }

    fn send(&mut self) {
        if self.submitted.is_none()
            && let Some(&chunk) = self.to_send.first()
            && chunk < self.credit
            && !(self.controller.holds() && self.open.contains(&chunk))
        {
            self.to_send.pop_first();
            self.open.remove(&chunk);
            self.submitted = Some(chunk);
            self.controller.sending(self.chunks[chunk].level.is_some());
        }
        if self.idle(SENDER)
            && let Some(chunk) = self.submitted
            && (self.sender_socket == 0.0
                || self.sender_socket + self.chunks[chunk].wire <= UNSENT_BYTES)
        {
            let wire = self.chunks[chunk].wire;
            self.sender_socket += wire;
            self.give(SENDER, chunk, wire * SEND_NS);
        }
    }

    fn receive(&mut self) {
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
            && let Some(chunk) = self.to_receive.pop_front()
        {
            self.arrived += 1;
            let work = self.chunks[chunk].wire * RECEIVE_NS;
            self.give(RECEIVER, chunk, work);
        }
    }

    fn decode(&mut self, decoders: Range<usize>) {
        for server in decoders {
            if !self.idle(server) {
                continue;
            }
            let Some(chunk) = self.to_decode.pop_front() else { break };
            let level = self.chunks[chunk].level.expect("compressed");
            let work = CHUNK as f64 / self.chunks[chunk].data.decompress[level];
            self.give(server, chunk, work);
        }
    }

    fn done(&mut self, server: usize, chunk: usize) {
        match server {
            READER => {
                self.controller.read(self.now as u64, CHUNK);
                self.to_send.insert(chunk);
                self.open.insert(chunk);
            }
            SENDER => {
                self.on_link.push_back(chunk);
                self.sent += 1;
                self.submitted = None;
            }
            LINK => {
                self.sender_socket = (self.sender_socket - self.chunks[chunk].wire).max(0.0);
                // What TCP_INFO says, give or take a tenth.
                let part = 0.9 + 0.2 * self.part();
                self.controller.link_measured((self.world.link_gb_s * part * 1e9) as u64, false);
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
            WRITER => {
                self.written += 1;
                self.grant();
            }
            _ if server < WORKERS + self.world.cores as usize => {
                let Choice::Zstd { level, .. } = self.chunks[chunk].choice else { unreachable!() };
                self.to_send.insert(chunk);
                self.streak = if self.chunks[chunk].level.is_some() { 0 } else { self.streak + 1 };
                let Chunk { data, wire, cpu_ns, started_ns, sampled, .. } = self.chunks[chunk];
                let wall_ns = (self.now - started_ns) as u64;
                if sampled {
                    self.controller.sampled(&std::array::from_fn(|index| samples(&data, index)));
                }
                self.controller.encoded(level, sample(CHUNK as f64, wire, cpu_ns), wall_ns);
            }
            _ => self.chunks[chunk].decoded = true,
        }
    }

    /// What `receiver::window` does.
    fn grant(&mut self) {
        let up_to = self.written + self.world.pool;
        let last = self.written - 1;
        let prompt = last < 16 || self.chunks[last].level.is_some();
        let idle = prompt && self.written == self.arrived;
        if idle || up_to - self.granted >= self.world.pool.div_ceil(2) {
            self.granted = up_to;
            self.credits.push_back((self.now + CREDIT_NS, up_to));
        }
    }

    fn credited(&mut self, up_to: usize) {
        self.credit = up_to;
        let done = self.acknowledged..up_to - self.world.pool;
        self.acknowledged = done.end;
        let wire: f64 = self.chunks[done.clone()].iter().map(|chunk| chunk.wire).sum();
        self.controller.sent(self.now as u64, done.len() as u64 * CHUNK, wire as u64);
    }

    /// Goes on to the next thing that is done.
    fn step(&mut self) {
        let mut busy = [0u32; 2];
        for server in &self.servers {
            if let (Some(host), Some(_)) = (server.host, server.job) {
                busy[host] += 1;
            }
        }
        let cores = f64::from(self.world.cores);
        let rates: Vec<f64> = self
            .servers
            .iter()
            .map(|server| server.host.map_or(1.0, |host| (cores / f64::from(busy[host])).min(1.0)))
            .collect();
        let wait = self
            .servers
            .iter()
            .zip(&rates)
            .filter_map(|(server, rate)| server.job.map(|(_, left)| left / rate))
            .chain(self.credits.front().map(|(at, _)| (at - self.now).max(0.0)))
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
        while let Some(&(at, up_to)) = self.credits.front()
            && at <= self.now + 1e-6
        {
            self.credits.pop_front();
            self.credited(up_to);
        }
        for (server, chunk) in over {
            self.done(server, chunk);
        }
    }

    /// GB/s of raw state from the chunk `after` to the end.
    fn run(mut self, after: usize) -> f64 {
        let mut start = (0, 0.0);
        while (self.written as u64) < self.world.chunks {
            self.dispatch();
            self.step();
            if start.0 == 0 && self.written >= after {
                start = (self.written, self.now);
            }
        }
        (self.written - start.0) as f64 * CHUNK as f64 / (self.now - start.1)
    }
}

fn sample(raw: f64, wire: f64, cpu_ns: f64) -> Sample {
    Sample { raw_bytes: raw as u32, wire_bytes: wire as u32, cpu_ns: cpu_ns as u64 }
}

/// Samples shrink a little less than the chunk.
fn samples(data: &Data, level: usize) -> Sample {
    let ratio = 1.0 + (data.ratio[level] - 1.0) * 0.9;
    sample(SAMPLE_BYTES, SAMPLE_BYTES / ratio, SAMPLE_BYTES / data.compress[level])
}
