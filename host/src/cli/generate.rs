//! `dair generate`: continues a prompt, or answers one question.

use super::model_args::{ModelArgs, SampleArgs};
use super::report::Report;
use super::stream::Stream;
use super::text_args::TextArgs;
use super::{Failure, interrupt, progress};
use crate::chat::generate::{Finish, Generator, Request};
use crate::chat::tokenizer::{Tokenizer, encode};
use crate::machine::terminal;
use crate::model::Model;
use dair_core::text::{ChatTemplate, EncodeOptions, Message, Role};
use std::time::Instant;

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
    model: ModelArgs,
    #[command(flatten)]
    sample: SampleArgs,
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
    let quiet = args.quiet || args.json;
    let sampler = args.sample.sampler()?;
    let text = args.text.read(quiet)?;
    let model = Model::open(&args.model.model)?;
    let mut tokenizer = Tokenizer::open(&args.model.tokenizer())?;
    let vocab = tokenizer.vocabulary(model.header().vocab_size)?;
    let text =
        if args.chat { question(&ChatTemplate::new(&vocab, None)?, args.system.as_deref(), &text) } else { text };
    let tokens = encode(&vocab, &text, EncodeOptions { start: true, special: true })?;
    args.model.check_fits(&model, "prompt", tokens.len())?;
    args.model.with_root(&model, args.max_tokens, quiet, |root| {
        let load = start.elapsed();
        let mut generator = Generator::new(&vocab, sampler);
        let mut stream = Stream::new(args.json);
        let request =
            Request { prompt: &tokens, position: 0, max_tokens: args.max_tokens, ignore_eos: args.ignore_eos };
        let bar = progress::prompt(quiet, tokens.len());
        let mut is_first = true;
        let answer = generator.run(root, request, |piece| {
            if std::mem::take(&mut is_first) {
                bar.finish_and_clear();
                // Until here Ctrl-C ends everything at once; now there is a text, which gets an end.
                interrupt::catch();
            }
            stream.show(piece)
        });
        bar.finish_and_clear();
        let text = stream.finish(answer.is_err())?;
        let answer = answer?;
        let report = Report { load, repack: root.repack_time(), answer: &answer, network: root.network_bytes() };
        let interrupted = answer.finish == Finish::Interrupted;
        if args.json {
            terminal::print_line(report.json(&text))?;
        } else if !args.quiet && !interrupted {
            report.print();
        }
        if interrupted { Err(Failure::Interrupted) } else { Ok(()) }
    })
}

/// The text of a conversation of one question.
fn question(template: &ChatTemplate<'_>, system: Option<&str>, user: &str) -> String {
    let messages: Vec<Message<'_>> = system
        .map(|text| Message { role: Role::System, text })
        .into_iter()
        .chain([Message { role: Role::User, text: user }])
        .collect();
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = template.render(&messages, &mut text);
    text
}
