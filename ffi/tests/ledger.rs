//! What the ABI has promised: `ffi/symbols.txt` has every exported function with the ABI version
//! that brought it, `ffi/status.txt` every status number that was ever given out. Lines are added
//! in the commit that adds to the ABI, and never taken out: a status that is answered no more is
//! marked `retired`.

use std::collections::{BTreeMap, BTreeSet};

const HEADER: &str = include_str!("../../include/vfio_ferry.h");
const SYMBOLS: &str = include_str!("../symbols.txt");
const STATUSES: &str = include_str!("../status.txt");

/// The header without its comments.
fn code() -> impl Iterator<Item = &'static str> {
    HEADER.lines().map(str::trim_start).filter(|line| !line.starts_with(['*', '/', '#']))
}

fn declared_functions() -> BTreeSet<&'static str> {
    code()
        .filter_map(|line| {
            let before = line.split_once('(')?.0;
            let name = before.rsplit([' ', '*']).next()?;
            name.starts_with("vferry_").then_some(name)
        })
        .collect()
}

fn declared_statuses() -> BTreeMap<i32, &'static str> {
    code()
        .skip_while(|line| !line.starts_with("enum vferry_status"))
        .take_while(|line| !line.starts_with("};"))
        .filter_map(|line| {
            let (name, number) = line.trim_end_matches(',').split_once(" = ")?;
            Some((number.parse().ok()?, name))
        })
        .collect()
}

fn lines(ledger: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    ledger.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect())
}

#[test]
fn every_function_is_in_the_ledger_and_every_promise_in_the_header() {
    let mut promised = BTreeSet::new();
    for line in lines(SYMBOLS) {
        let [since, name] = line[..] else { panic!("not `SINCE NAME`: {line:?}") };
        let since: u32 = since.parse().expect("an ABI version");
        let versions = defined("VFERRY_ABI_VERSION_MIN")..=defined("VFERRY_ABI_VERSION");
        assert!(versions.contains(&since), "{name} since {since}");
        assert!(promised.insert(name), "{name} is there twice");
    }
    let declared = declared_functions();
    let missing: Vec<_> = promised.difference(&declared).collect();
    let unlisted: Vec<_> = declared.difference(&promised).collect();
    assert!(missing.is_empty(), "promised in ffi/symbols.txt and no more there: {missing:?}");
    assert!(unlisted.is_empty(), "add to ffi/symbols.txt: {unlisted:?}");
    assert!(promised.iter().is_sorted());
}

#[test]
fn no_status_number_is_used_twice() {
    let declared = declared_statuses();
    assert!(declared.len() > 30, "the header is read wrongly: {declared:?}");
    let mut promised = BTreeMap::new();
    for line in lines(STATUSES) {
        let (number, name, retired) = match line[..] {
            [number, name] => (number, name, false),
            [number, name, "retired"] => (number, name, true),
            _ => panic!("not `NUMBER NAME [retired]`: {line:?}"),
        };
        let number: i32 = number.parse().expect("a number");
        let before = promised.insert(number, name);
        assert_eq!(before, None, "{number} was {before:?} and cannot be {name}");
        let found = declared.get(&number).copied();
        let expected = (!retired).then_some(name);
        assert_eq!(found, expected, "{number} in the header against ffi/status.txt");
    }
    let unlisted: Vec<_> = declared.iter().filter(|(n, _)| !promised.contains_key(n)).collect();
    assert!(unlisted.is_empty(), "add to ffi/status.txt: {unlisted:?}");
    let names: BTreeSet<_> = promised.values().collect();
    assert_eq!(names.len(), promised.len(), "a name has two numbers");
}

/// A number that the header defines.
fn defined(name: &str) -> u32 {
    let mut lines = HEADER.lines().filter_map(|line| line.strip_prefix("#define "));
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no #define {name}"))
}

/// tests/c/run looks at the library that was built.
#[test]
fn versions_agree() {
    let (abi, oldest) = (defined("VFERRY_ABI_VERSION"), defined("VFERRY_ABI_VERSION_MIN"));
    assert!(oldest <= abi);
    let soname = format!("-soname,libvfio_ferry.so.{oldest}\"");
    assert!(include_str!("../build.rs").contains(&soname), "build.rs has no {soname}");
    let library = format!("name = \"vfio_ferry\"\nversion = \"{oldest}.{}.0\"", abi - oldest);
    assert!(include_str!("../Cargo.toml").contains(&library), "Cargo.toml has no {library}");
    let release =
        ["MAJOR", "MINOR", "PATCH"].map(|part| defined(&format!("VFERRY_VERSION_{part}")));
    assert_eq!(release.map(|part| part.to_string()).join("."), env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_exported_function_is_declared() {
    let sources = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).expect("src");
    let exported: usize = sources
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("UTF-8"))
        .map(|text| text.matches("#[unsafe(no_mangle)]").count())
        .sum();
    assert_eq!(exported, declared_functions().len());
}
