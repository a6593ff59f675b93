//! Tools that an answer may call: how a model's family writes calls, and how they are told from text.
//!
//! Every family was trained with a format of its own, which its template shows ([`Family`]). [`Calls`] finds calls in an answer as it comes;
//! [`forced`] is the grammar of an answer that must call; [`lay_out`] tells models of tools whose templates know nothing of them.

mod calls;
mod forced;
mod layout;
mod members;
mod parameters;

pub use calls::{Calls, Piece};
pub use forced::{Want, forced};
pub use layout::lay_out;

/// A way to write calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, SmolLM 2 and 3.
    Hermes,
    /// `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`: Qwen 3 Coder.
    QwenCoder,
    /// The answer is `{"name": …, "parameters": {…}}`, perhaps behind `<|python_tag|>`, several with `;` between: Llama 3.
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]`: Mistral.
    Mistral,
    /// `[TOOL_CALLS]NAME[ARGS]{…}`: Mistral since its eleventh tokenizer.
    MistralArgs,
    /// Calls between `<｜tool▁calls▁begin｜>` and `<｜tool▁calls▁end｜>`, the name apart from its arguments: DeepSeek.
    DeepSeek,
}

impl Family {
    /// The one whose calls a template writes, if it is told of tools at all.
    pub fn of_template(source: &str) -> Option<Self> {
        if !takes_tools(source) {
            return None;
        }
        let has = |text: &str| source.contains(text);
        Some(match () {
            () if has("<｜tool▁calls▁begin｜>") => Self::DeepSeek,
            () if has("[TOOL_CALLS]") && has("[ARGS]") => Self::MistralArgs,
            () if has("[TOOL_CALLS]") => Self::Mistral,
            () if has("<function=") && has("<tool_call>") => Self::QwenCoder,
            () if has("<|python_tag|>") || has("<|start_header_id|>") && !has("<tool_call>") => Self::Llama,
            () => Self::Hermes,
        })
    }

    /// What stands before the first call.
    const fn opens(self) -> &'static str {
        match self {
            Self::Hermes | Self::QwenCoder => "<tool_call>",
            Self::Llama => "<|python_tag|>",
            Self::Mistral | Self::MistralArgs => "[TOOL_CALLS]",
            Self::DeepSeek => "<｜tool▁calls▁begin｜>",
        }
    }

    /// How long its templates want the names of calls, in letters and digits; Mistral's refuse others.
    pub const fn id_len(self) -> usize {
        match self {
            Self::Mistral | Self::MistralArgs => 9,
            _ => 24,
        }
    }
}

/// Whether a template has the variable `tools`.
fn takes_tools(source: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '\'' || c == '"');
    source.match_indices("tools").any(|(at, word)| {
        let (before, behind) = (&source[..at], &source[at + word.len()..]);
        !is_word(before.chars().next_back()) && !is_word(behind.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_shows_the_family() {
        for (source, family) in [
            ("{% if tools %}<tool_call>", Some(Family::Hermes)),
            ("{%- if tools %}<tool_call>\n<function=example", Some(Family::QwenCoder)),
            ("<|start_header_id|>{% if tools is not none %}\"parameters\"", Some(Family::Llama)),
            ("[AVAILABLE_TOOLS]{{ tools }}[TOOL_CALLS]", Some(Family::Mistral)),
            ("[AVAILABLE_TOOLS]{{ tools }}[TOOL_CALLS]x[ARGS]", Some(Family::MistralArgs)),
            ("{% if tools %}<｜tool▁calls▁begin｜>", Some(Family::DeepSeek)),
            // It writes earlier calls, and is told of no tools.
            ("{% if message['tool_calls'] %}<｜tool▁calls▁begin｜>", None),
            ("<|im_start|>{{ message['tools'] }}", None),
            ("<|im_start|>", None),
        ] {
            assert_eq!(Family::of_template(source), family, "{source}");
        }
    }
}
