//! Between the drive and its embedder.

mod message_budget;
mod outbox;

pub(crate) use message_budget::MessageBudget;
pub use outbox::{Outbox, SessionEvent};
