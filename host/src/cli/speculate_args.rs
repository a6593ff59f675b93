//! Flags that say whether tokens of an answer are guessed, and by whom.

use super::Failure;
use super::model_args::ModelArgs;
use super::model_files::ModelFiles;
use crate::chat::speculate::{Amount, Draft, Lookup, MOST, Proposer, Speculation, check_same_tokens};
use crate::chat::tokenizer::TokenizerBytes;
use crate::cluster::options::Options;
use crate::cluster::root::Root;
use crate::machine::pool::Threads;
use crate::model::Model;
use dair_core::text::Vocabulary;
use std::path::PathBuf;

/// Tokens that are guessed are computed several at a time; answers stay the same.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Speculation")]
pub struct SpeculateArgs {
    /// Guess what comes next from what was said before, and compute several tokens at once: as many as pay, none, or always N. The
    /// answer is the same, to the token
    #[arg(long, value_name = "auto|off|N", default_value = "auto", value_parser = wish)]
    speculate: Wish,
    /// Let a smaller model with the same tokens guess, too; it runs on this machine
    #[arg(long, value_name = "FILE")]
    draft: Option<PathBuf>,
}

/// What `--speculate` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Off,
    Some(Amount),
}

fn wish(text: &str) -> Result<Wish, String> {
    match text {
        "auto" => Ok(Wish::Some(Amount::Auto)),
        "off" => Ok(Wish::Off),
        _ => match text.parse() {
            Ok(count @ 1..=MOST) => Ok(Wish::Some(Amount::Fixed(count))),
            _ => Err(format!("allowed are auto, off, and 1 to {MOST}")),
        },
    }
}

/// How much is guessed, and the model that does it, if there is one.
#[derive(Debug)]
pub struct Speculator {
    /// `None`: nothing is.
    amount: Option<Amount>,
    draft: Option<(Model, Options, ModelFiles)>,
    vocab_size: u32,
}

impl SpeculateArgs {
    /// Opens the draft model, if there is one, for answers of at most `tokens` by `model`.
    ///
    /// # Errors
    /// Flags that do not go together; a model that can't be opened or has other tokens.
    pub fn open(
        &self,
        args: &ModelArgs,
        model: &Model,
        vocab: &Vocabulary<'_>,
        tokens: u32,
        quiet: bool,
    ) -> Result<Speculator, Failure> {
        let is_asked_for = self.draft.is_some() || matches!(self.speculate, Wish::Some(Amount::Fixed(_)));
        if self.draft.is_some() && self.speculate == Wish::Off {
            return Err(Failure::Usage("--draft guesses tokens, --speculate off wants none guessed".into()));
        }
        let is_relaxed = args.kernels.is_relaxed();
        if is_relaxed && is_asked_for {
            let why = "--prefill relaxed does not compute several tokens as it computes one: \
                       --speculate N and --draft, which do not change answers, need --prefill exact";
            return Err(Failure::Usage(why.into()));
        }
        let amount = match self.speculate {
            Wish::Some(amount) if !is_relaxed => Some(amount),
            _ => None,
        };
        let draft = self.draft.as_ref().map(|path| {
            let files = ModelFiles::of(path, quiet)?;
            let draft = Model::open(&files.model)?;
            let mut tokenizer = TokenizerBytes::open(&files.tokenizer)?;
            let tokenizer = tokenizer.tokenizer(Some(draft.header().vocab_size))?;
            check_same_tokens(tokenizer.vocabulary(), vocab)
                .map_err(|error| format!("--draft {}: {error}", path.display()))?;
            let options = args.draft_options(model, tokens)?;
            Ok::<_, Failure>((draft, options, files))
        });
        Ok(Speculator { amount, draft: draft.transpose()?, vocab_size: vocab.vocab_size() })
    }
}

impl Speculator {
    /// Hands what is to be guessed by to `body`; a draft model computes with the threads of `pool`.
    ///
    /// # Errors
    /// Where the draft model can't be prepared, and those of `body`.
    pub fn with<R>(
        &self,
        pool: &Threads,
        body: impl FnOnce(Speculation<'_>) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let Some(amount) = self.amount else { return body(Speculation::off()) };
        let lookup = Box::new(Lookup::new());
        let Some((model, options, _)) = &self.draft else {
            return body(Speculation::new(amount, vec![lookup]));
        };
        let mut root = Root::new(model, options, pool, &|_| ())?;
        root.session()?;
        let proposers: Vec<Box<dyn Proposer + '_>> = vec![lookup, Box::new(Draft::new(&mut root, self.vocab_size))];
        body(Speculation::new(amount, proposers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_two_words_are_taken() {
        assert_eq!(wish("auto"), Ok(Wish::Some(Amount::Auto)));
        assert_eq!(wish("off"), Ok(Wish::Off));
        assert_eq!(wish("7"), Ok(Wish::Some(Amount::Fixed(7))));
        assert_eq!(wish(&MOST.to_string()), Ok(Wish::Some(Amount::Fixed(MOST))));
        for text in ["0", "24", "-1", "on", "", "1.5", "99999999999"] {
            assert_eq!(wish(text), Err("allowed are auto, off, and 1 to 23".into()), "{text}");
        }
    }
}
