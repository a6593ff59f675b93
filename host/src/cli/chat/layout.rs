//! Which template lays out a conversation: that of the family which the tokenizer file's own belongs to, or which the user
//! names.

use crate::chat::generate::GenerateError;
use crate::chat::template::Template;
use crate::cli::Failure;
use dair_core::text::{ChatFormat, ChatTemplate, Vocabulary};

const LLAMA2: &str = "\
{%- if messages[0].role == 'system' %}{% set system = '<<SYS>>\\n' ~ messages[0].content ~ '\\n<</SYS>>\\n\\n' %}{% else %}{% set system = '' %}{% endif -%}
{%- for m in messages if m.role != 'system' -%}
{%- if m.role == 'user' %}[INST] {{ system if loop.first else '' }}{{ m.content }} [/INST]EOS{% else %}{{ m.content }}EOS{% endif -%}
{%- endfor -%}";
const LLAMA3: &str = "\
{%- for m in messages -%}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ '\\n\\n' ~ m.content }}EOS{%- endfor -%}
<|start_header_id|>assistant<|end_header_id|>{{ '\\n\\n' }}";
const DEEPSEEK3: &str = "\
{%- if messages[0].role == 'system' %}{{ messages[0].content }}{% endif -%}
{%- for m in messages if m.role != 'system' -%}
{%- if m.role == 'user' %}<｜User｜>{% else %}<｜Assistant｜>{% endif %}{{ m.content }}
{%- endfor -%}
<｜Assistant｜><think>{{ '\\n' }}";
const CHATML: &str = "\
{%- for m in messages -%}<|im_start|>{{ m.role ~ '\\n' ~ m.content }}<|im_end|>{{ '\\n' }}{%- endfor -%}
<|im_start|>assistant{{ '\\n' }}";

/// The template for a model, of the family `format` if that is given.
///
/// # Errors
/// No template in the tokenizer file, one of no known family, or no token that ends a turn.
pub fn template(vocab: &Vocabulary<'_>, format: Option<ChatFormat>) -> Result<Template, Failure> {
    let format = ChatTemplate::new(vocab, format)?.format();
    let source = match format {
        ChatFormat::Llama2 => LLAMA2,
        ChatFormat::Llama3 => LLAMA3,
        ChatFormat::DeepSeek3 => DEEPSEEK3,
        ChatFormat::ChatMl => CHATML,
    };
    let text = |id: Option<u32>| id.and_then(|id| std::str::from_utf8(vocab.bytes(id)?).ok()).unwrap_or_default();
    let header = vocab.header();
    let bos = text(header.bos.filter(|_| header.add_bos));
    let source = format!("{bos}{}", source.replace("EOS", text(header.eos.first().copied())));
    Ok(Template::new(format.name(), &source).map_err(GenerateError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::conversation;
    use crate::chat::conversation::{Conversation, Message, Role};
    use crate::chat::tokenizer::TokenizerBytes;
    use crate::synthetic;
    use dair_core::text;

    #[test]
    fn every_family_is_laid_out_as_core_does_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.t");
        synthetic::write_tokenizer(&path, 300).unwrap();
        let mut tokenizer = TokenizerBytes::open(&path).unwrap();
        let tokenizer = tokenizer.tokenizer(Some(300)).unwrap();
        let vocab = tokenizer.vocabulary();
        let said =
            [(Role::System, "be brief"), (Role::User, "one"), (Role::Assistant, " two\n"), (Role::User, "three")];
        for format in ChatFormat::ALL {
            for said in [&said[..2], &said[1..2], &said, &said[1..]] {
                let mut conversation = Conversation::new(template(vocab, Some(format)).unwrap(), None);
                conversation.restore(said.iter().map(|(role, text)| Message::new(*role, *text)).collect());
                let rendered = conversation.render(&tokenizer).unwrap();
                let core = |role| match role {
                    Role::System => text::Role::System,
                    Role::User => text::Role::User,
                    _ => text::Role::Assistant,
                };
                let messages: Vec<_> =
                    said.iter().map(|(role, text)| text::Message { role: core(*role), text }).collect();
                let mut expected = String::from("<s>");
                ChatTemplate::new(vocab, Some(format)).unwrap().render(&messages, &mut expected).unwrap();
                assert_eq!(rendered.text, expected, "{}", format.name());
                let tokens = conversation::encode(&tokenizer, &rendered).unwrap();
                assert_eq!(Some(tokens[0]), vocab.header().bos);
            }
        }
    }
}
