//! The door: how a session's streams come to be. A source [`connect`]s, a target's [`Acceptor`] lets
//! it in.
//!
//! Whoever can reach the port can connect. So the acceptor holds many connections at once, each with
//! a short time to say its hello, sorts them by the session that the hello names, and drops, counts
//! and names whatever does not become a session. Nothing of it runs by itself: the embedder calls, and
//! an epoll fd says when.
//!
//! ```text
//! listener --accept--> greeting --hello--> gathering, by session --all streams--> waiting --> Streams
//!                         |                      |                                   |
//!          not a hello, silent, closed   does not fit, incomplete            too many, has left
//!                         v                      v                                   v
//!                      dropped              told in an abort frame, then dropped
//! ```
//!
//! | module | |
//! |---|---|
//! | `acceptor` | the public face, for any thread |
//! | `inner` | sockets and epoll: one round at a time |
//! | `crowd` | who has to go when there is no more room (pure) |
//! | `gather` | which streams make a session (pure) |
//! | `greeting` | what a connection says first |
//! | `turned_away` | the strangers, counted and named |
//! | `connect`, `cancel` | the source's side |
//! | `streams` | what comes out of both |
//! | `tls` | protection, on the way from the one to the other |

mod acceptor;
mod cancel;
mod connect;
mod crowd;
mod gather;
mod greeting;
mod inner;
mod options;
mod streams;
mod tls;
mod turned_away;
mod waits;

pub use acceptor::{Acceptor, accept};
pub use cancel::Canceller;
pub use connect::{ConnectOptions, connect, connect_with, connect_within};
pub(crate) use options::is_loopback;
pub use options::{DoorOptions, Protection};
pub use streams::{StreamProtection, Streams, TlsRecords};
pub(crate) use tls::Guard;
pub use tls::{Credentials, Tls, Trust};
pub use turned_away::{Reason, Stranger, TurnedAway};
