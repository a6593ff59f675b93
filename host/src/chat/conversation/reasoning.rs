//! Where reasoning ends and the answer begins, in a text that comes in pieces.

use std::ops::ControlFlow;

const OPEN: &str = "<think>";
/// What it ends with.
pub const CLOSE: &str = "</think>";

/// What happens on the way to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Nothing yet: so many tokens of the prompt have been computed, of so many.
    Prompt(u32, u32),
    /// Part of its reasoning, which stands before the answer.
    Reasoning(&'a str),
    /// Part of the answer.
    Answer(&'a str),
}

/// Cuts a stream of text into reasoning and answer, without the tags and the blanks beside them.
///
/// Reasoning is what stands before `</think>` where the prompt ends with `<think>` or the text begins with it. A `<think>`
/// further on is part of the answer.
#[derive(Debug)]
pub struct Splitter {
    state: State,
    /// Text that may turn out to be part of a tag, or blanks that may turn out to stand beside one.
    held_back: String,
    reasoning: Option<String>,
    answer: String,
}

/// Whether a prompt leaves the model reasoning.
pub fn is_open(prompt: &str) -> bool {
    prompt.trim_end().ends_with(OPEN)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but blanks and the beginning of a tag so far.
    Start,
    /// Reasoning; nothing but blanks of it so far.
    BeforeReasoning,
    Reasoning,
    /// The tag was closed; nothing but blanks since.
    BeforeAnswer,
    Answer,
}

impl Splitter {
    /// A splitter for what follows `prompt`.
    pub fn new(prompt: &str) -> Self {
        let inside = is_open(prompt);
        Self {
            state: if inside { State::BeforeReasoning } else { State::Start },
            held_back: String::new(),
            reasoning: inside.then(String::new),
            answer: String::new(),
        }
    }

    /// Takes the next piece of text and gives on what is sure.
    pub fn push(&mut self, text: &str, on_text: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        self.held_back.push_str(text);
        let mut flow = ControlFlow::Continue(());
        loop {
            let before = (self.state, self.held_back.len());
            let step = self.step(on_text);
            flow = if flow.is_break() { flow } else { step };
            if (self.state, self.held_back.len()) == before {
                return flow;
            }
        }
    }

    /// Gives on what was held back: no tag will come any more.
    pub fn finish(&mut self, on_text: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>) {
        let rest = std::mem::take(&mut self.held_back);
        let _ = match self.state {
            State::Start | State::Answer => self.say_answer(&rest, on_text),
            State::BeforeReasoning | State::BeforeAnswer => ControlFlow::Continue(()),
            State::Reasoning => self.say_reasoning(rest.trim_end(), on_text),
        };
    }

    /// Reasoning and answer so far.
    pub fn into_parts(self) -> (Option<String>, String) {
        (self.reasoning, self.answer)
    }

    fn step(&mut self, on_text: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        match self.state {
            State::Start => {
                let text = self.held_back.trim_start();
                if let Some(rest) = text.strip_prefix(OPEN) {
                    self.held_back = rest.to_owned();
                    self.reasoning = Some(String::new());
                    self.state = State::BeforeReasoning;
                } else if !OPEN.starts_with(text) {
                    self.state = State::Answer;
                }
                ControlFlow::Continue(())
            }
            State::BeforeReasoning | State::BeforeAnswer => {
                self.held_back = self.held_back.trim_start().to_owned();
                if !self.held_back.is_empty() {
                    let inside = self.state == State::BeforeReasoning;
                    self.state = if inside { State::Reasoning } else { State::Answer };
                }
                ControlFlow::Continue(())
            }
            State::Reasoning => {
                if let Some((text, rest)) = self.held_back.split_once(CLOSE) {
                    let (text, rest) = (text.trim_end().to_owned(), rest.to_owned());
                    self.held_back = rest;
                    self.state = State::BeforeAnswer;
                    return self.say_reasoning(&text, on_text);
                }
                let partial = (1..CLOSE.len()).rev().find(|len| self.held_back.ends_with(&CLOSE[..*len])).unwrap_or(0);
                let sure = self.held_back[..self.held_back.len() - partial].trim_end().len();
                let rest = self.held_back.split_off(sure);
                let text = std::mem::replace(&mut self.held_back, rest);
                self.say_reasoning(&text, on_text)
            }
            State::Answer => {
                let text = std::mem::take(&mut self.held_back);
                self.say_answer(&text, on_text)
            }
        }
    }

    fn say_reasoning(&mut self, text: &str, on_text: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.reasoning.get_or_insert_default().push_str(text);
        on_text(Piece::Reasoning(text))
    }

    fn say_answer(&mut self, text: &str, on_text: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.answer.push_str(text);
        on_text(Piece::Answer(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The text in pieces of `cut` characters; what was shown must be what was kept.
    fn split(prompt: &str, text: &str, cut: usize) -> (Option<String>, String) {
        let (mut splitter, mut shown) = (Splitter::new(prompt), (String::new(), String::new()));
        let mut show = |piece: Piece<'_>| {
            match piece {
                Piece::Prompt(..) => unreachable!("a splitter hears of text alone"),
                Piece::Reasoning(text) => shown.0.push_str(text),
                Piece::Answer(text) => shown.1.push_str(text),
            }
            ControlFlow::Continue(())
        };
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(cut) {
            assert!(splitter.push(&piece.iter().collect::<String>(), &mut show).is_continue());
        }
        splitter.finish(&mut show);
        let parts = splitter.into_parts();
        assert_eq!((parts.0.clone().unwrap_or_default(), &parts.1), (shown.0, &shown.1));
        parts
    }

    #[test]
    fn reasoning_is_told_from_the_answer_wherever_pieces_are_cut() {
        let thought = |reasoning: &str, answer: &str| (Some(reasoning.to_owned()), answer.to_owned());
        let plain = |answer: &str| (None, answer.to_owned());
        for cut in 1..20 {
            assert_eq!(split("…assistant\n", "Hello </think> you", cut), plain("Hello </think> you"));
            assert_eq!(split("", "  \n", cut), plain("  \n"), "blanks alone are an answer");
            assert_eq!(split("", " <thin", cut), plain(" <thin"));
            assert_eq!(split("", " <think\n", cut), plain(" <think\n"));
            assert_eq!(
                split("", "\n<think>\nWell,\nso </b>\n</think>\n\n Yes. ", cut),
                thought("Well,\nso </b>", "Yes. ")
            );
            assert_eq!(split("", "<think></think>Yes <think>no</think>", cut), thought("", "Yes <think>no</think>"));
            assert_eq!(split("<think>\n", "Well </think> Yes", cut), thought("Well", "Yes"));
            assert_eq!(split("<think>\n\n</think>\n\n", "Yes", cut), plain("Yes"));
            assert_eq!(split("<think>", "Well </thin \n", cut), thought("Well </thin", ""), "cut short");
            assert_eq!(split("<think>", "", cut), thought("", ""));
        }
    }

    #[test]
    fn a_listener_can_break_in_either_part() {
        let mut splitter = Splitter::new("<think>");
        assert!(splitter.push("a</think>b", &mut |_| ControlFlow::Break(())).is_break());
        assert_eq!(splitter.into_parts(), (Some("a".to_owned()), "b".to_owned()));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "(<think>|</think>|<|/|a| |\n|é){0,12}", inside: bool, cut in 1usize..9) {
            let prompt = if inside { "<think>\n" } else { "" };
            prop_assert_eq!(split(prompt, &text, cut), split(prompt, &text, 1000));
        }
    }
}
