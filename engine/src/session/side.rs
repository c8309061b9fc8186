//! The two hosts of a session, as types.

use std::fmt::{Debug, Display};

use crate::drive::Report;
use crate::outcome::{Fault, Host, SourceEnding, TargetEnding};

/// The host that the devices leave: see [`SourceSession`](super::SourceSession).
#[derive(Debug, Clone, Copy)]
pub enum Source {}

/// The host that the devices go to: see [`TargetSession`](super::TargetSession).
#[derive(Debug, Clone, Copy)]
pub enum Target {}

/// Which host a [`Session`](super::Session) is of: [`Source`] or [`Target`], and nothing else.
pub trait Side: sealed::Sealed + Debug + Sized + 'static {
    /// The same as a value.
    const HOST: Host;
    /// How its session ends.
    type Ending: Debug + Display + Clone + PartialEq + Send;
    /// Why a session ended so; none where it went well.
    fn fault(ending: &Self::Ending) -> Option<&Fault>;
}

/// What [`Side`]'s session says at its end.
pub type ReportOf<S> = Report<<S as Side>::Ending>;

impl Side for Source {
    const HOST: Host = Host::Source;
    type Ending = SourceEnding;
    fn fault(ending: &SourceEnding) -> Option<&Fault> {
        ending.fault()
    }
}

impl Side for Target {
    const HOST: Host = Host::Target;
    type Ending = TargetEnding;
    fn fault(ending: &TargetEnding) -> Option<&Fault> {
        ending.fault()
    }
}

pub(super) mod sealed {
    use super::{ReportOf, Side, Source, Target};
    use crate::drive::Ended;
    use crate::outcome::{Fault, SourceEnding, TargetEnding};

    /// Nobody else can be a [`Side`].
    pub trait Sealed {
        /// The report of this side's session.
        fn report(ended: &Ended) -> Option<&ReportOf<Self>>
        where
            Self: Side;
        /// The fault of an ending, to be added to.
        fn fault_mut(ending: &mut <Self as Side>::Ending) -> Option<&mut Fault>
        where
            Self: Side;
    }

    impl Sealed for Source {
        fn report(ended: &Ended) -> Option<&ReportOf<Source>> {
            match ended {
                Ended::Source(report) => Some(report),
                Ended::Target(_) => None,
            }
        }

        fn fault_mut(ending: &mut SourceEnding) -> Option<&mut Fault> {
            match ending {
                SourceEnding::HandedOver => None,
                SourceEnding::Returned(fault)
                | SourceEnding::NotReturned(fault)
                | SourceEnding::Unconfirmed(fault) => Some(fault),
            }
        }
    }

    impl Sealed for Target {
        fn report(ended: &Ended) -> Option<&ReportOf<Target>> {
            match ended {
                Ended::Target(report) => Some(report),
                Ended::Source(_) => None,
            }
        }

        fn fault_mut(ending: &mut TargetEnding) -> Option<&mut Fault> {
            match ending {
                TargetEnding::Running => None,
                TargetEnding::Blank(fault) | TargetEnding::NotBlank(fault) => Some(fault),
            }
        }
    }
}
