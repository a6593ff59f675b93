//! Workers that a root hears of while it runs, from whoever listens for them.

use crate::net::Address;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hears of a worker.
type Hook = Box<dyn Fn(Address) + Send>;

/// Where workers are announced that may be new; all clones are the same.
#[derive(Clone, Default)]
pub struct Newcomers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    hook: Option<Hook>,
    /// Nobody has heard of these so far.
    waiting: Vec<Address>,
}

/// Announced before there is a root, at most.
const WAITING_MAX: usize = 255;

impl fmt::Debug for Newcomers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.lock().waiting).finish()
    }
}

impl Newcomers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker says that it is there.
    pub fn announce(&self, address: Address) {
        let mut state = self.lock();
        match &state.hook {
            Some(hook) => hook(address),
            None if state.waiting.len() < WAITING_MAX && !state.waiting.contains(&address) => {
                state.waiting.push(address);
            }
            None => {}
        }
    }

    /// Lets `hook` hear of all workers, from now on and so far.
    pub(super) fn hear(&self, hook: Hook) {
        let mut state = self.lock();
        std::mem::take(&mut state.waiting).into_iter().for_each(&hook);
        state.hook = Some(hook);
    }

    /// Nobody hears of workers any more.
    pub(super) fn end(&self) {
        self.lock().hook = None;
    }
}
