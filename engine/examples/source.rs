//! The source of a small VMM: migrates one device away.
//!
//! `cargo run --example source -- ADDRESS PATH`: a real device by its folder in sysfs, or a file,
//! which is then the state of a demonstration device. Start `target` first.

#[path = "demo/mod.rs"]
mod demo;

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vfio_ferry::{
    DeviceOptions, MigrationDevice, OnReset, Options, SourceDevice, SourceEnding, SourceSession,
    VfioDevice, connect,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, path] = &arguments[..] else { Err("usage: source ADDRESS PATH")? };
    let device: Arc<dyn MigrationDevice> = if Path::new(path).is_dir() {
        Arc::new(VfioDevice::open(path)?)
    } else {
        demo::Demo::over(File::open(path)?)
    };
    let options = DeviceOptions { on_reset: OnReset::restart(), ..DeviceOptions::default() };
    let device = SourceDevice { name: "net0".to_owned(), device, options };
    let session = SourceSession::start(vec![device], connect(address, 2)?, Options::default())?;

    // The guest runs on while the device saves in PRE_COPY, until stopping it would be short.
    let limit = Duration::from_millis(50);
    let readiness = session.wait_until_ready(limit, Duration::from_secs(30), |notice| {
        println!("{notice:?}");
    });
    println!("{readiness:?}");

    // Here a VMM pauses its vCPUs.
    session.switchover();
    // This process exits right after: until the streams are closed the system may drop its last word.
    session.wait_closed(Duration::MAX);
    let report = session.finish();
    println!("{:?}", report.devices);
    match report.ending {
        SourceEnding::HandedOver => Ok(()),
        // SourceEnding::Returned: here a VMM lets its vCPUs run on.
        ending => Err(ending.to_string().into()),
    }
}
