//! The workers that a root knows of, and those of them that it looks for because they were lost.

use crate::cluster::options::Options;
use crate::cluster::workers;
use crate::net::{Address, Keys, Timeouts, native};
use dair_core::plan::coordinator::{Coordinator, Next, Seen, Verdict};
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
    root: Coordinator,
    is_over: bool,
}

impl Members {
    /// The workers of `options`, none of which is known to be gone; they must have the model that is `wanted`.
    pub fn new(options: &Options, wanted: Option<HasModel>) -> Self {
        let (addresses, timeouts, keys) = (options.workers.clone(), options.timeouts, options.keys.clone());
        let root = Coordinator::of(Membership::of(addresses.len()));
        let state = Mutex::new(State { root, is_over: false });
        let shared =
            Shared { addresses, timeouts, keys, wanted, start: Instant::now(), state, changed: Condvar::new() };
        Self { shared: Arc::new(shared), is_looking: false }
    }

    /// Whom to call for a session.
    pub fn callable(&self) -> Vec<usize> {
        self.shared.lock().root.members().callable().collect()
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
        self.shared.lock().root.members_mut().joined(worker, self.shared.start.elapsed())
    }

    /// A request begins.
    pub fn begin(&self) {
        self.shared.lock().root.begin();
    }

    /// What becomes of the session, where a request begins.
    pub fn look(&mut self, seen: &Seen<'_>) -> Verdict {
        let verdict = self.shared.lock().root.look(seen, self.shared.start.elapsed());
        self.search();
        verdict
    }

    /// The number of a session that is about to be formed.
    pub fn form(&self) -> u32 {
        self.shared.lock().root.form()
    }

    /// It is the fault of these that a session is not formed, or has failed; they are looked for from now on.
    pub fn failed(&mut self, workers: impl IntoIterator<Item = usize>) -> Next {
        let next = self.shared.lock().root.failed(workers, self.shared.start.elapsed());
        self.search();
        next
    }

    /// A pass is computed.
    pub fn computed(&self) {
        self.shared.lock().root.computed();
    }

    /// Looks for those who are out, if there are any, in a thread. Without one, they come back with the next root.
    fn search(&mut self) {
        if self.shared.lock().root.members().next_due().is_none() {
            return;
        }
        self.shared.changed.notify_all();
        if !self.is_looking {
            let shared = Arc::clone(&self.shared);
            self.is_looking = thread::Builder::new().name("members".into()).spawn(move || shared.search()).is_ok();
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
                    state.root.members_mut().answered(worker);
                } else {
                    state.root.members_mut().lost(worker, self.start.elapsed());
                }
            }
        }
    }
}
