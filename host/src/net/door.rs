//! The door of a worker: takes whoever connects, for as long as the worker lives, and lets in one root after the other.
//!
//! Every client is heard in a thread of its own, so that nobody waits for one who says nothing or little; their number is limited,
//! for each address and in all, and where a limit is reached the longest silent one has to go, last of all one that knows a key. An
//! address may make so many connections (`rate.rs`). With a key, nobody hears more than a greeting without it. A root that says what it wants
//! while another one is served hears so at once. A connection that has said nothing may be another worker's link of the `dllama`
//! dialect, which a session takes from here.

use super::conn::Conn;
use super::listen::{Listener, Root};
use super::native::{Caller, Calls, DigestOf, Task};
use super::rate::Rates;
use super::watch::{Life, OPENING};
use super::{Keys, NetError, Timeouts};
use dair_core::wire::Part;
use dair_core::wire::native::{CALL, Have, LINK, Message, SessionId};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// Clients without a session, at most: from one address, and in all.
const CLIENTS_PER_ADDRESS: usize = 32;
const CLIENTS: usize = 128;
/// Memory for the stack of a thread that hears a client.
const STACK_BYTES: usize = 512 << 10;
/// Reports of clients that were no root which wait to be heard of; more are dropped.
const REPORTS: usize = 64;
/// What a session takes to end, and more.
const ENDING: Duration = Duration::from_millis(250);
/// A link of the `dllama` dialect has said nothing for so long: a root speaks at once.
const SILENCE: Duration = Duration::from_millis(100);

/// Who is at the door, and who is inside.
#[derive(Debug)]
pub struct Door {
    timeouts: Timeouts,
    access: Access,
    state: Mutex<State>,
    changed: Condvar,
}

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Roots and workers that know one of these; where there are none, all.
    pub keys: Keys,
    /// Nobody but workers that say they are there: this is a root.
    pub is_root: bool,
    /// Also roots of C++ Distributed-Llama, whoever they are: their dialect knows no keys.
    pub dllama: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Those who have no session, the oldest first.
    clients: Vec<Client>,
    next_id: u64,
    /// The root that is served.
    inside: Option<Inside>,
    /// Nobody is let in any more.
    is_leaving: bool,
    /// Links that a session of the native dialect waits for.
    expected: Option<Expected>,
}

/// A root that is served.
#[derive(Debug)]
struct Inside {
    root: String,
    since: Instant,
    /// In the native dialect: what it is known by, and what its root hears of it.
    session: Option<(SessionId, Arc<Life>)>,
}

#[derive(Debug)]
struct Client {
    id: u64,
    from: SocketAddr,
    since: Instant,
    /// The same connection as its thread has.
    stream: TcpStream,
    standing: Standing,
}

/// What is known of a client: whoever has shown less has to go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It has said nothing.
    Silent,
    /// It has said something.
    Heard,
    /// It knows a key.
    Trusted,
}

/// Links of other workers that prove to belong to a session.
#[derive(Debug)]
struct Expected {
    session: SessionId,
    missing: Vec<u32>,
    links: Vec<(u32, Conn)>,
}

/// What happens at a door.
#[derive(Debug)]
pub enum Arrival {
    /// A root of the native dialect, with what it wants.
    Native(SocketAddr, Caller, Box<Task>, Arc<Life>),
    /// A root of the `dllama` dialect.
    Dllama(SocketAddr, Root),
    /// A worker that listens there.
    Worker(SocketAddr),
    /// Somebody who turned out to be no root.
    Stranger(SocketAddr, NetError),
    /// The port is lost.
    Failed(io::Error),
}

/// What a worker says to those who ask.
pub struct Answers<'a> {
    /// What it has; whom it serves is filled in.
    pub have: &'a (dyn Fn() -> Have + Sync),
    /// Digests of its models.
    pub digest_of: DigestOf<'a>,
}

impl Door {
    /// A door that nobody has come to.
    pub fn new(timeouts: Timeouts, access: Access) -> Self {
        Self { timeouts, access, state: Mutex::default(), changed: Condvar::new() }
    }

    /// With which a worker calls others, and which it accepts.
    pub(super) fn keys(&self) -> &Keys {
        &self.access.keys
    }

    /// How long it waits for others.
    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens: from now on clients are heard in threads of `scope`.
    pub fn open<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        listener: &'s Listener,
        answers: &'s Answers<'s>,
    ) -> Receiver<Arrival> {
        let (arrived, arrivals) = sync_channel(REPORTS);
        scope.spawn(move || {
            let mut rates = Rates::default();
            loop {
                match listener.accept() {
                    Ok((_, from)) if !rates.takes(from.ip(), Instant::now()) => {}
                    Ok((stream, from)) => self.take(scope, (stream, from), answers, &arrived),
                    Err(error) => return arrived.send(Arrival::Failed(error)).unwrap_or(()),
                }
            }
        });
        arrivals
    }

    /// Takes a client, and makes room for it.
    fn take<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        (stream, from): (TcpStream, SocketAddr),
        answers: &'s Answers<'s>,
        arrived: &SyncSender<Arrival>,
    ) {
        let Ok(twin) = stream.try_clone() else { return };
        let mut state = self.lock();
        state.make_room(from.ip());
        let id = state.next_id;
        state.next_id += 1;
        state.clients.push(Client { id, from, since: Instant::now(), stream: twin, standing: Standing::Silent });
        drop(state);
        let arrived = arrived.clone();
        let hear = move || {
            let arrival = self.hear(id, (stream, from), answers);
            self.lock().clients.retain(|client| client.id != id);
            match arrival {
                // One root is let in at a time.
                Some(arrival @ (Arrival::Native(..) | Arrival::Dllama(..) | Arrival::Worker(_))) => {
                    let _ = arrived.send(arrival);
                }
                // A worker that is at work hears of strangers later, or not at all.
                Some(arrival) => match arrived.try_send(arrival) {
                    Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
                },
                None => {}
            }
        };
        // Without a thread for it, a client is let go.
        if thread::Builder::new().name("client".into()).stack_size(STACK_BYTES).spawn_scoped(scope, hear).is_err() {
            self.lock().clients.retain(|client| client.id != id);
        }
    }

    /// Hears a client until it is known what it is.
    fn hear(&self, id: u64, (stream, from): (TcpStream, SocketAddr), answers: &Answers<'_>) -> Option<Arrival> {
        let stranger = |error| Some(Arrival::Stranger(from, error));
        let timeout = self.timeouts.handshake;
        if let Err(error) = wait_for_a_word(&stream, timeout) {
            let (peer, phase) = (format!("root {from}"), "the handshake");
            let error = match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => NetError::Silent { peer, phase, timeout },
                _ => NetError::io(&peer, phase, error),
            };
            let is_here = self.lock().clients.iter().any(|client| client.id == id);
            return Some(error).filter(|_| is_here).and_then(stranger);
        }
        // One that a session has taken is no concern of this thread any more.
        self.rise(id, Standing::Heard)?;
        let hear = || -> Result<Option<Arrival>, NetError> {
            let mut conn = Conn::new(stream, format!("root {from}"), timeout)?;
            match conn.takes_word(&[CALL, LINK], Part::Handshake)? {
                Some(0) => self.hear_caller((id, from), conn, answers),
                Some(_) => self.hear_link(conn).map(|()| None),
                None if !self.access.dllama => Err(NetError::Foreigner { peer: conn.peer().into() }),
                None => {
                    let root = Root::hear(conn)?;
                    // Who can't be told why sees the connection end.
                    Ok(self.let_in(root.peer(), None).ok().map(|()| Arrival::Dllama(from, root)))
                }
            }
        };
        hear().unwrap_or_else(stranger)
    }

    /// What is known of a client now; nothing where it is gone.
    fn rise(&self, id: u64, standing: Standing) -> Option<()> {
        self.lock().clients.iter_mut().find(|client| client.id == id)?.standing = standing;
        Some(())
    }

    fn hear_caller(
        &self,
        (id, from): (u64, SocketAddr),
        conn: Conn,
        answers: &Answers<'_>,
    ) -> Result<Option<Arrival>, NetError> {
        let mut caller = Caller::greet(conn, &self.access.keys, &self.timeouts)?;
        self.trust(id);
        let mut have = (answers.have)();
        if let Some(busy) = self.free_or_not().busy() {
            // A longer text is cut: it is for people.
            let _ = busy.chars().try_for_each(|c| have.busy.push(c));
        }
        caller.tell(&have)?;
        match caller.calls(answers.digest_of)? {
            Calls::Task(task) => {
                let life = Arc::new(Life::new(caller.twin().ok()));
                match self.let_in(caller.root(), Some((task.plan.session, Arc::clone(&life)))) {
                    Ok(()) => return Ok(Some(Arrival::Native(from, caller, task, life))),
                    Err(busy) => caller.refuse(&busy),
                }
            }
            Calls::Watch(watch) => match self.life_of(&watch.session) {
                Some(life) => {
                    // Who watches over a session is no stranger, and is not sent away for one.
                    self.lock().clients.retain(|client| client.id != id);
                    let silence = 2 * Duration::from_millis(watch.silence_ms.into());
                    life.attend(caller.into_conn(), silence, || self.lock().is_leaving);
                }
                None => caller.refuse("there is no such session"),
            },
            Calls::Join(port) if self.access.is_root => {
                caller.tell_known()?;
                return Ok(Some(Arrival::Worker(SocketAddr::new(from.ip(), port))));
            }
            Calls::Join(_) => caller.refuse("this is a worker; only a root takes others"),
            Calls::Drain if self.access.is_root => caller.refuse("this is a root"),
            Calls::Drain => {
                self.leave();
                caller.tell_leaving()?;
            }
            Calls::Over => {}
        }
        Ok(None)
    }

    /// The session that is known by this, which may be about to begin.
    fn life_of(&self, session: &SessionId) -> Option<Arc<Life>> {
        let find = |state: &State| {
            let (_, life) = state.inside.as_ref()?.session.as_ref().filter(|(id, _)| id == session)?;
            Some(Arc::clone(life))
        };
        let waited = self.changed.wait_timeout_while(self.lock(), OPENING, |state| find(state).is_none());
        find(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Lets nobody in from now on.
    pub fn leave(&self) {
        self.lock().is_leaving = true;
    }

    /// Whether nobody is let in any more, and nobody is inside.
    pub fn is_left(&self) -> bool {
        let state = self.lock();
        state.is_leaving && state.inside.is_none()
    }

    /// Somebody has proved to know a key, if there are any.
    fn trust(&self, id: u64) {
        if !self.access.keys.are_none() {
            // Whoever is gone needs no trust.
            let _ = self.rise(id, Standing::Trusted);
        }
    }

    /// A link says which session it is of; one that nobody waits for is dropped.
    fn hear_link(&self, mut conn: Conn) -> Result<(), NetError> {
        if !self.access.keys.are_none() {
            conn.answer_secured(&self.access.keys, &LINK)?;
        }
        let (session, node) = conn.read_message(|message| match message {
            Message::Link(session, node) => Some((session, node)),
            _ => None,
        })?;
        let mut state = self.lock();
        let expected = state.expected.as_mut().filter(|expected| expected.session == session);
        if let Some(expected) = expected
            && let Some(at) = expected.missing.iter().position(|missing| *missing == node)
        {
            expected.missing.swap_remove(at);
            expected.links.push((node, conn));
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Lets a root in, unless another one is inside: then says so.
    fn let_in(&self, root: &str, session: Option<(SessionId, Arc<Life>)>) -> Result<(), String> {
        let mut state = self.free_or_not();
        if let Some(busy) = state.busy() {
            return Err(busy);
        }
        state.inside = Some(Inside { root: root.to_owned(), since: Instant::now(), session });
        self.changed.notify_all();
        Ok(())
    }

    /// A session that has just been ended gets the time to end.
    fn free_or_not(&self) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_timeout_while(self.lock(), ENDING, |state| state.inside.is_some());
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The session of the root that was let in is over.
    pub fn is_free_again(&self) {
        let mut state = self.lock();
        (state.inside, state.expected) = (None, None);
        self.changed.notify_all();
    }

    /// Links of these nodes are waited for from now on.
    pub(super) fn expect(&self, session: SessionId, missing: Vec<u32>) {
        self.lock().expected = Some(Expected { session, missing, links: Vec::new() });
    }

    /// Waits for the links that are expected; those nodes whose are missing after `limit` are the error.
    pub(super) fn links(&self, limit: Duration) -> Result<Vec<(u32, Conn)>, Vec<u32>> {
        let is_waiting =
            |state: &mut State| state.expected.as_ref().is_some_and(|expected| !expected.missing.is_empty());
        let waited = self.changed.wait_timeout_while(self.lock(), limit, is_waiting);
        let expected = waited.unwrap_or_else(PoisonError::into_inner).0.expected.take();
        let Some(Expected { missing, links, .. }) = expected else { return Ok(Vec::new()) };
        if missing.is_empty() { Ok(links) } else { Err(missing) }
    }

    /// Takes a connection that came after `since` from an address that `is_wanted`, and has said nothing yet.
    pub(super) fn take_silent(
        &self,
        since: Instant,
        is_wanted: impl Fn(IpAddr) -> bool,
    ) -> Option<(TcpStream, SocketAddr)> {
        let is_link = |client: &Client| {
            let is_new = client.since >= since && client.since.elapsed() >= SILENCE;
            client.standing == Standing::Silent && is_new && is_wanted(client.from.ip())
        };
        let mut state = self.lock();
        let at = state.clients.iter().position(is_link)?;
        let Client { stream, from, .. } = state.clients.remove(at);
        Some((stream, from))
    }
}

impl State {
    fn busy(&self) -> Option<String> {
        if self.is_leaving {
            return Some("it is about to end".into());
        }
        let Inside { root, since, .. } = self.inside.as_ref()?;
        Some(format!("it has served {root} for {} s", since.elapsed().as_secs()))
    }

    /// Lets clients go until there is room for one more from `ip`.
    fn make_room(&mut self, ip: IpAddr) {
        let of_address = |client: &Client| client.from.ip() == ip;
        while self.clients.iter().filter(|client| of_address(client)).count() >= CLIENTS_PER_ADDRESS {
            self.let_go(of_address);
        }
        while self.clients.len() >= CLIENTS {
            self.let_go(|_| true);
        }
    }

    /// Lets the oldest go of those who have shown least.
    fn let_go(&mut self, is_of_them: impl Fn(&Client) -> bool) {
        let of_them = self.clients.iter().enumerate().filter(|(_, client)| is_of_them(client));
        if let Some((at, _)) = of_them.min_by_key(|(_, client)| client.standing) {
            // Its thread sees that and ends.
            let _ = self.clients.remove(at).stream.shutdown(Shutdown::Both);
        }
    }
}

/// Waits until a client has said something, which stays to be read.
fn wait_for_a_word(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(timeout))?;
    loop {
        match stream.peek(&mut [0]) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dair_core::wire::native::write_link;
    use std::io::Write;
    use std::net::TcpListener;

    /// A client from an address, whose connection is real.
    fn come(state: &mut State, listener: &TcpListener, ip: [u8; 4], standing: Standing) -> TcpStream {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        let from = SocketAddr::from((ip, 9));
        state.make_room(from.ip());
        state.next_id += 1;
        let id = state.next_id;
        state.clients.push(Client { id, from, since: Instant::now(), stream, standing });
        client
    }

    fn ids(state: &State) -> Vec<u64> {
        state.clients.iter().map(|client| client.id).collect()
    }

    #[test]
    fn the_longest_silent_of_an_address_makes_room_for_others_of_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut state = State::default();
        let _speaker = come(&mut state, &listener, [10, 0, 0, 1], Standing::Heard);
        let _other = come(&mut state, &listener, [10, 0, 0, 2], Standing::Silent);
        let flood: Vec<_> = (0..2 * CLIENTS_PER_ADDRESS)
            .map(|_| come(&mut state, &listener, [10, 0, 0, 1], Standing::Silent))
            .collect();
        let last = 2 + flood.len() as u64;
        let kept = (last + 2 - CLIENTS_PER_ADDRESS as u64)..=last;
        assert_eq!(ids(&state), [1, 2].into_iter().chain(kept).collect::<Vec<_>>());
    }

    /// What a client that calls itself a link of `session` and `node` comes to.
    fn link(door: &Door, listener: &TcpListener, session: SessionId, node: u32) -> bool {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let conn = Conn::new(listener.accept().unwrap().0, "link".into(), Duration::from_secs(20)).unwrap();
        let mut words = Vec::new();
        write_link(&mut words, &session, node).unwrap();
        client.write_all(&words).unwrap();
        let taken = |door: &Door| door.lock().expected.as_ref().map_or(0, |expected| expected.links.len());
        let before = taken(door);
        door.hear_link(conn).unwrap();
        taken(door) > before
    }

    #[test]
    fn a_link_names_the_session_that_waits_for_it_and_a_node_that_is_missing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = Door::new(Timeouts::default(), Access::default());
        assert!(!link(&door, &listener, [1; 16], 2), "nobody waits");
        door.expect([1; 16], vec![2, 3]);
        assert!(!link(&door, &listener, [2; 16], 2), "another session");
        assert!(!link(&door, &listener, [1; 16], 1), "a node that calls nobody");
        assert!(link(&door, &listener, [1; 16], 3));
        assert!(!link(&door, &listener, [1; 16], 3), "one that is here already");
        assert_eq!(door.links(Duration::ZERO).unwrap_err(), [2]);
        door.expect([3; 16], vec![2]);
        assert!(!link(&door, &listener, [1; 16], 2), "a session that is over");
        assert!(link(&door, &listener, [3; 16], 2));
        assert_eq!(door.links(Duration::ZERO).unwrap().iter().map(|(node, _)| *node).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn many_addresses_together_have_a_limit_too() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut state = State::default();
        let of = |n: usize| if n.is_multiple_of(2) { Standing::Silent } else { Standing::Heard };
        let _all: Vec<_> = (0..CLIENTS + 20).map(|n| come(&mut state, &listener, [10, 0, 1, n as u8], of(n))).collect();
        assert_eq!(state.clients.len(), CLIENTS);
        assert!(
            state.clients[..20].iter().all(|client| client.standing > Standing::Silent),
            "those who speak are kept"
        );
    }

    #[test]
    fn whoever_knows_a_key_is_not_talked_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut state = State::default();
        let _friend = come(&mut state, &listener, [10, 0, 0, 1], Standing::Trusted);
        let _flood: Vec<_> =
            (0..2 * CLIENTS).map(|n| come(&mut state, &listener, [10, 0, 0, n as u8], Standing::Heard)).collect();
        assert_eq!(state.clients[0].standing, Standing::Trusted);
    }
}
