//! A chat as it goes: questions to the model, commands to the chat, and what is done where something is in the way.

use super::answer::AnswerStream;
use super::answerer::{Answerer, Needed, NoAnswer};
use super::command::{self, Command, Input};
use super::input::{Line, Source};
use super::keep::Keeper;
use super::save::SavedChat;
use super::tally::Tally;
use super::{Args, ContextFull};
use crate::chat::conversation::{Message, Piece, Role, Turn};
use crate::chat::generate::Finish;
use crate::cli::{Failure, interrupt, progress};
use crate::machine::terminal;
use console::style;
use indicatif::ProgressBar;
use std::path::Path;
use std::time::{Duration, Instant};

/// While a long answer comes, what there is of it is kept this often.
const KEEP_EVERY: Duration = Duration::from_secs(2);

/// Where less is left of a prompt, its progress is not shown.
const LONG_PROMPT_TOKENS: u32 = 256;

/// A chat with whoever answers.
pub struct Session<'s, A> {
    /// What the user asked for.
    pub args: &'s Args,
    /// Who answers, and what was said.
    pub answerer: A,
    /// Keeps it on disk.
    pub keeper: Keeper,
    /// What is done when the context is full, as far as somebody has said so.
    pub context_full: Option<ContextFull>,
    /// The last answer was cut by the end of the context.
    pub is_full: bool,
    /// Why the last question was not answered.
    pub lost: Option<String>,
    /// Figures for `/stats`.
    pub tally: Tally,
}

impl<A: Answerer> Session<'_, A> {
    /// Answers until there are no more questions.
    ///
    /// # Errors
    /// What ends a chat early; says where the conversation is kept.
    pub fn run(&mut self, source: &mut Source) -> Result<(), Failure> {
        self.greet(source);
        let result = self.converse(source);
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

    fn greet(&self, source: &Source) {
        if source.is_person() {
            let turns = self.answerer.messages().questions();
            let resumed = if turns > 0 { format!("{turns} questions so far; ") } else { String::new() };
            self.say(format_args!("{resumed}{}; /help lists what else goes", self.answerer.greeting()));
            if self.answerer.messages().unanswered().is_some() {
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

    fn converse(&mut self, source: &mut Source) -> Result<(), Failure> {
        if let Some(question) = &self.args.question {
            self.ask(source, Some(question))?;
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
                    Input::Text(question) => self.ask(source, Some(&question))?,
                    Input::Command(Command::Exit) => return Ok(()),
                    Input::Command(command) => self.command(source, command)?,
                },
            }
        }
    }

    fn command(&mut self, source: &mut Source, command: Command) -> Result<(), Failure> {
        match command {
            Command::Help => terminal::note_text(command::help()),
            Command::Stats => {
                terminal::note(self.tally.text(self.answerer.messages().len(), self.answerer.figures()));
            }
            Command::System(None) => {
                terminal::note(self.answerer.messages().system().unwrap_or("no system message"));
            }
            Command::System(Some(text)) => {
                self.answerer.messages_mut().set_system(Some(text));
                self.say("the conversation goes on under the new system message; /clear forgets it");
            }
            Command::Clear => {
                self.answerer.messages_mut().clear();
                self.start_anew();
                self.say("the conversation is forgotten");
            }
            Command::Retry => {
                if self.answerer.messages().questions() == 0 {
                    terminal::note("nothing was asked yet");
                } else {
                    if self.answerer.is_greedy() {
                        self.say("at temperature 0 the answer stays the same");
                    }
                    self.ask(source, None)?;
                }
            }
            Command::Save(path) => match self.saved().write(&path) {
                Ok(()) => self.say(format_args!("saved in {}", path.display())),
                Err(why) => refuse(source, why)?,
            },
            Command::Load(path) => match SavedChat::read(&path) {
                Ok(chat) => {
                    self.say(format_args!("{} messages, held with {}", chat.messages.len(), chat.model));
                    self.answerer.messages_mut().restore(chat.messages);
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
    fn ask(&mut self, source: &mut Source, question: Option<&str>) -> Result<(), Failure> {
        let messages = self.answerer.messages_mut();
        let again = if question.is_none() || messages.unanswered().is_some() { messages.pop_turn() } else { None };
        let Some(question) = question.or(again.as_deref()) else { return Ok(()) };
        messages.push_question(question);
        self.keep();
        match self.answer(source)? {
            Ok(turn) => {
                self.keep();
                self.lost = None;
                self.tally.add(&turn.answer);
                self.is_full = turn.answer.finish == Finish::Context;
                self.show(&turn)
            }
            Err(NoAnswer::Lost(why)) if source.is_person() => {
                terminal::note(format_args!(
                    "{why}; the conversation is here still: /retry asks again, /save FILE saves it"
                ));
                self.lost = Some(why);
                Ok(())
            }
            Err(NoAnswer::Refused(why)) if source.is_person() => {
                terminal::note(why);
                self.answerer.messages_mut().pop_turn();
                Ok(())
            }
            // Why was said already.
            Err(NoAnswer::Full) => {
                self.answerer.messages_mut().pop_turn();
                Ok(())
            }
            Err(NoAnswer::Lost(why) | NoAnswer::Refused(why)) => Err(why.into()),
            Err(NoAnswer::Failed(failure)) => Err(failure),
        }
    }

    /// Has the question answered; makes room for that where there is none.
    fn answer(&mut self, source: &mut Source) -> Result<Result<Turn, NoAnswer>, Failure> {
        let may_drop = match self.context_full {
            None => source.is_person(),
            Some(wanted) => wanted == ContextFull::Drop,
        };
        let mut is_full = self.is_full && may_drop;
        // Each time round, turns are dropped.
        loop {
            if is_full {
                match self.make_room(source) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Err(NoAnswer::Full)),
                    Err(NoAnswer::Failed(failure)) => return Err(failure),
                    Err(other) => return Ok(Err(other)),
                }
            }
            match self.stream()? {
                Err(NoAnswer::Full) => is_full = true,
                other => return Ok(other),
            }
        }
    }

    /// Drops the oldest turns as far as the question needs it, if that is what the user wants.
    fn make_room(&mut self, source: &mut Source) -> Result<bool, NoAnswer> {
        let needed = self.answerer.needed()?;
        let full = format!("the conversation {}", too_long(needed));
        let is_alone = self.answerer.messages().questions() < 2;
        if self.context_full.is_none() && source.is_person() && !is_alone {
            let answer = source.confirm(&format!("{full}. Go on with the oldest turns dropped? [y/n] "));
            let answer = answer.map_err(|error| failed(format!("cannot read the answer: {error}")))?;
            self.context_full = answer.map(|yes| if yes { ContextFull::Drop } else { ContextFull::Stop });
        }
        if is_alone {
            refuse(source, alone(needed)).map_err(NoAnswer::Failed)?;
            return Ok(false);
        }
        if self.context_full == Some(ContextFull::Drop) {
            return self.drop_turns(source, needed);
        }
        if source.is_person() {
            terminal::note(format_args!("{full}: /clear starts anew"));
            return Ok(false);
        }
        let longer = if needed.is_some() { "raise --max-seq-len, or " } else { "" };
        Err(failed(format!("{full}: {longer}go on without the oldest turns by --context-full drop")))
    }

    /// Drops the oldest turns until a quarter of the context is free for the answer, or as much as it may take; half of them where
    /// nobody knows what they need. Where that is of no use, nothing is dropped.
    fn drop_turns(&mut self, source: &Source, needed: Option<Needed>) -> Result<bool, NoAnswer> {
        let before = self.answerer.messages().to_vec();
        let half = self.answerer.messages().questions() / 2;
        let max_tokens = self.args.max_tokens.unwrap_or(u32::MAX);
        let is_tight =
            |needed: Needed| needed.positions + max_tokens.min(needed.seq_len / 4) as usize > needed.seq_len as usize;
        let (mut needed, mut dropped) = (needed, 0);
        while needed.map_or(dropped < half, is_tight) && self.answerer.messages_mut().drop_oldest_turn() {
            dropped += 1;
            needed = self.answerer.needed()?;
        }
        if needed.is_some_and(|needed| needed.positions > needed.seq_len as usize) {
            self.answerer.messages_mut().restore(before);
            refuse(source, alone(needed)).map_err(NoAnswer::Failed)?;
            return Ok(false);
        }
        self.is_full = false;
        self.say(format_args!("dropped the oldest turns: {dropped}"));
        Ok(true)
    }

    /// Has the question answered, and shows the answer as it comes.
    fn stream(&mut self) -> Result<Result<Turn, NoAnswer>, Failure> {
        let mut stream = AnswerStream::new(self.args.json).with_markdown(!self.args.plain);
        let mut draft = self.saved();
        let (keeper, mut kept) = (&mut self.keeper, Instant::now());
        let (mut bar, hidden) = (None, self.args.quiet || self.args.json);
        draft.messages.push(Message::new(Role::Assistant, ""));
        interrupt::catch();
        let result = self.answerer.answer(&mut |piece| {
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
        Ok(result)
    }

    fn saved(&self) -> SavedChat {
        SavedChat::new(self.answerer.model(), self.answerer.sampling(), self.answerer.messages().to_vec())
    }

    fn keep(&mut self) {
        let saved = self.saved();
        if let Err(why) = self.keeper.keep(&saved) {
            terminal::note(why);
        }
        interrupt::set_kept(self.keeper.path().is_some());
    }

    fn show(&self, turn: &Turn) -> Result<(), Failure> {
        if self.args.json {
            return Ok(terminal::print_line(self.answerer.json(turn))?);
        }
        let note = match turn.answer.finish {
            Finish::Context => ", the context is full",
            Finish::Interrupted => ", interrupted",
            Finish::MaxTokens if self.args.max_tokens.is_none() => ", cut by the server",
            Finish::MaxTokens => ", cut at --max-tokens",
            Finish::Stop => "",
        };
        self.say(format_args!("{}{note}", self.answerer.summary(turn)));
        Ok(())
    }
}

fn too_long(needed: Option<Needed>) -> String {
    match needed {
        Some(Needed { positions, seq_len }) => format!("needs {positions} positions; the context holds {seq_len}"),
        None => "is longer than the server's context".into(),
    }
}

fn alone(needed: Option<Needed>) -> String {
    let advice = if needed.is_some() { "shorten it or raise --max-seq-len" } else { "shorten it" };
    format!("the question alone {}: {advice}", too_long(needed))
}

fn failed(line: String) -> NoAnswer {
    NoAnswer::Failed(line.into())
}

/// Says what does not work to a person, who can do something else; a script ends there.
fn refuse(source: &Source, why: String) -> Result<(), Failure> {
    if source.is_person() {
        terminal::note(why);
        return Ok(());
    }
    Err(why.into())
}
