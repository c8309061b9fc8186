//! The target of a small VMM: takes one device in.
//!
//! `cargo run --example target -- ADDRESS [SYSFS-PATH]`: a real device by its sysfs path, or
//! without one a demonstration device.

#[path = "demo/mod.rs"]
mod demo;

use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use vfio_ferry::session::{Options, Session, SessionEvent, TargetDevice, accept};
use vfio_ferry::vfio::VfioDevice;
use vfio_ferry::vfio::device::MigrationDevice;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: target ADDRESS [SYSFS-PATH]")?;
    let mut demo = None;
    let device: Arc<dyn MigrationDevice> = match arguments.next() {
        Some(path) => Arc::new(VfioDevice::open(path)?),
        None => demo.insert(demo::Demo::new(&[])?).clone(),
    };
    let device = TargetDevice { name: "net0".to_owned(), device };
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let streams = accept(&listener, Duration::from_secs(60))?;
    let session = Session::target(vec![device], streams, Options::default())?;
    while let Some(event) = session.wait_event(None) {
        println!("{event:?}");
        if let SessionEvent::Finished(finish) = event
            && let Some(fault) = finish.fault
        {
            return Err(fault.to_string().into());
        }
    }
    if let Some(demo) = demo {
        println!("{} bytes of state arrived", demo.content()?.len());
    }
    // The device is in RUNNING: here a VMM starts its vCPUs.
    Ok(())
}
