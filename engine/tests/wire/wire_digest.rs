//! Hashes and digests against values from another implementation of XXH3.

use vfio_ferry::wire::{StateDigest, chunk_hash};

use crate::wire_samples::{pattern, tests_dir};

fn lines(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(tests_dir().join("vectors").join(file));
    text.expect("the vectors are committed").lines().map(str::to_owned).collect()
}

#[test]
fn wire_chunk_hash_at_every_length_class_of_xxh3() {
    let lines = lines("hashes.txt");
    assert!(lines.len() > 20);
    for line in lines {
        let (len, hash) = line.split_once(' ').expect("two fields");
        let bytes = pattern(len.parse().expect("a length"));
        assert_eq!(format!("{:016x}", chunk_hash(&bytes)), hash, "{len} bytes");
    }
}

#[test]
fn wire_state_digest_of_whole_states() {
    let mut digest = StateDigest::new();
    let mut states = 0;
    for line in lines("digests.txt") {
        if let Some(expected) = line.strip_prefix("= ") {
            assert_eq!(format!("{} {}", digest.finish(), digest.bytes()), expected);
            assert_eq!(digest.finish(), digest.finish(), "asking changes nothing");
            digest = StateDigest::default();
            states += 1;
        } else {
            let (hash, len) = line.split_once(' ').expect("two fields");
            let hash = u64::from_str_radix(hash, 16).expect("a hash");
            digest.chunk(hash, len.parse().expect("a length"));
        }
    }
    assert_eq!(states, 4);
}

#[test]
fn wire_state_digest_sees_order_and_cut() {
    let of = |chunks: &[(u64, u32)]| {
        let mut digest = StateDigest::new();
        chunks.iter().for_each(|(hash, len)| digest.chunk(*hash, *len));
        digest.finish()
    };
    assert_ne!(of(&[(1, 10), (2, 10)]), of(&[(2, 10), (1, 10)]));
    assert_ne!(of(&[(1, 10)]), of(&[(1, 11)]));
    assert_ne!(of(&[(1, 10)]), of(&[(1, 10), (1, 10)]));
    assert_eq!(of(&[]).to_string().len(), 32);
    assert_eq!(format!("{:?}", of(&[])), format!("Digest({})", of(&[])));
}
