//! A conversation as one side of it would lead it, frame by frame, so that any one frame can be
//! put wrong.

use vfio_ferry::wire::Kind;

use crate::mutate::{Expected, Mutation};
use crate::peer::{Peer, kind};

/// One frame, and what is heard from the other side before it is sent.
#[derive(Debug, Clone)]
pub struct Step {
    /// The name that cases know it by.
    pub label: &'static str,
    /// Wait for a frame of this kind and epoch first.
    pub after: Option<(Kind, u32)>,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A step that waits for nothing.
pub fn step(label: &'static str, frame: Vec<u8>) -> Step {
    Step { label, after: None, frame }
}

/// A step that waits for a frame of the other side, in epoch 0 if it has one.
pub fn after(kind: Kind, label: &'static str, frame: Vec<u8>) -> Step {
    Step { label, after: Some((kind, 0)), frame }
}

/// What goes wrong, where, and what must come of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// For messages.
    pub what: String,
    /// The step that it happens at.
    pub at: usize,
    /// What is sent there, and how often.
    pub bytes: Vec<u8>,
    /// See `bytes`.
    pub times: usize,
    /// The step's own frame follows.
    pub goes_on: bool,
    /// The stream ends with it.
    pub cuts: bool,
    /// What must come of it.
    pub expected: Expected,
}

/// Every mutation of every frame, and an end of the stream before it.
pub fn mutations(script: &[Step]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, Step { label, frame, .. }) in script.iter().enumerate() {
        for mutation in Mutation::ALL.into_iter().filter(|mutation| mutation.fits(frame)) {
            cases.push(Case {
                what: format!("{mutation:?} of {} ({label})", kind(frame)),
                at,
                bytes: mutation.apply(frame),
                times: 1,
                goes_on: false,
                cuts: mutation.ends_the_stream(),
                expected: mutation.expected(frame),
            });
        }
    }
    cases
}

/// In place of the step called `label`.
pub fn instead(
    script: &[Step],
    label: &str,
    what: &str,
    bytes: Vec<u8>,
    expected: Expected,
) -> Case {
    let at = find(script, label);
    Case { what: what.to_owned(), at, bytes, times: 1, goes_on: false, cuts: false, expected }
}

/// Before the step called `label`, which is sent, too.
pub fn before(
    script: &[Step],
    label: &str,
    what: &str,
    bytes: Vec<u8>,
    expected: Expected,
) -> Case {
    Case { goes_on: true, ..instead(script, label, what, bytes, expected) }
}

/// The step's place.
///
/// # Panics
/// If there is none.
pub fn find(script: &[Step], label: &str) -> usize {
    script.iter().position(|step| step.label == label).expect("a label of the script")
}

/// Leads the conversation up to what goes wrong, or to its end. True if that was reached: the
/// other side has said all that was waited for.
pub fn lead(peer: &mut Peer, script: &[Step], case: Option<&Case>) -> bool {
    for (at, step) in script.iter().enumerate() {
        if let Some((kind, epoch)) = step.after
            && peer.expect_in(kind, epoch).is_none()
        {
            return false;
        }
        match case {
            Some(case) if case.at == at => {
                for _ in 0..case.times {
                    peer.send(&case.bytes);
                }
                if case.cuts {
                    peer.stop_sending();
                }
                if case.goes_on {
                    peer.send(&step.frame);
                }
                if case.expected != Expected::Nothing {
                    return true;
                }
            }
            _ => peer.send(&step.frame),
        }
    }
    true
}
