//! The guide without a terminal and without children: what keys do, and what becomes of what was run.

use super::action::{self, Action};
use super::config::Field;
use super::output::Output;
use super::state::State;
use super::step::Step;
use super::world::World;
use crate::net::Address;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tui_input::Input;
use tui_input::backend::crossterm::EventHandler;

/// So many rows are passed by a key.
const SCROLL_ROWS: usize = 5;

/// What is to be done after a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but drawing.
    Draw,
    /// Run these, one after the other, as long as they succeed.
    Run(Vec<Action>),
    /// End what runs.
    Stop,
    /// Look for workers in the network.
    Discover,
    /// End the guide.
    Quit,
}

/// A word to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Something is as it should be.
    Note(String),
    /// Something is not.
    Error(String),
}

/// What goes on beside the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Nothing.
    Idle,
    /// A step is being done, for so long.
    Running(Step, Duration),
    /// Somebody looks for workers.
    Discovering,
}

/// The pages and where somebody is in them.
#[derive(Debug)]
pub struct Guide {
    /// What is kept.
    pub state: State,
    /// Where this is.
    pub world: World,
    /// The field that is chosen, of those on the page.
    pub focus: usize,
    /// The line editor, while the chosen field is edited.
    pub editor: Option<Input>,
    /// The last word.
    pub message: Option<Message>,
    /// What goes on.
    pub busy: Busy,
    /// What commands of this page have printed.
    pub output: Output,
    /// So many rows of it are below those that are shown.
    pub scroll: usize,
}

impl Guide {
    /// On the page where somebody was.
    pub fn new(state: State, world: World, is_resumed: bool) -> Self {
        let message = is_resumed.then(|| Message::Note("This goes on where you were.".into()));
        let (editor, output) = (None, Output::default());
        Self { state, world, focus: 0, editor, message, busy: Busy::Idle, output, scroll: 0 }
    }

    /// The page.
    pub fn step(&self) -> Step {
        self.state.current
    }

    /// What the page does.
    pub fn actions(&self, step: Step) -> Vec<Action> {
        action::actions(step, &self.state.config, self.state.model_file.as_deref(), &self.world)
    }

    /// Whether nothing is left to do on a page.
    pub fn is_done(&self, step: Step) -> bool {
        self.state.completed.contains(&step) || self.actions(step).is_empty()
    }

    /// What a key does.
    pub fn key(&mut self, key: KeyEvent) -> Effect {
        if key.kind == KeyEventKind::Release {
            return Effect::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Effect::Quit;
        }
        if self.editor.is_some() {
            self.edit_key(key);
            return Effect::Draw;
        }
        match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Effect::Quit,
            KeyCode::PageUp => self.scroll = (self.scroll + SCROLL_ROWS).min(self.output.lines().count() * 4),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_sub(SCROLL_ROWS),
            KeyCode::Char('s') if self.busy != Busy::Idle => return Effect::Stop,
            // What runs belongs to this page and these values.
            _ if self.busy != Busy::Idle => {}
            code => return self.idle_key(code),
        }
        Effect::Draw
    }

    fn idle_key(&mut self, code: KeyCode) -> Effect {
        let fields = self.step().fields();
        match code {
            KeyCode::Char('n') | KeyCode::Right => self.go(self.step().next()),
            KeyCode::Char('p') | KeyCode::Left => self.go(self.step().previous()),
            KeyCode::Char(digit @ '1'..='5') => self.go(Some(Step::ALL[digit as usize - '1' as usize])),
            KeyCode::Down | KeyCode::Tab => self.focus = (self.focus + 1) % fields.len(),
            KeyCode::Up | KeyCode::BackTab => self.focus = (self.focus + fields.len() - 1) % fields.len(),
            KeyCode::Char('e') | KeyCode::Enter => {
                self.message = None;
                self.editor = Some(self.state.config.value(self.field()).to_owned().into());
            }
            KeyCode::Char('d') if self.step() == Step::Nodes => {
                (self.busy, self.message) = (Busy::Discovering, None);
                return Effect::Discover;
            }
            KeyCode::Char('r') => return self.run(),
            _ => {}
        }
        Effect::Draw
    }

    /// The chosen field.
    pub fn field(&self) -> Field {
        let fields = self.step().fields();
        fields[self.focus.min(fields.len() - 1)]
    }

    fn go(&mut self, step: Option<Step>) {
        if let Some(step) = step {
            self.state.current = step;
            (self.focus, self.message, self.output, self.scroll) = (0, None, Output::default(), 0);
        }
    }

    fn edit_key(&mut self, key: KeyEvent) {
        let Some(editor) = &mut self.editor else { return };
        match key.code {
            KeyCode::Esc => (self.editor, self.message) = (None, None),
            KeyCode::Enter => {
                let text = editor.value().to_owned();
                match self.set(self.field(), &text) {
                    Ok(()) => (self.editor, self.message) = (None, None),
                    Err(line) => self.message = Some(Message::Error(line)),
                }
            }
            _ => drop(editor.handle_event(&Event::Key(key))),
        }
    }

    /// Takes another value, and forgets what was done with the old one.
    fn set(&mut self, field: Field, text: &str) -> Result<(), String> {
        if self.state.config.set(field, text, &self.world)? {
            self.state.forget(self.step());
            self.output = Output::default();
        }
        Ok(())
    }

    fn run(&mut self) -> Effect {
        let step = self.step();
        (self.output, self.scroll) = (Output::default(), 0);
        let actions = self.actions(step);
        if actions.is_empty() {
            self.message =
                Some(Message::Note("There is nothing to do here: this machine works alone. n goes on.".into()));
            return Effect::Draw;
        }
        let is_open = |other: &Step| *other < step && !self.is_done(*other);
        let obstacle = match Step::ALL.into_iter().find(is_open) {
            Some(first) => Some(format!("the step {} comes first: {} goes there", first.name(), first.number())),
            None => action::obstacle(step, &self.state.config, self.model_file(), &self.world),
        };
        if let Some(line) = obstacle {
            self.message = Some(Message::Error(line));
            return Effect::Draw;
        }
        (self.busy, self.message) = (Busy::Running(step, Duration::ZERO), None);
        Effect::Run(actions)
    }

    /// Time has passed. Returns whether that is to be seen.
    pub fn tick(&mut self, running: Duration) -> bool {
        match &mut self.busy {
            Busy::Running(_, shown) if shown.as_secs() != running.as_secs() => {
                *shown = running;
                true
            }
            _ => false,
        }
    }

    /// Something was printed.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.output.push(bytes);
    }

    /// The model turned out to be this file.
    pub fn found_model(&mut self, file: PathBuf) {
        self.state.model_file = Some(file);
    }

    /// All commands have ended, or one has failed.
    pub fn ended(&mut self, result: Result<(), String>) {
        let Busy::Running(step, _) = std::mem::replace(&mut self.busy, Busy::Idle) else { return };
        match result {
            Ok(()) => {
                self.state.completed.insert(step);
                let next = match step.next() {
                    Some(next) => format!("Done. n goes on to {}.", next.name()),
                    None => "Done: everything works. q ends the guide.".into(),
                };
                self.message = Some(Message::Note(next));
                if step == Step::Answer {
                    self.output.add_line("");
                    self.output.add_line("What next:");
                    for line in action::next_commands(&self.state.config, &self.world) {
                        self.output.add_line(&format!("  {line}"));
                    }
                }
            }
            Err(line) => {
                self.state.completed.remove(&step);
                self.message = Some(Message::Error(format!("{line}. r tries it again.")));
            }
        }
    }

    /// Workers were looked for.
    pub fn discovered(&mut self, found: Result<Vec<Address>, String>) {
        self.busy = Busy::Idle;
        let found = match found {
            Ok(found) => found,
            Err(line) => return self.message = Some(Message::Error(line)),
        };
        let mut added = 0;
        for address in &found {
            let nodes = format!("{} {address}", self.state.config.value(Field::Nodes));
            // One that is on the list already is no mistake here.
            added += usize::from(self.set(Field::Nodes, &nodes).is_ok());
        }
        self.message = Some(Message::Note(match (found.len(), added) {
            (0, _) => "No worker announces itself here. Write nodes by hand: e edits the list.".into(),
            (count, 0) => format!("{count} found; all are on the list."),
            (count, _) => format!("{count} found, {added} added. They run already: deploy may be no."),
        }));
    }

    /// The file of the model, once it is known.
    pub fn model_file(&self) -> Option<&Path> {
        self.state.model_file.as_deref()
    }
}

/// Guides and keys for tests.
#[cfg(test)]
pub mod tests {
    use super::super::world::example;
    use super::*;

    /// A guide at its beginning.
    pub fn new() -> Guide {
        Guide::new(State::new(&example()), example(), false)
    }

    /// Types, `\n` for Enter and `\x1b` for Esc; returns the effect of the last key.
    pub fn press(guide: &mut Guide, keys: &str) -> Effect {
        let code = |c| match c {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x7f' => KeyCode::Backspace,
            c => KeyCode::Char(c),
        };
        keys.chars().map(|c| guide.key(code(c).into())).last().expect("a key")
    }

    fn error(guide: &Guide) -> &str {
        match &guide.message {
            Some(Message::Error(line)) => line,
            other => panic!("no error, but {other:?}"),
        }
    }

    #[test]
    fn pages_are_walked_through_and_gone_to() {
        let mut guide = new();
        press(&mut guide, "nn");
        assert_eq!(guide.step(), Step::Key);
        press(&mut guide, "p");
        assert_eq!(guide.step(), Step::Model);
        press(&mut guide, "5n");
        assert_eq!(guide.step(), Step::Answer);
        press(&mut guide, "1p");
        assert_eq!(guide.step(), Step::Nodes);
        guide.key(KeyCode::Right.into());
        assert_eq!(guide.step(), Step::Model);
        assert_eq!([press(&mut guide, "q"), press(&mut guide, "\x1b")], [Effect::Quit, Effect::Quit]);
        assert_eq!(guide.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
    }

    #[test]
    fn a_field_keeps_its_value_until_another_one_is_right() {
        let mut guide = new();
        press(&mut guide, "\npi@\n");
        assert!(error(&guide).starts_with("nodes: \"\" is not a host"), "{guide:?}");
        assert!(guide.editor.is_some() && guide.state.config.value(Field::Nodes).is_empty());
        // q and n are letters there.
        press(&mut guide, "qn.local\n");
        assert_eq!((guide.state.config.value(Field::Nodes), guide.editor.is_none()), ("pi@qn.local", true));
        press(&mut guide, "e,x\x1b");
        assert_eq!((guide.state.config.value(Field::Nodes), guide.message.clone()), ("pi@qn.local", None));
        guide.key(KeyCode::Down.into());
        assert_eq!(guide.field(), Field::NodesFile);
        press(&mut guide, "e\x7fX\n");
        assert_eq!(guide.state.config.value(Field::NodesFile), "/home/ann/.config/dair/nodeX");
        guide.key(KeyCode::Down.into());
        assert_eq!(guide.field(), Field::Nodes);
    }

    #[test]
    fn steps_are_done_in_order_and_again_where_a_value_changes() {
        let mut guide = new();
        assert_eq!(press(&mut guide, "5r"), Effect::Draw);
        assert_eq!(error(&guide), "the step model comes first: 2 goes there");
        let Effect::Run(actions) = press(&mut guide, "2r") else { panic!("{guide:?}") };
        assert_eq!(actions, guide.actions(Step::Model));
        // No page is left and no value changed meanwhile.
        press(&mut guide, "n1er");
        assert_eq!((guide.step(), guide.busy), (Step::Model, Busy::Running(Step::Model, Duration::ZERO)));
        assert!(!guide.tick(Duration::from_millis(900)) && guide.tick(Duration::from_millis(1100)));
        guide.hear(b"one\ntw");
        guide.found_model("/m.m".into());
        guide.ended(Ok(()));
        assert_eq!(guide.message, Some(Message::Note("Done. n goes on to key.".into())));
        assert!(guide.is_done(Step::Model) && guide.output.lines().eq(["one", "tw"]));
        assert!(matches!(press(&mut guide, "5r"), Effect::Run(_)));
        guide.ended(Ok(()));
        assert!(guide.output.lines().any(|line| line == "  dair chat --model smollm2_135m_instruct"), "{guide:?}");
        press(&mut guide, "2e2\n");
        assert_eq!((guide.is_done(Step::Model), guide.is_done(Step::Answer), guide.model_file()), (false, false, None));
    }

    #[test]
    fn what_fails_can_be_tried_again_and_what_runs_can_be_stopped() {
        let mut guide = new();
        press(&mut guide, "2r");
        assert_eq!(press(&mut guide, "s"), Effect::Stop);
        guide.ended(Err("dair pull ended with exit code 1".into()));
        assert_eq!(error(&guide), "dair pull ended with exit code 1. r tries it again.");
        assert!(!guide.is_done(Step::Model));
        assert!(matches!(press(&mut guide, "r"), Effect::Run(_)));
    }

    #[test]
    fn alone_there_is_nothing_to_do_for_some_pages() {
        let mut guide = new();
        for page in ["1r", "3r", "4r"] {
            assert_eq!(press(&mut guide, page), Effect::Draw);
            assert!(matches!(&guide.message, Some(Message::Note(line)) if line.contains("nothing to do")), "{guide:?}");
        }
        guide.state.completed.insert(Step::Model);
        assert!(matches!(press(&mut guide, "5r"), Effect::Run(_)));
    }

    #[test]
    fn workers_that_are_found_come_to_those_on_the_list() {
        let mut guide = new();
        let found = || Ok(vec!["10.0.0.2:9990".parse().unwrap(), "10.0.0.3:9991".parse().unwrap()]);
        press(&mut guide, "epi@10.0.0.2\n");
        assert_eq!(press(&mut guide, "d"), Effect::Discover);
        guide.discovered(found());
        assert_eq!(guide.state.config.value(Field::Nodes), "pi@10.0.0.2, 10.0.0.3:9991");
        guide.discovered(found());
        assert_eq!(guide.message, Some(Message::Note("2 found; all are on the list.".into())));
        guide.discovered(Err("multicast DNS: no network".into()));
        assert_eq!(error(&guide), "multicast DNS: no network");
        guide.discovered(Ok(vec![]));
        assert!(matches!(&guide.message, Some(Message::Note(line)) if line.contains("by hand")), "{guide:?}");
        // It is only looked for where nodes are.
        assert_eq!(press(&mut guide, "2d"), Effect::Draw);
    }
}
