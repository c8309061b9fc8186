//! `include/vfio_ferry.h` is what cbindgen makes of this crate. After a change of the ABI:
//! `UPDATE_HEADER=1 cargo test -p vfio-ferry-ffi --test header`.

use std::path::Path;

#[test]
fn the_committed_header_is_the_generated_one() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = crate_dir.join("../include/vfio_ferry.h");
    let config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).expect("its config");
    let bindings = cbindgen::Builder::new()
        .with_crate(crate_dir)
        .with_config(config)
        .generate()
        .expect("the sources parse");
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    let generated = String::from_utf8(generated).expect("UTF-8");
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
