//! What the files of a crate name of each other: a reader of Rust that knows as much of it as that
//! takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The source without comments, strings and character literals.
pub(crate) fn code(source: &str) -> String {
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
pub(crate) fn module(file: &str) -> String {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" { String::new() } else { path.replace('/', "::") }
}

/// All paths in `text`, which is what follows `prefix::`; groups in braces are taken apart.
pub(crate) fn paths(prefix: &str, text: &str, found: &mut BTreeSet<String>) {
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
pub(crate) fn names(module: &str, code: &str) -> BTreeSet<String> {
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

/// What a file ships: its code without the tests in it, and without what only its documentation
/// imports; none of a file of tests.
pub(crate) fn shipped(file: &str, source: &str) -> String {
    if ["tests", "simulator"].iter().any(|name| module(file).ends_with(name)) {
        return String::new();
    }
    let code = code(source);
    let shipped = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut parts = shipped.split("#[cfg(doc)]\n");
    let first = parts.next().unwrap_or_default();
    let others = parts.map(|part| part.split_once(';').map_or("", |(_, rest)| rest));
    std::iter::once(first).chain(others).collect()
}

/// The files of a crate by their path in it.
pub(crate) fn sources(root: &Path) -> BTreeMap<String, String> {
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

pub(crate) fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}
