//! Every bounded wait of the door, as its bound. A new one is a constant here; its text is its row in
//! ARCHITECTURE.md's table, where a test prints it: who waits | for what | until when | then what.

use std::time::Duration;

/// the target's acceptor, for each connection
/// | its whole hello; with TLS, the handshake before it
/// | `greeting_limit` after it was taken, 5 s by default
/// | it is dropped, and counted as silent
pub(super) const GREETING: Duration = Duration::from_secs(5);

/// the target's acceptor, for each session
/// | its other streams
/// | `gathering_limit` after its first hello, 10 s by default
/// | its streams are told and dropped, and counted as incomplete
pub(super) const GATHERING: Duration = Duration::from_secs(10);

/// the target's acceptor, where the system gives no more fds and none of its own can be given up
/// | an fd to be free
/// | 100 ms after it was refused
/// | the next connection is tried again
pub(super) const NO_ROOM: Duration = Duration::from_millis(100);

/// the source that connects, from after the host's name was looked up
/// | the target's system to take all streams; with TLS, their handshakes
/// | the timeout that was given, 10 s by default; or a cancel
/// | connecting has failed
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// ferry-tls-N of a protected stream, once its engine has ended the stream
/// | the peer to take the rest, and to say that it has ended, too
/// | 5 s after the engine's end
/// | the connection is closed from this end
pub(super) const PARTING: Duration = Duration::from_secs(5);
