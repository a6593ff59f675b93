//! What makes tokens less probable, or takes them out, before temperature and top-p.

use super::Candidate;

/// What narrows the choice before temperature and top-p do, with the meaning that it has in llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filters {
    /// As many of the most probable tokens are left; 0 leaves all.
    pub top_k: u32,
    /// Tokens less probable than this share of the most probable one go away; 0 leaves all.
    pub min_p: f32,
    /// Positive logits of tokens that came up lately are divided by it, others multiplied; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Taken off the logits of tokens that came up lately.
    pub presence_penalty: f32,
    /// Taken off them once for each time that they came up.
    pub frequency_penalty: f32,
    /// How many of the last tokens count as lately.
    pub last_n: u32,
}

impl Filters {
    /// None.
    pub const OFF: Self =
        Self { top_k: 0, min_p: 0.0, repeat_penalty: 1.0, presence_penalty: 0.0, frequency_penalty: 0.0, last_n: 0 };

    /// The lowest logit that `min_p` leaves beside the highest one, if it takes out any.
    pub(super) fn lowest(&self, highest: f32) -> Option<f32> {
        // e^(logit - highest) is how probable a token is beside the most probable one.
        (self.min_p > 0.0).then(|| highest + libm::logf(self.min_p))
    }

    pub(super) fn has_penalties(&self) -> bool {
        self.last_n > 0 && (self.repeat_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0)
    }
}

/// Makes tokens that came up lately less probable.
pub(super) fn penalize(logits: &mut [f32], recent: &[u32], filters: &Filters, scratch: &mut [Candidate]) {
    let count = recent.len().min(filters.last_n as usize).min(scratch.len());
    let lately = &mut scratch[..count];
    for (slot, id) in lately.iter_mut().zip(&recent[recent.len() - count..]) {
        *slot = Candidate { p: 0.0, id: *id };
    }
    lately.sort_unstable_by_key(|candidate| candidate.id);
    for same in lately.chunk_by(|a, b| a.id == b.id) {
        let Some(logit) = logits.get_mut(same[0].id as usize) else { continue };
        *logit = if *logit > 0.0 { *logit / filters.repeat_penalty } else { *logit * filters.repeat_penalty };
        *logit -= filters.presence_penalty + filters.frequency_penalty * same.len() as f32;
    }
}

/// Takes tokens out of the choice, so that their probability becomes 0: all but the `top_k` most probable (of equals those
/// with lower ids), and those below `min_p` of the most probable one.
pub(super) fn narrow(logits: &mut [f32], most_probable: u32, filters: &Filters, scratch: &mut [Candidate]) {
    let k = filters.top_k as usize;
    if k > 0 && k < logits.len() {
        let candidates = &mut scratch[..logits.len()];
        for ((slot, logit), id) in candidates.iter_mut().zip(&*logits).zip(0..) {
            *slot = Candidate { p: *logit, id };
        }
        candidates.select_nth_unstable_by(k, |a, b| b.p.total_cmp(&a.p).then(a.id.cmp(&b.id)));
        for candidate in &candidates[k..] {
            logits[candidate.id as usize] = f32::NEG_INFINITY;
        }
    }
    if let Some(lowest) = filters.lowest(logits[most_probable as usize]) {
        for logit in logits {
            *logit = if *logit < lowest { f32::NEG_INFINITY } else { *logit };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sampler, tests::sample};
    use super::*;
    use std::{vec, vec::Vec};

    #[test]
    fn filters_leave_what_they_say() {
        let logits = [2.0, 1.0, 3.0, 1.0, 0.0];
        let drawn = |filters: Filters| {
            let mut sampler = Sampler::new(2.0, 1.0, 5).unwrap().with(filters);
            let mut seen = [false; 5];
            (0..2000).for_each(|_| seen[sample(&mut sampler, &logits).unwrap() as usize] = true);
            (0..5).filter(|id| seen[*id]).collect::<Vec<_>>()
        };
        assert_eq!(drawn(Filters::OFF), [0, 1, 2, 3, 4]);
        assert_eq!(drawn(Filters { top_k: 3, ..Filters::OFF }), [0, 1, 2], "of equals the lower id");
        assert_eq!(drawn(Filters { top_k: 9, ..Filters::OFF }), [0, 1, 2, 3, 4]);
        // e^-1 is 0.37, e^-2 0.14; the temperature does not matter.
        assert_eq!(drawn(Filters { min_p: 0.36, ..Filters::OFF }), [0, 2]);
        assert_eq!(drawn(Filters { min_p: 0.13, ..Filters::OFF }), [0, 1, 2, 3]);
        assert_eq!(drawn(Filters { min_p: 1.0, ..Filters::OFF }), [2]);
    }

    #[test]
    fn penalties_count_the_last_tokens() {
        let filters =
            Filters { repeat_penalty: 2.0, presence_penalty: 0.5, frequency_penalty: 0.25, last_n: 4, ..Filters::OFF };
        let mut logits = [4.0, -4.0, 1.0, 3.0];
        let mut scratch = vec![Candidate::default(); 4];
        // Token 3 came up too long ago, and 9 is none.
        penalize(&mut logits, &[3, 0, 1, 0, 9], &filters, &mut scratch);
        assert_eq!(logits, [4.0 / 2.0 - 0.5 - 0.5, -4.0 * 2.0 - 0.5 - 0.25, 1.0, 3.0]);
        let mut greedy =
            Sampler::new(0.0, 1.0, 1).unwrap().with(Filters { repeat_penalty: 3.0, last_n: 64, ..Filters::OFF });
        assert_eq!(greedy.sample(&mut [2.0, 3.0, 1.0], &[1], &mut scratch), Ok(0));
        assert_eq!(greedy.sample(&mut [2.0, 3.0, 1.0], &[], &mut scratch), Ok(1));
    }
}
