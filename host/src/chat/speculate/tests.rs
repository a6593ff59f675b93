//! Answers with proposed tokens beside those without: the same, whatever is proposed.

use super::*;
use crate::chat::generate::{Answer, Event, Finish, Generator, Request};
use crate::chat::tests::{forget, with_model, with_preset};
use crate::chat::tokenizer::Tokenizer;
use crate::cluster::root::Root;
use dair_core::text::{Filters, Sampler};
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

/// Proposes what chance says: noise, or what comes, up to some place.
#[derive(Debug)]
struct Chance<'t> {
    state: u64,
    /// The answer without speculation, behind the prompt.
    right: &'t [u32],
    prompt: usize,
    vocab_size: u32,
}

impl Chance<'_> {
    fn below(&mut self, n: u32) -> u32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as u32 % n
    }
}

impl Proposer for Chance<'_> {
    fn begin(&mut self) {}

    fn look(&mut self, _: &[u32]) -> Option<Kind> {
        (self.below(4) > 0).then_some(Kind::Some)
    }

    fn propose(&mut self, tokens: &[u32], count: usize, out: &mut Vec<u32>) -> Result<(), RootError> {
        // More than were asked for, and tokens that there are not.
        let (length, right) = (self.below(count as u32 + 3), self.below(6));
        let next = self.right.get(tokens.len() - self.prompt..).unwrap_or_default();
        for index in 0..length {
            let token = next.get(index as usize).copied().filter(|_| index < right);
            let noise = self.below(self.vocab_size + 2);
            out.push(token.unwrap_or(noise));
        }
        Ok(())
    }
}

/// What an answer was: its tokens, its text piece by piece, and all else but times and proposals.
type Said = (Vec<u32>, Vec<String>, (Finish, u32, u32, u32, Option<u32>));

fn say(root: &mut Root<'_>, generator: &mut Generator<'_>, request: Request<'_>, pieces: usize) -> (Said, Answer) {
    let mut texts = Vec::new();
    let answer = generator
        .run(root, request, |event| {
            if let Event::Text(text) = event {
                texts.push(text.to_owned());
            }
            if pieces > 0 && texts.len() >= pieces { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    let Answer { finish, tokens, decode, position, pending, .. } = answer;
    ((generator.sampled().to_vec(), texts, (finish, tokens, decode.tokens, position, pending)), answer)
}

/// Ways of choosing tokens: greedy, of a nucleus, of the best, of all, with penalties.
fn samplers() -> Vec<Sampler> {
    let sampler = |temperature, top_p, seed| Sampler::new(temperature, top_p, seed).unwrap();
    let filters = |sampler: Sampler, top_k, min_p| sampler.with(Filters { top_k, min_p, ..Filters::OFF });
    let penalties = Filters { repeat_penalty: 1.3, presence_penalty: 0.1, frequency_penalty: 0.2, ..Filters::OFF };
    vec![
        sampler(0.0, 1.0, 1),
        sampler(0.3, 0.9, 2),
        sampler(1.0, 0.5, 3),
        filters(sampler(0.5, 1.0, 4), 5, 0.0),
        filters(sampler(0.9, 0.9, 5), 0, 0.2),
        sampler(0.7, 1.0, 6),
        sampler(0.0, 1.0, 7).with(Filters { last_n: 16, ..penalties }),
        sampler(0.4, 0.9, 8).with(Filters { last_n: 64, ..penalties }),
    ]
}

/// A prompt that repeats itself here and there.
fn prompt(seed: u32) -> Vec<u32> {
    (0..40).map(|i: u32| (i % 11 * (7 + seed) + i / 22 * 5 + seed) % 256).collect()
}

fn lookup(amount: Amount) -> Speculation<'static> {
    Speculation::new(amount, vec![Box::new(Lookup::new())])
}

const AMOUNTS: [Amount; 5] = [Amount::Auto, Amount::Fixed(1), Amount::Fixed(2), Amount::Fixed(7), Amount::Fixed(23)];

#[test]
fn answers_are_those_without_speculation_for_every_model_and_way_of_choosing() {
    for preset in ["tiny-llama", "tiny-llama31", "tiny-qwen3", "tiny-qwen3-moe"] {
        let mut all = Proposed::default();
        with_preset(preset, 256, None, |root, tokenizer| {
            for (sampler, seed) in samplers().into_iter().zip(0..) {
                let prompt = prompt(seed as u32);
                let request = Request { prompt: &prompt, position: 0, max_tokens: 80, ignore_eos: true };
                let new = || Generator::new(tokenizer.vocabulary(), sampler.clone(), Vec::new());
                let (plain, answer) = say(root, &mut new(), request, 0);
                assert_eq!(answer.proposed, Proposed::default());
                // All amounts for one of the models, one after the other for those beside it.
                let all_of_them = preset == "tiny-llama";
                let amounts = AMOUNTS.iter().enumerate().filter(|(index, _)| all_of_them || index % 5 == seed % 5);
                for (_, amount) in amounts {
                    let (got, answer) = say(root, &mut new().with(lookup(*amount)), request, 0);
                    assert_eq!(got, plain, "{preset}, {sampler:?}, {amount:?}");
                    all += answer.proposed;
                }
            }
        });
        assert!(all.accepted > 0 && all.accepted < all.proposed && all.passes < all.proposed, "{preset}: {all:?}");
    }
}

#[test]
fn no_proposal_changes_an_answer() {
    with_model(128, None, |root, tokenizer| {
        let vocab = tokenizer.vocabulary();
        let mut all = Proposed::default();
        for round in 0..120_u32 {
            let samplers = samplers();
            let sampler = &samplers[round as usize % samplers.len()];
            let prompt = prompt(round % 5);
            // To the end of the context, of what is asked for, or to an EOS.
            let max_tokens = [60, 1, 2, 200][round as usize % 4];
            let request = Request { prompt: &prompt, position: 0, max_tokens, ignore_eos: round % 3 > 0 };
            let stops = if round % 2 > 0 { vec!["ab".into(), "\u{3}".into()] } else { Vec::new() };
            // Somebody may have had enough.
            let pieces = if round % 7 == 6 { 5 } else { 0 };
            let new = || Generator::new(vocab, sampler.clone(), stops.clone());
            let (plain, _) = say(root, &mut new(), request, pieces);
            let chance = Chance {
                state: u64::from(round),
                right: &plain.0,
                prompt: prompt.len(),
                vocab_size: vocab.vocab_size(),
            };
            let amount = AMOUNTS[round as usize % AMOUNTS.len()];
            let speculation = Speculation::new(amount, vec![Box::new(chance)]);
            let (got, answer) = say(root, &mut new().with(speculation), request, pieces);
            assert_eq!(got, plain, "round {round}: {sampler:?}, {amount:?}, {max_tokens} tokens");
            all += answer.proposed;
        }
        assert!(all.accepted > 200 && all.proposed - all.accepted > 200, "{all:?}");
    });
}

/// A proposer that knows the answer, and notes how many tokens were fed by it.
#[derive(Debug)]
struct Knows<'t>(&'t [u32], usize, Rc<RefCell<Vec<usize>>>);

impl Proposer for Knows<'_> {
    fn begin(&mut self) {}

    fn look(&mut self, _: &[u32]) -> Option<Kind> {
        Some(Kind::Many)
    }

    fn propose(&mut self, tokens: &[u32], count: usize, out: &mut Vec<u32>) -> Result<(), RootError> {
        self.2.borrow_mut().push(count);
        out.extend(self.0[tokens.len() - self.1..].iter().take(count));
        Ok(())
    }
}

#[test]
fn who_knows_the_answer_needs_few_passes_and_never_asks_for_more_than_there_is_room() {
    with_model(128, None, |root, tokenizer| {
        let prompt = prompt(1);
        for (max_tokens, finish, counts) in [
            (30, Finish::MaxTokens, vec![9, 9, 8]),
            (11, Finish::MaxTokens, vec![9]),
            (200, Finish::Context, vec![9, 9, 9, 9, 9, 9, 9, 9, 7]),
        ] {
            let request = Request { prompt: &prompt, position: 0, max_tokens, ignore_eos: true };
            let new = || Generator::new(tokenizer.vocabulary(), Sampler::new(0.0, 1.0, 1).unwrap(), Vec::new());
            let (plain, _) = say(root, &mut new(), request, 0);
            let asked = Rc::new(RefCell::new(Vec::new()));
            let knows = Knows(&plain.0, prompt.len(), Rc::clone(&asked));
            let speculation = Speculation::new(Amount::Fixed(9), vec![Box::new(knows)]);
            let (got, answer) = say(root, &mut new().with(speculation), request, 0);
            assert_eq!((&got, got.2.0), (&plain, finish));
            assert_eq!(*asked.borrow(), counts, "{max_tokens}");
            let proposed = counts.iter().sum::<usize>() as u32;
            let passes = counts.len() as u32;
            assert_eq!(answer.proposed, Proposed { proposed, accepted: proposed, passes });
        }
    });
}

#[test]
fn nothing_is_proposed_behind_what_ends_an_answer_nor_what_is_no_token() {
    #[derive(Debug)]
    struct Says(&'static [u32]);
    impl Proposer for Says {
        fn begin(&mut self) {}
        fn look(&mut self, _: &[u32]) -> Option<Kind> {
            Some(Kind::Some)
        }
        fn propose(&mut self, _: &[u32], _: usize, out: &mut Vec<u32>) -> Result<(), RootError> {
            out.extend(self.0);
            Ok(())
        }
    }
    let next = |says, tokens| {
        let mut speculation = Speculation::new(Amount::Fixed(4), vec![Box::new(Says(says))]);
        speculation.begin();
        let room = Room { tokens, vocab_size: 100, ends: &[7] };
        speculation.next(&[1, 2], room).unwrap().to_vec()
    };
    assert_eq!(next(&[3, 4, 5, 6, 8], 9), [2, 3, 4, 5, 6]);
    assert_eq!(next(&[3, 4, 5, 6, 8], 2), [2, 3, 4]);
    assert_eq!(next(&[3, 4, 5, 6, 8], 0), [2]);
    assert_eq!(next(&[3, 7, 5], 9), [2, 3, 7]);
    assert_eq!(next(&[7], 9), [2, 7]);
    assert_eq!(next(&[3, 100, 7], 9), [2, 3]);
    assert_eq!(next(&[100], 9), [2]);
    assert_eq!(next(&[], 9), [2]);
}

#[test]
fn a_model_that_drafts_for_itself_is_always_right() {
    with_model(256, None, |root, tokenizer| {
        with_model(256, None, |same, _| {
            let (vocab, prompt) = (tokenizer.vocabulary(), prompt(2));
            let request = Request { prompt: &prompt, position: 0, max_tokens: 60, ignore_eos: true };
            let new = || Generator::new(vocab, Sampler::new(0.0, 1.0, 1).unwrap(), Vec::new());
            let (plain, _) = say(root, &mut new(), request, 0);
            let draft = Draft::new(same, vocab.vocab_size());
            let speculation = Speculation::new(Amount::Fixed(5), vec![Box::new(draft)]);
            let (got, answer) = say(root, &mut new().with(speculation), request, 0);
            assert_eq!(got, plain);
            // A token and five more in each pass.
            assert_eq!(answer.proposed, Proposed { proposed: 49, accepted: 49, passes: 10 });
        });
    });
}

/// Answers with a draft are those without; what became of its tokens.
fn drafted(root: &mut Root<'_>, tokenizer: &Tokenizer<'_>, draft: &mut Root<'_>) -> Proposed {
    let (vocab, mut all) = (tokenizer.vocabulary(), Proposed::default());
    for (sampler, seed) in samplers().into_iter().zip(0..) {
        let prompt = prompt(seed);
        let request = Request { prompt: &prompt, position: 0, max_tokens: 200, ignore_eos: true };
        let new = || Generator::new(vocab, sampler.clone(), Vec::new());
        let (plain, _) = say(root, &mut new(), request, 0);
        for amount in [Amount::Auto, Amount::Fixed(3), Amount::Fixed(10)] {
            let (lookup, model) = (Lookup::new(), Draft::new(draft, vocab.vocab_size()));
            let speculation = Speculation::new(amount, vec![Box::new(lookup), Box::new(model)]);
            let (got, answer) = say(root, &mut new().with(speculation), request, 0);
            assert_eq!(got, plain, "{sampler:?}, {amount:?}");
            all += answer.proposed;
        }
    }
    all
}

#[test]
fn another_model_may_draft_and_is_brought_back_where_it_was_wrong() {
    with_model(160, None, |root, tokenizer| {
        // The same one with a shorter context, and one that has nothing in common with it.
        with_preset("tiny-llama", 120, None, |short, _| {
            let all = drafted(root, tokenizer, short);
            assert!(all.accepted < all.proposed && all.accepted > 100, "{all:?}");
        });
        with_preset("tiny-qwen3", 160, None, |other, _| {
            let all = drafted(root, tokenizer, other);
            assert!(all.accepted < all.proposed / 2 && all.passes > 100, "{all:?}");
        });
    });
}

#[test]
fn tokens_of_a_draft_model_are_compared() {
    use crate::chat::tests::{Tokens, with_vocabulary};
    let with = |regular: &[&str], body: &dyn Fn(&dair_core::text::Vocabulary<'_>)| {
        with_vocabulary(&Tokens { regular, special: &["<s>", "</s>"], eos: 1 }, body);
    };
    with(&["ab", "cd"], &|model| {
        with(&["ab", "cd"], &|same| assert_eq!(check_same_tokens(same, model), Ok(())));
        with(&["ab", "ce"], &|other| assert_eq!(check_same_tokens(other, model), Err(Foreign::Token(257))));
        with(&["ab"], &|fewer| assert_eq!(check_same_tokens(fewer, model), Err(Foreign::Count(259, 260))));
    });
}

/// Conversations go on where they were: what was proposed in vain is not taken for cached.
#[test]
fn a_conversation_goes_on_as_without_speculation() {
    use crate::chat::conversation::Conversation;
    use crate::chat::template;
    with_model(1024, None, |root, tokenizer| {
        let talk = |root: &mut Root<'_>, tokenizer: &Tokenizer<'_>, speculation: Speculation<'static>| {
            let vocab = tokenizer.vocabulary();
            forget(root);
            let mut chat = Conversation::new(template::choose(None, vocab).unwrap().template, None);
            let mut generator = Generator::new(vocab, Sampler::new(0.3, 0.9, 5).unwrap(), Vec::new()).with(speculation);
            let (mut said, mut accepted) = (Vec::new(), 0);
            for (question, pieces) in [("aaaa bbbb aaaa", 0), ("aaaa bbbb", 7), ("once more, aaaa", 0), ("aaaa", 0)] {
                let mut heard = 0;
                let turn = chat
                    .ask(root, &mut generator, tokenizer, question, 60, |_| {
                        heard += 1;
                        if heard == pieces { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })
                    .unwrap();
                accepted += turn.answer.proposed.accepted;
                let Answer { finish, tokens, prefill, position, pending, .. } = turn.answer;
                said.push((turn.text, finish, tokens, prefill.tokens, position, pending, chat.position()));
            }
            (said, accepted)
        };
        let (plain, none) = talk(root, tokenizer, Speculation::off());
        let (got, some) = talk(root, tokenizer, lookup(Amount::Fixed(6)));
        assert_eq!((got, none), (plain, 0));
        assert!(some > 0);
    });
}
