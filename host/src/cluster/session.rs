//! A session: what is set up together and lost together. How it is formed, with those who are there.

use crate::cluster::best::{Gathered, NativeLinks};
use crate::cluster::choose::{self, Decision, Paces, Planned, Wish};
use crate::cluster::error::RootError;
use crate::cluster::local::{Kept, Local, Needs, Part};
use crate::cluster::members::Members;
use crate::cluster::options::{Dialect, Options, Repack, StorageKind};
use crate::cluster::planner::facts::Facts;
use crate::cluster::root::Progress;
use crate::cluster::tables::GraphTables;
use crate::cluster::workers;
use crate::machine::cores;
use crate::machine::memory;
use crate::machine::pool::Threads;
use crate::model::Model;
use crate::net::native::{self, Called};
use crate::net::watch::{Fate, Watches};
use crate::net::{Address, Mesh, NetError, Stage, Traffic, dial};
use dair_core::exec::{Batch, CacheCopy, Failure, Run};
use dair_core::graph::Graph;
use dair_core::plan::coordinator::Next;
use dair_core::plan::membership::{self, culprits};
use dair_core::plan::{self, Cut, STREAMED_BATCH, Share, Way};
use dair_core::wire::dllama::Control;
use dair_core::wire::native::{Beat, Fingerprint, HasModel, Pages, Pass, Plan, Ready, SessionId, VERSION, Wanted};
use std::time::{Duration, Instant};
use std::{fmt, io};

/// What a session is formed of.
pub(super) struct Task<'m, 't> {
    pub model: &'m Model,
    pub options: &'m Options,
    pub pool: &'m Threads,
    pub progress: Progress<'m>,
    /// What workers must have, if there are any.
    pub identity: Option<&'t HasModel>,
    /// No session was formed before: a worker that can't be had then is a mistake of the user's.
    pub is_first: bool,
    /// Workers turned out to be those of C++ Distributed-Llama.
    pub is_dllama: bool,
    /// How fast nodes turned out to be, beside what was predicted: the root, then all workers.
    pub paces: &'t [f64],
}

/// This machine's part, and the links to all others.
pub(super) struct Session<'m> {
    pub part: Part<'m>,
    pub mesh: Mesh,
    /// In the native dialect, beside others: those who know that the workers live.
    watches: Option<Watches>,
    /// Who the nodes are, from node 1 on, by their place among the workers.
    nodes: Vec<usize>,
    /// Who was called for it, and what they say of themselves.
    called: Vec<(usize, Facts)>,
    /// Whether passes are announced in the native dialect.
    is_native: bool,
    is_lossy: bool,
    /// Whether all nodes have a disk for keys and values.
    keeps: bool,
    /// In which layers are computed, one after the other.
    pub stages: usize,
    /// Whether each batch reads weights from a disk.
    pub sweeps: bool,
    epoch: u32,
    /// Before the first forward pass: a plan, or configs and weights.
    pub setup: Traffic,
    /// What each node's part is computed from.
    needs: Vec<Needs>,
    /// What the planner predicted, where it was asked.
    pub planned: Option<Planned>,
    /// What this node did, as workers say it of themselves.
    own: Beat,
    /// What it and the workers had done when the plan was looked at last.
    looked_at: Vec<Beat>,
}

/// What a node has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodePlan {
    /// Of all weights.
    pub share: f64,
    /// Bytes of weights, keys and values that it needs.
    pub memory_bytes: u64,
    /// Seconds of a message from the root to it and back; `None` of the root.
    pub round_trip_s: Option<f64>,
}

/// A worker that is left out from now on, and why.
#[derive(Debug)]
pub(super) struct Loss {
    worker: usize,
    reason: String,
}

/// Why there is no session.
enum Unformed {
    /// With nobody else there would be one.
    For(RootError),
    /// Without these there may be one; without any, another attempt may do.
    Without(Vec<Loss>, NetError),
}

impl From<RootError> for Unformed {
    fn from(error: RootError) -> Self {
        Self::For(error)
    }
}

/// The other nodes, before they know what they are to compute.
enum Others {
    Nobody,
    /// With their places among the workers.
    Native(Vec<(usize, Called)>),
    Dllama,
}

impl Others {
    /// From how many rows on a pass is computed in halves: never where exchanges take hardly any time, nor where a stage has nobody to
    /// exchange with.
    fn halve_from(&self, stages: &[plan::Stage]) -> u32 {
        let Self::Native(called) = self else { return u32::MAX };
        if !stages.is_empty() && stages.iter().all(|stage| stage.nodes == 1) {
            return u32::MAX;
        }
        let is_far = called.iter().any(|(_, worker)| worker.way.round_trip > NEAR);
        if is_far { HALVED_ROWS } else { u32::MAX }
    }
}

/// So many tokens, and so long for the slowest node, say how fast nodes are.
const TELLING: (u64, Duration) = (32, Duration::from_secs(2));

impl Session<'_> {
    /// Computes runs of rows.
    ///
    /// # Errors
    /// Where a worker is lost, or this machine fails.
    pub fn pass(
        &mut self,
        (runs, tokens): (&[Run], &[u32]),
        wanted: Wanted,
        gathered: &mut Gathered,
    ) -> Result<(), RootError> {
        let (batch, mesh) = (Batch { runs, tokens }, &mut self.mesh);
        if !self.is_native {
            mesh.announce_control(runs[0].position, runs[0].rows);
            return self.part.compute(|engine| engine.forward(mesh, batch)).map_err(failed);
        }
        let pass = Pass { epoch: self.epoch, wanted, runs: runs.iter().copied().collect() };
        native::announce(mesh, &pass, tokens, self.stages > 1).map_err(RootError::Net)?;
        let (start, before, read) = (Instant::now(), mesh.traffic(), self.part.disk_wait());
        let mut links = NativeLinks { mesh, wanted, is_lossy: self.is_lossy, gathered };
        self.part.compute(|engine| engine.forward(&mut links, batch)).map_err(failed)?;
        let (took, waits) = (start.elapsed(), links.mesh.traffic().since(before).exchanging);
        self.own.spent.add(took, waits, self.part.disk_wait().saturating_sub(read));
        if tokens.len() == 1 {
            self.own.passes += 1;
            self.own.busy_us += took.saturating_sub(waits).as_micros() as u64;
        }
        // A root that computes nothing itself has told nobody yet.
        links.mesh.flush().map_err(RootError::Net)
    }

    /// Refuses a pass that can't be computed, before anybody is told of it.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&mut self, runs: &[Run], tokens: &[u32]) -> Result<(), RootError> {
        self.part.compute(|engine| engine.check(&Batch { runs, tokens })).map_err(failed)
    }

    /// Makes the beginning of a sequence that of another one, on all nodes; whether they could.
    pub fn copy(&mut self, copy: CacheCopy) -> bool {
        if self.is_dllama() || self.part.compute(|engine| engine.copy::<NetError>(copy)).is_err() {
            return false;
        }
        if self.mesh.nodes() > 1 {
            native::copy(&mut self.mesh, copy);
        }
        true
    }

    /// Keeps pages on the disks of all nodes; whether there is no more to do for this one.
    ///
    /// # Errors
    /// Where a worker is lost.
    pub fn keep(&mut self, pages: &Pages<'_>) -> Result<bool, RootError> {
        if !self.keeps {
            return Ok(true);
        }
        if self.mesh.nodes() > 1 {
            native::keep(&mut self.mesh, pages).map_err(RootError::Net)?;
        }
        Ok(self.part.keep(pages))
    }

    /// Gets pages from the disks of all nodes; how many everybody has, from the first on. Nothing where this one has none: then
    /// nobody is asked.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn restore(&mut self, pages: &Pages<'_>) -> Result<Option<u32>, RootError> {
        let own = if self.keeps { self.part.restore(pages) } else { 0 };
        if own == 0 || self.mesh.nodes() == 1 {
            return Ok((own > 0).then_some(own));
        }
        let here = Pages { names: &pages.names[..own as usize], ..*pages };
        native::restore(&mut self.mesh, &here).map(Some).map_err(RootError::Net)
    }

    /// Gets the logits of the last pass that were left where they are.
    ///
    /// # Errors
    /// As [`Self::pass`].
    pub fn rest(&mut self) -> Result<(), RootError> {
        let mesh = &mut self.mesh;
        native::ask_for_rest(mesh);
        self.part.compute(|engine| engine.exchange_logits(mesh)).map_err(failed)
    }

    /// Changes `paces` to how fast nodes are, where that makes for a clearly better plan.
    pub fn is_off_plan(&mut self, paces: &mut Vec<f64>) -> bool {
        let Some(watches) = &self.watches else { return false };
        let now: Vec<_> = [self.own].into_iter().chain(watches.beats()).collect();
        self.looked_at.resize(now.len(), Beat::default());
        let since = |(now, before): (&Beat, &Beat)| Beat {
            passes: now.passes.saturating_sub(before.passes),
            busy_us: now.busy_us.saturating_sub(before.busy_us),
            spent: now.spent.since(&before.spent),
        };
        let lately: Vec<_> = now.iter().zip(&self.looked_at).map(since).collect();
        let longest = Duration::from_micros(lately.iter().map(|beat| beat.busy_us).max().unwrap_or(0));
        if longest < TELLING.1 || lately.iter().any(|beat| beat.passes < TELLING.0) {
            return false;
        }
        self.looked_at = now;
        let seconds = |beat: &Beat| Some(beat.busy_us as f64 / 1e6 / beat.passes as f64);
        let actual: Vec<_> = lately.iter().map(seconds).collect();
        let Some(other) = self.planned.as_ref().and_then(|planned| planned.off(&actual)) else { return false };
        let places = [0].into_iter().chain(self.called.iter().map(|(worker, _)| worker + 1));
        for (place, pace) in places.zip(other) {
            paces.resize(paces.len().max(place + 1), 1.0);
            paces[place] *= pace;
        }
        true
    }

    /// Seconds that a token is predicted to take as it is, and with those who are `back` as well; nothing where the planner is not asked.
    pub fn gain(&self, of: (&Model, &Options, &Threads), back: &[(usize, Facts)], paces: &Paces) -> Option<[f64; 2]> {
        let seconds = |workers: &[(usize, Facts)]| {
            let (places, facts): (Vec<_>, Vec<_>) = workers.iter().copied().unzip();
            choose::seconds(of, &wish_of(of.1, &places), &facts, &paces_of(paces, &places))
        };
        let mut all = [&self.called, back].concat();
        all.sort_by_key(|(worker, _)| *worker);
        Some([seconds(&self.called)?, seconds(&all)?])
    }

    /// What each node has to do, the root first.
    pub fn planned_nodes(&self) -> Vec<NodePlan> {
        let all: u64 = self.needs.iter().map(|needs| needs.weights).sum();
        let facts = |node: usize| {
            let worker = self.nodes.get(node.checked_sub(1)?)?;
            self.called.iter().find(|(called, _)| called == worker).map(|(_, facts)| *facts)
        };
        let plan = |(node, needs): (usize, &Needs)| NodePlan {
            share: needs.weights as f64 / all.max(1) as f64,
            memory_bytes: needs.bytes(),
            round_trip_s: facts(node).and_then(|facts| facts.round_trip_s),
        };
        self.needs.iter().enumerate().map(plan).collect()
    }

    /// What this node did, and what each worker did: its place among the workers, and nothing where it does not say.
    pub fn work(&self) -> (Beat, Vec<(usize, Option<Beat>)>) {
        let beats = self.watches.as_ref().map(Watches::beats).unwrap_or_default();
        let work = |(index, worker): (usize, &usize)| (*worker, beats.get(index).copied());
        (self.own, self.nodes.iter().enumerate().map(work).collect())
    }

    /// Whether its workers are those of C++ Distributed-Llama.
    pub fn is_dllama(&self) -> bool {
        !self.is_native && self.mesh.nodes() > 1
    }

    /// Whether nobody is known to be missing.
    pub fn is_well(&self) -> bool {
        self.watches.as_ref().is_none_or(Watches::are_well)
    }

    /// Who wants to leave.
    pub fn leaving(&self) -> Vec<usize> {
        let leaving = self.watches.as_ref().map(Watches::leaving).unwrap_or_default();
        leaving.into_iter().map(|index| self.nodes[index]).collect()
    }

    /// Of the passes.
    pub fn traffic(&self) -> Traffic {
        self.mesh.traffic().since(self.setup)
    }

    /// Tells workers that it is over; what the next one may use of it.
    pub fn end(self) -> Option<Kept> {
        if self.is_native {
            native::end(self.mesh);
        } else {
            self.mesh.stop(&Control::STOP.emit());
        }
        self.part.into_kept()
    }

    /// Where it has failed with `error`: who is to be left out of the next one, and what that may use of it. An error where there is
    /// none to be formed by itself.
    pub fn bury(self, error: RootError, members: &Members) -> (Option<Kept>, Result<Vec<Loss>, RootError>) {
        let kept = self.part.into_kept();
        // Others wait for what will not come.
        drop(self.mesh);
        let losses = match (error, self.watches) {
            (RootError::Net(error), Some(watches)) => Ok(losses(watches, &error, (members, &self.nodes))),
            (error, _) => Err(error),
        };
        (kept, losses)
    }
}

/// Whose fault it is that a session has failed with `error`; `nodes` are its workers.
fn losses(watches: Watches, error: &NetError, (members, nodes): (&Members, &[usize])) -> Vec<Loss> {
    let fates = watches.fates();
    let verdict = |fate: &Fate| match fate {
        Fate::Alive => membership::Fate::Alive,
        Fate::Failed(failed) => membership::Fate::Blames((failed.node as usize).checked_sub(1)),
        Fate::Lost(_) => membership::Fate::Lost,
    };
    let named = error.peer().and_then(|peer| members.named(&peer));
    let named = named.and_then(|worker| nodes.iter().position(|node| *node == worker));
    let verdicts: Vec<_> = fates.iter().map(verdict).collect();
    let reason = |index: usize| {
        let blaming = fates.iter().zip(nodes).find_map(|(fate, node)| match fate {
            Fate::Failed(blame) if blame.node as usize == index + 1 => Some((node, &blame.reason)),
            _ => None,
        });
        match (&fates[index], blaming) {
            (Fate::Lost(error), _) => error.to_string(),
            (_, Some((node, reason))) if named != Some(index) => {
                format!("worker {}: {reason}", members.address(*node))
            }
            _ => error.to_string(),
        }
    };
    let culprits = culprits(&verdicts, named).into_iter();
    culprits.map(|index| Loss { worker: nodes[index], reason: reason(index) }).collect()
}

/// Leaves workers out, and says so; what is to be done then.
pub(super) fn leave_out(losses: &[Loss], members: &mut Members, progress: Progress<'_>) -> Next {
    let next = members.failed(losses.iter().map(|loss| loss.worker));
    losses.iter().for_each(|loss| progress(Stage::Lost(&loss.reason)));
    next
}

/// What a failure of the engine means.
pub(super) fn failed<S: fmt::Display>(error: Failure<S, NetError>) -> RootError {
    match error {
        Failure::Stopped => RootError::Stopped { done: 0 },
        Failure::Links(error) => RootError::Net(error),
        Failure::Storage(error) => RootError::Weights(error.to_string()),
        other => RootError::Forward(other.to_string()),
    }
}

/// Whether a session is over with an error: others wait for what this node has promised.
pub(super) const fn is_fatal(error: &RootError) -> bool {
    matches!(error, RootError::Net(_) | RootError::Weights(_))
}

impl<'m> Session<'m> {
    /// Forms a session with those workers that are there; who is lost meanwhile is left out.
    ///
    /// # Errors
    /// Names the worker that can't be had, where it is the first one, or what this machine can't do.
    pub fn form(task: &Task<'m, '_>, members: &mut Members, kept: &mut Option<Kept>) -> Result<Self, RootError> {
        let mut is_first = task.is_first;
        loop {
            match Self::try_to_form(&Task { is_first, ..*task }, members, kept) {
                Ok(session) => return Ok(session),
                Err(Unformed::For(error)) => return Err(error),
                Err(Unformed::Without(losses, error)) => {
                    is_first = false;
                    if leave_out(&losses, members, task.progress) == Next::GiveUp {
                        return Err(RootError::Net(error));
                    }
                }
            }
        }
    }

    fn try_to_form(task: &Task<'m, '_>, members: &mut Members, kept: &mut Option<Kept>) -> Result<Self, Unformed> {
        let Task { model, options, pool, progress, .. } = *task;
        let epoch = members.form();
        let fingerprint = task.identity.map(|identity| identity.fingerprint).unwrap_or_default();
        let header = model.header();
        let others = match task.identity {
            Some(identity) => find(task, identity, members)?,
            None => Others::Nobody,
        };
        let called: Vec<_> = match &others {
            Others::Native(called) => called.iter().map(|(worker, called)| (*worker, Facts::of(called))).collect(),
            Others::Nobody | Others::Dllama => Vec::new(),
        };
        let (decision, others) = decide(task, others)?;
        let mut cut = options.applied_to(match others {
            Others::Dllama => Cut::dllama(header, options.workers.len() as u32 + 1),
            Others::Nobody | Others::Native(_) => decision.cut(header),
        });
        if matches!(others, Others::Dllama) {
            // Its passes do not say whose they are.
            cut.slots = 1;
        }
        if matches!(others, Others::Dllama) && options.dialect == Dialect::Ask {
            cut.check(header).map_err(|error| {
                let error = RootError::Plan(error, plan::node_counts(header).collect());
                let names: Vec<_> = options.workers.iter().map(Address::to_string).collect();
                RootError::NobodyHasIt(names.join(", "), Box::new(error))
            })?;
        }
        let local = Local {
            pool,
            kernels: options.kernels,
            kv: options.kv,
            repack: options.repack,
            max_memory: memory::session_bytes(options.memory),
            storage: options.storage,
            // What travelled in a lossy way depends on more than tokens.
            disk: options.disk.as_ref().filter(|_| !options.lossy && !matches!(others, Others::Dllama)),
            stop: options.stop,
        };
        let is_native = matches!(others, Others::Native(_));
        let mut halve_from = others.halve_from(&decision.stages);
        let sweeps =
            matches!(others, Others::Nobody | Others::Native(_)) && is_streamed(model, &cut, &local, &decision)?;
        if sweeps {
            // Every sweep over the weights counts: more rows in each, and no weights twice.
            (cut.batch_max, halve_from) = (STREAMED_BATCH, u32::MAX);
        }
        let mut nodes = Vec::new();
        let announce = |_: &Ready| match others {
            Others::Native(called) => {
                let plan = native_plan(&cut, (fingerprint, epoch, halve_from), options)?;
                let called = called.into_iter().map(|(worker, called)| {
                    nodes.push(worker);
                    called
                });
                let called = called.collect();
                match native::plan(called, &plan, &decision.shares, (&options.timeouts, &options.keys)) {
                    Ok(planned) => Ok(Some(planned)),
                    Err(error) => Err(named(error, members)),
                }
            }
            Others::Nobody | Others::Dllama => Ok(None),
        };
        let (mut part, planned) = Part::prepare(model, (&cut, 0), &local, kept.take(), announce)?;
        part.compute(|engine| {
            engine.halve_from(halve_from);
            if let Some(stop) = options.stop {
                engine.stop_on(stop);
            }
        });
        let mut keeps = local.disk.is_some();
        let (mesh, watches) = match planned {
            Some(planned) => match planned.link(progress) {
                Ok((mesh, watches, keep_nothing)) => {
                    if keeps && !keep_nothing.is_empty() {
                        progress(Stage::NotKept(&keep_nothing.join(", ")));
                        keeps = false;
                    }
                    (mesh, Some(watches))
                }
                Err((error, watches)) => {
                    *kept = part.into_kept();
                    if task.is_first && matches!(error, NetError::Refused { .. }) {
                        return Err(RootError::Net(error).into());
                    }
                    return Err(Unformed::Without(losses(watches, &error, (members, &nodes)), error));
                }
            },
            None if cut.nodes() == 1 => (Mesh::alone().map_err(RootError::Net)?, None),
            None => (push(model, options, &cut, progress)?.map_err(RootError::Net)?, None),
        };
        if options.pin {
            // Only now: threads that a pinned one starts share its processor.
            cores::pin(pool).map_err(|error| RootError::System("a processor for each thread (--pin)".into(), error))?;
        }
        let back: Vec<_> = called.iter().map(|(worker, _)| *worker).filter(|worker| members.joined(*worker)).collect();
        if !back.is_empty() {
            let names: Vec<_> = back.iter().map(|worker| format!("worker {}", members.address(*worker))).collect();
            progress(Stage::Back(&names.join(", ")));
        }
        let needs = (0..cut.nodes()).map(|node| Needs::of(model, (&cut, node), options.kv));
        let needs = needs.collect::<Result<_, _>>()?;
        let (setup, stages) = (mesh.traffic(), decision.stages.len().max(1));
        let (planned, own, looked_at) = (decision.planned, Beat::default(), Vec::new());
        let is_lossy = options.lossy;
        Ok(Self {
            part,
            mesh,
            watches,
            nodes,
            called,
            is_native,
            is_lossy,
            keeps,
            stages,
            sweeps,
            epoch,
            setup,
            needs,
            planned,
            own,
            looked_at,
        })
    }
}

/// Blames the worker that an error names.
fn named(error: NetError, members: &Members) -> Unformed {
    let worker = error.peer().and_then(|peer| members.named(&peer));
    let losses = worker.map(|worker| Loss { worker, reason: error.to_string() });
    Unformed::Without(losses.into_iter().collect(), error)
}

/// Whether a worker that was there a moment ago is not any more.
const fn is_loss(error: &NetError) -> bool {
    use NetError::{Closed, Failed, Silent, Slow, Unanswered, Vanished};
    matches!(error, Closed { .. } | Failed { .. } | Silent { .. } | Slow { .. } | Unanswered { .. } | Vanished { .. })
}

/// A worker that is busy has not noticed yet that the last session is over: it is asked so many times again.
const BUSY: usize = 10;

/// Finds out who the workers are that are not left out.
fn find(task: &Task<'_, '_>, wanted: &HasModel, members: &Members) -> Result<Others, Unformed> {
    let Task { options, progress, is_first, .. } = *task;
    if options.dialect == Dialect::Dllama || task.is_dllama {
        return Ok(Others::Dllama);
    }
    let places = members.callable();
    let addresses: Vec<_> = places.iter().map(|worker| members.address(*worker)).collect();
    if addresses.is_empty() {
        return Ok(Others::Nobody);
    }
    let timeouts = if is_first { options.timeouts } else { options.timeouts.brief() };
    let call = |addresses: &[Address]| {
        native::call_each(addresses, (&timeouts, &options.keys), progress).map_err(RootError::Net)
    };
    let answers = call(&addresses)?;
    if is_first {
        let mut called = Vec::with_capacity(answers.len());
        for answer in answers {
            called.push(answer.map_err(|error| match is_loss(&error) {
                true => named(error, members),
                false => Unformed::For(RootError::Net(error)),
            })?);
        }
        if called.iter().flatten().any(|worker| !worker.have.models.is_empty())
            && let Some(silent) = called.iter().position(Option::is_none)
        {
            // It may be about to start; else somebody is told why it is not used.
            return Err(named(NetError::Other { address: addresses[silent].clone() }, members));
        }
        let called = workers::with_model(&addresses, called, wanted, progress).map_err(RootError::Net)?;
        return match called {
            Some(called) => Ok(Others::Native(places.into_iter().zip(called).collect())),
            None if options.keys.are_none() => Ok(Others::Dllama),
            None => Err(RootError::Net(workers::exposed(&addresses)).into()),
        };
    }
    let mut here = Vec::new();
    for ((worker, address), mut answer) in places.into_iter().zip(&addresses).zip(answers) {
        for _ in 0..BUSY {
            if !matches!(&answer, Ok(Some(called)) if workers::check_free(called).is_err()) {
                break;
            }
            answer = call(std::slice::from_ref(address))?.remove(0);
        }
        let unanswered = || NetError::Other { address: address.clone() };
        let checked = answer.and_then(|called| {
            let called = called.ok_or_else(unanswered)?;
            workers::check_version(&called)?;
            workers::check_free(&called)?;
            workers::check_model(&called, wanted)?;
            Ok(called)
        });
        here.push((worker, checked.map_err(|error| named(error, members))?));
    }
    Ok(Others::Native(here))
}

/// Who computes what; workers that have nothing to do are let go.
fn decide(task: &Task<'_, '_>, others: Others) -> Result<(Decision, Others), RootError> {
    let Others::Native(called) = others else { return Ok((Decision::alone(), others)) };
    let (places, called): (Vec<_>, Vec<_>) = called.into_iter().unzip();
    let wish = wish_of(task.options, &places);
    let paces = paces_of(task.paces, &places);
    let decision = choose::decide((task.model, task.options, task.pool), &wish, &called, &paces)?;
    let mut called: Vec<_> = places.into_iter().zip(called).map(Some).collect();
    let taken: Vec<_> = decision.workers.iter().filter_map(|worker| called[*worker].take()).collect();
    let idle: Vec<_> = called.iter().flatten().map(|(_, worker)| worker.peer()).collect();
    if !idle.is_empty() {
        (task.progress)(Stage::Idle(&idle.join(", ")));
    }
    Ok((decision, if taken.is_empty() { Others::Nobody } else { Others::Native(taken) }))
}

/// Of the root and these workers.
fn paces_of(paces: &Paces, workers: &[usize]) -> Vec<f64> {
    let places = [0].into_iter().chain(workers.iter().map(|worker| worker + 1));
    places.map(|place| paces.get(place).copied().unwrap_or(1.0)).collect()
}

/// What is wished for, as far as it can be with those workers that are here: where some are missing, in a way that has the same
/// results.
fn wish_of(options: &Options, here: &[usize]) -> Wish {
    if here.len() >= options.workers.len() {
        return options.wish.clone();
    }
    let equal = || Wish::Given(vec![Share::EQUAL; here.len() + 1], Vec::new());
    match &options.wish {
        Wish::Given(shares, _) => {
            let places = [0].into_iter().chain(here.iter().map(|worker| worker + 1));
            let shares: Vec<_> = places.filter_map(|place| shares.get(place).copied()).collect();
            let are_some = shares.iter().any(|share| share.layers > 0) && shares.iter().any(|share| share.head > 0);
            if are_some { Wish::Given(shares, Vec::new()) } else { equal() }
        }
        Wish::Columns => equal(),
        Wish::Best | Wish::Rows | Wish::Layers => Wish::Best,
    }
}

/// A round trip on this machine, or to a neighbour in the same rack.
const NEAR: Duration = Duration::from_micros(150);
/// Halves of fewer rows would cost more, weights being read twice, than what they hide.
const HALVED_ROWS: u32 = 32;

/// What all nodes of a new session agree on.
fn native_plan(
    cut: &Cut<'_>,
    (fingerprint, epoch, halve_from): (Fingerprint, u32, u32),
    options: &Options,
) -> Result<Plan, RootError> {
    let mut session = SessionId::default();
    getrandom::fill(&mut session)
        .map_err(|error| RootError::System("random bytes".into(), io::Error::other(error.to_string())))?;
    let (columns, stages) = match cut.way {
        Way::Rows { stages, .. } => (None, stages),
        Way::Columns { exchange, .. } => (Some(exchange), &[][..]),
    };
    Ok(Plan {
        version: VERSION,
        session,
        epoch,
        fingerprint,
        node: 0,
        nodes: cut.nodes(),
        activation: cut.activation,
        kv: options.kv,
        batch_max: cut.batch_max,
        seq_len: cut.seq_len,
        slots: cut.slots,
        halve_from,
        repack: options.repack != Repack::Never,
        lossy: options.lossy,
        columns,
        stages: stages.iter().copied().collect(),
    })
}

/// Whether a node, as far as is known, does not have all of its weights in memory.
fn is_streamed(model: &Model, cut: &Cut<'_>, local: &Local<'_>, decision: &Decision) -> Result<bool, RootError> {
    Ok(match (local.storage, &decision.planned) {
        (StorageKind::Mapped, _) => false,
        (StorageKind::Streamed, _) => true,
        (_, Some(planned)) => planned.proposal.costs.iter().any(|cost| cost.missing > 0.0),
        (_, None) => Needs::of(model, (cut, 0), local.kv)?.bytes() > local.max_memory,
    })
}

/// Links to the workers of the `dllama` dialect, each with its graph and its weights.
fn push(
    model: &Model,
    options: &Options,
    cut: &Cut<'_>,
    progress: Progress<'_>,
) -> Result<Result<Mesh, NetError>, RootError> {
    let header = model.header();
    let mut tables: Vec<_> = (1..cut.nodes()).map(|_| GraphTables::new(cut.sizes(header))).collect();
    let graphs: Vec<Graph<'_>> = (1..)
        .zip(&mut tables)
        .map(|(node, tables)| plan::build(&model.layout, cut, node, tables.tables()))
        .collect::<Result<_, _>>()
        .map_err(|error| RootError::Plan(error, plan::node_counts(header).collect()))?;
    let connect = || {
        let mut workers = dial::dial(&options.workers, &options.timeouts, progress)?;
        workers.configure(&graphs, progress)?;
        let total = dial::total_bytes(&graphs);
        workers.push(&graphs, &model.file, &|bytes| progress(Stage::Weights { bytes, total }))?;
        workers.into_mesh()
    };
    Ok(connect())
}
