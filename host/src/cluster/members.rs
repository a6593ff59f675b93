//! The workers that a root knows of, and those of them that it looks for because they were lost.

use crate::cluster::options::Options;
use crate::cluster::workers;
use crate::net::{Address, Keys, Timeouts, native};
use dair_core::plan::membership::Membership;
use dair_core::wire::native::HasModel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// All workers of a root, by their place in its list.
#[derive(Debug)]
pub struct Members {
    shared: Arc<Shared>,
    is_looking: bool,
}

#[derive(Debug)]
struct Shared {
    addresses: Vec<Address>,
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
    members: Membership,
    is_over: bool,
}

impl Members {
    /// The workers of `options`, none of which is known to be gone; they must have the model that is `wanted`.
    pub fn new(options: &Options, wanted: Option<HasModel>) -> Self {
        let (addresses, timeouts, keys) = (options.workers.clone(), options.timeouts, options.keys.clone());
        let state = Mutex::new(State { members: Membership::of(addresses.len()), is_over: false });
        let shared =
            Shared { addresses, timeouts, keys, wanted, start: Instant::now(), state, changed: Condvar::new() };
        Self { shared: Arc::new(shared), is_looking: false }
    }

    /// Whom to call for a session.
    pub fn callable(&self) -> Vec<usize> {
        self.shared.lock().members.callable().collect()
    }

    /// Where a worker listens.
    pub fn address(&self, worker: usize) -> &Address {
        &self.shared.addresses[worker]
    }

    /// The worker that messages call so.
    pub fn named(&self, peer: &str) -> Option<usize> {
        self.shared.addresses.iter().position(|address| peer == format!("worker {address}"))
    }

    /// A worker takes part, or could; whether it was left out before.
    pub fn joined(&self, worker: usize) -> bool {
        self.shared.lock().members.joined(worker, self.shared.start.elapsed())
    }

    /// A worker is lost; it is looked for from now on.
    pub fn lost(&mut self, worker: usize) {
        self.shared.lock().members.lost(worker, self.shared.start.elapsed());
        self.look();
    }

    /// A worker says that it ends.
    pub fn leaves(&mut self, worker: usize) {
        self.shared.lock().members.leaves(worker, self.shared.start.elapsed());
        self.look();
    }

    /// Whether somebody has come back who takes part in no session yet.
    pub fn has_news(&self) -> bool {
        self.shared.lock().members.has_news()
    }

    /// Looks for those who are out, in a thread. Without one, they come back with the next root.
    fn look(&mut self) {
        self.shared.changed.notify_all();
        if !self.is_looking {
            let shared = Arc::clone(&self.shared);
            self.is_looking = thread::Builder::new().name("members".into()).spawn(move || shared.look()).is_ok();
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let mut state = self.lock();
        while !state.is_over {
            let now = self.start.elapsed();
            let due: Vec<_> = state.members.due(now).collect();
            if due.is_empty() {
                let wait = state.members.next_due().map_or(Duration::MAX, |due| due.saturating_sub(now));
                let waited = self.changed.wait_timeout(state, wait.min(Duration::from_secs(3600)));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            drop(state);
            let addresses: Vec<_> = due.iter().map(|worker| self.addresses[*worker].clone()).collect();
            let answers = native::call_each(&addresses, (&self.timeouts.brief(), &self.keys), |_| ());
            let is_here = |answer: &Result<_, _>| {
                let Ok(Some(called)) = answer else { return false };
                let fits = self.wanted.as_ref().is_none_or(|wanted| workers::check_model(called, wanted).is_ok());
                fits && workers::check_version(called).is_ok() && workers::check_free(called).is_ok()
            };
            let here: Vec<_> = answers.map_or_else(|_| vec![false; due.len()], |all| all.iter().map(is_here).collect());
            state = self.lock();
            for (worker, is_here) in due.into_iter().zip(here) {
                if is_here {
                    state.members.answered(worker);
                } else {
                    state.members.lost(worker, self.start.elapsed());
                }
            }
        }
    }
}
