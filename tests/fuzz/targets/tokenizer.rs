//! A `.t` file: read, written again, and used on a text that ends as the file does.

#![no_main]

use dair_core::format::tokenizer::{TokenizerFile, TokenizerWriter};
use dair_core::text::{EncodeOptions, Vocabulary};
use dair_host::chat::tokenizer::Tokenizer;

const TEXT: &str = "  The\n\n\u{2581}cat's 2024 \u{FF10}é日<|im_end|>\u{301}";

// Patterns are compiled, each up to some megabytes, whatever their length.
dair_fuzz::target!(96 << 20, 1 << 10, |bytes| {
    let file = match TokenizerFile::parse(bytes) {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return;
        }
    };
    write_again(&file);
    let mut index = vec![0; Vocabulary::index_len(file.header().vocab_size)];
    let tokenizer = match Tokenizer::new(&file, &mut index) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return;
        }
    };
    let tail = &bytes[bytes.len().saturating_sub(32)..];
    for text in [TEXT.as_bytes(), &[TEXT.as_bytes(), tail].concat()] {
        for special in [false, true] {
            for guard in [None, Some('\u{FDD0}')] {
                if let Ok(ids) = tokenizer.encode_guarded(text, guard, EncodeOptions { start: true, special }) {
                    assert!(ids.iter().all(|id| *id < file.header().vocab_size), "{ids:?}");
                    tokenizer.decode_text(&ids);
                }
            }
        }
    }
    tokenizer.decode_text(&[0, u32::MAX, file.header().vocab_size]);
});

/// What the writer takes of a file, the reader reads as it was.
fn write_again(file: &TokenizerFile<'_>) {
    let write = || {
        let mut writer = TokenizerWriter::new(Vec::new(), file.header())?;
        file.tokens().try_for_each(|(score, token)| writer.push(score, token))?;
        file.pipeline().map(|pipeline| writer.pipeline(pipeline)).transpose()?;
        writer.finish()
    };
    let Ok(bytes) = write() else { return };
    let again = TokenizerFile::parse(&bytes).expect("a tokenizer that was written");
    assert_eq!(again.header(), file.header());
    assert!(again.tokens().zip(file.tokens()).all(|(a, b)| (a.0.to_bits(), a.1) == (b.0.to_bits(), b.1)));
    assert_eq!(again.pipeline(), file.pipeline());
}
