//! `dair perplexity`: how well a model predicts a text.

use super::model_args::ModelArgs;
use super::model_files::note_rule;
use super::text_args::TextArgs;
use super::{Failure, progress};
use crate::chat::tokenizer::TokenizerBytes;
use crate::machine::terminal;
use crate::model::Model;
use dair_core::text::EncodeOptions;
use serde_json::json;
use std::time::Instant;

const EXAMPLES: &str = "\
Examples:
  dair perplexity --model smollm2.m --file alice.txt
  dair perplexity --model smollm2.m --prompt 'The quick brown fox jumps over the lazy dog' --json";

/// Least probability that a token is given credit for, as in the C++ system.
const FLOOR: f64 = 1e-30;

/// Measure how well a model predicts a text: lower is better.
///
/// The perplexity is exp(-mean ln p) over all tokens but the first, each predicted from all before it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Print one JSON object
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print the number and nothing else
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let quiet = args.quiet || args.json;
    let text = args.text.read(quiet)?;
    let files = args.model.files(args.quiet)?;
    let model = Model::open(&files.model)?;
    let mut tokenizer = TokenizerBytes::open(&files.tokenizer)?;
    let tokenizer = tokenizer.tokenizer(Some(model.header().vocab_size))?;
    note_rule(&tokenizer, &files.tokenizer, args.quiet);
    let tokens = tokenizer.encode(text.as_bytes(), EncodeOptions { start: true, special: true })?;
    if tokens.len() < 2 {
        return Err(format!("the text has {} tokens; a perplexity needs at least 2", tokens.len()).into());
    }
    args.model.check_fits(&model, "text", tokens.len())?;
    args.model.with_root(&model, 0, progress::Words::of(args.quiet, args.json), |root| {
        let start = Instant::now();
        let mut sum = 0.0;
        let (given, predicted) = (&tokens[..tokens.len() - 1], &tokens[1..]);
        let bar = progress::prompt(quiet, given.len());
        root.forward_each(given, 0, |index, logits| {
            bar.set_position(index as u64 + 1);
            sum += log_probability(logits, predicted[index]);
        })?;
        bar.finish_and_clear();
        if !f64::is_finite(sum) {
            return Err("logits are not finite; the model file or the exchange between nodes is broken"
                .to_owned()
                .into());
        }
        let seconds = start.elapsed().as_secs_f64();
        let mean = sum / predicted.len() as f64;
        let perplexity = (-mean).exp();
        let bits = -mean / std::f64::consts::LN_2;
        if args.json {
            let rate = given.len() as f64 / seconds;
            terminal::print_line(
                json!({"perplexity": perplexity, "mean_log_probability": mean, "bits_per_token": bits,
                "tokens": tokens.len(), "seconds": seconds, "tokens_per_second": rate}),
            )?;
        } else if args.quiet {
            terminal::print_line(format_args!("{perplexity:.4}"))?;
        } else {
            let (predictions, rate) = (predicted.len(), given.len() as f64 / seconds);
            terminal::print_line(format_args!(
                "perplexity {perplexity:.4} over {predictions} predictions\n\
                 mean ln p  {mean:.6}, {bits:.4} bits per token, {rate:.1} tokens/s"
            ))?;
        }
        Ok(())
    })
}

/// ln of the softmax of `logits` at `token`; NaN where one of them is not finite.
fn log_probability(logits: &[f32], token: u32) -> f64 {
    // Broken logits are not hidden by the floor, whichever token they belong to.
    if !logits.iter().all(|logit| logit.is_finite()) {
        return f64::NAN;
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    // A token that the model has no output for is as good as impossible.
    let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    (f64::from(logit - max) - sum.ln()).max(FLOOR.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_have_a_floor_and_broken_logits_have_none() {
        let even = log_probability(&[2.0, 2.0, 2.0, 2.0], 3);
        assert!((even + 4f64.ln()).abs() < 1e-12, "{even}");
        assert_eq!(log_probability(&[0.0, -1e30], 1), FLOOR.ln());
        assert_eq!(log_probability(&[0.0, 1.0], 2), FLOOR.ln(), "the model has no such output");
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for token in 0..3 {
                assert!(log_probability(&[0.0, broken, 1.0], token).is_nan(), "{broken} beside {token}");
            }
            assert!(log_probability(&[broken], 0).is_nan());
        }
    }
}
