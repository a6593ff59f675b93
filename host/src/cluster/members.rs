//! The workers that a root knows of, and those of them that it looks for because they were lost.

use crate::cluster::choose::Wish;
use crate::cluster::newcomers::Newcomers;
use crate::cluster::options::Options;
use crate::cluster::planner::facts::Facts;
use crate::cluster::workers;
use crate::net::native::{self, Called};
use crate::net::{Address, Keys, NetError, Timeouts};
use dair_core::plan::coordinator::{Coordinator, Next, Seen, Verdict};
use dair_core::plan::membership::Membership;
use dair_core::wire::native::HasModel;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// All workers of a root, by their place in its list.
#[derive(Debug)]
pub struct Members {
    shared: Arc<Shared>,
    newcomers: Option<Newcomers>,
}

#[derive(Debug)]
struct Shared {
    timeouts: Timeouts,
    keys: Keys,
    /// What they must have.
    wanted: Option<HasModel>,
    start: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    root: Coordinator,
    addresses: Vec<Address>,
    /// What those who are back say of themselves.
    found: BTreeMap<usize, Facts>,
    /// There is a thread that looks for those who are out.
    is_searched: bool,
    is_over: bool,
}

impl Members {
    /// The workers of `options`, none of which is known to be gone; they must have the model that is `wanted`.
    pub fn new(options: &Options, wanted: Option<HasModel>) -> Self {
        let (addresses, timeouts, keys) = (options.workers.clone(), options.timeouts, options.keys.clone());
        let root = Coordinator::of(Membership::of(addresses.len()));
        let state = Mutex::new(State { root, addresses, found: BTreeMap::new(), is_searched: false, is_over: false });
        let shared = Shared { timeouts, keys, wanted, start: Instant::now(), state, changed: Condvar::new() };
        let shared = Arc::new(shared);
        // Shares are for those who were named.
        let newcomers = options.newcomers.clone().filter(|_| !matches!(options.wish, Wish::Given(..)));
        if let Some(newcomers) = &newcomers {
            let shared = Arc::clone(&shared);
            newcomers.hear(Box::new(move |address| knock(&shared, address)));
        }
        Self { shared, newcomers }
    }

    /// Whom to call for a session.
    pub fn callable(&self) -> Vec<usize> {
        self.shared.lock().root.members().callable().collect()
    }

    /// Where all of them listen.
    pub fn addresses(&self) -> Vec<Address> {
        self.shared.lock().addresses.clone()
    }

    /// Where a worker listens.
    pub fn address(&self, worker: usize) -> Address {
        self.shared.lock().addresses[worker].clone()
    }

    /// The worker that messages call so.
    pub fn named(&self, peer: &str) -> Option<usize> {
        self.shared.lock().addresses.iter().position(|address| peer == format!("worker {address}"))
    }

    /// A worker takes part, or could; whether it was left out before.
    pub fn joined(&self, worker: usize) -> bool {
        self.shared.lock().root.members_mut().joined(worker, self.shared.start.elapsed())
    }

    /// Those who are back, and what they say of themselves.
    pub fn back(&self) -> Vec<(usize, Facts)> {
        let state = self.shared.lock();
        state.root.members().back().filter_map(|worker| Some((worker, *state.found.get(&worker)?))).collect()
    }

    /// A request begins.
    pub fn begin(&self) {
        self.shared.lock().root.begin();
    }

    /// What becomes of the session, where a request begins.
    pub fn look(&self, seen: &Seen<'_>) -> Verdict {
        let verdict = self.shared.lock().root.look(seen, self.shared.start.elapsed());
        search(&self.shared);
        verdict
    }

    /// The number of a session that is about to be formed.
    pub fn form(&self) -> u32 {
        self.shared.lock().root.form()
    }

    /// It is the fault of these that a session is not formed, or has failed; they are looked for from now on.
    pub fn failed(&self, workers: impl IntoIterator<Item = usize>) -> Next {
        let next = self.shared.lock().root.failed(workers, self.shared.start.elapsed());
        search(&self.shared);
        next
    }

    /// A pass is computed.
    pub fn computed(&self) {
        self.shared.lock().root.computed();
    }
}

/// Looks for those who are out, if there are any, in a thread. Without one, they come back with the next root.
fn search(shared: &Arc<Shared>) {
    let mut state = shared.lock();
    if state.root.members().next_due().is_none() {
        return;
    }
    shared.changed.notify_all();
    if !state.is_searched {
        let shared = Arc::clone(shared);
        state.is_searched = thread::Builder::new().name("members".into()).spawn(move || shared.search()).is_ok();
    }
}

/// A worker says that it is there.
fn knock(shared: &Arc<Shared>, address: Address) {
    let mut state = shared.lock();
    let known = state.addresses.iter().position(|other| *other == address);
    if state.root.members_mut().knocks(known, shared.start.elapsed()).is_some() && known.is_none() {
        state.addresses.push(address);
    }
    drop(state);
    search(shared);
}

impl Drop for Members {
    fn drop(&mut self) {
        if let Some(newcomers) = &self.newcomers {
            newcomers.end();
        }
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn search(&self) {
        let mut state = self.lock();
        while !state.is_over {
            let now = self.start.elapsed();
            let due: Vec<_> = state.root.members().due(now).collect();
            if due.is_empty() {
                let wait = state.root.members().next_due().map_or(Duration::MAX, |due| due.saturating_sub(now));
                let waited = self.changed.wait_timeout(state, wait.min(Duration::from_secs(3600)));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let addresses: Vec<_> = due.iter().map(|worker| state.addresses[*worker].clone()).collect();
            drop(state);
            let answers = native::call_each(&addresses, (&self.timeouts.brief(), &self.keys), |_| ());
            let facts_of = |answer: &Result<Option<Called>, NetError>| {
                let called = answer.as_ref().ok()?.as_ref()?;
                let fits = self.wanted.as_ref().is_none_or(|wanted| workers::check_model(called, wanted).is_ok());
                let fits = fits && workers::check_version(called).is_ok() && workers::check_free(called).is_ok();
                fits.then(|| Facts::of(called))
            };
            let here: Vec<_> = answers.map_or_else(|_| vec![None; due.len()], |all| all.iter().map(facts_of).collect());
            state = self.lock();
            for (worker, facts) in due.into_iter().zip(here) {
                match facts {
                    Some(facts) => {
                        state.found.insert(worker, facts);
                        state.root.members_mut().answered(worker);
                    }
                    None => state.root.members_mut().lost(worker, self.start.elapsed()),
                }
            }
        }
    }
}
