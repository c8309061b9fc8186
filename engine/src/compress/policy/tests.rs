//! What is chosen, by what is known: one choice at a time. Whole migrations: `simulator`.

use super::*;

const CHUNK: u32 = 256 << 10;

/// A controller that knows a link of this speed, between hosts of four cores.
fn with_link(gb_s: f64) -> Controller {
    let mut controller = Controller::new(Policy::Adaptive, 4, CHUNK);
    controller.link_known((gb_s * 1e9) as u64);
    controller
}

#[test]
fn a_fixed_policy_is_what_it_says() {
    for (streak, ahead) in [(0, 0), (1, 5), (3, 100)] {
        let mut fixed = Controller::new(Policy::Zstd(3), 2, CHUNK);
        let choice = fixed.offer(ahead, streak);
        assert_eq!(choice, Choice::Zstd { level: 3, probe: streak > 0, sample: false });
        assert!(fixed.holds(), "no chunk goes raw before a worker has seen it");
        for (policy, workers) in [(Policy::Raw, 2), (Policy::Zstd(3), 0)] {
            let mut raw = Controller::new(policy, workers, CHUNK);
            assert_eq!((raw.holds(), raw.offer(ahead, streak)), (false, Choice::Wait));
        }
    }
}

#[test]
fn a_fast_link_gets_raw_and_for_a_slow_one_chunks_wait_for_a_worker() {
    let mut fast = with_link(12.0);
    assert_eq!((fast.holds(), fast.offer(100, 0)), (false, Choice::Wait));
    let mut slow = with_link(0.1);
    assert!(slow.holds());
    assert!(matches!(slow.offer(0, 0), Choice::Zstd { .. }));
}

#[test]
fn between_them_a_chunk_is_compressed_whose_turn_is_far() {
    let mut controller = with_link(3.0);
    assert!(!controller.holds(), "{:?}", controller.plan);
    assert_eq!(controller.offer(0, 0), Choice::Wait);
    assert!(matches!(controller.offer(20, 0), Choice::Zstd { .. }));
    // And no more than the plan says.
    (0..10).for_each(|_| controller.sending(true));
    assert_eq!(controller.offer(20, 0), Choice::Wait);
}

#[test]
fn where_most_is_compressed_the_rest_may_go_raw() {
    let mut controller = with_link(0.1);
    controller.plan.share = 0.9;
    (0..20).for_each(|_| controller.sending(true));
    assert!(!controller.holds());
    (0..4).for_each(|_| controller.sending(false));
    assert!(controller.holds());
}

#[test]
fn the_levels_are_sampled_until_they_are_known_and_now_and_then() {
    let mut controller = with_link(0.1);
    assert!(matches!(controller.offer(9, 0), Choice::Zstd { sample: true, .. }));
    let asks = |controller: &mut Controller| {
        let Choice::Zstd { sample, level, .. } = controller.offer(9, 0) else {
            panic!("the link is slow")
        };
        let sample_of = Sample { raw_bytes: CHUNK, wire_bytes: CHUNK / 4, cpu_ns: 200_000 };
        controller.encoded(level, sample_of, 200_000);
        sample
    };
    // Only the lowest level is fast.
    let samples = [1, 100, 200, 400].map(|times| Sample {
        raw_bytes: 12_288,
        wire_bytes: 4096,
        cpu_ns: 10_000 * times,
    });
    controller.sampled(&samples);
    assert_eq!(controller.plan.level, Some(0));
    let asked = (0..2 * SAMPLE_EVERY).position(|_| asks(&mut controller));
    assert_eq!(asked, Some(SAMPLE_EVERY as usize));
}

#[test]
fn incompressible_chunks_are_tried_ever_more_seldom_but_for_ever() {
    let tried = |streak: u32| {
        let mut controller = Controller::new(Policy::Zstd(1), 2, CHUNK);
        (0..3200).filter(|_| controller.offer(0, streak) != Choice::Raw).count()
    };
    assert_eq!((tried(0), tried(3)), (3200, 3200));
    assert!((1000..2200).contains(&tried(4)), "{}", tried(4));
    assert!((250..600).contains(&tried(100)), "{}", tried(100));
    assert_eq!(tried(6), tried(u32::MAX));
}

#[test]
fn cores_that_are_busy_with_other_things_do_not_compress() {
    let mut controller = with_link(1.0);
    let before = controller.plan.share;
    assert!(before > 0.0);
    let (mut now_ns, bytes) = (0, u64::from(CHUNK));
    for _ in 0..100 {
        // Four times as slow as the plan has it, and workers wait for a core.
        controller.read(now_ns, bytes);
        now_ns += bytes * 4;
        controller.sent(now_ns, bytes, bytes);
        controller.load.worked(bytes, bytes * 2);
    }
    assert!(controller.plan.share < before, "{:?}", controller.plan);
}

#[test]
fn what_one_session_has_learned_is_where_the_next_one_begins() {
    let mut first = with_link(0.1);
    // Compression here costs a hundred times what is expected of it.
    let sample = Sample { raw_bytes: CHUNK, wire_bytes: CHUNK / 2, cpu_ns: 100_000_000 };
    (0..20).for_each(|_| first.encoded(LEVELS[0], sample, sample.cpu_ns));
    let begun = |learned: Learned| {
        let mut next = Controller::new(Policy::Adaptive, 4, CHUNK);
        next.recall(learned);
        next
    };
    let next = begun(first.learned());
    assert_eq!(next.link.bytes_per_ns(), 0.1);
    assert_eq!(next.levels.expect(0), first.levels.expect(0));
    assert!(next.plan.share < with_link(0.1).plan.share / 4.0, "{:?}", next.plan);
    let elsewhere = begun(first.learned().elsewhere());
    assert_eq!(elsewhere.link.learned(), None);
    assert_eq!(elsewhere.levels.expect(0), first.levels.expect(0));
    // One that has found out nothing leaves things as they are.
    let mut known = with_link(0.1);
    known.recall(Controller::new(Policy::Adaptive, 4, CHUNK).learned());
    assert_eq!(known.link.bytes_per_ns(), 0.1);
}

#[test]
fn the_ratio_is_that_of_what_was_sent() {
    let mut controller = with_link(1.0);
    assert_eq!(controller.ratio(), 1.0);
    controller.sent(0, 3000, 1000);
    assert_eq!(controller.ratio(), 3.0);
    assert_eq!(controller.raw_bytes_per_s(), None, "a trickle says nothing");
}
