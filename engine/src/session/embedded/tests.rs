use super::*;
use crate::drive::until_asleep;
use crate::errno;
use crate::outcome::Cause;

fn embedded(host: Host) -> Arc<EmbeddedDevice> {
    let config = EmbeddedConfig { precopy: true, asks_precopy_info: true, ..Default::default() };
    EmbeddedDevice::new(host, config).expect("eventfd")
}

fn moved(device: &EmbeddedDevice, state: DeviceState, data_fd: Option<OwnedFd>) {
    device.answer(Answer::State(state, Ok(data_fd)));
}

/// A data fd, and what tells whether it was closed.
fn data_fd() -> (OwnedFd, impl Fn() -> bool) {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("pipe");
    (writer, move || rustix::io::read(&reader, &mut [0u8; 1]) == Ok(0))
}

fn readable(device: &EmbeddedDevice) -> bool {
    let flags = rustix::event::PollFlags::IN;
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(device.event_fd(), flags)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).expect("poll") == 1
}

/// Asks on a thread of its own, and answers once the request is there.
fn asked<T: Send + 'static>(
    device: &Arc<EmbeddedDevice>,
    wanted: Wanted,
    ask: impl FnOnce(&EmbeddedDevice) -> io::Result<T> + Send + 'static,
    answer: impl FnOnce(&EmbeddedDevice),
) -> io::Result<T> {
    let asking = Arc::clone(device);
    let waiting = std::thread::spawn(move || ask(&asking));
    while device.wanted() != Some(wanted) {
        assert!(!waiting.is_finished(), "it was answered before it was asked");
        std::thread::yield_now();
    }
    answer(device);
    waiting.join().expect("no panic")
}

#[test]
fn an_answer_may_come_first() {
    let device = embedded(Host::Source);
    moved(&device, DeviceState::PreCopy, None);
    assert!(device.set_state(DeviceState::PreCopy).expect("answered").is_none());
    assert_eq!(device.state().expect("told"), DeviceState::PreCopy);
    assert_eq!(device.wanted(), None);
}

#[test]
fn a_request_waits_for_its_own_answer() {
    let device = embedded(Host::Target);
    moved(&device, DeviceState::Stop, None);
    let error = asked(
        &device,
        Wanted::State(DeviceState::Resuming),
        |device| device.set_state(DeviceState::Resuming),
        |device| device.answer(Answer::State(DeviceState::Resuming, Err(errno::EBUSY))),
    );
    assert_eq!(error.expect_err("refused").raw_os_error(), Some(errno::EBUSY));
}

/// The VMM was in PRE_COPY before the engine had asked, and the switchover came before it did.
#[test]
fn a_data_fd_that_was_not_asked_for_in_precopy_is_stop_copys() {
    let device = embedded(Host::Source);
    let fd = OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
    moved(&device, DeviceState::PreCopy, Some(fd));
    let given = asked(
        &device,
        Wanted::State(DeviceState::StopCopy),
        |device| device.set_state(DeviceState::StopCopy),
        |device| moved(device, DeviceState::StopCopy, None),
    );
    assert!(given.expect("answered").is_some());
}

/// Another fd in STOP_COPY: the device was reset after PRE_COPY, and the first one is dead.
#[test]
fn a_data_fd_of_stop_copys_own_is_taken_before_one_that_was_not_asked_for() {
    use std::os::fd::AsRawFd;
    let device = embedded(Host::Source);
    let open = || OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
    let (stale, fresh) = (open(), open());
    let number = fresh.as_raw_fd();
    moved(&device, DeviceState::PreCopy, Some(stale));
    moved(&device, DeviceState::StopCopy, Some(fresh));
    let given = device.set_state(DeviceState::StopCopy).expect("answered");
    assert_eq!(given.map(|fd| fd.as_raw_fd()), Some(number));
}

#[test]
fn sizes_and_their_errors_are_handed_in() {
    let device = embedded(Host::Source);
    let fd = OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
    let info = PrecopyInfo { initial_bytes: 24, dirty_bytes: 7, reinit: true };
    for answer in [Ok(info), Err(errno::EINVAL)] {
        let fd = fd.try_clone().expect("an fd");
        let found = asked(
            &device,
            Wanted::PrecopyInfo,
            move |device| device.precopy_info(fd.as_fd()),
            |device| device.answer(Answer::PrecopyInfo(answer)),
        );
        assert_eq!(found.map_err(|error| error.raw_os_error()), answer.map_err(Some));
    }
}

#[test]
fn a_reset_is_the_vmms_where_there_is_no_device_fd() {
    let device = embedded(Host::Target);
    moved(&device, DeviceState::Resuming, None);
    assert!(device.set_state(DeviceState::Resuming).is_ok());
    let done = asked(&device, Wanted::Reset, MigrationDevice::reset, |device| {
        device.answer(Answer::Reset(Ok(())))
    });
    assert!(done.is_ok());
    assert_eq!(device.state().expect("told"), DeviceState::Running);
}

#[test]
fn running_is_not_wanted_of_a_vmm_that_starts_the_device_later() {
    let config = EmbeddedConfig { starts_later: true, ..Default::default() };
    let device = EmbeddedDevice::new(Host::Target, config).expect("eventfd");
    moved(&device, DeviceState::Stop, None);
    assert!(device.set_state(DeviceState::Stop).is_ok());
    assert!(device.set_state(DeviceState::Running).expect("at once").is_none());
    assert_eq!(device.state().expect("told"), DeviceState::Stop);
}

#[test]
fn the_eventfd_is_readable_while_a_request_waits() {
    let device = embedded(Host::Target);
    assert!(!readable(&device));
    let answered = asked(
        &device,
        Wanted::State(DeviceState::Stop),
        |device| device.set_state(DeviceState::Stop),
        |device| {
            assert!(readable(device));
            moved(device, DeviceState::Stop, None);
            assert_eq!(device.wanted(), None, "it was answered");
            assert!(!readable(device));
        },
    );
    assert!(answered.is_ok());
    assert!(!readable(&device));
}

#[test]
fn a_session_that_is_over_waits_for_nobody() {
    let device = embedded(Host::Source);
    device.interrupt();
    let error = device.set_state(DeviceState::PreCopy).expect_err("over");
    assert_eq!(error.raw_os_error(), Some(errno::ECANCELED));
    assert!(device.set_state(DeviceState::Running).is_ok(), "the VMM's own again");
}

#[test]
fn an_answer_that_nobody_took_is_closed_at_the_end() {
    let device = embedded(Host::Target);
    let ((before, before_closed), (after, after_closed)) = (data_fd(), data_fd());
    moved(&device, DeviceState::Resuming, Some(before));
    assert!(!before_closed());
    device.interrupt();
    moved(&device, DeviceState::Resuming, Some(after));
    assert!(before_closed() && after_closed());
}

/// Two answers at once: the first one answers the request, the second one comes before the engine's
/// thread has woken up.
#[test]
fn an_answer_to_the_open_request_is_not_lost_to_a_later_one() {
    let device = embedded(Host::Source);
    let (fd, closed) = data_fd();
    let given = asked(
        &device,
        Wanted::State(DeviceState::StopCopy),
        |device| device.set_state(DeviceState::StopCopy),
        |device| {
            moved(device, DeviceState::StopCopy, Some(fd));
            moved(device, DeviceState::Running, None);
        },
    );
    assert!(given.expect("answered").is_some() && closed());
    assert_eq!(device.state().expect("told"), DeviceState::Running, "the last word");
    let info = asked(
        &device,
        Wanted::PrecopyInfo,
        |device| device.precopy_info(device.event_fd()),
        |device| {
            device.answer(Answer::PrecopyInfo(Ok(PrecopyInfo::default())));
            moved(device, DeviceState::Running, None);
            device.answer(Answer::PrecopyInfo(Err(errno::EINVAL)));
        },
    );
    assert_eq!(info.expect("answered"), PrecopyInfo::default());
}

/// The VM stops while GET_PRECOPY_INFO is wanted, and its device is moved before that is answered.
#[test]
fn a_state_that_came_early_outlives_other_requests() {
    let device = embedded(Host::Source);
    let (fd, closed) = data_fd();
    let info = asked(
        &device,
        Wanted::PrecopyInfo,
        |device| device.precopy_info(device.event_fd()),
        |device| {
            moved(device, DeviceState::StopCopy, Some(fd));
            device.answer(Answer::PrecopyInfo(Ok(PrecopyInfo::default())));
        },
    );
    assert!(info.is_ok());
    assert!(device.set_state(DeviceState::StopCopy).expect("it is there").is_some() && closed());
}

#[test]
fn a_data_fd_goes_when_its_saving_state_was_left() {
    let device = embedded(Host::Source);
    let ((first, first_closed), (second, second_closed)) = (data_fd(), data_fd());
    moved(&device, DeviceState::PreCopy, Some(first));
    moved(&device, DeviceState::StopCopy, None);
    assert!(!first_closed(), "it is STOP_COPY's now");
    moved(&device, DeviceState::Running, None);
    assert!(first_closed());
    moved(&device, DeviceState::StopCopy, Some(second));
    device.answer(Answer::Reset(Ok(())));
    assert!(second_closed());
}

#[test]
fn a_failure_from_before_another_request_answers_no_later_one() {
    let device = embedded(Host::Source);
    device.answer(Answer::State(DeviceState::StopCopy, Err(libc::EIO)));
    let info = asked(
        &device,
        Wanted::PrecopyInfo,
        |device| device.precopy_info(device.event_fd()),
        |device| device.answer(Answer::PrecopyInfo(Ok(PrecopyInfo::default()))),
    );
    assert!(info.is_ok());
    let stopped = asked(
        &device,
        Wanted::State(DeviceState::StopCopy),
        |device| device.set_state(DeviceState::StopCopy),
        |device| moved(device, DeviceState::StopCopy, None),
    );
    assert!(stopped.is_ok());

    let device = embedded(Host::Target);
    device.answer(Answer::State(DeviceState::Stop, Err(errno::EIO)));
    device.answer(Answer::Reset(Err(errno::EIO)));
    let resuming = asked(
        &device,
        Wanted::State(DeviceState::Resuming),
        |device| device.set_state(DeviceState::Resuming),
        |device| moved(device, DeviceState::Resuming, None),
    );
    assert!(resuming.is_ok());
    for (wanted, answer) in [
        (Wanted::State(DeviceState::Stop), Answer::State(DeviceState::Stop, Ok(None))),
        (Wanted::Reset, Answer::Reset(Ok(()))),
    ] {
        let ask = move |device: &EmbeddedDevice| match wanted {
            Wanted::State(state) => device.set_state(state).map(|_| ()),
            _ => MigrationDevice::reset(device),
        };
        assert!(asked(&device, wanted, ask, |device| device.answer(answer)).is_ok());
    }
}

#[test]
fn the_end_withdraws_the_open_request() {
    let device = embedded(Host::Target);
    let given = asked(
        &device,
        Wanted::State(DeviceState::Resuming),
        |device| device.set_state(DeviceState::Resuming),
        |device| {
            device.interrupt();
            assert_eq!(device.wanted(), None);
            assert!(!readable(device));
        },
    );
    assert_eq!(given.expect_err("over").raw_os_error(), Some(errno::ECANCELED));
    assert_eq!(device.wanted(), None);
}

/// EINVAL from the precopy info, and no device fd to ask: the device was reset, unless the VMM says
/// that it was stopped.
#[test]
fn an_errno_is_looked_into_without_a_device_fd() {
    for word in [None, Some(DeviceState::StopCopy)] {
        let device = embedded(Host::Source);
        let (fd, _closed) = data_fd();
        moved(&device, DeviceState::PreCopy, Some(fd));
        assert!(device.set_state(DeviceState::PreCopy).expect("answered").is_some());
        let info = asked(
            &device,
            Wanted::PrecopyInfo,
            |device| device.precopy_info(device.event_fd()),
            |device| {
                device.answer(Answer::PrecopyInfo(Err(errno::EINVAL)));
                word.into_iter().for_each(|state| moved(device, state, None));
            },
        );
        assert_eq!(info.is_ok(), word.is_some());
        if word.is_none() {
            let found = device.settled_state().expect("found");
            assert_eq!(found, DeviceState::Running);
        }
    }
}

#[test]
fn a_device_has_one_session_unless_that_was_not_made() {
    let device = embedded(Host::Source);
    let joined = Arc::clone(&device).join().expect("the first");
    assert!(Arc::clone(&device).join().is_none());
    drop(joined);
    let joined = Arc::clone(&device).join().expect("there was none");
    let (told, news) = std::sync::mpsc::channel();
    moved(&device, DeviceState::PreCopy, Some(data_fd().0));
    assert!(device.set_state(DeviceState::PreCopy).is_ok());
    moved(&device, DeviceState::Running, None);
    joined.keep(DeviceId(7), move |fault| told.send(fault).expect("the test waits"));
    let fault = news.try_recv().expect("what there was nobody to be told of");
    assert_eq!((fault.device, fault.cause), (Some(DeviceId(7)), Cause::DeviceReset));
    assert!(fault.message.starts_with("the VMM says that the device was reset"), "{fault}");
    device.interrupt();
    assert!(news.try_recv().is_err() && device.join().is_none());
}

/// Kernels before 6.12.96 do not come back from STOP_COPY -> PRE_COPY, so nobody is asked for it.
#[test]
fn a_device_whose_vmm_says_stop_copy_is_not_asked_for_pre_copy() {
    let device = embedded(Host::Source);
    moved(&device, DeviceState::StopCopy, None);
    device.set_state(DeviceState::Running).expect("what was saved is let go");
    let asking = Arc::clone(&device);
    let asked = std::thread::spawn(move || asking.set_state(DeviceState::PreCopy));
    // What a VMM would do that is asked.
    let started = std::time::Instant::now();
    while !asked.is_finished() {
        assert!(
            started.elapsed() < std::time::Duration::from_secs(60),
            "neither asked nor refused"
        );
        if device.wanted() == Some(Wanted::State(DeviceState::PreCopy)) {
            moved(&device, DeviceState::PreCopy, None);
        }
        std::thread::yield_now();
    }
    let refused = asked.join().expect("no panic").expect_err("it was asked for");
    assert_eq!(refused.raw_os_error(), Some(errno::EINVAL));
}

#[test]
fn a_reset_that_the_vmm_knows_of_is_the_sessions_where_there_was_nothing_to_lose() {
    let device = embedded(Host::Source);
    assert!(!device.told_of_reset());
    moved(&device, DeviceState::PreCopy, Some(data_fd().0));
    assert!(device.set_state(DeviceState::PreCopy).is_ok());
    assert!(device.told_of_reset());
    assert_eq!(device.state().expect("told"), DeviceState::Running);
}

#[test]
fn a_vmm_that_is_about_to_say_that_it_has_stopped_the_device_is_waited_for() {
    let device = embedded(Host::Source);
    moved(&device, DeviceState::PreCopy, Some(data_fd().0));
    assert!(device.set_state(DeviceState::PreCopy).is_ok());
    let (told, thread) = std::sync::mpsc::channel();
    let asking = Arc::clone(&device);
    let stopped = std::thread::spawn(move || {
        told.send(rustix::thread::gettid()).expect("the test waits");
        asking.exchange.has_stopped(std::time::Duration::from_secs(600))
    });
    until_asleep(thread.recv().expect("it begins"));
    moved(&device, DeviceState::StopCopy, None);
    assert!(stopped.join().expect("no panic"));
}

#[test]
fn what_the_engine_asks_for_at_the_end_is_not_asked_of_the_vmm() {
    let device = embedded(Host::Source);
    let (told, stopped) = std::sync::mpsc::channel();
    let asking = Arc::clone(&device);
    std::thread::spawn(move || told.send(asking.set_state(DeviceState::Stop)));
    while device.wanted().is_none() {
        if let Ok(stopped) = stopped.try_recv() {
            let refused = stopped.expect_err("only its VMM knows where it is");
            assert_eq!(refused.raw_os_error(), Some(errno::ECANCELED));
            return;
        }
        std::thread::yield_now();
    }
    panic!("{:?} is wanted", device.wanted());
}

#[test]
fn the_length_that_the_vmm_hands_in_is_told() {
    let device = embedded(Host::Source);
    let unknown = device.stop_copy_length().expect_err("nobody has said");
    assert_eq!(unknown.raw_os_error(), Some(errno::ENOTTY));
    device.set_stop_copy_length(4711);
    assert_eq!(device.stop_copy_length().expect("handed in"), 4711);
}

/// A device fd that is none: what it answers is told, and not taken for a VMM's silence.
#[test]
fn where_there_is_a_device_fd_it_is_asked() {
    let null = std::fs::File::open("/dev/null").expect("it opens");
    let config = EmbeddedConfig { device: Some(null.into()), ..EmbeddedConfig::default() };
    let device = EmbeddedDevice::new(Host::Source, config).expect("eventfd");
    moved(&device, DeviceState::PreCopy, None);
    let failed = device.state().expect_err("no device");
    assert_eq!(failed.raw_os_error(), Some(errno::ENOTTY));
    let any: Arc<dyn MigrationDevice> = device;
    assert!(super::embedded(&any).is_some(), "it is known for what it is");
    assert!(any.device_fd().is_some());
}

/// What the driver refuses is all that tells of a reset where nobody can ask GET_STATE.
#[test]
fn what_an_operation_on_the_data_fd_answers_is_noted_and_told_on() {
    let after = |answer: i32| {
        let device = embedded(Host::Source);
        moved(&device, DeviceState::PreCopy, Some(data_fd().0));
        assert!(device.set_state(DeviceState::PreCopy).is_ok());
        let told = device.observe(device.event_fd(), Err(io::Error::from_raw_os_error(answer)));
        assert_eq!(told.expect_err("as it was").raw_os_error(), Some(answer));
        device.state().expect("told")
    };
    assert_eq!(after(errno::ENODEV), DeviceState::Running);
    assert_eq!(after(errno::EIO), DeviceState::PreCopy, "no reset answers so");
    for nothing in [errno::EINTR, errno::ECANCELED, errno::EAGAIN, errno::ENOMSG] {
        // Nothing was refused, and the state is asked for all the same: the fd hung up.
        assert_eq!(after(nothing), DeviceState::Running, "{nothing}");
    }
    let device = embedded(Host::Source);
    assert_eq!(device.observe(device.event_fd(), Ok(77)).expect("as it was"), 77);
}
