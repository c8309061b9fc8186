//! TLS 1.3 below the wire, mutual always: no resumption, no tickets, no early data, ALPN
//! `vfio-ferry/1`.
//!
//! rustls does the handshake, on the thread that connects or polls the acceptor. The records that
//! follow are the kernel's to seal and open, where it takes the keys (`kernel_tls`): then the TCP socket
//! is the engine's stream. Elsewhere a thread of the stream's own does it, between the TCP socket and a
//! socket pair whose other end is the engine's stream: in buffers of ours, in place, with the keys that
//! the handshake gave.
//!
//! ```text
//! engine == stream ==> [socket pair] --recv--> records --seal in place--> send --> TCP ~~> the peer
//!        <== stream == [socket pair] <--send-- records <--open in place-- recv <-- TCP <~~
//! ```
//!
//! | module | |
//! |---|---|
//! | `credentials` | who this host is, and whom it believes |
//! | `verify` | the peer's certificate: authority and name, or a pinned key |
//! | `handshake` | rustls on a socket that does not block |
//! | `record` | one record sealed, or opened (RFC 8446, 5.2) |
//! | `guard` | how a connection goes on after its handshake, and what is known of it later |
//! | `secured` | one whose records are ours: both directions' keys |
//! | `pump` | the thread |

mod credentials;
mod guard;
mod handshake;
mod pump;
mod record;
mod secured;
mod verify;

pub use credentials::{Credentials, Tls, Trust};
pub(crate) use guard::Guard;
pub(super) use guard::{Finished, InKernel};
pub(super) use handshake::{Handshake, Progress};
pub(super) use secured::Secured;

/// What both hosts have to speak.
const ALPN: &[u8] = b"vfio-ferry/1";
