//! How many tokens are proposed: as many as give the most tokens per second, by what passes took and what was accepted so far.
//!
//! All is counted in plain passes, those of one row. A pass of `k` proposed tokens takes `cost(k)` of them, which is measured, and is
//! expected to give `1 + p + p² + … + pᵏ` tokens, `p` being the share of proposed tokens of its kind that turned out right lately.
//!
//! What can be lost is limited all the same: a pass may cost more than a plain one only as far as there is *credit* for it, should
//! nothing be accepted. There is a little at the start, each token adds some hundredths, and gains add what they are.

use super::{Kind, MOST};
use std::time::Duration;

/// Rows of the largest pass.
const ROWS: usize = MOST as usize + 1;
/// Plain passes that may be lost before any token has been won.
const CREDIT: f64 = 1.0;
/// What each token adds to that: the share of all time that is lost where nothing is ever accepted.
const CREDIT_PER_TOKEN: f64 = 0.01;
/// More credit is not kept.
const CREDIT_MAX: f64 = 8.0;
/// What a row more costs, before anything was measured.
const ROW: f64 = 0.3;
/// What proposing a token by a draft model costs, before it was measured.
const DRAFTED: f64 = 0.1;
/// A plain pass is measured at least so often.
const PASSES_BETWEEN_PLAIN: u32 = 64;
/// Looks after which a kind that was not worth it is tried again: first, and at most. Doubles each time.
const PAUSES: (u32, u32) = (16, 256);
/// Tokens proposed then.
const TRIED: usize = 2;
/// What a pass must give beyond a plain one, before it is taken for better.
const BETTER: f64 = 1.02;

/// A mean of the latest values; the first ones count as an average of all.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    value: f64,
    values: u32,
}

impl Mean {
    /// Adds a value; one far off counts as one less far.
    fn add(&mut self, value: f64) {
        self.values = self.values.saturating_add(1);
        if self.values == 1 {
            self.value = value;
            return;
        }
        let near = value.clamp(self.value / 2.0, self.value * 2.0);
        self.value += (near - self.value) / f64::from(self.values.min(8));
    }

    fn known(&self) -> Option<f64> {
        (self.values > 0).then_some(self.value)
    }
}

/// How often tokens of a kind turn out right.
#[derive(Clone, Copy, Debug)]
struct Luck {
    right: f64,
    wrong: f64,
    /// Looks to be passed over before it is tried again.
    pause: u32,
    next_pause: u32,
}

impl Luck {
    /// Before anything is known; counts as four tokens.
    fn of(kind: Kind) -> Self {
        let p = match kind {
            Kind::Two => 0.3,
            Kind::Three => 0.5,
            Kind::Some => 0.7,
            Kind::Many => 0.9,
            Kind::Draft => 0.6,
        };
        Self { right: 4.0 * p, wrong: 4.0 * (1.0 - p), pause: 0, next_pause: PAUSES.0 }
    }

    fn p(&self) -> f64 {
        self.right / (self.right + self.wrong)
    }

    /// Tokens of a pass with `k` proposed ones.
    fn expected(&self, k: usize) -> f64 {
        let p = self.p();
        (0..=k).map(|i| p.powi(i as i32)).sum()
    }

    fn add(&mut self, accepted: usize, rejected: bool) {
        // The last dozen tokens or so count.
        let keep = 0.9_f64.powi(accepted as i32 + i32::from(rejected));
        self.right = (self.right * keep + accepted as f64 * (1.0 + keep) / 2.0).min(12.0);
        self.wrong = self.wrong * keep + f64::from(u8::from(rejected));
    }
}

/// What is known about passes and proposals.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Seconds of a plain pass.
    plain: Mean,
    /// By rows: plain passes that a pass takes.
    costs: [Mean; ROWS + 1],
    /// Plain passes that it takes to propose a token by a draft model.
    drafted: Mean,
    luck: [Luck; Kind::ALL.len()],
    credit: f64,
    /// Passes since the last plain one.
    since_plain: u32,
    /// The next time of a draft model includes the prompt.
    is_first_draft: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            plain: Mean::default(),
            costs: [Mean::default(); ROWS + 1],
            drafted: Mean::default(),
            luck: Kind::ALL.map(Luck::of),
            credit: CREDIT,
            since_plain: 0,
            is_first_draft: true,
        }
    }
}

impl Pace {
    /// An answer begins.
    pub fn begin(&mut self) {
        self.is_first_draft = true;
    }

    /// How many tokens are to be proposed, of at most `most`.
    pub fn choose(&mut self, kind: Kind, most: usize) -> usize {
        if self.plain.known().is_none() || self.since_plain >= PASSES_BETWEEN_PLAIN {
            return 0;
        }
        let luck = self.luck[kind as usize];
        let (mut best, mut best_rate) = (0, BETTER);
        for k in 1..=most.min(MOST as usize) {
            let cost = self.cost(kind, k);
            let rate = luck.expected(k) / cost;
            if cost - 1.0 <= self.credit && rate > best_rate {
                (best, best_rate) = (k, rate);
            }
        }
        if best > 0 {
            return best;
        }
        let luck = &mut self.luck[kind as usize];
        if luck.pause > 0 {
            luck.pause -= 1;
            return 0;
        }
        (luck.pause, luck.next_pause) = (luck.next_pause, PAUSES.1.min(2 * luck.next_pause));
        (1..=TRIED.min(most)).rev().find(|k| self.cost(kind, *k) - 1.0 <= self.credit).unwrap_or(0)
    }

    /// Learns from a pass: of what kind its proposals were, if there were any; how many, how many of them the answer has, and whether the
    /// next one was wrong; how long it took to propose them and to compute all.
    pub fn learn(
        &mut self,
        kind: Option<Kind>,
        (proposed, accepted, rejected): (usize, usize, bool),
        (proposing, computing): (Duration, Duration),
    ) {
        self.credit = (self.credit + CREDIT_PER_TOKEN * (1 + accepted) as f64).min(CREDIT_MAX);
        let Some(kind) = kind.filter(|_| proposed > 0) else {
            self.plain.add(computing.as_secs_f64());
            self.since_plain = 0;
            return;
        };
        self.since_plain += 1;
        self.luck[kind as usize].add(accepted, rejected);
        let Some(plain) = self.plain.known().filter(|plain| *plain > 0.0) else { return };
        let rows = (proposed + 1).min(ROWS);
        // Nothing costs more than its rows one by one.
        self.costs[rows].add((computing.as_secs_f64() / plain).clamp(1.0, rows as f64));
        if kind == Kind::Draft && !std::mem::take(&mut self.is_first_draft) {
            self.drafted.add(proposing.as_secs_f64() / plain / proposed as f64);
        }
        let won = (1 + accepted) as f64 - self.cost(kind, proposed);
        self.credit = (self.credit + won).min(CREDIT_MAX);
        if won > BETTER - 1.0 {
            let luck = &mut self.luck[kind as usize];
            (luck.pause, luck.next_pause) = (0, PAUSES.0);
        }
    }

    /// Plain passes that it takes to propose `k` tokens and to compute them.
    fn cost(&self, kind: Kind, k: usize) -> f64 {
        let proposing = if kind == Kind::Draft { self.drafted.known().unwrap_or(DRAFTED) * k as f64 } else { 0.0 };
        self.pass(k + 1) + proposing
    }

    /// Plain passes that a pass of `rows` rows takes: as measured, or between, or on from what was measured.
    fn pass(&self, rows: usize) -> f64 {
        if let Some(cost) = self.costs[rows].known() {
            return cost;
        }
        let known = |rows: usize| self.costs[rows].known().map(|cost| (rows as f64, cost));
        let below = (2..rows).rev().find_map(known);
        let above = (rows + 1..=ROWS).find_map(known);
        let rows = rows as f64;
        let (x, y) = below.unwrap_or((1.0, 1.0));
        match (below, above) {
            (_, Some((far, cost))) => y + (cost - y) * (rows - x) / (far - x),
            (Some(_), None) => y + (y - 1.0) / (x - 1.0) * (rows - x),
            (None, None) => 1.0 + ROW * (rows - 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a pass of so many rows takes some time, and answers of which some tokens are right.
    struct Machine {
        pace: Pace,
        cost: fn(f64) -> f64,
        /// Plain passes, as time.
        time: f64,
        tokens: f64,
    }

    impl Machine {
        fn new(cost: fn(f64) -> f64) -> Self {
            Self { pace: Pace::default(), cost, time: 0.0, tokens: 0.0 }
        }

        /// Until there are `tokens` more: something of `kind` is found before every pass, of which `right` would be accepted.
        fn answer(&mut self, tokens: f64, kind: Kind, mut right: impl FnMut() -> usize) {
            let end = self.tokens + tokens;
            while self.tokens < end {
                let k = self.pace.choose(kind, MOST as usize);
                let accepted = right().min(k);
                let cost = (self.cost)(k as f64 + 1.0);
                let time = Duration::from_secs_f64(0.01 * cost);
                self.pace.learn(Some(kind).filter(|_| k > 0), (k, accepted, accepted < k), (Duration::ZERO, time));
                self.time += cost;
                self.tokens += 1.0 + accepted as f64;
            }
        }

        /// Time beside that of plain passes.
        fn ratio(&self) -> f64 {
            self.time / self.tokens
        }
    }

    const FREE: fn(f64) -> f64 = |rows| 1.0 + 0.001 * (rows - 1.0);
    const CHEAP: fn(f64) -> f64 = |rows| 1.0 + 0.1 * (rows - 1.0);
    const DEAR: fn(f64) -> f64 = |rows| rows;
    const STEP: fn(f64) -> f64 = |rows| if rows > 4.0 { 2.0 + 0.2 * rows } else { 1.0 + 0.1 * (rows - 1.0) };

    #[test]
    fn what_is_never_accepted_costs_hardly_anything() {
        for cost in [FREE, CHEAP, DEAR, STEP] {
            for kind in Kind::ALL {
                let mut machine = Machine::new(cost);
                machine.answer(200.0, kind, || 0);
                assert!(machine.time < 204.0, "{kind:?}, {}: {} for {}", cost(2.0), machine.time, machine.tokens);
                machine.answer(2000.0, kind, || 0);
                assert!(machine.ratio() < 1.015, "{kind:?}: {}", machine.ratio());
            }
        }
    }

    #[test]
    fn what_is_always_accepted_makes_for_long_proposals() {
        for (cost, most) in [(FREE, 0.06), (CHEAP, 0.2), (STEP, 0.45)] {
            for kind in Kind::ALL {
                let mut machine = Machine::new(cost);
                machine.answer(400.0, kind, || 99);
                assert!(machine.ratio() < most, "{kind:?}: {}", machine.ratio());
            }
        }
    }

    #[test]
    fn where_rows_cost_what_passes_cost_nothing_is_proposed_for_long() {
        let mut machine = Machine::new(DEAR);
        machine.answer(500.0, Kind::Many, || 99);
        assert!(machine.ratio() < 1.001, "{}", machine.ratio());
        let proposed = (0..200).filter(|_| machine.pace.choose(Kind::Many, 8) > 0).count();
        assert!(proposed <= 2, "{proposed}");
    }

    #[test]
    fn a_text_that_begins_to_repeat_itself_is_noticed() {
        let mut machine = Machine::new(CHEAP);
        machine.answer(1000.0, Kind::Some, || 0);
        let before = machine.time;
        machine.answer(600.0, Kind::Some, || 99);
        assert!(machine.time - before < 0.7 * 600.0, "{}", machine.time - before);
        machine.answer(2000.0, Kind::Some, || 0);
        assert!(machine.ratio() < 1.0, "{}", machine.ratio());
    }

    #[test]
    fn half_lucky_proposals_are_short_ones() {
        let mut machine = Machine::new(|rows| 1.0 + 0.3 * (rows - 1.0));
        let mut state = 1_u32;
        machine.answer(3000.0, Kind::Three, || {
            let mut right = 0;
            loop {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if state >> 31 == 0 {
                    break right;
                }
                right += 1;
            }
        });
        // 1 + 1/2 tokens for 1.3 are the best that there is.
        assert!(machine.ratio() < 0.95, "{}", machine.ratio());
    }

    #[test]
    fn nothing_is_proposed_before_a_plain_pass_was_measured_nor_for_ever_after() {
        let mut pace = Pace::default();
        assert_eq!(pace.choose(Kind::Many, 23), 0);
        let time = |ms| (Duration::ZERO, Duration::from_millis(ms));
        pace.learn(None, (0, 0, false), time(10));
        let mut passes = 0;
        loop {
            let k = pace.choose(Kind::Many, 23);
            if k == 0 {
                break;
            }
            pace.learn(Some(Kind::Many), (k, k, false), time(10));
            passes += 1;
        }
        assert_eq!(passes, PASSES_BETWEEN_PLAIN);
    }

    #[test]
    fn a_slow_draft_model_is_not_asked() {
        let mut pace = Pace::default();
        pace.learn(None, (0, 0, false), (Duration::ZERO, Duration::from_millis(10)));
        let mut asked = 0;
        for token in 0..400 {
            let k = pace.choose(Kind::Draft, 8);
            asked += u32::from(token >= 200 && k > 0);
            let kind = Some(Kind::Draft).filter(|_| k > 0);
            let drafting = Duration::from_millis(9 * k as u64);
            pace.learn(kind, (k, k, false), (drafting, Duration::from_millis(10 + k as u64)));
        }
        assert!(asked <= 2, "{asked}");
    }

    #[test]
    fn no_proposal_is_longer_than_there_is_room() {
        let mut machine = Machine::new(FREE);
        machine.answer(200.0, Kind::Many, || 99);
        assert_eq!((1..5).map(|most| machine.pace.choose(Kind::Many, most)).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(machine.pace.choose(Kind::Many, 23), 23);
    }
}
