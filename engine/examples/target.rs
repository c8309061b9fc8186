//! The target of a small VMM: takes one device in.
//!
//! `cargo run --example target -- ADDRESS PATH`: a real device by its folder in sysfs, or a file
//! that takes in the state of a demonstration device.

#[path = "demo/mod.rs"]
mod demo;

use std::error::Error;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vfio_ferry::{
    MigrationDevice, Options, TargetDevice, TargetEnding, TargetSession, VfioDevice, accept,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, path] = &arguments[..] else { Err("usage: target ADDRESS PATH")? };
    let device: Arc<dyn MigrationDevice> = if Path::new(path).is_dir() {
        Arc::new(VfioDevice::open(path)?)
    } else {
        demo::Demo::over(
            File::options().read(true).write(true).create(true).truncate(true).open(path)?,
        )
    };
    let device = TargetDevice { name: "net0".to_owned(), device };
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let streams = accept(&listener, Duration::from_secs(60))?;
    let session = TargetSession::start(vec![device], streams, Options::default())?;
    while let Some(event) = session.wait_event(None) {
        println!("{event:?}");
    }
    // This process exits right after: until the streams are closed the system may drop its last word.
    session.wait_closed(Duration::MAX);
    match session.finish().ending {
        // Here a VMM starts its vCPUs.
        TargetEnding::Running => Ok(()),
        ending => Err(ending.to_string().into()),
    }
}
