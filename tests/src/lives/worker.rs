//! A worker, as `host/src/net/{door,watch}.rs` and `host/src/cluster/node.rs` have it, without threads and weights: one session at a
//! time, its links, what its root hears of it, and a cache of which each pass depends on every token.

use super::network::{Conn, Event, Node};
use super::{Message, Net, Timer, part_of};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A session that is about to end has so long, for somebody who wants in.
const ENDING: Duration = Duration::from_millis(250);
/// One that is about to end does so when there was nothing to be computed for so long.
const IDLE: Duration = Duration::from_secs(1);
/// For the others' parts of a pass.
const PASSING: Duration = Duration::from_secs(30);
/// For links to come.
const LINKING: Duration = Duration::from_secs(10);

/// The process on a worker's machine.
#[derive(Debug)]
pub struct Worker {
    node: Node,
    inside: Option<Session>,
    watches: BTreeMap<Conn, Watch>,
    /// Who waits for the end of a session, and with what.
    waiting: Vec<(Conn, Message, Duration)>,
    is_leaving: bool,
    /// It has ended.
    pub is_over: bool,
    /// Computing takes so long.
    pub pace: Duration,
}

/// What the root of a session hears, also when that is over.
#[derive(Debug)]
struct Watch {
    session: u64,
    heard: Duration,
    silence: Duration,
    failed: Option<Option<Node>>,
    has_told: bool,
}

#[derive(Debug)]
struct Session {
    id: u64,
    epoch: u32,
    root: Conn,
    /// All nodes but the root, and this one's place among them, from 1 on.
    nodes: Vec<Node>,
    place: usize,
    links: BTreeMap<Node, Conn>,
    is_ready: bool,
    cache: Vec<u32>,
    /// The pass that is computed, by its number, and those that are to be: from which position on, which tokens.
    pass: Option<u64>,
    passes: VecDeque<(u64, u32, Vec<u32>)>,
    is_computed: bool,
    /// What others have computed, by pass and node.
    parts: BTreeMap<(u64, Node), u64>,
    idle: Duration,
}

impl Watch {
    fn is_silent(&self, now: Duration) -> bool {
        now >= self.heard + 2 * self.silence
    }
}

impl Worker {
    /// One that has just started.
    pub fn new(node: Node, pace: Duration) -> Self {
        let (inside, watches, waiting) = (None, BTreeMap::new(), Vec::new());
        Self { node, inside, watches, waiting, is_leaving: false, is_over: false, pace }
    }

    /// Somebody tells it to end.
    pub fn leave(&mut self) {
        self.is_leaving = true;
        self.is_over = self.inside.is_none();
    }

    /// Where it runs.
    pub fn node(&self) -> Node {
        self.node
    }

    /// The session that it is in.
    pub fn session(&self) -> Option<u64> {
        self.inside.as_ref().map(|session| session.id)
    }

    /// Something happens to it.
    ///
    /// # Errors
    /// What must not happen.
    pub fn on(&mut self, net: &mut Net, event: Event<Message, Timer>) -> Result<(), String> {
        match event {
            Event::Said(conn, message) => self.hear(net, conn, message)?,
            Event::Closed(conn) => self.closed(net, conn),
            Event::Timer(timer) => self.wake(net, timer)?,
        }
        self.is_over |= self.is_leaving && self.inside.is_none();
        Ok(())
    }

    fn hear(&mut self, net: &mut Net, conn: Conn, message: Message) -> Result<(), String> {
        match message {
            Message::Call | Message::Plan { .. } if self.inside.is_some() => {
                self.waiting.push((conn, message, net.now() + ENDING));
                net.wake(self.node, ENDING, Timer::Waiting);
            }
            Message::Call => net.say(self.node, conn, Message::Have { is_busy: self.is_leaving }),
            Message::Plan { .. } if self.is_leaving => net.say(self.node, conn, Message::Refused),
            Message::Plan { epoch, session, nodes } => self.let_in(net, conn, (epoch, session), nodes),
            Message::Watch { session, silence } => {
                let heard = net.now();
                self.watches.insert(conn, Watch { session, heard, silence, failed: None, has_told: false });
                net.wake(self.node, 2 * silence, Timer::Silence(conn));
            }
            Message::Beat => self.answer(net, conn),
            Message::Link { session } => match &mut self.inside {
                Some(inside) if inside.id == session => {
                    inside.links.insert(net.other(conn, self.node), conn);
                    self.compute(net)?;
                }
                // Its plan is still on its way, or it is of a session that is over: the other one waits, and gives up.
                _ => self.waiting.push((conn, message, net.now() + LINKING)),
            },
            Message::Pass { epoch, number, position, tokens } => {
                let Some(inside) = self.inside.as_mut().filter(|inside| inside.root == conn) else { return Ok(()) };
                if inside.epoch != epoch {
                    return Err(format!("worker {} in session {} hears of a pass of {epoch}", self.node, inside.epoch));
                }
                inside.passes.push_back((number, position, tokens));
                self.compute(net)?;
            }
            Message::Part { number, value } => {
                let from = net.other(conn, self.node);
                if let Some(inside) = self.inside.as_mut().filter(|inside| inside.links.get(&from) == Some(&conn)) {
                    inside.parts.insert((number, from), value);
                    self.go_on(net)?;
                }
            }
            Message::End => self.end(net, conn),
            Message::Bye => _ = self.watches.remove(&conn),
            other => return Err(format!("worker {} does not know {other:?}", self.node)),
        }
        Ok(())
    }

    fn let_in(&mut self, net: &mut Net, root: Conn, (epoch, id): (u32, u64), nodes: Vec<Node>) {
        let place = 1 + nodes.iter().position(|node| *node == self.node).unwrap_or_default();
        self.inside = Some(Session {
            id,
            epoch,
            root,
            nodes,
            place,
            links: BTreeMap::new(),
            is_ready: false,
            cache: Vec::new(),
            pass: None,
            passes: VecDeque::new(),
            is_computed: false,
            parts: BTreeMap::new(),
            idle: net.now(),
        });
        net.wake(self.node, self.pace, Timer::Prepared(id));
        net.wake(self.node, LINKING, Timer::Linked(id));
    }

    /// Its root asks for a sign of life.
    fn answer(&mut self, net: &mut Net, conn: Conn) {
        let now = net.now();
        let Some(watch) = self.watches.get_mut(&conn) else { return };
        let limit = 2 * watch.silence;
        watch.heard = now;
        let failed = watch.failed.take();
        let leaves = self.is_leaving && !std::mem::replace(&mut watch.has_told, self.is_leaving);
        let is_told = watch.has_told;
        let session = watch.session;
        net.wake(self.node, limit, Timer::Silence(conn));
        net.say(self.node, conn, Message::Alive { failed, leaves });
        let is_idle = |inside: &Session| inside.id == session && inside.pass.is_none() && now > inside.idle + IDLE;
        if is_told && self.inside.as_ref().is_some_and(is_idle) {
            self.fail(net, None);
        }
    }

    fn closed(&mut self, net: &mut Net, conn: Conn) {
        net.close(self.node, conn);
        self.waiting.retain(|(waiting, ..)| *waiting != conn);
        if let Some(watch) = self.watches.remove(&conn) {
            if self.inside.as_ref().is_some_and(|inside| inside.id == watch.session) {
                self.fail(net, None);
            }
            return;
        }
        let Some(inside) = &self.inside else { return };
        if inside.root == conn {
            self.fail(net, None);
        } else if let Some(node) = inside.links.iter().find_map(|(node, link)| (*link == conn).then_some(*node)) {
            self.fail(net, Some(node));
        }
    }

    fn wake(&mut self, net: &mut Net, timer: Timer) -> Result<(), String> {
        let now = net.now();
        let inside = |id: u64, worker: &Self| worker.inside.as_ref().is_some_and(|inside| inside.id == id);
        match timer {
            Timer::Waiting => {
                let (late, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|(.., until)| *until <= now);
                self.waiting = rest;
                let late: Vec<(Conn, Message, Duration)> = late;
                for (conn, message, _) in late {
                    match message {
                        Message::Call => net.say(self.node, conn, Message::Have { is_busy: true }),
                        Message::Plan { .. } => net.say(self.node, conn, Message::Refused),
                        _ => net.close(self.node, conn),
                    }
                }
            }
            Timer::Silence(conn) if self.watches.get(&conn).is_some_and(|watch| watch.is_silent(now)) => {
                self.closed(net, conn);
            }
            Timer::Prepared(id) if inside(id, self) => self.prepared(net)?,
            Timer::Linked(id) if inside(id, self) => {
                let missing = self.inside.as_ref().and_then(|inside| {
                    let is_missing = |node: &&Node| **node != self.node && !inside.links.contains_key(*node);
                    inside.nodes.iter().find(is_missing).copied()
                });
                if let Some(node) = missing {
                    self.fail(net, Some(node));
                }
            }
            Timer::Computed(id, number) => {
                let inside = self.inside.as_mut().filter(|inside| inside.id == id && inside.pass == Some(number));
                if let Some(inside) = inside {
                    inside.is_computed = true;
                    let part = part_of(inside.place, inside.nodes.len() + 1, &inside.cache);
                    let to: Vec<Conn> = inside.links.values().copied().chain([inside.root]).collect();
                    for conn in to {
                        net.say(self.node, conn, Message::Part { number, value: part });
                    }
                    self.go_on(net)?;
                }
            }
            Timer::Late(id, number) => {
                let inside = self.inside.as_ref().filter(|inside| inside.id == id && inside.pass == Some(number));
                let late = inside.and_then(|inside| {
                    let is_late = |node: &&Node| **node != self.node && !inside.parts.contains_key(&(number, **node));
                    inside.nodes.iter().find(is_late).copied()
                });
                if late.is_some() {
                    self.fail(net, late);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Its part is prepared: it says so, and calls the workers before it.
    fn prepared(&mut self, net: &mut Net) -> Result<(), String> {
        let Some(inside) = &mut self.inside else { return Ok(()) };
        inside.is_ready = true;
        net.say(self.node, inside.root, Message::Ready);
        for node in inside.nodes[..inside.place - 1].iter().copied() {
            let conn = net.connect(self.node, node);
            net.say(self.node, conn, Message::Link { session: inside.id });
            inside.links.insert(node, conn);
        }
        let id = inside.id;
        let is_link = |message: &Message| matches!(message, Message::Link { session } if *session == id);
        let (links, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|(_, what, _)| is_link(what));
        self.waiting = rest;
        let links: Vec<(Conn, Message, Duration)> = links;
        for (conn, ..) in links {
            inside.links.insert(net.other(conn, self.node), conn);
        }
        self.compute(net)
    }

    /// Begins with the next pass, unless it is at one, or still waits for links.
    fn compute(&mut self, net: &mut Net) -> Result<(), String> {
        let is_free = |inside: &&mut Session| inside.pass.is_none() && inside.links.len() + 1 == inside.nodes.len();
        let Some(inside) = self.inside.as_mut().filter(is_free) else { return Ok(()) };
        let Some((number, position, tokens)) = inside.passes.pop_front() else { return Ok(()) };
        if inside.cache.len() < position as usize {
            return Err(format!("worker {} lacks tokens before position {position}", self.node));
        }
        inside.cache.truncate(position as usize);
        inside.cache.extend(tokens);
        (inside.pass, inside.is_computed) = (Some(number), false);
        net.wake(self.node, self.pace, Timer::Computed(inside.id, number));
        net.wake(self.node, PASSING, Timer::Late(inside.id, number));
        Ok(())
    }

    /// A pass is over when everybody's part is there.
    fn go_on(&mut self, net: &mut Net) -> Result<(), String> {
        let Some(inside) = &mut self.inside else { return Ok(()) };
        let (Some(number), true) = (inside.pass, inside.is_computed) else { return Ok(()) };
        for (place, node) in (1..).zip(&inside.nodes) {
            if *node == self.node {
                continue;
            }
            match inside.parts.get(&(number, *node)) {
                None => return Ok(()),
                Some(part) if *part == part_of(place, inside.nodes.len() + 1, &inside.cache) => {}
                Some(_) => return Err(format!("worker {} gets another part of {node} in pass {number}", self.node)),
            }
        }
        inside.parts.retain(|(pass, _), _| *pass > number);
        (inside.pass, inside.idle) = (None, net.now());
        self.compute(net)
    }

    /// The session can't go on, because of this node: all of its links end, and its root hears why if it asks.
    fn fail(&mut self, net: &mut Net, blamed: Option<Node>) {
        let Some(inside) = self.inside.take() else { return };
        if let Some(watch) = self.watches.values_mut().find(|watch| watch.session == inside.id)
            && blamed.is_some()
        {
            watch.failed = Some(blamed);
        }
        for conn in inside.links.values().chain([&inside.root]) {
            net.close(self.node, *conn);
        }
        self.free(net);
    }

    /// Its root says that the session is over.
    fn end(&mut self, net: &mut Net, conn: Conn) {
        if self.inside.as_ref().is_some_and(|inside| inside.root == conn) {
            self.fail(net, None);
        }
    }

    fn free(&mut self, net: &mut Net) {
        for (conn, message, until) in std::mem::take(&mut self.waiting) {
            match message {
                Message::Link { .. } => self.waiting.push((conn, message, until)),
                // A plan lets somebody in again, so the others go on waiting.
                _ if self.hear(net, conn, message).is_err() => unreachable!("calls and plans are no mistakes"),
                _ => {}
            }
        }
    }
}
