//! Why a call failed: a status for the program, a sentence for a person, and the kernel's errno
//! where there was one. The sentence is kept for the calling thread.

use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(feature = "open")]
use vfio_ferry::OpenError;
use vfio_ferry::{Error, TlsFault, UsageError};

use crate::status::vferry_status::{self, *};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: vferry_status,
    message: Cow<'static, str>,
    errno: i32,
}

thread_local! {
    static LAST: RefCell<(Cow<'static, str>, i32)> = const { RefCell::new((Cow::Borrowed(""), 0)) };
}

impl Failure {
    pub(crate) fn new(status: vferry_status, message: impl Into<Cow<'static, str>>) -> Failure {
        Failure { status, message: message.into(), errno: 0 }
    }

    /// Nothing is wrong, there is only nothing to be had. The last error stays as it was.
    pub(crate) fn not_now(status: vferry_status) -> Failure {
        debug_assert!(status.is_not_now());
        Failure::new(status, "")
    }

    /// The system said no.
    pub(crate) fn system(
        status: vferry_status,
        what: impl AsRef<str>,
        error: io::Error,
    ) -> Failure {
        let errno = error.raw_os_error().unwrap_or(0);
        Failure { status, message: format!("{}: {error}", what.as_ref()).into(), errno }
    }

    fn internal(panic: &(dyn Any + Send)) -> Failure {
        let said = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Failure::new(VFERRY_ERR_INTERNAL, format!("a bug of vfio-ferry: {said}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        if matches!(error, Error::Cancelled) {
            return Failure::not_now(VFERRY_ERR_CANCELLED);
        }
        let message = error.to_string();
        let (status, source) = match &error {
            Error::Usage(usage) => (usage_status(usage), None),
            Error::Device { source, .. } => (VFERRY_ERR_DEVICE_IO, Some(source)),
            Error::NotMigratable { .. } => (VFERRY_ERR_NOT_MIGRATABLE, None),
            Error::DeviceState { .. } => (VFERRY_ERR_DEVICE_STATE, None),
            Error::Tls(fault) => (tls_status(fault), None),
            Error::Peer(_) => (VFERRY_ERR_PEER_PROTOCOL, None),
            Error::Network { source, .. } => (network_status(source), Some(source)),
            Error::System(source) => (VFERRY_ERR_SYSTEM, Some(source)),
            _ => (VFERRY_ERR_SYSTEM, None),
        };
        let errno = source.and_then(io::Error::raw_os_error).unwrap_or(0);
        Failure { status, message: message.into(), errno }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Failure {
        match usage_status(&error) {
            status if status.is_not_now() => Failure::not_now(status),
            status => Failure::new(status, error.to_string()),
        }
    }
}

#[cfg(feature = "open")]
impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        let status = match &error {
            OpenError::NoSuchDevice { .. } => VFERRY_ERR_NO_SUCH_DEVICE,
            OpenError::NoGroup { .. } | OpenError::NotBound { .. } => VFERRY_ERR_NOT_BOUND,
            OpenError::NoVfio | OpenError::NoIommuType1 => VFERRY_ERR_NO_VFIO,
            OpenError::Denied { .. } => VFERRY_ERR_ACCESS_DENIED,
            OpenError::Busy { .. } => VFERRY_ERR_GROUP_BUSY,
            OpenError::NotViable { .. } => VFERRY_ERR_GROUP_NOT_VIABLE,
            OpenError::NoMigration { .. } => VFERRY_ERR_NOT_MIGRATABLE,
            _ => VFERRY_ERR_DEVICE_IO,
        };
        let errno = match &error {
            OpenError::Device { source, .. } => source.raw_os_error().unwrap_or(0),
            _ => 0,
        };
        Failure { status, message: error.to_string().into(), errno }
    }
}

fn usage_status(error: &UsageError) -> vferry_status {
    match error {
        UsageError::Name { .. } => VFERRY_ERR_DEVICE_NAME,
        UsageError::TooLong { .. } => VFERRY_ERR_TOO_LONG,
        UsageError::Memory { .. } => VFERRY_ERR_MEMORY_LIMIT,
        UsageError::TlsSide => VFERRY_ERR_WRONG_HOST,
        UsageError::Plaintext { .. } => VFERRY_ERR_PLAINTEXT,
        UsageError::Pacing => VFERRY_ERR_RATE_NEEDS_TCP,
        UsageError::UnknownDevice { .. } => VFERRY_ERR_UNKNOWN_NUMBER,
        UsageError::Full { .. } => VFERRY_ERR_FULL,
        UsageError::SecondSession { .. } | UsageError::SameDevice { .. } => {
            VFERRY_ERR_DEVICE_IN_USE
        }
        UsageError::Stream { .. } | UsageError::SameStream { .. } => VFERRY_ERR_BAD_FD,
        _ => VFERRY_ERR_RANGE,
    }
}

/// Who failed: them or us, or somebody between.
fn tls_status(fault: &TlsFault) -> vferry_status {
    match fault {
        TlsFault::Credentials(_) => VFERRY_ERR_CREDENTIALS,
        TlsFault::Untrusted(_) | TlsFault::Expired(_) | TlsFault::OtherKey => {
            VFERRY_ERR_PEER_UNTRUSTED
        }
        TlsFault::Refused(_) => VFERRY_ERR_PEER_REFUSED,
        TlsFault::Changed(_) | TlsFault::Cut => VFERRY_ERR_STREAM_CHANGED,
        _ => VFERRY_ERR_SYSTEM,
    }
}

/// The engine's own timeouts carry no errno, or EAGAIN; ETIMEDOUT is the network's.
fn network_status(error: &io::Error) -> vferry_status {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::TimedOut, None) | (io::ErrorKind::WouldBlock, _) => VFERRY_ERR_TIMEOUT,
        (io::ErrorKind::InvalidInput, _) | (_, None) => VFERRY_ERR_ADDRESS,
        _ => VFERRY_ERR_CONNECTION,
    }
}

/// Runs a function of the ABI. No panic leaves it; its failure is kept for the thread.
pub(crate) fn guarded(body: impl FnOnce() -> Result<(), Failure>) -> vferry_status {
    let result = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|panic| Err(Failure::internal(&*panic)));
    match result {
        Ok(()) => VFERRY_OK,
        Err(failure) => {
            if !failure.message.is_empty() {
                // A thread that is ending has nobody left to ask it.
                let _ = LAST.try_with(|last| {
                    last.replace((failure.message, failure.errno));
                });
            }
            failure.status
        }
    }
}

/// Runs a function of the ABI that has no status to answer with.
pub(crate) fn guarded_or<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// The last failure of this thread.
pub(crate) fn last<T>(look: impl FnOnce(&str, i32) -> T) -> T {
    LAST.with(|last| {
        let last = last.borrow();
        look(&last.0, last.1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> String {
        last(|text, _| text.to_owned())
    }

    #[test]
    fn no_panic_leaves_the_library() {
        assert_eq!(guarded(|| panic!("oh {}", "no")), VFERRY_ERR_INTERNAL);
        assert_eq!(said(), "a bug of vfio-ferry: oh no");
        assert_eq!(guarded_or(7, || panic!("again")), 7);
    }

    #[test]
    fn the_last_error_stays_until_the_next_one() {
        let refused = io::Error::from_raw_os_error(13);
        let failed = guarded(|| Err(Failure::system(VFERRY_ERR_SYSTEM, "a thread", refused)));
        assert_eq!(failed, VFERRY_ERR_SYSTEM);
        assert_eq!(guarded(|| Ok(())), VFERRY_OK);
        assert_eq!(guarded(|| Err(Failure::not_now(VFERRY_ERR_EMPTY))), VFERRY_ERR_EMPTY);
        last(|text, errno| {
            assert!(text.starts_with("a thread: "), "{text}");
            assert_eq!(errno, 13);
        });
        let elsewhere = std::thread::spawn(said).join().expect("no panic");
        assert_eq!(elsewhere, "", "another thread's errors are its own");
    }

    #[test]
    fn every_error_has_the_status_that_says_whose_it_is() {
        let io = |errno| io::Error::from_raw_os_error(errno);
        let name = || "net0".to_owned();
        let network = |source| Error::Network { what: "connect".to_owned(), source };
        for (error, status, errno) in [
            (Error::Device { name: name(), source: io(5) }, VFERRY_ERR_DEVICE_IO, 5),
            (Error::NotMigratable { name: name() }, VFERRY_ERR_NOT_MIGRATABLE, 0),
            (Error::DeviceState { name: name(), state: "RESUMING" }, VFERRY_ERR_DEVICE_STATE, 0),
            (Error::Peer("no".to_owned()), VFERRY_ERR_PEER_PROTOCOL, 0),
            (network(io(111)), VFERRY_ERR_CONNECTION, 111),
            (network(io::ErrorKind::TimedOut.into()), VFERRY_ERR_TIMEOUT, 0),
            (network(io::ErrorKind::InvalidInput.into()), VFERRY_ERR_ADDRESS, 0),
            (Error::System(io(24)), VFERRY_ERR_SYSTEM, 24),
            (Error::Cancelled, VFERRY_ERR_CANCELLED, 0),
            (Error::Tls(TlsFault::Credentials(name())), VFERRY_ERR_CREDENTIALS, 0),
            (Error::Tls(TlsFault::Untrusted(name())), VFERRY_ERR_PEER_UNTRUSTED, 0),
            (Error::Tls(TlsFault::OtherKey), VFERRY_ERR_PEER_UNTRUSTED, 0),
            (Error::Tls(TlsFault::Refused(name())), VFERRY_ERR_PEER_REFUSED, 0),
            (Error::Tls(TlsFault::Changed("a record")), VFERRY_ERR_STREAM_CHANGED, 0),
            (Error::Tls(TlsFault::Cut), VFERRY_ERR_STREAM_CHANGED, 0),
            (Error::Tls(TlsFault::KeyUsedUp), VFERRY_ERR_SYSTEM, 0),
        ] {
            let said = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.status as i32, failure.errno), (status as i32, errno), "{said}");
        }
    }

    #[test]
    fn what_there_is_no_room_for_now_is_no_error() {
        let failed = guarded(|| Err(Failure::new(VFERRY_ERR_RANGE, "before")));
        assert_eq!(failed, VFERRY_ERR_RANGE);
        let full = UsageError::Full { max: 64 };
        assert_eq!(guarded(|| Err(full.into())), VFERRY_ERR_FULL);
        assert_eq!(said(), "before");
        assert_eq!(guarded(|| Err(UsageError::TlsSide.into())), VFERRY_ERR_WRONG_HOST);
        assert_eq!(said(), UsageError::TlsSide.to_string());
    }

    #[cfg(feature = "open")]
    #[test]
    fn what_keeps_a_device_from_being_opened_has_a_status_each() {
        let (path, group) = (|| std::path::PathBuf::from("/sys/bus"), || "7".to_owned());
        let source = || io::Error::from_raw_os_error(5);
        // A folder that is there, and no device. What its driver is called goes into the others.
        let no_group = vfio_ferry::VfioDevice::open("/").expect_err("no device");
        let OpenError::NoGroup { driver, .. } = &no_group else { panic!("{no_group}") };
        let not_bound =
            OpenError::NotBound { path: path(), group: group(), driver: driver.clone() };
        let no_migration = OpenError::NoMigration { path: path(), driver: driver.clone() };
        for (error, status, errno) in [
            (OpenError::NoSuchDevice { path: path() }, VFERRY_ERR_NO_SUCH_DEVICE, 0),
            (no_group, VFERRY_ERR_NOT_BOUND, 0),
            (not_bound, VFERRY_ERR_NOT_BOUND, 0),
            (no_migration, VFERRY_ERR_NOT_MIGRATABLE, 0),
            (OpenError::NoVfio, VFERRY_ERR_NO_VFIO, 0),
            (OpenError::NoIommuType1, VFERRY_ERR_NO_VFIO, 0),
            (OpenError::Denied { path: path() }, VFERRY_ERR_ACCESS_DENIED, 0),
            (OpenError::Busy { path: path(), group: group() }, VFERRY_ERR_GROUP_BUSY, 0),
            (OpenError::NotViable { path: path(), group: group() }, VFERRY_ERR_GROUP_NOT_VIABLE, 0),
            (OpenError::Device { path: path(), source: source() }, VFERRY_ERR_DEVICE_IO, 5),
        ] {
            let said = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.status as i32, failure.errno), (status as i32, errno), "{said}");
        }
    }
}
