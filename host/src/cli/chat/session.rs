//! A chat as it goes: questions to the model, commands to the chat, and what is done where something is in the way.

use super::answer::AnswerStream;
use super::command::{self, Command, Input};
use super::input::{Line, Source};
use super::keep::Keeper;
use super::save::SavedChat;
use super::tally::Tally;
use super::{Args, ContextFull};
use crate::chat::conversation::{Conversation, Message, Piece, Role, Turn};
use crate::chat::generate::{Finish, GenerateError, Generator};
use crate::chat::tokenizer::Tokenizer;
use crate::cli::report::{Report, guesses};
use crate::cli::{Failure, interrupt, progress};
use crate::cluster::root::Root;
use crate::machine::terminal;
use crate::net::Traffic;
use console::style;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// While a long answer comes, what there is of it is kept this often.
const KEEP_EVERY: Duration = Duration::from_secs(2);

/// Where less is left of a prompt, its progress is not shown.
const LONG_PROMPT_TOKENS: u32 = 256;

/// A chat.
pub struct Session<'s> {
    /// What the user asked for.
    pub args: &'s Args,
    /// The model's tokens.
    pub tokenizer: &'s Tokenizer<'s>,
    /// Samples answers.
    pub generator: Generator<'s>,
    /// What was said.
    pub conversation: Conversation,
    /// Keeps it on disk.
    pub keeper: Keeper,
    /// Seed of the random numbers.
    pub seed: u64,
    /// From the start of the command to the first question.
    pub load: Duration,
    /// What is done when the context is full, as far as somebody has said so.
    pub context_full: Option<ContextFull>,
    /// The last answer was cut by the end of the context.
    pub is_full: bool,
    /// Why the last question was not answered.
    pub lost: Option<String>,
    /// Figures for `/stats`.
    pub tally: Tally,
}

impl Session<'_> {
    /// Answers until there are no more questions.
    ///
    /// # Errors
    /// What ends a chat early; says where the conversation is kept.
    pub fn run(&mut self, root: &mut Root<'_>, source: &mut Source) -> Result<(), Failure> {
        self.greet(root, source);
        let result = self.converse(root, source);
        let result = result.and_then(|()| self.lost.take().map_or(Ok(()), |why| Err(Failure::Line(why))));
        let Some(path) = self.keeper.path().map(Path::display) else { return result };
        match result {
            Ok(()) if source.is_person() => {
                self.say(format_args!("kept in {path}; dair chat --resume goes on"));
                Ok(())
            }
            Err(failure @ (Failure::Line(_) | Failure::Generate(_))) => {
                Err(Failure::Line(format!("{failure}; the conversation is kept in {path}: dair chat --resume goes on")))
            }
            other => other,
        }
    }

    fn greet(&self, root: &Root<'_>, source: &Source) {
        if source.is_person() {
            let turns = self.questions();
            let resumed = if turns > 0 { format!("{turns} questions so far; ") } else { String::new() };
            self.say(format_args!("{resumed}{} positions of context; /help lists what else goes", root.seq_len()));
            if self.conversation.unanswered().is_some() {
                self.say("the last question has no answer: /retry asks it again");
            }
        }
    }

    /// Says something that is not asked for.
    fn say(&self, line: impl std::fmt::Display) {
        if !self.args.quiet && !self.args.json {
            terminal::note(style(line).for_stderr().dim());
        }
    }

    fn converse(&mut self, root: &mut Root<'_>, source: &mut Source) -> Result<(), Failure> {
        if let Some(question) = &self.args.question {
            self.ask(root, source, Some(question))?;
        }
        loop {
            let line = source.read().map_err(|error| format!("cannot read the question: {error}"))?;
            match line {
                Line::End => return Ok(()),
                Line::Interrupted { typed: true } => {}
                Line::Interrupted { typed: false } => self.say("Ctrl-D or /exit ends the chat"),
                Line::Broken(why) => terminal::note(why),
                // As people leave a shell; a blank before it sends it.
                Line::Text(text) if source.is_person() && matches!(&text[..], "exit" | "quit") => return Ok(()),
                Line::Text(text) => match command::parse(&text) {
                    Input::Nothing => {}
                    Input::Refused(why) => terminal::note(why),
                    Input::Text(question) => self.ask(root, source, Some(&question))?,
                    Input::Command(Command::Exit) => return Ok(()),
                    Input::Command(command) => self.command(root, source, command)?,
                },
            }
        }
    }

    fn command(&mut self, root: &mut Root<'_>, source: &mut Source, command: Command) -> Result<(), Failure> {
        match command {
            Command::Help => terminal::note_text(command::help()),
            Command::Stats => terminal::note(self.tally.lines(&self.conversation, root, self.load)),
            Command::System(None) => terminal::note(self.conversation.system().unwrap_or("no system message")),
            Command::System(Some(text)) => {
                self.conversation.set_system(Some(text));
                self.say("the conversation goes on under the new system message; /clear forgets it");
            }
            Command::Clear => {
                self.conversation.clear();
                self.start_anew();
                self.say("the conversation is forgotten");
            }
            Command::Retry => {
                if self.questions() == 0 {
                    terminal::note("nothing was asked yet");
                } else {
                    if self.args.sample.choice.temperature == 0.0 {
                        self.say("at temperature 0 the answer stays the same");
                    }
                    self.ask(root, source, None)?;
                }
            }
            Command::Save(path) => match self.saved().write(&path) {
                Ok(()) => self.say(format_args!("saved in {}", path.display())),
                Err(why) => refuse(source, why)?,
            },
            Command::Load(path) => match SavedChat::read(&path) {
                Ok(chat) => {
                    self.say(format_args!("{} messages, held with {}", chat.messages.len(), chat.model));
                    self.conversation.restore(chat.messages);
                    self.start_anew();
                }
                Err(why) => refuse(source, why)?,
            },
            // The loop has done it.
            Command::Exit => {}
        }
        Ok(())
    }

    /// Another conversation: what was said so far stays in its own file.
    fn start_anew(&mut self) {
        self.keeper.start_anew();
        self.is_full = false;
    }

    /// Asks a question, or the last one again, and shows the answer.
    fn ask(&mut self, root: &mut Root<'_>, source: &mut Source, question: Option<&str>) -> Result<(), Failure> {
        let again = if question.is_none() || self.conversation.unanswered().is_some() {
            self.conversation.pop_turn()
        } else {
            None
        };
        let Some(question) = question.or(again.as_deref()) else { return Ok(()) };
        self.conversation.push_question(question);
        self.keep();
        let network = root.traffic();
        let result = self.answer(root, source);
        match result {
            Ok(turn) => {
                self.keep();
                self.lost = None;
                self.tally.add(&turn.answer);
                self.is_full = turn.answer.finish == Finish::Context;
                self.show(root, network, &turn)
            }
            Err(Failure::Generate(GenerateError::Root(error))) if source.is_person() => {
                terminal::note(format_args!(
                    "{error}; the conversation is here still: /retry asks again, /save FILE saves it"
                ));
                self.lost = Some(error.to_string());
                Ok(())
            }
            // What only this question has to do with.
            Err(Failure::Generate(error @ (GenerateError::Template(_) | GenerateError::Encode(_))))
                if source.is_person() =>
            {
                terminal::note(error);
                self.conversation.pop_turn();
                Ok(())
            }
            Err(Failure::Generate(GenerateError::PromptTooLong { .. })) => {
                self.conversation.pop_turn();
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Generates the answer; makes room for it where there is none.
    fn answer(&mut self, root: &mut Root<'_>, source: &mut Source) -> Result<Turn, Failure> {
        let may_drop = match self.context_full {
            None => source.is_person(),
            Some(wanted) => wanted == ContextFull::Drop,
        };
        if self.is_full && may_drop && !self.make_room(root, source)? {
            return Err(
                GenerateError::PromptTooLong { positions: u64::from(root.seq_len()), seq_len: root.seq_len() }.into()
            );
        }
        let too_long = match self.stream(root) {
            Err(Failure::Generate(error @ GenerateError::PromptTooLong { .. })) => error,
            other => return other,
        };
        if self.make_room(root, source)? { self.stream(root) } else { Err(too_long.into()) }
    }

    /// Drops the oldest turns as far as the question needs it, if that is what the user wants.
    fn make_room(&mut self, root: &Root<'_>, source: &mut Source) -> Result<bool, Failure> {
        let seq_len = root.seq_len();
        let needed = self.positions()?;
        let full = format!("the conversation needs {needed} positions; the context holds {seq_len}");
        let is_alone = self.questions() < 2;
        if self.context_full.is_none() && source.is_person() && !is_alone {
            let answer = source.confirm(&format!("{full}. Go on with the oldest turns dropped? [y/n] "));
            let answer = answer.map_err(|error| format!("cannot read the answer: {error}"))?;
            self.context_full = answer.map(|yes| if yes { ContextFull::Drop } else { ContextFull::Stop });
        }
        if is_alone {
            refuse(source, alone(needed, seq_len))?;
            return Ok(false);
        }
        if self.context_full == Some(ContextFull::Drop) {
            return self.drop_turns(root, source, needed);
        }
        if source.is_person() {
            terminal::note(format_args!("{full}: /clear starts anew"));
            return Ok(false);
        }
        Err(format!("{full}: raise --max-seq-len, or go on without the oldest turns by --context-full drop").into())
    }

    /// Drops the oldest turns until a quarter of the context is free for the answer, or as much as it may take. Where that
    /// is of no use, nothing is dropped.
    fn drop_turns(&mut self, root: &Root<'_>, source: &Source, mut needed: usize) -> Result<bool, Failure> {
        let seq_len = root.seq_len();
        let room = self.args.max_tokens.unwrap_or(u32::MAX).min(seq_len / 4) as usize;
        let before = self.conversation.messages().to_vec();
        let mut dropped = 0;
        while needed + room > seq_len as usize && self.conversation.drop_oldest_turn() {
            dropped += 1;
            needed = self.positions()?;
        }
        if needed > seq_len as usize {
            self.conversation.restore(before);
            refuse(source, alone(needed, seq_len))?;
            return Ok(false);
        }
        self.is_full = false;
        self.say(format_args!("dropped the oldest turns: {dropped}"));
        Ok(true)
    }

    fn questions(&self) -> usize {
        self.conversation.messages().iter().filter(|message| message.role == Role::User).count()
    }

    /// Positions of the conversation with the question, before the answer.
    fn positions(&self) -> Result<usize, Failure> {
        let rendered = self.conversation.render(self.tokenizer)?;
        Ok(self.tokenizer.encode_rendered(&rendered)?.len())
    }

    fn stream(&mut self, root: &mut Root<'_>) -> Result<Turn, Failure> {
        let mut stream = AnswerStream::new(self.args.json);
        let mut draft = self.saved();
        let (keeper, mut kept) = (&mut self.keeper, Instant::now());
        let (mut bar, hidden) = (None, self.args.quiet || self.args.json);
        draft.messages.push(Message::new(Role::Assistant, ""));
        interrupt::catch();
        let max_tokens = self.args.max_tokens.unwrap_or(u32::MAX);
        let result = self.conversation.answer(root, &mut self.generator, self.tokenizer, max_tokens, |piece| {
            match piece {
                Piece::Prompt(done, total) if total - done > LONG_PROMPT_TOKENS => {
                    bar.get_or_insert_with(|| progress::prompt(hidden, total as usize)).set_position(done.into());
                }
                Piece::Prompt(..) => {}
                Piece::Reasoning(_) | Piece::Answer(_) => drop(bar.take().inspect(ProgressBar::finish_and_clear)),
            }
            draft.add(piece);
            if kept.elapsed() > KEEP_EVERY {
                if let Err(why) = keeper.keep(&draft) {
                    terminal::note(why);
                }
                kept = Instant::now();
            }
            stream.show(piece)
        });
        interrupt::release();
        drop(bar.inspect(ProgressBar::finish_and_clear));
        stream.finish(result.is_err())?;
        Ok(result?)
    }

    fn saved(&self) -> SavedChat {
        let name = self.args.model.model.file_name().unwrap_or_default();
        SavedChat::new(name.to_string_lossy().into(), self.sampling(), self.conversation.messages().to_vec())
    }

    /// How tokens are chosen.
    fn sampling(&self) -> Value {
        let sample = &self.args.sample;
        // The digits that the user wrote, not those of the double next to a float.
        let number = |value: f32| value.to_string().parse::<f64>().unwrap_or_default();
        json!({
            "temperature": number(sample.choice.temperature),
            "top_p": number(sample.choice.top_p),
            "top_k": sample.choice.top_k,
            "min_p": number(sample.choice.min_p),
            "repeat_penalty": number(sample.choice.repeat_penalty),
            "repeat_last_n": sample.choice.repeat_last_n,
            "presence_penalty": number(sample.choice.presence_penalty),
            "frequency_penalty": number(sample.choice.frequency_penalty),
            "stop": sample.stop,
            "seed": self.seed,
        })
    }

    fn keep(&mut self) {
        let saved = self.saved();
        if let Err(why) = self.keeper.keep(&saved) {
            terminal::note(why);
        }
        interrupt::set_kept(self.keeper.path().is_some());
    }

    fn show(&self, root: &Root<'_>, before: Option<Traffic>, turn: &Turn) -> Result<(), Failure> {
        let answer = &turn.answer;
        if self.args.json {
            let network = root.traffic().zip(before).map(|(now, before)| now.since(before));
            let (load, seed, repack) = (self.load, self.seed, root.repack_time());
            let (predicted, rests) = (root.predicted(), root.rests());
            let streaming = root.reading().zip(root.streaming().copied());
            let report = Report { load, seed, repack, answer, predicted, rests, network, streaming };
            let mut report = report.json(&turn.text);
            if let Some(reasoning) = &turn.reasoning {
                report["reasoning"] = json!(reasoning);
            }
            return Ok(terminal::print_line(report)?);
        }
        let note = match answer.finish {
            Finish::Context => ", the context is full",
            Finish::Interrupted => ", interrupted",
            Finish::MaxTokens => ", cut at --max-tokens",
            Finish::Stop => "",
        };
        self.say(format_args!(
            "prefill {:.1}, decode {:.1} tokens/s; {} of {} positions{}{note}",
            answer.prefill.rate(),
            answer.decode.rate(),
            self.conversation.position(),
            root.seq_len(),
            guesses(&answer.proposed)
        ));
        Ok(())
    }
}

fn alone(needed: usize, seq_len: u32) -> String {
    format!(
        "the question alone needs {needed} positions; the context holds {seq_len}: shorten it or raise --max-seq-len"
    )
}

/// Says what does not work to a person, who can do something else; a script ends there.
fn refuse(source: &Source, why: String) -> Result<(), Failure> {
    if source.is_person() {
        terminal::note(why);
        return Ok(());
    }
    Err(why.into())
}
