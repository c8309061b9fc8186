//! The handshake.

use super::{Receiver, Stage};
use crate::ids::StreamId;
use crate::machine::{Action, Notice};
use crate::outcome::{Breach, Fault};
use crate::wire::{Frame, Hello, Kind, negotiate};

impl Receiver {
    pub(super) fn hello(
        &mut self,
        now_ns: u64,
        stream: StreamId,
        hello: Hello,
        actions: &mut Vec<Action>,
    ) {
        if let Err(fault) = self.greet(stream, hello, actions) {
            self.abort(now_ns, fault, actions);
        }
    }

    fn greet(
        &mut self,
        stream: StreamId,
        hello: Hello,
        actions: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        let accept = negotiate(&self.offer, &hello)?;
        if usize::from(hello.streams) != self.links.count()
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
        self.links.queue_on(stream, Frame::Accept(accept));
        if self.greeted.iter().all(|greeted| *greeted) {
            self.stage = Stage::Active;
            let notice =
                Notice::Connected { version: accept.version, chunk_bytes: accept.chunk_bytes };
            actions.push(Action::Notify(notice));
        }
        Ok(())
    }
}

fn unexpected(what: &'static str) -> Fault {
    Fault::breach(Breach::Unexpected { kind: Kind::HELLO, what })
}
