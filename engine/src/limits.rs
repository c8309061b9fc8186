//! Every bound of the engine, in one place. Nothing is sized by a number that a peer or a device
//! gave before that number was checked against one of these.

use std::time::Duration;

/// Size of a frame's header on the wire, in bytes.
pub const HEADER_BYTES: usize = 64;

/// Smallest chunk that a session may be configured with, in bytes.
pub const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Default chunk: what a system call and a wake cost is little beside its bytes.
pub const CHUNK_BYTES_DEFAULT: usize = 1 << 20;
/// Largest chunk that is read to be compressed, of chunks up to the default; a quarter of larger ones.
/// It stays in a core's L2, and there are enough of them for all workers.
pub const ENCODED_CHUNK_BYTES: usize = 256 << 10;
/// Largest chunk that a session may be configured with or agree to, in bytes.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;

/// Most devices in one session.
pub const DEVICES_MAX: usize = 64;
/// Most streams in one session.
pub const STREAMS_MAX: usize = 64;
/// Most compression workers in one session.
pub const WORKERS_MAX: usize = 64;

/// Largest body of a frame that is not state, in bytes: handshake, begin, abort, VMM message.
pub const CONTROL_BODY_BYTES_MAX: usize = 64 << 10;
/// Largest VMM message, and largest opaque part of a device's begin frame, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 32 << 10;
/// Longest device name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest text that an abort frame may carry, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most VMM messages that may wait on one side, in each direction: for the embedder to fetch them
/// (one more is the peer's error, and ends the session), and for a stream to take them to the peer
/// (the embedder is told [`UsageError::Full`](crate::error::UsageError::Full)).
pub const MESSAGES_WAITING_MAX: usize = 64;
/// Most completions and events that wait for the embedder before stats updates are merged.
pub const EVENTS_WAITING_MAX: usize = 1024;

/// Most connections that an acceptor may be configured to hold while their sessions are not complete.
pub const DOOR_CONNECTIONS_MAX: usize = 4096;
/// Most complete sessions that may wait at an acceptor to be taken.
pub const DOOR_SESSIONS_MAX: usize = 1024;
/// Connections that an acceptor turned away and can name; the others are only counted.
pub const STRANGERS_KEPT: usize = 32;

/// Records of TLS that are sealed, or opened, at a time: 128 KiB, a part of a core's L2.
pub const TLS_RECORDS: usize = 8;
/// Memory of one protected stream, in bytes: room for so many records in each direction, of which a
/// peer's may be 256 bytes longer. It is taken out of what the session's buffers may have.
pub const TLS_STREAM_BYTES: usize = 2 * TLS_RECORDS * ((16 << 10) + 512);

/// Most frames, messages aside, that may wait for an idle stream: beyond it the peer asks for more
/// than it takes in. Ahead of what the credits, pings and devices of a session can ever need.
pub const ANSWERS_WAITING_MAX: usize = 16 * DEVICES_MAX;

/// How many slots of a session's arena each device owns at least: one under the kernel's hand
/// (being read or written), one in or behind the compressor, one on the wire.
pub const SLOTS_PER_DEVICE_MIN: usize = 3;
/// Most memory that a session's arena may take unless the embedder allows more, in bytes.
pub const ARENA_BYTES_DEFAULT: usize = 32 << 20;
/// Most memory that a session's arena may ever take, in bytes.
pub const ARENA_BYTES_MAX: usize = 1 << 30;
/// Memory that the arenas of an engine's sessions may take together unless the embedder says otherwise,
/// in bytes.
pub const ENGINE_BYTES_DEFAULT: usize = 128 << 20;
/// What it may be at most, in bytes.
pub const ENGINE_BYTES_MAX: usize = 16 << 30;

/// Restarts of one device in one session unless the embedder says otherwise.
pub const RESTARTS_DEFAULT: u32 = 3;

/// How long a peer may stay silent before it counts as lost, unless the embedder says otherwise.
pub const PEER_SILENCE_DEFAULT: Duration = Duration::from_secs(10);
/// How long the handshake may take, unless the embedder says otherwise.
pub const HANDSHAKE_LIMIT_DEFAULT: Duration = Duration::from_secs(10);
/// How long what a driver or the peer owes may make no progress, unless the embedder says otherwise.
/// Firmware that answers at all does so within this.
pub const STALL_LIMIT_DEFAULT: Duration = Duration::from_secs(30);
/// How long a source may send none of the state before the switchover, unless the target's embedder
/// says otherwise: longer than the RAM of any VM takes.
pub const IDLE_LIMIT_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// How long the source waits, after the handover, for the target's word that it runs, unless the
/// embedder says otherwise.
pub const CONFIRM_LIMIT_DEFAULT: Duration = Duration::from_secs(45);
/// Bytes of one frame that travelled count as progress; fewer do not: a peer that trickles is stalled.
pub const PROGRESS_BYTES_MIN: u64 = 64 << 10;

/// Most frames of one device that may wait for the path: chunks of zeros need no slot, and only this
/// bounds them.
pub const FRAMES_QUEUED_MAX: usize = 256;
/// Most data frames of one device that are sent before the target says that it is done with any: a
/// target that grants more credit is not believed.
pub const FRAMES_UNDER_WAY_MAX: usize = 1024;
/// Bytes of the longest frame, header and body: a buffer of so many takes any frame.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + CHUNK_BYTES_MAX;
/// How far a whole frame that is pushed may be ahead of the one that is next on its stream: more than
/// the credit of all devices and the frames that need none come to.
pub const FRAMES_AHEAD_MAX: u32 = (DEVICES_MAX * (FRAMES_UNDER_WAY_MAX + 16)) as u32;
/// Bytes of whole frames that may wait in a channel for an earlier one, unless the embedder says
/// otherwise: what a session's arena may be credited for at most, and frames that need no credit.
pub const FRAMES_HELD_DEFAULT: usize = ARENA_BYTES_DEFAULT + (4 << 20);
/// What it may be at least, in bytes: two of the longest frames.
pub const FRAMES_HELD_MIN: usize = 2 * FRAME_BYTES_MAX;
/// What it may be at most, in bytes.
pub const FRAMES_HELD_MAX: usize = ARENA_BYTES_MAX + (4 << 20);

/// Most epochs of one device that a source may discard: each costs the target a reset.
pub const DISCARDS_MAX: u32 = 64;

/// How long a cancel may take before it is reported with an operation still in flight.
pub const CANCEL_BOUND_DEFAULT: Duration = Duration::from_secs(2);
/// How long the engine waits before it asks a drained PRE_COPY device again.
pub const PRECOPY_POLL_DEFAULT: Duration = Duration::from_millis(20);

/// Bytes of a slot around its body: the page in which the frame header ends, and the page in which the
/// next header begins.
pub const SLOT_HEAD_BYTES: usize = 8192;
