//! The file of finished cells: a grid that was ended goes on where it was.
//!
//! A line of JSON each: first what must be the same for the cells to be of one grid, then the cells. A line
//! that was cut off by the end of a run is not there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Place;
use super::cell::Cell;
use crate::spec::Entrant;

/// The file, and what is in it.
pub(crate) struct Finished {
    file: Option<File>,
    cells: Vec<Cell>,
}

/// The first line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    ferry_bench_grid: u32,
    settings: serde_json::Value,
}

/// The version of the file.
const VERSION: u32 = 1;

impl Finished {
    /// Opens the file, if one is wanted, or makes it.
    pub(crate) fn open(path: Option<&Path>, settings: &impl Serialize) -> io::Result<Finished> {
        let Some(path) = path else { return Ok(Finished { file: None, cells: Vec::new() }) };
        let head = Head { ferry_bench_grid: VERSION, settings: serde_json::to_value(settings)? };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let mut cells = Vec::new();
        match lines.next() {
            None if text.is_empty() => writeln!(file, "{}", serde_json::to_string(&head)?)?,
            None => return Err(io::Error::other("is no file of finished cells")),
            Some(first) => {
                let there: Head = serde_json::from_str(first)
                    .map_err(|_| io::Error::other("is no file of finished cells"))?;
                check(&there, &head)?;
                for line in lines {
                    cells.push(serde_json::from_str(line)?);
                }
                // What was cut off goes.
                file.set_len(whole as u64)?;
                file.seek(SeekFrom::End(0))?;
            }
        }
        Ok(Finished { file: Some(file), cells })
    }

    /// A cell that is finished, if all these took part.
    pub(crate) fn find(&self, place: &Place, contenders: &[Entrant]) -> Option<Cell> {
        let has_all = |cell: &&Cell| {
            let has = |who: &Entrant| cell.entries.iter().any(|entry| entry.contender == *who);
            cell.place == *place && contenders.iter().all(has)
        };
        // The last one is the newest.
        let mut cell = self.cells.iter().rev().find(has_all)?.clone();
        cell.entries.retain(|entry| contenders.contains(&entry.contender));
        Some(cell)
    }

    /// Writes a cell down.
    pub(crate) fn add(&mut self, cell: &Cell) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(cell)?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_data()
    }
}

/// Whether both are of one grid; if not, the first setting that differs.
fn check(there: &Head, wanted: &Head) -> io::Result<()> {
    if there.ferry_bench_grid != wanted.ferry_bench_grid {
        return Err(io::Error::other("is a file of another version"));
    }
    let names = wanted.settings.as_object().into_iter().flat_map(|it| it.keys());
    for name in names {
        let (old, new) = (&there.settings[name], &wanted.settings[name]);
        if old != new {
            let text = format!("its cells have another {name}: {old}, and not {new}");
            return Err(io::Error::other(text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::cell::tests::{cell, entry};
    use super::*;
    use serde_json::json;

    fn open(path: &Path, chunk: u32) -> io::Result<Finished> {
        Finished::open(Some(path), &json!({ "chunk": chunk, "kernel": "6" }))
    }

    #[test]
    fn a_grid_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let path = folder.path().join("cells");
        let both = [Entrant::ALL[0], Entrant::ALL[1]];
        let one = cell(both.iter().map(|&who| entry(who, &[1, 2, 3])).collect());
        let other = Place { link: Some(crate::spec::Rate(7)), ..one.place.clone() };
        let mut file = open(&path, 1).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(file.find(&one.place, &both), None);
        assert!(file.add(&one).is_ok());
        // A run that was ended in the middle of a line.
        let mut raw = OpenOptions::new().append(true).open(&path).unwrap_or_else(|e| panic!("{e}"));
        assert!(raw.write_all(br#"{"state":77"#).is_ok());
        for _ in 0..2 {
            let mut file = open(&path, 1).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(file.find(&one.place, &both).as_ref(), Some(&one));
            assert_eq!(file.find(&other, &both), None);
            assert_eq!(file.find(&one.place, &Entrant::ALL), None, "not all took part");
            let first = file.find(&one.place, &both[..1]).map(|cell| cell.entries.len());
            assert_eq!(first, Some(1), "who is not wanted is not shown");
            assert!(file.add(&one).is_ok());
        }
    }

    #[test]
    fn cells_of_another_grid_are_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let path = folder.path().join("cells");
        assert!(open(&path, 1).is_ok() && open(&path, 1).is_ok());
        let error = open(&path, 2).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("another chunk: 1, and not 2"), "{error}");
        for foreign in ["my notes\n", "my notes", "{}\n"] {
            assert!(std::fs::write(&path, foreign).is_ok());
            assert!(open(&path, 1).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), foreign);
        }
    }
}
