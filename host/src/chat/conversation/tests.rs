//! Conversations with a small model that nobody trained: what it says is nonsense, but always the same nonsense.

use super::*;
use crate::chat::template;
use crate::chat::tests::{forget, with_model};
use dair_core::text::{Filters, Sampler};

fn generator<'v>(vocab: &'v Tokenizer<'v>) -> Generator<'v> {
    Generator::new(vocab.vocabulary(), Sampler::new(0.0, 1.0, 1).unwrap(), Vec::new())
}

fn conversation(vocab: &Tokenizer<'_>, system: Option<&str>) -> Conversation {
    Conversation::new(template::choose(None, vocab.vocabulary()).unwrap().template, system.map(str::to_owned))
}

fn ask(chat: &mut Conversation, root: &mut Root<'_>, vocab: &Tokenizer<'_>, user: &str) -> Turn {
    chat.ask(root, &mut generator(vocab), vocab, user, 8, |_| ControlFlow::Continue(())).unwrap()
}

/// What a conversation with these messages answers whose cache is empty.
fn anew(messages: &[Message], root: &mut Root<'_>, vocab: &Tokenizer<'_>) -> Turn {
    let mut fresh = conversation(vocab, None);
    fresh.messages_mut().restore(messages.to_vec());
    forget(root);
    let turn = fresh.answer(root, &mut generator(vocab), vocab, 8, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(turn.answer.prefill.tokens as usize, (fresh.position() - turn.answer.decode.tokens) as usize);
    turn
}

/// The messages before the last answer.
fn asked(chat: &Conversation) -> Vec<Message> {
    let (last, before) = chat.messages().split_last().unwrap();
    assert_eq!(last.role, Role::Assistant);
    before.to_vec()
}

#[test]
fn answers_do_not_depend_on_what_the_cache_holds() {
    with_model(512, None, |root, vocab| {
        let mut chat = conversation(vocab, Some("be brief"));
        let mut check = |chat: &mut Conversation, user: &str, most_fed: usize| {
            let turn = ask(chat, root, vocab, user);
            let fed = turn.answer.prefill.tokens as usize;
            assert!(fed <= most_fed, "{user}: {fed} tokens were fed, {most_fed} are new");
            assert_eq!(chat.position(), turn.answer.position);
            // The cache of a fresh conversation is written over the same positions: this one must find its own again.
            let same = anew(&asked(chat), root, vocab);
            assert_eq!((same.text, same.answer.position), (turn.text, turn.answer.position), "{user}");
        };
        check(&mut chat, "name a fruit", 1000);
        check(&mut chat, "and another one", 70);
        assert_eq!(chat.messages_mut().pop_turn().as_deref(), Some("and another one"));
        check(&mut chat, "and another one", 70);
        assert_eq!(chat.messages().len(), 5);
        chat.messages_mut().set_system(Some("be long".to_owned()));
        check(&mut chat, "a third", 1000);
        assert!(chat.messages_mut().drop_oldest_turn());
        check(&mut chat, "a fourth", 1000);
        assert_eq!(
            (chat.messages().system(), chat.messages()[1].content.as_str()),
            (Some("be long"), "and another one")
        );
        chat.messages_mut().clear();
        assert_eq!(
            (chat.messages().len(), chat.messages_mut().drop_oldest_turn(), chat.messages_mut().pop_turn()),
            (1, false, None)
        );
        check(&mut chat, "name a fruit", 1000);
        chat.messages_mut().set_system(None);
        check(&mut chat, "x", 1000);
        assert_eq!(chat.messages()[0].role, Role::User);
    });
}

#[test]
fn a_question_asked_again_feeds_one_token() {
    with_model(512, None, |root, vocab| {
        let mut chat = conversation(vocab, None);
        let first = ask(&mut chat, root, vocab, "name a fruit");
        chat.messages_mut().pop_turn();
        let again = ask(&mut chat, root, vocab, "name a fruit");
        assert_eq!((again.text, again.answer.prefill.tokens), (first.text, 1));
    });
}

#[test]
fn penalties_count_what_the_cache_holds() {
    let filters = Filters { repeat_penalty: 1.5, presence_penalty: 0.5, last_n: 1000, ..Filters::OFF };
    with_model(512, None, |root, vocab| {
        let mut ask = |chat: &mut Conversation, filters, forgets: bool| {
            if forgets {
                forget(root);
            }
            let sampler = Sampler::new(0.0, 1.0, 1).unwrap().with(filters);
            let mut generator = Generator::new(vocab.vocabulary(), sampler, Vec::new());
            chat.ask(root, &mut generator, vocab, "name a fruit", 16, |_| ControlFlow::Continue(())).unwrap()
        };
        let plain = ask(&mut conversation(vocab, None), Filters::OFF, true).text;
        let mut chat = conversation(vocab, None);
        let first = ask(&mut chat, filters, true);
        assert_ne!(first.text, plain, "the penalties do nothing here");
        chat.messages_mut().pop_turn();
        let again = ask(&mut chat, filters, false);
        assert!(first.answer.prefill.tokens > 1);
        assert_eq!((again.text, again.answer.prefill.tokens), (first.text, 1));
    });
}

#[test]
fn an_interrupted_answer_is_part_of_the_conversation() {
    with_model(512, None, |root, vocab| {
        let mut chat = conversation(vocab, None);
        let mut pieces = 0;
        let stop = |_: Piece<'_>| {
            pieces += 1;
            if pieces == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let turn = chat.ask(root, &mut generator(vocab), vocab, "name a fruit", 100, stop).unwrap();
        assert_eq!(turn.answer.finish, Finish::Interrupted);
        assert_eq!(chat.messages().last().unwrap().content, turn.text);
        let next = ask(&mut chat, root, vocab, "go on");
        assert_eq!(anew(&asked(&chat), root, vocab).text, next.text);
        // Before anything was said there is no answer, and the question waits for one.
        let refuse = |piece: Piece<'_>| match piece {
            Piece::Prompt(..) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        };
        let mut silent = conversation(vocab, None);
        silent.ask(root, &mut generator(vocab), vocab, "a", 0, refuse).unwrap();
        assert_eq!(silent.messages().len(), 2, "an answer of no tokens that was asked for is an answer");
    });
}

#[test]
fn a_question_that_could_not_be_answered_is_kept_until_it_can() {
    with_model(64, None, |root, vocab| {
        let mut chat = conversation(vocab, None);
        ask(&mut chat, root, vocab, "hi");
        let long = "0 1 2 3 4 5 6 7 8 9 ".repeat(3);
        let mut try_it = |chat: &mut Conversation, user: &str| {
            chat.ask(root, &mut generator(vocab), vocab, user, 1, |_| ControlFlow::Continue(()))
        };
        assert!(matches!(try_it(&mut chat, &long), Err(GenerateError::PromptTooLong { .. })));
        assert_eq!(chat.messages().unanswered(), Some(long.as_str()));
        assert_eq!(chat.messages_mut().pop_turn(), Some(long));
        assert_eq!(chat.messages().len(), 2);
        assert!(matches!(
            try_it(&mut chat, "a question of forty characters and more"),
            Err(GenerateError::PromptTooLong { .. })
        ));
        assert!(chat.messages_mut().drop_oldest_turn());
        assert!(!chat.messages_mut().drop_oldest_turn(), "the question itself stays");
        chat.messages_mut().push_question("second");
        assert_eq!(chat.messages().unanswered(), Some("a question of forty characters and more\n\nsecond"));
        chat.messages_mut().pop_turn();
        let turn = try_it(&mut chat, "x").unwrap();
        assert_eq!(anew(&asked(&chat), root, vocab).text.chars().next(), turn.text.chars().next());
    });
}

#[test]
fn a_template_that_refuses_leaves_the_conversation_as_it_was() {
    with_model(256, None, |root, vocab| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jinja");
        std::fs::write(&path, "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x")
            .unwrap();
        let template = template::open(path.to_str().unwrap(), Some(vocab.vocabulary())).unwrap();
        let mut chat = Conversation::new(template, Some("S".to_owned()));
        chat.messages_mut().push_question("a");
        let error = chat.render(vocab).unwrap_err().to_string();
        assert!(error.ends_with("refuses the messages: no system"), "{error}");
        let mut generator = generator(vocab);
        assert!(chat.answer(root, &mut generator, vocab, 1, |_| ControlFlow::Continue(())).is_err());
        chat.messages_mut().set_system(None);
        assert_eq!(chat.messages().unanswered(), Some("a"));
        assert!(chat.answer(root, &mut generator, vocab, 1, |_| ControlFlow::Continue(())).is_ok());
    });
}

#[test]
fn messages_are_saved_as_the_openai_api_writes_them() {
    let messages = [
        Message::new(Role::System, "S"),
        Message { reasoning_content: Some("T".to_owned()), ..Message::new(Role::Assistant, "A") },
    ];
    let json = serde_json::to_string(&messages).unwrap();
    let expected = r#"[{"role":"system","content":"S"},{"role":"assistant","content":"A","reasoning_content":"T"}]"#;
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_str::<Vec<Message>>(&json).unwrap(), messages);
    assert!(serde_json::from_str::<Message>(r#"{"role":"friend","content":""}"#).is_err());
}
