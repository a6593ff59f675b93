//! `dair chat`: a conversation, on a terminal by a line editor, elsewhere a line is a question. The KV cache carries it,
//! so each turn feeds only what is new.
//!
//! [`input`] reads, on a terminal by [`editor`] ([`keys`], [`paste`], [`tty`]); [`command`] tells questions from commands; [`session`]
//! acts on both, asks who answers ([`answerer`]: [`local`]), shows the [`answer`], and lets [`keep`] write the conversation to the user's state [`folder`], in the
//! format of [`save`].

mod answer;
mod answerer;
mod command;
mod editor;
mod folder;
mod input;
mod keep;
mod keys;
mod local;
mod paste;
mod save;
mod session;
mod tally;
mod tty;

pub use answer::AnswerStream;
use answerer::Answerer;

use super::Failure;
use super::model_args::ModelArgs;
use super::model_files::note_rule;
use super::sample_args::SampleArgs;
use super::speculate_args::SpeculateArgs;
use super::template_args::TemplateArgs;
use crate::chat::conversation::Messages;
use crate::chat::generate::Generator;
use crate::chat::tokenizer::TokenizerBytes;
use crate::model::Model;
use input::Source;
use keep::Keeper;
use local::Local;
use save::SavedChat;
use session::Session;
use std::path::PathBuf;
use std::time::Instant;
use tally::Tally;

const EXAMPLES: &str = "\
On a terminal: Ctrl-C ends an answer, Ctrl-D the chat, /help lists what else goes. A pasted text is one question.
From a pipe: a line is a question.

The conversation is kept in ~/.local/state/dair (or $XDG_STATE_HOME/dair), readable for you alone.

Examples:
  dair chat --model smollm2.m
  dair chat --model smollm2.m 'What is the capital of France?'
  dair chat --model smollm2.m --resume
  dair chat --model smollm2.m --system 'Answer like a pirate.' --temperature 0.7
  printf 'Name a fruit.\\nAnother one.\\n' | dair chat --model smollm2.m --quiet";

/// Talk to a model.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// First question
    question: Option<String>,
    /// Instructions that stand above the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of one answer [default: as many as the context holds]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<u32>,
    #[command(flatten)]
    template: TemplateArgs,
    /// Go on with the last conversation
    #[arg(long)]
    resume: bool,
    /// Go on with a conversation that /save wrote
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    load: Option<PathBuf>,
    /// When the context is full: drop the oldest turns, or stop [default: ask on a terminal, elsewhere stop]
    #[arg(long, value_enum, value_name = "WHAT")]
    context_full: Option<ContextFull>,
    /// Leave nothing on disk: neither the conversation nor the lines typed
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    speculate: SpeculateArgs,
    /// Print each answer and its figures as one JSON object on a line
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print the answers and nothing else
    #[arg(short, long)]
    quiet: bool,
}

/// What `--context-full` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ContextFull {
    /// Go on with the oldest turns dropped; the system message stays
    Drop,
    /// Answer no question that does not fit
    Stop,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let start = Instant::now();
    let loaded = args.loaded()?;
    let (sampler, seed) = args.sample.sampler()?;
    let files = args.model.files(args.quiet)?;
    let model = Model::open(&files.model)?;
    let mut tokenizer = TokenizerBytes::open(&files.tokenizer)?;
    let tokenizer = tokenizer.tokenizer(Some(model.header().vocab_size))?;
    note_rule(&tokenizer, &files.tokenizer, args.quiet);
    let vocab = tokenizer.vocabulary();
    let speculator = args.speculate.open(&args.model, &model, vocab, u32::MAX, args.quiet)?;
    let mut conversation = args.template.conversation(vocab, None, args.quiet)?;
    args.set_out(conversation.messages_mut(), loaded);
    // From here on what is typed waits for the first question.
    let mut source = Source::new(args.json, !args.no_history);
    args.model.with_root(&model, u32::MAX, super::progress::Words::of(args.quiet, args.json), |root| {
        speculator.with(root.pool(), |speculation| {
            let local = Local {
                root,
                tokenizer: &tokenizer,
                generator: Generator::new(vocab, sampler, args.sample.stop.clone()).with(speculation),
                conversation,
                model: args.model.model.file_name().unwrap_or_default().to_string_lossy().into(),
                sample: &args.sample,
                seed,
                max_tokens: args.max_tokens.unwrap_or(u32::MAX),
                load: start.elapsed(),
                before: None,
            };
            args.session(local).run(&mut source)
        })
    })
}

impl Args {
    /// The conversation to go on with.
    fn loaded(&self) -> Result<Option<SavedChat>, String> {
        let path = if self.resume { Some(keep::last(folder::chats())?) } else { self.load.clone() };
        path.map(|path| SavedChat::read(&path)).transpose()
    }

    /// What stands at the beginning of the conversation.
    fn set_out(&self, messages: &mut Messages, loaded: Option<SavedChat>) {
        if let Some(chat) = loaded {
            messages.restore(chat.messages);
        }
        if self.system.is_some() {
            messages.set_system(self.system.clone());
        }
    }

    /// A chat with whoever answers.
    fn session<A: Answerer>(&self, answerer: A) -> Session<'_, A> {
        Session {
            args: self,
            answerer,
            keeper: Keeper::new(if self.no_history { None } else { folder::chats() }),
            context_full: self.context_full,
            is_full: false,
            lost: None,
            tally: Tally::default(),
        }
    }
}
