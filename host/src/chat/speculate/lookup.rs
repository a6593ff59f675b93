//! Proposals by lookup: where the last tokens stood before, what followed them there may follow again.

use super::{Kind, Proposer};
use crate::cluster::error::RootError;
use std::collections::HashMap;

/// Earlier places that are looked at, the latest first.
const PLACES: usize = 32;
/// Equal tokens that are counted at a place: more say no more.
const LONGEST: usize = 32;

/// Finds the last tokens among those before them: the place where most are the same, of equals the latest.
#[derive(Debug, Default)]
pub struct Lookup {
    /// Of each two neighbours, where the second one stood last.
    last: HashMap<(u32, u32), u32>,
    /// Of each place, the one before it with the same two neighbours; itself if there is none.
    before: Vec<u32>,
    /// What follows the best place, as an index, and how far back it lies.
    found: Option<usize>,
}

impl Lookup {
    /// A lookup that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in all neighbours but the last two, which are looked for.
    fn follow(&mut self, tokens: &[u32]) {
        for place in self.before.len()..tokens.len().saturating_sub(1) {
            let before = match place.checked_sub(1) {
                Some(left) => self.last.insert((tokens[left], tokens[place]), place as u32),
                None => None,
            };
            self.before.push(before.unwrap_or(place as u32));
        }
    }

    /// The place where the most of the last tokens stand, two at least, and how many.
    fn find(&self, tokens: &[u32]) -> Option<(usize, usize)> {
        let [.., left, right] = tokens else { return None };
        let mut place = *self.last.get(&(*left, *right))? as usize;
        let mut best = (0, 0);
        for _ in 0..PLACES {
            let same = |(a, b): &(&u32, &u32)| a == b;
            let backwards = tokens[..=place].iter().rev().zip(tokens.iter().rev());
            let equal = backwards.take(LONGEST).take_while(same).count();
            if equal > best.1 {
                best = (place, equal);
            }
            let before = self.before[place] as usize;
            if before == place || equal == LONGEST {
                break;
            }
            place = before;
        }
        Some(best)
    }
}

impl Proposer for Lookup {
    fn begin(&mut self) {
        self.last.clear();
        self.before.clear();
        self.found = None;
    }

    fn look(&mut self, tokens: &[u32]) -> Option<Kind> {
        self.follow(tokens);
        let (place, equal) = self.find(tokens)?;
        self.found = Some(place + 1);
        Some(match equal {
            ..=2 => Kind::Two,
            3 => Kind::Three,
            4..=7 => Kind::Some,
            8.. => Kind::Many,
        })
    }

    fn propose(&mut self, tokens: &[u32], count: usize, out: &mut Vec<u32>) -> Result<(), RootError> {
        let Some(start) = self.found.take() else { return Ok(()) };
        // What follows may reach the end: there it goes on with what is proposed itself.
        let period = tokens.len() - start;
        out.extend((0..count).map(|index| tokens[start + index % period]));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(tokens: &[u32], count: usize) -> Option<(Kind, Vec<u32>)> {
        let (mut lookup, mut out) = (Lookup::new(), Vec::new());
        let kind = lookup.look(tokens)?;
        lookup.propose(tokens, count, &mut out).unwrap();
        Some((kind, out))
    }

    #[test]
    fn what_followed_the_last_tokens_is_proposed() {
        assert_eq!(proposed(&[1, 2, 3, 4, 5, 9, 2, 3], 2), Some((Kind::Two, vec![4, 5])));
        assert_eq!(proposed(&[1, 2, 3, 4, 5, 1, 2, 3], 3), Some((Kind::Three, vec![4, 5, 1])));
        assert_eq!(proposed(&[1, 2, 3, 4, 5, 1, 2, 3, 4], 1), Some((Kind::Some, vec![5])));
        let twice: Vec<u32> = (0..20).chain(0..8).collect();
        assert_eq!(proposed(&twice, 4), Some((Kind::Many, vec![8, 9, 10, 11])));
    }

    #[test]
    fn nothing_is_proposed_where_two_tokens_are_new() {
        for tokens in [&[][..], &[1], &[1, 1], &[1, 2], &[1, 2, 3, 4], &[1, 2, 3, 2], &[2, 3, 3, 2]] {
            assert_eq!(proposed(tokens, 4), None, "{tokens:?}");
        }
    }

    #[test]
    fn the_longest_match_wins_and_of_equals_the_latest() {
        assert_eq!(proposed(&[7, 1, 2, 50, 8, 1, 2, 60, 7, 1, 2], 1), Some((Kind::Three, vec![50])));
        assert_eq!(proposed(&[7, 1, 2, 50, 7, 1, 2, 60, 7, 1, 2], 1), Some((Kind::Three, vec![60])));
        assert_eq!(proposed(&[7, 1, 2, 50, 8, 1, 2, 60, 9, 1, 2], 1), Some((Kind::Two, vec![60])));
    }

    #[test]
    fn what_repeats_itself_goes_on_behind_the_end() {
        assert_eq!(proposed(&[9, 4, 4, 4], 3), Some((Kind::Two, vec![4, 4, 4])));
        assert_eq!(proposed(&[1, 2, 3, 1, 2, 3, 1, 2], 5), Some((Kind::Some, vec![3, 1, 2, 3, 1])));
    }

    /// Beside a search that looks everywhere, which is what the index stands for.
    #[test]
    fn an_index_that_grows_finds_what_a_search_finds() {
        let mut state = 12345_u32;
        let mut lookup = Lookup::new();
        for alphabet in [2, 3, 8, 40] {
            lookup.begin();
            let mut tokens = Vec::new();
            let mut found = 0;
            for _ in 0..400 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                tokens.push((state >> 16) % alphabet);
                let equal_at = |place: usize| {
                    tokens[..=place]
                        .iter()
                        .rev()
                        .zip(tokens.iter().rev())
                        .take(LONGEST)
                        .take_while(|(a, b)| a == b)
                        .count()
                };
                let places = (1..tokens.len().saturating_sub(1)).rev().filter(|place| equal_at(*place) >= 2);
                let mut best: Option<(usize, usize)> = None;
                for place in places.take(PLACES) {
                    if best.is_none_or(|(_, most)| equal_at(place) > most) {
                        best = Some((place, equal_at(place)));
                    }
                }
                lookup.look(&tokens);
                assert_eq!(lookup.find(&tokens), best, "{tokens:?}");
                found += u32::from(best.is_some());
            }
            assert!(found > 20, "of {alphabet} tokens few repeat: {found}");
        }
    }
}
