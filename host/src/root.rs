//! The root of a run: node 0, which has the model file, the tokens and the logits. It works alone or drives workers.

use crate::arena::ArenaMemory;
use crate::model::Model;
use crate::pool::Threads;
use crate::storage::MappedFile;
use crate::{cpu, tables::GraphTables};
use dair_core::exec::{Batch, Engine, GraphError, Logits, Place, Program, Rooms, Step};
use dair_core::graph::Sizes;
use dair_core::io::{Alone, Pool};
use dair_core::plan::{self, Cut, PlanError};
use dair_core::quant::DType;
use std::{fmt, io};

/// How to run a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lanes of the pool on this machine.
    pub threads: usize,
    /// Type of the inputs of products, where the model's usual one is not wanted.
    pub activations: Option<DType>,
    /// Shortens the context; it never exceeds the model's.
    pub max_seq_len: Option<u32>,
}

/// Why a run can't start or go on.
#[derive(Debug)]
pub enum RootError {
    /// The model can't be cut as asked.
    Plan(PlanError),
    /// The graph does not fit its weights.
    Graph(GraphError),
    /// Threads or memory are refused: what was asked, and the reason.
    System(String, io::Error),
    /// A forward pass failed.
    Forward(String),
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(error) => error.fmt(f),
            Self::Graph(error) => error.fmt(f),
            Self::System(what, error) => write!(f, "cannot get {what}: {error}"),
            Self::Forward(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for RootError {}

/// A model that is ready to run.
pub struct Root<'a> {
    engine: Engine<'a, MappedFile, Threads>,
}

/// Prepares `model` as `options` say and hands it to `body`; everything is released when `body` returns.
///
/// # Errors
/// Those of preparing, and those of `body`.
pub fn with_root<R, E: From<RootError>>(
    model: &Model,
    options: &Options,
    body: impl FnOnce(&mut Root<'_>) -> Result<R, E>,
) -> Result<R, E> {
    let header = model.header();
    let mut cut = Cut::single(header);
    cut.activation = options.activations.unwrap_or(cut.activation);
    cut.seq_len = options.max_seq_len.map_or(cut.seq_len, |limit| limit.min(cut.seq_len));
    let mut tables = GraphTables::new(Sizes::of_layers(header.n_layers));
    let graph = plan::build(&model.layout, &cut, 0, tables.tables()).map_err(RootError::Plan)?;

    let pool = Threads::new(options.threads)
        .map_err(|error| RootError::System(format!("{} threads", options.threads), error))?;
    let mut places = vec![Place::default(); Program::places_len(&graph)];
    let mut steps = vec![Step::default(); graph.ops.len()];
    let rooms = Rooms { places: &mut places, steps: &mut steps };
    let program = Program::new(&graph, model.layout.file_bytes(), pool.lanes(), rooms).map_err(RootError::Graph)?;
    let mut arena = ArenaMemory::new(program.arena_bytes())
        .map_err(|error| RootError::System(format!("{} bytes of memory", program.arena_bytes()), error))?;
    let engine = Engine::new(&program, &model.file, &pool, cpu::best_kernels(), &mut arena);
    body(&mut Root { engine })
}

impl Root<'_> {
    /// Positions of the context.
    pub fn seq_len(&self) -> u32 {
        self.engine.program().seq_len()
    }

    /// Computes `tokens` from `position` on, in batches as large as the graph allows; `logits` asks about the last of
    /// them ([`Logits::Last`]) or none.
    ///
    /// # Errors
    /// Where the tokens do not fit the context, or a node fails.
    pub fn forward(&mut self, tokens: &[u32], position: u32, logits: Logits) -> Result<(), RootError> {
        let batch_max = self.engine.program().graph().batch_max as usize;
        let mut position = position;
        let mut chunks = tokens.chunks(batch_max).peekable();
        while let Some(tokens) = chunks.next() {
            let logits = if chunks.peek().is_some() { Logits::None } else { logits };
            let batch = Batch { position, rows: tokens.len() as u32, tokens, logits };
            self.pass(batch)?;
            position += batch.rows;
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
        let batch_max = self.engine.program().graph().batch_max as usize;
        let mut done = 0;
        for tokens in tokens.chunks(batch_max) {
            let rows = tokens.len() as u32;
            self.pass(Batch { position: position + done, rows, tokens, logits: Logits::All })?;
            for row in 0..rows {
                each((done + row) as usize, self.engine.logits(row));
            }
            done += rows;
        }
        Ok(())
    }

    /// Bytes sent to and received from workers so far, if there are any.
    pub fn network_bytes(&self) -> Option<(u64, u64)> {
        None
    }

    fn pass(&mut self, batch: Batch<'_>) -> Result<(), RootError> {
        self.engine.forward(&mut Alone, batch).map_err(|error| RootError::Forward(error.to_string()))
    }

    /// Logits of the token that was computed last.
    pub fn logits(&mut self) -> &mut [f32] {
        self.engine.last_logits()
    }
}
