//! The documents say what is there: references lead somewhere, C names are the header's, and what is
//! printed from the code is what the code says. UPDATE_SNAPSHOTS=1 prints it anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use vfio_ferry::{Backend, ThreadKind};

const DOCS: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "WIRE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "tests/fuzz/README.md",
    "bench/PERFORMANCE.md",
    "ffi/qemu/README.md",
];

/// Files of others that the documents speak of.
const ELSEWHERE: [&str; 1] = ["hw/vfio/migration.c"];

/// The programs that README calls short.
const SHORT: [&str; 4] = [
    "engine/examples/source.rs",
    "engine/examples/target.rs",
    "tests/c/minimal_source.c",
    "tests/c/minimal_target.c",
];

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(house().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What stands in backticks, by line; blocks of code are not looked into.
fn quoted(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        if !fenced {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

/// Whether a quotation names one file: a path with an ending, and nothing to be filled in.
fn is_file(quoted: &str) -> bool {
    let endings = [".rs", ".md", ".txt", ".toml", ".c", ".h", ".py", ".sh"];
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    quoted.contains('/')
        && quoted.chars().all(plain)
        && endings.iter().any(|ending| quoted.ends_with(ending))
}

/// Where a document's file is: named from the root, from `engine/src`, or from the document.
fn find(doc: &str, file: &str) -> Option<PathBuf> {
    let beside = Path::new(doc).parent().unwrap_or(Path::new(""));
    let places = [Path::new(""), Path::new("engine/src"), beside];
    places.iter().map(|place| house().join(place).join(file)).find(|path| path.exists())
}

/// Whether a source defines an item: a function, type, constant or macro, a field or a variant. Of
/// other files it is enough that they have the word.
fn defines(path: &Path, item: &str) -> bool {
    let source = fs::read_to_string(path).expect("UTF-8");
    let whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    fn follows<'a>(line: &'a str, before: &str, item: &str) -> Option<&'a str> {
        line.strip_prefix(before)?.strip_prefix(item)
    }
    if path.extension().is_none_or(|extension| extension != "rs") {
        return source.match_indices(item).any(|(at, _)| whole(&source[at + item.len()..]));
    }
    source.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).any(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let line = match line.strip_prefix("pub(").and_then(|rest| rest.split_once(") ")) {
            Some((_, rest)) => rest,
            None => line,
        };
        let line = line.strip_prefix("const fn ").map_or(line, |_| &line["const ".len()..]);
        let kinds =
            ["fn ", "struct ", "enum ", "trait ", "const ", "static ", "type ", "macro_rules! "];
        kinds.iter().any(|kind| follows(line, kind, item).is_some_and(whole))
            || follows(line, "", item).is_some_and(|rest| rest.starts_with([',', '(', ':']))
            || follows(line, "", item).is_some_and(|rest| rest.starts_with(" {"))
    })
}

/// The references of a "Where is ...?" table that lead nowhere, and how many lead somewhere. A
/// cell's items are in the file before them.
fn dead(doc: &str, table: &str) -> (Vec<String>, usize) {
    let (mut dead, mut alive) = (Vec::new(), 0);
    for row in table.lines().filter(|line| line.starts_with('|')).skip(2) {
        let place = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let mut file = None;
        let named = quoted(place);
        if named.len() < 2 {
            dead.push(format!("no file and item: {row}"));
        }
        for name in named {
            let lives = match &file {
                _ if is_file(name) || name.ends_with(".rs") => {
                    file = find(doc, name);
                    file.is_some()
                }
                Some(path) => defines(path, name),
                None => false,
            };
            alive += usize::from(lives);
            if !lives {
                dead.push(format!("{name}: {row}"));
            }
        }
    }
    (dead, alive)
}

/// The part of a text under a heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).expect(heading);
    rest.split("\n## ").next().unwrap_or(rest)
}

#[test]
fn every_where_is_leads_somewhere() {
    let text = read("ARCHITECTURE.md");
    let (dead, alive) = dead("ARCHITECTURE.md", section(&text, "Where is ...?"));
    assert_eq!(dead, [""; 0]);
    assert!(alive >= 48, "24 questions, each with file and item: {alive}");
}

#[test]
fn a_dead_reference_is_found() {
    let row = |place: &str| format!("| question | where |\n|---|---|\n| a \\| b? | {place} |\n");
    let found = |place: &str| dead("ARCHITECTURE.md", &row(place));
    assert_eq!(found("`limits.rs` `DEVICES_MAX`"), (vec![], 2));
    assert_eq!(
        found("`wire/mod.rs` `Frame`; `outcome/ending.rs` `EpochEnding` `Restarted`").0,
        [""; 0]
    );
    for place in [
        "`wire/gone.rs` `Frame`",
        "`limits.rs` `DEVICES`",
        "`limits.rs` `engine`",
        "`DEVICES_MAX`",
        "`limits.rs`",
        "`tests/vectors/generate.py` `nowhere_in_it`",
    ] {
        assert_ne!(found(place).0, [""; 0], "{place}");
    }
}

#[test]
fn files_that_are_named_are_there() {
    for doc in DOCS {
        let text = read(doc);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let links = links.filter(|link| !link.is_empty() && !link.contains("://"));
        let dead: BTreeSet<&str> = quoted(&text)
            .into_iter()
            .filter(|name| is_file(name))
            .chain(links)
            .filter(|name| find(doc, name).is_none() && !ELSEWHERE.contains(name))
            .collect();
        assert!(dead.is_empty(), "{doc}: {dead:?}");
    }
}

#[test]
fn names_of_the_c_interface_are_the_headers() {
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = words.filter(|word| word.starts_with("vferry_") || word.starts_with("VFERRY_"));
        ours.filter(|word| !word.ends_with('_')).map(str::to_owned).collect()
    };
    let header = names(&read("include/vfio_ferry.h"));
    for doc in DOCS {
        let unknown: Vec<_> = names(&read(doc)).difference(&header).cloned().collect();
        assert!(unknown.is_empty(), "{doc}: {unknown:?}");
    }
}

#[test]
fn the_first_programs_are_short() {
    for file in SHORT {
        let lines = read(file).lines().count();
        assert!(lines < 60, "{file} has {lines} lines; README says under 60");
    }
}

/// The rows of a table of waits: doc comments of four cells, `who | for what | until when | then
/// what`, each on a variant or a constant.
fn waits(file: &str) -> Vec<String> {
    let source = read(file);
    let (mut rows, mut doc) = (Vec::new(), String::new());
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc += text;
            continue;
        }
        let doc = std::mem::take(&mut doc);
        let cells: Vec<&str> = doc.split(" | ").map(str::trim).collect();
        if cells.len() == 1 {
            continue;
        }
        let constant = line.split_once("const ").and_then(|(_, rest)| rest.split_once(": "));
        let name = constant.map_or(line.trim_end_matches(','), |(name, _)| name);
        assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "{file}: {doc}");
        assert!(name.chars().all(|c| c.is_alphanumeric() || c == '_'), "{file}: {line}");
        if let Some((_, value)) = constant.and_then(|(_, rest)| rest.split_once("= ")) {
            let number: String = value.chars().filter(char::is_ascii_digit).collect();
            let mut words = cells[2].split(|c: char| !c.is_ascii_digit());
            assert!(words.any(|word| word == number), "{file}: {name} is {value}: {}", cells[2]);
        }
        rows.push(format!("| `{name}` | {} |\n", cells.join(" | ")));
    }
    rows
}

fn waits_table(file: &str) -> String {
    let rows = waits(file);
    assert!(!rows.is_empty(), "{file} has no rows");
    format!("| wait | who | for what | until | then |\n|---|---|---|---|---|\n{}", rows.concat())
}

/// The first diagram in a file's own text.
fn diagram(file: &str) -> String {
    let source = read(file);
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = lines.skip_while(|line| *line != " ```text").skip(1);
    let lines = lines.take_while(|line| *line != " ```").map(|line| format!("{}\n", line.trim()));
    let lines: String = lines.collect();
    assert!(lines.contains("-->"), "{file} has no diagram");
    format!("```text\n{lines}```\n")
}

/// Which calls each kind of thread makes. Those that all make have a row of their own, and io_uring's
/// stand apart.
fn system_calls() -> String {
    let names = |kind: ThreadKind, backend| -> BTreeSet<&str> {
        kind.system_calls(backend).map(|call| call.name).collect()
    };
    let common = names(ThreadKind::Worker, Backend::Syscalls);
    let list = |names: Vec<&str>| names.join(", ");
    let mut rows = "| thread | calls | with io_uring also |\n|---|---|---|\n".to_owned();
    rows += &format!("| every one of them | {} | |\n", list(common.iter().copied().collect()));
    let kinds = [
        (ThreadKind::Net, "`ferry-net`"),
        (ThreadKind::Control, "`ferry-ctl-N`"),
        (ThreadKind::Data, "`ferry-fd-N`"),
        (ThreadKind::Worker, "`ferry-zstd-N`"),
        (ThreadKind::Tls, "`ferry-tls-N`"),
        (
            ThreadKind::Embedder,
            "the VMM's that starts sessions, and each until its hook; also theirs",
        ),
    ];
    let ours = kinds[..5].iter().flat_map(|(kind, _)| names(*kind, Backend::IoUring));
    let ours: BTreeSet<&str> = ours.collect();
    for (kind, name) in kinds {
        let plain = names(kind, Backend::Syscalls);
        let rings = names(kind, Backend::IoUring).difference(&plain).copied().collect();
        let others = if kind == ThreadKind::Embedder { &ours } else { &common };
        let more = plain.difference(others).copied().collect();
        rows += &format!("| {name} | {} | {} |\n", list(more), list(rings));
    }
    rows
}

/// Puts each printed part between its marks.
fn printed(mut text: String, parts: &[(&str, String)]) -> String {
    for (name, part) in parts {
        let (open, close) = (format!("<!-- printed: {name} -->\n"), "<!-- end -->");
        let start = text.find(&open).expect(name) + open.len();
        let end = start + text[start..].find(close).expect(name);
        text.replace_range(start..end, part);
    }
    text
}

#[test]
fn what_is_printed_is_what_the_code_says() {
    let engine = |file: &str| format!("engine/src/{file}");
    let parts = [
        ("the source's stages", diagram(&engine("sender/stage.rs"))),
        ("the target's stages", diagram(&engine("receiver/stage.rs"))),
        ("waits of the machines", waits_table(&engine("machine/waits.rs"))),
        ("waits of the drive", waits_table(&engine("drive/waits.rs"))),
        ("waits of the ioctls", waits_table(&engine("vfio/waits.rs"))),
        ("waits of the door", waits_table(&engine("door/waits.rs"))),
    ];
    is_printed("ARCHITECTURE.md", &parts);
    // Newer architectures lack some.
    if cfg!(target_arch = "x86_64") {
        is_printed("SECURITY.md", &[("system calls", system_calls())]);
    }
}

fn is_printed(file: &str, parts: &[(&str, String)]) {
    let committed = read(file);
    let now = printed(committed.clone(), parts);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(house().join(file), &now).expect("written");
        return;
    }
    for (committed, now) in committed.lines().zip(now.lines()) {
        assert_eq!(committed, now, "drifted; UPDATE_SNAPSHOTS=1 prints it anew");
    }
    assert_eq!(committed.lines().count(), now.lines().count(), "drifted");
}

#[test]
fn every_wait_of_the_machines_has_its_row() {
    let source = read("engine/src/machine/waits.rs");
    let (_, body) = source.split_once("enum Wait {\n").expect("the enum");
    let (body, _) = body.split_once("\n}").expect("its end");
    let variants = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    assert_eq!(waits("engine/src/machine/waits.rs").len(), variants.count());
}
