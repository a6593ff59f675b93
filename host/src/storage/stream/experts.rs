//! Which experts are in memory: a fixed number of places, kept by how often experts were chosen lately. Without clock, threads or files.
//!
//! Every use of an expert adds to its heat, the more the later it is, which is a count that decays. The coldest goes when another one
//! is wanted, but no expert that is wanted itself, unless nothing else is left.

use std::collections::{BTreeMap, HashMap};

/// How much more a use counts than one in the pass before: one of 70 passes ago counts half.
const GROWTH: f64 = 1.01;
/// Heats are scaled down before they leave what numbers can hold.
const HEAT_MAX: f64 = 1e100;

/// A matrix of an expert: the product, in the order of the graph, and the expert. Their order is that in which they are used.
pub type Key = (u32, u32);

#[derive(Debug)]
struct Place {
    key: Option<Key>,
    is_ready: bool,
    /// Lanes that read it now.
    lanes: u32,
}

#[derive(Debug)]
struct Want<E> {
    rows_left: u32,
    failed: Option<E>,
}

/// Where a matrix is that a lane wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<E> {
    /// In this place, which does not change before [`Experts::release`].
    Ready(usize),
    /// It was not read yet.
    Wait,
    /// It can't be read.
    Failed(E),
    /// Nobody said that it would be wanted.
    Unplanned,
}

/// How often experts that were wanted were in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// They were.
    pub hits: u64,
    /// They had to be read.
    pub misses: u64,
}

impl Hits {
    /// The fraction of hits, if any were wanted.
    pub fn rate(&self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

/// Places for experts; `E` is why one could not be read.
#[derive(Debug)]
pub struct Experts<E> {
    places: Vec<Place>,
    at: HashMap<Key, usize>,
    wanted: BTreeMap<Key, Want<E>>,
    heat: HashMap<Key, f64>,
    growth: f64,
    hits: Hits,
}

impl<E: Clone> Experts<E> {
    /// With so many places.
    pub fn new(places: usize) -> Self {
        Self {
            places: (0..places).map(|_| Place { key: None, is_ready: false, lanes: 0 }).collect(),
            at: HashMap::new(),
            wanted: BTreeMap::new(),
            heat: HashMap::new(),
            growth: 1.0,
            hits: Hits::default(),
        }
    }

    /// A pass begins; nobody wants anything yet.
    pub fn begin(&mut self) {
        self.wanted.clear();
        self.growth *= GROWTH;
        if self.growth > HEAT_MAX {
            self.heat.values_mut().for_each(|heat| *heat /= HEAT_MAX);
            self.growth /= HEAT_MAX;
        }
    }

    /// A matrix of so many rows will be used.
    pub fn want(&mut self, key: Key, rows: u32) {
        if self.wanted.contains_key(&key) {
            return;
        }
        *self.heat.entry(key).or_default() += self.growth;
        if self.at.contains_key(&key) {
            self.hits.hits += 1;
        } else {
            self.hits.misses += 1;
        }
        self.wanted.insert(key, Want { rows_left: rows, failed: None });
    }

    /// What to read next, and into which place.
    pub fn next(&mut self) -> Option<(Key, usize)> {
        let is_missing = |(key, want): &(&Key, &Want<E>)| want.failed.is_none() && !self.at.contains_key(*key);
        let key = *self.wanted.iter().find(is_missing)?.0;
        let place = self.place_for(key)?;
        let Place { key: held, is_ready, .. } = &mut self.places[place];
        if let Some(old) = held.replace(key) {
            self.at.remove(&old);
        }
        *is_ready = false;
        self.at.insert(key, place);
        Some((key, place))
    }

    /// An empty place, else that of the coldest which nobody wants, else that which is wanted last, if that is behind `key`.
    fn place_for(&self, key: Key) -> Option<usize> {
        let usable = |place: &&usize| {
            let Place { key, is_ready, lanes } = &self.places[**place];
            *lanes == 0 && (key.is_none() || *is_ready)
        };
        let places: Vec<_> = (0..self.places.len()).collect();
        let mut coldest: Option<(usize, f64)> = None;
        let mut last: Option<(usize, Key)> = None;
        for place in places.iter().filter(usable) {
            let Some(held) = self.places[*place].key else { return Some(*place) };
            if self.wanted.contains_key(&held) {
                last = last.filter(|(_, other)| *other > held).or(Some((*place, held)));
                continue;
            }
            let heat = self.heat.get(&held).copied().unwrap_or(0.0);
            coldest = coldest.filter(|(_, other)| *other <= heat).or(Some((*place, heat)));
        }
        coldest.map(|(place, _)| place).or(last.filter(|(_, held)| *held > key).map(|(place, _)| place))
    }

    /// A place was filled, or could not be.
    pub fn done(&mut self, place: usize, result: Result<(), E>) {
        let Some(key) = self.places[place].key else { return };
        match result {
            Ok(()) => self.places[place].is_ready = true,
            Err(error) => {
                self.places[place].key = None;
                self.at.remove(&key);
                if let Some(want) = self.wanted.get_mut(&key) {
                    want.failed = Some(error);
                }
            }
        }
    }

    /// A lane wants a matrix, and has it if it is there.
    pub fn find(&mut self, key: Key) -> Found<E> {
        let Some(want) = self.wanted.get(&key) else { return Found::Unplanned };
        if let Some(error) = &want.failed {
            return Found::Failed(error.clone());
        }
        match self.at.get(&key) {
            Some(place) if self.places[*place].is_ready => {
                self.places[*place].lanes += 1;
                Found::Ready(*place)
            }
            _ => Found::Wait,
        }
    }

    /// A lane has used so many rows of the matrix in a place; says whether everybody has.
    pub fn release(&mut self, place: usize, rows: u32) -> bool {
        let Place { key, lanes, .. } = &mut self.places[place];
        *lanes = lanes.saturating_sub(1);
        let Some(key) = *key else { return true };
        let Some(want) = self.wanted.get_mut(&key) else { return true };
        want.rows_left = want.rows_left.saturating_sub(rows);
        if want.rows_left > 0 {
            return false;
        }
        self.wanted.remove(&key);
        true
    }

    /// So far.
    pub const fn hits(&self) -> Hits {
        self.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Plain = Experts<&'static str>;

    /// A layer that uses some experts in its three products, by one lane; returns what was read.
    fn layer(experts: &mut Plain, layer: u32, chosen: &[u32]) -> Vec<Key> {
        let keys: Vec<_> = (0..3).flat_map(|op| chosen.iter().map(move |expert| (3 * layer + op, *expert))).collect();
        keys.iter().for_each(|key| experts.want(*key, 8));
        let mut read = Vec::new();
        for key in keys {
            loop {
                while let Some((key, place)) = experts.next() {
                    read.push(key);
                    experts.done(place, Ok(()));
                }
                match experts.find(key) {
                    Found::Ready(place) => break assert!(experts.release(place, 8)),
                    other => assert_eq!(other, Found::Wait),
                }
            }
        }
        read
    }

    #[test]
    fn experts_that_are_used_often_stay() {
        let mut experts = Plain::new(9);
        let mut read = 0;
        for pass in 0..100 {
            experts.begin();
            // Two are chosen always, another one in turn.
            read = layer(&mut experts, 0, &[3, 5, 10 + pass % 4]).len();
        }
        assert_eq!(read, 3);
        let Hits { hits, misses } = experts.hits();
        assert_eq!((hits + misses, misses), (900, 9 + 99 * 3));
    }

    #[test]
    fn those_of_long_ago_go() {
        let mut experts = Plain::new(3);
        for _ in 0..50 {
            experts.begin();
            layer(&mut experts, 0, &[1]);
        }
        let mut reads = 0;
        for _ in 0..200 {
            experts.begin();
            reads += usize::from(!layer(&mut experts, 0, &[2]).is_empty());
        }
        assert!((1..100).contains(&reads), "{reads}");
    }

    #[test]
    fn few_places_are_enough_for_any_choice() {
        for places in 1..8 {
            let mut experts = Plain::new(places);
            for pass in 0..20u32 {
                experts.begin();
                for of in 0..3 {
                    let chosen: Vec<_> = (0..6).map(|i| 10 * i + (pass * 7 + of) % 3).collect();
                    layer(&mut experts, of, &chosen);
                }
            }
            assert_eq!(experts.wanted.len(), 0);
        }
    }

    #[test]
    fn a_place_that_a_lane_reads_is_not_taken() {
        let mut experts = Plain::new(1);
        experts.begin();
        experts.want((0, 0), 8);
        experts.want((0, 1), 8);
        assert_eq!(experts.next(), Some(((0, 0), 0)));
        assert_eq!((experts.next(), experts.find((0, 0))), (None, Found::Wait));
        experts.done(0, Ok(()));
        assert_eq!(experts.find((0, 0)), Found::Ready(0));
        assert_eq!(experts.find((0, 0)), Found::Ready(0));
        assert!(!experts.release(0, 4));
        assert_eq!(experts.next(), None);
        assert!(experts.release(0, 4));
        assert_eq!(experts.next(), Some(((0, 1), 0)));
        experts.done(0, Err("broken"));
        assert_eq!(experts.find((0, 1)), Found::Failed("broken"));
        experts.begin();
        assert_eq!(experts.find((0, 1)), Found::Unplanned);
    }
}
