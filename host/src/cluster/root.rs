//! The root of a run: node 0, which has the model file, the tokens and the logits. It works alone or drives workers.
//!
//! A [`Root`] lives as long as its process wants, its sessions do not. Where a worker of the native dialect is lost, those who are left
//! form a new session, in which all tokens so far are computed again, and then the pass that failed: whoever asked for it notices no
//! more than that it took longer. Workers that come back are taken into the session of the next request.

use crate::cluster::best::Gathered;
use crate::cluster::error::RootError;
use crate::cluster::history::History;
use crate::cluster::local::Kept;
use crate::cluster::members::Members;
use crate::cluster::options::Options;
use crate::cluster::pages;
use crate::cluster::rejoin::Pace;
use crate::cluster::session::{self, NodePlan, Session, is_fatal};
use crate::machine::pool::Threads;
use crate::model::{Model, identity};
use crate::net::{Address, NetError, Stage, Traffic};
use crate::storage::stream::{Figures, Reading};
use dair_core::exec::{CacheCopy, Failure, Logits, PAGE, Run};
use dair_core::plan::DLLAMA_BATCH;
use dair_core::plan::coordinator::{Next, Seen, Verdict};
use dair_core::text::{Looks, Partial};
use dair_core::wire::native::{BEST_MAX, Beat, Best, HasModel, Pages, Wanted};
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

/// Hears what preparing is at, where that takes its time.
pub type Progress<'p> = &'p (dyn Fn(Stage<'_>) + Sync);

/// Prepares `model` as `options` say and hands it to `body`; everything is released when `body` returns.
///
/// # Errors
/// Those of preparing, and those of `body`.
pub fn with_root<R, E: From<RootError>>(
    model: &Model,
    options: &Options,
    progress: Progress<'_>,
    body: impl FnOnce(&mut Root<'_>) -> Result<R, E>,
) -> Result<R, E> {
    let pool = Threads::new(options.threads)
        .map_err(|error| RootError::System(format!("{} threads", options.threads), error))?;
    let mut root = Root::new(model, options, &pool, progress)?;
    root.session()?;
    let result = body(&mut root);
    root.end();
    result
}

/// A node, for whoever wants to see what it does.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeNow {
    /// Where it listens; nothing is this machine.
    pub address: Option<Address>,
    /// It computes a part now.
    pub takes_part: bool,
    /// Passes of one row that it computed in this session, and how long it took for them, where it says so.
    pub work: Option<Beat>,
    /// What it has to do, where it takes part.
    pub planned: Option<NodePlan>,
}

/// A model that runs, alone or with workers.
pub struct Root<'m> {
    model: &'m Model,
    options: &'m Options,
    pool: &'m Threads,
    progress: Progress<'m>,
    /// What workers must have, too.
    identity: Option<HasModel>,
    members: Members,
    session: Option<Session<'m>>,
    /// There was a session.
    was_formed: bool,
    /// Its workers were those of C++ Distributed-Llama.
    is_dllama: bool,
    /// What is in the KV cache.
    history: History,
    /// How the answer comes on.
    pace: Pace,
    /// The last pass.
    last: (Vec<Run>, Vec<u32>),
    /// What the last session left in memory, for the next one.
    kept: Option<Kept>,
    /// Of the passes of sessions that are over.
    past: Traffic,
    wanted: Wanted,
    /// How fast nodes turned out to be, beside what was predicted: this one, then all workers.
    paces: Vec<f64>,
    gathered: Gathered,
    /// Rows of logits that were asked for after all.
    rests: u64,
}

impl<'m> Root<'m> {
    /// A root that has nobody yet.
    ///
    /// # Errors
    /// Where the model file can't be read.
    pub fn new(
        model: &'m Model,
        options: &'m Options,
        pool: &'m Threads,
        progress: Progress<'m>,
    ) -> Result<Self, RootError> {
        let mut identity = None;
        if !options.workers.is_empty() || options.newcomers.is_some() {
            let found = identity::identity(model, options.digest)
                .map_err(|error| RootError::System(format!("the content of {}", model.path.display()), error))?;
            identity = Some(found);
        }
        let members = Members::new(options, identity.clone());
        Ok(Self {
            model,
            options,
            pool,
            progress,
            identity,
            members,
            session: None,
            was_formed: false,
            is_dllama: false,
            history: History::of(options.slots),
            pace: Pace::default(),
            last: (Vec::new(), Vec::new()),
            kept: None,
            past: Traffic::default(),
            wanted: Wanted::All,
            paces: vec![1.0; options.workers.len() + 1],
            gathered: Gathered::default(),
            rests: 0,
        })
    }

    /// To be called where a request begins: sees to it that passes can be computed, by those nodes that it is best done by now.
    ///
    /// # Errors
    /// Names the worker that can't be had, where there was no session before, or what this machine can't do.
    pub fn session(&mut self) -> Result<(), RootError> {
        self.members.begin();
        // Workers that are sent weights say nothing of themselves, and go with no others.
        if let Some(mut session) = self.session.take_if(|session| !session.is_dllama()) {
            let (is_well, leaving) = (session.is_well(), session.leaving());
            let is_off_plan = session.is_off_plan(&mut self.paces);
            let verdict = self.members.look(&Seen { is_well, leaving: &leaving, is_off_plan });
            // Who is missing will be found not to be there.
            if verdict == Verdict::Bury {
                self.bury(session, RootError::Net(NetError::Lost))?;
            } else {
                self.session = Some(session);
            }
            if verdict == Verdict::End {
                self.end();
            }
        }
        self.ensure().map(|_| ())
    }

    /// Whether a worker of the session is known to be lost: [`Self::session`] leaves it out.
    pub fn misses_somebody(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.is_well())
    }

    /// The session; forms one where there is none.
    fn ensure(&mut self) -> Result<&mut Session<'m>, RootError> {
        if self.session.is_none() {
            let task = session::Task {
                model: self.model,
                options: self.options,
                pool: self.pool,
                progress: self.progress,
                identity: self.identity.as_ref(),
                is_first: !self.was_formed,
                is_dllama: self.is_dllama,
                paces: &self.paces,
            };
            let start = Instant::now();
            let session = Session::form(&task, &mut self.members, &mut self.kept)?;
            self.pace.formed(start.elapsed());
            (self.was_formed, self.is_dllama) = (true, session.is_dllama());
            self.session = Some(session);
        }
        Ok(self.session.as_mut().unwrap_or_else(|| unreachable!("it was formed")))
    }

    /// Takes leave of a session that has failed with `error`, and of those whose fault that is: what is to be done then.
    ///
    /// # Errors
    /// The error, where another session would be of no use.
    fn bury(&mut self, session: Session<'m>, error: RootError) -> Result<Next, RootError> {
        self.past += session.traffic();
        self.history.lose();
        let (kept, losses) = session.bury(error, &self.members);
        self.kept = kept;
        Ok(session::leave_out(&losses?, &mut self.members, self.progress))
    }

    /// Tells workers that the session is over.
    pub fn end(&mut self) {
        if let Some(session) = self.session.take() {
            self.past += session.traffic();
            self.kept = session.end();
            self.history.lose();
        }
    }

    /// The tokens of a sequence that need not be given again, from position 0 on.
    pub fn computed(&self, slot: u32) -> &[u32] {
        self.history.tokens(slot)
    }
}

/// The most probable tokens that each node tells where tokens of a nucleus are wanted: they are enough for almost all.
const NUCLEUS: u32 = 32;
/// Batches of a prompt for each stage, beyond which none would begin much sooner; and rows of which reading weights takes more time
/// than computing.
const PER_STAGE: usize = 4;
const STAGED_ROWS: usize = 32;

/// In how many batches of up to `most` rows so many tokens are computed by `stages` that work one after the other: all but the first wait
/// for the first batch.
fn batches(tokens: usize, (most, stages): (usize, usize)) -> usize {
    let few = tokens.div_ceil(most);
    if stages > 1 { few.max((PER_STAGE * stages).min(tokens / STAGED_ROWS)) } else { few }
}

impl<'m> Root<'m> {
    /// The threads of this machine, for others that compute while this root does not.
    pub fn pool(&self) -> &'m Threads {
        self.pool
    }

    /// How it runs the model.
    pub fn options(&self) -> &'m Options {
        self.options
    }

    /// Positions of the context.
    pub fn seq_len(&self) -> u32 {
        self.options.seq_len(self.model.header())
    }

    /// Computes `tokens` from `position` on; `logits` asks about the last of them ([`Logits::Last`]) or none.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn forward(&mut self, tokens: &[u32], position: u32, logits: Logits) -> Result<(), RootError> {
        self.feed(tokens, position, logits, |_| ControlFlow::Continue(()))
    }

    /// As [`Self::forward`], in batches of about the same size: as few as the graph allows, or as many as keep all stages busy. `progress` hears how many are done, and may end it before the next batch.
    ///
    /// # Errors
    /// Where the tokens do not fit the context, a node fails, or `progress` or [`Options::stop`] has ended it.
    pub fn feed(
        &mut self,
        tokens: &[u32],
        position: u32,
        logits: Logits,
        mut progress: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<(), RootError> {
        let batches = batches(tokens.len(), (self.batch_max()? as usize, self.filled_stages()));
        for batch in 0..batches {
            let (start, end) = (tokens.len() * batch / batches, tokens.len() * (batch + 1) / batches);
            if progress(start as u32).is_break() {
                return Err(RootError::Stopped { done: start as u32 });
            }
            let logits = if end < tokens.len() { Logits::None } else { logits };
            let rows = (end - start) as u32;
            let run = Run::new(position + start as u32, rows, logits);
            self.pass(&[run], &tokens[start..end]).map_err(|error| match error {
                RootError::Stopped { .. } => RootError::Stopped { done: start as u32 },
                other => other,
            })?;
        }
        Ok(())
    }

    /// Computes `tokens` from `position` on and calls `each` with the index and the logits of every one of them.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_each(
        &mut self,
        tokens: &[u32],
        position: u32,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), RootError> {
        // Logits are long rows: fewer of them at a time.
        let batch_max = self.batch_max()?.min(DLLAMA_BATCH) as usize;
        let mut done = 0;
        for tokens in tokens.chunks(batch_max) {
            let rows = tokens.len() as u32;
            self.pass_with(&[Run::new(position + done, rows, Logits::All)], tokens, Wanted::All)?;
            for row in 0..rows {
                each((done + row) as usize, self.logits_of(row));
            }
            done += rows;
        }
        Ok(())
    }

    /// Stages that are worth being filled with small batches, each of which reads all weights.
    fn filled_stages(&self) -> usize {
        self.session.as_ref().filter(|session| !session.sweeps).map_or(1, |session| session.stages)
    }

    /// Most rows of a pass.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub fn batch_max(&mut self) -> Result<u32, RootError> {
        Ok(self.ensure()?.part.compute(|engine| engine.program().graph().batch_max))
    }

    /// Sequences that the KV cache has room for.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub fn slots(&mut self) -> Result<u32, RootError> {
        Ok(self.ensure()?.part.compute(|engine| engine.program().slots()))
    }

    /// Bytes of this machine's part of the KV cache.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub fn cache_bytes(&mut self) -> Result<u64, RootError> {
        Ok(self.ensure()?.part.compute(|engine| engine.program().cache_bytes()))
    }

    /// Bytes of keys and values on this machine's disk, if it keeps any.
    pub fn disk_bytes(&self) -> Option<u64> {
        self.options.disk.as_ref().map(|disk| disk.bytes())
    }

    /// How this machine's part of the weights is streamed, if it is.
    pub fn streaming(&self) -> Option<&Figures> {
        Some(self.session.as_ref()?.part.stream()?.figures())
    }

    /// What was read of weights that are streamed, in this session.
    pub fn reading(&self) -> Option<Reading> {
        Some(self.session.as_ref()?.part.stream()?.reading())
    }

    /// How long weights were repacked for the session, if they were.
    pub fn repack_time(&self) -> Option<Duration> {
        self.session.as_ref()?.part.repack_time()
    }

    /// Bytes sent to and received from workers before the first forward pass: plans, or configs and weights.
    pub fn setup_bytes(&self) -> (u64, u64) {
        self.session.as_ref().map_or((0, 0), |session| (session.setup.sent, session.setup.received))
    }

    /// What crossed the network in forward passes so far, if there are workers.
    pub fn traffic(&self) -> Option<Traffic> {
        let mut all = self.past;
        all += self.session.as_ref().map(Session::traffic).unwrap_or_default();
        (!self.options.workers.is_empty() || all.sent > 0).then_some(all)
    }

    /// All nodes as they are now, this one first.
    pub fn nodes(&self) -> Vec<NodeNow> {
        let (own, workers) = self.session.as_ref().map(Session::work).unwrap_or_default();
        let planned = self.session.as_ref().map(Session::planned_nodes).unwrap_or_default();
        let mut nodes =
            vec![NodeNow { address: None, takes_part: true, work: Some(own), planned: planned.first().copied() }];
        for (worker, address) in self.members.addresses().into_iter().enumerate() {
            let node = workers.iter().position(|(place, _)| *place == worker);
            let work = node.and_then(|node| workers[node].1);
            let planned = node.and_then(|node| planned.get(node + 1).copied());
            nodes.push(NodeNow { address: Some(address), takes_part: node.is_some(), work, planned });
        }
        nodes
    }

    /// Computes runs of rows of several sequences together; each has the bits that it has alone. Where a worker is lost, they are
    /// computed without it.
    ///
    /// # Errors
    /// Where they do not fit, this machine fails, those who are left can't compute them, or [`Options::stop`] has ended it.
    ///
    /// # Panics
    /// If there is no run.
    pub fn pass(&mut self, runs: &[Run], tokens: &[u32]) -> Result<(), RootError> {
        if self.pace.is_due() && self.is_better_with_others(runs) {
            self.end();
        }
        self.pass_with(runs, tokens, self.wanted)
    }

    /// Makes the beginning of a sequence that of another one, which has that many positions computed. Where it can't be copied it is
    /// computed, before the next pass that stands on it.
    pub fn copy(&mut self, copy: CacheCopy) {
        let is_copied = self.session.as_mut().is_some_and(|session| session.copy(copy));
        self.history.copy(copy, is_copied);
    }

    /// Keeps what is in the cache of a sequence on the disks of all nodes, in whole pages; `false` where there is more to keep than the
    /// disk has taken so far. Nobody waits for it.
    pub fn keep(&mut self, slot: u32) -> bool {
        let names = pages::names(self.history.in_cache(slot));
        let session = self.session.as_mut().filter(|_| self.options.disk.is_some() && !names.is_empty());
        // Who is lost is found by the next pass.
        session.is_none_or(|session| session.keep(&Pages { slot, first: 0, names: &names }).unwrap_or(true))
    }

    /// Gets from the nodes' disks what is there of a sequence that begins with `tokens`, behind what is in the cache; how many of the
    /// tokens need not be given then. Nothing, and nothing done, where this machine's disk has no more.
    pub fn restore(&mut self, slot: u32, tokens: &[u32]) -> Option<u32> {
        self.options.disk.as_ref()?;
        let here = self.history.in_cache(slot).iter().zip(tokens).take_while(|(a, b)| a == b).count() as u32;
        let (names, first) = (pages::names(tokens), here / PAGE);
        let names = names.get(first as usize..).filter(|names| !names.is_empty())?;
        let count = match self.session.as_mut()?.restore(&Pages { slot, first, names }) {
            Ok(count) => count?,
            // Who is lost is found by the next pass.
            Err(_) => 0,
        };
        // What stood behind has been written over, as far as this machine's disk had more than others'.
        let known = here.max((first + count) * PAGE);
        self.history.restored(slot, &tokens[..known as usize]);
        Some(known)
    }

    /// To be told where an answer begins, of so many tokens at most.
    pub fn expect(&mut self, tokens: u32) {
        self.pace.begin(tokens);
    }

    /// Whether workers have come back that are worth another session in the middle of an answer.
    fn is_better_with_others(&self, runs: &[Run]) -> bool {
        let back = self.members.back();
        if back.is_empty() || runs.iter().any(|run| self.history.is_lost(run)) {
            return false;
        }
        let of = (self.model, self.options, self.pool);
        let gain = self.session.as_ref().and_then(|session| session.gain(of, &back, &self.paces));
        gain.is_some_and(|gain| self.pace.pays(self.history.cached(), gain))
    }

    fn pass_with(&mut self, runs: &[Run], tokens: &[u32], wanted: Wanted) -> Result<(), RootError> {
        // A root without a part of the layers does not look them up itself.
        let vocab_size = self.model.header().vocab_size;
        if let Some(id) = tokens.iter().copied().find(|id| *id >= vocab_size) {
            let failure = Failure::<std::convert::Infallible, _>::Token { id: Some(id), vocab_size };
            return Err(session::failed(failure));
        }
        self.ensure()?.check(runs, tokens)?;
        if runs.iter().any(|run| self.history.is_lost(run)) {
            return Err(RootError::NoSession);
        }
        loop {
            let result = self.replay(runs).and_then(|()| self.try_pass((runs, tokens), wanted));
            let error = match result {
                Err(error) if is_fatal(&error) => error,
                other => return other,
            };
            let Some(session) = self.session.take() else { return Err(error) };
            let message = error.to_string();
            if self.bury(session, error)? == Next::GiveUp {
                return Err(RootError::Forward(message));
            }
        }
    }

    /// Computes again what was lost with a session, as far as `runs` stand on it.
    fn replay(&mut self, runs: &[Run]) -> Result<(), RootError> {
        for run in runs {
            let Some((_, missing)) = self.history.missing(run) else { continue };
            (self.progress)(Stage::Replay(missing.len() as u32));
            let most = self.batch_max()? as usize;
            while let Some((position, missing)) = self.history.missing(run) {
                let tokens = &missing[..missing.len().min(most)];
                let part = Run { slot: run.slot, ..Run::new(position, tokens.len() as u32, Logits::None) };
                let session = self.session.as_mut().ok_or(RootError::NoSession)?;
                session.pass((&[part], tokens), Wanted::All, &mut self.gathered)?;
                let rows = tokens.len();
                self.history.regain(run.slot, rows);
            }
        }
        Ok(())
    }

    fn try_pass(&mut self, (runs, tokens): (&[Run], &[u32]), wanted: Wanted) -> Result<(), RootError> {
        self.ensure()?;
        let session = self.session.as_mut().ok_or(RootError::NoSession)?;
        runs.iter().for_each(|run| self.history.begin(run));
        self.gathered.partials.clear();
        let start = Instant::now();
        session.pass((runs, tokens), wanted, &mut self.gathered)?;
        self.pace.passed(tokens.len(), start.elapsed());
        self.members.computed();
        let mut rest = tokens;
        for run in runs {
            let (own, others) = rest.split_at(run.rows as usize);
            self.history.end(run, own);
            rest = others;
        }
        self.last.0.clear();
        self.last.0.extend_from_slice(runs);
        self.last.1.clear();
        self.last.1.extend_from_slice(tokens);
        Ok(())
    }

    /// What of the logits of the first `tokens` tokens is looked at from now on, in each row that [`Self::pass`] and what goes by it ask about.
    /// Others may be [`f32::MIN`] then: from workers that have a copy of the model, they do not cross the network.
    pub fn want(&mut self, looks: Looks, tokens: u32) {
        let best = |count, scale| Wanted::Best(Best { count, below: tokens, scale });
        self.wanted = match looks {
            Looks::Best(count) if (1..=BEST_MAX).contains(&count) => best(count, 0.0),
            Looks::Nucleus(scale) if scale.is_finite() => best(NUCLEUS, scale),
            _ => Wanted::All,
        };
    }

    /// What is known of the logits of the last row of the last pass, if not all are there and that is enough by itself.
    pub fn partial(&self) -> Option<Partial> {
        self.gathered.partials.last().copied()
    }

    /// The same of another row that was asked about.
    pub fn partial_of(&mut self, row: u32) -> Option<Partial> {
        let index = row.checked_sub(self.asked().start)?;
        self.gathered.partials.get(index as usize).copied()
    }

    /// Rows of the last pass from the first to the last that was asked about.
    pub fn asked(&mut self) -> Range<u32> {
        self.session.as_mut().map_or(0..0, |session| session.part.compute(|engine| engine.asked()))
    }

    /// Gets the logits of the last pass that were left where they are, those of all rows that were asked about.
    ///
    /// # Errors
    /// As [`Self::pass`].
    pub fn rest(&mut self) -> Result<(), RootError> {
        self.rests += 1;
        let result = self.session.as_mut().ok_or(RootError::NoSession)?.rest();
        self.gathered.partials.clear();
        let error = match result {
            Err(error) if is_fatal(&error) => error,
            other => return other,
        };
        if let Some(session) = self.session.take() {
            self.bury(session, error)?;
        }
        let (runs, tokens) = std::mem::take(&mut self.last);
        self.pass_with(&runs, &tokens, Wanted::All)
    }

    /// How long a token should take, as the planner predicted it where it was asked.
    pub fn predicted(&self) -> Option<Duration> {
        let planned = self.session.as_ref()?.planned.as_ref()?;
        Duration::try_from_secs_f64(planned.proposal.seconds).ok()
    }

    /// How often [`Self::rest`] was called.
    pub fn rests(&self) -> u64 {
        self.rests
    }

    /// Logits of the token that was computed last.
    ///
    /// # Panics
    /// If nothing was computed in this session.
    pub fn logits(&mut self) -> &mut [f32] {
        let session = self.session.as_mut().expect("there is a session after a pass");
        session.part.compute(|engine| engine.last_logits())
    }

    /// Logits of a row of the last pass, for which they were asked.
    ///
    /// # Panics
    /// As [`Self::logits`].
    pub fn logits_of(&mut self, row: u32) -> &mut [f32] {
        let session = self.session.as_mut().expect("there is a session after a pass");
        session.part.compute(|engine| engine.logits(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_fed_in_batches_that_keep_all_stages_busy() {
        for (tokens, stages, want) in [
            (1, 1, 1),
            (129, 1, 2),
            (512, 1, 4),
            (1, 2, 1),
            (63, 2, 1),
            (64, 2, 2),
            (512, 2, 8),
            (512, 4, 16),
            (4096, 2, 32),
        ] {
            assert_eq!(batches(tokens, (128, stages)), want, "{tokens} tokens in {stages} stages");
        }
    }
}
