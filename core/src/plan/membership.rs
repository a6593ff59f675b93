//! Which workers take part: what happens goes in, what is to be done comes out. No sockets, and no clock of its own: moments are
//! durations since any fixed one.
//!
//! A worker that is lost is left out, and tried again later and later, since one that is plugged in anew should be found soon, and one
//! that is sold should cost nothing. One that answers again is taken into the next session.

use crate::graph::MAX_NODES;
use core::time::Duration;

/// Workers of a root, at most.
pub const MAX_WORKERS: usize = MAX_NODES as usize - 1;

/// Between a loss and the first attempt to reach a worker again; each further one takes twice as long, up to [`LONGEST`].
pub const FIRST: Duration = Duration::from_millis(500);
/// Between two attempts, at most.
pub const LONGEST: Duration = Duration::from_secs(30);
/// Between the time when a worker says that it ends, and the first attempt to reach one in its place.
pub const LEFT: Duration = Duration::from_secs(5);
/// Who has taken part for so long has a good name again.
pub const TRUSTED: Duration = Duration::from_secs(60);

/// A worker, in the eyes of its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It may take part, since this moment.
    Here { since: Duration },
    /// It is left out, and tried again at this moment.
    Out { until: Duration },
    /// It was left out, and has answered.
    Back,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    state: State,
    /// Losses in a row.
    losses: u32,
}

/// All workers that a root knows of, each by its place in the list.
#[derive(Clone, Debug)]
pub struct Membership {
    members: heapless::Vec<Member, MAX_WORKERS>,
}

impl Membership {
    /// So many workers, none of which is known to be gone.
    ///
    /// # Panics
    /// If there are more than [`MAX_WORKERS`].
    pub fn of(workers: usize) -> Self {
        assert!(workers <= MAX_WORKERS, "{workers} workers");
        let member = Member { state: State::Here { since: Duration::ZERO }, losses: 0 };
        Self { members: (0..workers).map(|_| member).collect() }
    }

    /// A worker that says it is there: it is tried at once. `None` for one that the root does not know yet; nothing, where there is no room
    /// for it, else its place.
    pub fn knocks(&mut self, worker: Option<usize>, now: Duration) -> Option<usize> {
        let state = State::Out { until: now };
        match worker {
            Some(worker) => {
                let member = &mut self.members[worker];
                if matches!(member.state, State::Out { .. }) {
                    member.state = state;
                }
                Some(worker)
            }
            None => self.members.push(Member { state, losses: 0 }).ok().map(|()| self.members.len() - 1),
        }
    }

    fn those(&self, are: impl Fn(&Member) -> bool) -> impl Iterator<Item = usize> {
        (0..).zip(&self.members).filter(move |(_, member)| are(member)).map(|(worker, _)| worker)
    }

    /// Whom to call for a session: everybody who is not left out.
    pub fn callable(&self) -> impl Iterator<Item = usize> {
        self.those(|member| matches!(member.state, State::Here { .. } | State::Back))
    }

    /// A worker takes part, or could; whether it was left out before.
    pub fn joined(&mut self, worker: usize, now: Duration) -> bool {
        let member = &mut self.members[worker];
        let is_back = !matches!(member.state, State::Here { .. });
        if is_back {
            member.state = State::Here { since: now };
        }
        is_back
    }

    /// A worker is lost.
    pub fn lost(&mut self, worker: usize, now: Duration) {
        let member = &mut self.members[worker];
        if let State::Here { since } = member.state
            && now.saturating_sub(since) >= TRUSTED
        {
            member.losses = 0;
        }
        let wait = FIRST.saturating_mul(1 << member.losses.min(16)).min(LONGEST);
        member.losses = member.losses.saturating_add(1);
        member.state = State::Out { until: now.saturating_add(wait) };
    }

    /// A worker says that it ends: it is left out, and nobody is to blame.
    pub fn leaves(&mut self, worker: usize, now: Duration) {
        self.members[worker] = Member { state: State::Out { until: now.saturating_add(LEFT) }, losses: 0 };
    }

    /// Who is to be tried again by now.
    pub fn due(&self, now: Duration) -> impl Iterator<Item = usize> {
        self.those(move |member| matches!(member.state, State::Out { until } if until <= now))
    }

    /// When somebody is to be tried again.
    pub fn next_due(&self) -> Option<Duration> {
        let until = |member: &Member| match member.state {
            State::Out { until } => Some(until),
            _ => None,
        };
        self.members.iter().filter_map(until).min()
    }

    /// One that was left out answers again.
    pub fn answered(&mut self, worker: usize) {
        let member = &mut self.members[worker];
        if matches!(member.state, State::Out { .. }) {
            member.state = State::Back;
        }
    }

    /// Those who take part in no session, and could take part in the next.
    pub fn back(&self) -> impl Iterator<Item = usize> {
        self.those(|member| member.state == State::Back)
    }
}

/// What became of a worker whose session has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there, and knows of nothing.
    Alive,
    /// It can't go on, because of this worker, itself perhaps; because of the root, if there is none.
    Blames(Option<usize>),
    /// It is not there.
    Lost,
}

/// Whose fault the end of a session is, given what became of each worker and the one that the root's own error `names`. Where
/// somebody is gone, those who waited for him have failed, too, and are not to blame. Else it is the worker that most of them blame; of
/// several, the one that is named, or the first. Nobody, where nothing tells.
pub fn culprits(fates: &[Fate], names: Option<usize>) -> heapless::Vec<usize, MAX_WORKERS> {
    let lost = (0..).zip(fates).filter(|(_, fate)| **fate == Fate::Lost).map(|(worker, _)| worker);
    let lost: heapless::Vec<usize, MAX_WORKERS> = lost.collect();
    if !lost.is_empty() {
        return lost;
    }
    let votes = |worker: usize| fates.iter().filter(|fate| **fate == Fate::Blames(Some(worker))).count();
    let most = (0..fates.len()).map(votes).max().unwrap_or(0);
    let blamed = |worker: &usize| most > 0 && votes(*worker) == most;
    let is_blamed = names.filter(blamed).or_else(|| (0..fates.len()).find(blamed));
    is_blamed.or(names).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn callable(members: &Membership) -> heapless::Vec<usize, MAX_WORKERS> {
        members.callable().collect()
    }

    #[test]
    fn one_that_is_lost_is_tried_again_later_and_later() {
        let mut members = Membership::of(3);
        assert_eq!(callable(&members), [0, 1, 2]);
        let (mut now, mut waits) = (SECOND, heapless::Vec::<u128, 16>::new());
        for _ in 0..9 {
            members.lost(1, now);
            assert_eq!((callable(&members).as_slice(), members.due(now).count()), (&[0, 2][..], 0));
            let due = members.next_due().unwrap();
            waits.push((due - now).as_millis()).unwrap();
            now = due;
            assert_eq!(members.due(now).collect::<heapless::Vec<_, 4>>(), [1]);
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert!(members.back().next().is_none());
        members.answered(1);
        assert!(members.back().next().is_some() && members.next_due().is_none());
        assert_eq!(callable(&members), [0, 1, 2]);
        members.joined(1, now);
        assert!(members.back().next().is_none());
        members.lost(1, now + TRUSTED / 2);
        assert_eq!(members.next_due(), Some(now + TRUSTED / 2 + LONGEST), "no good name yet");
        members.answered(1);
        members.joined(1, now);
        members.lost(1, now + TRUSTED);
        assert_eq!(members.next_due(), Some(now + TRUSTED + FIRST));
    }

    #[test]
    fn one_that_leaves_is_not_called_and_may_come_back() {
        let mut members = Membership::of(2);
        members.leaves(0, SECOND);
        assert_eq!(callable(&members), [1]);
        assert_eq!(members.next_due(), Some(SECOND + LEFT));
        members.answered(1);
        assert!(members.back().next().is_none(), "one that was here has no news");
    }

    #[test]
    fn who_knocks_is_tried_at_once() {
        let mut members = Membership::of(MAX_WORKERS - 1);
        members.lost(2, SECOND);
        assert_eq!(members.knocks(Some(1), SECOND), Some(1));
        assert_eq!(members.due(SECOND).count(), 0, "one that is here");
        assert_eq!(members.knocks(Some(2), SECOND), Some(2));
        assert_eq!(members.knocks(None, SECOND), Some(MAX_WORKERS - 1));
        assert_eq!(members.due(SECOND).collect::<heapless::Vec<_, 4>>(), [2, MAX_WORKERS - 1]);
        assert_eq!(members.callable().count(), MAX_WORKERS - 2);
        assert_eq!(members.knocks(None, SECOND), None, "there is no room");
    }

    #[test]
    fn those_who_are_gone_are_to_blame_then_those_who_are_blamed() {
        use Fate::{Alive, Blames, Lost};
        for (fates, names, want) in [
            (&[Alive, Lost, Blames(Some(2)), Lost][..], Some(0), &[1, 3][..]),
            (&[Alive, Alive], Some(1), &[1]),
            (&[Alive, Alive], None, &[]),
            (&[Blames(Some(1)), Alive, Blames(Some(1)), Blames(Some(0))], Some(0), &[1]),
            (&[Blames(Some(1)), Blames(Some(0))], Some(1), &[1]),
            (&[Blames(Some(1)), Blames(Some(0))], None, &[0]),
            (&[Blames(None), Alive], None, &[]),
            (&[], None, &[]),
        ] {
            assert_eq!(culprits(fates, names), want, "{fates:?}, {names:?}");
        }
    }
}
