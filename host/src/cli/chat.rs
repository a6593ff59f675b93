//! `dair chat`: a conversation on the terminal. The KV cache carries it, so each turn feeds only what is new.

use super::model_args::{ModelArgs, SampleArgs};
use super::report::Report;
use super::stream::Stream;
use super::template_args::TemplateArgs;
use super::{Failure, interrupt};
use crate::chat::conversation::{Conversation, Piece, Turn};
use crate::chat::generate::{Finish, GenerateError, Generator};
use crate::chat::tokenizer::Tokenizer;
use crate::cluster::root::Root;
use crate::model::Model;
use console::style;
use dair_core::text::Vocabulary;
use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
On a terminal: Ctrl-C ends an answer, Ctrl-D the chat; /clear forgets the conversation, /exit leaves.

Examples:
  dair chat --model smollm2.m
  dair chat --model smollm2.m --system 'Answer like a pirate.' --temperature 0.7
  printf 'Name a fruit.\\nAnother one.\\n' | dair chat --model smollm2.m --quiet";

/// Talk to a model.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Instructions that stand above the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of one answer [default: as many as the context holds]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sample: SampleArgs,
    /// Print each answer and its figures as one JSON object on a line
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print the answers and nothing else
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
    let model = Model::open(&args.model.model)?;
    let mut tokenizer = Tokenizer::open(&args.model.tokenizer())?;
    let vocab = tokenizer.vocabulary(model.header().vocab_size)?;
    let conversation = args.template.conversation(&vocab, args.system.clone(), args.quiet)?;
    args.model.with_root(&model, u32::MAX, |root| {
        let generator = Generator::new(&vocab, sampler);
        let mut chat = Chat { args, vocab: &vocab, conversation, generator };
        chat.converse(root, start.elapsed())
    })
}

struct Chat<'c> {
    args: &'c Args,
    vocab: &'c Vocabulary<'c>,
    conversation: Conversation,
    generator: Generator<'c>,
}

impl Chat<'_> {
    fn converse(&mut self, root: &mut Root<'_>, load: Duration) -> Result<(), Failure> {
        let terminal = std::io::stdin().is_terminal() && !self.args.json && !self.args.quiet;
        if terminal {
            let hint = format!("{} positions of context; /clear, /exit, Ctrl-C ends an answer", root.seq_len());
            eprintln!("{}", style(hint).for_stderr().dim());
        }
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if terminal {
                eprint!("{} ", style(">").for_stderr().cyan().bold());
            }
            let Some(line) = lines.next() else { break };
            let line = line.map_err(|error| format!("cannot read the question: {error}"))?;
            match line.trim() {
                "" => continue,
                "/exit" => break,
                "/clear" => {
                    self.conversation.clear();
                    continue;
                }
                user => {
                    let network = root.network_bytes();
                    match self.turn(root, user) {
                        Ok(turn) => self.show(root, load, network, &turn)?,
                        Err(Failure::Generate(GenerateError::PromptTooLong { positions, seq_len })) => {
                            let full =
                                format!("the conversation needs {positions} positions; the context holds {seq_len}");
                            if !terminal {
                                return Err(format!("{full}: raise --max-seq-len").into());
                            }
                            self.conversation.pop_turn();
                            eprintln!("{full}: /clear starts anew");
                        }
                        Err(failure) => return Err(failure),
                    }
                }
            }
        }
        if terminal {
            eprintln!();
        }
        Ok(())
    }

    /// Asks and streams the answer.
    fn turn(&mut self, root: &mut Root<'_>, user: &str) -> Result<Turn, Failure> {
        let mut stream = Stream::of_answer(self.args.json, self.args.quiet);
        interrupt::catch();
        let max_tokens = self.args.max_tokens.unwrap_or(u32::MAX);
        let show = |piece: Piece<'_>| stream.show_piece(piece);
        let turn = self.conversation.ask(root, &mut self.generator, self.vocab, user, max_tokens, show);
        interrupt::release();
        stream.finish(turn.is_err())?;
        Ok(turn?)
    }

    fn show(&self, root: &Root<'_>, load: Duration, before: Option<(u64, u64)>, turn: &Turn) -> Result<(), Failure> {
        let since = |(sent, received): (u64, u64), (s, r): (u64, u64)| (sent - s, received - r);
        let network = root.network_bytes().zip(before).map(|(now, before)| since(now, before));
        let answer = &turn.answer;
        if self.args.json {
            let report = Report { load, repack: root.repack_time(), answer, network };
            writeln!(std::io::stdout().lock(), "{}", report.json(&turn.text, turn.reasoning.as_deref()))?;
            return Ok(());
        }
        if self.args.quiet {
            return Ok(());
        }
        let note = match answer.finish {
            Finish::Context => ", the context is full: /clear starts anew",
            Finish::Interrupted => ", interrupted",
            Finish::MaxTokens => ", cut at --max-tokens",
            Finish::Stop => "",
        };
        let rates = format!(
            "prefill {:.1}, decode {:.1} tokens/s; {} of {} positions{note}",
            answer.prefill.rate(),
            answer.decode.rate(),
            self.conversation.position(),
            root.seq_len()
        );
        eprintln!("{}", style(rates).for_stderr().dim());
        Ok(())
    }
}
