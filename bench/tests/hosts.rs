//! `ferry-bench send` and `receive` without a device: two hosts, their network, a test device.

#[path = "../../tests/src/pki.rs"]
#[expect(dead_code, unreachable_pub, reason = "the file is another crate's, too")]
mod pki;
mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};

use program::{Ended, ferry_bench, scratch};
use serde_json::Value;

/// A receiver that listens on a port of its own.
struct Receiver {
    child: Child,
    errors: BufReader<ChildStderr>,
    address: String,
}

impl Receiver {
    fn start(rest: &str) -> Receiver {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ferry-bench"))
            .args(["receive", "--listen", "127.0.0.1:0"])
            .args(rest.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}"));
        let errors = child.stderr.take().unwrap_or_else(|| panic!("no standard error"));
        let mut errors = BufReader::new(errors);
        let mut line = String::new();
        errors.read_line(&mut line).unwrap_or_else(|error| panic!("{error}"));
        let address = line.split_whitespace().find(|word| word.contains("127.0.0.1"));
        let address = address.unwrap_or_else(|| panic!("{line}")).trim_end_matches(',').to_owned();
        Receiver { child, errors, address }
    }

    fn end(mut self) -> Ended {
        let (mut output, mut errors) = (String::new(), String::new());
        let read = self.child.stdout.take().map(|mut it| it.read_to_string(&mut output));
        assert!(
            read.is_some_and(|it| it.is_ok()) && self.errors.read_to_string(&mut errors).is_ok()
        );
        let status = self.child.wait().unwrap_or_else(|error| panic!("{error}")).code();
        Ended { status, output, errors }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn both_hosts_verify_the_state_and_the_sender_knows_the_downtime() {
    let folder = scratch();
    let [sent, received] = ["send", "receive"].map(|name| folder.path().join(name));
    for options in
        ["", "--data-fd memory --streams 3 --precopy --data elf --set-state-latency stop=1ms"]
    {
        let receiver = Receiver::start(&format!("--json {}", received.display()));
        let line = format!(
            "send --connect {} --state 1000003B --devices 2 --runs 2 --json {} {options}",
            receiver.address,
            sent.display()
        );
        let (sender, receiver) = (ferry_bench(&line), receiver.end());
        for ended in [&sender, &receiver] {
            assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""), "{}", ended.output);
            assert!(ended.output.contains("2 of 2 runs: source and target digests are equal"));
        }
        let (sent, received) = (json(&sent), json(&received));
        for report in [&sent, &received] {
            assert_eq!(
                (&report["verified"], &report["runs"]),
                (&true.into(), &2.into()),
                "{report}"
            );
            assert_eq!(report["state_bytes"], 2_000_006, "{report}");
            assert_eq!(report["each"].as_array().map(Vec::len), Some(2));
        }
        assert_eq!((&sent["command"], &received["command"]), (&"send".into(), &"receive".into()));
        assert!(sent["downtime_ns"]["min"].as_u64() > Some(0), "{sent}");
        assert_eq!(received["downtime_ns"]["max"], 0, "the hosts have no clock in common");
    }
}

/// Folders as QEMU's tls-creds-x509 has them: the sender's and the receiver's.
fn folders(name: &str) -> [tempfile::TempDir; 2] {
    let authority = pki::Authority::throw_away();
    [("client", "source.test"), ("server", name)].map(|(role, name)| {
        let folder = scratch();
        let put = |file: &str, pem: &[u8]| {
            assert!(std::fs::write(folder.path().join(file), pem).is_ok(), "{file}");
        };
        let own = authority.issue(name, pki::Validity::Valid);
        put("ca-cert.pem", &authority.pem());
        put(&format!("{role}-cert.pem"), &own.certificates);
        put(&format!("{role}-key.pem"), &own.key);
        folder
    })
}

#[test]
fn tls_guards_the_way_between_the_hosts() {
    let [source, target] =
        folders("127.0.0.1").map(|folder| (folder.path().display().to_string(), folder));
    let report = scratch();
    let report = report.path().join("sent");
    let receiver = Receiver::start(&format!("--tls-creds {} --tls-name source.test", target.0));
    let line = format!(
        "send --connect {} --state 1MiB --streams 2 --runs 2 --tls-creds {} --json {}",
        receiver.address,
        source.0,
        report.display()
    );
    let (sender, receiver) = (ferry_bench(&line), receiver.end());
    for ended in [&sender, &receiver] {
        assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""), "{}", ended.output);
        assert!(ended.output.contains("2 of 2 runs: source and target digests are equal"));
    }
    let protection = json(&report)["protection"].as_str().unwrap_or_default().to_owned();
    assert!(protection.starts_with("tls_"), "{protection}");
}

#[test]
fn a_receiver_that_is_somebody_else_gets_nothing() {
    let [source, target] =
        folders("elsewhere.test").map(|folder| (folder.path().display().to_string(), folder));
    let receiver = Receiver::start(&format!("--tls-creds {}", target.0));
    let line = format!(
        "send --connect {} --state 1MiB --runs 1 --tls-creds {}",
        receiver.address, source.0
    );
    let sender = ferry_bench(&line);
    assert_eq!((sender.status, sender.errors.lines().count()), (Some(2), 1), "{}", sender.errors);
    assert!(sender.errors.contains("name"), "{}", sender.errors);
}

#[test]
fn who_has_tls_and_who_has_not_do_not_meet() {
    let [source, target] =
        folders("127.0.0.1").map(|folder| (folder.path().display().to_string(), folder));
    let ways = [
        (String::new(), format!("--tls-creds {}", target.0), "the sender has no --tls-creds"),
        (format!("--tls-creds {}", source.0), String::new(), "the receiver has no --tls-creds"),
    ];
    for (send, receive, why) in ways {
        let receiver = Receiver::start(&receive);
        let line = format!("send --connect {} --state 1MiB --runs 1 {send}", receiver.address);
        let (sender, receiver) = (ferry_bench(&line), receiver.end());
        for ended in [&sender, &receiver] {
            assert_eq!(
                (ended.status, ended.errors.lines().count()),
                (Some(2), 1),
                "{}",
                ended.errors
            );
            assert!(ended.errors.contains(why), "{}", ended.errors);
        }
    }
}

/// A scanner, a browser: the receiver goes on.
#[test]
fn a_stranger_is_let_go() {
    let mut receiver = Receiver::start("");
    let mut stranger = TcpStream::connect(&receiver.address).unwrap_or_else(|e| panic!("{e}"));
    assert!(stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").is_ok());
    let mut line = String::new();
    assert!(receiver.errors.read_line(&mut line).is_ok());
    assert!(line.contains("is let go") && line.contains("no `ferry-bench send`"), "{line}");
    let sender =
        ferry_bench(&format!("send --connect {} --state 64KiB --runs 1", receiver.address));
    assert_eq!((sender.status, sender.errors.as_str()), (Some(0), ""));
    assert_eq!(receiver.end().status, Some(0));
}

#[test]
fn a_receiver_without_the_memory_says_so_to_both() {
    let receiver = Receiver::start("");
    // The sender would not ask for as much as itself does not have: somebody else might.
    let mut sender = TcpStream::connect(&receiver.address).unwrap_or_else(|e| panic!("{e}"));
    let spec = program::report("--state 64KiB --runs 1 --data-fd memory").1["spec"].clone();
    let mut hello = serde_json::json!({ "ferry_bench_send": 1, "spec": spec, "run": 1, "runs": 1 });
    hello["spec"]["state"] = (1u64 << 50).into();
    assert!(writeln!(sender, "{hello}").is_ok());
    let mut answer = String::new();
    assert!(BufReader::new(sender).read_line(&mut answer).is_ok());
    assert!(answer.contains("of memory"), "{answer}");
    let Ended { status, errors, .. } = receiver.end();
    assert_eq!((status, errors.lines().count()), (Some(2), 1), "{errors}");
    assert!(errors.contains("of memory"), "{errors}");
}
