//! What is in the KV cache, token by token: enough to compute it again where it is lost with a session.

use dair_core::exec::{CacheCopy, Run};

/// One sequence.
#[derive(Clone, Debug, Default)]
struct Sequence {
    /// From position 0 on.
    tokens: Vec<u32>,
    /// How many of them are in the cache; the others were, before the last session was lost.
    cached: usize,
    /// Somebody has computed behind a gap: what is in the cache is not known.
    has_gap: bool,
}

/// All sequences that the cache has room for.
#[derive(Clone, Debug)]
pub struct History {
    sequences: Vec<Sequence>,
}

impl History {
    /// So many sequences, of which nothing is computed.
    pub fn of(slots: u32) -> Self {
        Self { sequences: vec![Sequence::default(); slots as usize] }
    }

    /// Tokens of a sequence that need not be given again, from position 0 on.
    pub fn tokens(&self, slot: u32) -> &[u32] {
        self.sequences.get(slot as usize).map_or(&[], |sequence| &sequence.tokens)
    }

    /// Tokens of all sequences that are in the cache.
    pub fn cached(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.cached).sum()
    }

    /// A run is about to be computed: what stands behind its position is no more.
    pub fn begin(&mut self, run: &Run) {
        let Some(sequence) = self.sequences.get_mut(run.slot as usize) else { return };
        let position = run.position as usize;
        sequence.has_gap = position > sequence.tokens.len() || (sequence.has_gap && position > 0);
        sequence.tokens.truncate(if sequence.has_gap { 0 } else { position });
        sequence.cached = sequence.cached.min(sequence.tokens.len());
    }

    /// It is computed: these are its tokens.
    pub fn end(&mut self, run: &Run, tokens: &[u32]) {
        if let Some(sequence) = self.sequences.get_mut(run.slot as usize).filter(|sequence| !sequence.has_gap) {
            sequence.tokens.extend_from_slice(tokens);
            sequence.cached = sequence.tokens.len();
        }
    }

    /// A sequence has the beginning of another one from now on; if `is_copied`, as far as that is in the cache it is there, too.
    pub fn copy(&mut self, copy: CacheCopy, is_copied: bool) {
        let Some(source) = self.sequences.get(copy.from as usize) else { return };
        let tokens = source.tokens[..source.tokens.len().min(copy.positions as usize)].to_vec();
        let cached = if is_copied { source.cached.min(tokens.len()) } else { 0 };
        if let Some(sequence) = self.sequences.get_mut(copy.to as usize) {
            *sequence = Sequence { tokens, cached, has_gap: false };
        }
    }

    /// Tokens of a sequence that are in the cache.
    pub fn in_cache(&self, slot: u32) -> &[u32] {
        self.sequences.get(slot as usize).map_or(&[], |sequence| &sequence.tokens[..sequence.cached])
    }

    /// A sequence has these tokens from now on, all of them in the cache.
    pub fn restored(&mut self, slot: u32, tokens: &[u32]) {
        if let Some(sequence) = self.sequences.get_mut(slot as usize) {
            *sequence = Sequence { tokens: tokens.to_vec(), cached: tokens.len(), has_gap: false };
        }
    }

    /// The cache is lost.
    pub fn lose(&mut self) {
        self.sequences.iter_mut().for_each(|sequence| sequence.cached = 0);
    }

    /// What is to be computed again before a run can be: its first position, and its tokens. Nothing, where that is not known.
    pub fn missing(&self, run: &Run) -> Option<(u32, &[u32])> {
        let sequence = self.sequences.get(run.slot as usize)?;
        let missing = sequence.tokens.get(sequence.cached..run.position as usize)?;
        (!missing.is_empty()).then_some((sequence.cached as u32, missing))
    }

    /// So many more tokens of a sequence are in the cache again.
    pub fn regain(&mut self, slot: u32, tokens: usize) {
        self.sequences[slot as usize].cached += tokens;
    }

    /// Whether a run stands on what is lost and can't be computed again.
    pub fn is_lost(&self, run: &Run) -> bool {
        self.sequences.get(run.slot as usize).is_some_and(|sequence| sequence.has_gap && run.position > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dair_core::exec::Logits;

    fn run(slot: u32, position: u32, rows: u32) -> Run {
        Run { slot, ..Run::new(position, rows, Logits::None) }
    }

    fn compute(history: &mut History, run: &Run, tokens: &[u32]) {
        history.begin(run);
        history.end(run, tokens);
    }

    #[test]
    fn what_was_computed_last_at_a_position_counts() {
        let mut history = History::of(2);
        compute(&mut history, &run(1, 0, 4), &[1, 2, 3, 4]);
        compute(&mut history, &run(1, 2, 1), &[9]);
        assert_eq!((history.tokens(1), history.tokens(0), history.tokens(7)), (&[1, 2, 9][..], &[][..], &[][..]));
        // A pass that fails leaves what stands before it.
        history.begin(&run(1, 1, 3));
        assert_eq!(history.tokens(1), [1]);
    }

    #[test]
    fn what_is_lost_is_missing_up_to_the_position_of_a_run() {
        let mut history = History::of(1);
        compute(&mut history, &run(0, 0, 5), &[1, 2, 3, 4, 5]);
        assert_eq!(history.missing(&run(0, 5, 1)), None);
        history.lose();
        assert_eq!(history.missing(&run(0, 0, 1)), None);
        assert_eq!(history.missing(&run(0, 3, 1)), Some((0, &[1, 2, 3][..])));
        history.regain(0, 2);
        assert_eq!(history.missing(&run(0, 3, 1)), Some((2, &[3][..])));
        history.begin(&run(0, 1, 1));
        history.end(&run(0, 1, 1), &[8]);
        assert_eq!((history.tokens(0), history.missing(&run(0, 2, 1))), (&[1, 8][..], None));
    }

    #[test]
    fn a_copy_has_what_was_in_the_cache_and_the_rest_is_missing() {
        let mut history = History::of(3);
        compute(&mut history, &run(0, 0, 4), &[1, 2, 3, 4]);
        compute(&mut history, &run(1, 0, 2), &[9, 9]);
        let copy = |to, positions| CacheCopy { from: 0, to, positions };
        history.copy(copy(1, 3), true);
        assert_eq!((history.tokens(1), history.missing(&run(1, 3, 1))), (&[1, 2, 3][..], None));
        history.copy(copy(2, 3), false);
        assert_eq!(history.missing(&run(2, 3, 1)), Some((0, &[1, 2, 3][..])));
        history.lose();
        history.regain(0, 2);
        history.copy(copy(1, 3), true);
        assert_eq!(history.missing(&run(1, 3, 1)), Some((2, &[3][..])));
        // More than there is, and from a place that there is not.
        history.copy(copy(1, 9), true);
        history.copy(CacheCopy { from: 7, to: 1, positions: 1 }, true);
        assert_eq!(history.tokens(1), [1, 2, 3, 4]);
    }

    #[test]
    fn behind_a_gap_nothing_is_known_before_the_sequence_begins_anew() {
        let mut history = History::of(1);
        compute(&mut history, &run(0, 7, 1), &[1]);
        compute(&mut history, &run(0, 8, 1), &[2]);
        assert!(history.tokens(0).is_empty() && history.is_lost(&run(0, 9, 1)));
        assert!(!history.is_lost(&run(0, 0, 1)));
        compute(&mut history, &run(0, 0, 1), &[3]);
        assert_eq!(history.tokens(0), [3]);
        assert!(!history.is_lost(&run(0, 1, 1)));
    }
}
