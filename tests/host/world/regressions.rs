//! Seeds that have found something, and what. They run first.

pub(crate) const REGRESSIONS: &[(u64, &str)] = &[
    (
        1,
        "a target that was cancelled after the handover, and ran, had the farewell's bound on top of \
         the cancel's",
    ),
    (12, "after the end the source looked into a read that had failed on the way back"),
    (42, "a target that ran told of a device as late whose data fd was only being closed"),
    (
        499,
        "a target with one device loaded waited for the other's state as if the VM still ran: by \
         idle_limit",
    ),
    (
        3067,
        "a target that was cancelled after the handover, and then gave up, had the way back's bound \
         on top of the cancel's",
    ),
    (
        50_398,
        "a read that failed on a discarded session's fd killed the session after it, whose reads \
         then gave 0: the world's fault, no driver does that",
    ),
    (
        108_258,
        "the word that initial data is loaded waited for a stream until after a discard, and was \
         held against the new epoch: the world's fault",
    ),
    (
        109_708,
        "patience ended while the thread of a stuck write had just been told to end: the world's \
         fault",
    ),
];

/// The same with a hostile peer.
pub(crate) const HOSTILE: &[(u64, &str)] = &[(
    39_835,
    "the last GET_STATE of a way back was not answered when the bound was over, and the device was \
     taken for known: the world's fault",
)];
