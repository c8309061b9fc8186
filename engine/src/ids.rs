//! Small identifiers, each a type of its own, so that a device is never taken for a stream.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $label:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, " {}"), self.0)
            }
        }
    };
}

id! {
    /// A device of a session, as both hosts number it: the embedder's own number, below
    /// [`DEVICES_MAX`](crate::limits::DEVICES_MAX).
    DeviceId(u32), "device"
}
id! {
    /// One saving session of one device, counted from 0. A discard starts the next one.
    Epoch(u32), "epoch"
}
id! {
    /// The place of a frame among the frames of its device and epoch, counted from 0.
    Sequence(u64), "sequence"
}
id! {
    /// A stream of a session, counted from 0.
    StreamId(u16), "stream"
}
id! {
    /// A buffer slot of a session's arena, counted from 0.
    SlotId(u32), "slot"
}

impl DeviceId {
    /// The number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl StreamId {
    /// The number as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl SlotId {
    /// The number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0.wrapping_add(1))
    }
}

impl Sequence {
    /// The sequence after this one.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}
