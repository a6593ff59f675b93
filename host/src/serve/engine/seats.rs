//! Which place of the KV cache an answer gets: one whose tokens its prompt begins with, if there is one.
//!
//! Places keep what was computed in them until somebody else needs them, so that the next turn of a conversation, or another
//! question below the same instructions, is computed from where it differs.

/// The places of the KV cache.
#[derive(Debug)]
pub struct Seats {
    /// When each was used last; nothing while it is taken.
    used: Vec<Option<u64>>,
    now: u64,
}

/// A seat, and how it comes to what need not be computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Which one.
    pub slot: u32,
    /// So many tokens of the prompt are computed already.
    pub reused: u32,
    /// Where they are, if that is another seat, from which they are to be copied.
    pub from: Option<u32>,
}

/// Fewer tokens are computed again rather than copied.
const WORTH_COPYING: usize = 16;

impl Seats {
    /// So many, all free.
    pub fn of(slots: u32) -> Self {
        Self { used: vec![Some(0); slots as usize], now: 0 }
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.used.iter().flatten().count()
    }

    /// Takes a free seat for `tokens`, where `computed` says what is in each seat. One token is always left to be computed,
    /// because its logits are asked for.
    ///
    /// A seat whose tokens go on as the prompt does is taken itself where most of it is of use; else it stays as it is, and the
    /// seat that was left longest ago gets a copy.
    pub fn take<'c>(&mut self, tokens: &[u32], computed: impl Fn(u32) -> &'c [u32]) -> Option<Seat> {
        let common = |slot: u32| {
            let same = computed(slot).iter().zip(tokens).take_while(|(a, b)| a == b).count();
            same.min(tokens.len().saturating_sub(1))
        };
        let free = |slot: &u32| self.used[*slot as usize].is_some();
        let slots = || 0..self.used.len() as u32;
        // Of equals the one that was left longest ago.
        let oldest = |slot: &u32| std::cmp::Reverse(self.used[*slot as usize]);
        let own = slots().filter(free).max_by_key(|slot| (common(*slot), oldest(slot)))?;
        let is_its_own = |slot: u32| 2 * common(slot) >= computed(slot).len();
        let place = |slot, reused: usize, from| Seat { slot, reused: reused as u32, from };
        let seat = if is_its_own(own) {
            place(own, common(own), None)
        } else {
            // An empty one costs nobody anything.
            let victim = slots().filter(free).max_by_key(|slot| (computed(*slot).is_empty(), oldest(slot)))?;
            place(victim, common(victim), None)
        };
        let source = slots().max_by_key(|slot| common(*slot));
        let better = source.filter(|source| common(*source) >= seat.reused as usize + WORTH_COPYING);
        let seat = better.map_or(seat, |source| place(seat.slot, common(source), Some(source)));
        self.used[seat.slot as usize] = None;
        Some(seat)
    }

    /// A seat is free again; what is in it stays for whoever can use it.
    pub fn leave(&mut self, slot: u32) {
        self.now += 1;
        self.used[slot as usize] = Some(self.now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(slot: u32, reused: u32, from: Option<u32>) -> Option<Seat> {
        Some(Seat { slot, reused, from })
    }

    /// Tokens `start`, `start + 1`, … .
    fn tokens(start: u32, len: u32) -> Vec<u32> {
        (start..start + len).collect()
    }

    #[test]
    fn a_conversation_comes_back_to_its_own_seat() {
        let mut seats = Seats::of(3);
        let held = [tokens(100, 40), tokens(200, 40), Vec::new()];
        let computed = |slot: u32| &held[slot as usize][..];
        assert_eq!(seats.take(&tokens(200, 60), computed), seat(1, 40, None));
        assert_eq!(seats.take(&tokens(100, 40), computed), seat(0, 39, None), "one is computed");
        assert_eq!((seats.take(&tokens(7, 3), computed), seats.free()), (seat(2, 0, None), 0));
        assert_eq!(seats.take(&tokens(7, 3), computed), None, "all are taken");
        seats.leave(1);
        assert_eq!(seats.take(&tokens(7, 3), computed), seat(1, 0, None));
    }

    #[test]
    fn the_seat_that_was_left_longest_ago_is_given_away() {
        let mut seats = Seats::of(3);
        let held = [tokens(100, 40), tokens(200, 40), tokens(300, 40)];
        let computed = |slot: u32| &held[slot as usize][..];
        for slot in [0, 1, 2] {
            assert!(seats.take(&tokens(100 * (slot + 1), 50), computed).is_some());
        }
        [1, 2, 0].into_iter().for_each(|slot| seats.leave(slot));
        assert_eq!(seats.take(&tokens(7, 3), computed), seat(1, 0, None));
    }

    #[test]
    fn a_beginning_that_others_share_is_copied_and_they_keep_theirs() {
        let mut seats = Seats::of(2);
        let held = [tokens(100, 400), Vec::new()];
        let computed = |slot: u32| &held[slot as usize][..];
        let other = [tokens(100, 50), tokens(900, 9)].concat();
        assert_eq!(seats.take(&other, computed), seat(1, 50, Some(0)));
        seats.leave(1);
        // From one that is taken, too.
        assert_eq!(seats.take(&tokens(100, 500), computed), seat(0, 400, None));
        assert_eq!(seats.take(&other, computed), seat(1, 50, Some(0)));
        seats.leave(1);
        assert_eq!(seats.take(&tokens(100, 9), computed), seat(1, 0, None), "so few are computed again");
    }
}
