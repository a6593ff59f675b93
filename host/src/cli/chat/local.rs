//! A model on this machine answers, alone or as the root of a cluster. The KV cache carries the conversation, so each
//! turn feeds only what is new.

use super::answerer::{Answerer, Needed, NoAnswer};
use super::tally::Lines;
use crate::chat::conversation::{Conversation, Messages, Piece, Turn};
use crate::chat::generate::{GenerateError, Generator};
use crate::chat::tokenizer::Tokenizer;
use crate::cli::report::{Report, guesses};
use crate::cli::sample_args::SampleArgs;
use crate::cluster::root::Root;
use crate::machine::memory;
use crate::net::Traffic;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::time::Duration;

/// A model on this machine.
pub struct Local<'l, 'r> {
    /// Computes.
    pub root: &'l mut Root<'r>,
    /// The model's tokens.
    pub tokenizer: &'l Tokenizer<'l>,
    /// Samples answers.
    pub generator: Generator<'l>,
    /// What was said, and how it is laid out.
    pub conversation: Conversation,
    /// Name of the model's file.
    pub model: String,
    /// How tokens are chosen.
    pub sample: &'l SampleArgs,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// From the start of the command to the first question.
    pub load: Duration,
    /// What had crossed the network before the last answer.
    pub before: Option<Traffic>,
}

impl Answerer for Local<'_, '_> {
    fn messages(&self) -> &Messages {
        self.conversation.messages()
    }

    fn messages_mut(&mut self) -> &mut Messages {
        self.conversation.messages_mut()
    }

    fn answer(&mut self, on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>) -> Result<Turn, NoAnswer> {
        self.before = self.root.traffic();
        let (generator, max_tokens) = (&mut self.generator, self.max_tokens);
        self.conversation.answer(self.root, generator, self.tokenizer, max_tokens, on_piece).map_err(no_answer)
    }

    fn needed(&self) -> Result<Option<Needed>, NoAnswer> {
        let rendered = self.conversation.render(self.tokenizer).map_err(no_answer)?;
        let tokens = self.tokenizer.encode_rendered(&rendered).map_err(|error| no_answer(error.into()))?;
        Ok(Some(Needed { positions: tokens.len(), seq_len: self.root.seq_len() }))
    }

    fn greeting(&self) -> String {
        format!("{} positions of context", self.root.seq_len())
    }

    fn model(&self) -> String {
        self.model.clone()
    }

    fn sampling(&self) -> Value {
        let mut object = self.sample.all();
        object.insert("seed".into(), self.seed.into());
        object.into()
    }

    fn is_greedy(&self) -> bool {
        self.sample.choice.temperature() == 0.0
    }

    fn summary(&self, turn: &Turn) -> String {
        let answer = &turn.answer;
        format!(
            "prefill {:.1}, decode {:.1} tokens/s; {} of {} positions{}",
            answer.prefill.rate(),
            answer.decode.rate(),
            self.conversation.position(),
            self.root.seq_len(),
            guesses(&answer.proposed)
        )
    }

    fn json(&self, turn: &Turn) -> Value {
        let root = &self.root;
        let network = root.traffic().zip(self.before).map(|(now, before)| now.since(before));
        let (load, seed, repack, answer) = (self.load, self.seed, root.repack_time(), &turn.answer);
        let (predicted, rests) = (root.predicted(), root.rests());
        let streaming = root.reading().zip(root.streaming().copied());
        let mut report = Report { load, seed, repack, answer, predicted, rests, network, streaming }.json(&turn.text);
        if let Some(reasoning) = &turn.reasoning {
            report["reasoning"] = json!(reasoning);
        }
        report
    }

    fn figures(&self) -> Lines {
        let (used, there) = (self.conversation.position(), self.root.seq_len());
        let percent = f64::from(used) / f64::from(there) * 100.0;
        let mut lines = vec![
            ("context", format!("{used} of {there} positions, {percent:.0} %")),
            ("load", format!("{:.2} s", self.load.as_secs_f64())),
            ("memory", format!("{:.1} MB at its peak", memory::peak_bytes() as f64 / 1e6)),
        ];
        if let Some(Traffic { sent, received, .. }) = self.root.traffic() {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            lines.push(("network", format!("{:.1} MB sent, {:.1} MB received", mb(sent), mb(received))));
        }
        lines
    }
}

fn no_answer(error: GenerateError) -> NoAnswer {
    match error {
        GenerateError::PromptTooLong { .. } => NoAnswer::Full,
        GenerateError::Template(_) | GenerateError::Encode(_) => NoAnswer::Refused(error.to_string()),
        GenerateError::Root(_) => NoAnswer::Lost(error.to_string()),
        _ => NoAnswer::Failed(error.into()),
    }
}
