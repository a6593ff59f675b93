//! Proposed tokens over real sockets: the answer of one node without them, in both dialects, and no more logits on the wire than needed.

use dair_core::format::Header;
use dair_core::format::tokenizer::TokenizerFile;
use dair_core::kernels::KvType;
use dair_core::plan::Share;
use dair_core::text::{Filters, Sampler, Vocabulary};
use dair_host::chat::generate::{Answer, Generator, Request};
use dair_host::chat::speculate::{Amount, Kind, Proposed, Proposer, Speculation};
use dair_host::cluster::choose::Wish;
use dair_host::cluster::error::RootError;
use dair_host::cluster::node::OwnModel;
use dair_host::cluster::options::{Dialect, Options};
use dair_host::cluster::root::{Root, with_root};
use dair_host::model::Model;
use dair_host::synthetic;
use dair_tests::worker::{PATIENT, Worker};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const VOCAB_SIZE: u32 = 4096;

/// A model file with a larger vocabulary than the tiny ones have.
fn file(folder: &Path, preset: &str) -> PathBuf {
    let path = folder.join(format!("{preset}.m"));
    let header = Header { seq_len: 256, vocab_size: VOCAB_SIZE, ..synthetic::preset(preset).unwrap() };
    synthetic::write_model(&path, &header, 5).unwrap();
    path
}

fn options(workers: &[Worker], dialect: Dialect) -> Options {
    let wish = Wish::Given(vec![Share { layers: 1, head: 1 }; workers.len() + 1], Vec::new());
    let workers = workers.iter().map(Worker::as_address).collect();
    Options { workers, wish, dialect, timeouts: PATIENT, ..Options::alone(1) }
}

/// Greedy, of a nucleus, of the best, with penalties.
fn samplers() -> [Sampler; 4] {
    let sampler = |temperature, top_p| Sampler::new(temperature, top_p, 9).unwrap();
    let penalties = Filters { repeat_penalty: 1.2, last_n: 32, ..Filters::OFF };
    [
        sampler(0.0, 1.0),
        sampler(0.05, 0.9),
        sampler(0.3, 1.0).with(Filters { top_k: 7, ..Filters::OFF }),
        sampler(0.1, 0.9).with(penalties),
    ]
}

fn prompt() -> Vec<u32> {
    (0..40).map(|i: u32| i % 13 * 101 + i / 26).collect()
}

/// Knows an answer, but every fourth token wrongly.
#[derive(Debug)]
struct Knows<'t>(&'t [u32]);

impl Proposer for Knows<'_> {
    fn begin(&mut self) {}

    fn look(&mut self, _: &[u32]) -> Option<Kind> {
        Some(Kind::Many)
    }

    fn propose(&mut self, tokens: &[u32], count: usize, out: &mut Vec<u32>) -> Result<(), RootError> {
        let next = self.0.iter().zip(0_u32..).skip(tokens.len() - prompt().len()).take(count);
        out.extend(next.map(|(token, index)| if index % 4 == 3 { token ^ 1 } else { *token }));
        Ok(())
    }
}

/// Tokens of an answer, and the answer; with proposals by what is known of it.
fn say(root: &mut Root<'_>, sampler: &Sampler, guessed: Option<(Amount, &[u32])>) -> (Vec<u32>, Answer) {
    let bytes = synthetic::tokenizer_bytes(VOCAB_SIZE);
    let mut index = vec![0; Vocabulary::index_len(VOCAB_SIZE)];
    let vocab = Vocabulary::new(&TokenizerFile::parse(&bytes).unwrap(), &mut index);
    let speculation =
        guessed.map_or_else(Speculation::off, |(amount, known)| Speculation::new(amount, vec![Box::new(Knows(known))]));
    let mut generator = Generator::new(&vocab, sampler.clone(), Vec::new()).with(speculation);
    let prompt = prompt();
    let request = Request { prompt: &prompt, position: 0, max_tokens: 80, ignore_eos: true };
    let answer = generator.run(root, request, |_| ControlFlow::Continue(())).unwrap();
    (generator.sampled().to_vec(), answer)
}

fn with<R>(model: &Model, options: &Options, body: impl FnOnce(&mut Root<'_>) -> R) -> R {
    with_root(model, options, &|_| (), |root| Ok::<_, RootError>(body(root))).unwrap()
}

#[test]
fn answers_of_workers_with_the_model_are_those_of_one_node() {
    let folder = tempfile::tempdir().unwrap();
    for preset in ["tiny-llama", "tiny-qwen3-moe"] {
        let path = file(folder.path(), preset);
        let model = Model::open(&path).unwrap();
        let alone: Vec<_> = with(&model, &Options::alone(2), |root| {
            samplers().iter().map(|sampler| say(root, sampler, None).0).collect()
        });
        let worker = || Worker::with_models(vec![OwnModel::open(&path).unwrap()], PATIENT, 1, KvType::F16, u64::MAX);
        let workers = [worker(), worker()];
        let mut all = Proposed::default();
        with(&model, &options(&workers, Dialect::Ask), |root| {
            for (sampler, alone) in samplers().iter().zip(&alone) {
                for amount in [Amount::Auto, Amount::Fixed(3), Amount::Fixed(9)] {
                    let (tokens, answer) = say(root, sampler, Some((amount, alone)));
                    assert_eq!(tokens, *alone, "{preset}, {sampler:?}, {amount:?}");
                    all += answer.proposed;
                }
            }
        });
        assert!(all.accepted > 0 && all.accepted < all.proposed, "{preset}: {all:?}");
    }
}

#[test]
fn answers_of_workers_that_are_sent_weights_are_those_without_speculation() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "tiny-llama");
    let model = Model::open(&path).unwrap();
    let workers = [Worker::patient()];
    let mut all = Proposed::default();
    with(&model, &options(&workers, Dialect::Dllama), |root| {
        for sampler in samplers() {
            let (plain, _) = say(root, &sampler, None);
            for amount in [Amount::Auto, Amount::Fixed(3), Amount::Fixed(9)] {
                let (tokens, answer) = say(root, &sampler, Some((amount, &plain)));
                assert_eq!(tokens, plain, "{sampler:?}, {amount:?}");
                all += answer.proposed;
            }
        }
    });
    assert!(all.accepted > 0 && all.accepted < all.proposed, "{all:?}");
}

/// Proposed rows send candidates, as single ones do.
#[test]
fn rows_of_proposed_tokens_do_not_cross_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "tiny-llama");
    let model = Model::open(&path).unwrap();
    let workers = [Worker::with_models(vec![OwnModel::open(&path).unwrap()], PATIENT, 1, KvType::F16, u64::MAX)];
    with(&model, &options(&workers, Dialect::Ask), |root| {
        let [greedy, nucleus, ..] = samplers();
        for sampler in [greedy, nucleus] {
            let mut received = |guessed: Option<(Amount, &[u32])>| {
                let before = root.traffic().unwrap().received;
                let (tokens, answer) = say(root, &sampler, guessed);
                (root.traffic().unwrap().received - before, tokens, answer.proposed.proposed)
            };
            let (plain, tokens, _) = received(None);
            let (got, _, proposed) = received(Some((Amount::Fixed(9), &tokens)));
            assert!(proposed > 100, "{proposed}");
            // What is rejected is computed all the same, and costs activations; a row would be half of the vocabulary.
            let row = u64::from(VOCAB_SIZE) / 2 * 4;
            assert!(got < plain + u64::from(proposed) * row / 2, "{got} bytes, {plain} without, {proposed} proposed");
        }
    });
}
