//! Descriptions and client names over `Limits::max_text`, which are cut before the character that does not fit.

use bytes::Bytes;

/// The text, or as much of it as `max` bytes have room for. A cut one is a copy, so that the rest does not
/// stay in memory.
pub(super) fn cut(text: Bytes, max: usize) -> Bytes {
    match cut_at(&text, max) {
        len if len < text.len() => Bytes::copy_from_slice(&text[..len]),
        _ => text,
    }
}

/// Where to cut a text: at its end, or before the character that does not fit into `max` bytes. A text that
/// is not UTF-8 is cut at `max` bytes, or up to three before.
pub(super) fn cut_at(text: &[u8], max: usize) -> usize {
    if text.len() <= max {
        return text.len();
    }
    // A character has at most four bytes, of which all but the first begin with the bits 10.
    let begins = |&at: &usize| text[at] & 0b1100_0000 != 0b1000_0000;
    (max.saturating_sub(3)..=max).rev().find(begins).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_within_its_limit_is_not_copied() {
        let text = Bytes::from(vec![b'a'; 100]);
        assert_eq!(cut(text.clone(), 100).as_ptr(), text.as_ptr());
    }

    #[test]
    fn a_text_over_its_limit_ends_with_a_whole_character() {
        // Characters of one to four bytes.
        let text = Bytes::from("a\u{e9}\u{20ac}\u{1f4be}b");
        let ends = [0, 1, 3, 6, 10, 11];
        for max in 0..=text.len() {
            let end = *ends.iter().rfind(|&&end| end <= max).unwrap();
            assert_eq!(cut(text.clone(), max), text[..end], "{max}");
        }
    }

    #[test]
    fn a_text_that_is_not_utf8_is_cut_at_most_3_bytes_below_its_limit() {
        for byte in [0x80, 0xbf, 0xff] {
            for max in 0..10 {
                let len = cut_at(&[byte; 20], max);
                assert!(len <= max && len + 3 >= max, "{byte:#x}: {len} of {max}");
            }
        }
    }
}
