//! A root, as `host/src/cluster/{root,session,members}.rs` and `host/src/net/watch.rs` have it, without threads and weights: it asks
//! [`Coordinator`] what to do, and [`History`] what to compute again.

use super::network::{Conn, Event, Node};
use super::{Message, Net, Story, Timer, part_of, token_after};
use crate::random::Random;
use dair_core::exec::{Logits, Run};
use dair_core::plan::coordinator::{Coordinator, Next, Seen, Verdict};
use dair_core::plan::membership::{Fate, Membership, culprits};
use dair_host::cluster::history::History;
use std::collections::BTreeMap;
use std::time::Duration;

/// The silence that is allowed, and questions within it.
const SILENCE: Duration = Duration::from_secs(2);
const BEATS: u32 = 8;
/// For a worker to answer a call: the datagram and the handshake.
const CALLED: Duration = Duration::from_millis(3500);
/// For all to be ready.
const FORMED: Duration = Duration::from_secs(10);
/// For all to tell what became of them.
const FATES: Duration = Duration::from_secs(5);
/// Calls of a worker that is busy.
const BUSY: u32 = 10;
/// This machine computes so long.
const OWN: Duration = Duration::from_millis(10);
/// Tokens of a pass that computes again, at most.
const BATCH: usize = 16;

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// Of an attempt to form a session.
    Call(u64, usize),
    /// Of a search for those who are out.
    Search(u64, usize),
    /// Of a session, by the index of the worker in it.
    Link(u64, usize),
    Watch(u64, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Free,
    Busy,
    Lost,
}

#[derive(Debug)]
struct Call {
    worker: usize,
    conn: Conn,
    answer: Option<Answer>,
    calls: u32,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Calling(Vec<Call>),
    Forming,
    /// A pass is computed; for the first time, if it is a run of the request.
    Passing(Option<Run>),
    Burying(Option<usize>),
}

#[derive(Debug)]
struct Watch {
    conn: Conn,
    questions: u64,
    is_asked: bool,
    /// The last question that was answered; those after a session has failed count for its fates.
    answered: u64,
    fate: Option<Fate>,
    is_leaving: bool,
    /// The question whose answer tells a fate.
    telling: u64,
}

#[derive(Debug)]
struct Session {
    id: u64,
    epoch: u32,
    workers: Vec<usize>,
    links: Vec<Conn>,
    watches: Vec<Watch>,
    are_ready: Vec<bool>,
    /// A link that has ended while nothing was computed.
    ended: Option<usize>,
    cache: Vec<u32>,
    number: u64,
    tokens: Vec<u32>,
    is_computed: bool,
    parts: BTreeMap<usize, u64>,
}

/// The process on the root's machine, one after the other.
#[derive(Debug)]
pub struct Root {
    random: Random,
    count: usize,
    coordinator: Coordinator,
    history: History,
    phase: Phase,
    session: Option<Session>,
    roles: BTreeMap<Conn, Role>,
    /// Numbers of attempts, searches and sessions.
    next: u64,
    attempt: u64,
    search: Option<(u64, Vec<Call>)>,
    /// All tokens so far, and how many are still wanted.
    conversation: Vec<u32>,
    left: usize,
    progressed: Duration,
    story: Story,
}

impl Root {
    /// A root with so many workers.
    pub fn new(count: usize, random: Random) -> Self {
        Self {
            random,
            count,
            coordinator: Coordinator::of(Membership::of(count)),
            history: History::of(1),
            phase: Phase::Idle,
            session: None,
            roles: BTreeMap::new(),
            next: 0,
            attempt: 0,
            search: None,
            conversation: Vec::new(),
            left: 0,
            progressed: Duration::ZERO,
            story: Story::default(),
        }
    }

    /// Another process takes its place; it knows nothing but the conversation.
    pub fn restart(&mut self, net: &mut Net) {
        let conversation = std::mem::take(&mut self.conversation);
        let (random, next, story) = (self.random.clone(), self.next, self.story);
        *self = Self { conversation, next, story, ..Self::new(self.count, random) };
        self.progressed = net.now();
        net.wake(0, Duration::from_millis(100), Timer::Request);
    }

    /// Whether nobody waits for an answer.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// When the last token was there.
    pub fn progressed(&self) -> Duration {
        self.progressed
    }

    /// What it was like so far.
    pub fn story(&self) -> Story {
        self.story
    }

    /// The last session, and the machines of its workers.
    pub fn session(&self) -> Option<(u64, Vec<Node>)> {
        self.session.as_ref().map(|session| (session.id, session.workers.iter().map(|worker| worker + 1).collect()))
    }

    /// For people.
    pub fn state(&self) -> String {
        format!("{:?}\n{:?}\n{:?}", self.phase, self.session, self.coordinator)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Something happens to it.
    ///
    /// # Errors
    /// What must not happen.
    pub fn on(&mut self, net: &mut Net, event: Event<Message, Timer>) -> Result<(), String> {
        match event {
            Event::Said(conn, message) => self.hear(net, conn, message)?,
            Event::Closed(conn) => self.closed(net, conn)?,
            Event::Timer(timer) => self.wake(net, timer)?,
        }
        Ok(())
    }

    fn hear(&mut self, net: &mut Net, conn: Conn, message: Message) -> Result<(), String> {
        let Some(role) = self.roles.get(&conn).copied() else { return Ok(()) };
        match (role, message) {
            (Role::Call(attempt, worker), Message::Have { is_busy }) => {
                self.called(net, (attempt, worker), if is_busy { Answer::Busy } else { Answer::Free })
            }
            (Role::Search(search, worker), Message::Have { is_busy }) => {
                net.close(0, conn);
                self.found(net, (search, worker), !is_busy);
                Ok(())
            }
            (Role::Link(session, index), Message::Ready) => {
                if let Some(session) = self.session.as_mut().filter(|now| now.id == session) {
                    session.are_ready[index] = true;
                }
                self.form_if_ready(net)
            }
            (Role::Link(session, index), Message::Refused) => self.link_ended(net, session, index),
            (Role::Link(session, index), Message::Part { number, value }) => {
                self.part(net, (session, index), (number, value))
            }
            (Role::Watch(session, index), Message::Alive { failed, leaves }) => {
                self.alive(net, (session, index), failed, leaves)
            }
            (_, other) => Err(format!("the root does not know {other:?}")),
        }
    }

    fn closed(&mut self, net: &mut Net, conn: Conn) -> Result<(), String> {
        net.close(0, conn);
        match self.roles.remove(&conn) {
            Some(Role::Call(attempt, worker)) => self.called(net, (attempt, worker), Answer::Lost),
            Some(Role::Search(search, worker)) => {
                self.found(net, (search, worker), false);
                Ok(())
            }
            Some(Role::Link(session, index)) => self.link_ended(net, session, index),
            Some(Role::Watch(session, index)) => self.lost(net, session, index),
            None => Ok(()),
        }
    }

    fn wake(&mut self, net: &mut Net, timer: Timer) -> Result<(), String> {
        match timer {
            Timer::Request if self.is_idle() => self.request(net),
            Timer::Search => {
                self.search(net);
                Ok(())
            }
            Timer::Searched(search) => {
                let silent = self.search.as_ref().filter(|(id, _)| *id == search).map(|(_, calls)| {
                    let silent = calls.iter().filter(|call| call.answer.is_none());
                    silent.map(|call| call.worker).collect::<Vec<_>>()
                });
                silent.unwrap_or_default().into_iter().for_each(|worker| self.found(net, (search, worker), false));
                Ok(())
            }
            Timer::Called(attempt) if attempt == self.attempt => {
                let Phase::Calling(calls) = &mut self.phase else { return Ok(()) };
                calls.iter_mut().for_each(|call| _ = call.answer.get_or_insert(Answer::Lost));
                self.look_at_answers(net)
            }
            Timer::Formed(id) => match (&self.phase, &self.session) {
                (Phase::Forming, Some(session)) if session.id == id => {
                    let late = session.are_ready.iter().position(|is_ready| !is_ready);
                    self.bury(net, late)
                }
                _ => Ok(()),
            },
            Timer::Ask(session, index) => {
                self.ask(net, session, index);
                Ok(())
            }
            Timer::Asked(session, index, question) => {
                let is_silent = |now: &Session| now.id == session && now.watches[index].answered < question;
                if self.session.as_ref().is_some_and(is_silent) { self.lost(net, session, index) } else { Ok(()) }
            }
            Timer::Fates(session) => match (&self.phase, &self.session) {
                (Phase::Burying(_), Some(now)) if now.id == session => self.buried(net),
                _ => Ok(()),
            },
            Timer::Own(session, number) => {
                let is_it = |now: &&mut Session| now.id == session && now.number == number;
                if let Some(now) = self.session.as_mut().filter(is_it) {
                    now.is_computed = true;
                }
                self.pass_if_complete(net)
            }
            _ => Ok(()),
        }
    }

    // Requests.

    fn request(&mut self, net: &mut Net) -> Result<(), String> {
        if self.conversation.len() > 400 || self.random.once_in(3) {
            self.conversation.clear();
        }
        for _ in 0..=self.random.below(60) {
            self.conversation.push(self.random.next_u64() as u32);
        }
        (self.left, self.progressed) = (1 + self.random.below(60), net.now());
        self.coordinator.begin();
        let Some(session) = &self.session else { return self.form(net) };
        let leaving: Vec<_> = session
            .watches
            .iter()
            .zip(&session.workers)
            .filter(|(watch, _)| watch.is_leaving)
            .map(|(_, w)| *w)
            .collect();
        let is_well = session.watches.iter().all(|watch| watch.fate.is_none());
        let is_off_plan = self.random.once_in(50);
        let verdict = self.coordinator.look(&Seen { is_well, leaving: &leaving, is_off_plan }, net.now());
        self.look_for_others(net);
        match verdict {
            Verdict::Keep => self.advance(net),
            Verdict::Bury => self.bury(net, None),
            Verdict::End => {
                self.end(net);
                self.form(net)
            }
        }
    }

    fn end(&mut self, net: &mut Net) {
        let Some(session) = self.session.take() else { return };
        for (link, watch) in session.links.iter().zip(&session.watches) {
            net.say(0, *link, Message::End);
            net.say(0, watch.conn, Message::Bye);
            net.close(0, *link);
            net.close(0, watch.conn);
        }
        self.history.lose();
    }

    // Forming.

    fn call(&mut self, net: &mut Net, worker: usize, role: Role) -> Call {
        let conn = net.connect(0, worker + 1);
        net.say(0, conn, Message::Call);
        self.roles.insert(conn, role);
        Call { worker, conn, answer: None, calls: 1 }
    }

    fn form(&mut self, net: &mut Net) -> Result<(), String> {
        self.attempt = self.number();
        let attempt = self.attempt;
        let callable: Vec<_> = self.coordinator.members().callable().collect();
        let calls = callable.into_iter().map(|worker| self.call(net, worker, Role::Call(attempt, worker))).collect();
        self.phase = Phase::Calling(calls);
        net.wake(0, CALLED, Timer::Called(attempt));
        self.look_at_answers(net)
    }

    fn called(&mut self, net: &mut Net, (attempt, worker): (u64, usize), answer: Answer) -> Result<(), String> {
        let Phase::Calling(calls) = &mut self.phase else { return Ok(()) };
        if attempt != self.attempt {
            return Ok(());
        }
        let Some(call) = calls.iter_mut().find(|call| call.worker == worker) else { return Ok(()) };
        if call.answer.is_some() {
            // It ends before it is planned with: that shows when it gets a plan.
            return Ok(());
        }
        if answer == Answer::Busy && call.calls < BUSY {
            let (calls_so_far, old) = (call.calls, call.conn);
            net.close(0, old);
            let again = self.call(net, worker, Role::Call(attempt, worker));
            let Phase::Calling(calls) = &mut self.phase else { return Ok(()) };
            if let Some(call) = calls.iter_mut().find(|call| call.worker == worker) {
                *call = Call { calls: calls_so_far + 1, ..again };
            }
            return Ok(());
        }
        call.answer = Some(answer);
        self.look_at_answers(net)
    }

    fn look_at_answers(&mut self, net: &mut Net) -> Result<(), String> {
        let Phase::Calling(calls) = &self.phase else { return Ok(()) };
        if calls.iter().any(|call| call.answer.is_none()) {
            return Ok(());
        }
        let Phase::Calling(calls) = std::mem::replace(&mut self.phase, Phase::Forming) else { return Ok(()) };
        if let Some(lost) = calls.iter().find(|call| call.answer != Some(Answer::Free)) {
            calls.iter().for_each(|call| net.close(0, call.conn));
            return self.failed(net, vec![lost.worker]);
        }
        let (id, epoch) = (self.number(), self.coordinator.form());
        let nodes: Vec<_> = calls.iter().map(|call| call.worker + 1).collect();
        let mut watches = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            net.say(0, call.conn, Message::Plan { epoch, session: id, nodes: nodes.clone() });
            self.roles.insert(call.conn, Role::Link(id, index));
            let conn = net.connect(0, call.worker + 1);
            self.roles.insert(conn, Role::Watch(id, index));
            net.say(0, conn, Message::Watch { session: id, silence: SILENCE });
            watches.push(Watch {
                conn,
                questions: 0,
                is_asked: false,
                answered: 0,
                fate: None,
                is_leaving: false,
                telling: u64::MAX,
            });
        }
        self.session = Some(Session {
            id,
            epoch,
            workers: calls.iter().map(|call| call.worker).collect(),
            links: calls.iter().map(|call| call.conn).collect(),
            are_ready: vec![false; watches.len()],
            watches,
            ended: None,
            cache: Vec::new(),
            number: 0,
            tokens: Vec::new(),
            is_computed: false,
            parts: BTreeMap::new(),
        });
        (0..nodes.len()).for_each(|index| self.ask(net, id, index));
        net.wake(0, FORMED, Timer::Formed(id));
        self.form_if_ready(net)
    }

    fn form_if_ready(&mut self, net: &mut Net) -> Result<(), String> {
        let (Phase::Forming, Some(session)) = (&self.phase, &self.session) else { return Ok(()) };
        let are_watched = session.watches.iter().all(|watch| watch.answered > 0);
        if !are_watched || !session.are_ready.iter().all(|is_ready| *is_ready) {
            return Ok(());
        }
        for worker in session.workers.clone() {
            self.coordinator.members_mut().joined(worker, net.now());
        }
        self.story.sessions += 1;
        self.advance(net)
    }

    /// It is the fault of these that there is no session.
    fn failed(&mut self, net: &mut Net, losses: Vec<usize>) -> Result<(), String> {
        self.story.losses += losses.len() as u64;
        let next = self.coordinator.failed(losses, net.now());
        self.look_for_others(net);
        match next {
            Next::Form => self.form(net),
            Next::GiveUp => Err("a request is given up".into()),
        }
    }

    // Passes.

    fn advance(&mut self, net: &mut Net) -> Result<(), String> {
        let is_common = |(a, b): &(&u32, &u32)| a == b;
        let known = self.history.tokens(0).iter().zip(&self.conversation).take_while(is_common).count();
        let position = known.min(self.conversation.len() - 1);
        let run = Run::new(position as u32, (self.conversation.len() - position) as u32, Logits::Last);
        let Some(session) = &mut self.session else { return Err("a pass without a session".into()) };
        let (position, tokens) = match self.history.missing(&run) {
            Some((position, missing)) => {
                self.phase = Phase::Passing(None);
                (position, missing[..missing.len().min(BATCH)].to_vec())
            }
            None => {
                self.phase = Phase::Passing(Some(run));
                self.history.begin(&run);
                (run.position, self.conversation[position..].to_vec())
            }
        };
        if session.cache.len() < position as usize {
            return Err(format!("the root lacks tokens before position {position}"));
        }
        session.number += 1;
        session.cache.truncate(position as usize);
        session.cache.extend(&tokens);
        (session.is_computed, session.tokens) = (false, tokens.clone());
        session.parts.clear();
        let (epoch, number) = (session.epoch, session.number);
        for link in &session.links {
            net.say(0, *link, Message::Pass { epoch, number, position, tokens: tokens.clone() });
        }
        net.wake(0, OWN, Timer::Own(session.id, number));
        match session.ended {
            Some(index) => self.bury(net, Some(index)),
            None => Ok(()),
        }
    }

    fn part(
        &mut self,
        net: &mut Net,
        (session, index): (u64, usize),
        (number, value): (u64, u64),
    ) -> Result<(), String> {
        let Some(session) = self.session.as_mut().filter(|now| now.id == session) else { return Ok(()) };
        if number != session.number {
            return Err(format!("part {index} of pass {number} in pass {}", session.number));
        }
        if value != part_of(index + 1, session.workers.len() + 1, &session.cache) {
            return Err(format!("the part {index} of pass {number} is another one"));
        }
        session.parts.insert(index, value);
        self.pass_if_complete(net)
    }

    fn pass_if_complete(&mut self, net: &mut Net) -> Result<(), String> {
        let (Phase::Passing(run), Some(session)) = (&self.phase, &self.session) else { return Ok(()) };
        if !session.is_computed || session.parts.len() < session.workers.len() {
            return Ok(());
        }
        let Some(run) = *run else {
            self.history.regain(0, session.tokens.len());
            return self.advance(net);
        };
        self.history.end(&run, &session.tokens);
        self.coordinator.computed();
        if session.cache != self.conversation {
            return Err("the answer is another one".into());
        }
        self.conversation.push(token_after(&self.conversation));
        self.story.passes += 1;
        self.story.longest = self.story.longest.max(net.now() - self.progressed);
        self.progressed = net.now();
        self.left -= 1;
        if self.left > 0 {
            let pays = self.random.once_in(20);
            if pays && self.coordinator.members().back().next().is_some() {
                self.end(net);
                return self.form(net);
            }
            return self.advance(net);
        }
        self.story.answers += 1;
        self.phase = Phase::Idle;
        let pause = self.random.below(8000);
        net.wake(0, Duration::from_millis(pause as u64), Timer::Request);
        Ok(())
    }

    // Losses.

    fn link_ended(&mut self, net: &mut Net, session: u64, index: usize) -> Result<(), String> {
        let Some(session) = self.session.as_mut().filter(|now| now.id == session) else { return Ok(()) };
        match self.phase {
            Phase::Forming | Phase::Passing(_) => self.bury(net, Some(index)),
            _ => {
                session.ended.get_or_insert(index);
                Ok(())
            }
        }
    }

    /// A worker gives no sign of life.
    fn lost(&mut self, net: &mut Net, session: u64, index: usize) -> Result<(), String> {
        self.is_known(net, session, index, Fate::Lost)
    }

    /// What became of a worker is known: who waits for anybody is to fail at once.
    fn is_known(&mut self, net: &mut Net, session: u64, index: usize, fate: Fate) -> Result<(), String> {
        let Some(session) = self.session.as_mut().filter(|now| now.id == session) else { return Ok(()) };
        if session.watches[index].fate != Some(Fate::Lost) {
            session.watches[index].fate = Some(fate);
        }
        session.links.iter().for_each(|link| net.close(0, *link));
        match self.phase {
            // Which of its links it sees the end of first is chance.
            Phase::Forming | Phase::Passing(_) => {
                let chance = self.random.below(session.workers.len());
                self.bury(net, Some(chance))
            }
            Phase::Burying(_) => self.bury_if_known(net),
            _ => {
                session.ended.get_or_insert(index);
                Ok(())
            }
        }
    }

    fn ask(&mut self, net: &mut Net, session: u64, index: usize) {
        let Some(session) = self.session.as_mut().filter(|now| now.id == session) else { return };
        let watch = &mut session.watches[index];
        if watch.is_asked || watch.fate == Some(Fate::Lost) {
            return;
        }
        watch.is_asked = true;
        watch.questions += 1;
        net.say(0, watch.conn, Message::Beat);
        net.wake(0, SILENCE - SILENCE / BEATS, Timer::Asked(session.id, index, watch.questions));
    }

    fn alive(
        &mut self,
        net: &mut Net,
        (session, index): (u64, usize),
        failed: Option<Option<Node>>,
        leaves: bool,
    ) -> Result<(), String> {
        let Some(now) = self.session.as_mut().filter(|now| now.id == session) else { return Ok(()) };
        let nodes = &now.workers;
        let watch = &mut now.watches[index];
        (watch.is_asked, watch.answered) = (false, watch.questions);
        watch.is_leaving |= leaves;
        if let Some(blamed) = failed {
            let blamed = blamed.and_then(|node| nodes.iter().position(|worker| worker + 1 == node));
            return self.is_known(net, session, index, Fate::Blames(blamed));
        }
        if let Phase::Burying(_) = self.phase {
            if watch.answered < watch.telling {
                self.ask(net, session, index);
            }
            return self.bury_if_known(net);
        }
        net.wake(0, SILENCE / BEATS, Timer::Ask(session, index));
        self.form_if_ready(net)
    }

    /// A session has failed, as the end of one of its links tells, perhaps: everybody is asked what became of him.
    fn bury(&mut self, net: &mut Net, named: Option<usize>) -> Result<(), String> {
        let Some(session) = &mut self.session else { return Err("nothing to be buried".into()) };
        self.phase = Phase::Burying(named);
        session.links.iter().for_each(|link| net.close(0, *link));
        let id = session.id;
        for watch in &mut session.watches {
            watch.telling = watch.questions + 1;
        }
        net.wake(0, FATES, Timer::Fates(id));
        (0..session.watches.len()).for_each(|index| self.ask(net, id, index));
        self.bury_if_known(net)
    }

    fn bury_if_known(&mut self, net: &mut Net) -> Result<(), String> {
        let (Phase::Burying(_), Some(session)) = (&self.phase, &self.session) else { return Ok(()) };
        let is_known = |watch: &Watch| watch.fate == Some(Fate::Lost) || watch.answered >= watch.telling;
        if session.watches.iter().all(is_known) { self.buried(net) } else { Ok(()) }
    }

    fn buried(&mut self, net: &mut Net) -> Result<(), String> {
        let (Phase::Burying(named), Some(session)) = (&self.phase, self.session.take()) else { return Ok(()) };
        let fates: Vec<_> = session.watches.iter().map(|watch| watch.fate.unwrap_or(Fate::Alive)).collect();
        let losses = culprits(&fates, *named).into_iter().map(|index| session.workers[index]).collect();
        session.watches.iter().for_each(|watch| net.close(0, watch.conn));
        self.history.lose();
        self.failed(net, losses)
    }

    // Those who are out.

    fn look_for_others(&mut self, net: &mut Net) {
        if let Some(due) = self.coordinator.members().next_due() {
            net.wake(0, due.saturating_sub(net.now()), Timer::Search);
        }
    }

    fn search(&mut self, net: &mut Net) {
        if self.search.is_some() {
            return;
        }
        let due: Vec<_> = self.coordinator.members().due(net.now()).collect();
        if due.is_empty() {
            return;
        }
        let id = self.number();
        let calls = due.into_iter().map(|worker| self.call(net, worker, Role::Search(id, worker))).collect();
        self.search = Some((id, calls));
        net.wake(0, CALLED, Timer::Searched(id));
    }

    fn found(&mut self, net: &mut Net, (search, worker): (u64, usize), is_here: bool) {
        let Some((_, calls)) = self.search.as_mut().filter(|(id, _)| *id == search) else { return };
        let Some(call) = calls.iter_mut().find(|call| call.worker == worker && call.answer.is_none()) else { return };
        call.answer = Some(if is_here { Answer::Free } else { Answer::Lost });
        if calls.iter().any(|call| call.answer.is_none()) {
            return;
        }
        let Some((_, calls)) = self.search.take() else { return };
        for call in calls {
            match call.answer {
                Some(Answer::Free) => self.coordinator.members_mut().answered(call.worker),
                _ => self.coordinator.members_mut().lost(call.worker, net.now()),
            }
        }
        self.look_for_others(net);
    }
}
