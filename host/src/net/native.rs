//! Both sides of the native dialect until passes begin: a root calls workers, a worker answers.

use super::conn::Conn;
use super::dial::{check, connect};
use super::door::Door;
use super::watch::{Life, Watches};
use super::{Address, Keys, Mesh, NetError, Stage, Timeouts, printable};
use dair_core::exec::{CacheCopy, Logits};
use dair_core::plan::Share;
use dair_core::wire::Part;
use dair_core::wire::native::{
    self, CALL, Digest, Fingerprint, GREETING, Have, LINK, Message, PLAIN, PageName, Pages, Plan, PlanNode,
    RESTORED_BYTES, Ready, SECURED, SILENCE_MS, VERSION, Watch, write_bye, write_copy, write_digest, write_drain,
    write_echo, write_go, write_hashing, write_have, write_join, write_keep, write_leaving, write_link, write_linked,
    write_pass, write_plan, write_ready, write_refused, write_rest, write_restore, write_restored, write_verify,
};
use embedded_io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::ops::ControlFlow;
use std::sync::Weak;
use std::time::{Duration, Instant};
use std::{io, thread};

/// For a node to repack its weights, during which it says nothing.
const PREPARE: Duration = Duration::from_secs(600);

/// A worker that has answered a call.
#[derive(Debug)]
pub struct Called {
    conn: Conn,
    address: Address,
    /// What it says of itself.
    pub have: Have,
    /// How far away it is.
    pub way: Way,
}

/// How far away a worker is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// From a question to its answer, if both are short.
    pub round_trip: Duration,
    /// Bytes per second there and back again.
    pub bytes_per_s: f64,
}

/// Short questions that the round trip is the shortest of, and bytes of long ones that tell the bandwidth.
const SHORT: usize = 6;
const LONG: [usize; 2] = [16 << 10, 32 << 10];

/// Measures the way to a worker by what it sends back.
fn measure(conn: &mut Conn) -> Result<Way, NetError> {
    let mut echo = |len: usize| -> Result<Duration, NetError> {
        let start = Instant::now();
        conn.write_with(Part::Message, |conn| write_echo(conn, &vec![0; len]))?;
        conn.read_message(|message| matches!(message, Message::Echo(bytes) if bytes.len() == len).then_some(()))?;
        Ok(start.elapsed())
    };
    let mut round_trip = Duration::MAX;
    for _ in 0..SHORT {
        round_trip = round_trip.min(echo(1)?);
    }
    let mut bytes_per_s = 0f64;
    for len in LONG {
        let carried = echo(len)?.saturating_sub(round_trip).max(Duration::from_micros(1));
        bytes_per_s = bytes_per_s.max(2.0 * len as f64 / carried.as_secs_f64());
    }
    Ok(Way { round_trip, bytes_per_s })
}

impl Called {
    /// How messages call it.
    pub fn peer(&self) -> &str {
        self.conn.peer()
    }

    /// Tells it to finish what it does, and to end.
    ///
    /// # Errors
    /// Where it is gone, or is none.
    pub fn drain(&mut self) -> Result<(), NetError> {
        self.conn.write_with(Part::Message, write_drain)?;
        let answer = self.conn.read_message(|message| match message {
            Message::Leaving => Some(Ok(())),
            Message::Refused(reason) => Some(Err(printable(&reason))),
            _ => None,
        })?;
        answer.map_err(|reason| NetError::Refused { peer: self.conn.peer().into(), reason })
    }

    /// Asks for the digest of the model with this fingerprint, which has so many bytes; `tell` hears how many of them are hashed.
    ///
    /// # Errors
    /// Where the worker refuses, is gone, or comes no further for as long as is waited for progress, and where it is slower than
    /// [`SLOWEST_HASH`].
    pub fn digest(
        &mut self,
        (fingerprint, bytes): (&Fingerprint, u64),
        timeouts: &Timeouts,
        mut tell: impl FnMut(u64),
    ) -> Result<Digest, NetError> {
        let end = Instant::now() + timeouts.progress + Duration::from_secs(bytes / SLOWEST_HASH);
        self.conn.begin(timeouts.progress);
        self.conn.write_with(Part::Message, |conn| write_verify(conn, fingerprint))?;
        let mut hashed = 0;
        loop {
            let answer = self.conn.read_message(|message| match message {
                Message::Digest(digest) => Some(Ok(ControlFlow::Break(digest))),
                Message::Hashing(bytes) => Some(Ok(ControlFlow::Continue(bytes))),
                Message::Refused(reason) => Some(Err(printable(&reason))),
                _ => None,
            })?;
            match answer {
                Ok(ControlFlow::Break(digest)) => return Ok(digest),
                Ok(ControlFlow::Continue(now)) if now > hashed && Instant::now() < end => {
                    hashed = now.min(bytes);
                    tell(hashed);
                    self.conn.begin(timeouts.progress);
                }
                // The time that it has got goes on.
                Ok(ControlFlow::Continue(_)) => {}
                Err(reason) => return Err(NetError::Refused { peer: self.conn.peer().into(), reason }),
            }
        }
    }
}

/// Bytes per second below which a worker that hashes is given up; a memory card reads tens of millions.
pub const SLOWEST_HASH: u64 = 1_000_000;

/// Answers what the digest of a model is; tells how many bytes are hashed as long as that takes, until nobody wants to know.
pub type DigestOf<'d> =
    &'d (dyn Fn(&Fingerprint, &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<Digest, String> + Sync);

/// Calls all `workers` at once, encrypted where there are `keys`: what each has, or nothing of those that do not speak this dialect.
/// To these no connection is made.
///
/// # Errors
/// Names the worker that can't be reached or does not answer, and the mistake in a list that can't work.
pub fn call(
    workers: &[Address],
    (timeouts, keys): (&Timeouts, &Keys),
    stage: impl Fn(Stage<'_>),
) -> Result<Vec<Option<Called>>, NetError> {
    call_each(workers, (timeouts, keys), stage)?.into_iter().collect()
}

/// As [`call`], and hears of each worker for itself.
///
/// # Errors
/// A list that can't work.
pub fn call_each(
    workers: &[Address],
    (timeouts, keys): (&Timeouts, &Keys),
    stage: impl Fn(Stage<'_>),
) -> Result<Vec<Result<Option<Called>, NetError>>, NetError> {
    check(workers)?;
    let answers = thread::scope(|scope| {
        let calls: Vec<_> = workers.iter().map(|worker| scope.spawn(|| call_one(worker, timeouts, keys))).collect();
        let wait = |(call, worker): (thread::ScopedJoinHandle<'_, _>, _)| {
            stage(Stage::Connect(worker));
            call.join().expect("calling does not panic")
        };
        calls.into_iter().zip(workers).map(wait).collect()
    });
    Ok(answers)
}

/// How long an answer to a question is waited for, each time that it is asked: datagrams may be lost, and where a machine was
/// unplugged the network needs a second to find it again. A C++ worker costs no time: its system says that nobody has the port.
const WAITS: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(750),
];

/// Whether a worker speaks the native dialect, asked by a datagram to its port: a C++ worker ends where a connection is not
/// used as it expects. One that does not answer in time counts as one that does not.
fn speaks_native(worker: &Address) -> Result<bool, NetError> {
    let ask = |to: &SocketAddr| -> io::Result<bool> {
        let here: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((here, 0))?;
        socket.connect(to)?;
        for wait in WAITS {
            socket.send(&CALL)?;
            socket.set_read_timeout(Some(wait))?;
            match socket.recv(&mut [0; GREETING.len()]) {
                Ok(len) => return Ok(len == GREETING.len()),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                // Nobody has the port.
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    };
    Ok(worker.resolve()?.iter().any(|to| ask(to).unwrap_or(false)))
}

/// Answers the questions of [`speaks_native`] on the port of a worker, in a thread, as long as `alive` is.
///
/// # Errors
/// Where the port is in use.
pub(super) fn answer_questions(port: SocketAddr, alive: Weak<()>) -> io::Result<()> {
    let socket = UdpSocket::bind(port)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    thread::spawn(move || {
        let mut question = [0; CALL.len() + 1];
        while alive.strong_count() > 0 {
            if let Ok((len, from)) = socket.recv_from(&mut question)
                && question[..len] == CALL
            {
                // Whoever does not hear it asks again.
                let _ = socket.send_to(&GREETING, from);
            }
        }
    });
    Ok(())
}

/// Tells a root that a worker of this machine listens on `port`.
///
/// # Errors
/// Where it is not there, has another key or none, or takes no workers.
pub fn join(root: &Address, port: u16, (timeouts, keys): (&Timeouts, &Keys)) -> Result<(), NetError> {
    let peer = format!("root {root}");
    let stream = connect(root, timeouts).map_err(|error| match error {
        NetError::Connect { error, .. } => NetError::io(&peer, "the call", error),
        error => error,
    })?;
    let mut conn = greet_on(Conn::new(stream, peer, timeouts.handshake)?, root, keys)?.0;
    conn.write_with(Part::Message, |conn| write_join(conn, port))?;
    let answer = conn.read_message(|message| match message {
        Message::Bye => Some(Ok(())),
        Message::Refused(reason) => Some(Err(printable(&reason))),
        _ => None,
    })?;
    answer.map_err(|reason| NetError::Refused { peer: conn.peer().into(), reason })
}

fn call_one(worker: &Address, timeouts: &Timeouts, keys: &Keys) -> Result<Option<Called>, NetError> {
    if !speaks_native(worker)? {
        return Ok(None);
    }
    let (mut conn, have) = greet(worker, (&timeouts.brief(), keys))?;
    let known = have.version == VERSION;
    let way = if known { measure(&mut conn)? } else { Way { round_trip: Duration::ZERO, bytes_per_s: 0.0 } };
    Ok(Some(Called { conn, address: worker.clone(), have, way }))
}

/// Connects to a worker that speaks the native dialect, and hears what it has.
pub(super) fn greet(worker: &Address, (timeouts, keys): (&Timeouts, &Keys)) -> Result<(Conn, Have), NetError> {
    let stream = connect(worker, timeouts)?;
    greet_on(Conn::new(stream, format!("worker {worker}"), timeouts.handshake)?, worker, keys)
}

/// The same, on a connection to `address`.
fn greet_on(mut conn: Conn, address: &Address, keys: &Keys) -> Result<(Conn, Have), NetError> {
    let unanswered = |error| match error {
        NetError::Silent { timeout, .. } => NetError::Unanswered { address: address.clone(), timeout },
        error => error,
    };
    conn.write_with(Part::Handshake, |conn| conn.write_all(&CALL))?;
    let answer: [u8; 4] = conn.read_bytes(Part::Handshake).map_err(unanswered)?;
    if answer != GREETING {
        return Err(NetError::Unexpected { peer: conn.peer().into(), what: "something that no worker answers" });
    }
    match (conn.read_bytes(Part::Handshake)?, keys.first()) {
        ([PLAIN], None) => {}
        ([SECURED], Some(key)) => {
            conn.call_secured(key, &CALL)?;
            // The call, once more: now it comes from somebody who knows the key.
            conn.write_with(Part::Handshake, |conn| conn.write_all(&CALL))?;
        }
        ([PLAIN], Some(_)) => return Err(NetError::Unlocked { peer: conn.peer().into() }),
        ([SECURED], None) => return Err(NetError::Locked { peer: conn.peer().into() }),
        ([_], _) => {
            let what = "a kind of handshake that this dair does not know: run the same dair on both";
            return Err(NetError::Unexpected { peer: conn.peer().into(), what });
        }
    }
    let have = conn.read_message(|message| match message {
        Message::Have(have) => Some(Ok(have)),
        Message::Refused(reason) => Some(Err(reason)),
        _ => None,
    })?;
    let refused =
        |reason: heapless::String<_>| NetError::Refused { peer: conn.peer().into(), reason: printable(&reason) };
    let have = have.map_err(refused)?;
    Ok((conn, have))
}

/// Workers that a plan was sent to; worker `index` is node `index + 1`.
#[derive(Debug)]
pub struct Planned {
    conns: Vec<Conn>,
    watches: Watches,
    progress: Duration,
    stages: usize,
    /// Workers without a disk for keys and values.
    keep_nothing: Vec<String>,
}

/// Sends `plan` to all `workers`, with a share for each node, the root's first. They prepare at the same time, and are watched over
/// from now on.
///
/// # Errors
/// Names the worker that can't be written to.
pub fn plan(
    workers: Vec<Called>,
    plan: &Plan,
    shares: &[Share],
    (timeouts, keys): (&Timeouts, &Keys),
) -> Result<Planned, NetError> {
    let addresses: Vec<_> = workers.iter().map(|worker| worker.address.clone()).collect();
    let places = [("", 0)].into_iter().chain(addresses.iter().map(|address| (address.host.as_str(), address.port)));
    let nodes = shares.iter().zip(places).map(|(share, (host, port))| (*share, host, port));
    let mut conns: Vec<_> = workers.into_iter().map(|worker| worker.conn).collect();
    for (node, conn) in (1..).zip(&mut conns) {
        conn.begin(timeouts.progress);
        let plan = Plan { node, ..plan.clone() };
        conn.write_with(Part::Message, |conn| write_plan(conn, &plan, nodes.clone()))?;
    }
    let silence_ms = (timeouts.silence.as_millis() as u32).clamp(*SILENCE_MS.start(), *SILENCE_MS.end());
    let watch = Watch { session: plan.session, silence_ms };
    let streams = conns.iter().map(Conn::twin).collect::<io::Result<_>>().map_err(NetError::System)?;
    let watches = Watches::start(&addresses, watch, (&timeouts.brief(), keys), streams)?;
    let (progress, stages, keep_nothing) = (timeouts.progress, plan.stages.len(), Vec::new());
    Ok(Planned { conns, watches, progress, stages, keep_nothing })
}

impl Planned {
    /// Waits until all workers can compute their parts, and lets them link up; with those who know what becomes of the workers, and
    /// with the workers that have no disk for keys and values.
    ///
    /// # Errors
    /// Names the worker that can't, with its reason, or is gone; with those who know what became of the workers.
    pub fn link(mut self, stage: impl Fn(Stage<'_>)) -> Result<(Mesh, Watches, Vec<String>), (NetError, Watches)> {
        match self.link_up(stage) {
            Ok(mesh) => Ok((mesh, self.watches, self.keep_nothing)),
            Err(error) => Err((error, self.watches)),
        }
    }

    fn link_up(&mut self, stage: impl Fn(Stage<'_>)) -> Result<Mesh, NetError> {
        for conn in &mut self.conns {
            stage(Stage::Prepare(conn.peer()));
            conn.begin(PREPARE.max(self.progress));
            let ready = conn.read_message(|message| match message {
                Message::Ready(ready) => Some(Ok(ready)),
                Message::Refused(reason) => Some(Err(reason)),
                _ => None,
            })?;
            let refused = |reason: heapless::String<_>| NetError::Refused {
                peer: conn.peer().into(),
                reason: printable(&reason),
            };
            if !ready.map_err(refused)?.keeps {
                self.keep_nothing.push(conn.peer().to_owned());
            }
        }
        self.watches.open()?;
        for conn in &mut self.conns {
            conn.begin(self.progress);
            conn.write_with(Part::Message, write_go)?;
        }
        for conn in &mut self.conns {
            conn.read_message(|message| matches!(message, Message::Linked).then_some(()))?;
        }
        let mesh = Mesh::of_conns(0, (1..).zip(std::mem::take(&mut self.conns)), self.progress)?;
        Ok(mesh.in_stages(self.stages))
    }
}

/// Tells all workers of a pass. It travels with the next exchange; where the root has a stage of its own to compute before that, `at_once`.
///
/// # Errors
/// Names the worker that does not take it.
pub fn announce(mesh: &mut Mesh, pass: &native::Pass, tokens: &[u32], at_once: bool) -> Result<(), NetError> {
    let mut packet = Vec::with_capacity(32 + 4 * tokens.len());
    write_pass(&mut packet, pass, tokens)
        .unwrap_or_else(|error| unreachable!("memory takes what is written to it: {error}"));
    mesh.announce(&packet);
    mesh.begin_pass(pass.rows(), is_answered(pass));
    if at_once { mesh.flush() } else { Ok(()) }
}

/// Whether a root waits for the end of a pass.
fn is_answered(pass: &native::Pass) -> bool {
    pass.runs.iter().any(|run| run.logits != Logits::None)
}

/// Tells all workers that the logits of the last pass are wanted; it travels with their exchange.
pub fn ask_for_rest(mesh: &mut Mesh) {
    let mut packet = Vec::new();
    write_rest(&mut packet).unwrap_or_else(|error| unreachable!("memory takes what is written to it: {error}"));
    mesh.announce(&packet);
}

/// Tells all workers to copy the beginning of a sequence; it travels with the next pass.
pub fn copy(mesh: &mut Mesh, copy: CacheCopy) {
    let mut packet = Vec::new();
    write_copy(&mut packet, copy).unwrap_or_else(|error| unreachable!("memory takes what is written to it: {error}"));
    mesh.announce(&packet);
}

/// Tells all workers to keep pages, before anything else is computed.
///
/// # Errors
/// Names the worker that does not take it.
pub fn keep(mesh: &mut Mesh, pages: &Pages<'_>) -> Result<(), NetError> {
    let mut packet = Vec::new();
    write_keep(&mut packet, pages).unwrap_or_else(|error| unreachable!("memory takes what is written to it: {error}"));
    mesh.announce(&packet);
    mesh.flush()
}

/// For a worker to read a page, which a slow card does in a tenth of it.
const PAGE_TIME: Duration = Duration::from_secs(1);

/// Lets all workers get pages; how many everybody has, from the first on.
///
/// # Errors
/// Names the worker that is gone, or says something else.
pub fn restore(mesh: &mut Mesh, pages: &Pages<'_>) -> Result<u32, NetError> {
    let mut packet = Vec::new();
    write_restore(&mut packet, pages)
        .unwrap_or_else(|error| unreachable!("memory takes what is written to it: {error}"));
    mesh.announce(&packet);
    let count = pages.names.len() as u32;
    let answers = mesh.hear_all(RESTORED_BYTES, PAGE_TIME * count)?;
    let mut least = count;
    for (peer, answer) in answers {
        let invalid = |invalid| NetError::Invalid { peer: peer.to_owned(), invalid: Box::new(invalid) };
        let (len, body) = answer.split_first_chunk().unwrap_or_else(|| unreachable!("answers have a length"));
        native::message_len(*len).map_err(invalid)?;
        match Message::parse(body).map_err(invalid)? {
            Message::Restored(pages) => least = least.min(pages),
            _ => return Err(NetError::Unexpected { peer, what: "a message that is not due" }),
        }
    }
    Ok(least)
}

/// On a worker: tells the root how many pages there are.
///
/// # Errors
/// Where the root does not take it.
pub fn restored(mesh: &mut Mesh, pages: u32) -> Result<(), NetError> {
    let mut packet = Vec::new();
    write_restored(&mut packet, pages)
        .unwrap_or_else(|error| unreachable!("memory takes what is written to it: {error}"));
    mesh.tell_root(&packet)
}

/// Ends a session on its links, as far as they can be reached within a second.
pub fn end(mesh: Mesh) {
    let mut bye = Vec::new();
    write_bye(&mut bye).unwrap_or_else(|error| unreachable!("memory takes what is written to it: {error}"));
    mesh.stop(&bye);
}

/// A root that has called a worker.
#[derive(Debug)]
pub struct Caller {
    root: Conn,
    progress: Duration,
}

/// More echoes are no measurement any more.
const ECHOES_MAX: usize = 64;

/// What a root may say after it has heard what a worker has.
enum Wish {
    Task(Box<Task>),
    Digest(Fingerprint),
    Echo(Vec<u8>),
    Watch(Watch),
    Drain,
    Join(u16),
}

/// What a caller of a worker turned out to be.
pub(super) enum Calls {
    /// A root that wants a part of its model computed.
    Task(Box<Task>),
    /// One that watches over a session.
    Watch(Watch),
    /// Somebody who wants this worker to end.
    Drain,
    /// A worker that listens on this port.
    Join(u16),
    /// It was only asking, and has its answer.
    Over,
}

/// What a root wants of a worker.
#[derive(Debug)]
pub struct Task {
    /// What all nodes agree on.
    pub plan: Plan,
    /// All nodes, the root first.
    pub nodes: Vec<PlanNode>,
}

impl Task {
    /// Where a node listens.
    fn address(&self, node: u32) -> Address {
        let PlanNode { host, port, .. } = &self.nodes[node as usize];
        Address { host: host.as_str().to_owned(), port: *port }
    }

    /// What messages call a worker.
    fn name(&self, node: u32) -> String {
        format!("worker {}", self.address(node))
    }

    /// The node whose fault an error is, as far as this one can tell: why a link has ended, nobody knows.
    pub(super) fn blamed(&self, error: &NetError) -> Option<u32> {
        let named = |peer: String| (1..self.nodes.len() as u32).find(|node| self.name(*node) == peer);
        match error {
            NetError::Closed { .. } => None,
            error => error.peer().map_or(Some(self.plan.node), named),
        }
    }
}

impl Caller {
    /// Greets whoever has called. One who does not know one of the `keys`, where there are some, hears nothing more.
    pub(super) fn greet(mut root: Conn, keys: &Keys, timeouts: &Timeouts) -> Result<Self, NetError> {
        let kind = if keys.are_none() { PLAIN } else { SECURED };
        root.write_with(Part::Handshake, |root| {
            root.write_all(&GREETING)?;
            root.write_all(&[kind])
        })?;
        if !keys.are_none() {
            root.answer_secured(keys, &CALL)?;
            if root.read_bytes(Part::Handshake)? != CALL {
                return Err(NetError::Unexpected { peer: root.peer().into(), what: "something that no root says" });
            }
        }
        Ok(Self { root, progress: timeouts.progress })
    }

    /// Says what this worker has.
    pub(super) fn tell(&mut self, have: &Have) -> Result<(), NetError> {
        self.root.write_with(Part::Handshake, |root| write_have(root, have))
    }

    /// How messages call it.
    pub fn root(&self) -> &str {
        self.root.peer()
    }

    /// Waits for what the root wants; what it asks, for the digest of a model, say, is answered.
    ///
    /// # Errors
    /// Where it sends something else, or nothing.
    pub(super) fn calls(&mut self, digest_of: DigestOf<'_>) -> Result<Calls, NetError> {
        // All echoes together take no longer than a root may say nothing.
        self.root.begin(self.progress);
        for _ in 0..=ECHOES_MAX {
            match self.wish() {
                Ok(Wish::Task(task)) => return Ok(Calls::Task(task)),
                Ok(Wish::Watch(watch)) => return Ok(Calls::Watch(watch)),
                Ok(Wish::Drain) => return Ok(Calls::Drain),
                Ok(Wish::Join(port)) => return Ok(Calls::Join(port)),
                Ok(Wish::Digest(fingerprint)) => {
                    return self.tell_digest(&fingerprint, digest_of).map(|()| Calls::Over);
                }
                Ok(Wish::Echo(bytes)) => self.root.write_with(Part::Message, |root| write_echo(root, &bytes))?,
                Err(NetError::Closed { .. }) => return Ok(Calls::Over),
                Err(error) => return Err(error),
            }
        }
        Err(NetError::Unexpected { peer: self.root.peer().into(), what: "too many echoes" })
    }

    fn wish(&mut self) -> Result<Wish, NetError> {
        let wish = self.root.read_message(|message| match message {
            Message::Plan(plan, nodes) => {
                let task = nodes.collect::<Result<_, _>>().map(|nodes| Box::new(Task { plan, nodes }));
                Some(task.map(Wish::Task))
            }
            Message::Verify(fingerprint) => Some(Ok(Wish::Digest(fingerprint))),
            Message::Echo(bytes) => Some(Ok(Wish::Echo(bytes.to_vec()))),
            Message::Watch(watch) => Some(Ok(Wish::Watch(watch))),
            Message::Drain => Some(Ok(Wish::Drain)),
            Message::Join(port) => Some(Ok(Wish::Join(port))),
            _ => None,
        })?;
        wish.map_err(|invalid| NetError::Invalid { peer: self.root.peer().into(), invalid: Box::new(invalid) })
    }

    fn tell_digest(&mut self, fingerprint: &Fingerprint, digest_of: DigestOf<'_>) -> Result<(), NetError> {
        let mut failed = None;
        let digest = digest_of(fingerprint, &mut |bytes| {
            self.root.begin(self.progress);
            failed = self.root.write_with(Part::Message, |root| write_hashing(root, bytes)).err();
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        self.root.begin(self.progress);
        self.root.write_with(Part::Message, |root| match &digest {
            Ok(digest) => write_digest(root, digest),
            Err(reason) => write_refused(root, reason),
        })
    }

    /// Another handle of the connection.
    pub(super) fn twin(&self) -> io::Result<TcpStream> {
        self.root.twin()
    }

    /// The connection itself.
    pub(super) fn into_conn(self) -> Conn {
        self.root
    }

    /// Tells whoever wants this worker to end that it will.
    pub(super) fn tell_leaving(&mut self) -> Result<(), NetError> {
        self.root.write_with(Part::Message, write_leaving)
    }

    /// Tells a worker that it is known.
    pub(super) fn tell_known(&mut self) -> Result<(), NetError> {
        self.root.write_with(Part::Message, write_bye)
    }

    /// Tells the root why its plan can't be carried out.
    pub fn refuse(&mut self, reason: &str) {
        // Whoever is gone needs no reason.
        let _ = self.root.write_with(Part::Message, |root| write_refused(root, reason));
    }

    /// Tells the root that its plan can be carried out, and links up with the other workers once all can.
    ///
    /// # Errors
    /// Names the peer that is gone, silent or somebody else.
    pub fn link(mut self, door: &Door, (task, life): (&Task, &Life), ready: &Ready) -> Result<Mesh, NetError> {
        // The root hears whose fault it is before its link ends, which tells it little.
        let links = self.links(door, (task, life), ready).inspect_err(|error| life.fail(task, error))?;
        let links = [(0, self.root)].into_iter().chain(links);
        let mesh = Mesh::of_conns(task.plan.node, links, self.progress)?;
        Ok(mesh.in_stages(task.plan.stages.len()).until(life.is_over()))
    }

    /// The links to all other workers.
    fn links(
        &mut self,
        door: &Door,
        (task, life): (&Task, &Life),
        ready: &Ready,
    ) -> Result<Vec<(u32, Conn)>, NetError> {
        let Plan { session, node, nodes, .. } = &task.plan;
        // Nobody calls before all are ready.
        door.expect(*session, (node + 1..*nodes).collect());
        self.root.write_with(Part::Message, |root| write_ready(root, ready))?;
        // The slowest worker is waited for by all.
        self.root.begin(PREPARE.max(self.progress));
        self.root.read_message(|message| matches!(message, Message::Go).then_some(()))?;
        if !life.is_watched() {
            let peer = self.root.peer().to_owned();
            return Err(NetError::Unexpected { peer, what: "no question for signs of life before the session" });
        }
        let mut peers = Vec::with_capacity(*nodes as usize - 2);
        for lower in 1..*node {
            let address = task.address(lower);
            let stream = connect(&address, door.timeouts())?;
            let mut conn = Conn::new(stream, format!("worker {address}"), self.progress)?;
            conn.write_with(Part::Handshake, |conn| conn.write_all(&LINK))?;
            if let Some(key) = door.keys().first() {
                conn.call_secured(key, &LINK)?;
            }
            conn.write_with(Part::Handshake, |conn| write_link(conn, session, *node))?;
            peers.push((lower, conn));
        }
        let links = door.links(self.progress).map_err(|missing| {
            let names = missing.iter().map(|node| task.address(*node).to_string());
            let peer = format!("worker {}", names.collect::<Vec<_>>().join(", "));
            NetError::Silent { peer, phase: "the set-up of links", timeout: self.progress }
        })?;
        peers.extend(links.into_iter().map(|(node, conn)| (node, conn.called(task.name(node)))));
        self.root.begin(self.progress);
        self.root.write_with(Part::Message, write_linked)?;
        Ok(peers)
    }
}

/// A pass that a root has announced, or the end.
#[derive(Debug)]
pub enum Announced {
    /// Compute these tokens.
    Pass(Box<native::Pass>, Vec<u32>),
    /// The logits of the last pass that were not sent.
    Rest,
    /// The beginning of a sequence becomes that of another one.
    Copy(CacheCopy),
    /// Pages are to be kept on disk.
    Keep(OwnPages),
    /// Pages are to be got from disk, and the root is told how many there are.
    Restore(OwnPages),
    /// The session is over.
    End,
}

/// Pages of a sequence, with their names.
#[derive(Debug)]
pub struct OwnPages {
    slot: u32,
    first: u32,
    names: Vec<PageName>,
}

impl OwnPages {
    fn of(pages: &Pages<'_>) -> Self {
        let Pages { slot, first, names } = *pages;
        Self { slot, first, names: names.to_vec() }
    }

    /// As the message had it.
    pub fn pages(&self) -> Pages<'_> {
        Pages { slot: self.slot, first: self.first, names: &self.names }
    }
}

/// Waits for what the root wants next, as long as it gives signs of life: its user may be thinking.
///
/// # Errors
/// Where the root is gone, or says something else.
pub fn next(mesh: &mut Mesh) -> Result<Announced, NetError> {
    let mut len = [0; 4];
    mesh.hear(&mut len, None)?;
    let mut bytes = vec![0; native::message_len(len).map_err(|invalid| mesh.invalid(invalid))?];
    mesh.hear(&mut bytes, Some(mesh.patience()))?;
    match Message::parse(&bytes).map_err(|invalid| mesh.invalid(invalid))? {
        Message::Pass(pass, tokens) => {
            mesh.begin_pass(pass.rows(), is_answered(&pass));
            Ok(Announced::Pass(Box::new(pass), tokens.ids().collect()))
        }
        Message::Rest => Ok(Announced::Rest),
        Message::Copy(copy) => Ok(Announced::Copy(copy)),
        Message::Keep(pages) => Ok(Announced::Keep(OwnPages::of(&pages))),
        Message::Restore(pages) => Ok(Announced::Restore(OwnPages::of(&pages))),
        Message::Bye => Ok(Announced::End),
        _ => Err(NetError::Unexpected { peer: mesh.root().into(), what: "a message that is not due" }),
    }
}

impl Conn {
    /// Reads `N` bytes.
    pub(super) fn read_bytes<const N: usize>(&mut self, part: Part) -> Result<[u8; N], NetError> {
        let mut bytes = [0; N];
        embedded_io::Read::read_exact(self, &mut bytes).map_err(|error| match error {
            embedded_io::ReadExactError::UnexpectedEof => self.failed(part, io::ErrorKind::UnexpectedEof.into()),
            embedded_io::ReadExactError::Other(error) => self.failed(part, error),
        })?;
        Ok(bytes)
    }

    /// Reads a message that `take` has a use for.
    pub(super) fn read_message<T>(&mut self, take: impl FnOnce(Message<'_>) -> Option<T>) -> Result<T, NetError> {
        let peer = self.peer().to_owned();
        let invalid = |invalid| NetError::Invalid { peer: peer.clone(), invalid: Box::new(invalid) };
        let len = native::message_len(self.read_bytes(Part::Message)?).map_err(invalid)?;
        let mut bytes = vec![0; len];
        embedded_io::Read::read_exact(self, &mut bytes).map_err(|error| match error {
            embedded_io::ReadExactError::UnexpectedEof => {
                self.failed(Part::Message, io::ErrorKind::UnexpectedEof.into())
            }
            embedded_io::ReadExactError::Other(error) => self.failed(Part::Message, error),
        })?;
        let message = Message::parse(&bytes).map_err(invalid)?;
        take(message).ok_or(NetError::Unexpected { peer, what: "a message that is not due" })
    }
}
