//! The same random operations on both backends, in two worlds that are built alike: after each
//! step the same operations must have completed, with the same results and the same bytes, and at
//! the end every buffer must have come back.
//!
//! Only what both answer for certain is compared. Whether a cancel or the result comes first is a
//! race for an operation on a blocking file, and for any other between two of its steps: the former
//! are not cancelled here, the latter when they are parked.

use std::os::fd::AsFd;

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};

use super::*;
use crate::buffers::{Arena, Slot};
use crate::ring::{FileKind, OpKind};

const SLOTS: usize = 12;
const CHUNK_BYTES: usize = 40_000;
/// What needs no thread of its own comes about in this time, once its cause is there.
const IDLE: Duration = Duration::from_millis(2);

/// What a world has to operate on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The reading end of a pipe, as a pollable data fd.
    PipeIn,
    /// The writing end of another.
    PipeOut,
    /// A stream socket.
    Socket,
    /// A memfd, as a blocking data fd to read. Both ways would share its position.
    FileIn,
    /// Another, to write.
    FileOut,
}

impl Target {
    fn is_file(self) -> bool {
        matches!(self, Target::FileIn | Target::FileOut)
    }
}

/// An operation that has not completed.
#[derive(Debug, Clone, Copy)]
struct Submitted {
    token: Token,
    target: Target,
    /// It waits for its file. One that only tries does not, nor one that moves nothing.
    waits: bool,
    cancelled: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// An operation into or out of the target; `odd` chooses between two where there are two.
    Submit {
        target: Target,
        out: bool,
        odd: bool,
        small: bool,
        start: usize,
        bytes: usize,
    },
    /// The other end gives, as far as there is room.
    PeerGives {
        socket: bool,
        bytes: usize,
    },
    /// The other end takes, as far as there is something.
    PeerTakes {
        socket: bool,
        bytes: usize,
    },
    /// The other end of the pipes, or one way of the socket, is closed.
    PeerCloses {
        target: Target,
        both: bool,
    },
    /// The operation submitted at this step, counted back from the latest.
    Cancel {
        back: usize,
    },
    Wake,
    /// Lets everything come about that can.
    Settle,
}

/// One world: a ring and the other ends of its files.
struct World {
    ring: Box<dyn Ring>,
    slots: Vec<Slot>,
    files: [FileId; 5],
    pipe_in: Option<OwnedFd>,
    pipe_out: Option<OwnedFd>,
    /// The ring's own ends of the two pipes.
    reader: Arc<OwnedFd>,
    writer: Arc<OwnedFd>,
    socket: OwnedFd,
    /// In order of submission.
    submitted: Vec<Submitted>,
    /// Bytes that the peer gave and took on each way, for the patterns.
    given: u64,
    log: Vec<String>,
}

impl World {
    fn new(backend: BackendChoice) -> Option<World> {
        let (_, slots) = Arena::new(SLOTS, CHUNK_BYTES).expect("arena");
        let config = RingConfig {
            backend,
            depth: 8,
            files: 5,
            blocking: BlockingThreads::plain(1),
            zero_copy: None,
        };
        let mut ring = match open(&config) {
            Ok(opened) => opened.ring,
            Err(error) => {
                skip(format!("{backend:?}: {error}"));
                return None;
            }
        };
        let (reader, pipe_in) = pipe();
        let (pipe_out, writer) = pipe();
        let pipe_out = Arc::into_inner(pipe_out).expect("sole owner");
        let writer = Arc::new(writer);
        // Unlike TCP, what one end of these writes the other has at once.
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (here, there) = pair.expect("socketpair");
        for peer in [&pipe_in, &pipe_out, &there] {
            fcntl_setfl(peer, OFlags::NONBLOCK).expect("setfl");
        }
        let mut add = |fd, kind| ring.add_file(fd, kind).expect("add");
        let files = [
            add(Arc::clone(&reader), FileKind::Pollable),
            add(Arc::clone(&writer), FileKind::Pollable),
            add(Arc::new(here), FileKind::Socket),
            add(memfd(&pattern(99, 70_000)), FileKind::Blocking),
            add(memfd(b""), FileKind::Blocking),
        ];
        Some(World {
            ring,
            slots,
            files,
            pipe_in: Some(pipe_in),
            pipe_out: Some(pipe_out),
            reader,
            writer,
            socket: there,
            submitted: Vec::new(),
            given: 0,
            log: Vec::new(),
        })
    }

    fn step(&mut self, number: u64, step: &Step) {
        match *step {
            Step::Submit { target, out, odd, small, start, bytes } => {
                self.submit(number, target, out, odd, small, start..start + bytes);
            }
            Step::PeerGives { socket, bytes } => {
                let data = pattern(self.given, bytes);
                let peer = if socket { Some(self.socket.as_fd()) } else { as_fd(&self.pipe_in) };
                let given = peer.map(|peer| rustix::io::write(peer, &data));
                self.given += 1;
                self.log.push(format!("{number}: peer gave {given:?}"));
            }
            Step::PeerTakes { socket, bytes } => {
                let mut data = vec![0; bytes];
                let peer = if socket { Some(self.socket.as_fd()) } else { as_fd(&self.pipe_out) };
                let taken = peer.map(|peer| rustix::io::read(peer, &mut data));
                let digest = digest(&data);
                self.log.push(format!("{number}: peer took {taken:?} {digest:x}"));
            }
            Step::PeerCloses { target: Target::PipeIn, .. } => self.pipe_in = None,
            Step::PeerCloses { target: Target::PipeOut, .. } => self.pipe_out = None,
            Step::PeerCloses { both, .. } => {
                let how = if both { Shutdown::Both } else { Shutdown::Write };
                let how = match how {
                    Shutdown::Both => rustix::net::Shutdown::Both,
                    _ => rustix::net::Shutdown::Write,
                };
                let _ = rustix::net::shutdown(&self.socket, how);
            }
            Step::Cancel { back } => {
                let latest = |it: &&mut Submitted| !it.target.is_file();
                let mut latest = self.submitted.iter_mut().rev().filter(latest);
                let Some(token) = latest.nth(back).map(|it| it.token) else {
                    return;
                };
                self.settle(number);
                self.cancel(token);
            }
            Step::Wake => self.ring.waker().wake(),
            Step::Settle => self.settle(number),
        }
    }

    fn submit(
        &mut self,
        number: u64,
        target: Target,
        out: bool,
        odd: bool,
        small: bool,
        range: Range<usize>,
    ) {
        let file = self.files[target as usize];
        let mut buffer = match if small { None } else { self.slots.pop() } {
            Some(slot) => Buffer::Slot(slot),
            None => Buffer::Small(vec![0; CHUNK_BYTES]),
        };
        let data = pattern(number, buffer.bytes().len());
        if out {
            buffer.bytes_mut().copy_from_slice(&data);
        } else {
            buffer.bytes_mut().fill(0);
        }
        let op = match (target, out) {
            (Target::Socket, true) => Op::send(file, buffer, range),
            (Target::Socket, false) => Op::recv(file, buffer, range),
            (_, true) => Op::write(file, buffer, range),
            (_, false) if odd => Op::try_read(file, buffer, range),
            (_, false) => Op::read(file, buffer, range),
        };
        let (token, waits) = (Token(number), op.kind != OpKind::TryRead && op.len() > 0);
        match self.ring.submit(token, op) {
            Ok(()) => self.submitted.push(Submitted { token, target, waits, cancelled: false }),
            Err(rejected) => {
                self.log.push(format!("{number}: rejected {}", rejected.errno));
                self.take_back(rejected.op.buffer);
            }
        }
    }

    /// Waits until nothing more completes, and notes what did.
    fn settle(&mut self, number: u64) {
        let mut done = Vec::new();
        // Two in a row: a wake may end one of them early.
        let mut idle = 0;
        while idle < 2 {
            let before = done.len();
            self.ring.wait(Some(IDLE), &mut done).expect("wait");
            let quiet = done.len() == before && !self.is_at_work(&done);
            idle = if quiet { idle + 1 } else { 0 };
        }
        done.sort_by_key(|done| done.token);
        for Done { token, result, buffer } in done {
            let digest = digest(buffer.bytes());
            self.log.push(format!("{number}: {token:?} {result:?} {digest:x}"));
            self.submitted.retain(|it| it.token != token);
            self.take_back(buffer);
        }
    }

    /// Whether an operation is with a thread, or will be: those on files always, those on pipes when
    /// they have been ready. How long a thread takes, only the machine's load knows.
    fn is_at_work(&self, done: &[Done]) -> bool {
        let open = |it: &&Submitted| !done.iter().any(|done| done.token == it.token);
        self.submitted.iter().filter(open).any(|it| match it.target {
            Target::FileIn | Target::FileOut => true,
            Target::PipeIn => !it.waits || it.cancelled || is_ready(&self.reader, PollFlags::IN),
            Target::PipeOut => !it.waits || it.cancelled || is_ready(&self.writer, PollFlags::OUT),
            Target::Socket => false,
        })
    }

    fn cancel(&mut self, token: Token) {
        let open = self.submitted.iter_mut().find(|it| it.token == token);
        if let Some(it) = open {
            it.cancelled = true;
        }
        self.ring.cancel(token);
    }

    fn take_back(&mut self, buffer: Buffer) {
        if let Buffer::Slot(slot) = buffer {
            self.slots.push(slot);
            // The same slots in the same order in both worlds.
            self.slots.sort_by_key(Slot::id);
        }
    }

    /// Cancels what is left and sees that every buffer is back.
    fn end(mut self) -> Vec<String> {
        self.settle(u64::MAX);
        for it in self.submitted.clone() {
            self.cancel(it.token);
        }
        while self.ring.in_flight() > 0 {
            self.settle(u64::MAX);
        }
        assert_eq!(self.slots.len(), SLOTS, "slots were lost");
        self.log
    }
}

/// Whether the file is that, or dead.
fn is_ready(fd: &OwnedFd, how: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, how)];
    poll(&mut fds, Some(&Timespec::default())).expect("poll") > 0
}

fn as_fd(fd: &Option<OwnedFd>) -> Option<std::os::fd::BorrowedFd<'_>> {
    fd.as_ref().map(OwnedFd::as_fd)
}

fn digest(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        1 => Just(Target::PipeIn),
        1 => Just(Target::PipeOut),
        2 => Just(Target::Socket),
        1 => Just(Target::FileIn),
        1 => Just(Target::FileOut),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = (target(), any::<[bool; 3]>(), 0..64usize, 0..CHUNK_BYTES).prop_map(
        |(target, [out, odd, small], start, bytes)| {
            let out = match target {
                Target::PipeIn | Target::FileIn => false,
                Target::PipeOut | Target::FileOut => true,
                Target::Socket => out,
            };
            Step::Submit { target, out, odd, small, start, bytes }
        },
    );
    let gives = (any::<bool>(), 1..CHUNK_BYTES)
        .prop_map(|(socket, bytes)| Step::PeerGives { socket, bytes });
    let takes = (any::<bool>(), 1..2 * CHUNK_BYTES)
        .prop_map(|(socket, bytes)| Step::PeerTakes { socket, bytes });
    let closes =
        (target(), any::<bool>()).prop_map(|(target, both)| Step::PeerCloses { target, both });
    let step = prop_oneof![
        12 => submit,
        6 => gives,
        6 => takes,
        1 => closes,
        3 => (0..4usize).prop_map(|back| Step::Cancel { back }),
        1 => Just(Step::Wake),
        8 => Just(Step::Settle),
    ];
    proptest::collection::vec(step, 1..60)
}

fn twins_agree(steps: &[Step]) {
    let mut logs = [BackendChoice::IoUring, BackendChoice::Syscalls].map(|backend| {
        let mut world = World::new(backend)?;
        for (number, step) in (0..).zip(steps) {
            world.step(number, step);
        }
        Some(world.end())
    });
    if let [Some(uring), Some(syscalls)] = &mut logs {
        assert_eq!(uring, syscalls);
    }
}

/// Few cases in the ordinary run, as each takes its time; PROPTEST_CASES asks for more.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    let cases = asked.and_then(|cases| cases.parse().ok()).unwrap_or(48);
    ProptestConfig::with_cases(cases)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn both_backends_agree(steps in steps()) {
        twins_agree(&steps);
    }
}
