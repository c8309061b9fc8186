//! From what the processes reported to what a person or a program reads.

pub(crate) mod json;
pub(crate) mod machine;
pub(crate) mod plot;
pub(crate) mod progress;
pub(crate) mod reset;
pub(crate) mod run;
mod seen;
pub(crate) mod spread;
pub(crate) mod table;
pub(crate) mod timeline;
