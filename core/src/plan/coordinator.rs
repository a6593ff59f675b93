//! What a root does next: sessions are formed, fail, and are formed anew without those whose fault that is. What happens goes in, what
//! is to be done comes out, as in [`membership`](super::membership): no sockets, and no clock of its own.
//!
//! A host carries it out. Where a request [`begins`](Coordinator::begin), it tells what it has [`Seen`] of the session. Where there is none, it forms one of
//! those who are [`callable`](Membership::callable), under the number that [`Coordinator::form`] gives; it says who
//! [`took part`](Membership::joined), or that it has [`failed`](Coordinator::failed). Then it computes what a pass stands on and the new
//! session has not got, and the pass, and says that it is [`computed`](Coordinator::computed), or that the session has failed.

use super::membership::Membership;
use core::time::Duration;

/// Failures in a row that nobody is to blame for, after which a request is given up.
pub const VAIN: u32 = 3;

/// What a root sees of its session where a request begins.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Nobody is missing.
    pub is_well: bool,
    /// Workers that are about to end.
    pub leaving: &'a [usize],
    /// Another plan would be clearly better.
    pub is_off_plan: bool,
}

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// It is to be ended, and another one formed.
    End,
    /// It has failed: who is missing is to be found out.
    Bury,
}

/// What is to be done after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To form a session of those who are left.
    Form,
    /// To end the request with the error: nothing is known that would help.
    GiveUp,
}

/// The workers of a root, and where it is with their sessions.
#[derive(Clone, Debug)]
pub struct Coordinator {
    members: Membership,
    /// Number of the last session.
    epoch: u32,
    /// Failures since the last pass that nobody was to blame for.
    vain: u32,
}

impl Coordinator {
    /// Of workers none of which is known to be gone.
    pub const fn of(members: Membership) -> Self {
        Self { members, epoch: 0, vain: 0 }
    }

    /// Who takes part, and who is left out.
    pub const fn members(&self) -> &Membership {
        &self.members
    }

    /// The same, to be told of somebody.
    pub const fn members_mut(&mut self) -> &mut Membership {
        &mut self.members
    }

    /// A request begins.
    pub const fn begin(&mut self) {
        self.vain = 0;
    }

    /// Looks at the session where a request begins: what becomes of it.
    pub fn look(&mut self, seen: &Seen<'_>, now: Duration) -> Verdict {
        for worker in seen.leaving {
            self.members.leaves(*worker, now);
        }
        if !seen.is_well {
            Verdict::Bury
        } else if !seen.leaving.is_empty() || seen.is_off_plan || self.members.back().next().is_some() {
            Verdict::End
        } else {
            Verdict::Keep
        }
    }

    /// The number of a session that is about to be formed, which no other one of this root has.
    pub const fn form(&mut self) -> u32 {
        self.epoch = self.epoch.wrapping_add(1);
        self.epoch
    }

    /// A session could not be formed, or has failed, and it is the fault of `losses`: these are left out.
    pub fn failed(&mut self, losses: impl IntoIterator<Item = usize>, now: Duration) -> Next {
        let mut is_vain = true;
        for worker in losses {
            self.members.lost(worker, now);
            is_vain = false;
        }
        self.vain += u32::from(is_vain);
        if self.vain > VAIN { Next::GiveUp } else { Next::Form }
    }

    /// A pass is computed.
    pub const fn computed(&mut self) {
        self.vain = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::membership::{FIRST, LEFT};

    const NOW: Duration = Duration::from_secs(9);

    fn seen(leaving: &[usize]) -> Seen<'_> {
        Seen { is_well: true, leaving, is_off_plan: false }
    }

    #[test]
    fn a_session_ends_where_another_one_is_better() {
        let mut root = Coordinator::of(Membership::of(3));
        assert_eq!((root.form(), root.look(&seen(&[]), NOW)), (1, Verdict::Keep));
        assert_eq!(root.look(&Seen { is_off_plan: true, ..seen(&[]) }, NOW), Verdict::End);
        assert_eq!(root.look(&Seen { is_well: false, ..seen(&[]) }, NOW), Verdict::Bury);
        assert_eq!(root.look(&seen(&[2]), NOW), Verdict::End);
        assert_eq!(root.members().callable().collect::<heapless::Vec<_, 3>>(), [0, 1]);
        assert_eq!(root.members().next_due(), Some(NOW + LEFT));
        assert_eq!((root.form(), root.look(&seen(&[]), NOW)), (2, Verdict::Keep));
        root.members_mut().answered(2);
        assert_eq!(root.look(&seen(&[]), NOW), Verdict::End);
    }

    #[test]
    fn failures_that_are_nobodys_fault_end_a_request() {
        let mut root = Coordinator::of(Membership::of(2));
        for _ in 0..2 {
            for _ in 0..VAIN {
                assert_eq!(root.failed([], NOW), Next::Form);
            }
            root.computed();
        }
        assert_eq!(root.failed([1], NOW), Next::Form);
        assert_eq!(root.members().next_due(), Some(NOW + FIRST));
        for _ in 0..VAIN {
            assert_eq!(root.failed([], NOW), Next::Form);
        }
        assert_eq!(root.failed([], NOW), Next::GiveUp);
        root.begin();
        assert_eq!(root.failed([], NOW), Next::Form);
    }
}
