//! `ferry-bench grid`: what it runs, what it leaves out, how it goes on, and its picture.

mod program;

use program::{Ended, ferry_bench, report, scratch};

const SMALL: &str = "grid --state 64KiB,1MiB --link none,1Gbit --data zero,elf --rounds 2 \
                     --contender adaptive,raw,zstd=1,qemu-main-channel,tokio-uring";

fn number(value: &serde_json::Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

#[test]
fn every_cell_has_every_contender_and_is_verified() {
    let folder = scratch();
    let picture = folder.path().join("grid.svg");
    let (ended, report) = report(&format!("{SMALL} --plot {}", picture.display()));
    assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
    assert_eq!((&report["verified"], &report["command"]), (&true.into(), &"grid".into()));
    let cells = report["cells"].as_array().cloned().unwrap_or_default();
    assert_eq!(cells.len(), 8, "{report}");
    for cell in &cells {
        for entry in cell["entries"].as_array().cloned().unwrap_or_default() {
            let runs = entry["runs"].as_array().map(Vec::len);
            assert_eq!(runs, Some(2), "{cell}");
            let [least, median, most] = ["downtime_ns_min", "downtime_ns", "downtime_ns_max"]
                .map(|key| number(&entry[key]));
            assert!(0 < least && least <= median && median <= most, "{entry}");
        }
    }
    for words in ["share", "peer", "1 Gbit, elf", "none, zero", "worst share"] {
        assert!(ended.output.contains(words), "{words} is not in\n{}", ended.output);
    }
    let picture = std::fs::read_to_string(picture).unwrap_or_default();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for words in ["64 KiB of zero", "1 MiB of elf", "adaptive", "qemu-main-channel", "1 Gbit"] {
        assert!(picture.contains(words), "{words} is not in the picture");
    }
}

#[test]
fn a_grid_goes_on_where_it_was() {
    let folder = scratch();
    let file = folder.path().join("cells");
    let line = |rest: &str| {
        format!("grid --rounds 1 --contender raw --data zero --resume {} {rest}", file.display())
    };
    let Ended { status, output, errors } = ferry_bench(&line("--state 64KiB --link none"));
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    assert!(output.contains("1 cell, 0 of them finished"), "{output}");
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(before.lines().count(), 2);
    let Ended { status, output, .. } = ferry_bench(&line("--state 64KiB,128KiB --link none"));
    assert_eq!(status, Some(0));
    assert!(output.contains("2 cells, 1 of them finished"), "{output}");
    let after = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(after.starts_with(&before) && after.lines().count() == 3, "only the new cell was run");
    let other = ferry_bench(&line("--state 64KiB --link none --chunk 64KiB"));
    assert_eq!((other.status, other.errors.lines().count()), (Some(2), 1));
    assert!(other.errors.contains("another chunk"), "{}", other.errors);
}

#[test]
fn what_cannot_be_is_refused() {
    for (line, words) in [
        ("grid --contender nobody", "qemu-multifd"),
        ("grid --link fast", "--link"),
        ("grid --state 100TiB --quick", "of memory"),
        ("grid --data /no/such/file --quick", "--data"),
        ("grid --plot /no/such/folder/x.svg --quick", "--plot"),
        ("grid --resume /no/such/folder/x --quick", "--resume"),
    ] {
        let ended = ferry_bench(line);
        assert_eq!(
            (ended.status, ended.errors.lines().count()),
            (Some(2), 1),
            "{line}: {}",
            ended.errors
        );
        assert!(ended.errors.contains(words), "{line}: {}", ended.errors);
    }
}

#[test]
fn one_migration_is_drawn() {
    let folder = scratch();
    let picture = folder.path().join("one.svg");
    let line = format!(
        "--state 2MiB --devices 2 --streams 3 --precopy --runs 3 --plot {}",
        picture.display()
    );
    let ended = ferry_bench(&line);
    assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
    let picture = std::fs::read_to_string(picture).unwrap_or_default();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for words in [
        "stages",
        "stop_copy",
        "source 0, SET_STATE",
        "source 1, read",
        "stream 2, sent",
        "target 1, written",
    ] {
        assert!(picture.contains(words), "{words} is not in the picture");
    }
}
