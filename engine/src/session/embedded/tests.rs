use super::*;

fn embedded(host: Host) -> Arc<EmbeddedDevice> {
    let config = EmbeddedConfig { precopy: true, asks_precopy_info: true, ..Default::default() };
    EmbeddedDevice::new(host, config).expect("eventfd")
}

/// Asks on a thread of its own, and answers once the question is there.
fn asked<T: Send + 'static>(
    device: &Arc<EmbeddedDevice>,
    wanted: Wanted,
    ask: impl FnOnce(&EmbeddedDevice) -> io::Result<T> + Send + 'static,
    answer: impl FnOnce(&EmbeddedDevice),
) -> io::Result<T> {
    let asking = Arc::clone(device);
    let waiting = std::thread::spawn(move || ask(&asking));
    while device.wanted() != Some(wanted) {
        std::thread::yield_now();
    }
    answer(device);
    waiting.join().expect("no panic")
}

#[test]
fn an_answer_may_come_first() {
    let device = embedded(Host::Source);
    device.moved(DeviceState::PreCopy, None);
    assert!(device.set_state(DeviceState::PreCopy).expect("answered").is_none());
    assert_eq!(device.state().expect("told"), DeviceState::PreCopy);
    assert_eq!(device.wanted(), None);
}

#[test]
fn a_question_waits_for_its_own_answer() {
    let device = embedded(Host::Target);
    device.moved(DeviceState::Stop, None);
    let error = asked(
        &device,
        Wanted::State(DeviceState::Resuming),
        |device| device.set_state(DeviceState::Resuming),
        |device| device.failed(DeviceState::Resuming, libc::EBUSY),
    );
    assert_eq!(error.expect_err("refused").raw_os_error(), Some(libc::EBUSY));
}

/// The VMM was in PRE_COPY before the engine had asked, and the switchover came before it did.
#[test]
fn a_data_fd_that_was_not_asked_for_in_precopy_is_stop_copys() {
    let device = embedded(Host::Source);
    let fd = OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
    device.moved(DeviceState::PreCopy, Some(fd));
    let given = asked(
        &device,
        Wanted::State(DeviceState::StopCopy),
        |device| device.set_state(DeviceState::StopCopy),
        |device| device.moved(DeviceState::StopCopy, None),
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
    device.moved(DeviceState::PreCopy, Some(stale));
    device.moved(DeviceState::StopCopy, Some(fresh));
    let given = device.set_state(DeviceState::StopCopy).expect("answered");
    assert_eq!(given.map(|fd| fd.as_raw_fd()), Some(number));
}

#[test]
fn sizes_and_their_errors_are_handed_in() {
    let device = embedded(Host::Source);
    let fd = OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
    let info = PrecopyInfo { initial_bytes: 24, dirty_bytes: 7, reinit: true };
    for answer in [Ok(info), Err(libc::EINVAL)] {
        let fd = fd.try_clone().expect("an fd");
        let found = asked(
            &device,
            Wanted::PrecopyInfo,
            move |device| device.precopy_info(fd.as_fd()),
            |device| device.precopy_info_is(answer),
        );
        assert_eq!(found.map_err(|error| error.raw_os_error()), answer.map_err(Some));
    }
}

#[test]
fn a_reset_is_the_vmms_where_there_is_no_device_fd() {
    let device = embedded(Host::Target);
    device.moved(DeviceState::Resuming, None);
    assert!(device.set_state(DeviceState::Resuming).is_ok());
    let done =
        asked(&device, Wanted::Reset, MigrationDevice::reset, |device| device.reset_was(Ok(())));
    assert!(done.is_ok());
    assert_eq!(device.state().expect("told"), DeviceState::Running);
}

#[test]
fn running_is_not_wanted_of_a_vmm_that_starts_the_device_later() {
    let config = EmbeddedConfig { starts_later: true, ..Default::default() };
    let device = EmbeddedDevice::new(Host::Target, config).expect("eventfd");
    device.moved(DeviceState::Stop, None);
    assert!(device.set_state(DeviceState::Stop).is_ok());
    assert!(device.set_state(DeviceState::Running).expect("at once").is_none());
    assert_eq!(device.state().expect("told"), DeviceState::Stop);
}

#[test]
fn the_eventfd_is_readable_while_a_question_waits() {
    let device = embedded(Host::Target);
    let readable = |device: &EmbeddedDevice| {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            device.event_fd(),
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)).expect("poll") == 1
    };
    assert!(!readable(&device));
    let answered = asked(
        &device,
        Wanted::State(DeviceState::Stop),
        |device| device.set_state(DeviceState::Stop),
        |device| {
            assert!(readable(device));
            device.moved(DeviceState::Stop, None);
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
    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    assert!(device.set_state(DeviceState::Running).is_ok(), "the VMM's own again");
}

#[test]
fn an_answer_that_nobody_took_is_closed_at_the_end() {
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let closed = |reader: &OwnedFd| rustix::io::read(reader, &mut [0u8; 1]) == Ok(0);
    let device = embedded(Host::Target);
    device.moved(DeviceState::Resuming, Some(writer.try_clone().expect("an fd")));
    device.interrupt();
    device.moved(DeviceState::Resuming, Some(writer));
    assert!(closed(&reader));
}
