//! Ten thousand connections that say nothing, beside an honest migration.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vfio_ferry::session::{DoorOptions, Reason};
use vfio_ferry_tests::skip::skip;

use crate::honest::{door, migrate_past, wait_for_count};
use vfio_ferry_tests::moment::Moment;

const CROWD: usize = 10_000;

/// Set when it goes, a panic's way too.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A silent connection that comes from an address of 127.0.0.0/8.
fn knock_from(from: Ipv4Addr, address: SocketAddr) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).ok()?;
    bind(&socket, &SocketAddrV4::new(from, 0)).ok()?;
    connect(&socket, &address).ok()?;
    Some(socket)
}

/// Fds for the crowd and the acceptor's side of it, or so many as the system gives.
fn make_room() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, most);
    let fds = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |fds| fds as usize);
    fds.saturating_sub(1000).min(CROWD)
}

/// From one address, and from a hundred.
#[test]
fn ten_thousand_half_open_connections() {
    let count = make_room();
    if count < CROWD {
        skip(format!("{count} connections of {CROWD}: RLIMIT_NOFILE"));
    }
    for addresses in [1, 100] {
        let options = DoorOptions::default();
        let (in_all, per_address) = (options.connections_max, options.per_address_max);
        let door = door(options);
        let address = door.local_addr();
        let (over, came) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let _at_the_end = Set(&over);
            let crowd = || {
                let mut open = Vec::new();
                while open.len() < count && !over.load(Ordering::Acquire) {
                    let from = Ipv4Addr::new(127, 0, 1, 1 + (open.len() % addresses) as u8);
                    open.extend(knock_from(from, address));
                    came.fetch_add(1, Ordering::Relaxed);
                }
                // They stay until the honest one is through.
                while !over.load(Ordering::Acquire) {
                    thread::sleep(std::time::Duration::from_millis(1));
                }
            };
            scope.spawn(crowd);
            // It begins in the thick of them.
            let thick = 3 * in_all;
            migrate_past(&door, |moment, _| {
                while moment == Moment::Before && came.load(Ordering::Relaxed) < thick.min(count) {
                    thread::sleep(std::time::Duration::from_millis(1));
                }
                assert!(door.held() <= in_all);
                while moment == Moment::During && came.load(Ordering::Relaxed) < count {
                    thread::sleep(std::time::Duration::from_millis(1));
                    assert!(door.held() <= in_all);
                }
            });
            // Those that the kernel's queue still had.
            let most = if addresses == 1 { per_address } else { in_all };
            wait_for_count(&door, Reason::Crowded, (count - most) as u64);
            assert_eq!(door.held(), most);
        });
    }
}
