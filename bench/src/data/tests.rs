//! Determinism, addressing, stamps, and that `structured` compresses as device state does.

use std::io::Write as _;

use super::*;

const FIRST: Origin = Origin { device: 0, generation: 0 };

fn content(kind: DataKind) -> Content {
    Content::new(&kind).unwrap_or_else(|error| panic!("{kind}: {error}"))
}

fn bytes(content: &Content, origin: Origin, offset: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0xaa; length];
    content.fill(origin, offset, &mut buffer).unwrap_or_else(|error| panic!("{error}"));
    buffer
}

#[test]
fn two_processes_would_make_the_same_bytes() {
    // A process makes each template once: what matters is that another one makes the same.
    let structured = || structured::template(SEED, TEMPLATE_BYTES);
    for make in [structured as fn() -> Vec<u8>, random_template] {
        let (one, two) = (make(), make());
        assert!(one == two && one.iter().any(|&byte| byte != 0));
        let (one, two) = (Content::template(one), Content::template(two));
        assert_eq!(bytes(&one, FIRST, 0, 1 << 20), bytes(&two, FIRST, 0, 1 << 20));
    }
}

#[test]
fn any_offset_gives_the_same_bytes_as_one_long_fill() {
    let content = content(DataKind::Structured);
    let origin = Origin { device: 3, generation: 2 };
    let whole = bytes(&content, origin, 0, TEMPLATE_BYTES + 3 * PAGE_BYTES);
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let from = rng.usize(..whole.len());
        let length = rng.usize(..(whole.len() - from).min(3 * PAGE_BYTES) + 1);
        let piece = bytes(&content, origin, from as u64, length);
        assert!(piece == whole[from..from + length], "{from}+{length}");
    }
}

#[test]
fn a_page_in_the_wrong_place_is_never_right() {
    let content = content(DataKind::Random);
    let page = |origin, number: u64| bytes(&content, origin, number * 4096, PAGE_BYTES);
    let repeat_pages = (TEMPLATE_BYTES / PAGE_BYTES) as u64;
    assert_ne!(page(FIRST, 5), page(FIRST, 5 + repeat_pages));
    assert_ne!(page(FIRST, 5), page(Origin { device: 1, generation: 0 }, 5));
    assert_ne!(page(FIRST, 5), page(Origin { device: 0, generation: 1 }, 5));
}

#[test]
fn structured_compresses_as_device_state_does() {
    let content = content(DataKind::Structured);
    let state = bytes(&content, FIRST, 0, TEMPLATE_BYTES);
    let packed: usize = state
        .chunks(256 << 10)
        .map(|chunk| zstd::bulk::compress(chunk, 1).map_or(usize::MAX, |packed| packed.len()))
        .sum();
    let ratio = state.len() as f64 / packed as f64;
    assert!((4.0..7.0).contains(&ratio), "ratio {ratio:.2}");
    let zero = state.chunks(PAGE_BYTES).filter(|page| page.iter().all(|&b| b == 0)).count();
    let share = zero as f64 * PAGE_BYTES as f64 / state.len() as f64;
    assert!((0.2..0.6).contains(&share), "zero pages {share:.2}");
}

#[test]
fn files_are_repeated_and_long_ones_are_read_in_place() {
    for length in [10usize, 5000, (FILE_IN_MEMORY_BYTES_MAX + 12_345) as usize] {
        let mut file = tempfile::NamedTempFile::new().unwrap_or_else(|e| panic!("{e}"));
        let mut source = vec![0; length];
        fastrand::Rng::with_seed(1).fill(&mut source);
        file.write_all(&source).unwrap_or_else(|e| panic!("{e}"));
        let content = content(DataKind::File(file.path().into()));
        let from = length as u64 - 3;
        let expected: Vec<u8> = (0..10_000).map(|i| source[(length - 3 + i) % length]).collect();
        assert!(bytes(&content, FIRST, from, 10_000) == expected, "{length}");
    }
}

#[test]
fn a_file_that_cannot_serve_is_refused() {
    assert!(Content::new(&DataKind::File("/no/such/file".into())).is_err());
    assert!(Content::new(&DataKind::File("/".into())).is_err());
    assert!(Content::new(&DataKind::File("/dev/null".into())).is_err());
}
