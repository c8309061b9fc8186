//! What passes through the relay, and what does not.

use std::io::Read;

use super::*;

/// For what is sure to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a target reads of three discards, an abort and a ping: to the stream's end, or to the ping
/// where the relay hides that end.
fn relayed(rules: Vec<Rule>) -> Vec<Frame> {
    let target = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
    let address = target.local_addr().unwrap_or_else(|e| panic!("{e}"));
    let net = Net { streams: 1, rules, ..Net::default() };
    let proxy = Proxy::start(address, net, Box::new(|_| {}));
    let proxy = proxy.unwrap_or_else(|e| panic!("{e}"));
    let source = TcpStream::connect(proxy.address()).unwrap_or_else(|e| panic!("{e}"));
    let (mut taken, _) = target.accept().unwrap_or_else(|e| panic!("{e}"));
    // A relay that cuts may have done so before all is said.
    let _ = said().iter().try_for_each(|frame| (&source).write_all(frame.bytes()));
    let _ = source.shutdown(Shutdown::Write);
    let mut frames = Vec::new();
    // The relay's end closes what it does not close by itself.
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = (&source).read(&mut [0]);
        });
        let _ = taken.set_read_timeout(Some(PATIENCE));
        while let Ok(Some(frame)) = Frame::read(&mut taken) {
            let is_last = frame.is(Kind::Ping);
            frames.push(frame);
            if is_last {
                break;
            }
        }
        drop(proxy);
    });
    frames
}

fn said() -> [Frame; 5] {
    let mut frames = [
        Frame::discard(1),
        Frame::discard(2),
        Frame::abort("enough"),
        Frame::discard(3),
        Frame::ping(),
    ];
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
    let [one, _, abort, three, ping] = said();
    assert_eq!(relayed(at_the_second_discard(Deed::Lose)), [one, abort, three, ping]);
}

#[test]
fn what_was_never_said_leaves_none() {
    let [one, _, mut abort, _, ping] = said();
    let moved = |by: i32| {
        let mut ping = ping.clone();
        ping.move_number(by as u32);
        ping
    };
    abort.move_number(u32::MAX);
    let discard = Deed::Withhold(Point::Frame(Kind::Discard));
    assert_eq!(relayed(at_the_second_discard(discard)), [one.clone(), abort, moved(-2)]);
    assert_eq!(relayed(at_the_second_discard(Deed::OnlyPings)), [one, moved(-3)]);
}

#[test]
fn what_is_put_in_moves_the_rest() {
    let frames = relayed(at_the_second_discard(Deed::Abort("so it is")));
    let [one, mut two, mut abort, mut three, mut ping] = said();
    let mut put_in = Frame::abort("so it is");
    put_in.move_number(1);
    for frame in [&mut two, &mut abort, &mut three, &mut ping] {
        frame.move_number(1);
    }
    assert_eq!(frames, [one, put_in, two, abort, three, ping]);
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
    assert_eq!((frames.len(), &frames[1]), (5, &two));
}
