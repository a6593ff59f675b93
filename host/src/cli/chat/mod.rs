//! `dair chat`: a conversation, on a terminal by a line editor, elsewhere a line is a question. The KV cache carries it,
//! so each turn feeds only what is new.
//!
//! [`input`] reads, on a terminal by [`editor`] ([`keys`], [`paste`], [`tty`]); [`command`] tells questions from commands; [`session`]
//! acts on both, asks who answers ([`answerer`]: [`local`] or [`remote`]), shows the [`answer`] ([`markdown`]), and lets [`keep`] write the conversation to the user's state [`folder`], in the
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
mod markdown;
mod paste;
mod remote;
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
use crate::client::{ApiKey, Server, ServerUrl, Trust};
use crate::model::Model;
use input::Source;
use keep::Keeper;
use local::Local;
use remote::Remote;
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
  dair chat --server http://10.0.0.2:8080
  dair chat --server https://box:8443 --ca box.pem
  printf 'Name a fruit.\\nAnother one.\\n' | dair chat --model smollm2.m --quiet";

/// Flags that go with a server; all others are about a model on this machine.
const WITH_SERVER: [&str; 25] = [
    "question",
    "system",
    "max_tokens",
    "think",
    "server",
    "name",
    "api_key_file",
    "ca",
    "resume",
    "load",
    "context_full",
    "no_history",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "plain",
    "json",
    "quiet",
];

/// A flag, as it goes with a server.
fn beside_server(flag: clap::Arg) -> clap::Arg {
    match flag.get_id().as_str() {
        id if WITH_SERVER.contains(&id) => flag,
        // One of the two must be there.
        "model" => flag.required(false),
        _ => flag.conflicts_with("server"),
    }
}

/// Talk to a model, on this machine or on a server.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_args = beside_server)]
#[command(group(clap::ArgGroup::new("who").args(["model", "server"]).required(true)))]
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
    /// Talk to a server: dair serve, or another one that speaks OpenAI's API
    #[arg(long, value_name = "URL", help_heading = "Server")]
    server: Option<ServerUrl>,
    /// Which of the server's models [default: the only one]
    #[arg(long, value_name = "NAME", conflicts_with = "model", help_heading = "Server")]
    name: Option<String>,
    /// File with the API key that the server wants [default: environment variable DAIR_API_KEY]
    #[arg(long, value_name = "FILE", conflicts_with = "model", help_heading = "Server")]
    api_key_file: Option<PathBuf>,
    /// Believe the certificates of this PEM file, or whom they sign, and no others [default: public authorities]
    #[arg(long, value_name = "FILE", conflicts_with = "model", help_heading = "Server")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    model: Option<ModelArgs>,
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    speculate: SpeculateArgs,
    /// Show Markdown as it is written, without styles; so does the environment variable NO_COLOR
    #[arg(long)]
    plain: bool,
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
    match (&args.server, &args.model) {
        (Some(url), _) => remote(args, url),
        (None, Some(model)) => local(args, model),
        (None, None) => Err(Failure::Usage("give --model FILE or --server URL".into())),
    }
}

/// A chat with a server.
fn remote(args: &Args, url: &ServerUrl) -> Result<(), Failure> {
    let loaded = args.loaded()?;
    let key = ApiKey::find(args.api_key_file.as_deref()).map_err(|error| error.to_string())?;
    let trust = Trust::find(url, args.ca.as_deref()).map_err(|error| error.to_string())?;
    let server = Server { url: url.clone(), key, trust };
    let mut messages = Messages::default();
    args.set_out(&mut messages, loaded);
    let remote = Remote {
        model: remote::Model::find(&server, args.name.as_deref())?,
        server,
        messages,
        sampling: args.sample.given(),
        max_tokens: args.max_tokens,
        think: args.template.think(),
        is_told: !args.quiet && !args.json,
        answers: 0,
        usage: None,
    };
    let mut source = Source::new(args.json, !args.no_history);
    args.session(remote).run(&mut source)
}

/// A chat with a model on this machine.
fn local(args: &Args, model_args: &ModelArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let loaded = args.loaded()?;
    let (sampler, seed) = args.sample.sampler()?;
    let files = model_args.files(args.quiet)?;
    let model = Model::open(&files.model)?;
    let mut tokenizer = TokenizerBytes::open(&files.tokenizer)?;
    let tokenizer = tokenizer.tokenizer(Some(model.header().vocab_size))?;
    note_rule(&tokenizer, &files.tokenizer, args.quiet);
    let vocab = tokenizer.vocabulary();
    let speculator = args.speculate.open(model_args, &model, vocab, u32::MAX, args.quiet)?;
    let mut conversation = args.template.conversation(vocab, None, args.quiet)?;
    args.set_out(conversation.messages_mut(), loaded);
    // From here on what is typed waits for the first question.
    let mut source = Source::new(args.json, !args.no_history);
    model_args.with_root(&model, u32::MAX, super::progress::Words::of(args.quiet, args.json), |root| {
        speculator.with(root.pool(), |speculation| {
            let local = Local {
                root,
                tokenizer: &tokenizer,
                generator: Generator::new(vocab, sampler, args.sample.stop.clone()).with(speculation),
                conversation,
                model: model_args.model.file_name().unwrap_or_default().to_string_lossy().into(),
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
