//! No circles: of the modules that stand side by side in a folder, none needs itself by way of
//! others. A module is the file and all below it; what a folder's own file re-exports counts as the
//! module's that it comes from.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{house, module, names, paths, shipped, sources};

/// By module, the modules that it names, each of them one that there is.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn graph(sources: &BTreeMap<String, String>) -> Graph {
    let modules: BTreeSet<String> = sources.keys().map(|file| module(file)).collect();
    let mut exports = BTreeMap::new();
    for (file, source) in sources {
        let parent = module(file);
        for path in used_below(&parent, &shipped(file, source)) {
            if let Some((_, name)) = path.rsplit_once("::") {
                exports.insert(join(&parent, name), path);
            }
        }
    }
    let mut graph = Graph::new();
    for (file, source) in sources {
        let from = module(file);
        let named = names(&from, &shipped(file, source)).into_iter();
        let named = named.map(|name| exports.get(&name).cloned().unwrap_or(name));
        let known = named.filter_map(|name| longest(&modules, &name));
        graph.entry(from).or_default().extend(known);
    }
    graph
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// What a folder's file takes from the modules below it by `use child::...`.
fn used_below(parent: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in code.split(';') {
        let Some((_, path)) = line.split_once("use ") else { continue };
        let path = path.trim_start();
        if !["crate::", "super::", "std::"].iter().any(|start| path.starts_with(start)) {
            paths(parent, path.trim_start_matches("self::"), &mut found);
        }
    }
    found
}

/// The module that a path leads into.
fn longest(modules: &BTreeSet<String>, path: &str) -> Option<String> {
    let mut path = path;
    while !modules.contains(path) {
        path = path.rsplit_once("::")?.0;
    }
    Some(path.to_owned())
}

/// Every two modules of one folder that need each other, directly or by way of others beside them.
fn circles(graph: &Graph) -> Vec<String> {
    // Seen from each folder, its modules and what they name of each other.
    let mut folders: BTreeMap<String, Graph> = BTreeMap::new();
    for (from, named) in graph {
        for to in named {
            let (mut folder, mut rest) = (String::new(), (from.as_str(), to.as_str()));
            while let Some(parts) = head(rest.0).zip(head(rest.1)) {
                let ((one, one_rest), (two, two_rest)) = parts;
                if one != two {
                    let beside = folders.entry(folder).or_default();
                    beside.entry(one.to_owned()).or_default().insert(two.to_owned());
                    break;
                }
                folder = join(&folder, one);
                rest = (one_rest, two_rest);
            }
        }
    }
    let mut found = Vec::new();
    for (folder, beside) in &folders {
        for one in beside.keys() {
            for two in reach(beside, one).range(one.clone()..) {
                if two != one && reach(beside, two).contains(one) {
                    found.push(format!("{} <-> {}", join(folder, one), join(folder, two)));
                }
            }
        }
    }
    found
}

/// The first name of a path, and the rest.
fn head(path: &str) -> Option<(&str, &str)> {
    (!path.is_empty()).then(|| path.split_once("::").unwrap_or((path, "")))
}

fn reach(graph: &Graph, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        for next in graph.get(name).into_iter().flatten() {
            if found.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    found
}

#[test]
fn no_module_needs_itself() {
    for folder in ["bench/src", "engine/src"] {
        let found = circles(&graph(&sources(&house().join(folder))));
        assert!(found.is_empty(), "{folder}: {found:#?}");
    }
}

#[test]
fn the_checker_finds_circles() {
    let circles_of = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(file, source)| ((*file).to_owned(), (*source).to_owned()));
        circles(&graph(&files.collect()))
    };
    assert_eq!(
        circles_of(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B;"),
            ("b/mod.rs", "fn f() { crate::c::c() }"),
            ("c.rs", "#[cfg(doc)]\nuse super::d;\nuse super::{a::A};"),
        ]),
        ["a <-> b", "a <-> c", "b <-> c"]
    );
    assert_eq!(
        circles_of(&[
            ("b/mod.rs", "mod x; mod y;\npub(crate) use x::{self, X};"),
            ("b/x.rs", "use super::y::Y;"),
            ("b/y.rs", "use super::X;"),
        ]),
        ["b::x <-> b::y"],
        "through what the folder re-exports"
    );
    assert_eq!(
        circles_of(&[
            ("a.rs", "use crate::b::x;\n#[cfg(test)]\nmod tests { use crate::c; }"),
            ("b/mod.rs", "mod x; mod y; struct Z; use x::X;"),
            ("b/x.rs", "use super::Z; use super::y::Y;"),
            ("b/y.rs", "//! crate::a, super::x\nuse super::Z;"),
            ("c.rs", "#[cfg(doc)]\nuse super::b;\nuse crate::a;"),
        ]),
        [""; 0]
    );
}
