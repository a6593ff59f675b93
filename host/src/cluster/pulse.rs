//! Signs of life: between passes, a root asks its workers for them, so that a loss is known before the next request.

use crate::net::native::{self, BEAT_EVERY};
use crate::net::{Mesh, NetError, Traffic};
use dair_core::wire::native::Beat;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// The links of a session, which passes and beats take in turn.
#[derive(Debug)]
pub struct SharedLinks {
    links: Mutex<Links>,
    ended: Condvar,
}

/// The links, or why they are no more.
#[derive(Debug)]
pub struct Links {
    mesh: Option<Mesh>,
    /// What had crossed them when they were last there.
    traffic: Traffic,
    lost: Option<NetError>,
    /// What workers said last, in their order.
    beats: Vec<Beat>,
}

impl SharedLinks {
    /// Links that are there.
    pub fn new(mesh: Mesh) -> Self {
        let links = Links { traffic: mesh.traffic(), mesh: Some(mesh), lost: None, beats: Vec::new() };
        Self { links: Mutex::new(links), ended: Condvar::new() }
    }

    /// Waits for its turn.
    pub fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    /// The links.
    ///
    /// # Errors
    /// Why they are no more; the reason is given once.
    pub fn mesh(&mut self) -> Result<&mut Mesh, NetError> {
        let lost = &mut self.lost;
        let gone = || NetError::Closed { peer: "a worker".into(), phase: "the session" };
        self.mesh.as_mut().ok_or_else(|| lost.take().unwrap_or_else(gone))
    }

    /// Takes the links away.
    pub fn take(&mut self) -> Option<Mesh> {
        self.traffic = self.traffic();
        self.mesh.take()
    }

    /// What has crossed them so far.
    pub fn traffic(&self) -> Traffic {
        self.mesh.as_ref().map_or(self.traffic, Mesh::traffic)
    }

    /// What workers said of themselves when they were last asked.
    pub fn beats(&self) -> &[Beat] {
        &self.beats
    }

    /// Asks for a sign of life now. Where one is missing, the links are no more.
    pub fn beat(&mut self) {
        let Some(mesh) = &mut self.mesh else { return };
        match native::beat(mesh) {
            Ok(beats) => self.beats = beats,
            Err(error) => {
                self.take();
                self.lost = Some(error);
            }
        }
    }
}

/// A thread that asks for signs of life; ends when it is dropped.
#[derive(Debug)]
pub struct Pulse {
    links: Arc<SharedLinks>,
    stop: Arc<Mutex<bool>>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// Starts to ask, every now and then.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn start(links: &Arc<SharedLinks>) -> Result<Self, NetError> {
        let stop = Arc::new(Mutex::new(false));
        let (shared, flag) = (Arc::clone(links), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("pulse".into())
            .spawn(move || {
                let mut stopped = flag.lock().unwrap_or_else(PoisonError::into_inner);
                while !*stopped {
                    let waited = shared.ended.wait_timeout(stopped, BEAT_EVERY);
                    let timeout;
                    (stopped, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    // A pass that runs is a sign of life itself.
                    if timeout.timed_out()
                        && let Ok(mut links) = shared.links.try_lock()
                    {
                        links.beat();
                    }
                }
            })
            .map_err(NetError::System)?;
        Ok(Self { links: Arc::clone(links), stop, thread: Some(thread) })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.links.ended.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
