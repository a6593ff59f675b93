//! The engine of the server: answers that are computed together are those that are computed alone.

use dair_core::kernels::KvType;
use dair_core::plan::Share;
use dair_core::text::{Filters, Sampler, Vocabulary};
use dair_host::chat::grammar::{Form, Forms};
use dair_host::chat::speculate::{Amount, Draft, Lookup, Proposer, Speculation};
use dair_host::chat::tokenizer::{Tokenizer, TokenizerBytes};
use dair_host::cluster::choose::Wish;
use dair_host::cluster::error::RootError;
use dair_host::cluster::node::OwnModel;
use dair_host::cluster::options::{Dialect, Options};
use dair_host::cluster::root::with_root;
use dair_host::model::Model;
use dair_host::net::Stage;
use dair_host::serve::engine::{Ask, Choice, Engine, Event, Failed, Figures, Timeline, Token, Why};
use dair_host::synthetic::{preset, tokenizer_bytes, write_model};
use dair_tests::relay::Relay;
use dair_tests::worker::{PATIENT, Worker};
use serde_json::json;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A model and its tokenizer, in files.
struct Files {
    _folder: tempfile::TempDir,
    model: PathBuf,
    tokenizer: PathBuf,
}

impl Files {
    fn new() -> Self {
        Self::of(96)
    }

    /// With a context of so many positions.
    fn of(seq_len: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (model, tokenizer) = (folder.path().join("m.m"), folder.path().join("m.t"));
        let header = dair_core::format::Header { seq_len, ..preset("tiny-llama").unwrap() };
        write_model(&model, &header, 5).unwrap();
        std::fs::write(&tokenizer, tokenizer_bytes(header.vocab_size)).unwrap();
        Self { _folder: folder, model, tokenizer }
    }
}

/// What the number `seed` asks for: prompts some of which begin alike, and all ways to choose.
fn question(seed: u32) -> (Vec<u32>, Choice, u32, Vec<String>) {
    let mut prompt: Vec<u32> = (0..10 + seed % 3 * 9).map(|at| (at * 7 + seed % 4) % 250).collect();
    prompt.extend((0..seed % 11 + 1).map(|at| (at * 31 + seed) % 250));
    let filters = match seed % 5 {
        0 => Filters { top_k: 7, ..Filters::OFF },
        1 => Filters { repeat_penalty: 1.3, presence_penalty: 0.2, last_n: 64, ..Filters::OFF },
        _ => Filters::OFF,
    };
    let (temperature, top_p) = ([0.0, 0.7, 1.3][seed as usize % 3], [0.9, 1.0][seed as usize % 2]);
    let sampler = Sampler::new(temperature, top_p, seed.into()).unwrap().with(filters);
    let bias = if seed.is_multiple_of(7) { vec![(65, 4.0), (66, -100.0)] } else { Vec::new() };
    let logprobs = (seed % 4 == 1).then_some(seed % 6);
    let stop = if seed % 6 == 2 { vec!["a".to_owned(), "zz".to_owned()] } else { Vec::new() };
    (prompt, Choice { sampler, bias, logprobs, constraint: None }, 3 + seed % 23, stop)
}

fn ask(seed: u32, patience: Duration) -> (Ask, UnboundedReceiver<Event>) {
    let (prompt, choice, max_tokens, stop) = question(seed);
    let (listener, heard) = unbounded_channel();
    let (client, deadline) = (format!("client {}", seed % 3), Instant::now() + patience);
    (
        Ask {
            prompt,
            max_tokens,
            choice,
            stop,
            ignore_eos: false,
            deadline,
            client,
            listener,
            ticket: None,
            timeline: Timeline::begin("test", 0),
        },
        heard,
    )
}

const LONG: Duration = Duration::from_secs(600);

/// What was said.
#[derive(Debug, PartialEq)]
struct Said {
    tokens: Vec<Token>,
    why: Why,
    drawn: u32,
}

/// What was heard so far, to its end.
fn said(mut heard: UnboundedReceiver<Event>) -> Said {
    let mut tokens = Vec::new();
    loop {
        match heard.try_recv().unwrap() {
            Event::Begun { .. } => {}
            Event::Token(token) => tokens.push(token),
            Event::Ended(ended) => return Said { tokens, why: ended.why, drawn: ended.drawn },
            Event::Failed(failed) => panic!("{failed}"),
        }
    }
}

/// Runs an engine with so many places over what `body` asks for; it ends when all is answered.
fn run<R>(
    files: &Files,
    options: &Options,
    progress: &(dyn Fn(Stage<'_>) + Sync),
    body: impl FnOnce(Sender<Ask>) -> R,
) -> (R, Arc<Figures>) {
    run_with(files, options, Speculation::off(), progress, body)
}

/// The same with guessed tokens.
fn run_with<R>(
    files: &Files,
    options: &Options,
    speculation: Speculation<'_>,
    progress: &(dyn Fn(Stage<'_>) + Sync),
    body: impl FnOnce(Sender<Ask>) -> R,
) -> (R, Arc<Figures>) {
    let model = Model::open(&files.model).unwrap();
    let mut bytes = TokenizerBytes::open(&files.tokenizer).unwrap();
    let tokenizer = bytes.tokenizer(None).unwrap();
    let vocab: &Vocabulary<'_> = tokenizer.vocabulary();
    let figures = Arc::new(Figures::new());
    let result = with_root(&model, options, progress, |root| {
        let (sender, asks) = channel();
        let result = body(sender);
        Engine::new(root, vocab, Arc::clone(&figures))?.with(speculation).run(&asks, || false);
        Ok::<_, RootError>(result)
    });
    (result.unwrap(), figures)
}

fn answers(files: &Files, options: &Options, seeds: impl Iterator<Item = u32>) -> Vec<Said> {
    answers_with(files, options, Speculation::off(), seeds).0
}

fn answers_with(
    files: &Files,
    options: &Options,
    speculation: Speculation<'_>,
    seeds: impl Iterator<Item = u32>,
) -> (Vec<Said>, Arc<Figures>) {
    let seeds: Vec<u32> = seeds.collect();
    let (heard, figures) = run_with(files, options, speculation, &|_| (), |sender| {
        let (asks, heard): (Vec<_>, Vec<_>) = seeds.iter().map(|seed| ask(*seed, LONG)).unzip();
        asks.into_iter().for_each(|ask| sender.send(ask).unwrap());
        heard
    });
    assert_eq!(figures.json()["requests"]["served"], seeds.len());
    (heard.into_iter().map(said).collect(), figures)
}

fn alone(files: &Files, seeds: impl Iterator<Item = u32>) -> Vec<Said> {
    // One place, and nobody else: what is reused is what the last one left.
    answers(files, &Options::alone(1), seeds)
}

#[test]
fn an_answer_is_the_same_alone_and_among_others() {
    let files = Files::new();
    let want = alone(&files, 0..200);
    for slots in [2, 7] {
        let options = Options { slots, ..Options::alone(2) };
        assert_eq!(answers(&files, &options, 0..200), want, "{slots} at a time");
    }
    // Another order, in which others share a beginning.
    let mut back = answers(&files, &Options { slots: 3, ..Options::alone(1) }, (0..200).rev());
    back.reverse();
    assert_eq!(back, want);
    // Each by itself, with nothing in the cache.
    for seed in [0, 1, 2, 57, 133] {
        assert_eq!(alone(&files, seed..=seed)[0], want[seed as usize]);
    }
    let whys = |why| want.iter().filter(|said| said.why == why).count();
    assert!(whys(Why::Stop) > 5 && whys(Why::Length) > 5, "both ways to end were there");
}

/// An answer that is alone, from its beginning or after others have left, has tokens guessed: here by the model itself, which is right
/// where the most probable token is drawn.
#[test]
fn guessed_tokens_change_no_answer() {
    let files = Files::new();
    let want = alone(&files, 0..200);
    let model = Model::open(&files.model).unwrap();
    for slots in [1, 2] {
        let guessed = with_root(&model, &Options::alone(1), &|_| (), |draft| {
            draft.session()?;
            let proposers: Vec<Box<dyn Proposer + '_>> = vec![Box::new(Draft::new(draft, model.header().vocab_size))];
            let guesses = Speculation::new(Amount::Fixed(5), proposers);
            Ok::<_, RootError>(answers_with(&files, &Options { slots, ..Options::alone(1) }, guesses, 0..200))
        });
        let (got, figures) = guessed.unwrap();
        assert_eq!(got, want, "{slots} at a time");
        let tokens = &figures.json()["tokens"];
        let count = |name| tokens[name].as_u64().unwrap();
        let (guessed, right) = (count("guessed"), count("guessed_right"));
        // Of two at a time, one may be alone now and then.
        assert!(slots == 2 || (right > 0 && right < guessed), "both happened: {tokens}");
        assert_eq!(count("completion"), want.iter().map(|said| u64::from(said.drawn)).sum::<u64>());
    }
}

/// Workers may be lost in the middle of all that.
#[test]
fn an_answer_is_the_same_with_workers_and_where_one_is_lost() {
    let files = Files::new();
    let want = alone(&files, 0..60);
    let worker = || {
        let own = vec![OwnModel::open(&files.model).unwrap()];
        Worker::with_models(own, PATIENT, 1, KvType::default(), u64::MAX)
    };
    let relays = [(); 2].map(|()| Arc::new(Relay::to(&worker().as_address())));
    let workers = relays.iter().map(|relay| relay.address.clone()).collect();
    let wish = Wish::Given(vec![Share::EQUAL; 3], Vec::new());
    let options = Options { workers, wish, timeouts: PATIENT, slots: 4, ..Options::alone(1) };
    let lost = Mutex::new(Vec::new());
    let hear = |stage: Stage<'_>| {
        if let Stage::Lost(why) = stage {
            lost.lock().unwrap().push(why.to_owned());
        }
    };
    let guesses = Speculation::new(Amount::Fixed(3), vec![Box::new(Lookup::new())]);
    let (heard, _) = run_with(&files, &options, guesses, &hear, |sender| {
        let (asks, mut heard): (Vec<_>, Vec<_>) = (0..60).map(|seed| ask(seed, LONG)).unzip();
        asks.into_iter().for_each(|ask| sender.send(ask).unwrap());
        // When the first answer is there, others are in progress.
        let (mut first, relay) = (heard.remove(0), Arc::clone(&relays[1]));
        thread::spawn(move || {
            while first.blocking_recv().is_some_and(|event| !matches!(event, Event::Ended(_))) {}
            relay.end();
        });
        heard
    });
    let got: Vec<Said> = heard.into_iter().map(said).collect();
    assert_eq!(got, want[1..]);
    assert_eq!(lost.lock().unwrap().len(), 1, "{lost:?}");
}

/// Their dialect has no word for whose a pass is.
#[test]
fn with_workers_of_the_other_dialect_answers_come_one_after_the_other() {
    let files = Files::new();
    let all = || {
        let workers = vec![Worker::patient().as_address()];
        let options = Options { workers, dialect: Dialect::Dllama, timeouts: PATIENT, slots: 4, ..Options::alone(1) };
        let (heard, figures) = run(&files, &options, &|_| (), |sender| {
            let (asks, heard): (Vec<_>, Vec<_>) = (0..8).map(|seed| ask(seed, LONG)).unzip();
            asks.into_iter().for_each(|ask| sender.send(ask).unwrap());
            heard
        });
        assert_eq!(figures.slots(), 1);
        heard.into_iter().map(said).collect::<Vec<_>>()
    };
    assert_eq!(all(), all());
}

#[test]
fn who_goes_away_is_not_computed_for_and_who_is_late_is_told_so() {
    let files = Files::new();
    let (mut heard, figures) = run(&files, &Options { slots: 2, ..Options::alone(1) }, &|_| (), |sender| {
        let mut kept = Vec::new();
        for seed in 0..12 {
            let (ask, heard) = ask(seed, if seed == 3 { Duration::ZERO } else { LONG });
            sender.send(ask).unwrap();
            if seed % 2 == 1 {
                kept.push((seed, heard));
            }
        }
        kept
    });
    let (seed, mut late) = heard.remove(1);
    assert_eq!((seed, late.try_recv()), (3, Ok(Event::Failed(Failed::Late))));
    let want = alone(&files, 0..12);
    for (seed, heard) in heard {
        assert_eq!(said(heard), want[seed as usize]);
    }
    let requests = &figures.json()["requests"];
    assert_eq!((&requests["cancelled"], &requests["served"], &requests["failed"]), (&6.into(), &5.into(), &1.into()));
    assert_eq!((&requests["running"], &requests["waiting"]), (&0.into(), &0.into()));
}

#[test]
fn a_server_that_ends_finishes_what_it_is_at_and_turns_the_others_away() {
    let files = Files::new();
    let model = Model::open(&files.model).unwrap();
    let mut bytes = TokenizerBytes::open(&files.tokenizer).unwrap();
    let tokenizer = bytes.tokenizer(None).unwrap();
    let heard = with_root(&model, &Options::alone(1), &|_| (), |root| {
        let (sender, asks) = channel();
        let (all, heard): (Vec<_>, Vec<_>) = (0..3).map(|seed| ask(seed, LONG)).unzip();
        all.into_iter().for_each(|ask| sender.send(ask).unwrap());
        let looks = std::cell::Cell::new(0);
        let is_over = || {
            looks.set(looks.get() + 1);
            // It is told so when the first one has a place.
            looks.get() > 1
        };
        Engine::new(root, tokenizer.vocabulary(), Arc::new(Figures::new()))?.run(&asks, is_over);
        Ok::<_, RootError>(heard)
    });
    let mut heard = heard.unwrap().into_iter();
    assert_eq!(said(heard.next().unwrap()), alone(&files, 0..1)[0]);
    for mut turned_away in heard {
        assert_eq!(turned_away.try_recv(), Ok(Event::Failed(Failed::Ending)));
    }
}

/// Answers in a form are that, whatever the model wants to say: this one wants anything.
#[test]
fn a_thousand_answers_have_the_form_that_was_asked_for() {
    let files = Files::of(512);
    let bytes = Box::leak(Box::new(TokenizerBytes::open(&files.tokenizer).unwrap()));
    let tokenizer: &'static Tokenizer<'static> = Box::leak(Box::new(bytes.tokenizer(None).unwrap()));
    let forms = Forms::new(tokenizer).unwrap();
    let (name, age) =
        (json!({"type": "string", "maxLength": 12}), json!({"type": "integer", "minimum": 0, "maximum": 150}));
    let schemas = [
        json!({"type": "object", "properties": {"name": name, "age": age}, "required": ["name", "age"], "additionalProperties": false}),
        json!({"type": "array", "items": {"enum": ["red", "green", 7, null, false]}, "minItems": 1, "maxItems": 5}),
        json!({"$defs": {"node": {"type": "object", "properties": {"value": age, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]}},
            "required": ["value", "next"], "additionalProperties": false}, "leaf": {"type": "object", "properties": {"value": age},
            "required": ["value"], "additionalProperties": false}}, "$ref": "#/$defs/node"}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"}),
        json!({"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}, "ok": {"type": "boolean"}},
            "required": ["at", "ok"], "additionalProperties": false}),
    ];
    let constraints: Vec<_> =
        schemas.iter().map(|schema| forms.read(&Form::Schema(schema.clone()), None).unwrap()).collect();
    let validators: Vec<_> = schemas.iter().map(|schema| jsonschema::validator_for(schema).unwrap()).collect();
    let (heard, _) = run(&files, &Options { slots: 8, ..Options::alone(2) }, &|_| (), |sender| {
        let one = |seed: u32| {
            let (mut ask, heard) = ask(seed, LONG);
            // Some choose the most probable token, which is often the same again and again: no blank ends a form.
            ask.choice.sampler =
                Sampler::new([1.0, 0.6, 0.0][seed as usize % 3], [1.0, 0.9][seed as usize % 2], seed.into()).unwrap();
            ask.choice.bias.clear();
            ask.choice.constraint = Some(constraints[seed as usize % constraints.len()].clone());
            (ask.max_tokens, ask.stop) = (400, Vec::new());
            sender.send(ask).unwrap();
            heard
        };
        (0..1000).map(one).collect::<Vec<_>>()
    });
    for (seed, heard) in heard.into_iter().enumerate() {
        let said = said(heard);
        let text: String = said.tokens.iter().map(|token| &token.text[..]).collect();
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{seed}: {text:?}: {error}"));
        assert!(said.why == Why::Stop && validators[seed % schemas.len()].is_valid(&value), "{seed}: {text}");
    }
}
