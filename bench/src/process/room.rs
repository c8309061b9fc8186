//! Two network namespaces of our own with a slow wire between them, for a link that holds its rate from
//! the first byte on.
//!
//! ```text
//! namespace A              veth                namespace B
//! source: tbf, RATE  ----------------->  target
//!         <-----------------  tbf, RATE
//! ```
//!
//! A holder process keeps each namespace alive: the first one makes the veth with `ip` and both token
//! buckets with `tc`. Root needs nothing else; another user gets a user namespace of his own first, where
//! the host lets him. Agents enter by the holders' files in /proc. When the holders end, all is gone.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use crate::spec::{Rate, Side, Size};

/// Documentation addresses: nobody else is in there.
const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A holder's namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pid: u32,
    /// It has a user namespace of its own, too.
    has_user: bool,
}

impl Place {
    /// Moves this process there. It must have one thread.
    pub(crate) fn enter(self) -> io::Result<()> {
        let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", self.pid));
        // The first one changes who may enter the second.
        let net = open("net")?;
        if self.has_user {
            setns(open("user")?, CloneFlags::CLONE_NEWUSER)?;
        }
        setns(net, CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }

    /// Where the target listens in there.
    pub(crate) fn listens_at() -> Ipv4Addr {
        TARGET
    }
}

/// Both namespaces. Dropping it ends them.
pub(crate) struct Room {
    holder: Child,
    source: Place,
    target: Place,
}

impl Room {
    /// Makes them, or says why this user on this host cannot.
    pub(crate) fn open(rate: Rate) -> Result<Room, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let holder = Command::new(program)
            .args(["room", &rate.0.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let nobody = Place { pid: 0, has_user: false };
        let mut room = Room { holder, source: nobody, target: nobody };
        let mut line = String::new();
        if let Some(output) = room.holder.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        let made: Result<(Place, Place), String> = serde_json::from_str(&line)
            .map_err(|_| "the process that makes them ended without a word".to_owned())?;
        (room.source, room.target) = made?;
        Ok(room)
    }

    /// A side's.
    pub(crate) fn place(&self, side: Side) -> Place {
        match side {
            Side::Source => self.source,
            Side::Target => self.target,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Both fail if it has ended and was waited for, which is what is wanted.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Bytes that the bucket lets pass at once: a fifth of a millisecond, and a packet at the least.
pub(crate) fn burst(rate: Rate) -> Size {
    Size((rate.0 / 5000).max(mtu(rate) + ETHERNET_BYTES))
}

const ETHERNET_BYTES: u64 = 18;

/// A slow wire has small packets, so that none of them is long; a fast one has as few as loopback.
fn mtu(rate: Rate) -> u64 {
    match rate.0 {
        0..12_500_000 => 1500,
        12_500_000..250_000_000 => 9000,
        _ => 65_535,
    }
}

/// The hidden command `room RATE`: both holders are it, the second one without a rate. Ends when its
/// standard input does.
pub(crate) fn hold(rate: Option<u64>) -> io::Result<()> {
    let made = match rate {
        Some(rate) => make(Rate(rate)).map_err(|error| error.to_string()),
        None => make_peer().map_err(|error| error.to_string()),
    };
    let child = made.map(|(said, child)| (serde_json::to_string(&Ok::<_, String>(said)), child));
    let (line, _child) = match child {
        Ok((line, child)) => (line?, child),
        Err(error) => (serde_json::to_string(&Err::<(), String>(error))?, None),
    };
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()?;
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}

type Made = ((Place, Place), Option<Peer>);

/// The other namespace's holder. Dropping it ends it.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn make(rate: Rate) -> io::Result<Made> {
    let has_user = new_namespaces()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("room")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (output, target) = (child.stdout.take(), Place { pid: child.id(), has_user });
    let peer = Peer(child);
    let mut line = String::new();
    let output = output.ok_or_else(|| io::Error::other("no standard output"))?;
    BufReader::new(output).read_line(&mut line)?;
    let made: Result<(Place, Place), String> = serde_json::from_str(&line)?;
    made.map_err(io::Error::other)?;
    let (mtu, pid) = (mtu(rate), target.pid);
    run(
        "ip",
        &format!("link add ferry0 mtu {mtu} type veth peer name ferry1 mtu {mtu} netns {pid}"),
    )?;
    up("", "ferry0", SOURCE, rate)?;
    let there = format!("--net=/proc/{pid}/ns/net ");
    up(&there, "ferry1", TARGET, rate)?;
    Ok(((Place { pid: std::process::id(), has_user }, target), Some(peer)))
}

fn make_peer() -> io::Result<Made> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let place = Place { pid: std::process::id(), has_user: false };
    Ok(((place, place), None))
}

/// A network namespace, in a user namespace where this user needs one. Whether he does.
fn new_namespaces() -> io::Result<bool> {
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(false);
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // Without this an ordinary user may not map a group.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    Ok(true)
}

/// Gives an end of the wire its address and its bucket, here or in another namespace.
fn up(namespace: &str, name: &str, address: Ipv4Addr, rate: Rate) -> io::Result<()> {
    let on = |program: &str, line: &str| match namespace {
        "" => run(program, line),
        namespace => run("nsenter", &format!("{namespace}{program} {line}")),
    };
    on("ip", "link set lo up")?;
    on("ip", &format!("addr add {address}/30 dev {name}"))?;
    on("ip", &format!("link set {name} up"))?;
    // The queue is longer than what the sockets put into it: a link loses nothing by being slow.
    let (bits, burst) = (u128::from(rate.0) * 8, burst(rate).0);
    on(
        "tc",
        &format!("qdisc add dev {name} root tbf rate {bits}bit burst {burst} limit {QUEUE_BYTES}"),
    )
}

const QUEUE_BYTES: u32 = 512 << 20;

fn run(program: &str, line: &str) -> io::Result<()> {
    // An ordinary user's path often has no sbin.
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(line.split_whitespace())
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} {line}: {}",
        errors.lines().next().unwrap_or("failed")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_holds_a_packet_and_little_else() {
        let burst = |bits: u64| burst(Rate(bits / 8)).0;
        assert_eq!([burst(1_000_000), burst(10_000_000)], [1518, 1518]);
        assert_eq!(burst(1_000_000_000), 25_000);
        assert_eq!(burst(10_000_000_000), 250_000);
    }
}
