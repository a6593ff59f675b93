//! The alphabet of byte-level vocabularies, GPT-2's: a character for every byte, none of them a blank or unprintable.

/// Characters of the alphabet lie below this one.
const END: usize = 0x144;

/// By byte: printable Latin-1 stands for itself, the others, in order, are U+0100 on.
const CHARACTERS: [char; 256] = {
    let mut characters = ['\0'; 256];
    let (mut byte, mut next) = (0, 0x100);
    while byte < 256 {
        characters[byte] = match byte as u8 {
            printable @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => printable as char,
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        };
        byte += 1;
    }
    characters
};

/// By character; those that are not in the alphabet have none.
const BYTES: [Option<u8>; END] = {
    let mut bytes = [None; END];
    let mut byte = 0;
    while byte < 256 {
        bytes[CHARACTERS[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
};

/// Every byte as its character.
pub fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| CHARACTERS[usize::from(*byte)]).collect()
}

/// The bytes that a text spells. A character outside the alphabet stands for its own UTF-8.
pub fn spelled(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match BYTES.get(c as usize) {
            Some(Some(byte)) => bytes.push(*byte),
            _ => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_character() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(spelled(&spell(&all)), all);
        assert_eq!(spell(b" a\n\xff"), "ĠaĊÿ");
        assert_eq!(spell(&[0, 0xad]), "\u{100}\u{143}", "the first and the last that stand for others");
    }

    #[test]
    fn characters_outside_the_alphabet_stand_for_themselves() {
        assert_eq!(spelled("日"), "日".as_bytes());
        assert_eq!(spelled("\u{144}"), "\u{144}".as_bytes());
        assert_eq!(spelled(" "), b" ", "a blank is no character of the alphabet");
    }
}
