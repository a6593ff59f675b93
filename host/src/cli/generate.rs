//! `dair generate`: continues a prompt, or answers one question.

use super::model_args::{ModelArgs, SampleArgs, TextArgs};
use super::report::Report;
use super::stream::Stream;
use super::template_args::TemplateArgs;
use super::{Failure, interrupt};
use crate::chat::conversation::Conversation;
use crate::chat::generate::{Answer, GenerateError, Generator, Request};
use crate::chat::tokenizer::{Tokenizer, encode};
use crate::cluster::root::Root;
use crate::model::Model;
use dair_core::text::{EncodeOptions, Vocabulary};
use std::io::Write;
use std::time::Instant;

const EXAMPLES: &str = "\
Examples:
  dair generate --model smollm2.m --prompt 'Once upon a time' --max-tokens 64
  dair generate --model smollm2.m --chat --prompt 'What is the capital of France?' --temperature 0
  dair generate --model qwen3.m --chat --think off --prompt 'Name a fruit.'
  dair generate --model smollm2.m --file story.txt --json | jq .decode.tokens_per_second
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
    #[arg(long, value_name = "N", default_value_t = 256)]
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
    let sampler = args.sample.sampler()?;
    let text = args.text.read()?;
    let model = Model::open(&args.model.model)?;
    let mut tokenizer = Tokenizer::open(&args.model.tokenizer())?;
    let vocab = tokenizer.vocabulary(model.header().vocab_size)?;
    let mut source = Source::new(args, &vocab, &text)?;
    interrupt::catch();
    args.model.with_root(&model, args.max_tokens, |root| {
        let load = start.elapsed();
        let mut generator = Generator::new(&vocab, sampler);
        let mut stream = Stream::of_answer(args.json, args.quiet);
        let result = source.generate(args, root, &mut generator, &vocab, &mut stream);
        let text = stream.finish(result.is_err())?;
        let (answer, reasoning) = result?;
        let report = Report { load, repack: root.repack_time(), answer: &answer, network: root.network_bytes() };
        if args.json {
            writeln!(std::io::stdout().lock(), "{}", report.json(&text, reasoning.as_deref()))?;
        } else if !args.quiet {
            report.print();
        }
        Ok(())
    })
}

/// What is put before the model.
enum Source {
    /// A text, to be continued.
    Text(Vec<u32>),
    /// A conversation of one question.
    Question(Box<Conversation>),
}

impl Source {
    /// Encodes or lays out the text, so that what is wrong with it shows before anything is loaded.
    fn new(args: &Args, vocab: &Vocabulary<'_>, text: &str) -> Result<Self, Failure> {
        if !args.chat {
            args.template.refuse()?;
            return Ok(Self::Text(encode(vocab, text, EncodeOptions { start: true, special: true })?));
        }
        let mut conversation = args.template.conversation(vocab, args.system.clone(), args.quiet)?;
        conversation.set_ignore_eos(args.ignore_eos);
        conversation.push(text);
        conversation.prompt_len(vocab)?;
        Ok(Self::Question(Box::new(conversation)))
    }

    /// The answer, and the reasoning before it.
    fn generate<'v>(
        &mut self,
        args: &Args,
        root: &mut Root<'_>,
        generator: &mut Generator<'v>,
        vocab: &Vocabulary<'v>,
        stream: &mut Stream,
    ) -> Result<(Answer, Option<String>), GenerateError> {
        let (max_tokens, ignore_eos) = (args.max_tokens, args.ignore_eos);
        match self {
            Self::Text(prompt) => {
                let request = Request { prompt, position: 0, max_tokens, ignore_eos };
                Ok((generator.run(root, request, |piece| stream.show(piece))?, None))
            }
            Self::Question(conversation) => {
                let turn = conversation.answer(root, generator, vocab, max_tokens, |piece| stream.show_piece(piece))?;
                Ok((turn.answer, turn.reasoning))
            }
        }
    }
}
