//! How long a peer is waited for: the rule that every phase of a conversation goes by, and how many others come before a peer.

use super::NetError;
use std::time::{Duration, Instant};

/// What a link must carry on average, in bytes per second, beside its timeout: 128 kbit/s, far less than any network
/// that a model is worth spreading over.
const LEAST_RATE: u64 = 16 << 10;

/// One phase with one peer, which may be silent for `limit`; and as a whole the phase may take `limit`, and a second
/// more for every [`LEAST_RATE`] bytes that it moves. So a peer that stops is given up after `limit`, and one that drips
/// byte by byte, too. Bytes that came faster pay for no time to come: whoever has sent a gigabyte may not drip either.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    limit: Duration,
    start: Instant,
    /// From the start to when something moved last.
    last: Duration,
    /// From the start to when what had moved paid for all the time taken.
    even: Duration,
    /// Bytes moved since then.
    bytes: u64,
}

impl Patience {
    /// Waits for a peer from `now` on.
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, start: now, last: Duration::ZERO, even: Duration::ZERO, bytes: 0 }
    }

    /// Bytes moved, whichever way.
    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        self.last = now.saturating_duration_since(self.start);
        if self.paid() >= self.last {
            (self.even, self.bytes) = (self.last, 0);
        }
    }

    /// How much longer the peer may be silent; zero where it is given up.
    pub(super) fn left(&self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.start);
        let silence = self.last.saturating_add(self.limit).saturating_sub(elapsed);
        let allowed = self.paid().saturating_add(self.limit);
        if self.is_swift() { silence } else { silence.min(allowed.saturating_sub(elapsed)) }
    }

    /// What there is to say about a peer that is given up at `now`.
    pub(super) fn error(&self, peer: &str, phase: &'static str, now: Instant) -> NetError {
        let (peer, time) = (peer.to_owned(), now.saturating_duration_since(self.start));
        if self.is_swift() || time >= self.last.saturating_add(self.limit) {
            NetError::Silent { peer, phase, timeout: self.limit }
        } else {
            NetError::Slow { peer, phase, bytes: self.bytes, time: time.saturating_sub(self.even) }
        }
    }

    /// The time since the start that what moved pays for.
    fn paid(&self) -> Duration {
        self.even.saturating_add(Duration::from_millis(self.bytes.saturating_mul(1000) / LEAST_RATE))
    }

    /// Whether what moved did so fast enough for the peer to be silent, and not slow, when the phase's time is up.
    fn is_swift(&self) -> bool {
        self.last <= self.paid().saturating_add(self.limit / 8)
    }
}

/// Whose turn comes before that of a peer, where nodes compute in stages, one after the other, and a root does not wait for the
/// last one. A node that computes a row of its stage within the limit of a wait computes a batch within the limit times its
/// rows; so long each stage before may take, and so long every batch that is on its way. Who vanishes without a word is found
/// sooner, by the probes of its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    stages: u32,
    /// Rows of passes whose end the root has not waited for, the last pass included.
    ahead: u32,
    /// Most rows of such a pass.
    rows: u32,
    /// The root waits for the end of the last one.
    is_answered: bool,
}

impl Turns {
    /// Turns in so many stages.
    pub(super) fn of(stages: u32) -> Self {
        Self { stages, ..Self::default() }
    }

    /// A pass begins.
    pub(super) fn begin(&mut self, rows: u32, is_answered: bool) {
        if self.is_answered {
            self.settle();
        }
        (self.ahead, self.rows) = (self.ahead.saturating_add(rows), self.rows.max(rows));
        self.is_answered = is_answered;
    }

    /// No pass is on its way.
    pub(super) fn settle(&mut self) {
        *self = Self::of(self.stages);
    }

    /// How long a peer may be silent that otherwise may be so for `timeout`.
    pub(super) fn limit(&self, timeout: Duration) -> Duration {
        let Self { stages, ahead, rows, .. } = *self;
        let turns = if stages > 1 { ahead.saturating_add((stages - 1).saturating_mul(rows)) } else { 1 };
        timeout.saturating_mul(turns.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_wait_for_those_before_them_and_for_batches_on_their_way() {
        let mut turns = Turns::of(3);
        let limit = |turns: &Turns| turns.limit(LIMIT).as_secs() / LIMIT.as_secs();
        assert_eq!(limit(&turns), 1, "nobody computes");
        // The third batch, with two stages before the last.
        let prompt = [(32, false), (31, false), (31, true)].map(|(rows, is_answered)| {
            turns.begin(rows, is_answered);
            limit(&turns)
        });
        assert_eq!(prompt, [32 + 64, 63 + 64, 94 + 64]);
        // The answer to it is there where the next one begins.
        turns.begin(1, true);
        assert_eq!(limit(&turns), 3);
        turns.settle();
        assert_eq!(limit(&turns), 1);
    }

    #[test]
    fn without_stages_there_is_one_turn() {
        for stages in 0..2 {
            let mut turns = Turns::of(stages);
            turns.begin(128, false);
            turns.begin(128, false);
            assert_eq!(turns.limit(LIMIT), LIMIT);
        }
    }

    const LIMIT: Duration = Duration::from_secs(8);

    fn at(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    fn error(patience: &Patience, now: Instant) -> String {
        patience.error("peer", "the test", now).to_string()
    }

    #[test]
    fn a_peer_that_stops_is_given_up_after_the_limit() {
        let start = Instant::now();
        let mut patience = Patience::new(LIMIT, start);
        assert_eq!(patience.left(at(start, 3.0)), Duration::from_secs(5));
        assert_eq!(patience.left(at(start, 9.0)), Duration::ZERO);
        patience.moved(100, at(start, 0.5));
        assert_eq!(patience.left(at(start, 8.25)), Duration::from_millis(250));
        assert_eq!(error(&patience, at(start, 8.5)), "peer: no data for 8 s during the test");
    }

    #[test]
    fn a_peer_that_drips_is_given_up_after_the_limit_too() {
        let start = Instant::now();
        let mut patience = Patience::new(LIMIT, start);
        for second in 1..8 {
            let now = at(start, f64::from(second));
            assert!(!patience.left(now).is_zero());
            patience.moved(1, now);
        }
        let end = at(start, 8.1);
        assert!(patience.left(end).is_zero());
        assert_eq!(error(&patience, end), "peer: only 7 bytes in 8.1 s during the test");
    }

    #[test]
    fn a_peer_that_drips_after_a_rush_is_given_up_after_the_limit_too() {
        let start = Instant::now();
        let mut patience = Patience::new(LIMIT, start);
        patience.moved(1 << 30, at(start, 10.0));
        assert_eq!(patience.left(at(start, 10.0)), LIMIT);
        for second in 11..18 {
            let now = at(start, f64::from(second));
            assert!(!patience.left(now).is_zero());
            patience.moved(1, now);
        }
        let end = at(start, 18.1);
        assert!(patience.left(end).is_zero());
        assert_eq!(error(&patience, end), "peer: only 7 bytes in 8.1 s during the test");
    }

    #[test]
    fn a_link_that_is_as_fast_as_the_slowest_allowed_is_waited_for() {
        let start = Instant::now();
        let mut patience = Patience::new(LIMIT, start);
        for second in 1..10_000 {
            patience.moved(LEAST_RATE, at(start, f64::from(second)));
            assert_eq!(patience.left(at(start, f64::from(second))), LIMIT);
        }
    }

    #[test]
    fn without_a_limit_there_is_no_end() {
        let start = Instant::now();
        let mut patience = Patience::new(Duration::MAX, start);
        patience.moved(1, at(start, 1e6));
        assert!(patience.left(at(start, 1e7)) > Duration::from_secs(1 << 40));
    }
}
