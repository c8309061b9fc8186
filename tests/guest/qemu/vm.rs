//! A QEMU process with VFIO devices, driven over QMP.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::checks::{Failure, Outcome, ensure, fail};
use crate::mdev::Mdev;

/// Software emulation in software emulation: what takes a second elsewhere takes many here.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// The oldest of the releases has it, and so all of them: they migrate to each other.
const MACHINE: &str = "pc-i440fx-10.0,accel=tcg";

static NUMBER: AtomicU16 = AtomicU16::new(0);

/// Which QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Build {
    /// As its makers released it.
    Stock,
    /// With our patch, and these properties on each device.
    Patched(&'static str),
    /// With our patch, and the properties of each device in turn.
    Each(&'static [&'static str]),
}

/// How a migration ended, in QEMU's words.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: String,
    /// `error-desc`.
    pub(super) error: String,
    pub(super) downtime_ms: u64,
}

/// A running QEMU. Ended when dropped.
#[derive(Debug)]
pub(super) struct Vm {
    process: Child,
    qmp: BufReader<UnixStream>,
    /// What QMP said by itself.
    events: Vec<Value>,
    log: PathBuf,
}

impl Vm {
    /// Starts one on these devices. A target listens on `incoming`, and its guest goes on at once
    /// when it has arrived.
    pub(super) fn start(build: Build, devices: &[&Mdev], incoming: Option<u16>) -> Outcome<Vm> {
        let uri = incoming.map(|port| format!("tcp:127.0.0.1:{port}"));
        Vm::start_from(build, devices, uri.as_deref())
    }

    /// The same, and where a target's state comes from is a URI.
    pub(super) fn start_from(
        build: Build,
        devices: &[&Mdev],
        incoming: Option<&str>,
    ) -> Outcome<Vm> {
        Vm::start_with(build, devices, incoming, &[])
    }

    /// The same, with more arguments.
    pub(super) fn start_with(
        build: Build,
        devices: &[&Mdev],
        incoming: Option<&str>,
        more: &[&str],
    ) -> Outcome<Vm> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (socket, log) = (format!("/tmp/qmp.{number}"), format!("/tmp/qemu.{number}.log"));
        let program = match build {
            Build::Stock => "/qemu/stock".to_owned(),
            Build::Patched(_) | Build::Each(_) => match std::env::var("FERRY_QEMU") {
                Ok(release) => format!("/qemu/patched-{release}"),
                Err(_) => "/qemu/patched".to_owned(),
            },
        };
        let extra = |index: usize| match build {
            Build::Stock => String::new(),
            Build::Patched(properties) => format!(",{properties}"),
            Build::Each(properties) => format!(",{}", properties[index]),
        };
        let mut command = Command::new(&program);
        command
            .args(["-L", "/qemu", "-machine", MACHINE, "-m", "64", "-nodefaults"])
            .args(["-display", "none", "-vga", "none", "-serial", "none", "-no-user-config"])
            .args(["-msg", "timestamp=on"])
            .args(["-qmp", &format!("unix:{socket},server=on,wait=off")])
            .args(["-trace", "vfio_ferry*", "-trace", "vfio_migration_set_state"]);
        for (index, device) in devices.iter().enumerate() {
            let folder = device.folder().display();
            // Neither device reports dirty pages well enough for QEMU; their guest does no DMA.
            let device = format!(
                "vfio-pci,sysfsdev={folder},enable-migration=on,migration-events=on,x-device-dirty-page-tracking=off,id=v{index}{}",
                extra(index)
            );
            command.args(["-device", &device]);
        }
        if let Some(uri) = incoming {
            command.args(["-incoming", uri]);
        }
        command.args(more);
        // What is freed is overwritten, so that its use is seen.
        command.env("MALLOC_PERTURB_", "165");
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut process = command.spawn()?;
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break stream;
            }
            if let Some(status) = process.try_wait()? {
                fail!("{program} ended at once, {status}: {}", last_lines(&log));
            }
            ensure!(Instant::now() < deadline, "{program} does not answer: {}", last_lines(&log));
            sleep(LOOK);
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut vm =
            Vm { process, qmp: BufReader::new(stream), events: Vec::new(), log: log.into() };
        vm.answer()?;
        vm.ask("qmp_capabilities", json!({}))?;
        Ok(vm)
    }

    /// One QMP command; the `return` of its answer.
    pub(super) fn ask(&mut self, command: &str, arguments: Value) -> Outcome<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.qmp.get_mut().write_all(format!("{line}\n").as_bytes())?;
        loop {
            let answer = self.answer()?;
            if let Some(error) = answer.get("error") {
                fail!("{command}: {}", error["desc"].as_str().unwrap_or("no reason"));
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            self.events.push(answer);
        }
    }

    fn answer(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        match self.qmp.read_line(&mut line) {
            Ok(0) => fail!("QEMU has gone: {}", last_lines(&self.log)),
            Ok(_) => {}
            Err(error) => fail!("QEMU: {error}: {}", last_lines(&self.log)),
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// The data of all events of this name that came with answers so far.
    pub(super) fn events(&self, name: &str) -> Vec<&Value> {
        let named = |event: &&Value| event["event"] == name;
        self.events.iter().filter(named).map(|event| &event["data"]).collect()
    }

    /// Switches a migration capability on.
    pub(super) fn capability(&mut self, name: &str) -> Outcome {
        let capabilities = json!({ "capabilities": [{ "capability": name, "state": true }] });
        self.ask("migrate-set-capabilities", capabilities)?;
        Ok(())
    }

    /// Sets a migration parameter.
    pub(super) fn parameter(&mut self, name: &str, value: u64) -> Outcome {
        self.ask("migrate-set-parameters", json!({ name: value }))?;
        Ok(())
    }

    /// Begins to migrate away.
    pub(super) fn migrate(&mut self, port: u16) -> Outcome {
        self.migrate_to(&format!("tcp:127.0.0.1:{port}"))
    }

    /// Begins to migrate to where a URI says.
    pub(super) fn migrate_to(&mut self, uri: &str) -> Outcome {
        self.ask("migrate", json!({ "uri": uri }))?;
        Ok(())
    }

    /// A command without arguments.
    pub(super) fn does(&mut self, command: &str) -> Outcome {
        self.ask(command, json!({}))?;
        Ok(())
    }

    /// How long a QEMU may take that does not answer, before that is what is seen of it.
    pub(super) const HARD_PATIENCE: Duration = Duration::from_secs(20);

    /// The slowest of so many answers, in milliseconds; none if one did not come. Then nothing more
    /// can be asked.
    pub(super) fn answers_in(&mut self, times: usize) -> Option<u64> {
        let patient = |vm: &mut Vm, patience| vm.qmp.get_mut().set_read_timeout(Some(patience));
        patient(self, Vm::HARD_PATIENCE).ok()?;
        let mut slowest = 0;
        for _ in 0..times {
            let since = Instant::now();
            self.does("query-status").ok()?;
            slowest = slowest.max(since.elapsed().as_millis() as u64);
        }
        patient(self, PATIENCE).ok()?;
        Some(slowest)
    }

    /// Asks for a cancel; whether it is heard, the migration's end tells.
    pub(super) fn try_cancel(&mut self) {
        let _ = self.does("migrate_cancel");
    }

    /// The most memory that the process has had at a time, in MiB.
    pub(super) fn most_memory_mib(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = most.and_then(|most| most.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        let Some(kib) = kib else { fail!("no VmHWM in {status:?}") };
        Ok(kib / 1024)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends the process a signal.
    pub(super) fn signal(&self, signal: Signal) -> Outcome {
        let id = Pid::from_child(&self.process);
        Ok(rustix::process::kill_process(id, signal)?)
    }

    /// Waits for the migration's end.
    pub(super) fn ended(&mut self) -> Outcome<Ended> {
        self.ended_within(PATIENCE)
    }

    /// The same, where it takes longer than others.
    pub(super) fn ended_within(&mut self, patience: Duration) -> Outcome<Ended> {
        let deadline = Instant::now() + patience;
        loop {
            let found = self.ask("query-migrate", json!({}))?;
            let status = found["status"].as_str().unwrap_or("none").to_owned();
            if ["completed", "failed", "cancelled"].contains(&status.as_str()) {
                let error = found["error-desc"].as_str().unwrap_or_default().to_owned();
                let downtime_ms = found["downtime"].as_u64().unwrap_or_default();
                return Ok(Ended { status, error, downtime_ms });
            }
            if Instant::now() > deadline {
                fail!("the migration is still {status}: {}", last_lines(&self.log));
            }
            sleep(LOOK);
        }
    }

    /// Waits until the VM is in this run state.
    pub(super) fn runs_as(&mut self, wanted: &str) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.ask("query-status", json!({}))?;
            let found = found["status"].as_str().unwrap_or("none");
            if found == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the VM is {found} and not {wanted}");
            sleep(LOOK);
        }
    }

    /// Whether the log has this text: warnings, errors and traces.
    pub(super) fn said(&self, text: &str) -> bool {
        fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
    }

    /// What QEMU wrote last.
    pub(super) fn last_words(&self) -> String {
        last_lines(&self.log)
    }

    /// Waits for the process to end by itself, as a target does that cannot load.
    pub(super) fn gone(&mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while self.process.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it still runs: {}", last_lines(&self.log));
            sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::env::var_os("FERRY_QEMU_LOG").is_some() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            log.lines().for_each(|line| println!("#   {line}"));
        }
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Failure {
        Failure(format!("the migration {}: {}", ended.status, ended.error))
    }
}

fn last_lines(log: impl AsRef<std::path::Path>) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join(" | ")
}
