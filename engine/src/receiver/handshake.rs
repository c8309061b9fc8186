//! The handshake.

use super::{Receiver, Stage};
use crate::ids::StreamId;
use crate::machine::{Notice, Turn, Wait};
use crate::outcome::{Breach, Fault};
use crate::wire::{Accept, Frame, Hello, Kind, negotiate};

impl Receiver {
    pub(super) fn start(&mut self, turn: &Turn) {
        self.peer.watch(turn);
        self.waits.set(Wait::Handshake, turn.after(self.config.limits.handshake_ns));
    }

    pub(super) fn hello(
        &mut self,
        turn: &mut Turn,
        stream: StreamId,
        hello: Hello,
    ) -> Result<(), Fault> {
        let accept = negotiate(&self.offer, &hello)?;
        if usize::from(hello.streams) != self.peer.streams()
            || hello.devices as usize != self.devices.len()
        {
            return Err(unexpected("this side has another number of streams or devices"));
        }
        if let Some(first) = &self.hello {
            hello.same_session(first)?;
        }
        if std::mem::replace(&mut self.greeted[hello.stream.index()], true) {
            return Err(unexpected("two streams with one number"));
        }
        self.hello.get_or_insert(hello);
        self.accept = Some(accept);
        self.peer.queue_on(stream, Frame::Accept(accept));
        if self.greeted.iter().all(|greeted| *greeted) {
            self.stage = Stage::Active;
            self.waits.stop(Wait::Handshake);
            self.waits.set(Wait::Idle, turn.after(self.config.limits.idle_ns));
            let Accept { version, chunk_bytes, .. } = accept;
            turn.tell(Notice::Connected { version, chunk_bytes });
        }
        Ok(())
    }
}

fn unexpected(what: &'static str) -> Fault {
    Fault::breach(Breach::Unexpected { kind: Kind::HELLO, what })
}
