// A whole session over TLS, and somebody on its path who does to its records what the bytes say: drops,
// doubles, changes, cuts and exchanges them, or puts his own between them, the handshake's included.
// Whatever he does, what gets into the device is the source's, and the endings are true.
// Shared by the fuzz target and by the ordinary test run, which replays the corpus.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use vfio_ferry::session::{
    Acceptor, ConnectOptions, DoorOptions, Protection, Streams, connect_with,
};
use vfio_ferry::{DeviceState, SourceEnding, TargetEnding};

use super::double::{Double, PATIENCE, options, patient, source, target};
use super::pki::Authority;

/// How long the hosts bear with a path that is silent.
const SHORT: Duration = Duration::from_millis(400);
/// Deeds below it leave a record alone.
const DOES_NOTHING: u8 = 208;

/// Both hosts' credentials; a process has one authority.
fn hosts() -> &'static (Protection, Protection) {
    static HOSTS: OnceLock<(Protection, Protection)> = OnceLock::new();
    HOSTS.get_or_init(|| Authority::throw_away().hosts())
}

/// One direction of the path.
struct Direction<'a> {
    deeds: Box<dyn Iterator<Item = u8> + Send + 'a>,
    /// All that came, to be said again.
    seen: Vec<u8>,
    /// A record that waits for the next one to overtake it.
    held: Vec<u8>,
}

impl<'a> Direction<'a> {
    /// Every second deed, from this one on.
    fn new(deeds: &'a [u8], first: usize) -> Direction<'a> {
        let deeds = Box::new(deeds.iter().copied().skip(first).step_by(2));
        Direction { deeds, seen: Vec::new(), held: Vec::new() }
    }

    fn deed(&mut self) -> u8 {
        self.deeds.next().unwrap_or(0)
    }

    /// What goes on in a record's place; none where the path ends.
    fn fate(&mut self, mut record: Vec<u8>) -> Option<Vec<u8>> {
        self.seen.extend_from_slice(&record);
        Some(match self.deed() {
            0..DOES_NOTHING => [record, std::mem::take(&mut self.held)].concat(),
            208..216 => Vec::new(),
            216..222 => record.repeat(2),
            222..240 => {
                let at = usize::from(self.deed()) << 8 | usize::from(self.deed());
                let at = at % record.len();
                record[at] ^= self.deed();
                record
            }
            // Shorter, and it says so.
            240..244 => {
                let body = usize::from(self.deed()) % (record.len() - 4);
                record.truncate(5 + body);
                record[3..5].copy_from_slice(&(body as u16).to_be_bytes());
                record
            }
            // One of his own before it.
            244..248 => {
                let (kind, length) = (self.deed(), self.deed());
                let mut own = vec![20 + kind % 5, 3, 3, 0, length];
                own.extend((0..length).map(|_| self.deed()));
                [own, record].concat()
            }
            248..251 => {
                self.held.extend_from_slice(&record);
                Vec::new()
            }
            251 | 252 => {
                let length = usize::from(self.deed());
                let words = (0..length).map(|_| self.deed()).collect();
                [words, record].concat()
            }
            253 => self.seen.clone(),
            _ => return None,
        })
    }

    fn carry(mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        loop {
            let mut record = vec![0; 5];
            from.read_exact(&mut record)?;
            let length = u16::from_be_bytes([record[3], record[4]]);
            record.resize(5 + usize::from(length), 0);
            from.read_exact(&mut record[5..])?;
            match self.fate(record) {
                Some(records) => to.write_all(&records)?,
                None => return Ok(()),
            }
        }
    }
}

/// The path of one connection: until both directions have ended.
fn path(listener: &TcpListener, door: SocketAddr, deeds: &[u8]) {
    let (source, _) = listener.accept().expect("the source");
    let target = TcpStream::connect(door).expect("it listens");
    let pass = |direction: Direction<'_>, from: &TcpStream, to: &TcpStream| {
        let _ = direction.carry(from, to);
        let _ = to.shutdown(Shutdown::Write);
        // What is said behind a cut is said to nobody, and must not block who says it.
        let _ = io::copy(&mut &*from, &mut io::sink());
    };
    thread::scope(|scope| {
        scope.spawn(|| pass(Direction::new(deeds, 0), &source, &target));
        pass(Direction::new(deeds, 1), &target, &source);
    });
}

/// What the door makes of the one connection that comes.
fn let_in(door: &Acceptor) -> Option<Streams> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(streams) = door.poll().expect("it listens") {
            return Some(streams);
        }
        if door.turned_away().total() > 0 {
            return None;
        }
        assert!(Instant::now() < deadline, "a connection is held for ever");
        thread::sleep(Duration::from_millis(1));
    }
}

/// One migration. The first byte chooses the options.
pub(crate) fn tls(data: &[u8]) {
    let [choices, deeds @ ..] = data else { return };
    let (ours, theirs) = hosts();
    let honest = deeds.iter().all(|deed| *deed < DOES_NOTHING);
    let limit = if honest { PATIENCE } else { SHORT };
    let options = if honest { patient(*choices) } else { options(*choices) };
    let door = DoorOptions {
        protection: theirs.clone(),
        greeting_limit: limit,
        gathering_limit: limit,
        ..DoorOptions::default()
    };
    let door = Acceptor::bind("127.0.0.1:0", door).expect("a port");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (from, to) = (Double::new(), Double::new());
    let (source, target) = thread::scope(|scope| {
        scope.spawn(|| path(&listener, door.local_addr(), deeds));
        let source = scope.spawn(|| {
            let connect =
                ConnectOptions { protection: ours.clone(), timeout: limit, ..Default::default() };
            let streams = connect_with(address, 1, &connect).ok()?;
            let session = source(&from, streams, options.clone());
            session.switchover();
            Some(session.finish().ending)
        });
        let target =
            let_in(&door).map(|streams| target(&to, streams, options.clone()).finish().ending);
        (source.join().expect("no panic"), target)
    });
    let (from, to) = (from.content(), to.content());
    let is_running = matches!(target, Some(TargetEnding::Running));
    if is_running {
        assert_eq!(to.state, DeviceState::Running);
        let (saved, loaded) = (from.bytes().expect("a file"), to.bytes().expect("a file"));
        assert!(!saved.is_empty() && saved == loaded, "what was loaded is not what was saved");
    }
    match &source {
        Some(SourceEnding::HandedOver) => {
            assert!(is_running, "handed over to nobody: {target:?}");
            assert_eq!(from.state, DeviceState::Stop);
        }
        Some(SourceEnding::Returned(why)) => {
            assert!(!is_running, "both run: {why}");
            assert_eq!(from.state, DeviceState::Running, "{why}");
        }
        Some(SourceEnding::NotReturned(_) | SourceEnding::Unconfirmed(_)) => {}
        None => assert!(!is_running, "the source has not even connected"),
    }
    if honest {
        assert!(is_running, "{target:?}");
        assert!(matches!(source, Some(SourceEnding::HandedOver)), "{source:?}");
    }
    let faults = [
        source.as_ref().and_then(SourceEnding::fault),
        target.as_ref().and_then(TargetEnding::fault),
    ];
    for fault in faults.into_iter().flatten() {
        assert!(!fault.message.contains("panicked"), "{fault}");
    }
}
