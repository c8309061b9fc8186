//! `include/vfio_ferry.h` is what cbindgen makes of this crate, one section for each part of the
//! interface. After a change of the ABI: `UPDATE_HEADER=1 cargo test -p vfio-ferry-ffi`.

use std::path::Path;

/// The header's sections in their order, and the files of `src` that each is made of.
const SECTIONS: [(&str, &[&str]); 13] = [
    ("Versions and errors", &["version", "status"]),
    ("Limits and enumerations that several parts share", &["values", "outcome"]),
    ("Options", &["options"]),
    ("Threads", &["threads"]),
    ("Engines", &["engine"]),
    ("Devices", &["device"]),
    ("Embedded devices: the VMM makes the ioctls", &["embedded"]),
    ("Streams and channels", &["door", "streams", "channel"]),
    ("Sessions", &["session"]),
    ("Events", &["event", "wait"]),
    ("Reports", &["report"]),
    ("Figures", &["stats"]),
    ("Log", &["log"]),
];

const OPEN: &str = "#ifdef __cplusplus\nextern \"C\" {\n#endif // __cplusplus\n";
const CLOSE: &str = "#ifdef __cplusplus\n}  // extern \"C\"\n#endif  // __cplusplus\n";

/// What cbindgen makes of one file. Where it knows a type it writes `struct` before its name, and it
/// knows none of another file: so all are written without.
fn declarations(crate_dir: &Path, file: &str, includes: bool) -> String {
    let mut config =
        cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).expect("its config");
    if !includes {
        config.header = None;
        config.include_guard = None;
        config.autogen_warning = None;
        config.sys_includes.clear();
    }
    let bindings = cbindgen::Builder::new()
        .with_src(crate_dir.join("src").join(format!("{file}.rs")))
        .with_config(config)
        .generate()
        .expect("the sources parse");
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).expect("UTF-8");
    text.replace(OPEN, "")
        .replace(CLOSE, "")
        .replace("struct vferry_", "vferry_")
        .replace("typedef vferry_", "typedef struct vferry_")
        .replace("\n\n\n", "\n\n")
}

fn header(crate_dir: &Path) -> String {
    // The guard and includes stand around a file that has nothing else.
    let frame = declarations(crate_dir, "raw", true);
    let (top, bottom) = frame.rsplit_once("#endif").expect("an include guard");
    let mut text = format!("{}\n\n{OPEN}", top.trim_end());
    for (title, files) in SECTIONS {
        text += &format!("\n/* {:-<94} */\n", format!("--- {title} "));
        for file in files {
            text += &format!("\n{}\n", declarations(crate_dir, file, false).trim());
        }
    }
    text + &format!("\n{CLOSE}\n#endif{bottom}")
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = crate_dir.join("../include/vfio_ferry.h");
    let generated = header(crate_dir);
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &generated).expect("the header can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "include/vfio_ferry.h is not what ffi/src says (first at line {}); regenerate it with \
         UPDATE_HEADER=1 cargo test -p vfio-ferry-ffi --test header, and look at the difference",
        differs.map_or(committed.lines().count().min(generated.lines().count()), |n| n) + 1
    );
}

/// A file that no section names would be missing from the header.
#[test]
fn every_file_that_exports_is_in_a_section() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in std::fs::read_dir(sources).expect("src") {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        let exports = text.contains("#[unsafe(no_mangle)]") || text.contains("\npub const VFERRY_");
        let listed = SECTIONS.iter().filter(|(_, files)| files.contains(&name)).count();
        assert_eq!(listed, usize::from(exports), "{name}.rs");
    }
}
