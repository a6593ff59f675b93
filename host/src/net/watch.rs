//! Signs of life, on a connection of their own: they need not wait for passes, and whoever is silent is found while the others
//! compute.
//!
//! A root asks every worker of a session again and again. Who does not answer within the limit, or closes the connection, is lost;
//! then all links of the session are ended, so that nobody waits for what will not come. The worker's side goes by the same limit.

use super::conn::Conn;
use super::native::{Task, greet};
use super::{Address, Keys, NetError, Timeouts, printable};
use dair_core::wire::Part;
use dair_core::wire::native::{
    Beat, Failed, Message, Watch, write_beat, write_bye, write_failed, write_leaving, write_watch,
};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Signs of life within the limit of silence.
const BEATS: u32 = 8;
/// For a worker to be in a session, once it has the plan.
pub(super) const OPENING: Duration = Duration::from_secs(1);
/// Memory for the stack of a thread that asks one worker: messages are read onto it.
const STACK_BYTES: usize = 1 << 20;
/// What a thread of a machine that is busy may be late.
const LATE: Duration = Duration::from_secs(1);

/// On the root: all workers of a session.
#[derive(Debug)]
pub struct Watches {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    silence: Duration,
}

#[derive(Debug)]
struct State {
    /// In the order of nodes, from node 1 on.
    workers: Vec<Seen>,
    /// The session's links, to be ended when somebody is lost.
    streams: Vec<TcpStream>,
    /// A new one asks everybody at once.
    round: u64,
    end: Option<End>,
}

/// How a session has ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The root has said so.
    Done,
    /// It is given up.
    Failed,
}

/// What is known of a worker.
#[derive(Debug, Default)]
struct Seen {
    beat: Beat,
    /// The round that it has answered last, the first of which is 1.
    round: u64,
    lost: Option<NetError>,
    failed: Option<Blame>,
    is_leaving: bool,
}

/// Whose fault the end of a session is.
#[derive(Debug)]
pub struct Blame {
    /// This node's.
    pub node: u32,
    /// For people.
    pub reason: String,
}

/// What became of a worker.
#[derive(Debug)]
pub enum Fate {
    /// It is there.
    Alive,
    /// It is there, and can't go on with the session.
    Failed(Blame),
    /// It is not.
    Lost(NetError),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of a worker.
    fn note(&self, index: usize, change: impl FnOnce(&mut Seen)) {
        let mut state = self.lock();
        change(&mut state.workers[index]);
        self.changed.notify_all();
    }

    /// Ends the links of the session.
    fn cut(&self) {
        for stream in &self.lock().streams {
            // It may be at its end already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Asks a worker as long as the session lives.
    fn ask(
        &self,
        index: usize,
        (address, watch): (&Address, &Watch),
        (timeouts, keys): (&Timeouts, &Keys),
    ) -> Result<(), NetError> {
        let (mut conn, _) = greet(address, (timeouts, keys))?;
        conn.write_with(Part::Message, |conn| write_watch(conn, watch))?;
        loop {
            let round = self.lock().round;
            // The last word is as old as the wait for this question was.
            conn.begin(self.silence - self.silence / BEATS);
            conn.write_with(Part::Message, |conn| write_beat(conn, &Beat::default()))?;
            if self.hear(index, &mut conn)?.is_none() {
                self.note(index, |seen| seen.round = u64::MAX);
                return Ok(());
            }
            self.note(index, |seen| seen.round = round);
            let is_quiet = |state: &mut State| state.end.is_none() && state.round == round;
            let waited = self.changed.wait_timeout_while(self.lock(), self.silence / BEATS, is_quiet);
            let end = waited.unwrap_or_else(PoisonError::into_inner).0.end;
            match end {
                None => {}
                // The end of the connection says that the session has failed.
                Some(End::Failed) => return Ok(()),
                Some(End::Done) => return conn.write_with(Part::Message, write_bye),
            }
        }
    }

    /// Hears what a worker says up to its sign of life; nothing where it knows no such session, which is one, too.
    fn hear(&self, index: usize, conn: &mut Conn) -> Result<Option<()>, NetError> {
        loop {
            let said = conn.read_message(|message| match message {
                Message::Beat(beat) => Some(Said::Beat(beat)),
                Message::Failed(Failed { node, reason }) => {
                    Some(Said::Failed(Blame { node, reason: printable(&reason) }))
                }
                Message::Leaving => Some(Said::Leaving),
                Message::Refused(_) => Some(Said::Nothing),
                _ => None,
            });
            let said = said.map_err(|error| match error {
                NetError::Silent { peer, .. } => {
                    NetError::Silent { peer, timeout: self.silence, phase: "the wait for a sign of life" }
                }
                error => error,
            })?;
            match said {
                Said::Beat(beat) => {
                    self.note(index, |seen| seen.beat = beat);
                    return Ok(Some(()));
                }
                Said::Failed(failed) => {
                    self.note(index, |seen| seen.failed = Some(failed));
                    self.cut();
                }
                Said::Leaving => self.note(index, |seen| seen.is_leaving = true),
                Said::Nothing => return Ok(None),
            }
        }
    }
}

/// What a worker says on its watch.
enum Said {
    Beat(Beat),
    Failed(Blame),
    Leaving,
    Nothing,
}

impl Watches {
    /// Watches over the session of these workers, in the order of nodes, by a thread for each. `streams` are its links.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub(super) fn start(
        addresses: &[Address],
        watch: Watch,
        (timeouts, keys): (&Timeouts, &Keys),
        streams: Vec<TcpStream>,
    ) -> Result<Self, NetError> {
        let workers = addresses.iter().map(|_| Seen::default()).collect();
        let state = Mutex::new(State { workers, streams, round: 1, end: None });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), silence: timeouts.silence });
        let watches = Self { shared: Arc::clone(&shared) };
        for (index, address) in addresses.iter().enumerate() {
            let (shared, timeouts) = (Arc::clone(&shared), *timeouts);
            let (address, keys) = (address.clone(), keys.clone());
            let ask = move || {
                if let Err(error) = shared.ask(index, (&address, &watch), (&timeouts, &keys)) {
                    shared.note(index, |seen| {
                        let left = NetError::Left { peer: format!("worker {address}") };
                        seen.lost = Some(if seen.is_leaving { left } else { error });
                    });
                    shared.cut();
                }
            };
            let thread = thread::Builder::new().name("watch".into()).stack_size(STACK_BYTES).spawn(ask);
            thread.map_err(NetError::System)?;
        }
        Ok(watches)
    }

    /// Waits until everybody has given a sign of life.
    ///
    /// # Errors
    /// Where somebody does not.
    pub(super) fn open(&self) -> Result<(), NetError> {
        let state = self.wait_for_answers(self.shared.lock());
        let are_there = state.workers.iter().all(|seen| seen.lost.is_none() && seen.round > 0);
        if are_there { Ok(()) } else { Err(NetError::Lost) }
    }

    /// Waits until everybody has answered the last question, or is lost.
    fn wait_for_answers<'s>(&'s self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let is_open = |state: &mut State| {
            let round = state.round;
            state.workers.iter().any(|seen| seen.lost.is_none() && seen.round < round)
        };
        // A connection that is to be made yet may take as long, and an answer too.
        let most = 2 * self.shared.silence + LATE;
        let waited = self.shared.changed.wait_timeout_while(state, most, is_open);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Whether nobody is missing so far.
    pub fn are_well(&self) -> bool {
        self.shared.lock().workers.iter().all(|seen| seen.lost.is_none() && seen.failed.is_none())
    }

    /// What workers said last that they did.
    pub fn beats(&self) -> Vec<Beat> {
        self.shared.lock().workers.iter().map(|seen| seen.beat).collect()
    }

    /// Which workers want to leave, counted from 0.
    pub fn leaving(&self) -> Vec<usize> {
        let state = self.shared.lock();
        (0..).zip(&state.workers).filter(|(_, seen)| seen.is_leaving).map(|(index, _)| index).collect()
    }

    /// Asks everybody at once what became of them; it takes hardly longer than a silence may last.
    pub fn fates(self) -> Vec<Fate> {
        let mut state = self.shared.lock();
        state.round += 1;
        self.shared.changed.notify_all();
        let mut state = self.wait_for_answers(state);
        state.end = Some(End::Failed);
        let fate = |seen: &mut Seen| match (seen.lost.take(), seen.failed.take()) {
            (Some(error), _) => Fate::Lost(error),
            (None, Some(failed)) => Fate::Failed(failed),
            (None, None) => Fate::Alive,
        };
        state.workers.iter_mut().map(fate).collect()
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.end.get_or_insert(End::Done);
        state.streams.clear();
        self.shared.changed.notify_all();
    }
}

/// On a worker: one session, as its root hears of it.
#[derive(Debug)]
pub struct Life {
    state: Mutex<LifeState>,
    /// Set before the link ends.
    is_over: Arc<AtomicBool>,
}

#[derive(Debug)]
struct LifeState {
    /// The link to the root, whose end is the session's; none when it is over.
    root: Option<TcpStream>,
    is_watched: bool,
    failed: Option<Blame>,
    /// Since when nothing is to be computed.
    idle: Option<Instant>,
    /// What was done so far.
    did: Beat,
}

/// A worker that is about to end does so when there was nothing to be computed for so long: its root goes on without it.
const IDLE: Duration = Duration::from_secs(1);

impl Life {
    /// Of a session whose root has this link.
    pub(super) fn new(root: Option<TcpStream>) -> Self {
        let state = Mutex::new(LifeState { root, is_watched: false, failed: None, idle: None, did: Beat::default() });
        Self { state, is_over: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, LifeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to be computed from now on, or nothing.
    pub fn is_busy(&self, busy: bool) {
        self.lock().idle = (!busy).then(Instant::now);
    }

    /// What was done so far.
    pub fn did(&self, beat: Beat) {
        self.lock().did = beat;
    }

    /// A session of `task` is over because of an error between nodes; the root hears whose fault it is, if that is known.
    pub fn fail(&self, task: &Task, error: &NetError) {
        if let Some(node) = task.blamed(error) {
            self.lock().failed = Some(Blame { node, reason: error.to_string() });
        }
    }

    /// A session of `task` is over because this worker can't go on.
    pub fn give_up(&self, task: &Task, reason: String) {
        self.lock().failed = Some(Blame { node: task.plan.node, reason });
    }

    /// Whether its root watches over it.
    pub(super) fn is_watched(&self) -> bool {
        self.lock().is_watched
    }

    /// Answers a root that watches, until it has had enough, or is lost; then its session ends. `is_leaving` says whether this
    /// worker is about to end.
    pub(super) fn attend(&self, mut root: Conn, silence: Duration, is_leaving: impl Fn() -> bool) {
        self.lock().is_watched = true;
        let mut has_told = false;
        let result = loop {
            root.begin(silence);
            let is_asked = root.read_message(|message| match message {
                Message::Beat(_) => Some(true),
                Message::Bye => Some(false),
                _ => None,
            });
            match is_asked {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
            let failed = self.lock().failed.take();
            let leaves = !has_told && is_leaving();
            has_told |= leaves;
            let did = self.lock().did;
            let told = root.write_with(Part::Message, |root| {
                if let Some(Blame { node, reason }) = &failed {
                    write_failed(root, *node, reason)?;
                }
                if leaves {
                    write_leaving(root)?;
                }
                write_beat(root, &did)
            });
            if let Err(error) = told {
                break Err(error);
            }
            let is_idle = self.lock().idle.is_some_and(|since| since.elapsed() > IDLE);
            if has_told && is_idle {
                self.cut();
            }
        };
        if result.is_err() {
            self.cut();
        }
    }

    /// Ends the link to the root: whoever waits for it sees that, and says so.
    fn cut(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(root) = &self.lock().root {
            let _ = root.shutdown(Shutdown::Both);
        }
    }

    /// What is set once the root is lost.
    pub(super) fn is_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_over)
    }

    /// The session is over.
    pub fn end(&self) {
        self.cut();
        self.lock().root = None;
    }
}
