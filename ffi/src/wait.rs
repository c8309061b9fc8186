//! The calls that fetch events, and wait for them. Every wait of this interface is an `int64_t` of
//! milliseconds, which is read here.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vfio_ferry::{Readiness, SessionEvent};

use crate::event::{cross, finished, vferry_event};
use crate::failure::{Failure, guarded};
use crate::raw;
use crate::session::{SessionInner, vferry_session};
use crate::status::vferry_status::{self, *};
use crate::values::VFERRY_NO_LIMIT;

/// A hundred years: as good as no limit, and clocks can count it.
pub(crate) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long a call may wait; none for VFERRY_NO_LIMIT. Another negative number is refused: it is
/// more likely a deadline in the past than a wish to wait for ever.
pub(crate) fn timeout(milliseconds: i64) -> Result<Option<Duration>, Failure> {
    match u64::try_from(milliseconds) {
        Ok(some) => Ok(Some(Duration::from_millis(some).min(FOREVER))),
        Err(_) if milliseconds == VFERRY_NO_LIMIT => Ok(None),
        Err(_) => Err(Failure::new(VFERRY_ERR_RANGE, format!("a timeout of {milliseconds} ms"))),
    }
}

/// When a wait that begins now is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) fn after(milliseconds: i64) -> Result<Deadline, Failure> {
        Ok(Deadline(timeout(milliseconds)?.map(|timeout| Instant::now() + timeout)))
    }

    pub(crate) fn left(self) -> Option<Duration> {
        self.0.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

/// Fetches the next event with `next`, which gives none where there is nothing to be had.
fn fetch(
    session: &SessionInner,
    mut next: impl FnMut() -> Option<SessionEvent>,
) -> Result<Option<vferry_event>, Failure> {
    while let Some(event) = next() {
        let crossed = match event {
            SessionEvent::Notice(notice) => cross(notice),
            SessionEvent::Finished => {
                session.over.store(true, Ordering::Release);
                Some((finished(session.report()?), Bytes::new()))
            }
            _ => None,
        };
        if let Some((event, payload)) = crossed {
            session.keep(payload);
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// Fetches the next event. Never blocks. VFERRY_ERR_EMPTY when none waits at this moment; in its place
/// VFERRY_ERR_ENDED when VFERRY_EVENT_FINISHED was fetched before. Then only
/// VFERRY_EVENT_DEVICE_CAME_BACK may still come: for a device whose report has a `home` of 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_poll(
    session: Option<&mut vferry_session>,
    event: *mut vferry_event,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(event) }?;
        let session = raw::inner(session)?;
        match fetch(session, || session.session.poll_event())? {
            Some(event) => place.write(event),
            None if session.is_over() => return Err(Failure::not_now(VFERRY_ERR_ENDED)),
            None => return Err(Failure::not_now(VFERRY_ERR_EMPTY)),
        }
        Ok(())
    })
}

/// Fetches the next event and waits for one, `timeout_ms` at most. VFERRY_ERR_TIMEOUT when none
/// came by then; in its place VFERRY_ERR_ENDED when VFERRY_EVENT_FINISHED was fetched before. Then it
/// waits only while a device is late, which may be for as long as its driver does not answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_wait(
    session: Option<&mut vferry_session>,
    timeout_ms: i64,
    event: *mut vferry_event,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(event) }?;
        let session = raw::inner(session)?;
        let deadline = Deadline::after(timeout_ms)?;
        match fetch(session, || session.session.wait_event(deadline.left()))? {
            Some(event) => place.write(event),
            None if session.is_over() || deadline.0.is_none() => {
                return Err(Failure::not_now(VFERRY_ERR_ENDED));
            }
            None => return Err(Failure::not_now(VFERRY_ERR_TIMEOUT)),
        }
        Ok(())
    })
}

/// Waits until `vferry_event_is_ready` is true of an estimate, `timeout_ms` at most (source). It
/// drops the events that come meanwhile: a VMM that needs them uses `vferry_session_wait`.
///
/// VFERRY_ERR_TIMEOUT: the downtime would still be longer than `downtime_ns_max`; the VMM may stop
/// its vCPUs all the same. VFERRY_ERR_ENDED: the session ended. VFERRY_ERR_WRONG_HOST: it is a
/// target's. Where no device saves in PRE_COPY no estimate comes, and there is nothing to wait for.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_session_wait_ready(
    session: Option<&mut vferry_session>,
    downtime_ns_max: u64,
    timeout_ms: i64,
) -> vferry_status {
    guarded(|| {
        let session = raw::inner(session)?;
        let downtime = Duration::from_nanos(downtime_ns_max);
        let patience = timeout(timeout_ms)?.unwrap_or(FOREVER);
        match session.session.source()?.wait_until_ready(downtime, patience, |_| {}) {
            Readiness::Ready(_) => Ok(()),
            Readiness::Patience(_) => Err(Failure::not_now(VFERRY_ERR_TIMEOUT)),
            Readiness::Ended => {
                session.over.store(true, Ordering::Release);
                Err(Failure::not_now(VFERRY_ERR_ENDED))
            }
        }
    })
}

/// Waits until the session has ended and its streams are closed, `timeout_ms` at most. For a program
/// that exits right after the end: until then the system may drop what the peer has not read, the last
/// word of this host among it. After VFERRY_EVENT_FINISHED it takes half a second at most, where the
/// peer does not close its end. VFERRY_ERR_TIMEOUT when the streams are not closed by then.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_session_wait_closed(
    session: Option<&mut vferry_session>,
    timeout_ms: i64,
) -> vferry_status {
    guarded(|| {
        let session = raw::inner(session)?;
        let patience = timeout(timeout_ms)?.unwrap_or(Duration::MAX);
        match session.session.wait_closed(patience) {
            true => Ok(()),
            false => Err(Failure::not_now(VFERRY_ERR_TIMEOUT)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::AnySession;
    use vfio_ferry::{
        DeviceOptions, EmbeddedConfig, EmbeddedDevice, Host, Notice, Options, SourceDevice,
        SourceSession,
    };

    /// The payload is the last event's, and an event without one has none.
    #[test]
    fn a_payload_goes_with_the_next_event() {
        let device = EmbeddedDevice::new(Host::Source, EmbeddedConfig::default());
        let device = SourceDevice {
            name: "net0".into(),
            device: device.expect("an eventfd"),
            options: DeviceOptions::default(),
        };
        let (here, _there) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let session = SourceSession::start(vec![device], vec![here.into()], Options::default());
        let session =
            SessionInner::new(AnySession::Source(session.expect("it starts")), Vec::new());
        let payload = || session.payload.lock().expect("nobody panicked").clone();
        let message = Bytes::from_static(b"hi");
        let notices = [Notice::Message(message.clone()), Notice::HandedOver];
        let mut events = notices.into_iter().map(SessionEvent::Notice);
        let mut next =
            || fetch(&session, || events.next()).ok().flatten().map(|it| it.payload_bytes);
        assert_eq!((next(), payload()), (Some(2), message));
        assert_eq!((next(), payload()), (Some(0), Bytes::new()));
        assert_eq!((next(), payload()), (None, Bytes::new()));
    }

    #[test]
    fn every_number_of_milliseconds_is_a_wait_or_refused() {
        assert_eq!(timeout(0).ok(), Some(Some(Duration::ZERO)));
        assert_eq!(timeout(1500).ok(), Some(Some(Duration::from_millis(1500))));
        assert_eq!(timeout(i64::MAX).ok(), Some(Some(FOREVER)));
        assert_eq!(FOREVER.as_secs(), 3_153_600_000);
        assert_eq!(timeout(VFERRY_NO_LIMIT).ok(), Some(None));
        for refused in [-2, i64::MIN] {
            assert_eq!(timeout(refused).map_err(|failure| failure.status), Err(VFERRY_ERR_RANGE));
            assert!(Deadline::after(refused).is_err());
        }
        assert!(
            Deadline::after(i64::MAX).is_ok_and(|deadline| deadline.left() > Some(FOREVER / 2))
        );
        assert!(Deadline::after(VFERRY_NO_LIMIT).is_ok_and(|deadline| deadline.left().is_none()));
    }
}
