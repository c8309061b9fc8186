//! What passes through the relay, and what does not.

use std::io::Read;

use super::*;

/// What a target reads of three discards and an abort.
fn relayed(rules: Vec<Rule>) -> Vec<Frame> {
    let target = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
    let address = target.local_addr().unwrap_or_else(|e| panic!("{e}"));
    let net = Net { streams: 1, rules, ..Net::default() };
    let proxy = Proxy::start(address, net, Box::new(|_| {}));
    let proxy = proxy.unwrap_or_else(|e| panic!("{e}"));
    let source = TcpStream::connect(proxy.address()).unwrap_or_else(|e| panic!("{e}"));
    let (mut taken, _) = target.accept().unwrap_or_else(|e| panic!("{e}"));
    for frame in said() {
        (&source).write_all(frame.bytes()).unwrap_or_else(|e| panic!("{e}"));
    }
    source.shutdown(Shutdown::Write).unwrap_or_else(|e| panic!("{e}"));
    let mut bytes = Vec::new();
    // The relay's end closes what it does not close by itself.
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = (&source).read(&mut [0]);
        });
        let mut buffer = [0; 1024];
        let _ = taken.set_read_timeout(Some(Duration::from_millis(500)));
        while let Ok(read @ 1..) = taken.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..read]);
        }
        drop(proxy);
    });
    let mut from = &bytes[..];
    std::iter::from_fn(|| Frame::read(&mut from).ok().flatten()).collect()
}

fn said() -> [Frame; 4] {
    let mut frames =
        [Frame::discard(1), Frame::discard(2), Frame::abort("enough"), Frame::discard(3)];
    for (number, frame) in frames.iter_mut().enumerate() {
        frame.move_number(number as u32);
    }
    frames
}

fn at_the_second_discard(deed: Deed) -> Vec<Rule> {
    vec![Rule { skip: 1, ..Rule::new(Side::Target, Point::Frame(Kind::Discard), deed) }]
}

#[test]
fn without_rules_everything_passes() {
    assert_eq!(relayed(Vec::new()), said());
    let toward_source = Rule::new(Side::Source, Point::Frame(Kind::Discard), Deed::Cut);
    assert_eq!(relayed(vec![toward_source]), said());
}

#[test]
fn a_lost_frame_leaves_a_gap() {
    let [one, _, abort, three] = said();
    assert_eq!(relayed(at_the_second_discard(Deed::Lose)), [one, abort, three]);
}

#[test]
fn what_was_never_said_leaves_none() {
    let [one, _, mut abort, _] = said();
    abort.move_number(u32::MAX);
    let discard = Point::Frame(Kind::Discard);
    assert_eq!(relayed(at_the_second_discard(Deed::Withhold(discard))), [one.clone(), abort]);
    assert_eq!(relayed(at_the_second_discard(Deed::OnlyPings)), [one]);
}

#[test]
fn what_is_put_in_moves_the_rest() {
    let frames = relayed(at_the_second_discard(Deed::Abort("so it is")));
    let [one, mut two, mut abort, mut three] = said();
    let mut put_in = Frame::abort("so it is");
    put_in.move_number(1);
    for frame in [&mut two, &mut abort, &mut three] {
        frame.move_number(1);
    }
    assert_eq!(frames, [one, put_in, two, abort, three]);
}

#[test]
fn a_cut_ends_the_stream_before_the_frame() {
    let [one, ..] = said();
    assert_eq!(relayed(at_the_second_discard(Deed::Cut)), [one]);
}

#[test]
fn a_flipped_bit_is_not_made_good() {
    let frames = relayed(at_the_second_discard(Deed::Flip));
    let [_, mut two, ..] = said();
    two.flip();
    assert_eq!((frames.len(), &frames[1]), (4, &two));
}
