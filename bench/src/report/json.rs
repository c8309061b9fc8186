//! The report as a program reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;

use super::reset::Reset;
use super::run::Runs;
use crate::process::message::RunSpec;

/// The file that `--json` names, opened before anything is run: a report that cannot be written is
/// bad input, not a failed migration.
pub(crate) struct JsonFile(Option<BufWriter<File>>);

impl JsonFile {
    /// Creates the file, if one is wanted.
    pub(crate) fn create(path: Option<&Path>) -> io::Result<JsonFile> {
        Ok(JsonFile(path.map(File::create).transpose()?.map(BufWriter::new)))
    }

    /// Writes the report, if one is wanted.
    pub(crate) fn write(self, report: &impl Serialize) -> io::Result<()> {
        let Some(mut file) = self.0 else { return Ok(()) };
        serde_json::to_writer_pretty(&mut file, report)?;
        file.write_all(b"\n")?;
        file.flush()
    }
}

/// The report of `downtime`.
#[derive(Serialize)]
pub(crate) struct DowntimeReport<'a> {
    /// The numbers.
    #[serde(flatten)]
    pub(crate) runs: &'a Runs,
    /// What the reset cost, if there was one; the numbers above are then those of the migrations
    /// with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reset: Option<&'a Reset>,
    /// What was run.
    pub(crate) spec: &'a RunSpec,
}

/// The report of `compare`.
#[derive(Serialize)]
pub(crate) struct CompareReport<'a> {
    /// Whether every run of every contender was verified.
    pub(crate) verified: bool,
    /// By name.
    pub(crate) contenders: BTreeMap<&'static str, &'a Runs>,
    /// Each contender's median transfer over the engine's; empty without the engine's.
    pub(crate) transfer_ratio_to_engine: BTreeMap<&'static str, f64>,
    /// What was run; its contender is the engine.
    pub(crate) spec: &'a RunSpec,
}
