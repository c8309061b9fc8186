//! The house as ARCHITECTURE.md lays it out: in `engine/src` imports go down the floors only, the
//! pure floors touch no fd, clock or thread, and `unsafe` stands in the files that exist for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's floor; the longest path that fits decides.
const FLOORS: [(&str, u8); 20] = [
    ("limits", 0),
    ("error", 0),
    ("errno", 0),
    ("ids", 0),
    ("wire", 1),
    ("vfio::state", 1),
    ("outcome", 1),
    ("compress::policy", 1),
    ("metrics", 1),
    ("vfio", 2),
    ("buffers", 2),
    ("ring", 2),
    ("compress", 2),
    ("machine", 3),
    ("sender", 3),
    ("receiver", 3),
    ("abort", 3),
    ("drive", 4),
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

/// The source without comments, strings and character literals.
fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

/// The module that a file of `engine/src` is.
fn module(file: &str) -> String {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" { String::new() } else { path.replace('/', "::") }
}

/// All paths in `text`, which is what follows `prefix::`; groups in braces are taken apart.
fn paths(prefix: &str, text: &str, found: &mut BTreeSet<String>) {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let mut depth = 0;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    paths(prefix, &group[start..at], found);
                    start = at + 1;
                    if c == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let name = &text[..end];
    if name.is_empty() || name == "self" {
        found.insert(prefix.to_owned());
        return;
    }
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match text[end..].strip_prefix("::") {
        Some(rest) => paths(&path, rest, found),
        None => {
            found.insert(path);
        }
    }
}

/// What a file of `module` names in this crate.
fn names(module: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // Not `$crate`, nor the end of another crate's name.
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$') {
            paths("", &code[at + "crate::".len()..], &mut found);
        }
    }
    for (at, _) in code.match_indices("super::") {
        // Inside of `super::super::`, or of an inline module one up: the floor is the same.
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut up = module;
        let mut rest = &code[at..];
        while let Some(after) = rest.strip_prefix("super::") {
            up = up.rsplit_once("::").map_or("", |(up, _)| up);
            rest = after;
        }
        let mut named = BTreeSet::new();
        paths(up, rest, &mut named);
        // `super::*` of an inline module means the file itself.
        named.remove(up);
        found.append(&mut named);
    }
    found
}

/// What is wrong with one file.
fn faults(file: &str, source: &str) -> Vec<String> {
    let module = module(file);
    let Some(own) = floor(&module) else {
        return if module.is_empty() { vec![] } else { vec![format!("{file}: on no floor")] };
    };
    // What ships; tests may use what they like.
    if ["tests", "simulator"].iter().any(|name| module.ends_with(name)) {
        return vec![];
    }
    let code = code(source);
    let shipped = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut faults = Vec::new();
    for name in names(&module, shipped) {
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

/// The files of a crate by their path in it.
fn sources(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a folder of the house") {
            let entry = entry.expect("its entry");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("its type").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(entry.path()).expect("UTF-8");
                found.insert(path.to_str().expect("UTF-8").to_owned(), source);
            }
        }
    }
    assert!(!found.is_empty(), "{} has no sources", root.display());
    found
}

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

#[test]
fn imports_go_down_the_floors() {
    let sources = sources(&house().join("engine/src"));
    let faults: Vec<String> =
        sources.iter().flat_map(|(file, source)| faults(file, source)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
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

#[test]
fn whoever_embeds_names_the_top_floor_alone() {
    for folder in ["ffi/src", "bench/src"] {
        for (file, source) in sources(&house().join(folder)) {
            for (at, prefix) in code(&source).match_indices("vfio_ferry::") {
                let code = code(&source);
                let named = &code[at + prefix.len()..];
                assert!(named.starts_with("session"), "{folder}/{file}: {:.40}", named);
            }
        }
    }
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
