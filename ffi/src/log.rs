//! Log lines, pulled. The engine speaks through `tracing`, which has one subscriber for a process:
//! this one keeps lines in a bounded queue, once somebody has asked for them.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::failure::{Failure, guarded};
use crate::raw::{self, Sized32};
use crate::status::vferry_status::{self, *};
use crate::values::{VFERRY_TEXT_BYTES, unknown};

/// The level of a log line.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_log_level {
    /// A failure that should not happen.
    VFERRY_LOG_ERROR = 1,
    /// Needs an administrator's attention.
    VFERRY_LOG_WARN = 2,
    /// Migration results and fallbacks.
    VFERRY_LOG_INFO = 3,
    /// Debugging detail.
    VFERRY_LOG_DEBUG = 4,
}

/// A log line. Set `size` to sizeof(vferry_log_line) before the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vferry_log_line {
    /// In: the caller's sizeof. Out: the bytes that were filled in.
    pub size: u32,
    /// A `vferry_log_level`.
    pub level: u32,
    /// When it was written, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Lines dropped just before this one, because the queue was full.
    pub lost: u64,
    /// The line.
    pub text: [c_char; VFERRY_TEXT_BYTES],
}

// SAFETY: repr(C), begins with the u32, and has only numbers.
unsafe impl Sized32 for vferry_log_line {
    const SIZE_MIN: usize = 536;
    const NAME: &'static str = "vferry_log_line";
    fn set_size(&mut self, size: u32) {
        self.size = size;
    }
}

const _: () = assert!(size_of::<vferry_log_line>() == vferry_log_line::SIZE_MIN);

/// Most lines that may be asked to be kept.
const LINES_MAX: usize = 65_536;

static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Log {
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Line>,
    /// Lines lost since the last one that was fetched.
    lost: u64,
}

#[derive(Debug)]
struct Line {
    level: u32,
    time_ns: u64,
    text: String,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Line) {
        let mut queue = self.lock();
        if queue.lines.len() == self.most {
            queue.lines.pop_front();
            queue.lost += 1;
        }
        queue.lines.push_back(line);
    }

    /// The oldest line, and how many were lost before it.
    fn next(&self) -> Option<(Line, u64)> {
        let mut queue = self.lock();
        let line = queue.lines.pop_front()?;
        Some((line, std::mem::take(&mut queue.lost)))
    }
}

/// The subscriber: everything that it gets goes to the queue.
#[derive(Debug)]
struct Lines {
    most: LevelFilter,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(log) = LOG.get() else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        log.push(Line {
            level: level_number(*event.metadata().level()),
            time_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            text: text.line(),
        });
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event's text: its message, then the fields.
#[derive(Debug, Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl Text {
    fn line(self) -> String {
        let Text { message, fields } = self;
        if message.is_empty() { fields.trim_start().to_owned() } else { message + &fields }
    }
}

fn level_number(level: Level) -> u32 {
    use vferry_log_level::*;
    match level {
        Level::ERROR => VFERRY_LOG_ERROR as u32,
        Level::WARN => VFERRY_LOG_WARN as u32,
        Level::INFO => VFERRY_LOG_INFO as u32,
        _ => VFERRY_LOG_DEBUG as u32,
    }
}

/// Starts to collect the log lines of all sessions of this process, up to `level` (a
/// `vferry_log_level`). The newest `lines_max` (1 to 65536) that were not fetched are kept. Without
/// this call nothing is logged anywhere.
///
/// Once in a process: VFERRY_ERR_LOG_TAKEN after that, and in a Rust program that has a `tracing`
/// subscriber of its own.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_log_start(level: u32, lines_max: usize) -> vferry_status {
    guarded(|| {
        let most = match level {
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => return Err(unknown("log level", level)),
        };
        if !(1..=LINES_MAX).contains(&lines_max) {
            return Err(unknown("log with lines:", lines_max));
        }
        let taken = || Failure::new(VFERRY_ERR_LOG_TAKEN, "log lines go elsewhere already");
        LOG.set(Log { most: lines_max, queue: Mutex::default() }).map_err(|_| taken())?;
        tracing::subscriber::set_global_default(Lines { most }).map_err(|_| taken())
    })
}

/// Fetches the oldest log line. Never blocks. VFERRY_ERR_EMPTY when none waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_log_next(line: *mut vferry_log_line) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(line) }?;
        let none = || Failure::not_now(VFERRY_ERR_EMPTY);
        let (Line { level, time_ns, text }, lost) =
            LOG.get().and_then(Log::next).ok_or_else(none)?;
        let mut found =
            vferry_log_line { size: 0, level, time_ns, lost, text: [0; VFERRY_TEXT_BYTES] };
        raw::fill_text(&text, &mut found.text);
        place.write(found);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_fields_and_the_newest_stay() {
        let log = LOG.get_or_init(|| Log { most: 2, queue: Mutex::default() });
        // A Rust program may have another subscriber, which wants more; it is not asked here.
        let more = tracing::Dispatch::new(Lines { most: LevelFilter::DEBUG });
        tracing::subscriber::with_default(Lines { most: LevelFilter::INFO }, || {
            tracing::info!("the first");
            tracing::error!("the second");
            tracing::warn!(device = 3, why = "a reset", "the third");
            tracing::debug!("nobody wants this");
            tracing::info!(bytes = 7);
        });
        drop(more);
        let taken = |log: &Log| std::mem::take(&mut *log.lock());
        let Queue { lines, lost } = taken(log);
        let lines: Vec<_> = lines.iter().map(|line| (line.level, &*line.text)).collect();
        assert_eq!(lines, [(2, "the third device=3 why=a reset"), (3, "bytes=7")]);
        assert_eq!(lost, 2);
        tracing::subscriber::with_default(Lines { most: LevelFilter::DEBUG }, || {
            tracing::error!("bad");
            tracing::debug!("fine");
        });
        let levels = taken(log).lines.into_iter().map(|line| line.level);
        assert_eq!(levels.collect::<Vec<_>>(), [1, 4]);
    }

    #[test]
    fn a_lost_line_is_told_of_once() {
        let log = Log { most: 2, queue: Mutex::default() };
        let push = |number: u64| {
            log.push(Line { level: 1, time_ns: number, text: number.to_string() });
        };
        (0..5).for_each(push);
        let next = || log.next().map(|(line, lost)| (line.time_ns, lost));
        assert_eq!((next(), next(), next()), (Some((3, 3)), Some((4, 0)), None));
        (5..8).for_each(push);
        assert_eq!((next(), next(), next()), (Some((6, 1)), Some((7, 0)), None));
    }
}
