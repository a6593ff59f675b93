//! Which piece is read when, and who waits for it: a pass through the pieces of a stream, without clock, threads or files.
//!
//! ```text
//!            begin                 next              done              released by all lanes
//! a pass's pieces --> planned --> reading (a slot) --> ready --> … --> slot is free again
//! ```
//! When everything that is planned is on its way, pieces of the next pass are, as if it were like this one. [`Queue::begin`] keeps what
//! was guessed right.

use std::collections::VecDeque;

/// What becomes of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State<E> {
    Reading,
    Ready,
    Failed(E),
    /// Nobody wants it any more; its slot is free when it was read.
    Abandoned,
}

#[derive(Debug)]
struct Visit<E> {
    id: u64,
    piece: u32,
    pass: u64,
    /// None for a piece that is read to be kept.
    slot: Option<usize>,
    state: State<E>,
    rows_left: u32,
}

/// Something to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// To be told when it is done.
    pub id: u64,
    /// What.
    pub piece: u32,
    /// Into which slot; none for a piece that is kept.
    pub slot: Option<usize>,
}

/// Where a piece is that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<E> {
    /// Visit and slot.
    Ready(u64, usize),
    /// It was not read yet.
    Wait,
    /// It can't be read.
    Failed(E),
    /// Nobody said that it would be wanted.
    Unplanned,
}

/// The state of a stream; `E` is why something could not be read.
#[derive(Debug)]
pub struct Queue<E> {
    visits: VecDeque<Visit<E>>,
    /// What is still to be read.
    plan: VecDeque<u32>,
    /// All of the pass.
    pass_pieces: Vec<u32>,
    /// Whether the plan is a guess about the next pass.
    is_ahead: bool,
    free: Vec<usize>,
    pass: u64,
    next_id: u64,
    /// Why the pass has failed.
    failed: Option<E>,
}

impl<E: Clone> Queue<E> {
    /// With so many slots for pieces that do not stay.
    pub fn new(slots: usize) -> Self {
        Self {
            visits: VecDeque::new(),
            plan: VecDeque::new(),
            pass_pieces: Vec::new(),
            is_ahead: false,
            free: (0..slots).rev().collect(),
            pass: 0,
            next_id: 0,
            failed: None,
        }
    }

    /// A pass begins that reads these pieces in this order; those that are kept and in memory are not among them.
    pub fn begin(&mut self, pieces: Vec<u32>) {
        let guessed = self.pass + 1;
        let mut expected = pieces.iter();
        let mut is_right = self.is_ahead && self.failed.is_none();
        for visit in &mut self.visits {
            // What could not be read ahead is tried again.
            let is_read = !matches!(visit.state, State::Failed(_));
            is_right = is_right && (visit.pass != guessed || (is_read && expected.next() == Some(&visit.piece)));
            let goes_on = visit.slot.is_none() && matches!(visit.state, State::Reading);
            if !(goes_on || (visit.pass == guessed && is_right)) {
                visit.abandon(&mut self.free);
            }
        }
        self.visits.retain(|visit| !visit.is_abandoned() || visit.slot.is_some());
        let kept: Vec<_> = self.visits.iter().filter(|visit| visit.slot.is_none()).map(|visit| visit.piece).collect();
        let done = self.visits.iter().filter(|visit| visit.pass == guessed && !visit.is_abandoned()).count();
        self.plan = pieces[done..].iter().copied().filter(|piece| !kept.contains(piece)).collect();
        (self.pass_pieces, self.pass, self.is_ahead, self.failed) = (pieces, guessed, false, None);
    }

    /// What to read next, if there is anything and a slot for it. `stays` says of a piece whether it needs no slot, and `None` if it
    /// is in memory already.
    pub fn next(&mut self, stays: impl Fn(u32) -> Option<bool>, rows: impl Fn(u32) -> u32) -> Option<Order> {
        if self.plan.is_empty() && !self.is_ahead && self.pass > 0 {
            self.is_ahead = true;
            // What stays was read by now, or is of no hurry.
            self.plan = self.pass_pieces.iter().copied().filter(|piece| stays(*piece) == Some(false)).collect();
        }
        let piece = loop {
            let piece = *self.plan.front()?;
            if stays(piece).is_some() {
                break piece;
            }
            self.plan.pop_front();
        };
        let slot = if stays(piece) == Some(true) { None } else { Some(self.free.pop()?) };
        self.plan.pop_front();
        let (id, pass) = (self.next_id, self.pass + u64::from(self.is_ahead));
        self.next_id += 1;
        let rows_left = rows(piece);
        self.visits.push_back(Visit { id, piece, pass, slot, state: State::Reading, rows_left });
        Some(Order { id, piece, slot })
    }

    /// Something was read, or could not be.
    pub fn done(&mut self, id: u64, result: Result<(), E>) {
        let Some(at) = self.visits.iter().position(|visit| visit.id == id) else { return };
        let visit = &mut self.visits[at];
        match result {
            _ if visit.is_abandoned() => {
                self.free.extend(visit.slot);
                self.visits.remove(at);
            }
            Ok(()) if visit.slot.is_none() => {
                self.visits.remove(at);
            }
            Ok(()) => visit.state = State::Ready,
            Err(error) => {
                self.free.extend(visit.slot.take());
                visit.state = State::Failed(error);
            }
        }
    }

    /// A lane wants a piece.
    pub fn find(&mut self, piece: u32) -> Found<E> {
        if let Some(error) = &self.failed {
            return Found::Failed(error.clone());
        }
        let mut of_pass = self.visits.iter().filter(|visit| visit.pass <= self.pass && visit.rows_left > 0);
        match of_pass.find(|visit| visit.piece == piece && !visit.is_abandoned()) {
            Some(Visit { state: State::Ready, slot: Some(slot), id, .. }) => Found::Ready(*id, *slot),
            Some(Visit { state: State::Failed(error), .. }) => {
                // Lanes that wait for another piece wait no more.
                self.failed = Some(error.clone());
                Found::Failed(error.clone())
            }
            Some(_) => Found::Wait,
            None if !self.is_ahead && self.plan.contains(&piece) => Found::Wait,
            None => Found::Unplanned,
        }
    }

    /// A lane has used so many rows of a visit; says whether a slot is free again.
    pub fn release(&mut self, id: u64, rows: u32) -> bool {
        let Some(at) = self.visits.iter().position(|visit| visit.id == id) else { return false };
        let visit = &mut self.visits[at];
        visit.rows_left = visit.rows_left.saturating_sub(rows);
        if visit.rows_left > 0 {
            return false;
        }
        self.free.extend(visit.slot);
        self.visits.remove(at);
        true
    }
}

impl<E> Visit<E> {
    const fn is_abandoned(&self) -> bool {
        matches!(self.state, State::Abandoned)
    }

    /// Gives the slot back, now or when it was read.
    fn abandon(&mut self, free: &mut Vec<usize>) {
        match self.state {
            State::Reading | State::Abandoned if self.slot.is_some() => {}
            _ => free.extend(self.slot.take()),
        }
        self.state = State::Abandoned;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Plain = Queue<&'static str>;

    /// Reads what can be read; pieces from 100 on stay.
    fn read(queue: &mut Plain, loaded: &[u32]) -> Vec<u32> {
        let stays = |piece: u32| (!loaded.contains(&piece)).then_some(piece >= 100);
        let mut read = Vec::new();
        while let Some(order) = queue.next(stays, |_| 4) {
            queue.done(order.id, Ok(()));
            read.push(order.piece);
        }
        read
    }

    fn consume(queue: &mut Plain, piece: u32) {
        for _ in 0..2 {
            let Found::Ready(id, _) = queue.find(piece) else { panic!("{piece}: {:?}", queue.find(piece)) };
            queue.release(id, 2);
        }
    }

    #[test]
    fn pieces_are_read_in_order_ahead_of_those_who_want_them_and_across_passes() {
        let mut queue = Plain::new(3);
        queue.begin(vec![0, 1, 2, 3, 4]);
        assert_eq!(queue.find(0), Found::Wait);
        assert_eq!(read(&mut queue, &[]), [0, 1, 2]);
        assert_eq!(queue.find(3), Found::Wait);
        consume(&mut queue, 0);
        consume(&mut queue, 1);
        assert_eq!(read(&mut queue, &[]), [3, 4]);
        for piece in 2..5 {
            consume(&mut queue, piece);
        }
        // The next pass is guessed, and guessed right.
        assert_eq!(read(&mut queue, &[]), [0, 1, 2]);
        assert_eq!(queue.find(0), Found::Unplanned);
        queue.begin(vec![0, 1, 2, 3, 4]);
        consume(&mut queue, 0);
        assert_eq!(read(&mut queue, &[]), [3]);
    }

    #[test]
    fn a_wrong_guess_costs_what_was_read_and_no_slot() {
        let mut queue = Plain::new(3);
        queue.begin(vec![0, 1]);
        assert_eq!(read(&mut queue, &[]), [0, 1, 0]);
        consume(&mut queue, 0);
        consume(&mut queue, 1);
        assert_eq!(read(&mut queue, &[]), [1]);
        queue.begin(vec![0, 5, 6, 7]);
        assert_eq!(read(&mut queue, &[]), [5, 6]);
        for piece in [0, 5, 6] {
            consume(&mut queue, piece);
        }
        assert_eq!(read(&mut queue, &[]), [7, 0, 5]);
        consume(&mut queue, 7);
        assert_eq!(read(&mut queue, &[]), [6]);
    }

    #[test]
    fn a_pass_that_was_left_in_the_middle_gives_back_all_slots() {
        let mut queue = Plain::new(2);
        queue.begin(vec![0, 1, 2]);
        let order = queue.next(|_| Some(false), |_| 4).unwrap();
        assert_eq!(order.piece, 0);
        queue.begin(vec![3, 4]);
        // One is being read still.
        assert_eq!(read(&mut queue, &[]), [3]);
        queue.done(order.id, Ok(()));
        assert_eq!(read(&mut queue, &[]), [4]);
        consume(&mut queue, 3);
        consume(&mut queue, 4);
    }

    #[test]
    fn what_stays_is_read_once_and_takes_no_slot() {
        let mut queue = Plain::new(1);
        queue.begin(vec![100, 0, 101, 1]);
        assert_eq!(read(&mut queue, &[]), [100, 0, 101]);
        consume(&mut queue, 0);
        assert_eq!(read(&mut queue, &[100, 101]), [1]);
        consume(&mut queue, 1);
        assert_eq!(read(&mut queue, &[100, 101]), [0]);
        // It is still being read when the next pass begins.
        let mut queue = Plain::new(1);
        queue.begin(vec![100, 0]);
        let order = queue.next(|piece| Some(piece >= 100), |_| 4).unwrap();
        queue.begin(vec![100, 0]);
        assert_eq!(queue.find(100), Found::Wait);
        assert_eq!(read(&mut queue, &[]), [0]);
        queue.done(order.id, Ok(()));
        consume(&mut queue, 0);
    }

    #[test]
    fn a_failure_ends_the_waits_of_the_pass_and_is_forgotten_with_it() {
        let mut queue = Plain::new(2);
        queue.begin(vec![0, 1, 2]);
        let order = queue.next(|_| Some(false), |_| 4).unwrap();
        queue.done(order.id, Err("broken"));
        assert_eq!(queue.find(1), Found::Wait);
        assert_eq!(queue.find(0), Found::Failed("broken"));
        assert_eq!(queue.find(2), Found::Failed("broken"));
        queue.begin(vec![0, 1, 2]);
        assert_eq!(read(&mut queue, &[]), [0, 1]);
        consume(&mut queue, 0);
    }

    #[test]
    fn what_could_not_be_read_ahead_is_read_again() {
        let mut queue = Plain::new(2);
        queue.begin(vec![0]);
        assert_eq!(queue.next(|_| Some(false), |_| 4).map(|order| queue.done(order.id, Ok(()))), Some(()));
        let order = queue.next(|_| Some(false), |_| 4).unwrap();
        queue.done(order.id, Err("broken"));
        consume(&mut queue, 0);
        queue.begin(vec![0]);
        assert_eq!(read(&mut queue, &[])[0], 0);
        consume(&mut queue, 0);
    }

    #[test]
    fn a_piece_that_is_listed_twice_is_read_twice() {
        let mut queue = Plain::new(4);
        queue.begin(vec![0, 1, 0, 1]);
        assert_eq!(read(&mut queue, &[]), [0, 1, 0, 1]);
        for piece in [0, 1, 0, 1] {
            consume(&mut queue, piece);
        }
        assert_eq!(queue.find(0), Found::Unplanned);
    }

    #[test]
    fn nothing_is_guessed_before_there_was_a_pass() {
        let mut queue = Plain::new(2);
        assert_eq!(read(&mut queue, &[]), [] as [u32; 0]);
        queue.begin(vec![]);
        assert_eq!(read(&mut queue, &[]), [] as [u32; 0]);
    }
}
