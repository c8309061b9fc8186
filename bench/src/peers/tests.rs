//! Every peer carries every byte, of several devices, of sizes that no buffer divides.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use super::*;
use crate::data::Content;
use crate::device::{Double, Plan, Watch, Watched};
use crate::engine::{self, EngineOptions};
use crate::spec::{BackendChoice, DataKind, OnResetChoice, Policy};

#[path = "../../../tests/src/skip.rs"]
#[expect(unreachable_pub, reason = "the file is another crate's, too")]
mod skip;

fn devices(content: &Content, sizes: &[u64]) -> Vec<Arc<Double>> {
    let device = |(index, &state_bytes): (usize, &u64)| {
        Arc::new(Double::new(Plan {
            index: index as u8,
            content: content.clone(),
            rest_bytes: state_bytes,
            expects_bytes: state_bytes,
            ..Plan::default()
        }))
    };
    sizes.iter().enumerate().map(device).collect()
}

fn inputs(devices: &[Arc<Double>], stream: TcpStream) -> Inputs {
    let watched = |device: &Arc<Double>| -> Arc<dyn MigrationDevice> {
        Arc::new(Watched::new(device.clone(), Arc::<Watch>::default()))
    };
    Inputs {
        devices: devices.iter().map(watched).collect(),
        streams: engine::plain(vec![stream]),
        options: EngineOptions {
            policy: Policy::Raw,
            backend: BackendChoice::Auto,
            chunk_bytes: 256 << 10,
            precopy: false,
            on_reset: OnResetChoice::Abort,
            limits: Default::default(),
            latencies: Vec::new(),
            plaintext: false,
        },
    }
}

#[test]
fn every_peer_carries_every_byte() {
    let sizes = [5_000_003, 1, 1 << 20, (32 << 10) - 16];
    let content = Content::new(&DataKind::Structured).unwrap_or_else(|e| panic!("{e}"));
    type Make = fn() -> Box<dyn Peer + Send>;
    let all: [(Contender, Make); 5] = [
        (Contender::QemuMain, || Box::new(QemuMain)),
        (Contender::QemuMultifd, || Box::new(QemuMultifd)),
        (Contender::Snapshot, || Box::new(Snapshot)),
        (Contender::Pipeline, || Box::new(Pipeline::default())),
        (Contender::TokioUring, || Box::new(TokioLoop)),
    ];
    for (contender, peer) in all {
        let name = contender.name();
        if let Some(why) = missing(contender) {
            skip::skip(format!("{name}: {why}"));
            continue;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
        let (source, target) = (devices(&content, &sizes), devices(&content, &sizes));
        let target_devices = target.clone();
        let receiver = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap_or_else(|e| panic!("{e}"));
            run(&*peer(), Side::Target, inputs(&target_devices, stream))
        });
        let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{e}"));
        let sent = run(&*peer(), Side::Source, inputs(&source, stream));
        let sent = sent.unwrap_or_else(|e| panic!("{e}"));
        let received = receiver.join().unwrap_or_else(|_| panic!("the target panicked"));
        let received = received.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((&sent.fault, &received.fault), (&None, &None), "{}", name);
        if contender == Contender::Pipeline {
            // By the kernel's count, which has the word of the target, too.
            assert!(sent.wire_bytes > 0 && received.wire_bytes > 0);
        } else {
            assert_eq!(sent.wire_bytes, received.wire_bytes, "{}", name);
            assert!(sent.wire_bytes >= sizes.iter().sum::<u64>());
        }
        for ((one, two), size) in source.iter().zip(&target).zip(sizes) {
            assert_eq!(one.passed(), two.passed(), "{}", name);
            assert_eq!(one.passed().bytes, size);
            assert!(one.passed().digest.is_some());
            assert_eq!(two.state().ok(), Some(DeviceState::Running));
        }
    }
}
