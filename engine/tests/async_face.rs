//! The async face on a tokio-uring runtime: both hosts of a migration as tasks of one thread.

#[path = "../examples/demo/mod.rs"]
mod demo;

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use vfio_ferry::{
    AsyncSession, DeviceOptions, Options, SessionEvent, SourceDevice, SourceEnding, SourceSession,
    TargetDevice, TargetSession, accept, connect,
};

#[test]
fn both_hosts_are_awaited_on_one_thread() {
    let state: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 7) as u8).collect();
    let arrived = memfd();
    let mut content = memfd();
    content.write_all(&state).expect("room");
    let leaving = demo::Demo::over(content);
    let coming = demo::Demo::over(arrived.try_clone().expect("an fd"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let streams = connect(listener.local_addr().expect("address"), 2).expect("connect");
    let name = "net0".to_owned();
    let device =
        SourceDevice { name: name.clone(), device: leaving, options: DeviceOptions::default() };
    let source =
        SourceSession::start(vec![device], streams, Options::default()).expect("source session");
    let streams = accept(&listener, Duration::from_secs(10)).expect("accept");
    let device = TargetDevice { name, device: coming };
    let target =
        TargetSession::start(vec![device], streams, Options::default()).expect("target session");

    tokio_uring::start(async {
        let source = AsyncSession::new(source).expect("reactor");
        let target = AsyncSession::new(target).expect("reactor");
        source.session().switchover();
        let arriving = tokio_uring::spawn(async move {
            let mut events = Vec::new();
            while let Some(event) = target.next_event().await {
                events.push(event);
            }
            assert_eq!(target.next_event().await, None, "the end stays the end");
            events
        });
        let report = source.finish().await.expect("the runtime lives");
        assert_eq!(report.ending, SourceEnding::HandedOver);
        let events = arriving.await.expect("no panic");
        assert_eq!(events.last(), Some(&SessionEvent::Finished));
    });
    let mut bytes = vec![0; state.len() + 1];
    let count = arrived.read_at(&mut bytes, 0).expect("content");
    assert!(bytes[..count] == state);
}

fn memfd() -> File {
    File::from(memfd_create("state", MemfdFlags::CLOEXEC).expect("memory"))
}
