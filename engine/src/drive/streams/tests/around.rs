//! What streams have to do with what is around them: the ring that they share, and their sockets.

use super::*;
use crate::buffers::Buffer;
use crate::drive::owner::DataFdId;
use crate::ring::Op;

#[test]
fn what_completes_for_others_while_the_streams_are_closed_is_handed_on() {
    for backend in BACKENDS {
        let (mut streams, _peer, _other) = streams(backend);
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let owner = Owner::Data(DataFdId { device: DeviceId(0), number: 0 });
        {
            // As a data fd's.
            let mut ring = streams.ring.borrow_mut();
            let file = ring.add_file(Arc::new(ours.into()), FileKind::Socket).expect("room");
            let op = Op::recv_enough(file, Buffer::Small(vec![0; 8]), 0..8, 8);
            ring.submit(owner.token(), op).map_err(|_| ()).expect("room");
        }
        (&theirs).write_all(b"8 bytes!").expect("a socket");
        streams.close();
        let mut strays = streams.take_strays();
        let start = Instant::now();
        while strays.is_empty() {
            assert!(start.elapsed() < LONG, "it was lost");
            // It may complete only after the streams have.
            streams.ring.borrow_mut().wait(Some(LONG), &mut strays).expect("a wait");
        }
        assert_eq!(strays.len(), 1);
        assert_eq!((Owner::of(strays[0].token), strays[0].result), (owner, Ok(8)));
        assert!(streams.take_strays().is_empty(), "handed on once");
    }
}
