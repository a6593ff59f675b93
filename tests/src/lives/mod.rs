//! Lives of a cluster on virtual time: what happens to its machines and links is thrown by dice of a seed, and a life that goes wrong is
//! lived again by that seed.
//!
//! The root's rules are those of the program: [`Coordinator`](dair_core::plan::coordinator), membership, and the history of what is
//! in the cache. What carries them out there, and workers, are played: `root` and `worker` say what they stand for. Computing is
//! played, too, so that a node that lacks a token, or is in another session than the others, gives another answer.

mod network;
mod root;
mod worker;

use crate::random::Random;
use network::{Conn, Happens, Network, Node};
use root::Root;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;
use worker::Worker;

/// What processes say to each other.
#[derive(Clone, Debug)]
enum Message {
    /// What does it have?
    Call,
    /// It is there.
    Have {
        is_busy: bool,
    },
    /// What it is to compute, with whom.
    Plan {
        epoch: u32,
        session: u64,
        nodes: Vec<Node>,
    },
    Refused,
    Ready,
    /// The first word of a link between workers.
    Link {
        session: u64,
    },
    /// The first word of signs of life.
    Watch {
        session: u64,
        silence: Duration,
    },
    Beat,
    Alive {
        failed: Option<Option<Node>>,
        leaves: bool,
    },
    Pass {
        epoch: u32,
        number: u64,
        position: u32,
        tokens: Vec<u32>,
    },
    /// What a node has computed for a pass.
    Part {
        number: u64,
        value: u64,
    },
    /// The session is over.
    End,
    /// The same, for signs of life.
    Bye,
}

/// What processes, and the world, wait for.
#[derive(Clone, Debug)]
enum Timer {
    // Of workers.
    Waiting,
    Silence(Conn),
    Prepared(u64),
    Linked(u64),
    Computed(u64, u64),
    Late(u64, u64),
    // Of the root.
    Request,
    Search,
    Searched(u64),
    Called(u64),
    Formed(u64),
    Ask(u64, usize),
    Asked(u64, usize, u64),
    Fates(u64),
    Own(u64, u64),
    // Of the world.
    Mishap,
    Start(Node),
    GoOn(Node),
    Heal(Node, Node),
    Fast(Node),
}

/// All machines of a life.
type Net = Network<Message, Timer>;

/// What node `place` of `nodes` computes, given all tokens that are in its cache.
fn part_of(place: usize, nodes: usize, cache: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (place, nodes, cache).hash(&mut hasher);
    hasher.finish()
}

/// The token behind these, which does not depend on who computes it.
fn token_after(tokens: &[u32]) -> u32 {
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    hasher.finish() as u32
}

/// What a life was like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Story {
    /// Requests that were answered.
    pub answers: u64,
    /// Passes that were computed for them.
    pub passes: u64,
    /// Sessions that were formed.
    pub sessions: u64,
    /// What has gone wrong in the world.
    pub mishaps: u64,
    /// Workers that were left out.
    pub losses: u64,
    /// The longest wait for a token.
    pub longest: Duration,
}

impl Story {
    /// Takes another life into account.
    pub fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.passes += other.passes;
        self.sessions += other.sessions;
        self.mishaps += other.mishaps;
        self.losses += other.losses;
        self.longest = self.longest.max(other.longest);
    }
}

/// Without mishaps, for so long, everybody has come back.
const CALM: Duration = Duration::from_secs(100);
/// A token may take so long, and so much longer for each mishap meanwhile, and a minute before.
const LONGEST: Duration = Duration::from_secs(20);
/// Losses for each mishap, in the mean of a life: one that comes back may be lost again.
const LOSSES: u64 = 4;
/// Mishaps of a minute.
const MINUTE: Duration = Duration::from_secs(60);

/// Lives for `length`, and then without mishaps until everybody is back.
///
/// # Errors
/// What went wrong, and the last things that happened before.
pub fn live(seed: u64, length: Duration) -> Result<Story, String> {
    let mut life = Life::new(seed);
    life.run(length).map_err(|error| {
        let last = life.told.iter().rev().take(40).rev().cloned().collect::<Vec<_>>().join("\n");
        format!("seed {seed}, {:.3} s: {error}\n{last}", life.net.now().as_secs_f64())
    })
}

struct Life {
    net: Net,
    random: Random,
    root: Root,
    workers: Vec<Worker>,
    mishaps: Vec<Duration>,
    /// Seconds between two of them, in the mean.
    every_s: usize,
    told: Vec<String>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 1 + random.below(6);
        let mut net = Net::of(count + 1, Random::new(random.next_u64()));
        let workers = (1..=count).map(|node| Worker::new(node, pace(&mut random))).collect();
        (0..=count).for_each(|node| net.start(node));
        let root = Root::new(count, Random::new(random.next_u64()));
        let every_s = random.pick(&[2, 10, 60]);
        Self { net, random, root, workers, mishaps: Vec::new(), every_s, told: Vec::new() }
    }

    fn run(&mut self, length: Duration) -> Result<Story, String> {
        self.net.wake(0, Duration::from_millis(10), Timer::Request);
        self.net.later(Duration::from_secs(1), Timer::Mishap);
        let (mut calm, mut since) = (None, Duration::ZERO);
        loop {
            let now = self.net.now();
            if now > length && calm.is_none() {
                calm = Some(now);
                self.heal();
            }
            if calm.is_some_and(|calm| now > calm + CALM) && self.root.is_idle() {
                self.check_all_are_back()?;
                let story = Story { mishaps: self.mishaps.len() as u64, ..self.root.story() };
                if story.losses > LOSSES * (1 + story.mishaps) {
                    return Err(format!("losses without end: {story:?}"));
                }
                return Ok(story);
            }
            let Some(next) = self.net.next() else { return Err("nothing happens any more".into()) };
            match next {
                Happens::World(Timer::Mishap) if calm.is_some() => {}
                Happens::World(timer) => self.world(timer),
                Happens::To(0, event) => {
                    self.tell(format!("root: {event:?}"));
                    self.root.on(&mut self.net, event)?;
                }
                Happens::To(node, event) => {
                    self.tell(format!("worker {node}: {event:?}"));
                    let worker = &mut self.workers[node - 1];
                    worker.on(&mut self.net, event)?;
                    if worker.is_over {
                        self.end(node);
                    }
                }
            }
            since = since.max(self.root.progressed());
            let now = self.net.now();
            let lately = self.mishaps.iter().filter(|mishap| **mishap + MINUTE > since).count() as u32;
            if self.net.is_up(0) && !self.root.is_idle() && now > since + LONGEST * (1 + lately) {
                let (root, workers) = (self.root.state(), &self.workers);
                return Err(format!(
                    "no token since {:.3} s, {lately} mishaps\n{root}\n{workers:#?}",
                    since.as_secs_f64()
                ));
            }
        }
    }

    fn tell(&mut self, what: String) {
        if self.told.len() > 2000 {
            self.told.drain(..1000);
        }
        self.told.push(format!("{:10.4} {what}", self.net.now().as_secs_f64()));
    }

    fn end(&mut self, node: Node) {
        self.net.kill(node);
        let after = self.seconds(1, 30);
        self.net.later(after, Timer::Start(node));
    }

    fn seconds(&mut self, least: usize, most: usize) -> Duration {
        Duration::from_millis((1000 * least + self.random.below(1000 * (most - least))) as u64)
    }

    fn world(&mut self, timer: Timer) {
        match timer {
            Timer::Mishap => self.mishap(),
            Timer::Start(node) if !self.net.is_up(node) => {
                self.net.start(node);
                if node > 0 {
                    self.workers[node - 1] = Worker::new(node, pace(&mut self.random));
                } else {
                    self.root.restart(&mut self.net);
                }
                self.tell(format!("node {node} starts"));
            }
            Timer::GoOn(node) => self.net.stop(node, false),
            Timer::Heal(a, b) => self.net.cut(a, b, false),
            Timer::Fast(node) => self.workers[node - 1].pace = pace(&mut self.random),
            _ => {}
        }
    }

    /// Something goes wrong.
    fn mishap(&mut self) {
        let next = self.seconds(0, 2 * self.every_s);
        self.net.later(next, Timer::Mishap);
        let count = self.workers.len();
        let node = 1 + self.random.below(count);
        let (kind, after) = (self.random.below(8), self.seconds(0, 20));
        self.mishaps.push(self.net.now() + 3 * after);
        match kind {
            0 | 1 => {
                self.tell(format!("node {node} is killed"));
                self.net.kill(node);
                self.net.later(after, Timer::Start(node));
            }
            2 => {
                self.tell(format!("node {node} is stopped"));
                self.net.stop(node, true);
                self.net.later(after / 2, Timer::GoOn(node));
            }
            3 => {
                self.tell(format!("node {node} is unplugged"));
                for other in (0..=count).filter(|other| *other != node) {
                    self.net.cut(node, other, true);
                    self.net.later(after, Timer::Heal(node, other));
                }
            }
            4 => {
                let other = self.random.below(count + 1);
                if other != node {
                    let after = 3 * after;
                    self.tell(format!("nothing comes through between {node} and {other}"));
                    self.net.cut(node, other, true);
                    self.net.later(after, Timer::Heal(node, other));
                }
            }
            5 => {
                self.tell(format!("node {node} is slow"));
                self.workers[node - 1].pace = Duration::from_millis(1500);
                self.net.later(after, Timer::Fast(node));
            }
            6 if self.net.is_up(node) && !self.net.is_stopped(node) => {
                self.tell(format!("node {node} is to leave"));
                self.workers[node - 1].leave();
                if self.workers[node - 1].is_over {
                    self.end(node);
                }
            }
            7 if self.random.once_in(4) && self.net.is_up(0) => {
                self.tell("the root is killed".into());
                self.net.kill(0);
                self.net.later(after / 4, Timer::Start(0));
            }
            _ => {}
        }
    }

    /// From now on all is well.
    fn heal(&mut self) {
        self.tell("all is well from now on".into());
        for node in 0..=self.workers.len() {
            (0..node).for_each(|other| self.net.cut(node, other, false));
            self.net.stop(node, false);
            if !self.net.is_up(node) {
                self.world(Timer::Start(node));
            }
        }
    }

    /// Everybody takes part in the last session, and in no other one.
    fn check_all_are_back(&self) -> Result<(), String> {
        let (session, nodes) = self.root.session().ok_or("there is no session")?;
        for worker in &self.workers {
            let (node, is_in) = (worker.node(), worker.session());
            if !nodes.contains(&node) || is_in != Some(session) {
                return Err(format!("worker {node} is in {is_in:?}; the root's session {session} is of {nodes:?}"));
            }
        }
        Ok(())
    }
}

/// How long a worker computes.
fn pace(random: &mut Random) -> Duration {
    Duration::from_millis(5 + random.below(60) as u64)
}
