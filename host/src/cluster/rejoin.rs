//! Whether it pays to take workers in, in the middle of an answer, that have come back: for that another session is formed, and all
//! tokens so far are computed again.

use std::time::Duration;

/// Passes between two looks at it.
const EVERY: u32 = 32;
/// Passes of a session that tell how long one takes.
const TELLING: u32 = 8;
/// Rows of a pass from which on it tells how long a row of many takes.
const MANY: usize = 8;

/// How an answer comes on.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Passes of the answer so far, and those that may come, at most.
    done: u32,
    left: u32,
    /// Passes of the session, and how long they took.
    passes: u32,
    took: Duration,
    /// A row of many took so long.
    row: Option<Duration>,
    /// To form a session took so long.
    forming: Duration,
}

impl Pace {
    /// An answer begins, of so many tokens at most.
    pub fn begin(&mut self, tokens: u32) {
        (self.done, self.left) = (0, tokens);
    }

    /// A session is formed.
    pub fn formed(&mut self, took: Duration) {
        (self.passes, self.took, self.forming) = (0, Duration::ZERO, took);
    }

    /// A pass of so many rows is computed.
    pub fn passed(&mut self, rows: usize, took: Duration) {
        if rows >= MANY {
            self.row = Some(took / rows as u32);
        } else {
            self.passes += 1;
            self.took += took;
            self.done += 1;
            self.left = self.left.saturating_sub(1);
        }
    }

    /// Whether it is time to look.
    pub fn is_due(&self) -> bool {
        self.done > 0 && self.done.is_multiple_of(EVERY) && self.passes >= TELLING
    }

    /// Whether the answer is complete sooner in another session. `tokens` are computed already, a token is predicted to take `now` seconds
    /// as it is, and `then` with those who are back. How much is to come nobody knows; as much as there is so far is a fair guess.
    pub fn pays(&self, tokens: usize, [now, then]: [f64; 2]) -> bool {
        let token = self.took.as_secs_f64() / f64::from(self.passes.max(1));
        let row = self.row.map_or(token, |row| row.as_secs_f64());
        let saved = token * (1.0 - then / now) * f64::from(self.done.min(self.left));
        saved > self.forming.as_secs_f64() + row * tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace(passes: u32, left: u32) -> Pace {
        let mut pace = Pace::default();
        pace.formed(500 * MS);
        pace.begin(passes + left);
        pace.passed(100, 1000 * MS);
        (0..passes).for_each(|_| pace.passed(1, 40 * MS));
        pace
    }

    #[test]
    fn half_the_time_pays_when_as_much_is_to_come() {
        // To save 20 ms each, 0.5 s to form and 10 ms for each of 164 tokens.
        assert!(!pace(64, 1000).pays(164, [0.04, 0.02]));
        // 128 tokens save 2.6 s, 0.5 s and 2.28 s are to be paid; 192 save 3.8 s for 3.4 s.
        assert!(!pace(128, 1000).pays(228, [0.04, 0.02]));
        assert!(pace(192, 1000).pays(292, [0.04, 0.02]));
    }

    #[test]
    fn it_does_not_pay_at_the_end_nor_where_nothing_is_gained() {
        assert!(!pace(192, 100).pays(292, [0.04, 0.02]));
        assert!(!pace(1920, 2000).pays(2020, [0.04, 0.04]));
        assert!(!pace(1920, 2000).pays(2020, [0.04, 0.05]));
        assert!(!pace(1920, 2000).pays(2020, [0.04, f64::INFINITY]));
    }

    #[test]
    fn it_is_looked_at_now_and_then() {
        assert!(!Pace::default().is_due());
        let due: Vec<_> = (0..100).filter(|passes| pace(*passes, 1).is_due()).collect();
        assert_eq!(due, [32, 64, 96]);
        let mut pace = pace(32, 1);
        pace.formed(MS);
        assert!(!pace.is_due());
    }
}
