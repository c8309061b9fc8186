//! Peers that are not who they should be: each is refused, and the error says who failed.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use vfio_ferry::outcome::SourceEnding;
use vfio_ferry::session::{
    Acceptor, Credentials, DoorOptions, Error, Options, Protection, Reason, StreamProtection, Tls,
    TlsFault, Trust, UsageError, connect_with,
};
use vfio_ferry_tests::pki::{Authority, Validity};
use vfio_ferry_tests::runs::{assert_handed_over, talkative};

use super::whole::{migrate, options};
use crate::honest::{device, door, start_source, wait_for_count};
use crate::strangers::hello;

fn source(credentials: &Credentials, trust: &Trust) -> Protection {
    Protection::Tls(Tls::source(credentials, trust).expect("credentials"))
}

fn guarded(credentials: &Credentials, trust: &Trust) -> std::sync::Arc<Acceptor> {
    let protection = Protection::Tls(Tls::target(credentials, trust).expect("credentials"));
    door(DoorOptions { protection, ..DoorOptions::default() })
}

/// What a source says of a target that it does not trust.
fn refused_target(door: &Acceptor, source: &Protection) -> TlsFault {
    let address = door.local_addr();
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| connect_with(address, 1, &options(source)));
        while !connecting.is_finished() {
            assert!(door.poll().expect("it listens").is_none(), "nobody has said hello");
        }
        match connecting.join().expect("no panic").expect_err("not trusted") {
            Error::Tls(fault) => fault,
            other => panic!("{other}"),
        }
    })
}

#[test]
fn a_target_of_another_authority_name_or_time() {
    let (ours, theirs) = (Authority::throw_away(), Authority::throw_away());
    let own = ours.issue("source.test", Validity::Valid);
    let trusting = source(&own, &ours.trusts("target.test"));
    let anybody = Trust::Authority { authorities: ours.pem(), name: None };

    let other = guarded(&theirs.issue("target.test", Validity::Valid), &anybody);
    assert!(matches!(refused_target(&other, &trusting), TlsFault::Untrusted(_)));
    wait_for_count(&other, Reason::NoHandshake, 1);

    let wrong = guarded(&ours.issue("other.test", Validity::Valid), &anybody);
    let fault = refused_target(&wrong, &trusting);
    assert!(matches!(&fault, TlsFault::Untrusted(_)), "{fault}");
    assert!(fault.to_string().contains("name"), "{fault}");

    let expired = guarded(&ours.issue("target.test", Validity::Expired), &anybody);
    assert!(matches!(refused_target(&expired, &trusting), TlsFault::Expired(_)));
}

/// A source finds out after its own handshake: the target's alert ends its session.
#[test]
fn a_source_of_another_authority_name_or_time() {
    let (ours, theirs) = (Authority::throw_away(), Authority::throw_away());
    let target = ours.issue("target.test", Validity::Valid);
    let trust = ours.trusts("target.test");
    let refused = [
        theirs.issue("source.test", Validity::Valid),
        ours.issue("other.test", Validity::Valid),
        ours.issue("source.test", Validity::Expired),
    ];
    for (number, credentials) in refused.iter().enumerate() {
        let door = guarded(&target, &ours.trusts("source.test"));
        let address = door.local_addr();
        let protection = source(credentials, &trust);
        let session = std::thread::scope(|scope| {
            let starting = scope.spawn(|| {
                let streams = connect_with(address, 1, &options(&protection)).expect("its side");
                let from = device(talkative());
                let session = start_source(&from, streams);
                while !session.has_ended() {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                session
            });
            wait_for_count(&door, Reason::Untrusted, 1);
            starting.join().expect("no panic")
        });
        let protection = session.protection();
        let report = session.finish();
        let SourceEnding::Returned(fault) = report.ending else { panic!("{}", report.ending) };
        assert!(fault.message.contains("the peer refused this host"), "{number}: {fault}");
        let said = |protection: &StreamProtection| {
            matches!(protection, StreamProtection::Tls { fault: Some(TlsFault::Refused(_)), .. })
        };
        assert!(protection.iter().all(said), "{number}: {protection:?}");
    }
}

#[test]
fn pinned_keys_need_no_authority() {
    let (one, other) = (Authority::throw_away(), Authority::throw_away());
    let ours = one.issue("a", Validity::Expired);
    let theirs = other.issue("b", Validity::Expired);
    // The orchestrator asks each host for its key.
    let keys = |credentials: &Credentials| Trust::Keys(vec![credentials.key_hash().expect("one")]);
    let door = guarded(&theirs, &keys(&ours));
    let good = source(&ours, &keys(&theirs));
    let address = door.local_addr();
    let done = migrate(&door, address, &good, 2, talkative(), &Options::default());
    assert_handed_over(&done.source, &done.target);

    let wrong = source(&ours, &keys(&ours));
    let fault = refused_target(&door, &wrong);
    assert!(matches!(&fault, TlsFault::Untrusted(why) if why.contains("pinned")), "{fault}");
}

#[test]
fn a_plaintext_source_at_a_protected_door_and_the_reverse() {
    let (ours, theirs) = Authority::throw_away().hosts();
    let door = door(DoorOptions { protection: theirs, ..DoorOptions::default() });
    let mut plain = TcpStream::connect(door.local_addr()).expect("it listens");
    plain.write_all(&hello(7, 1, 0)).expect("room");
    wait_for_count(&door, Reason::NoHandshake, 1);

    // Whoever answers in plaintext is no target.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the source");
        stream.write_all(&hello(7, 1, 0)).expect("room");
        stream
    });
    let error = connect_with(address, 1, &options(&ours)).expect_err("no TLS");
    assert!(matches!(&error, Error::Tls(TlsFault::Changed(_))), "{error}");
    drop(answering.join());
}

#[test]
fn what_this_host_has_wrong_is_said_to_be_its_own() {
    let authority = Authority::throw_away();
    let good = authority.issue("source.test", Validity::Valid);
    let other = authority.issue("source.test", Validity::Valid);
    let trust = authority.trusts("target.test");
    let broken = [
        (Credentials { key: b"no key".to_vec(), ..good.clone() }, trust.clone()),
        (Credentials { key: other.key.clone(), ..good.clone() }, trust.clone()),
        (Credentials { certificates: Vec::new(), ..good.clone() }, trust.clone()),
        (good.clone(), Trust::Authority { authorities: Vec::new(), name: Some("a".into()) }),
        (good.clone(), Trust::Authority { authorities: authority.pem(), name: None }),
        (good.clone(), authority.trusts("no name")),
    ];
    for (number, (credentials, trust)) in broken.iter().enumerate() {
        let error = Tls::source(credentials, trust).expect_err("unusable");
        assert!(matches!(&error, Error::Tls(TlsFault::Credentials(_))), "{number}: {error}");
    }
    // The other host's.
    let tls = Tls::source(&good, &trust).expect("credentials");
    let protection = Protection::Tls(tls);
    let error = Acceptor::bind("127.0.0.1:0", DoorOptions { protection, ..Default::default() });
    let error = error.expect_err("a source's");
    assert!(matches!(error, Error::Usage(UsageError::TlsSide)), "{error}");
}

#[test]
fn a_folder_as_qemu_has_it() {
    let (authority, folder) = (Authority::throw_away(), tempfile::tempdir().expect("a folder"));
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).expect("written");
    };
    write("ca-cert.pem", &authority.pem());
    for host in ["client", "server"] {
        let credentials = authority.issue("127.0.0.1", Validity::Valid);
        write(&format!("{host}-cert.pem"), &credentials.certificates);
        let error = Tls::target_from_folder(folder.path(), None);
        assert!(
            error.expect_err("no key yet").to_string().contains("server-"),
            "it says what is not there"
        );
        write(&format!("{host}-key.pem"), &credentials.key);
    }
    let source = Tls::source_from_folder(folder.path(), "127.0.0.1").expect("credentials");
    let target = Tls::target_from_folder(folder.path(), Some("127.0.0.1")).expect("credentials");
    let protection = Protection::Tls(target);
    let door = door(DoorOptions { protection, ..DoorOptions::default() });
    let source = Protection::Tls(source);
    let address = door.local_addr();
    let done = migrate(&door, address, &source, 1, talkative(), &Options::default());
    assert_handed_over(&done.source, &done.target);
}
