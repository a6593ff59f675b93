//! All links of one node, and the exchanges over them.
//!
//! Sockets are non-blocking. An exchange tries every link in turn, both ways, and sleeps in the poller when none moves;
//! reads and writes overlap, so slices larger than the sockets' buffers do not lock nodes against each other. A plain link moves
//! bytes between pipe and socket directly; one with a key (`channel.rs`) gathers what is due into frames.

use super::NetError;
use super::channel::Channel;
use super::conn::{Conn, Parts};
use super::patience::{Patience, Turns};
use dair_core::graph::Collective;
use dair_core::io::{Exchange, Links};
use dair_core::wire::Invalid;
use dair_core::wire::dllama::Control;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Runs of bytes handed to the system at once.
const MAX_RUNS: usize = 32;
/// How long links are tried again and again, the processor offered to others in between, before the thread sleeps.
const SPIN: Duration = Duration::from_micros(20);
/// Calls for one link with a key, in each direction, before the next link has its turn.
const MAX_CALLS: usize = 8;

/// What crossed the network, and how long that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes to all peers.
    pub sent: u64,
    /// Bytes from all peers.
    pub received: u64,
    /// Time in exchanges, the waits for nodes that still compute included.
    pub exchanging: Duration,
    /// Exchanges.
    pub exchanges: u64,
}

impl Traffic {
    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
            exchanging: self.exchanging.saturating_sub(before.exchanging),
            exchanges: self.exchanges.saturating_sub(before.exchanges),
        }
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.exchanging += other.exchanging;
        self.exchanges += other.exchanges;
    }
}

/// The other nodes of a network, each behind a socket. A node without peers is a mesh too.
#[derive(Debug)]
pub struct Mesh {
    node: u32,
    links: Vec<Link>,
    poll: Poll,
    events: Events,
    /// For a peer that owes something, and whose turn it is.
    timeout: Duration,
    /// Of others, before it is a peer's turn.
    turns: Turns,
    /// Time that exchanges took.
    exchanging: Duration,
    exchanges: u64,
    /// The flows are those of an exchange that was begun.
    has_begun: bool,
    /// On a worker: set from elsewhere, the root is lost, whatever of its words is still to be read.
    is_over: Option<Arc<AtomicBool>>,
}

/// One peer.
#[derive(Debug)]
struct Link {
    node: u32,
    peer: String,
    stream: TcpStream,
    /// Where there is a key: what both directions go through.
    channel: Option<Box<Channel>>,
    /// Received and not read so far: while the link was set up, or behind what was due in the same frame.
    ahead: Vec<u8>,
    /// Where the unread part of `ahead` starts.
    ahead_at: usize,
    /// To be sent before anything else.
    queued: Vec<u8>,
    sent: u64,
    received: u64,
    outgoing: Flow,
    incoming: Flow,
    /// With what the peer owes in the exchange that runs.
    patience: Patience,
    /// Bytes sent and received that `patience` knows of.
    seen: u64,
}

/// The part of every row that crosses a link in one direction.
#[derive(Clone, Debug, Default)]
struct Flow {
    part: Range<usize>,
    row_bytes: usize,
    done: usize,
    total: usize,
}

impl Flow {
    fn new(part: Range<usize>, row_bytes: usize, rows: usize) -> Self {
        Self { total: part.len() * rows, part, row_bytes, done: 0 }
    }

    fn is_done(&self) -> bool {
        self.done == self.total
    }

    /// The runs of the pipe that are still to cross, in order.
    fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Self { part, row_bytes, done, total } = self.clone();
        let len = part.len();
        // Whole rows are one run.
        let step = if len == row_bytes { total } else { len };
        let mut at = done;
        std::iter::from_fn(move || {
            if at >= total {
                return None;
            }
            let (row, skip) = (at / len, at % len);
            let run = if step == total { total - at } else { len - skip };
            at += run;
            let start = row * row_bytes + part.start + skip;
            Some(start..start + run)
        })
    }
}

impl Link {
    fn is_idle(&self) -> bool {
        let is_sent = self.queued.is_empty() && self.channel.as_ref().is_none_or(|channel| channel.is_written());
        is_sent && self.outgoing.is_done() && self.incoming.is_done()
    }

    /// Whether something was taken from the socket that is not read yet.
    fn has_unread(&self) -> bool {
        let has_begun = self.channel.as_ref().is_some_and(|channel| channel.has_begun_a_frame());
        has_begun || self.ahead_at < self.ahead.len()
    }

    /// Whether anything moved since this was asked last.
    fn has_moved(&mut self, now: Instant) -> bool {
        let bytes = self.sent + self.received - self.seen;
        if bytes > 0 {
            self.patience.moved(bytes, now);
            self.seen += bytes;
        }
        bytes > 0
    }

    /// Sends what the socket takes.
    fn send(&mut self, pipe: &[u8]) -> io::Result<()> {
        if let Some(mut channel) = self.channel.take() {
            let result = self.send_sealed(&mut channel, pipe);
            self.channel = Some(channel);
            return result;
        }
        while !(self.queued.is_empty() && self.outgoing.is_done()) {
            let mut runs = heapless::Vec::<IoSlice<'_>, { MAX_RUNS + 1 }>::new();
            let queued = (!self.queued.is_empty()).then(|| IoSlice::new(&self.queued));
            let rows = self.outgoing.runs().take(MAX_RUNS).map(|run| IoSlice::new(&pipe[run]));
            runs.extend(queued.into_iter().chain(rows));
            let result = self.stream.write_vectored(&runs);
            drop(runs);
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    let queued = bytes.min(self.queued.len());
                    self.queued.drain(..queued);
                    self.outgoing.done += bytes - queued;
                    self.sent += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends, in frames, what the socket takes. Whoever is stopped by [`MAX_CALLS`] has moved bytes, and is called again.
    fn send_sealed(&mut self, channel: &mut Channel, pipe: &[u8]) -> io::Result<()> {
        for _ in 0..MAX_CALLS {
            let queued = channel.put(&self.queued);
            self.queued.drain(..queued);
            let rows = self.outgoing.runs();
            for run in rows.take_while(|_| self.queued.is_empty()) {
                let taken = channel.put(&pipe[run.clone()]);
                self.outgoing.done += taken;
                if taken < run.len() {
                    break;
                }
            }
            channel.seal();
            if channel.is_written() {
                break;
            }
            match channel.write_with(|frames| self.stream.write(frames)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.sent += bytes as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives what the socket has.
    fn receive(&mut self, pipe: &mut [u8]) -> io::Result<()> {
        let mut calls = 0;
        loop {
            self.take_ahead(pipe);
            if self.incoming.is_done() || calls == MAX_CALLS {
                return Ok(());
            }
            let result = match &mut self.channel {
                None => receive_runs(&mut self.stream, &mut self.incoming, pipe),
                Some(channel) => {
                    calls += 1;
                    channel.read_with(|space| self.stream.read(space), &mut self.ahead)
                }
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => self.received += bytes as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves what is here already to where it is due.
    fn take_ahead(&mut self, pipe: &mut [u8]) {
        for run in self.incoming.runs() {
            let ahead = &self.ahead[self.ahead_at..];
            let bytes = run.len().min(ahead.len());
            pipe[run.start..run.start + bytes].copy_from_slice(&ahead[..bytes]);
            self.ahead_at += bytes;
            self.incoming.done += bytes;
            if bytes < run.len() {
                break;
            }
        }
        if self.ahead_at == self.ahead.len() {
            self.ahead.clear();
            self.ahead_at = 0;
        }
    }
}

/// Reads from a socket what it has of a flow: bytes, 0 at the end.
fn receive_runs(stream: &mut TcpStream, incoming: &mut Flow, pipe: &mut [u8]) -> io::Result<usize> {
    let mut slices = heapless::Vec::<IoSliceMut<'_>, MAX_RUNS>::new();
    let (mut rest, mut rest_start) = (pipe, 0);
    for run in incoming.runs().take(MAX_RUNS) {
        let (slice, behind) = rest[run.start - rest_start..].split_at_mut(run.len());
        (rest, rest_start) = (behind, run.end);
        // `take` keeps the count inside the capacity.
        let _ = slices.push(IoSliceMut::new(slice));
    }
    let bytes = stream.read_vectored(&mut slices)?;
    incoming.done += bytes;
    Ok(bytes)
}

impl Mesh {
    /// A mesh of `node` and streams to its peers: node, what messages call it, stream. A peer that owes a byte is given
    /// up after `timeout`.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn new(
        node: u32,
        peers: impl IntoIterator<Item = (u32, String, std::net::TcpStream)>,
        timeout: Duration,
    ) -> Result<Self, NetError> {
        let conn = |(node, peer, stream)| Conn::new(stream, peer, timeout).map(|conn| (node, conn));
        Self::of_conns(node, peers.into_iter().map(conn).collect::<Result<Vec<_>, _>>()?, timeout)
    }

    /// A mesh of `node` and its peers, which may have said something already.
    pub(super) fn of_conns(
        node: u32,
        peers: impl IntoIterator<Item = (u32, Conn)>,
        timeout: Duration,
    ) -> Result<Self, NetError> {
        let poll = Poll::new().map_err(NetError::System)?;
        let mut links = Vec::new();
        for (token, (node, conn)) in peers.into_iter().enumerate() {
            let Parts { stream, peer, ahead, channel, sent, received } = conn.into_parts();
            stream.set_nonblocking(true).map_err(NetError::System)?;
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(token), interest).map_err(NetError::System)?;
            let (outgoing, incoming) = (Flow::default(), Flow::default());
            let (patience, seen, queued) = (Patience::new(timeout, Instant::now()), sent + received, Vec::new());
            links.push(Link {
                node,
                peer,
                stream,
                channel,
                ahead,
                ahead_at: 0,
                queued,
                sent,
                received,
                outgoing,
                incoming,
                patience,
                seen,
            });
        }
        Ok(Self {
            node,
            events: Events::with_capacity(links.len().max(1)),
            links,
            poll,
            timeout,
            turns: Turns::default(),
            exchanging: Duration::ZERO,
            exchanges: 0,
            has_begun: false,
            is_over: None,
        })
    }

    /// The mesh of a node that is alone.
    ///
    /// # Errors
    /// Where the system has no poller left.
    pub fn alone() -> Result<Self, NetError> {
        Self::new(0, [], Duration::MAX)
    }

    /// This node; the root is 0.
    pub fn node(&self) -> u32 {
        self.node
    }

    /// A peer has sent something that it may not send.
    pub fn wrong(&self, node: u32, what: &'static str) -> NetError {
        let link = self.links.iter().find(|link| link.node == node);
        NetError::Unexpected { peer: link.map_or_else(String::new, |link| link.peer.clone()), what }
    }

    /// A mesh of a worker whose root is lost once `is_over` is set, and its link ended.
    #[must_use]
    pub(super) fn until(mut self, is_over: Arc<AtomicBool>) -> Self {
        self.is_over = Some(is_over);
        self
    }

    /// A mesh whose nodes compute their layers in so many stages, one after the other; none is one.
    #[must_use]
    pub(super) fn in_stages(mut self, stages: usize) -> Self {
        self.turns = Turns::of(stages as u32);
        self
    }

    /// A pass of so many rows begins; `is_answered` says whether the root waits for its end.
    pub(super) fn begin_pass(&mut self, rows: u32, is_answered: bool) {
        self.turns.begin(rows, is_answered);
    }

    /// How long a peer that owes something is waited for while passes are on their way.
    pub(super) fn patience(&self) -> Duration {
        self.turns.limit(self.timeout)
    }

    /// What crossed since the connections were made.
    pub fn traffic(&self) -> Traffic {
        let (sent, received) = (self.sent_bytes(), self.received_bytes());
        Traffic { sent, received, exchanging: self.exchanging, exchanges: self.exchanges }
    }

    /// All nodes, this one included.
    pub fn nodes(&self) -> u32 {
        self.links.len() as u32 + 1
    }

    /// Bytes sent to all peers since their connections were made.
    pub fn sent_bytes(&self) -> u64 {
        self.links.iter().map(|link| link.sent).sum()
    }

    /// Bytes received from all peers since their connections were made.
    pub fn received_bytes(&self) -> u64 {
        self.links.iter().map(|link| link.received).sum()
    }

    /// On the root: announces a forward pass to every worker, in the `dllama` dialect.
    pub fn announce_control(&mut self, position: u32, batch: u32) {
        self.announce(&Control { position, batch }.emit());
    }

    /// On the root: tells every worker something, which travels with the next exchange.
    pub fn announce(&mut self, packet: &[u8]) {
        for link in &mut self.links {
            link.queued.extend_from_slice(packet);
        }
    }

    /// On the root: ends the session of every worker with `last` words, as far as they can be reached within a second.
    pub fn stop(mut self, last: &[u8]) {
        for link in &mut self.links {
            // What was announced before has no exchange to travel with.
            link.queued.clear();
            link.queued.extend_from_slice(last);
            (link.outgoing, link.incoming) = (Flow::default(), Flow::default());
        }
        // One unreachable worker does not keep the others from hearing it.
        let limit = Some(self.timeout.min(Duration::from_secs(1)));
        while !self.links.is_empty() && self.run("the end of the session", limit, &mut []).is_err() {
            let stuck = self.links.iter().position(|link| !link.is_idle()).unwrap_or(0);
            self.links.remove(stuck);
        }
    }

    /// On a worker: waits, as long as it takes, for the root to announce a forward pass in the `dllama` dialect; `None` is the
    /// end of the session.
    ///
    /// # Errors
    /// Where the root is gone, or asks for rows or positions that the graph does not have.
    pub fn next(&mut self, batch_max: u32, seq_len: u32) -> Result<Option<Control>, NetError> {
        let mut packet = [0; Control::BYTES];
        self.hear(&mut packet, None)?;
        Control::parse(packet, batch_max, seq_len).map_err(|invalid| self.invalid(invalid))
    }

    /// On a worker: waits for so many bytes of the root; without a limit, as long as it takes.
    pub(super) fn hear(&mut self, packet: &mut [u8], limit: Option<Duration>) -> Result<(), NetError> {
        for link in &mut self.links {
            link.outgoing = Flow::default();
            link.incoming = if link.node == 0 { Flow::new(0..packet.len(), packet.len(), 1) } else { Flow::default() };
        }
        self.run("the wait for a forward pass", limit, packet)
    }

    /// Sends what was announced and has had no exchange to travel with.
    ///
    /// # Errors
    /// Names the peer that does not take it.
    pub fn flush(&mut self) -> Result<(), NetError> {
        for link in &mut self.links {
            (link.outgoing, link.incoming) = (Flow::default(), Flow::default());
        }
        self.run("the announcement of a pass", Some(self.patience()), &mut [])
    }

    /// On the root: sends what was announced, and waits for so many bytes of every worker, which have that much time more than for a pass.
    /// What messages call it, and what it said, of each.
    ///
    /// # Errors
    /// Names the worker that is gone or silent.
    pub(super) fn hear_all(&mut self, bytes: usize, more: Duration) -> Result<Vec<(String, Vec<u8>)>, NetError> {
        let mut packet = vec![0; bytes * self.links.len()];
        for (index, link) in self.links.iter_mut().enumerate() {
            link.outgoing = Flow::default();
            link.incoming = Flow::new(index * bytes..(index + 1) * bytes, packet.len(), 1);
        }
        self.run("the answer of workers", Some(self.patience() + more), &mut packet)?;
        let answers = packet.chunks_exact(bytes.max(1)).map(<[u8]>::to_vec);
        Ok(self.links.iter().map(|link| link.peer.clone()).zip(answers).collect())
    }

    /// On a worker: tells the root something at once.
    ///
    /// # Errors
    /// Where the root does not take it.
    pub(super) fn tell_root(&mut self, packet: &[u8]) -> Result<(), NetError> {
        let root = self.links.iter_mut().filter(|link| link.node == 0);
        root.for_each(|link| link.queued.extend_from_slice(packet));
        self.flush()
    }

    /// On a worker: what messages call the root.
    pub(super) fn root(&self) -> &str {
        self.links.iter().find(|link| link.node == 0).map_or("root", |link| &link.peer)
    }

    /// On a worker: the root has said what it may not say.
    pub(super) fn invalid(&self, invalid: Invalid) -> NetError {
        NetError::Invalid { peer: self.root().to_owned(), invalid: Box::new(invalid) }
    }

    /// Moves bytes until every flow is complete. Without a limit it waits for ever.
    fn run(&mut self, phase: &'static str, limit: Option<Duration>, pipe: &mut [u8]) -> Result<(), NetError> {
        let mut last = Instant::now();
        for link in &mut self.links {
            link.patience = Patience::new(limit.unwrap_or(Duration::MAX), last);
        }
        loop {
            let mut complete = true;
            for link in &mut self.links {
                let step = link.send(pipe).and_then(|()| link.receive(pipe));
                step.map_err(|error| NetError::io(&link.peer, phase, error))?;
                complete &= link.is_idle();
            }
            if complete {
                return Ok(());
            }
            let now = Instant::now();
            for link in &mut self.links {
                if link.has_moved(now) {
                    last = now;
                }
            }
            if now - last < SPIN {
                std::thread::yield_now();
                continue;
            }
            let owing = self.links.iter().filter(|link| !link.is_idle());
            let next = owing.min_by_key(|link| link.patience.left(now));
            let left = next.map_or(Duration::ZERO, |link| link.patience.left(now));
            if let (true, Some(link)) = (left.is_zero(), next) {
                return Err(link.patience.error(&link.peer, phase, now));
            }
            match self.poll.poll(&mut self.events, limit.map(|_| left)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(NetError::System(error)),
                _ => self.check_root(phase)?,
            }
        }
    }

    /// A root that is gone ends a session, even while only others owe something.
    fn check_root(&self, phase: &'static str) -> Result<(), NetError> {
        let link = self.links.iter().find(|link| link.node == 0);
        if let (Some(true), Some(root)) = (self.is_over.as_ref().map(|over| over.load(Ordering::Relaxed)), link) {
            return Err(NetError::io(&root.peer, phase, io::ErrorKind::UnexpectedEof.into()));
        }
        let has_closed =
            |token: Token| self.events.iter().any(|event| event.token() == token && event.is_read_closed());
        let root = self.links.iter().position(|link| link.node == 0).filter(|index| has_closed(Token(*index)));
        let Some(root) = root.map(|index| &self.links[index]) else { return Ok(()) };
        // What it said before may still be there to be read.
        if root.has_unread() {
            return Ok(());
        }
        match root.stream.peek(&mut [0]) {
            Ok(0) => Err(NetError::io(&root.peer, phase, io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}

impl Mesh {
    /// What crosses which link in an exchange.
    fn set_flows(&mut self, exchange: &Exchange<'_>, pipe: &[u8]) {
        assert_eq!(exchange.nodes, self.nodes(), "the graph is for as many nodes as the mesh has");
        let row_bytes = exchange.row_bytes;
        let rows = pipe.len().checked_div(row_bytes).unwrap_or(0);
        for link in &mut self.links {
            let flow = |from, to| Flow::new(exchange.sent(from, to), row_bytes, rows);
            (link.outgoing, link.incoming) = (flow(self.node, link.node), flow(link.node, self.node));
        }
    }
}

fn phase_of(exchange: &Exchange<'_>) -> &'static str {
    match exchange.collective {
        Collective::Broadcast => "the broadcast of embeddings",
        Collective::AllGather => "the exchange of partial sums",
        Collective::To(..) => "the exchange of activations",
        Collective::Gather => "the gathering of logits",
    }
}

impl Links for Mesh {
    type Error = NetError;

    /// Sends what the sockets take at once: their buffers carry it on while this node computes.
    fn begin(&mut self, exchange: Exchange<'_>, pipe: &[u8]) -> Result<(), NetError> {
        self.set_flows(&exchange, pipe);
        self.has_begun = true;
        for link in &mut self.links {
            link.send(pipe).map_err(|error| NetError::io(&link.peer, phase_of(&exchange), error))?;
        }
        Ok(())
    }

    fn exchange(&mut self, exchange: Exchange<'_>, pipe: &mut [u8]) -> Result<(), NetError> {
        if !std::mem::take(&mut self.has_begun) {
            self.set_flows(&exchange, pipe);
        }
        let phase = phase_of(&exchange);
        let start = Instant::now();
        let result = self.run(phase, Some(self.patience()), pipe);
        self.exchanging += start.elapsed();
        self.exchanges += 1;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel;
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Meshes of `nodes` nodes, every pair connected over loopback.
    fn meshes(nodes: u32, timeout: Duration, kind: Kind) -> Vec<Mesh> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peers: Vec<Vec<_>> = (0..nodes).map(|_| Vec::new()).collect();
        for low in 0..nodes {
            for high in low + 1..nodes {
                let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let accepted = listener.accept().unwrap().0;
                let mut ends = [(high, dialled), (low, accepted)]
                    .map(|(peer, stream)| (peer, Conn::new(stream, format!("node {peer}"), timeout).unwrap()));
                if kind == Kind::Secured {
                    ends.iter_mut().zip(channel::pair()).for_each(|((_, conn), channel)| conn.secure(channel));
                }
                let [to_high, to_low] = ends;
                peers[low as usize].push(to_high);
                peers[high as usize].push(to_low);
            }
        }
        (0..).zip(peers).map(|(node, peers)| Mesh::of_conns(node, peers, timeout).unwrap()).collect()
    }

    /// What all of these tests hold for.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Plain,
        Secured,
    }

    const KINDS: [Kind; 2] = [Kind::Plain, Kind::Secured];

    /// Bytes that differ from row to row and node to node.
    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// What the pipe of `node` holds after an exchange of `pipes`.
    fn expected(exchange: Exchange, node: u32, pipes: &[Vec<u8>]) -> Vec<u8> {
        let mut pipe = pipes[node as usize].clone();
        for (row, out) in pipe.chunks_mut(exchange.row_bytes).enumerate() {
            let row_of = |other: u32| &pipes[other as usize][row * exchange.row_bytes..][..exchange.row_bytes];
            for other in 0..exchange.nodes {
                let part = exchange.part(other);
                match exchange.collective {
                    Collective::Broadcast => out.copy_from_slice(row_of(0)),
                    Collective::Gather if node > 0 => {}
                    Collective::To(first, end) if !(u32::from(first)..u32::from(end)).contains(&node) => {}
                    _ => out[part.clone()].copy_from_slice(&row_of(other)[part]),
                }
            }
        }
        pipe
    }

    fn exchange_all(nodes: u32, kind: Kind, plan: &[(Collective, usize, usize)]) {
        let plan: Vec<_> = plan
            .iter()
            .map(|&(collective, part_bytes, rows)| {
                (Exchange::equal(collective, part_bytes * nodes as usize, nodes), rows)
            })
            .collect();
        let pipe = |node: u32, step: usize, exchange: Exchange, rows: usize| {
            noise(u64::from(node) << 32 | step as u64, exchange.row_bytes * rows)
        };
        thread::scope(|scope| {
            for (node, mut mesh) in (0..).zip(meshes(nodes, TIMEOUT, kind)) {
                let (plan, pipe) = (&plan, &pipe);
                scope.spawn(move || {
                    for (step, &(exchange, rows)) in plan.iter().enumerate() {
                        let mut found = pipe(node, step, exchange, rows);
                        mesh.exchange(exchange, &mut found).unwrap();
                        let pipes: Vec<_> = (0..nodes).map(|other| pipe(other, step, exchange, rows)).collect();
                        let is_right = found == expected(exchange, node, &pipes);
                        assert!(is_right, "node {node} of {nodes}, step {step}, {kind:?}");
                    }
                });
            }
        });
    }

    #[test]
    fn every_exchange_of_any_number_of_nodes_brings_what_it_should() {
        use Collective::{AllGather, Broadcast, Gather, To};
        for nodes in 1..=4 {
            let mut plan = vec![(Broadcast, 256, 1), (Gather, 640, 1), (AllGather, 68, 1)];
            for rows in [1, 2, 31, 32, 33, 77] {
                plan.extend([
                    (Broadcast, 100, rows),
                    (AllGather, 68, rows),
                    (AllGather, 2048, rows),
                    (Gather, 13, rows),
                    (To(1, 3), 52, rows),
                    (To(0, 1), 52, rows),
                ]);
            }
            KINDS.iter().for_each(|kind| exchange_all(nodes, *kind, &plan));
        }
    }

    #[test]
    fn slices_beyond_the_buffers_of_the_sockets_do_not_lock() {
        for kind in KINDS {
            exchange_all(3, kind, &[(Collective::AllGather, 24 << 20, 1), (Collective::AllGather, 300_000, 40)]);
            exchange_all(2, kind, &[(Collective::Broadcast, 16 << 20, 2), (Collective::Gather, 16 << 20, 2)]);
        }
    }

    #[test]
    fn announcements_travel_before_the_first_exchange() {
        for kind in KINDS {
            let [mut root, mut worker] = <[Mesh; 2]>::try_from(meshes(2, TIMEOUT, kind)).unwrap();
            let exchange = Exchange::equal(Collective::Broadcast, 64, 2);
            let thread = thread::spawn(move || {
                let mut pipe = vec![0; 128];
                assert_eq!(worker.next(32, 64).unwrap(), Some(Control { position: 5, batch: 2 }));
                worker.exchange(exchange, &mut pipe).unwrap();
                assert_eq!(pipe, noise(1, 128));
                assert_eq!(worker.next(32, 64).unwrap(), None);
                (worker.sent_bytes(), worker.received_bytes())
            });
            root.announce_control(5, 2);
            root.exchange(exchange, &mut noise(1, 128)).unwrap();
            // In one frame, which has a length and a seal.
            let frame = if kind == Kind::Secured { 20 } else { 0 };
            assert_eq!((root.sent_bytes(), root.received_bytes()), (136 + frame, 0));
            root.stop(&Control::STOP.emit());
            assert_eq!(thread.join().unwrap(), (0, 144 + 2 * frame));
        }
    }

    /// What comes in one frame with the last bytes that are due stays until it is due.
    #[test]
    fn exchanges_that_were_begun_and_announcements_mix_on_secured_links() {
        let [mut root, mut worker] = <[Mesh; 2]>::try_from(meshes(2, TIMEOUT, Kind::Secured)).unwrap();
        let exchange = Exchange::equal(Collective::Broadcast, 3000, 2);
        thread::scope(|scope| {
            scope.spawn(move || {
                for round in 1..40 {
                    let mut pipe = vec![0; 3000 * 9];
                    let control = Control { position: round, batch: 1 };
                    assert_eq!(worker.next(32, 64).unwrap(), Some(control));
                    worker.begin(exchange, &pipe).unwrap();
                    worker.exchange(exchange, &mut pipe).unwrap();
                    assert!(pipe == noise(u64::from(round), pipe.len()), "round {round}");
                }
                assert_eq!(worker.next(32, 64).unwrap(), None);
            });
            for round in 1..40 {
                let mut pipe = noise(u64::from(round), 3000 * 9);
                root.announce_control(round, 1);
                root.begin(exchange, &pipe).unwrap();
                root.exchange(exchange, &mut pipe).unwrap();
            }
            root.stop(&Control::STOP.emit());
        });
    }

    /// Somebody between two nodes who changes a bit ends the session.
    #[test]
    fn a_changed_byte_on_a_secured_link_is_an_error_that_names_the_peer() {
        let relayed = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(relayed.local_addr().unwrap()).unwrap();
        let mut from_near = relayed.accept().unwrap().0;
        let mut to_far = TcpStream::connect(relayed.local_addr().unwrap()).unwrap();
        let far = relayed.accept().unwrap().0;
        let [mut root, mut worker] = [(1, near), (0, far)].map(|(peer, stream)| {
            let conn = Conn::new(stream, format!("node {peer}"), TIMEOUT).unwrap();
            (1 - peer, peer, conn)
        });
        [&mut root, &mut worker]
            .into_iter()
            .zip(channel::pair())
            .for_each(|((.., conn), channel)| conn.secure(channel));
        let [mut root, mut worker] =
            [root, worker].map(|(node, peer, conn)| Mesh::of_conns(node, [(peer, conn)], TIMEOUT).unwrap());
        root.announce_control(5, 2);
        root.flush().unwrap();
        let mut frame = vec![0; root.sent_bytes() as usize];
        from_near.read_exact(&mut frame).unwrap();
        frame[4] ^= 1;
        to_far.write_all(&frame).unwrap();
        let error = worker.next(32, 64).unwrap_err().to_string();
        assert_eq!(error, "node 0: encrypted data that was changed on the way during the wait for a forward pass");
    }

    fn gather(mesh: &mut Mesh) -> String {
        let exchange = Exchange::equal(Collective::AllGather, 4096 * 3, 3);
        mesh.exchange(exchange, &mut vec![0; 4096 * 3]).unwrap_err().to_string()
    }

    #[test]
    fn a_peer_that_closes_is_named() {
        for kind in KINDS {
            let [mut root, worker, _other] = <[Mesh; 3]>::try_from(meshes(3, TIMEOUT, kind)).unwrap();
            drop(worker);
            assert_eq!(gather(&mut root), "node 1 closed the connection during the exchange of partial sums");
        }
    }

    #[test]
    fn a_silent_peer_is_named_after_the_timeout() {
        for kind in KINDS {
            let [mut root, mut worker, _silent] =
                <[Mesh; 3]>::try_from(meshes(3, Duration::from_millis(200), kind)).unwrap();
            let thread = thread::spawn(move || gather(&mut worker));
            let start = Instant::now();
            assert_eq!(gather(&mut root), "node 2: no data for 0.2 s during the exchange of partial sums");
            assert!(start.elapsed() < Duration::from_secs(5));
            assert!(thread.join().unwrap().starts_with("node 2: no data for 0.2 s"));
        }
    }

    #[test]
    fn control_packets_beyond_the_graph_are_refused() {
        let [mut root, mut worker] = <[Mesh; 2]>::try_from(meshes(2, TIMEOUT, Kind::Plain)).unwrap();
        root.announce_control(100_000, 1);
        let exchange = Exchange::equal(Collective::Broadcast, 2, 2);
        root.exchange(exchange, &mut [0; 2]).unwrap();
        let error = worker.next(32, 64).unwrap_err().to_string();
        assert_eq!(error, "node 0: control packet: position is 100000; allowed: 0 to 63");
    }
}
