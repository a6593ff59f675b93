//! `dair chat`: a conversation on the terminal. The KV cache carries it, so each turn feeds only what is new.

use super::model_args::{ModelArgs, SampleArgs};
use super::report::Report;
use super::stream::Stream;
use super::{Failure, interrupt};
use crate::chat::generate::{Answer, Finish, GenerateError, Generator, Request};
use crate::chat::tokenizer::{Tokenizer, encode};
use crate::cluster::root::Root;
use crate::machine::terminal;
use crate::model::Model;
use console::style;
use dair_core::text::{ChatFormat, ChatTemplate, EncodeOptions, Message, Role, Vocabulary};
use std::io::{BufRead, IsTerminal};
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
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<u32>,
    /// How messages are laid out [default: recognised from the tokenizer file]
    #[arg(long, value_name = "NAME", value_parser = parse_format)]
    template: Option<ChatFormat>,
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

fn parse_format(name: &str) -> Result<ChatFormat, String> {
    let names = || ChatFormat::ALL.map(ChatFormat::name).join(", ");
    ChatFormat::from_name(name).ok_or_else(|| format!("known templates: {}", names()))
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
    let template = ChatTemplate::new(&vocab, args.template)?;
    args.model.with_root(&model, u32::MAX, args.quiet || args.json, |root| {
        let generator = Generator::new(&vocab, sampler);
        let mut chat = Chat { args, vocab: &vocab, template, generator, turns: 0, position: 0, pending: None };
        chat.converse(root, start.elapsed())
    })
}

struct Chat<'c> {
    args: &'c Args,
    vocab: &'c Vocabulary<'c>,
    template: ChatTemplate<'c>,
    generator: Generator<'c>,
    turns: u32,
    position: u32,
    /// Sampled, but not fed before the last answer was cut short.
    pending: Option<u32>,
}

impl Chat<'_> {
    fn converse(&mut self, root: &mut Root<'_>, load: Duration) -> Result<(), Failure> {
        let terminal = std::io::stdin().is_terminal() && !self.args.json && !self.args.quiet;
        if terminal {
            let hint = format!("{} positions of context; /clear, /exit, Ctrl-C ends an answer", root.seq_len());
            terminal::note(style(hint).for_stderr().dim());
        }
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if terminal {
                terminal::note_text(format_args!("{} ", style(">").for_stderr().cyan().bold()));
            }
            let Some(line) = lines.next() else { break };
            let line = line.map_err(|error| format!("cannot read the question: {error}"))?;
            match line.trim() {
                "" => continue,
                "/exit" => break,
                "/clear" => {
                    (self.turns, self.position, self.pending) = (0, 0, None);
                    continue;
                }
                user => {
                    let network = root.network_bytes();
                    match self.turn(root, user) {
                        Ok((text, answer)) => self.show(root, load, network, &text, &answer)?,
                        Err(Failure::Generate(GenerateError::PromptTooLong { positions, seq_len })) => {
                            let full =
                                format!("the conversation needs {positions} positions; the context holds {seq_len}");
                            if !terminal {
                                return Err(format!("{full}: raise --max-seq-len").into());
                            }
                            terminal::note(format_args!("{full}: /clear starts anew"));
                        }
                        Err(failure) => return Err(failure),
                    }
                }
            }
        }
        if terminal {
            terminal::note("");
        }
        Ok(())
    }

    /// Feeds what is new and streams the answer.
    fn turn(&mut self, root: &mut Root<'_>, user: &str) -> Result<(String, Answer), Failure> {
        let prompt = self.prompt(user)?;
        let mut stream = Stream::new(self.args.json);
        interrupt::catch();
        let _ = stream.show(self.template.answer_prefix());
        let max_tokens = self.args.max_tokens.unwrap_or(u32::MAX);
        let request = Request { prompt: &prompt, position: self.position, max_tokens, ignore_eos: false };
        let answer = self.generator.run(root, request, |piece| stream.show(piece));
        interrupt::release();
        let text = stream.finish(answer.is_err())?;
        let answer = answer?;
        self.turns += 1;
        self.position = answer.position;
        self.pending = answer.pending;
        Ok((text, answer))
    }

    /// The tokens that the cache does not have yet.
    fn prompt(&self, user: &str) -> Result<Vec<u32>, Failure> {
        let user = Message { role: Role::User, text: user };
        let first = self.turns == 0;
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = match (first, self.args.system.as_deref()) {
            (true, Some(system)) => {
                self.template.render(&[Message { role: Role::System, text: system }, user], &mut text)
            }
            (true, None) => self.template.render(&[user], &mut text),
            (false, _) => self.template.render_next(&[user], &mut text),
        };
        let tokens = encode(self.vocab, &text, EncodeOptions { start: first, special: true })?;
        Ok(self.pending.into_iter().chain(tokens).collect())
    }

    fn show(
        &self,
        root: &Root<'_>,
        load: Duration,
        before: Option<(u64, u64)>,
        text: &str,
        answer: &Answer,
    ) -> Result<(), Failure> {
        let since = |(sent, received): (u64, u64), (s, r): (u64, u64)| (sent - s, received - r);
        let network = root.network_bytes().zip(before).map(|(now, before)| since(now, before));
        if self.args.json {
            let report = Report { load, repack: root.repack_time(), answer, network };
            return Ok(terminal::print_line(report.json(text))?);
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
            self.position,
            root.seq_len()
        );
        terminal::note(style(rates).for_stderr().dim());
        Ok(())
    }
}
