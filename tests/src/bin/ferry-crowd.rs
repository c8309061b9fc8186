//! Connections that say nothing, from addresses of 127.0.0.0/8, in a process of their own, so that
//! the fds of the one whose door they stand at can be counted.
//!
//! `ferry-crowd ADDRESS COUNT SECONDS FROM`: so many, evenly over the time, from so many addresses.
//! Prints `came COUNT` when all have come, and keeps them until its standard input ends.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn knock(from: Ipv4Addr, address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(from, 0))?;
    connect(&socket, &address)?;
    Ok(socket)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, count, seconds, from] = &arguments[..] else { panic!("four arguments") };
    let address: SocketAddr = address.parse().expect("an address");
    let count: u32 = count.parse().expect("a number");
    let time = Duration::from_secs_f64(seconds.parse().expect("seconds"));
    let from: u32 = from.parse().expect("a number");
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let started = Instant::now();
    let mut open = Vec::new();
    for number in 0..count {
        let due = started + time * number / count;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let from = Ipv4Addr::new(127, 0, 1, 1 + (number % from) as u8);
        open.push(knock(from, address).expect("it listens"));
    }
    println!("came {}", open.len());
    let _ = std::io::stdin().read(&mut [0]);
}
