//! What a machine wants is done, as the drive does it.

use vfio_ferry::ids::{DeviceId, Epoch, SlotId, StreamId};
use vfio_ferry::machine::{Action, ChunkKey, EncodeResult, Event, Notice};
use vfio_ferry::outcome::{Breach, Cause, EpochEnding, Fault, Observation, Phase};
use vfio_ferry::wire::{DataHeader, chunk_hash};

use super::check::{Check, ensure};
use super::fd::{DataFd, Job};
use super::schedule::{HostId, Occurrence, SOURCE};
use super::side::Place;
use super::world::World;

/// What a simulated compression makes of any chunk that is longer.
const TOKEN_BYTES: usize = 8;

impl World {
    pub(crate) fn act(&mut self, h: HostId, action: Action) -> Check {
        match action {
            Action::Control { device, request } => self.ask(h, device, request),
            Action::Attach { device, epoch } => self.attach(h, device, epoch),
            Action::DropFd { device } => {
                let fresh = self.sides[h].device(device).fresh.take();
                ensure!(fresh.is_some(), "only an fd that is there is dropped", "{h} {device}");
                Ok(())
            }
            Action::Detach { device } => self.detach(h, device),
            Action::Read { device, slot, phase, .. } => {
                self.take(h, slot, Place::Fd(device))?;
                self.give_job(h, device, Job::Read { slot, phase })
            }
            Action::Write { device, header, slot } => {
                if let Some(slot) = slot {
                    self.take(h, slot, Place::Fd(device))?;
                }
                self.give_job(h, device, Job::Write { header, slot })
            }
            Action::Encode { chunk, slot, into, bytes, .. } => {
                self.take(h, slot, Place::Worker(chunk.device))?;
                self.take(h, into, Place::Worker(chunk.device))?;
                let occurrence = Occurrence::Encoded { chunk, slot, into, bytes };
                self.work(occurrence);
                Ok(())
            }
            Action::Decode { header, slot, into } => {
                self.take(h, slot, Place::Worker(header.place.device))?;
                self.take(h, into, Place::Worker(header.place.device))?;
                let occurrence = Occurrence::Decoded { header, slot, into };
                self.work(occurrence);
                Ok(())
            }
            Action::Send { stream, what } => self.send(h, stream, what),
            Action::ReceiveBody { stream, header, slot } => {
                self.take(h, slot, Place::Receiving(stream, header.place.device))?;
                self.receive_body(h, stream, header, slot)
            }
            Action::SkipBody { stream } => self.skip_body(h, stream),
            Action::Notify(notice) => self.notified(h, notice),
            Action::Finish => {
                let side = &mut self.sides[h];
                ensure!(side.ended.is_none(), "a session finishes once", "{h}: {:?}", side.ended);
                side.ended = side.real.ended();
                ensure!(side.ended.is_some(), "a session that finishes says how", "{h}");
                side.finished_ns = self.schedule.now_ns;
                self.note_late(h);
                self.check_finished(h)
            }
        }
    }

    /// A slot leaves the machine.
    pub(crate) fn take(&mut self, h: HostId, id: SlotId, to: Place) -> Check {
        let slots = self.sides[h].slots.len();
        ensure!(id.index() < slots, "slots are those of the arena", "{h}: {id} of {slots}");
        let slot = self.sides[h].slot(id);
        ensure!(
            slot.place == Place::Machine,
            "a slot is in one place",
            "{h}: {id} is {:?} and was given to {to:?}",
            slot.place
        );
        slot.place = to;
        Ok(())
    }

    fn attach(&mut self, h: HostId, id: DeviceId, epoch: Epoch) -> Check {
        let device = self.sides[h].device(id);
        let fresh = device.fresh.take();
        ensure!(fresh.is_some(), "only an fd that is there is attached", "{h} {id}");
        ensure!(device.active.is_none(), "one data fd of a device at a time", "{h} {id}");
        let session = fresh.unwrap_or_default();
        if h == SOURCE {
            let other = device.epochs.insert(epoch, session);
            ensure!(other.is_none(), "an epoch is one session", "{id} {epoch}");
        }
        if std::mem::take(&mut self.attach_fails[h]) {
            self.allowed.local[h] = true;
            let message = "no thread or ring for a data fd";
            let fault = Fault::session(Cause::Local, Observation::Engine, message);
            self.caused(h, Event::Local(fault));
            return Ok(());
        }
        let device = self.sides[h].device(id);
        device.fds.push(DataFd::new(epoch, session));
        device.active = Some(device.fds.len() - 1);
        device.attached = true;
        Ok(())
    }

    /// A worker takes a job on; now and then all of them are behind.
    fn work(&mut self, occurrence: Occurrence) {
        let times = if self.schedule.rng.one_in(30) { 200 } else { 1 };
        self.schedule.after(self.plan.worker_ns * times, occurrence);
    }

    fn notified(&mut self, h: HostId, notice: Notice) -> Check {
        let side = &mut self.sides[h];
        match notice {
            Notice::Connected { .. } => side.connected = true,
            Notice::Phase { device, phase } => {
                side.device(device).phase = phase;
                if phase == Phase::Handover {
                    let now_ns = self.schedule.now_ns;
                    side.clock.decided_ns.get_or_insert(now_ns);
                }
                self.coverage.phases.insert((h, phase.name()));
                self.entered(h, phase);
            }
            Notice::Path { .. } => self.coverage.paths += 1,
            Notice::HandedOver => {
                side.handed_over = true;
                let now_ns = self.schedule.now_ns;
                side.clock.handover_ns.get_or_insert(now_ns);
            }
            Notice::CameBack(report) => self.came_back(h, report)?,
            Notice::Message(_) => side.messages += 1,
            Notice::InitialDataLoaded { device } if h == SOURCE => {
                let (epoch, sent, heard) = side.device(device).initial;
                ensure!(
                    sent == heard || self.plan.hostile.is_some() || self.allowed.lost[SOURCE],
                    "initial data is loaded once the target has said so as often as it was sent",
                    "{device} {epoch}: sent {sent} times, loaded {heard}"
                );
            }
            Notice::Completion(completion) => {
                self.check_told(h, &completion)?;
                let side = &mut self.sides[h];
                ensure!(
                    completion.fault.is_none() == (completion.ending == EpochEnding::Complete),
                    "what does not complete says why",
                    "{h}: {completion:?}"
                );
                let (id, epoch) = (completion.device, completion.epoch);
                if completion.ending == EpochEnding::Restarted {
                    side.device(id).epoch = epoch.next();
                }
                side.completions.push(completion);
                self.check_discards(h, id, epoch)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A worker is through with a chunk.
    pub(crate) fn encoded(
        &mut self,
        chunk: ChunkKey,
        slot: SlotId,
        into: SlotId,
        bytes: u32,
    ) -> Check {
        let raw = self.sides[SOURCE].slot(slot).bytes.clone();
        ensure!(
            raw.len() == bytes as usize,
            "a slot keeps its chunk until it is sent",
            "{slot}: {} bytes of {bytes}",
            raw.len()
        );
        let worker_ns = 1000;
        let result = if raw.len() <= TOKEN_BYTES || self.schedule.rng.one_in(4) {
            EncodeResult::Incompressible { worker_ns, cpu_ns: worker_ns }
        } else {
            let token = (self.bodies.len() as u64 + 1).to_le_bytes().to_vec();
            self.bodies.insert(token.clone(), raw);
            let body_hash = chunk_hash(&token);
            self.sides[SOURCE].slot(into).bytes = token;
            EncodeResult::Compressed {
                body_bytes: TOKEN_BYTES as u32,
                body_hash,
                worker_ns,
                cpu_ns: worker_ns,
            }
        };
        self.feed(SOURCE, Event::Encoded { chunk, slot, into, result })
    }

    /// A worker is through with a body.
    pub(crate) fn decoded(
        &mut self,
        h: HostId,
        header: DataHeader,
        slot: SlotId,
        into: SlotId,
    ) -> Check {
        let place = header.place;
        let body = &self.sides[h].slot(slot).bytes;
        let result = if chunk_hash(body) != header.body_hash {
            Err(Fault::breach(Breach::BodyHash { place }))
        } else {
            match self.bodies.get(body) {
                Some(raw) if chunk_hash(raw) == header.raw_hash => {
                    let raw = raw.clone();
                    self.sides[h].slot(into).bytes = raw;
                    Ok(())
                }
                _ => Err(Fault::breach(Breach::Chunk { place, what: "simulated" })),
            }
        };
        self.feed(h, Event::Decoded { header, slot, into, result })
    }

    /// Told to the machine as soon as it has finished with what it is at.
    pub(crate) fn caused(&mut self, h: HostId, event: Event) {
        self.caused.push_back((h, event));
    }

    pub(crate) fn peer_of(h: HostId) -> HostId {
        1 - h
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> + use<> {
        (0..self.plan.streams).map(StreamId)
    }
}
