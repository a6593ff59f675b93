//! The guide without a terminal: what keys do, and what becomes of what was done.

use super::action::{self, Action};
use super::config::Field;
use super::state::State;
use super::step::Step;
use super::world::World;
use crate::net::Address;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tui_input::backend::crossterm::EventHandler;
use tui_input::{Input, InputRequest};

/// What is to be done after a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but drawing.
    Draw,
    /// Do the step of the page.
    Run,
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
}

impl Guide {
    /// On the page where somebody was.
    pub fn new(state: State, world: World, is_resumed: bool) -> Self {
        let message = is_resumed.then(|| Message::Note("This goes on where you were.".into()));
        Self { state, world, focus: 0, editor: None, message }
    }

    /// The page.
    pub fn step(&self) -> Step {
        self.state.current
    }

    /// What the page does.
    pub fn actions(&self, step: Step) -> Vec<Action> {
        action::actions(step, &self.state, &self.world)
    }

    /// Whether nothing is left to do on a page.
    pub fn is_done(&self, step: Step) -> bool {
        self.state.completed.contains(&step) || self.actions(step).is_empty()
    }

    /// Takes what comes from the terminal.
    pub fn take(&mut self, event: &Event) -> Effect {
        match (event, &mut self.editor) {
            (Event::Key(key), _) => return self.key(*key),
            // Lines become the entries of a list.
            (Event::Paste(text), Some(editor)) => {
                for c in text.chars() {
                    editor.handle(InputRequest::InsertChar(if c.is_control() { ' ' } else { c }));
                }
            }
            _ => {}
        }
        Effect::Draw
    }

    fn key(&mut self, key: KeyEvent) -> Effect {
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
        let fields = self.step().page().fields;
        match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Effect::Quit,
            KeyCode::Char('n') | KeyCode::Right => self.go(self.step().next()),
            KeyCode::Char('p') | KeyCode::Left => self.go(self.step().previous()),
            KeyCode::Char(digit @ '1'..='5') => self.go(Some(Step::ALL[digit as usize - '1' as usize])),
            KeyCode::Down | KeyCode::Tab => self.focus = (self.focus + 1) % fields.len(),
            KeyCode::Up | KeyCode::BackTab => self.focus = (self.focus + fields.len() - 1) % fields.len(),
            KeyCode::Char('e') | KeyCode::Enter => {
                self.message = None;
                self.editor = Some(self.state.config.value(self.field()).to_owned().into());
            }
            KeyCode::Char('d') if self.step() == Step::Nodes => return Effect::Discover,
            KeyCode::Char('r') => return self.run(),
            _ => {}
        }
        Effect::Draw
    }

    /// The chosen field.
    pub fn field(&self) -> Field {
        let fields = self.step().page().fields;
        fields[self.focus.min(fields.len() - 1)]
    }

    fn go(&mut self, step: Option<Step>) {
        if let Some(step) = step {
            self.state.current = step;
            (self.focus, self.message) = (0, None);
        }
    }

    fn edit_key(&mut self, key: KeyEvent) {
        let Some(editor) = &mut self.editor else { return };
        match key.code {
            KeyCode::Esc => (self.editor, self.message) = (None, None),
            KeyCode::Enter => {
                let text = editor.value().to_owned();
                match self.state.set(self.field(), &text, &self.world) {
                    Ok(()) => (self.editor, self.message) = (None, None),
                    Err(line) => self.message = Some(Message::Error(line)),
                }
            }
            _ => drop(editor.handle_event(&Event::Key(key))),
        }
    }

    fn run(&mut self) -> Effect {
        let step = self.step();
        let is_open = |other: &Step| *other < step && !self.is_done(*other);
        let obstacle = match Step::ALL.into_iter().find(is_open) {
            Some(first) => Some(format!("the step {} comes first: {} goes there", first.name(), first.number())),
            None => action::obstacle(step, &self.state, &self.world),
        };
        self.message = if self.actions(step).is_empty() {
            Some(Message::Note("There is nothing to do here: this machine works alone. n goes on.".into()))
        } else if let Some(line) = obstacle {
            Some(Message::Error(line))
        } else {
            return Effect::Run;
        };
        Effect::Draw
    }

    /// The step of the page was done, or has failed: the next page comes, or the word about it.
    pub fn ended(&mut self, failure: Option<String>) {
        let step = self.step();
        if failure.is_none() {
            self.go(step.next());
        }
        self.message = Some(match failure {
            Some(line) => Message::Error(format!("{line}. r tries it again.")),
            None if step.next().is_none() => Message::Note("Everything works. q ends the guide.".into()),
            None => Message::Note(format!("Done: {}.", step.name())),
        });
    }

    /// Workers were looked for.
    pub fn discovered(&mut self, found: Result<Vec<Address>, String>) {
        let found = match found {
            Ok(found) => found,
            Err(line) => return self.message = Some(Message::Error(line)),
        };
        let mut added = 0;
        for address in &found {
            let nodes = format!("{} {address}", self.state.config.value(Field::Nodes));
            // One that is on the list already is no mistake here.
            added += usize::from(self.state.set(Field::Nodes, &nodes, &self.world).is_ok());
        }
        self.message = Some(Message::Note(match (found.len(), added) {
            (0, _) => "No worker announces itself here. Write nodes by hand: e edits the list.".into(),
            (count, 0) => format!("{count} found; all are on the list."),
            (count, _) => format!("{count} found, {added} added. They run already: set deploy to no on page 4."),
        }));
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
    fn lines_that_are_pasted_are_one_value() {
        let mut guide = new();
        let paste = Event::Paste("pi@a\r\nb:1\n".into());
        assert_eq!(guide.take(&paste), Effect::Draw);
        press(&mut guide, "e");
        guide.take(&paste);
        press(&mut guide, "\n");
        assert_eq!(guide.state.config.value(Field::Nodes), "pi@a, b:1");
    }

    #[test]
    fn steps_are_done_in_order_and_again_where_a_value_changes() {
        let mut guide = new();
        assert_eq!(press(&mut guide, "5r"), Effect::Draw);
        assert_eq!(error(&guide), "the step model comes first: 2 goes there");
        assert_eq!(press(&mut guide, "2r"), Effect::Run);
        guide.ended(Some("dair pull ended with exit code 1".into()));
        assert_eq!((guide.step(), error(&guide)), (Step::Model, "dair pull ended with exit code 1. r tries it again."));
        guide.state.completed.insert(Step::Model);
        guide.ended(None);
        assert_eq!((guide.step(), &guide.message), (Step::Key, &Some(Message::Note("Done: model.".into()))));
        assert_eq!(press(&mut guide, "5r"), Effect::Run);
        guide.state.completed.insert(Step::Answer);
        guide.ended(None);
        assert!(matches!(&guide.message, Some(Message::Note(line)) if line.starts_with("Everything works.")));
        guide.state.set(Field::Model, "qwen3_8b_q40", &guide.world).unwrap();
        assert!(!guide.is_done(Step::Model) && !guide.is_done(Step::Answer));
    }

    #[test]
    fn alone_there_is_nothing_to_do_for_some_pages() {
        let mut guide = new();
        for page in ["1r", "3r", "4r"] {
            assert_eq!(press(&mut guide, page), Effect::Draw);
            assert!(matches!(&guide.message, Some(Message::Note(line)) if line.contains("nothing to do")), "{guide:?}");
        }
        guide.state.completed.insert(Step::Model);
        assert_eq!(press(&mut guide, "5r"), Effect::Run);
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
