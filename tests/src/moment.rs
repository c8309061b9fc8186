//! The moments of an honest migration at which strangers come to its door.

/// When they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the source connects.
    Before,
    /// Between its connections.
    Between,
    /// While the migration runs.
    During,
}

/// All of them.
pub const MOMENTS: [Moment; 3] = [Moment::Before, Moment::Between, Moment::During];
