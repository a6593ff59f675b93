//! The root of a run: node 0, which has the model file, the tokens and the logits. It works alone or drives workers.
//!
//! A [`Root`] lives as long as its process wants, its sessions do not: where a worker is lost, the pass that runs fails, and the
//! next [`Root::session`] calls all workers again.

use crate::cluster::best::{Gathered, NativeLinks};
use crate::cluster::choose::{self, Decision, Planned};
use crate::cluster::error::RootError;
use crate::cluster::local::{Kept, Local, Part, wanted_bytes};
use crate::cluster::options::{Dialect, Options, Repack, StorageKind};
use crate::cluster::pulse::{Pulse, SharedLinks};
use crate::cluster::tables::GraphTables;
use crate::cluster::workers;
use crate::machine::cores;
use crate::machine::memory;
use crate::machine::pool::Threads;
use crate::model::{Model, identity};
use crate::net::native::{self, Called};
use crate::net::{Address, Mesh, NetError, Stage, Traffic, dial};
use crate::storage::stream::{Figures, Reading};
use dair_core::exec::{Batch, Failure, Logits, Run};
use dair_core::graph::Graph;
use dair_core::plan::{self, Cut, DLLAMA_BATCH, STREAMED_BATCH, Way};
use dair_core::text::{Looks, Partial};
use dair_core::wire::dllama::Control;
use dair_core::wire::native::{
    BEST_MAX, Beat, Best, Fingerprint, HasModel, Pass, Plan, Ready, SessionId, VERSION, Wanted,
};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Hears what preparing is at, where that takes its time.
pub type Progress<'p> = &'p (dyn Fn(Stage<'_>) + Sync);

/// The other nodes, before they know what they are to compute.
enum Others {
    Nobody,
    Native(Vec<Called>),
    Dllama,
}

impl Others {
    /// Finds out who the workers of `options` are.
    fn find(options: &Options, wanted: &HasModel, progress: Progress<'_>) -> Result<Self, NetError> {
        if options.dialect == Dialect::Dllama {
            return Ok(Self::Dllama);
        }
        let called = native::call(&options.workers, (&options.timeouts, &options.keys), progress)?;
        match workers::with_model(&options.workers, called, wanted, progress)? {
            Some(called) => Ok(Self::Native(called)),
            None if options.keys.are_none() => Ok(Self::Dllama),
            None => Err(workers::exposed(&options.workers)),
        }
    }

    /// From how many rows on a pass is computed in halves: never where exchanges take hardly any time, nor where a stage has nobody to
    /// exchange with.
    fn halve_from(&self, stages: &[plan::Stage]) -> u32 {
        let Self::Native(called) = self else { return u32::MAX };
        if !stages.is_empty() && stages.iter().all(|stage| stage.nodes == 1) {
            return u32::MAX;
        }
        let is_far = called.iter().any(|worker| worker.way.round_trip > NEAR);
        if is_far { HALVED_ROWS } else { u32::MAX }
    }
}

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

/// A model that runs, alone or with workers.
pub struct Root<'m> {
    model: &'m Model,
    options: &'m Options,
    pool: &'m Threads,
    progress: Progress<'m>,
    /// What workers must have, too.
    identity: Option<HasModel>,
    session: Option<Session<'m>>,
    /// Sessions so far.
    epoch: u32,
    /// What the last session left in memory, for the next one.
    kept: Option<Kept>,
    /// Of the passes of sessions that are over.
    past: Traffic,
    wanted: Wanted,
    /// How fast nodes turned out to be, beside what was predicted.
    paces: Vec<f64>,
    gathered: Gathered,
    /// Rows of logits that were asked for after all.
    rests: u64,
}

/// What is set up together and lost together: this machine's part, and the links to all others.
struct Session<'m> {
    part: Part<'m>,
    links: Arc<SharedLinks>,
    /// Whether passes are announced in the native dialect.
    is_native: bool,
    is_lossy: bool,
    /// In which layers are computed, one after the other.
    stages: usize,
    /// Whether each batch reads weights from a disk.
    sweeps: bool,
    epoch: u32,
    /// Before the first forward pass: a plan, or configs and weights.
    setup: Traffic,
    /// What the planner predicted, where it was asked.
    planned: Option<Planned>,
    /// What this node did, as workers say it of themselves.
    own: Beat,
    /// What it and the workers had done when the plan was looked at last.
    looked_at: Vec<Beat>,
    /// Asks workers for signs of life.
    _pulse: Option<Pulse>,
}

/// So many tokens, and so long for the slowest node, say how fast nodes are.
const TELLING: (u64, Duration) = (32, Duration::from_secs(2));

impl Session<'_> {
    fn pass(
        &mut self,
        (runs, tokens): (&[Run], &[u32]),
        wanted: Wanted,
        gathered: &mut Gathered,
    ) -> Result<(), RootError> {
        let (batch, mut links) = (Batch { runs, tokens }, self.links.lock());
        let mesh = links.mesh().map_err(RootError::Net)?;
        // Nobody is told of a pass that is not computed.
        self.part.compute(|engine| engine.check(&batch)).map_err(failed)?;
        if !self.is_native {
            mesh.announce_control(runs[0].position, runs[0].rows);
            return self.part.compute(|engine| engine.forward(mesh, batch)).map_err(failed);
        }
        let pass = Pass { epoch: self.epoch, wanted, runs: runs.iter().copied().collect() };
        native::announce(mesh, &pass, tokens, self.stages > 1).map_err(RootError::Net)?;
        let (start, before) = (Instant::now(), mesh.traffic());
        let mut links = NativeLinks { mesh, wanted, is_lossy: self.is_lossy, gathered };
        self.part.compute(|engine| engine.forward(&mut links, batch)).map_err(failed)?;
        if tokens.len() == 1 {
            self.own.passes += 1;
            let waits = links.mesh.traffic().since(before).exchanging;
            self.own.busy_us += start.elapsed().saturating_sub(waits).as_micros() as u64;
        }
        // A root that computes nothing itself has told nobody yet.
        links.mesh.flush().map_err(RootError::Net)
    }

    fn rest(&mut self) -> Result<(), RootError> {
        let mut links = self.links.lock();
        let mesh = links.mesh().map_err(RootError::Net)?;
        native::ask_for_rest(mesh);
        self.part.compute(|engine| engine.exchange_logits(mesh)).map_err(failed)
    }

    /// Another view of how fast nodes are, where it makes for a clearly better plan.
    fn off_plan(&mut self) -> Option<Vec<f64>> {
        let now: Vec<_> = [self.own].into_iter().chain(self.links.lock().beats().iter().copied()).collect();
        self.looked_at.resize(now.len(), Beat::default());
        let since = |(now, before): (&Beat, &Beat)| Beat {
            passes: now.passes.saturating_sub(before.passes),
            busy_us: now.busy_us.saturating_sub(before.busy_us),
        };
        let lately: Vec<_> = now.iter().zip(&self.looked_at).map(since).collect();
        let longest = Duration::from_micros(lately.iter().map(|beat| beat.busy_us).max()?);
        if longest < TELLING.1 || lately.iter().any(|beat| beat.passes < TELLING.0) {
            return None;
        }
        self.looked_at = now;
        let seconds = |beat: &Beat| Some(beat.busy_us as f64 / 1e6 / beat.passes as f64);
        self.planned.as_ref()?.off(&lately.iter().map(seconds).collect::<Vec<_>>())
    }

    /// Of the passes.
    fn traffic(&self) -> Traffic {
        self.links.lock().traffic().since(self.setup)
    }
}

fn failed<S: fmt::Display>(error: Failure<S, NetError>) -> RootError {
    match error {
        Failure::Stopped => RootError::Stopped { done: 0 },
        Failure::Links(error) => RootError::Net(error),
        Failure::Storage(error) => RootError::Weights(error.to_string()),
        other => RootError::Forward(other.to_string()),
    }
}

/// Whether a session is over with an error: others wait for what this node has promised.
const fn is_fatal<T>(result: &Result<T, RootError>) -> bool {
    matches!(result, Err(RootError::Net(_) | RootError::Weights(_)))
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
        if !options.workers.is_empty() {
            let found = identity::identity(model, options.digest)
                .map_err(|error| RootError::System(format!("the content of {}", model.path.display()), error))?;
            identity = Some(found);
        }
        Ok(Self {
            model,
            options,
            pool,
            progress,
            identity,
            session: None,
            epoch: 0,
            kept: None,
            past: Traffic::default(),
            wanted: Wanted::All,
            paces: Vec::new(),
            gathered: Gathered::default(),
            rests: 0,
        })
    }

    /// Sees to it that passes can be computed: calls all workers where there is no session, or a link was lost. Returns the number
    /// of the session; with another one, the KV cache is empty.
    ///
    /// # Errors
    /// Names the worker that can't be had, or what this machine can't do.
    pub fn session(&mut self) -> Result<u32, RootError> {
        if let Some(session) = self.session.as_ref().filter(|session| session.is_native) {
            session.links.lock().beat();
        }
        if self.session.as_ref().is_some_and(|session| session.links.lock().mesh().is_err()) {
            self.lose();
        }
        if let Some(paces) = self.session.as_mut().and_then(Session::off_plan) {
            self.paces.resize(paces.len(), 1.0);
            self.paces.iter_mut().zip(paces).for_each(|(pace, now)| *pace *= now);
            self.end();
        }
        if self.session.is_none() {
            self.epoch += 1;
            self.session = Some(self.form()?);
        }
        Ok(self.epoch)
    }

    /// Ends the session, if there is one, and keeps what the next one may need of it.
    fn lose(&mut self) {
        if let Some(session) = self.session.take() {
            self.past += session.traffic();
            self.kept = session.part.into_kept();
        }
    }

    /// Tells workers that the session is over.
    pub fn end(&mut self) {
        let Some(session) = self.session.take() else { return };
        self.past += session.traffic();
        if let Some(mesh) = session.links.lock().take() {
            if session.is_native {
                native::end(mesh);
            } else {
                mesh.stop(&Control::STOP.emit());
            }
        }
        self.kept = session.part.into_kept();
    }

    fn form(&mut self) -> Result<Session<'m>, RootError> {
        let Self { model, options, pool, progress, epoch, .. } = *self;
        let fingerprint = self.identity.as_ref().map(|identity| identity.fingerprint).unwrap_or_default();
        let (header, workers) = (model.header(), options.workers.len());
        let others = match &self.identity {
            Some(identity) => Others::find(options, identity, progress).map_err(RootError::Net)?,
            None => Others::Nobody,
        };
        let (decision, others) = self.decide(others)?;
        let mut cut = options.applied_to(match others {
            Others::Dllama => Cut::dllama(header, workers as u32 + 1),
            Others::Nobody | Others::Native(_) => decision.cut(header),
        });
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
        let announce = |_: &Ready| match others {
            Others::Native(called) => {
                let plan = native_plan(&cut, (fingerprint, epoch, halve_from), options)?;
                native::plan(called, &plan, &decision.shares, &options.timeouts).map(Some).map_err(RootError::Net)
            }
            Others::Nobody | Others::Dllama => Ok(None),
        };
        let (mut part, planned) = Part::prepare(model, (&cut, 0), &local, self.kept.take(), announce)?;
        part.compute(|engine| {
            engine.halve_from(halve_from);
            if let Some(stop) = options.stop {
                engine.stop_on(stop);
            }
        });
        let mesh = match planned {
            Some(planned) => planned.link(progress).map(|(mesh, _)| mesh),
            None if cut.nodes() == 1 => Mesh::alone(),
            None => push(model, options, &cut, progress)?,
        };
        let mesh = mesh.map_err(RootError::Net)?;
        if options.pin {
            // Only now: threads that a pinned one starts share its processor.
            cores::pin(pool).map_err(|error| RootError::System("a processor for each thread (--pin)".into(), error))?;
        }
        let setup = mesh.traffic();
        let links = Arc::new(SharedLinks::new(mesh));
        let pulse = is_native.then(|| Pulse::start(&links)).transpose().map_err(RootError::Net)?;
        let (planned, own, looked_at) = (decision.planned, Beat::default(), Vec::new());
        let (is_lossy, stages) = (options.lossy, decision.stages.len().max(1));
        Ok(Session {
            part,
            links,
            is_native,
            is_lossy,
            stages,
            sweeps,
            epoch,
            setup,
            planned,
            own,
            looked_at,
            _pulse: pulse,
        })
    }

    /// Who computes what; workers that have nothing to do are let go.
    fn decide(&self, others: Others) -> Result<(Decision, Others), RootError> {
        let Others::Native(called) = others else { return Ok((Decision::alone(), others)) };
        let decision = choose::decide((self.model, self.options, self.pool), &called, &self.paces)?;
        let mut called: Vec<_> = called.into_iter().map(Some).collect();
        let taken: Vec<_> = decision.workers.iter().filter_map(|worker| called[*worker].take()).collect();
        let idle: Vec<_> = called.iter().flatten().map(Called::peer).collect();
        if !idle.is_empty() {
            (self.progress)(Stage::Idle(&idle.join(", ")));
        }
        Ok((decision, if taken.is_empty() { Others::Nobody } else { Others::Native(taken) }))
    }
}

/// The most probable tokens that each node tells where tokens of a nucleus are wanted: they are enough for almost all.
const NUCLEUS: u32 = 32;
/// A round trip on this machine, or to a neighbour in the same rack.
const NEAR: Duration = Duration::from_micros(150);
/// Halves of fewer rows would cost more, weights being read twice, than what they hide.
const HALVED_ROWS: u32 = 32;

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
        (_, None) => wanted_bytes(model, (cut, 0), local.kv)? > local.max_memory,
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

impl<'m> Root<'m> {
    /// The threads of this machine, for others that compute while this root does not.
    pub fn pool(&self) -> &'m Threads {
        self.pool
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
    /// Where there is no session.
    pub fn batch_max(&mut self) -> Result<u32, RootError> {
        let session = self.session.as_mut().ok_or(RootError::NoSession)?;
        Ok(session.part.compute(|engine| engine.program().graph().batch_max))
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
        (!self.options.workers.is_empty()).then_some(all)
    }

    /// Computes runs of rows of several sequences together; each has the bits that it has alone. Where a worker is lost, so is the
    /// session.
    ///
    /// # Errors
    /// Where they do not fit, a node fails, or [`Options::stop`] has ended it.
    ///
    /// # Panics
    /// If there is no run.
    pub fn pass(&mut self, runs: &[Run], tokens: &[u32]) -> Result<(), RootError> {
        self.pass_with(runs, tokens, self.wanted)
    }

    fn pass_with(&mut self, runs: &[Run], tokens: &[u32], wanted: Wanted) -> Result<(), RootError> {
        // A root without a part of the layers does not look them up itself.
        let vocab_size = self.model.header().vocab_size;
        if let Some(id) = tokens.iter().copied().find(|id| *id >= vocab_size) {
            return Err(failed(Failure::<std::convert::Infallible, _>::Token { id: Some(id), vocab_size }));
        }
        let session = self.session.as_mut().ok_or(RootError::NoSession)?;
        self.gathered.partials.clear();
        let result = session.pass((runs, tokens), wanted, &mut self.gathered);
        if is_fatal(&result) {
            self.lose();
        }
        result
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
    /// Where a worker is lost.
    pub fn rest(&mut self) -> Result<(), RootError> {
        let session = self.session.as_mut().ok_or(RootError::NoSession)?;
        let result = session.rest();
        if is_fatal(&result) {
            self.lose();
        }
        self.gathered.partials.clear();
        self.rests += 1;
        result
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
