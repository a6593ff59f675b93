//! Messages to one text, as the model was trained to read them.

use super::Vocabulary;
use core::fmt::{self, Write};

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions that stand above the conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Name as it stands in templates and in the HTTP API.
    pub const fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Role> {
        [Role::System, Role::User, Role::Assistant].into_iter().find(|role| role.name() == name)
    }
}

/// One message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who says it.
    pub role: Role,
    /// What is said; goes into the text as it is, neither trimmed nor escaped.
    pub text: &'a str,
}

/// The families of templates that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChatFormat {
    /// `[INST] … [/INST]`
    Llama2,
    /// `<|start_header_id|>user<|end_header_id|> …`
    Llama3,
    /// `<｜User｜> …`, answers begin with `<think>`
    DeepSeek3,
    /// `<|im_start|>user …`
    ChatMl,
}

impl ChatFormat {
    /// Every format, in the order in which a template is searched for their marks.
    pub const ALL: [ChatFormat; 4] =
        [ChatFormat::Llama2, ChatFormat::Llama3, ChatFormat::DeepSeek3, ChatFormat::ChatMl];

    /// Name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            ChatFormat::Llama2 => "llama2",
            ChatFormat::Llama3 => "llama3",
            ChatFormat::DeepSeek3 => "deepseek3",
            ChatFormat::ChatMl => "chatml",
        }
    }

    /// The format of this name, in whichever case.
    pub fn from_name(name: &str) -> Option<ChatFormat> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Recognises a model's own template by what it contains.
    pub fn detect(template: &str) -> Option<ChatFormat> {
        Self::ALL.into_iter().find(|format| template.contains(format.mark()))
    }

    const fn mark(self) -> &'static str {
        match self {
            ChatFormat::Llama2 => "[INST]",
            ChatFormat::Llama3 => "<|start_header_id|>",
            ChatFormat::DeepSeek3 => DEEPSEEK_ASSISTANT,
            ChatFormat::ChatMl => "<|im_start|>",
        }
    }
}

const DEEPSEEK_USER: &str = "<｜User｜>";
const DEEPSEEK_ASSISTANT: &str = "<｜Assistant｜>";

/// Lays out a conversation for a model, ending where the answer begins.
///
/// The context of a conversation lives in the KV cache, so later turns render only what is new. What the cache lacks
/// then is the end of the answer: the EOS token was sampled, but never fed. [`render_next`](Self::render_next) begins with
/// the text that closes the answer, so that for all formats
///
/// ```text
/// render(first + [answer] + new) == render(first) + answer + render_next(new)
/// ```
///
/// (on the left the answer's text includes the [`answer_prefix`](Self::answer_prefix), on the right `render` has written
/// it). An answer cut short by a token limit has another gap: its last token, sampled but not fed either. Feed it before
/// the next text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatTemplate<'a> {
    format: ChatFormat,
    eos: &'a str,
}

impl<'a> ChatTemplate<'a> {
    /// The template of a model, recognised from the one in its tokenizer file unless `format` is given.
    ///
    /// # Errors
    /// No template in the file, one of no known format, or no text that ends a turn.
    pub fn new(vocab: &Vocabulary<'a>, format: Option<ChatFormat>) -> Result<Self, ChatError> {
        let format = match (format, vocab.header().chat_template) {
            (Some(format), _) => format,
            (None, Some(template)) => ChatFormat::detect(template).ok_or(ChatError::UnknownTemplate)?,
            (None, None) => return Err(ChatError::NoTemplate),
        };
        let id = *vocab.header().eos.first().ok_or(ChatError::NoEos)?;
        let eos = core::str::from_utf8(vocab.bytes(id).unwrap_or_default());
        Ok(Self { format, eos: eos.map_err(|_| ChatError::EosNotUtf8 { id })? })
    }

    /// The family it belongs to.
    pub const fn format(&self) -> ChatFormat {
        self.format
    }

    /// The end of the prompt that is also the beginning of the answer, to be shown before the first token.
    ///
    /// In a conversation rendered anew it belongs to the text of the assistant's message.
    pub const fn answer_prefix(&self) -> &'static str {
        match self.format {
            ChatFormat::DeepSeek3 => "<think>\n",
            _ => "",
        }
    }

    /// Writes a conversation from its beginning.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub fn render<W: Write>(&self, messages: &[Message<'_>], out: &mut W) -> fmt::Result {
        let mut messages = messages;
        match (self.format, messages) {
            (
                ChatFormat::Llama2,
                [Message { role: Role::System, text: system }, Message { role: Role::User, text: user }, rest @ ..],
            ) => {
                write!(out, "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]{}", self.eos)?;
                messages = rest;
            }
            (ChatFormat::DeepSeek3, [Message { role: Role::System, text }, rest @ ..]) => {
                out.write_str(text)?;
                messages = rest;
            }
            _ => {}
        }
        self.continue_with(messages, out)
    }

    /// Writes the end of the answer given last, then the new messages.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub fn render_next<W: Write>(&self, messages: &[Message<'_>], out: &mut W) -> fmt::Result {
        self.close_answer(out)?;
        self.continue_with(messages, out)
    }

    /// Writes what stands between the text of an answer and the next message.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub fn close_answer<W: Write>(&self, out: &mut W) -> fmt::Result {
        match self.format {
            ChatFormat::Llama2 | ChatFormat::Llama3 => out.write_str(self.eos),
            ChatFormat::DeepSeek3 => Ok(()),
            ChatFormat::ChatMl => out.write_str("<|im_end|>\n"),
        }
    }

    fn continue_with<W: Write>(&self, messages: &[Message<'_>], out: &mut W) -> fmt::Result {
        for message in messages {
            self.message(message, out)?;
        }
        match self.format {
            ChatFormat::Llama2 => Ok(()),
            ChatFormat::Llama3 => out.write_str("<|start_header_id|>assistant<|end_header_id|>\n\n"),
            ChatFormat::DeepSeek3 => write!(out, "{DEEPSEEK_ASSISTANT}{}", self.answer_prefix()),
            ChatFormat::ChatMl => out.write_str("<|im_start|>assistant\n"),
        }
    }

    fn message<W: Write>(&self, Message { role, text }: &Message<'_>, out: &mut W) -> fmt::Result {
        let (name, eos) = (role.name(), self.eos);
        match (self.format, role) {
            (ChatFormat::Llama2, Role::User) => write!(out, "[INST] {text} [/INST]{eos}"),
            (ChatFormat::Llama2, Role::Assistant) => write!(out, "{text}{eos}"),
            (ChatFormat::Llama3, _) => write!(out, "<|start_header_id|>{name}<|end_header_id|>\n\n{text}{eos}"),
            (ChatFormat::DeepSeek3, Role::User) => write!(out, "{DEEPSEEK_USER}{text}"),
            (ChatFormat::DeepSeek3, Role::Assistant) => write!(out, "{DEEPSEEK_ASSISTANT}{text}"),
            // These two know a system message only at the beginning.
            (ChatFormat::Llama2 | ChatFormat::DeepSeek3, Role::System) => Ok(()),
            (ChatFormat::ChatMl, _) => write!(out, "<|im_start|>{name}\n{text}<|im_end|>\n"),
        }
    }
}

/// Why there is no chat with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatError {
    /// The tokenizer file holds no chat template.
    NoTemplate,
    /// The chat template is of no known format.
    UnknownTemplate,
    /// No token ends a text.
    NoEos,
    /// The token that ends a turn has no text.
    EosNotUtf8 {
        /// The token.
        id: u32,
    },
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FORMATS: &str = "choose one of llama2, llama3, deepseek3, chatml";
        match self {
            Self::NoTemplate => write!(f, "the tokenizer file has no chat template: {FORMATS}"),
            Self::UnknownTemplate => {
                write!(f, "the chat template in the tokenizer file is of no known format: {FORMATS}")
            }
            Self::NoEos => write!(f, "the tokenizer file names no EOS token, chats need at least one"),
            Self::EosNotUtf8 { id } => {
                write!(f, "EOS token {id} of the tokenizer file is not UTF-8, so it can't end a turn of a chat")
            }
        }
    }
}

impl core::error::Error for ChatError {}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::tests::{vocabulary, vocabulary_with_template};
    use super::*;
    use Role::{Assistant, System, User};
    use std::{format, string::String};

    fn template(format: ChatFormat) -> ChatTemplate<'static> {
        let vocab = vocabulary(&[(0.0, b"a"), (0.0, b"<s>"), (0.0, b"<eos>")], Some(1), &[2]);
        ChatTemplate::new(&vocab, Some(format)).unwrap()
    }

    fn messages<'a>(messages: &[(Role, &'a str)]) -> heapless::Vec<Message<'a>, 8> {
        messages.iter().map(|&(role, text)| Message { role, text }).collect()
    }

    fn render(format: ChatFormat, conversation: &[(Role, &str)]) -> String {
        let mut text = String::new();
        template(format).render(&messages(conversation), &mut text).unwrap();
        text
    }

    const CONVERSATION: [(Role, &str); 4] = [(System, "S"), (User, "U"), (Assistant, "A"), (User, "V")];

    #[test]
    fn a_conversation_is_laid_out_in_each_format() {
        let cases = [
            (ChatFormat::Llama2, "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]<eos>A<eos>[INST] V [/INST]<eos>"),
            (
                ChatFormat::Llama3,
                "<|start_header_id|>system<|end_header_id|>\n\nS<eos><|start_header_id|>user<|end_header_id|>\n\nU<eos>\
                 <|start_header_id|>assistant<|end_header_id|>\n\nA<eos><|start_header_id|>user<|end_header_id|>\n\nV<eos>\
                 <|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            (ChatFormat::DeepSeek3, "S<｜User｜>U<｜Assistant｜>A<｜User｜>V<｜Assistant｜><think>\n"),
            (
                ChatFormat::ChatMl,
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n\
                 <|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
            ),
        ];
        for (format, expected) in cases {
            assert_eq!(render(format, &CONVERSATION), expected);
        }
        assert_eq!(render(ChatFormat::Llama2, &CONVERSATION[1..3]), "[INST] U [/INST]<eos>A<eos>");
    }

    #[test]
    fn turns_rendered_one_by_one_are_the_conversation_rendered_anew() {
        for format in ChatFormat::ALL {
            let template = template(format);
            let mut turns = String::new();
            let answer = format!("{}A", template.answer_prefix());
            template.render(&messages(&[(System, "S"), (User, "U")]), &mut turns).unwrap();
            turns.push('A');
            template.render_next(&messages(&[(User, "V")]), &mut turns).unwrap();
            turns.push('A');
            template.render_next(&messages(&[(System, "T"), (User, "W")]), &mut turns).unwrap();
            let anew = [
                (System, "S"),
                (User, "U"),
                (Assistant, answer.as_str()),
                (User, "V"),
                (Assistant, answer.as_str()),
                (System, "T"),
                (User, "W"),
            ];
            assert_eq!(turns, render(format, &anew), "{format:?}");
        }
    }

    #[test]
    fn formats_are_recognised_in_order() {
        for format in ChatFormat::ALL {
            assert_eq!(ChatFormat::from_name(format.name()), Some(format));
            assert_eq!(ChatFormat::detect(&format!("{{{{ '{}' }}}}", format.mark())), Some(format));
        }
        assert_eq!(ChatFormat::detect("<|im_start|> [INST]"), Some(ChatFormat::Llama2));
        assert_eq!(ChatFormat::detect("<|Assistant|>"), None);
        assert_eq!(ChatFormat::from_name("deepSeek3"), Some(ChatFormat::DeepSeek3));
        assert_eq!(ChatFormat::from_name("alpaca"), None);
        assert_eq!(Role::from_name("assistant"), Some(Assistant));
        assert_eq!(Role::from_name("tool"), None);
    }

    #[test]
    fn a_model_without_template_or_eos_is_refused() {
        let tokens: &[(f32, &[u8])] = &[(0.0, b"a"), (0.0, b"<s>"), (0.0, b"\x80")];
        let new =
            |eos: &[u32], template| ChatTemplate::new(&vocabulary_with_template(tokens, Some(1), eos, template), None);
        assert_eq!(new(&[1], None), Err(ChatError::NoTemplate));
        assert_eq!(new(&[1], Some("### Instruction")), Err(ChatError::UnknownTemplate));
        assert_eq!(new(&[], Some("<|im_start|>")), Err(ChatError::NoEos));
        assert_eq!(new(&[2], Some("<|im_start|>")), Err(ChatError::EosNotUtf8 { id: 2 }));
        assert_eq!(new(&[1], Some("<|im_start|>")).unwrap().format(), ChatFormat::ChatMl);
    }
}
