//! Virtual time, processes, and the connections between them: in order, as late as dice say, held up where a link is cut.

use crate::random::Random;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

/// A machine: 0 is the root's, all others are workers'.
pub type Node = usize;
/// A connection, by the order in which they were made.
pub type Conn = usize;

/// What happens to a process.
#[derive(Clone, Debug)]
pub enum Event<M, T> {
    /// Something was said to it.
    Said(Conn, M),
    /// The other side has closed a connection, or is not there.
    Closed(Conn),
    /// A time that it has asked for has come.
    Timer(T),
}

/// What happens next.
#[derive(Debug)]
pub enum Happens<M, T> {
    /// To the process of a machine.
    To(Node, Event<M, T>),
    /// A time has come that the world waits for.
    World(T),
}

#[derive(Clone, Debug)]
enum Item<M, T> {
    /// For a process: its node, and which one of that.
    To(Node, u32, Event<M, T>),
    /// Something on its way over a connection: from, to.
    Travels(Conn, [Node; 2], Event<M, T>),
    /// Of the world: nobody sleeps through it.
    World(T),
}

#[derive(Debug)]
struct Ends {
    nodes: [Node; 2],
    /// Which processes of the nodes have it.
    processes: [u32; 2],
    is_open: [bool; 2],
    /// When the last word of each end arrives: the next one does not before it.
    last: [Duration; 2],
}

#[derive(Debug, Default)]
struct Machine {
    /// Number of the process; of one that has ended, too.
    process: u32,
    is_up: bool,
    is_stopped: bool,
}

/// All machines and what travels between them.
#[derive(Debug)]
pub struct Network<M, T> {
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    items: BTreeMap<u64, Item<M, T>>,
    next: u64,
    conns: Vec<Ends>,
    machines: Vec<Machine>,
    cut: BTreeSet<[Node; 2]>,
    held: Vec<Item<M, T>>,
    asleep: Vec<Item<M, T>>,
    random: Random,
}

/// A way takes so long, in microseconds.
const WAY_US: [usize; 2] = [100, 3000];

impl<M: Clone, T: Clone> Network<M, T> {
    /// So many machines, on which nothing runs.
    pub fn of(machines: usize, random: Random) -> Self {
        Self {
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            items: BTreeMap::new(),
            next: 0,
            conns: Vec::new(),
            machines: (0..machines).map(|_| Machine::default()).collect(),
            cut: BTreeSet::new(),
            held: Vec::new(),
            asleep: Vec::new(),
            random,
        }
    }

    /// Since the beginning.
    pub fn now(&self) -> Duration {
        self.now
    }

    fn put(&mut self, at: Duration, item: Item<M, T>) {
        self.queue.push(Reverse((at, self.next)));
        self.items.insert(self.next, item);
        self.next += 1;
    }

    fn link(a: Node, b: Node) -> [Node; 2] {
        [a.min(b), a.max(b)]
    }

    /// Whether nothing comes through between two machines.
    pub fn is_cut(&self, a: Node, b: Node) -> bool {
        self.cut.contains(&Self::link(a, b))
    }

    /// Lets nothing through between two machines, or lets it through again: what was held up arrives then.
    pub fn cut(&mut self, a: Node, b: Node, is_cut: bool) {
        if is_cut {
            self.cut.insert(Self::link(a, b));
        } else if self.cut.remove(&Self::link(a, b)) {
            for item in std::mem::take(&mut self.held) {
                match item {
                    Item::Travels(conn, ends, event) if Self::link(ends[0], ends[1]) == Self::link(a, b) => {
                        self.travel(conn, ends, event);
                    }
                    other => self.held.push(other),
                }
            }
        }
    }

    fn travel(&mut self, conn: Conn, ends: [Node; 2], event: Event<M, T>) {
        let way = WAY_US[0] + self.random.below(WAY_US[1] - WAY_US[0]);
        let side = self.side(conn, ends[0]);
        let at = (self.now + Duration::from_micros(way as u64)).max(self.conns[conn].last[side]);
        self.conns[conn].last[side] = at;
        self.put(at, Item::Travels(conn, ends, event));
    }

    fn side(&self, conn: Conn, node: Node) -> usize {
        usize::from(self.conns[conn].nodes[0] != node)
    }

    /// Calls another machine; who is not there is seen by the end of the connection.
    pub fn connect(&mut self, from: Node, to: Node) -> Conn {
        let nodes = [from, to];
        let processes = nodes.map(|node| self.machines[node].process);
        self.conns.push(Ends { nodes, processes, is_open: [true; 2], last: [self.now; 2] });
        self.conns.len() - 1
    }

    /// Says something to the other side, unless the connection is closed on this one.
    pub fn say(&mut self, from: Node, conn: Conn, message: M) {
        self.send(from, conn, Event::Said(conn, message));
    }

    /// Closes a connection.
    pub fn close(&mut self, from: Node, conn: Conn) {
        self.send(from, conn, Event::Closed(conn));
        let side = self.side(conn, from);
        self.conns[conn].is_open[side] = false;
    }

    fn send(&mut self, from: Node, conn: Conn, event: Event<M, T>) {
        let side = self.side(conn, from);
        if self.conns[conn].is_open[side] {
            let to = self.conns[conn].nodes[1 - side];
            self.travel(conn, [from, to], event);
        }
    }

    /// Whoever is at the other end of a connection.
    pub fn other(&self, conn: Conn, node: Node) -> Node {
        self.conns[conn].nodes[1 - self.side(conn, node)]
    }

    /// Wakes the process of `node` after a while.
    pub fn wake(&mut self, node: Node, after: Duration, timer: T) {
        let process = self.machines[node].process;
        self.put(self.now + after, Item::To(node, process, Event::Timer(timer)));
    }

    /// Lets something happen in the world after a while.
    pub fn later(&mut self, after: Duration, timer: T) {
        self.put(self.now + after, Item::World(timer));
    }

    /// Whether there is a process on a machine.
    pub fn is_up(&self, node: Node) -> bool {
        self.machines[node].is_up
    }

    /// Whether it is there, and stopped.
    pub fn is_stopped(&self, node: Node) -> bool {
        self.machines[node].is_stopped
    }

    /// Starts a process.
    pub fn start(&mut self, node: Node) {
        let process = self.machines[node].process + 1;
        self.machines[node] = Machine { process, is_up: true, ..Machine::default() };
    }

    /// Ends a process: its system closes its connections.
    pub fn kill(&mut self, node: Node) {
        let machine = &mut self.machines[node];
        let process = machine.process;
        (machine.is_up, machine.is_stopped) = (false, false);
        for conn in 0..self.conns.len() {
            let side = self.side(conn, node);
            let ends = &self.conns[conn];
            if ends.nodes.contains(&node) && ends.processes[side] == process && ends.is_open[side] {
                self.close(node, conn);
            }
        }
        self.asleep.retain(|item| !matches!(item, Item::To(to, ..) if *to == node));
    }

    /// Stops a process, or lets it go on: it sees then what it has missed.
    pub fn stop(&mut self, node: Node, is_stopped: bool) {
        self.machines[node].is_stopped = is_stopped && self.machines[node].is_up;
        if !is_stopped {
            for item in std::mem::take(&mut self.asleep) {
                match item {
                    Item::To(to, ..) if to == node => self.put(self.now, item),
                    other => self.asleep.push(other),
                }
            }
        }
    }

    /// What happens next.
    pub fn next(&mut self) -> Option<Happens<M, T>> {
        loop {
            let Reverse((at, number)) = self.queue.pop()?;
            self.now = self.now.max(at);
            let item = self.items.remove(&number)?;
            match item {
                Item::World(timer) => return Some(Happens::World(timer)),
                Item::Travels(conn, [from, to], event) => self.arrive(conn, [from, to], event),
                Item::To(node, process, event) => {
                    let machine = &self.machines[node];
                    if !machine.is_up || machine.process != process {
                        continue;
                    }
                    if machine.is_stopped {
                        self.asleep.push(Item::To(node, process, event));
                        continue;
                    }
                    if let Event::Said(conn, _) | Event::Closed(conn) = &event
                        && !self.conns[*conn].is_open[self.side(*conn, node)]
                    {
                        continue;
                    }
                    return Some(Happens::To(node, event));
                }
            }
        }
    }

    /// Something reaches the machine of `to`, if nothing is in the way.
    fn arrive(&mut self, conn: Conn, [from, to]: [Node; 2], event: Event<M, T>) {
        if self.is_cut(from, to) {
            return self.held.push(Item::Travels(conn, [from, to], event));
        }
        let (side, machine) = (self.side(conn, to), &self.machines[to]);
        let process = self.conns[conn].processes[side];
        let is_there = machine.is_up && machine.process == process && self.conns[conn].is_open[side];
        if is_there {
            self.put(self.now, Item::To(to, process, event));
        } else if !matches!(event, Event::Closed(_)) {
            // Its system says that nobody has this connection.
            self.conns[conn].is_open[side] = false;
            self.travel(conn, [to, from], Event::Closed(conn));
        }
    }
}
