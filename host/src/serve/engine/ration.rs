//! How many tokens of prompts go along with answers in progress, so that those hardly become slower.

use std::time::Duration;

/// What passes take, as far as they were seen.
#[derive(Clone, Copy, Debug)]
pub struct Ration {
    /// Seconds of a pass of answers alone.
    plain: Option<f64>,
    /// Seconds that each token of a prompt adds to it.
    row: Option<f64>,
}

/// A pass with prompts takes so many times as long as one without.
const SHARE: f64 = 0.8;
/// Before anything is known, and at least: prompts must come to an end, too.
const FIRST_ROWS: u32 = 8;
const LEAST_ROWS: u32 = 2;
/// How much the last pass counts.
const WEIGHT: f64 = 0.25;

impl Ration {
    /// Nothing is known.
    pub const fn new() -> Self {
        Self { plain: None, row: None }
    }

    /// How many rows of prompts, of at most `most`, go into a pass beside so many of `answers`.
    pub fn rows(&self, answers: usize, most: u32) -> u32 {
        if answers == 0 {
            return most;
        }
        let rows = match (self.plain, self.row) {
            (Some(plain), Some(row)) => (SHARE * plain / row.max(1e-9)).min(f64::from(u32::MAX)) as u32,
            _ => FIRST_ROWS,
        };
        rows.max(LEAST_ROWS).min(most)
    }

    /// A pass of so many rows of answers and of prompts took that long.
    pub fn took(&mut self, answers: usize, prompts: u32, time: Duration) {
        let time = time.as_secs_f64();
        let blend = |old: &mut Option<f64>, new: f64| {
            *old = Some(old.map_or(new, |old| old + WEIGHT * (new - old)));
        };
        match (answers, prompts, self.plain) {
            (1.., 0, _) => blend(&mut self.plain, time),
            (1.., _, Some(plain)) => blend(&mut self.row, (time - plain).max(0.0) / f64::from(prompts)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a machine that takes `plain` for answers and `row` more for each token of a prompt; the rows in the end.
    fn settled(plain: f64, row: f64) -> u32 {
        let mut ration = Ration::new();
        for _ in 0..50 {
            ration.took(3, 0, Duration::from_secs_f64(plain));
            let rows = ration.rows(3, 128);
            ration.took(3, rows, Duration::from_secs_f64(plain + row * f64::from(rows)));
        }
        ration.rows(3, 128)
    }

    #[test]
    fn a_pass_with_prompts_takes_less_than_twice_as_long() {
        assert_eq!(settled(0.024, 0.004), 4);
        assert_eq!(settled(0.024, 0.0001), 128, "where rows cost little, as when weights come from a disk");
        assert_eq!(settled(0.024, 1.0), LEAST_ROWS, "prompts come to an end");
    }

    #[test]
    fn where_nobody_waits_for_tokens_prompts_have_the_whole_pass() {
        let mut ration = Ration::new();
        assert_eq!((ration.rows(0, 128), ration.rows(1, 128), ration.rows(1, 4)), (128, FIRST_ROWS, 4));
        ration.took(0, 128, Duration::from_secs(9));
        assert_eq!(ration.rows(1, 128), FIRST_ROWS, "that says nothing of small ones");
    }
}
