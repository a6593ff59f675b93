//! How many rows of a model may belong to no token.

/// Rows that may be padding in a model of `rows` rows: 1/32 of them, 127 at least.
///
/// Trainers round the number of rows up so that it divides well among processors. Published: Phi-3 32,011 tokens in 32,064
/// rows, Qwen 2.5 and 3 151,665 in 151,936 or 152,064, DeepSeek V3 128,815 in 129,280, Phi-2 50,295 in 51,200, DeepSeek LLM 100,015
/// in 102,400 (2.3 %, the most that is known). Rounding up to 128 is common, whatever the size.
pub const fn max_padding(rows: u32) -> u32 {
    let share = rows / 32;
    if share > 127 { share } else { 127 }
}

/// Whether a tokenizer of `tokens` tokens may belong to a model of `rows` rows: what is left over is padding.
pub const fn is_padding(tokens: u32, rows: u32) -> bool {
    tokens <= rows && rows - tokens <= max_padding(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_models_are_padded_no_more_than_allowed() {
        // Llama 3, SmolLM2, Phi-3, Qwen 2.5 and 3, DeepSeek V3, Phi-2, DeepSeek LLM, Pythia, gpt-oss.
        for (tokens, rows) in [
            (128_256, 128_256),
            (49_152, 49_152),
            (32_011, 32_064),
            (151_665, 151_936),
            (151_643, 152_064),
            (151_669, 151_936),
            (128_815, 129_280),
            (50_295, 51_200),
            (100_015, 102_400),
            (50_277, 50_688),
            (200_019, 201_088),
        ] {
            assert!(is_padding(tokens, rows), "{tokens} of {rows}");
        }
    }

    #[test]
    fn the_tokenizer_of_another_model_is_not_made_up_for_by_padding() {
        for (tokens, rows) in [
            (504, 49_152),
            (32_000, 49_152),
            (49_152, 128_256),
            (128_256, 151_936),
            (151_936, 128_256),
            (32_001, 32_000),
            (0, 128),
            (0, u32::MAX),
            (u32::MAX, 0),
        ] {
            assert!(!is_padding(tokens, rows), "{tokens} of {rows}");
        }
        assert!(is_padding(1, 128) && is_padding(u32::MAX, u32::MAX));
    }
}
