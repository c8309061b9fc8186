use super::*;

const FRESH: Option<Wanted> = None;
const TO_PRE_COPY: Wanted = Wanted::State(PreCopy);
const TO_STOP_COPY: Wanted = Wanted::State(StopCopy);

fn data_fd() -> OwnedFd {
    std::fs::File::open("/dev/null").expect("it opens").into()
}

fn moved(state: DeviceState) -> Answer {
    Answer::State(state, Ok(None))
}

fn entered(state: DeviceState) -> Answer {
    Answer::State(state, Ok(Some(data_fd())))
}

fn info() -> Answer {
    Answer::PrecopyInfo(Ok(PrecopyInfo::default()))
}

/// What came of a question: whether SET_STATE gave an fd, or the errno.
fn given(books: &mut Books) -> Option<Result<bool, i32>> {
    match books.take_reply()? {
        Answer::State(_, result) => Some(result.map(|fd| fd.is_some())),
        Answer::PrecopyInfo(result) => Some(result.map(|_| false)),
        Answer::Reset(result) => Some(result.map(|()| false)),
    }
}

/// Books whose engine has gone through these, each of which the VMM answered.
fn at(host: Host, states: &[DeviceState]) -> Books {
    let mut books = Books::new(host);
    for &state in states {
        books.ask(Wanted::State(state));
        let opens = matches!(state, PreCopy | Resuming) || states.len() == 1;
        books.hear(if opens { entered(state) } else { moved(state) });
        assert_eq!(given(&mut books), Some(Ok(opens)), "{state}");
    }
    books
}

/// Where the engine may be on the source, and what it may have asked there.
const STAGES: [(&[DeviceState], Option<Wanted>); 7] = [
    (&[], FRESH),
    (&[], Some(TO_PRE_COPY)),
    (&[], Some(TO_STOP_COPY)),
    (&[PreCopy], FRESH),
    (&[PreCopy], Some(Wanted::PrecopyInfo)),
    (&[PreCopy], Some(TO_STOP_COPY)),
    (&[PreCopy, StopCopy], FRESH),
];

/// What a VMM may say.
const WORDS: [fn() -> Answer; 14] = [
    || entered(PreCopy),
    || moved(PreCopy),
    || entered(StopCopy),
    || moved(StopCopy),
    || moved(Running),
    || moved(RunningP2p),
    || moved(PreCopyP2p),
    || moved(Stop),
    || moved(Error),
    || Answer::State(PreCopy, Err(5)),
    || Answer::State(StopCopy, Err(5)),
    info,
    || Answer::PrecopyInfo(Err(EINVAL)),
    || Answer::Reset(Ok(())),
];

/// Whether a word is of the kind that a question asks for.
fn answers(question: Wanted, word: &Answer) -> bool {
    match (question, word) {
        (Wanted::State(state), Answer::State(said, _)) => plain(*said) == state,
        (Wanted::PrecopyInfo, Answer::PrecopyInfo(_)) => true,
        _ => false,
    }
}

/// Every order of two words against every question: the first that answers it does; otherwise it is
/// still open, or the session was told why it is not.
#[test]
fn no_question_is_forgotten_whatever_two_words_come() {
    for (states, question) in STAGES {
        for (first, second) in (0..WORDS.len()).flat_map(|a| (0..WORDS.len()).map(move |b| (a, b)))
        {
            let mut books = at(Host::Source, states);
            let was_saving = !states.is_empty();
            question.into_iter().for_each(|question| books.ask(question));
            let (one, two) = (WORDS[first](), WORDS[second]());
            let place = format!("{states:?}, {question:?}: {one:?}, {two:?}");
            let answered =
                question.is_some_and(|question| answers(question, &one) || answers(question, &two));
            let resets = |word: &Answer| {
                matches!(word, Answer::State(Running | RunningP2p | Error, Ok(_)))
                    || matches!(word, Answer::Reset(Ok(())))
            };
            let reset = resets(&one) || resets(&two);
            let losses = [books.hear(one), books.hear(two)];
            let told = losses.iter().flatten().count();
            assert!(told <= 1, "{place}: one loss is told once");
            if reset && was_saving {
                assert_eq!(told, 1, "{place}");
            }
            let reply = given(&mut books);
            if question.is_some() {
                assert_ne!(reply.is_some(), books.question().is_some(), "{place}");
            }
            if answered {
                assert!(reply.is_some(), "{place}");
            }
        }
    }
}

/// The switchover, after any two words in any stage: either it finds its answer, or it is open, and
/// the VMM that makes the call then is heard.
#[test]
fn stop_copy_is_reached_after_any_two_words() {
    for (states, question) in STAGES {
        for (first, second) in (0..WORDS.len()).flat_map(|a| (0..WORDS.len()).map(move |b| (a, b)))
        {
            let mut books = at(Host::Source, states);
            question.into_iter().for_each(|question| books.ask(question));
            let place = format!("{states:?}, {question:?}: words {first}, {second}");
            books.hear(WORDS[first]());
            books.hear(WORDS[second]());
            // The VMM answers what is open; the engine takes it.
            if let Some(question) = books.question() {
                books.hear(match question {
                    Wanted::State(state) => entered(state),
                    Wanted::PrecopyInfo => info(),
                    Wanted::Reset => Answer::Reset(Ok(())),
                });
            }
            let _ = books.take_reply();
            books.ask(TO_STOP_COPY);
            if books.question().is_some() {
                books.hear(entered(StopCopy));
            }
            assert!(given(&mut books).is_some(), "{place}");
        }
    }
}

/// The orders that were seen to lose an answer.
#[test]
fn a_reset_after_an_early_answer_leaves_the_question_to_be_answered() {
    let mut books = Books::new(Host::Source);
    books.hear(entered(StopCopy));
    assert_eq!(books.hear(moved(Running)), None, "the engine had not begun");
    books.ask(TO_STOP_COPY);
    assert_eq!(books.question(), Some(TO_STOP_COPY), "it must be answered anew");
    books.hear(entered(StopCopy));
    assert_eq!(given(&mut books), Some(Ok(true)));
    assert_eq!(books.hear(moved(Running)), Some(Loss::Reset));
}

#[test]
fn a_reset_withdraws_the_question_and_what_follows_it_is_for_the_next() {
    let mut books = at(Host::Source, &[PreCopy]);
    books.ask(TO_STOP_COPY);
    assert_eq!(books.hear(moved(Running)), Some(Loss::Reset));
    assert_eq!(given(&mut books), Some(Err(ENODEV)));
    assert_eq!(books.hear(entered(StopCopy)), None);
    books.let_go();
    assert_eq!(books.state(None), Some(Running), "the engine is there yet");
    books.ask(TO_STOP_COPY);
    assert_eq!(given(&mut books), Some(Ok(true)));
}

/// Never STOP_COPY -> PRE_COPY: old kernels spin for ever.
#[test]
fn precopy_is_not_wanted_of_a_device_that_has_stopped() {
    for asked_first in [false, true] {
        let mut books = Books::new(Host::Source);
        if asked_first {
            books.ask(TO_PRE_COPY);
        }
        books.hear(entered(StopCopy));
        if !asked_first {
            books.ask(TO_PRE_COPY);
        }
        assert_eq!(given(&mut books), Some(Ok(true)), "its fd has the whole state");
        assert_eq!(books.state(Some(StopCopy)), Some(PreCopy), "no surprise to the engine");
        books.ask(TO_STOP_COPY);
        assert_eq!(given(&mut books), Some(Ok(false)), "it is there");
    }
}

#[test]
fn the_states_before_the_switchover_keep_their_order() {
    let mut books = Books::new(Host::Source);
    books.hear(entered(PreCopy));
    books.hear(moved(PreCopyP2p));
    books.hear(moved(StopCopy));
    books.ask(TO_PRE_COPY);
    assert_eq!(given(&mut books), Some(Ok(true)));
    assert_eq!(books.has_gone_on(), Some(true));
    books.ask(TO_STOP_COPY);
    assert_eq!(given(&mut books), Some(Ok(false)));
}

/// PRE_COPY's fd is dead where STOP_COPY gave another one, and is not read in its stead.
#[test]
fn only_the_latest_saving_session_is_ahead() {
    let mut books = Books::new(Host::Source);
    books.hear(entered(PreCopy));
    books.hear(entered(StopCopy));
    books.ask(TO_PRE_COPY);
    assert_eq!(given(&mut books), Some(Ok(true)));
    books.ask(TO_STOP_COPY);
    assert_eq!(given(&mut books), Some(Ok(false)), "it was given already");
}

/// A second saving session without a word of the reset between: the kernel gives no fd otherwise.
#[test]
fn a_data_fd_that_only_a_reset_explains_tells_of_one() {
    let mut books = at(Host::Source, &[PreCopy]);
    assert_eq!(books.hear(entered(PreCopy)), Some(Loss::Reset));
    let mut books = at(Host::Source, &[StopCopy]);
    assert_eq!(books.hear(entered(StopCopy)), Some(Loss::Reset));
    // Out of PRE_COPY the engine can read it, once it asks; before, GET_STATE tells.
    let mut books = at(Host::Source, &[PreCopy]);
    assert_eq!(books.hear(entered(StopCopy)), None);
    assert_eq!(books.state(Some(StopCopy)), Some(Running));
    let mut books = at(Host::Target, &[Resuming]);
    assert_eq!(books.hear(entered(Resuming)), Some(Loss::Reset));
}

#[test]
fn what_the_engine_has_found_out_is_not_told_again() {
    let mut books = at(Host::Source, &[PreCopy]);
    assert_eq!(books.state(Some(Running)), Some(Running));
    assert_eq!(books.hear(moved(Running)), None);
    assert!(books.is_lost());
    let mut books = at(Host::Source, &[PreCopy]);
    assert_eq!(books.told_of_reset(), Some(Loss::Reset));
    assert_eq!((books.told_of_reset(), books.hear(moved(Running))), (None, None));
    books.ask(TO_PRE_COPY);
    books.hear(entered(PreCopy));
    assert!(given(&mut books).is_some() && !books.is_lost(), "it has begun anew");
    assert_eq!(books.hear(moved(Running)), Some(Loss::Reset));
}

#[test]
fn without_a_device_fd_the_errno_tells() {
    let found = |states, refused: Option<bool>| {
        let mut books = at(Host::Source, states);
        refused.into_iter().for_each(|as_elsewhere| books.was_refused(as_elsewhere));
        books.state(None)
    };
    assert_eq!(found(&[PreCopy], Some(true)), Some(Running), "ENODEV, EINVAL");
    assert_eq!(found(&[PreCopy], Some(false)), Some(PreCopy), "EIO");
    assert_eq!(found(&[PreCopy], None), Some(Running), "the fd hung up");
    assert_eq!(found(&[PreCopy, StopCopy], Some(true)), Some(Running));
    assert_eq!(found(&[PreCopy, StopCopy], None), Some(StopCopy), "the check at the end");
    let mut books = at(Host::Target, &[Resuming]);
    assert_eq!(books.state(None), Some(Resuming));
    books.was_refused(true);
    assert_eq!(books.state(None), Some(Running), "a write failed");
}

#[test]
fn a_state_is_what_the_vmm_said_or_unknown() {
    let mut books = Books::new(Host::Source);
    assert_eq!(books.state(None), None);
    books.ask(TO_PRE_COPY);
    books.end();
    assert_eq!((books.question(), books.state(None)), (None, None));
    let mut books = at(Host::Source, &[PreCopy]);
    books.was_refused(true);
    books.end();
    books.let_go();
    assert_eq!(books.state(None), Some(PreCopy), "after the end nothing is inferred");
    assert_eq!(books.hear(moved(Running)), None);
    assert_eq!(books.state(None), Some(Running));
}

#[test]
fn a_target_that_runs_before_it_may_was_reset() {
    for states in [&[Resuming][..], &[Resuming, Stop]] {
        for word in [moved(Running), moved(RunningP2p), Answer::Reset(Ok(()))] {
            assert_eq!(at(Host::Target, states).hear(word), Some(Loss::Reset));
        }
        assert_eq!(at(Host::Target, states).hear(moved(Error)), Some(Loss::Error));
    }
    let mut books = at(Host::Target, &[Resuming, Stop]);
    books.may_run();
    books.hear(moved(Stop));
    books.hear(moved(RunningP2p));
    books.ask(Wanted::State(Running));
    assert_eq!(books.hear(moved(Running)), None);
    assert_eq!(given(&mut books), Some(Ok(false)));
    // A target is looked at as it is: what the kernel has gone beyond is not there any more.
    let mut books = at(Host::Target, &[Resuming]);
    books.hear(moved(Stop));
    assert_eq!((books.state(None), books.state(Some(Stop))), (Some(Stop), Some(Stop)));
}

#[test]
fn a_reset_of_the_targets_vmm_counts_after_the_end() {
    let mut books = at(Host::Target, &[Resuming]);
    books.end();
    books.resets();
    books.ask(Wanted::Reset);
    assert_eq!((books.question(), given(&mut books)), (None, None));
    books.hear(Answer::Reset(Ok(())));
    books.ask(Wanted::Reset);
    assert_eq!(given(&mut books), Some(Ok(false)));
    assert_eq!(books.state(None), Some(Running));
}

/// The kernel has the device in PRE_COPY_P2P before its VMM has said so: whether with a new data fd,
/// which tells of a reset, is not known yet. Once the VMM has said it, it is known.
#[test]
fn a_device_on_its_way_to_stop_is_seen_there_until_its_vmm_has_said_how() {
    let mut books = at(Host::Source, &[PreCopy]);
    assert_eq!(books.state(Some(PreCopy)), Some(PreCopy));
    assert_eq!(books.state(Some(PreCopyP2p)), Some(PreCopyP2p));
    assert_eq!(books.hear(moved(PreCopyP2p)), None);
    assert_eq!(books.state(Some(PreCopyP2p)), Some(PreCopy), "it is where the engine has it");

    let mut books = at(Host::Source, &[PreCopy]);
    assert_eq!(books.hear(entered(PreCopyP2p)), Some(Loss::Reset));
    assert_eq!(books.hear(moved(StopCopy)), None);
    // The fd that came unasked is the one that is saved from.
    books.ask(TO_PRE_COPY);
    assert_eq!(given(&mut books), Some(Ok(true)));
    books.ask(TO_STOP_COPY);
    assert_eq!(given(&mut books), Some(Ok(false)));
}

/// The engine is faster than the VMM's next word: it has withdrawn its question over a reset, and asks
/// for the new saving session already when the VMM answers the old one.
#[test]
fn an_answer_to_what_was_withdrawn_says_nothing_of_the_next_saving_session() {
    let mut books = at(Host::Source, &[PreCopy]);
    books.ask(Wanted::PrecopyInfo);
    assert_eq!(books.told_of_reset(), Some(Loss::Reset));
    assert_eq!(given(&mut books), Some(Err(EINVAL)));
    books.ask(TO_PRE_COPY);
    assert_eq!(books.hear(Answer::PrecopyInfo(Err(EINVAL))), None);
    assert_eq!(books.hear(entered(PreCopy)), None);
    assert_eq!(given(&mut books), Some(Ok(true)));
    books.ask(Wanted::PrecopyInfo);
    assert_eq!((given(&mut books), books.question()), (None, Some(Wanted::PrecopyInfo)));
    assert_eq!(books.hear(info()), None);
    assert_eq!(given(&mut books), Some(Ok(false)));
}

/// The VMM's words make no sense to a kernel: after a reset STOP_COPY gives a data fd. What the engine
/// lets go of then must not have it ask for PRE_COPY.
#[test]
fn a_device_that_is_in_stop_copy_is_not_to_go_back_to_pre_copy() {
    let mut books = at(Host::Source, &[PreCopy]);
    assert_eq!(books.hear(Answer::Reset(Ok(()))), Some(Loss::Reset));
    assert_eq!(books.hear(Answer::State(StopCopy, Ok(None))), None);
    assert!(!books.is_stopped_for_good(), "it is ahead, and found when it is asked for");
    books.let_go();
    assert!(books.is_stopped_for_good());
    assert_eq!(books.hear(Answer::State(Running, Ok(None))), None);
    assert!(!books.is_stopped_for_good());
}

/// Without a device fd a refused read says that the VMM's last word is past.
#[test]
fn a_device_that_was_found_to_be_reset_in_stop_copy_begins_anew() {
    let mut books = at(Host::Source, &[PreCopy]);
    books.hear(Answer::State(StopCopy, Ok(None)));
    books.ask(TO_STOP_COPY);
    assert_eq!(given(&mut books), Some(Ok(false)));
    books.was_refused(true);
    assert_eq!(books.state(None), Some(Running));
    assert!(!books.is_stopped_for_good());
}

#[test]
fn a_failure_that_comes_before_the_question_answers_that_question_alone() {
    let mut books = Books::new(Host::Source);
    books.hear(Answer::State(StopCopy, Err(5)));
    books.ask(TO_STOP_COPY);
    assert_eq!(given(&mut books), Some(Err(5)));
    let mut books = Books::new(Host::Source);
    books.hear(Answer::State(StopCopy, Err(5)));
    books.ask(TO_PRE_COPY);
    assert_eq!(given(&mut books), None);
    books.hear(entered(PreCopy));
    assert_eq!(given(&mut books), Some(Ok(true)));
    books.ask(TO_STOP_COPY);
    assert_eq!(given(&mut books), None, "it was of a call that nobody waited for");
}

#[test]
fn sizes_that_come_first_answer_the_next_question_if_it_is_for_them() {
    let mut books = at(Host::Source, &[PreCopy]);
    books.hear(info());
    books.ask(Wanted::PrecopyInfo);
    assert_eq!(given(&mut books), Some(Ok(false)));
    books.hear(info());
    books.ask(TO_STOP_COPY);
    books.hear(moved(StopCopy));
    assert_eq!(given(&mut books), Some(Ok(false)));
    books.ask(Wanted::PrecopyInfo);
    assert_eq!(given(&mut books), None, "they were of before the device stopped");
}

#[test]
fn a_target_that_holds_nothing_yet_loses_nothing() {
    for word in [moved(Running), moved(Error), entered(Resuming), Answer::Reset(Ok(()))] {
        let mut books = Books::new(Host::Target);
        assert_eq!((books.hear(word), books.is_lost()), (None, false));
    }
    assert_eq!(at(Host::Target, &[Resuming]).hear(moved(Resuming)), None, "no new data fd");
    let mut books = Books::new(Host::Source);
    assert_eq!((books.state(Some(Error)), books.is_lost()), (Some(Error), false));
}

#[test]
fn a_word_that_is_said_twice_is_gone_through_once() {
    let mut books = at(Host::Source, &[PreCopy, StopCopy]);
    books.hear(moved(StopCopy));
    assert!(books.is_stopped_for_good(), "the engine is there already");
    let mut books = at(Host::Source, &[PreCopy]);
    books.hear(moved(StopCopy));
    books.hear(moved(StopCopy));
    books.ask(TO_STOP_COPY);
    assert_eq!((given(&mut books), books.is_stopped_for_good()), (Some(Ok(false)), true));
}

#[test]
fn whether_a_device_was_stopped_is_asked_of_one_in_pre_copy_alone() {
    let stopped = |states, word: Option<Answer>, ended| {
        let mut books = at(Host::Source, states);
        if let Some(word) = word {
            books.hear(word);
        }
        if ended {
            books.end();
        }
        books.has_gone_on()
    };
    assert_eq!(stopped(&[], None, false), Some(false), "not in PRE_COPY");
    assert_eq!(stopped(&[PreCopy, StopCopy], None, false), Some(false), "it was");
    assert_eq!(stopped(&[PreCopy], None, false), None, "its VMM has not said");
    assert_eq!(stopped(&[PreCopy], None, true), Some(false), "its VMM says no more");
    assert_eq!(stopped(&[PreCopy], Some(moved(StopCopy)), false), Some(true));
    assert_eq!(stopped(&[PreCopy], Some(entered(StopCopy)), false), Some(false), "a reset's fd");
}

#[test]
fn what_was_said_before_the_engines_own_reset_is_past() {
    let mut books = at(Host::Target, &[Resuming]);
    books.hear(moved(Stop));
    books.resets();
    assert_eq!(books.hear(moved(Running)), None, "the engine's own reset is no news");
    books.ask(Wanted::State(Stop));
    assert_eq!(given(&mut books), None, "it was of the state before");

    let mut books = at(Host::Target, &[Resuming]);
    books.resets();
    books.has_reset();
    assert_eq!(books.state(None), Some(Running));
}

/// A VMM that tries again, and then says that it went well.
#[test]
fn a_failure_that_was_made_good_answers_no_later_question() {
    let mut books = Books::new(Host::Source);
    books.hear(Answer::State(StopCopy, Err(5)));
    books.hear(entered(StopCopy));
    books.ask(TO_STOP_COPY);
    assert_eq!(given(&mut books), Some(Ok(true)));
    // The device is reset, and saves anew.
    assert!(books.told_of_reset().is_some());
    books.ask(TO_STOP_COPY);
    assert_eq!(given(&mut books), None, "it was of the epoch before");

    let mut books = at(Host::Target, &[Resuming]);
    books.hear(Answer::Reset(Err(5)));
    books.hear(entered(Resuming));
    books.ask(Wanted::Reset);
    assert_eq!(given(&mut books), None, "it was of the device as it was before");
}
