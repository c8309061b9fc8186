// The C interface, called in whatever order and with whatever arguments the bytes choose, within what
// the header asks: handles that live, arrays as long as they are said to be, fds of the caller's own.
// Shared by the fuzz target and by the ordinary test run, which replays the corpus.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vfio_ferry_ffi::*;

const OK: i32 = vferry_status::VFERRY_OK as i32;
const NAMES: [&std::ffi::CStr; 3] = [c"net0", c"net1", c""];
/// Longer than anything here takes, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The bytes, and what they have made so far: two of each kind of handle, a source's and a target's.
struct Caller<'a> {
    bytes: std::slice::Iter<'a, u8>,
    options: [*mut vferry_options; 2],
    devices: [*mut vferry_device; 4],
    channels: [*mut vferry_channel; 2],
    sessions: [*mut vferry_session; 2],
    /// The device has given a data fd in PRE_COPY.
    saving: [bool; 4],
    /// The other ends of the sessions' streams, as long as no session has them.
    ends: [Option<OwnedFd>; 2],
}

/// A handle as a function takes it.
macro_rules! handle {
    ($pointer:expr) => {
        // SAFETY: needed because C has pointers. Each is NULL or was made by the interface and not freed.
        unsafe { $pointer.as_mut() }
    };
}

/// A call whose contract is the header's.
macro_rules! call {
    ($call:expr) => {
        // SAFETY: the pointers are of arrays and structs of this function, of the lengths that are given.
        unsafe { $call }
    };
}

/// What a call answers is its own business here.
fn done<T>(_: T) {}

fn is_ok(status: vferry_status) -> bool {
    status as i32 == OK
}

impl Caller<'_> {
    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    /// A number of either kind: one that may mean something, or any.
    fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=199 => u64::from(byte % 8),
            byte @ 200..=229 => u64::from(byte) << (self.byte() % 56),
            _ => u64::MAX,
        }
    }

    fn fd(&mut self) -> c_int {
        match self.byte() {
            0..=15 => -1,
            16..=23 => 1_000_000,
            byte => {
                let fd = memfd_create("state", MemfdFlags::CLOEXEC).expect("memory");
                ftruncate(&fd, u64::from(byte) * 64).expect("memory");
                fd.into_raw_fd()
            }
        }
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    fn options(&mut self) {
        let index = usize::from(self.byte() % 2);
        let slot = &mut self.options[index];
        if slot.is_null() {
            let mut made = MaybeUninit::new(null_mut());
            if is_ok(vferry_options_new(Some(&mut made))) {
                // SAFETY: it was written.
                *slot = unsafe { made.assume_init() };
            }
            return;
        }
        let (which, number) = (self.byte(), self.number());
        let options = handle!(self.options[index]);
        match which % 12 {
            0 => done(vferry_options_set_chunk_bytes(options, number as usize)),
            1 => done(vferry_options_set_workers(options, number as usize)),
            2 => done(vferry_options_set_policy(options, number as u32, number as i32)),
            3 => done(vferry_options_set_backend(options, number as u32)),
            4 => done(vferry_options_set_memory_bytes(options, number as usize)),
            5 => done(vferry_options_set_rate(options, number)),
            6 => done(vferry_options_set_stall_limit_ms(options, number as i64)),
            7 => done(vferry_options_set_handshake_limit_ms(options, number as i64)),
            8 => done(vferry_options_set_switchover_budget_ms(options, number as i64)),
            9 => done(vferry_options_set_confirm_limit_ms(options, number as i64)),
            10 => done(vferry_options_set_idle_limit_ms(options, number as i64)),
            _ => vferry_options_free(Some(&mut self.options[index])),
        }
    }

    fn device(&mut self) {
        let index = usize::from(self.byte() % 4);
        if self.devices[index].is_null() {
            let (name, flags) = (NAMES[index % 2], self.byte());
            let flags = if flags < 8 { u32::from(flags) } else { 3 };
            // The first two are the source's.
            let host = 1 + index as u32 / 2;
            let mut made = MaybeUninit::new(null_mut());
            if is_ok(call!(vferry_device_embedded(name.as_ptr(), host, flags, -1, Some(&mut made))))
            {
                // SAFETY: it was written.
                self.devices[index] = unsafe { made.assume_init() };
            }
            return;
        }
        let (which, number, more) = (self.byte(), self.number(), self.number());
        let device = handle!(self.devices[index]);
        match which % 12 {
            0 => done(vferry_device_set_precopy(device, number > 0)),
            1 => done(vferry_device_set_on_reset(device, number as u32, more as u32, 0)),
            2 => done(vferry_device_set_weight(device, number as u32)),
            3 => {
                let bytes = [7u8; 64];
                let count = (number % 65) as usize;
                done(call!(vferry_device_set_opaque(device, bytes.as_ptr(), count)));
            }
            4 => done(vferry_device_set_reset_to_return(device, number > 0)),
            5 => done(vferry_device_set_stop_copy_length(device, number)),
            6 => {
                done(vferry_device_precopy_info_done(device, number, more, 0, (number % 3) as i32))
            }
            7 => done(vferry_device_reset_done(device, (number % 3) as i32)),
            8 => {
                let fd = self.fd();
                let device = handle!(self.devices[index]);
                let errno = if number == 5 { 5 } else { 0 };
                let state = (number as i32 % 10) - 1;
                if !is_ok(call!(vferry_device_state_done(device, state, fd, errno))) {
                    close(fd);
                }
            }
            9 if self.sessions.iter().all(|session| session.is_null()) => {
                vferry_device_free(Some(&mut self.devices[index]));
            }
            _ => done(vferry_device_wanted(device, Some(&mut MaybeUninit::uninit()))),
        }
    }

    /// Does what the engine wants of its devices, as a VMM does.
    fn serve(&mut self) {
        for index in 0..self.devices.len() {
            let mut want = MaybeUninit::new(0);
            let Some(device) = handle!(self.devices[index]) else { continue };
            if !is_ok(vferry_device_wanted(Some(device), Some(&mut want))) {
                continue;
            }
            // SAFETY: it was written, and before that it was 0.
            let want = unsafe { want.assume_init() };
            let device = handle!(self.devices[index]);
            match want {
                0 => {}
                100 => done(vferry_device_precopy_info_done(device, 0, 0, 0, 0)),
                101 => done(vferry_device_reset_done(device, 0)),
                state => {
                    // STOP_COPY goes on with the fd that PRE_COPY gave.
                    let opens = matches!(state, 4 | 6) || state == 3 && !self.saving[index];
                    self.saving[index] = state == 6;
                    let fd = if opens { self.fd() } else { -1 };
                    let device = handle!(self.devices[index]);
                    if !is_ok(call!(vferry_device_state_done(device, state as i32, fd, 0))) {
                        close(fd);
                    }
                }
            }
        }
    }

    fn start(&mut self) {
        let host = usize::from(self.byte() % 2);
        if !self.sessions[host].is_null() {
            return;
        }
        let fd = match self.ends[host].take() {
            Some(end) => end.into_raw_fd(),
            None => {
                let (here, there) = UnixStream::pair().expect("sockets");
                self.ends[1 - host] = Some(there.into());
                here.into_raw_fd()
            }
        };
        let count = match self.byte() {
            0..=149 => 1,
            byte => usize::from(byte % 3),
        };
        let devices = [self.devices[2 * host], self.devices[2 * host + 1]];
        let mut made = MaybeUninit::new(null_mut());
        let options = self.of(&[self.options[0], self.options[1], null_mut()]);
        // SAFETY: NULL, or made by the interface and not freed.
        let options = unsafe { options.as_ref() };
        let fds = [fd];
        let (devices, fds) = (devices.as_ptr(), fds.as_ptr());
        let place = Some(&mut made);
        let status = match host {
            0 => call!(vferry_session_source(options, devices, count, fds, 1, place)),
            _ => call!(vferry_session_target(options, devices, count, fds, 1, place)),
        };
        match is_ok(status) {
            // SAFETY: it was written.
            true => self.sessions[host] = unsafe { made.assume_init() },
            false => close(fd),
        }
    }

    fn session(&mut self) {
        let host = usize::from(self.byte() % 2);
        let (which, number) = (self.byte(), self.number());
        let session = handle!(self.sessions[host]);
        // SAFETY: as `handle`.
        let shared = unsafe { self.sessions[host].as_ref() };
        let mut report = zeroed::<vferry_report>();
        report.size = number as u32;
        let mut bytes = [0u8; 64];
        match which % 16 {
            0..=2 => done(vferry_session_switchover(session)),
            3 => done(vferry_session_cancel(session)),
            4 => done(vferry_session_device_was_reset(session, number as u32)),
            5 => done(call!(vferry_session_send(session, bytes.as_ptr(), (number % 65) as usize))),
            6 => {
                let count = Some(&mut MaybeUninit::uninit());
                let room = (number % 65) as usize;
                done(call!(vferry_session_payload(shared, bytes.as_mut_ptr(), room, count)));
            }
            7 => done(call!(vferry_session_report(shared, &raw mut report))),
            8 => done(call!(vferry_session_finish(session, (number % 8) as i64, &raw mut report))),
            9 => {
                let mut report = zeroed::<vferry_device_report>();
                report.size = size_of::<vferry_device_report>() as u32;
                done(call!(vferry_session_device_report(shared, number as u32, &raw mut report)));
            }
            10 => {
                let mut stats = zeroed::<vferry_duration_stats>();
                stats.size = size_of::<vferry_duration_stats>() as u32;
                done(call!(vferry_session_step_stats(shared, number as u32, &raw mut stats)));
                done(call!(vferry_session_phase_stats(shared, number as u32, &raw mut stats)));
            }
            11 => done(vferry_session_wait_closed(session, (number % 8) as i64)),
            12 => vferry_session_free(Some(&mut self.sessions[host])),
            _ => self.events(host),
        }
    }

    fn events(&mut self, host: usize) {
        let wait_ms = i64::from(self.byte() % 4);
        for _ in 0..20 {
            let mut event = zeroed::<vferry_event>();
            event.size = size_of::<vferry_event>() as u32;
            let session = handle!(self.sessions[host]);
            if !is_ok(call!(vferry_session_wait(session, wait_ms, &raw mut event))) {
                return;
            }
            let _ = vferry_event_is_ready(Some(&event), 1 << 30);
        }
    }

    fn channel(&mut self) {
        let index = usize::from(self.byte() % 2);
        let (which, number) = (self.byte(), self.number());
        if self.channels[index].is_null() {
            let (mut made, mut fd) = (MaybeUninit::new(null_mut()), MaybeUninit::new(-1));
            if is_ok(vferry_channel_new(Some(&mut made), Some(&mut fd))) {
                // SAFETY: it was written.
                self.channels[index] = unsafe { made.assume_init() };
                // SAFETY: it was written.
                let fd = unsafe { fd.assume_init() };
                // SAFETY: needed because fds are numbers in C. It is open, and the caller's.
                self.ends[index] = Some(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) });
            }
            return;
        }
        let mut bytes = [0u8; 4096];
        let room = (number % 4097) as usize;
        let mut moved = MaybeUninit::new(0);
        let channel = handle!(self.channels[index]);
        match which % 8 {
            // What one end gives the other gets as a whole frame, twice where it was told to.
            7 if number % 4 != 0 => {
                let mut have = 0;
                let pulled = call!(vferry_channel_pull_frame(
                    channel,
                    bytes.as_mut_ptr(),
                    4096,
                    Some(&mut have)
                ));
                let other = handle!(self.channels[1 - index]);
                for _ in 0..number % 4 {
                    let (from, count) = (bytes.as_ptr(), have.min(room));
                    done(call!(vferry_channel_push_frame(other.as_deref(), from, count)));
                }
                done((pulled, vferry_channel_flush(other.as_deref())));
                done(vferry_channel_held_bytes(other.as_deref()));
                done(vferry_channel_hold_at_most(other.as_deref(), room << 12));
            }
            0 => {
                bytes[..64].fill_with(|| self.bytes.next().copied().unwrap_or(0));
                let (from, count) = (bytes.as_ptr(), room.min(64));
                done(call!(vferry_channel_push(channel, from, count, Some(&mut moved))));
            }
            1 => done(vferry_channel_close(channel)),
            2 => vferry_channel_free(Some(&mut self.channels[index])),
            // What one end gives the other gets, as far as there is room.
            3..=5 => {
                let pulled =
                    call!(vferry_channel_pull(channel, bytes.as_mut_ptr(), 4096, Some(&mut moved)));
                if is_ok(pulled) {
                    // SAFETY: it was written, and before that it was 0.
                    let count = unsafe { moved.assume_init() };
                    let other = handle!(self.channels[1 - index]);
                    done(call!(vferry_channel_push(
                        other,
                        bytes.as_ptr(),
                        count,
                        Some(&mut moved)
                    )));
                }
            }
            _ => done(call!(vferry_channel_pull(
                channel,
                bytes.as_mut_ptr(),
                room,
                Some(&mut moved)
            ))),
        }
    }

    /// What must always be possible.
    fn free(mut self) {
        for session in &mut self.sessions {
            done(vferry_session_cancel(handle!(*session)));
        }
        self.sessions.iter_mut().for_each(|session| vferry_session_free(Some(session)));
        self.devices.iter_mut().for_each(|device| vferry_device_free(Some(device)));
        self.channels.iter_mut().for_each(|channel| vferry_channel_free(Some(channel)));
        self.options.iter_mut().for_each(|options| vferry_options_free(Some(options)));
        let all =
            [self.sessions[0].is_null(), self.devices[0].is_null(), self.channels[0].is_null()];
        assert_eq!(all, [true; 3]);
    }
}

/// A struct of the header, all of it 0.
fn zeroed<T: Copy>() -> T {
    // SAFETY: the header's structs are of numbers alone.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn close(fd: c_int) {
    if (0..1_000_000).contains(&fd) {
        // SAFETY: needed because fds are numbers in C. It was made here, and the call did not take it.
        drop(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
    }
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Calls as the bytes say; then everything is freed, and no fd is left.
pub(crate) fn calls(data: &[u8]) {
    let before = open_fds();
    let mut caller = Caller {
        bytes: data.iter(),
        options: [null_mut(); 2],
        devices: [null_mut(); 4],
        channels: [null_mut(); 2],
        sessions: [null_mut(); 2],
        saving: [false; 4],
        ends: [None, None],
    };
    while caller.bytes.len() > 0 {
        match caller.byte() {
            0..=39 => caller.options(),
            40..=79 => caller.device(),
            80..=109 => caller.start(),
            110..=149 => caller.session(),
            150..=209 => caller.serve(),
            _ => caller.channel(),
        }
    }
    caller.free();
    // The sessions' threads let go of what they have after they are freed.
    let start = Instant::now();
    while open_fds() > before {
        assert!(start.elapsed() < PATIENCE, "fds are left: {} and {before}", open_fds());
        std::thread::sleep(Duration::from_millis(1));
    }
}
