//! The report as a program reads it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use super::machine::Machine;
use super::reset::Reset;
use super::run::Runs;
use crate::process::message::RunSpec;

/// The version of all reports. It is raised when a key goes away or means something else; new keys
/// may come without. Reports without one are older than 2 and have 99th percentiles.
const VERSION: u32 = 2;

/// What `--json` or `--plot` name, opened before anything is run: a report that cannot be written is
/// bad input, not a failed migration. A file is there whole or, as long as it is not written,
/// as it was.
pub(crate) struct ReportFile(Place);

enum Place {
    None,
    /// A device, a pipe: nothing that could be replaced.
    Opened(File),
    /// Its replacement, and where it goes.
    Beside(NamedTempFile, PathBuf),
}

impl ReportFile {
    /// Opens the file, if one is wanted.
    pub(crate) fn create(path: Option<&Path>) -> io::Result<ReportFile> {
        let Some(path) = path else { return Ok(ReportFile(Place::None)) };
        let is_there = match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                return Ok(ReportFile(Place::Opened(OpenOptions::new().write(true).open(path)?)));
            }
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let target = if is_there {
            // Who may not write to it may not replace it either.
            OpenOptions::new().write(true).open(path)?;
            // What a link names is replaced, not the link.
            fs::canonicalize(path)?
        } else {
            path.to_owned()
        };
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // As open(2) would make it: the process's mask takes away from this.
        let mode = Permissions::from_mode(0o666);
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(".ferry-bench-").suffix(".part").permissions(mode);
        Ok(ReportFile(Place::Beside(builder.tempfile_in(folder)?, target)))
    }

    /// Writes the report as JSON, if it is wanted, with what it was measured on.
    pub(crate) fn write(self, command: &str, report: &impl Serialize) -> io::Result<()> {
        if matches!(self.0, Place::None) {
            return Ok(());
        }
        let document = Document { version: VERSION, command, report, machine: Machine::new() };
        let mut text = serde_json::to_vec_pretty(&document)?;
        text.push(b'\n');
        self.put(&text)
    }

    /// Writes these bytes, if they are wanted.
    pub(crate) fn put(self, bytes: &[u8]) -> io::Result<()> {
        match self.0 {
            Place::None => Ok(()),
            Place::Opened(mut file) => file.write_all(bytes),
            Place::Beside(mut file, target) => {
                file.write_all(bytes)?;
                // Before the name is: what a full disk refuses is refused here.
                file.as_file().sync_all()?;
                file.persist(target).map_err(|error| error.error)?;
                Ok(())
            }
        }
    }

    /// Whether one is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        !matches!(self.0, Place::None)
    }
}

/// Any report.
#[derive(Serialize)]
struct Document<'a, T> {
    version: u32,
    command: &'a str,
    #[serde(flatten)]
    report: &'a T,
    machine: Machine,
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
    /// What held the link's rate, in words; null without one.
    pub(crate) link: Option<&'a str>,
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
    /// What held the link's rate, in words; null without one.
    pub(crate) link: Option<&'a str>,
    /// What was run; its contender is the engine.
    pub(crate) spec: &'a RunSpec,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"))
    }

    fn create(path: &Path) -> ReportFile {
        ReportFile::create(Some(path)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).map_or(0, |entries| entries.count())
    }

    #[test]
    fn until_it_is_written_the_old_report_stands() {
        let folder = scratch();
        let path = folder.path().join("report");
        let read = || fs::read(&path).unwrap_or_default();
        for (old, is_new) in [(&b""[..], true), (b"an old report", false)] {
            if !is_new {
                fs::write(&path, old).unwrap_or_else(|error| panic!("{error}"));
            }
            let file = create(&path);
            assert_eq!(read(), old);
            drop(file);
            assert_eq!((read(), path.exists()), (old.to_vec(), !is_new));
            assert_eq!(names(folder.path()), usize::from(!is_new), "nothing is left behind");
        }
        create(&path).put(b"new").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((read(), names(folder.path())), (b"new".to_vec(), 1));
        let mode = fs::metadata(&path).map_or(0, |it| it.permissions().mode());
        assert_eq!(mode & 0o400, 0o400);
    }

    #[test]
    fn a_link_stays_a_link_and_a_device_a_device() {
        let folder = scratch();
        let (path, link) = (folder.path().join("report"), folder.path().join("link"));
        fs::write(&path, b"old").unwrap_or_else(|error| panic!("{error}"));
        symlink(&path, &link).unwrap_or_else(|error| panic!("{error}"));
        create(&link).put(b"new").unwrap_or_else(|error| panic!("{error}"));
        assert!(fs::symlink_metadata(&link).is_ok_and(|it| it.is_symlink()));
        assert_eq!(fs::read(&path).unwrap_or_default(), b"new");
        let null = folder.path().join("null");
        symlink("/dev/null", &null).unwrap_or_else(|error| panic!("{error}"));
        create(&null).put(b"new").unwrap_or_else(|error| panic!("{error}"));
        assert!(fs::metadata("/dev/null").is_ok_and(|it| !it.is_file()));
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        let full = create(Path::new("/dev/full"));
        let error = full.put(b"report").err().map(|error| error.kind());
        assert_eq!(error, Some(io::ErrorKind::StorageFull));
        assert!(ReportFile::create(Some(&scratch().path().join("no/folder"))).is_err());
    }
}
