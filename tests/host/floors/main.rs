//! The house as ARCHITECTURE.md lays it out: in `engine/src` imports go down the floors only, the
//! pure floors touch no fd, clock or thread, and `unsafe` stands in the files that exist for it.

mod circles;
mod imports;

use std::collections::BTreeSet;

use imports::{code, house, module, names, paths, shipped, sources};

/// A module's floor; the longest path that fits decides.
const FLOORS: [(&str, u8); 24] = [
    ("limits", 0),
    ("error", 0),
    ("errno", 0),
    ("ids", 0),
    ("cause", 0),
    ("wire", 1),
    ("vfio::state", 1),
    ("outcome", 1),
    ("compress::policy", 1),
    ("metrics", 1),
    ("vfio", 2),
    ("buffers", 2),
    ("ring", 2),
    ("compress", 2),
    ("kernel_tls", 2),
    ("tcp", 2),
    ("threads", 2),
    ("machine", 3),
    ("sender", 3),
    ("receiver", 3),
    ("drive", 4),
    ("door", 4),
    ("session", 5),
    // Declares the others.
    ("", 9),
];

/// The floors that may not name any of these: pure data, and the machines.
const PURE: [u8; 2] = [1, 3];
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::os::fd",
    "std::sync",
    "Instant",
    "SystemTime",
    "rustix::",
    "io_uring::",
];

/// The only files with `unsafe` in them: ioctls, the mapping of the arena, io_uring.
const UNSAFE: [&str; 4] =
    ["buffers/arena.rs", "ring/uring/submit.rs", "ring/uring/zero_copy.rs", "vfio/ioctl.rs"];

fn floor(module: &str) -> Option<u8> {
    let fits = |name: &str| {
        module.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let fitting = FLOORS.iter().filter(|(name, _)| fits(name) && !name.is_empty());
    fitting.max_by_key(|(name, _)| name.len()).map(|(_, floor)| *floor)
}

/// What is wrong with one file.
fn faults(file: &str, source: &str) -> Vec<String> {
    let module = module(file);
    let Some(own) = floor(&module) else {
        return if module.is_empty() { vec![] } else { vec![format!("{file}: on no floor")] };
    };
    let shipped = shipped(file, source);
    let mut faults = Vec::new();
    for name in names(&module, &shipped) {
        // What the crate's root or an inline module names is no module of the table.
        if let Some(other) = floor(&name)
            && other > own
        {
            faults.push(format!("{file} (floor {own}) uses {name} (floor {other})"));
        }
    }
    if PURE.contains(&own) {
        for impure in IMPURE.iter().filter(|impure| shipped.contains(*impure)) {
            faults.push(format!("{file} (floor {own}, pure) uses {impure}"));
        }
    }
    faults
}

/// Whether the keyword stands in the code; `unsafe_code`, the lint, is another word.
fn has_unsafe(source: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let code = code(source);
    code.match_indices("unsafe").any(|(at, word)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        !is_word(before.chars().next_back()) && !is_word(after.chars().next())
    })
}

#[test]
fn imports_go_down_the_floors() {
    let sources = sources(&house().join("engine/src"));
    let faults: Vec<String> =
        sources.iter().flat_map(|(file, source)| faults(file, source)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn architecture_has_every_module_on_its_floor() {
    let text = std::fs::read_to_string(house().join("ARCHITECTURE.md")).expect("UTF-8");
    for (module, floor) in FLOORS.iter().filter(|(module, _)| !module.is_empty()) {
        let row = text.lines().find(|line| line.starts_with(&format!("| {floor} ")));
        let named = row.is_some_and(|row| row.contains(&format!("`{module}`")));
        assert!(named, "{module} is on floor {floor}");
        let path = house().join("engine/src").join(module.replace("::", "/"));
        assert!(path.exists() || path.with_extension("rs").exists(), "{module} is gone");
    }
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let sources = sources(&house().join("engine/src"));
    let found: Vec<&str> = sources
        .iter()
        .filter(|(_, source)| has_unsafe(source))
        .map(|(file, _)| file.as_str())
        .collect();
    assert_eq!(found, UNSAFE);
}

/// What is named of the engine, in the code of a crate over it, below what is meant for embedders:
/// the names at the root, and the limits.
fn below_the_top(source: &str) -> Vec<String> {
    const ROOT: &str = "vfio_ferry::";
    let code = code(source);
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices(ROOT) {
        paths("", &code[at + ROOT.len()..], &mut named);
    }
    let is_below = |name: &String| {
        let first = name.split("::").next().unwrap_or_default();
        floor(first).is_some() && !["session", "limits"].contains(&first)
    };
    named.into_iter().filter(is_below).collect()
}

#[test]
fn whoever_embeds_names_the_top_floor_alone() {
    for folder in ["ffi/src", "bench/src"] {
        for (file, source) in sources(&house().join(folder)) {
            assert_eq!(below_the_top(&source), [""; 0], "{folder}/{file}");
        }
    }
    assert_eq!(below_the_top("use vfio_ferry::{Error, ring::Ring, vfio::{state}};").len(), 2);
    assert_eq!(below_the_top("use vfio_ferry::{Error, session::{self, Options}};"), [""; 0]);
}

#[test]
fn the_checker_finds_what_is_wrong() {
    for (file, source) in [
        ("drive/run.rs", "use crate::session::Report;"),
        ("drive/run.rs", "use crate::{ids::DeviceId, session::{self, Report}};"),
        ("drive/mod.rs", "fn f() -> crate::session::Report { todo!() }"),
        ("wire/header.rs", "use crate::ring::Ring;"),
        ("vfio/state.rs", "use super::device::PrecopyInfo;"),
        ("compress/policy/arms.rs", "use super::super::workers::Job;"),
        ("limits.rs", "use crate::\n    wire::Kind;"),
        ("sender/mod.rs", "use std::time::Instant;"),
        ("wire/mod.rs", "use std::net::TcpStream;\n#[cfg(test)]\nmod tests {}"),
        ("attic/mod.rs", ""),
    ] {
        assert_ne!(faults(file, source), [""; 0], "{file}: {source}");
    }
    for (file, source) in [
        ("session/mod.rs", "pub use crate::drive::Timeline; use crate::limits;"),
        ("vfio/device.rs", "use super::state::DeviceState;"),
        ("wire/mod.rs", "//! See [`Session`](crate::session::Session).\n/* crate::drive */"),
        ("sender/mod.rs", "const TEXT: &str = \"crate::session \\\" crate::drive\";"),
        ("wire/mod.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use std::fs; use crate::drive; }"),
        ("compress/policy/simulator.rs", "use std::time::Instant;"),
        ("vfio/state.rs", "mod inline { use super::*; }"),
        ("ids.rs", "macro_rules! id { () => { $crate::session::Session } }"),
    ] {
        assert_eq!(faults(file, source), [""; 0], "{file}: {source}");
    }
    assert!(has_unsafe("fn f() { unsafe { g() } }") && has_unsafe("unsafe impl Send for X {}"));
    assert!(!has_unsafe("// unsafe\n#![forbid(unsafe_code)] const A: &str = \"unsafe\";"));
}
