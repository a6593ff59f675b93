//! `dair generate`: continues a prompt, or answers one question.

use super::chat::AnswerStream;
use super::model_args::ModelArgs;
use super::model_files::note_rule;
use super::report::Report;
use super::sample_args::SampleArgs;
use super::speculate_args::SpeculateArgs;
use super::stream::Stream;
use super::template_args::TemplateArgs;
use super::text_args::TextArgs;
use super::{Failure, interrupt, progress};
use crate::chat::conversation::Piece;
use crate::chat::generate::{Answer, Event, Finish, Generator, Request};
use crate::chat::tokenizer::TokenizerBytes;
use crate::cluster::root::Root;
use crate::machine::terminal;
use crate::model::Model;
use dair_core::text::EncodeOptions;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  dair generate --model smollm2.m 'Once upon a time' --max-tokens 64
  dair generate --model smollm2.m --chat --prompt 'What is the capital of France?' --temperature 0
  dair generate --model smollm2.m --file story.txt --json | jq .decode.tokens_per_second
  git diff | dair generate --model smollm2.m --chat --prompt 'Describe this change:'
  dair generate --model smollm2.m --prompt Hello --workers 10.0.0.2:9990 10.0.0.3:9990";

/// Continue a prompt, or answer one question.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    text: TextArgs,
    /// Take the text as a question to the model: put it into the model's chat template
    #[arg(long)]
    chat: bool,
    /// Instructions that stand above the question
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Most tokens to generate
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: u32,
    /// Go on when the model says that it is done
    #[arg(long)]
    ignore_eos: bool,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    speculate: SpeculateArgs,
    /// Print text and figures as one JSON object at the end
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print the text and nothing else
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let start = Instant::now();
    let (quiet, words) = (args.quiet || args.json, progress::Words::of(args.quiet, args.json));
    let (sampler, seed) = args.sample.sampler()?;
    let text = args.text.read(quiet)?;
    let files = args.model.files(args.quiet)?;
    let model = Model::open(&files.model)?;
    let mut tokenizer = TokenizerBytes::open(&files.tokenizer)?;
    let tokenizer = tokenizer.tokenizer(Some(model.header().vocab_size))?;
    note_rule(&tokenizer, &files.tokenizer, args.quiet);
    let vocab = tokenizer.vocabulary();
    let speculator = args.speculate.open(&args.model, &model, vocab, args.max_tokens, args.quiet)?;
    if args.chat {
        let mut conversation = args.template.conversation(vocab, args.system.clone(), args.quiet)?;
        conversation.set_ignore_eos(args.ignore_eos);
        conversation.messages_mut().push_question(&text);
        let tokens = tokenizer.encode_rendered(&conversation.render(&tokenizer)?)?;
        args.model.check_fits(&model, "prompt", tokens.len())?;
        return args.model.with_root(&model, args.max_tokens, words, |root| {
            speculator.with(root.pool(), |speculation| {
                let load = start.elapsed();
                let mut generator = Generator::new(vocab, sampler, args.sample.stop.clone()).with(speculation);
                let mut stream = AnswerStream::new(args.json);
                let line = PromptLine::new(quiet, tokens.len());
                let turn = conversation.answer(root, &mut generator, &tokenizer, args.max_tokens, |piece| {
                    match piece {
                        Piece::Prompt(done, _) => line.show(done),
                        Piece::Reasoning(_) | Piece::Answer(_) => line.hear(true),
                    }
                    stream.show(piece)
                });
                line.hear(true);
                stream.finish(turn.is_err())?;
                let turn = turn?;
                let text = (&turn.text[..], turn.reasoning.as_deref());
                report(args, root, (load, seed), (&turn.answer, generator.sampled()), text)
            })
        });
    }
    args.template.refuse()?;
    let tokens = tokenizer.encode(text.as_bytes(), EncodeOptions { start: true, special: true })?;
    args.model.check_fits(&model, "prompt", tokens.len())?;
    args.model.with_root(&model, args.max_tokens, words, |root| {
        speculator.with(root.pool(), |speculation| {
            let load = start.elapsed();
            let mut generator = Generator::new(vocab, sampler, args.sample.stop.clone()).with(speculation);
            let mut stream = Stream::new(args.json);
            let request =
                Request { prompt: &tokens, position: 0, max_tokens: args.max_tokens, ignore_eos: args.ignore_eos };
            let line = PromptLine::new(quiet, tokens.len());
            let answer = generator.run(root, request, |event| {
                if let Event::Prompt(done, _) = event {
                    line.show(done);
                }
                line.hear(matches!(event, Event::Text(_)));
                stream.event(event)
            });
            line.hear(true);
            let text = stream.finish(answer.is_err())?;
            report(args, root, (load, seed), (&answer?, generator.sampled()), (&text, None))
        })
    })
}

/// The progress of a prompt, until there is a text.
struct PromptLine {
    bar: indicatif::ProgressBar,
    is_over: std::cell::Cell<bool>,
}

impl PromptLine {
    fn new(hidden: bool, tokens: usize) -> Self {
        Self { bar: progress::prompt(hidden, tokens), is_over: false.into() }
    }

    fn show(&self, done: u32) {
        self.bar.set_position(done.into());
    }

    /// Hears whether there is a text. Until then Ctrl-C ends everything at once; from then on the text gets an end.
    fn hear(&self, is_text: bool) {
        if is_text && !self.is_over.replace(true) {
            self.bar.finish_and_clear();
            interrupt::catch();
        }
    }
}

/// What is said after an answer.
fn report(
    args: &Args,
    root: &Root<'_>,
    (load, seed): (Duration, u64),
    (answer, ids): (&Answer, &[u32]),
    (text, reasoning): (&str, Option<&str>),
) -> Result<(), Failure> {
    let report = Report {
        load,
        seed,
        repack: root.repack_time(),
        answer,
        predicted: root.predicted(),
        rests: root.rests(),
        network: root.traffic(),
        streaming: root.reading().zip(root.streaming().copied()),
    };
    if args.json {
        let mut report = report.json(text);
        report["ids"] = ids.into();
        if let Some(reasoning) = reasoning {
            report["reasoning"] = reasoning.into();
        }
        terminal::print_line(report)?;
    } else if !args.quiet && answer.finish != Finish::Interrupted {
        report.print();
    }
    if answer.finish == Finish::Interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}
