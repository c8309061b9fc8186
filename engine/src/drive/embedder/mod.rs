//! Between the drive and its embedder.

mod closing;
mod message_budget;
mod outbox;

pub(crate) use closing::Closing;
pub(crate) use message_budget::MessageBudget;
pub use outbox::{Outbox, SessionEvent};
