//! One host of a migration of test devices; see `vfio_ferry_tests::process`.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use vfio_ferry::compress::policy::Policy;
use vfio_ferry::error::Error;
use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::DeviceOptions;
use vfio_ferry::session::{
    Options, Session, SessionEvent, Side, SourceSession, TargetSession, accept, connect,
};
use vfio_ferry_tests::device::{Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, sources, targets};
use vfio_ferry_tests::process::{Outcome, Spec, peak_bytes};

fn main() {
    let spec = Spec::from_arguments(std::env::args().skip(1)).expect("a whole specification");
    let devices: Vec<Arc<TestDevice>> = (0..spec.devices as u8)
        .map(|number| {
            let plan = Plan {
                index: number,
                initial_bytes: spec.initial_bytes,
                rest_bytes: spec.rest_bytes,
                ..Plan::default()
            };
            Arc::new(TestDevice::new(if spec.is_source { plan } else { plan.target() }))
        })
        .collect();
    let ending = if spec.is_source {
        to_the_end(source(&spec, &devices).expect("a session"), |ending| ending.name())
    } else {
        to_the_end(target(&spec, &devices).expect("a session"), |ending| ending.name())
    };
    let passed = devices.iter().map(|device| device.passed());
    let (bytes, digest) = passed.fold((0, 0), |(bytes, digest), passed| {
        (bytes + passed.bytes, digest ^ passed.digest.unwrap_or(0))
    });
    let ending = ending.to_owned();
    println!("{}", Outcome { ending, bytes, digest, peak_bytes: peak_bytes() }.to_line());
}

fn to_the_end<S: Side>(session: Session<S>, name: fn(&S::Ending) -> &'static str) -> &'static str {
    loop {
        match session.wait_event(Some(PATIENCE)) {
            Some(SessionEvent::Notice(Notice::Phase { phase, .. })) => println!("phase {phase}"),
            Some(SessionEvent::Finished) => {
                // The process exits: the peer is to have all that was sent.
                assert!(session.wait_closed(PATIENCE), "the streams stay open");
                return name(&session.finish().ending);
            }
            Some(_) => {}
            None => panic!("the session does not end"),
        }
    }
}

fn options(spec: &Spec) -> Options {
    let policy = if spec.compress { Policy::Adaptive } else { Policy::Raw };
    Options { policy, precopy_poll: Duration::from_millis(1), ..Options::default() }
}

fn source(spec: &Spec, devices: &[Arc<TestDevice>]) -> Result<SourceSession, Error> {
    let streams = connect(("127.0.0.1", spec.port), spec.streams)?;
    let precopy = spec.initial_bytes > 0;
    let device = DeviceOptions { precopy, ..DeviceOptions::default() };
    let session = SourceSession::start(sources(devices, &device), streams, options(spec))?;
    if precopy {
        session.wait_until_ready(PATIENCE, PATIENCE, |notice| {
            if let Notice::Phase { phase, .. } = notice {
                println!("phase {phase}");
            }
        });
    }
    session.switchover();
    Ok(session)
}

fn target(spec: &Spec, devices: &[Arc<TestDevice>]) -> Result<TargetSession, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("listening {}", listener.local_addr().expect("its address").port());
    TargetSession::start(targets(devices), accept(&listener, PATIENCE)?, options(spec))
}
