//! SentencePiece-like tokenizers, as llama.cpp encodes with the vocabularies it calls `llama`.
//!
//! A space is written `▁`. Of all neighbours that together are a piece of the vocabulary, those whose piece scores
//! highest join first (the leftmost of equals), until none do; a character without a piece becomes its bytes.
//! User-defined pieces are taken out of the text before all that, longest first; with a prefix, text at the beginning
//! and after one of them gets a space in front.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use ahash::AHashMap;

use super::defined::{follows, Defined, Part, USER_DEFINED};
use crate::error::Error;

pub const SPACE: char = '▁';

pub struct Spm {
    /// Id and score of each piece.
    pieces: AHashMap<String, (u32, f32)>,
    bytes: [u32; 256],
    defined: Defined,
    pub prefix: bool,
}

/// Neighbours that may join: the best of all comes first out of a heap.
struct Pair {
    score: f32,
    left: Reverse<u32>,
    right: u32,
    len: u32,
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(self.left.cmp(&other.left))
    }
}

/// A piece of the text on its way: where it is and its neighbours; one that has joined another has length 0.
#[derive(Clone, Copy)]
struct Symbol {
    start: u32,
    len: u32,
    before: u32,
    after: u32,
}

const NONE: u32 = u32::MAX;

impl Spm {
    /// `scores` and `types` stand beside `tokens`; types as in GGUF files.
    pub fn new(
        tokens: Vec<String>,
        scores: &[f32],
        types: &[i32],
        prefix: bool,
        strip: bool,
    ) -> Result<Self, Error> {
        let fail = |message: String| Err(Error::Tokenizer { message });
        for (right, right_len) in [("scores", scores.len()), ("types", types.len())] {
            if right_len != tokens.len() {
                return Err(Error::Length {
                    left: "tokens",
                    left_len: tokens.len(),
                    right,
                    right_len,
                });
            }
        }
        if let Some(row) = scores.iter().position(|score| score.is_nan()) {
            return fail(format!(
                "token {row} of the vocabulary has no score but NaN"
            ));
        }
        let mut pieces = AHashMap::with_capacity(tokens.len());
        let mut user_defined = Vec::new();
        for (((id, text), &score), &kind) in (0u32..).zip(tokens).zip(scores).zip(types) {
            if text.is_empty() {
                continue;
            }
            if kind == USER_DEFINED {
                user_defined.push((text.clone(), id));
            }
            // Adding 0 makes -0 equal to 0, which it is as a score.
            pieces.insert(text, (id, score + 0.0));
        }
        let mut bytes = [0; 256];
        for (byte, id) in bytes.iter_mut().enumerate() {
            match pieces.get(&format!("<0x{byte:02X}>")) {
                Some(&(known, _)) => *id = known,
                None => {
                    return fail(format!(
                        "the vocabulary has no token <0x{byte:02X}>; all 256 are needed"
                    ))
                }
            }
        }
        if !pieces.contains_key("▁") {
            return fail("the vocabulary has no token `▁`, which stands for a space".to_owned());
        }
        Ok(Self {
            pieces,
            bytes,
            defined: Defined::new(user_defined, strip),
            prefix,
        })
    }

    /// Gives each id of a text; `first` tells whether the text begins with it, so that a prefix is due.
    pub fn each(&self, text: &str, first: bool, give: &mut impl FnMut(u32)) {
        let mut due = self.prefix && first;
        let mut joined = String::new();
        for part in self.defined.parts(text) {
            match part {
                Part::Piece(id) => {
                    give(id);
                    due = self.prefix;
                }
                Part::Text(text) => {
                    joined.clear();
                    if due {
                        joined.push(SPACE);
                    }
                    joined.extend(
                        text.chars()
                            .map(|letter| if letter == ' ' { SPACE } else { letter }),
                    );
                    self.join(&joined, give);
                    due = false;
                }
            }
        }
    }

    fn join(&self, text: &str, give: &mut impl FnMut(u32)) {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .zip(0u32..)
            .map(|((start, letter), row)| Symbol {
                start: start as u32,
                len: letter.len_utf8() as u32,
                before: row.wrapping_sub(1),
                after: row + 1,
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.after = NONE;
        }
        let mut pairs = BinaryHeap::new();
        let offer = |pairs: &mut BinaryHeap<Pair>, symbols: &[Symbol], left: u32, right: u32| {
            if left == NONE || right == NONE {
                return;
            }
            let start = symbols[left as usize].start as usize;
            let len = symbols[left as usize].len + symbols[right as usize].len;
            if let Some(&(_, score)) = self.pieces.get(&text[start..start + len as usize]) {
                pairs.push(Pair {
                    score,
                    left: Reverse(left),
                    right,
                    len,
                });
            }
        };
        for right in 1..symbols.len() as u32 {
            offer(&mut pairs, &symbols, right - 1, right);
        }
        while let Some(Pair {
            left: Reverse(left),
            right,
            len,
            ..
        }) = pairs.pop()
        {
            let (kept, gone) = (symbols[left as usize], symbols[right as usize]);
            // One of them has joined another since: whatever grew is longer, whatever went is 0.
            if kept.len == 0 || gone.len == 0 || kept.len + gone.len != len {
                continue;
            }
            symbols[right as usize].len = 0;
            symbols[left as usize].len = len;
            symbols[left as usize].after = gone.after;
            if gone.after != NONE {
                symbols[gone.after as usize].before = left;
            }
            offer(&mut pairs, &symbols, kept.before, left);
            offer(&mut pairs, &symbols, left, gone.after);
        }
        for symbol in symbols.iter().filter(|symbol| symbol.len > 0) {
            let piece = &text[symbol.start as usize..(symbol.start + symbol.len) as usize];
            match self.pieces.get(piece) {
                Some(&(id, _)) => give(id),
                None => piece
                    .bytes()
                    .for_each(|byte| give(self.bytes[byte as usize])),
            }
        }
    }

    /// Whether cutting a history before a space or after a line break is sure to leave its count as it is.
    ///
    /// Two neighbours join only into a piece of the vocabulary, so nothing ever joins across a cut that no piece
    /// crosses: each side then goes its way as if it stood alone, and the counts add up. What has to be looked at is
    /// therefore the vocabulary and not the text. The user-defined pieces are taken out by the text as it is, and after
    /// one of them a prefix is due, wherever the next piece of a history begins.
    pub fn adds_up(&self) -> bool {
        !self.pieces.keys().any(|piece| follows(piece, SPACE)) && self.defined.adds_up(self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spm(pieces: &[(&str, f32, i32)], prefix: bool) -> Result<Spm, Error> {
        let mut tokens: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
        let (mut scores, mut types) = (vec![0.0; 256], vec![6; 256]);
        for &(text, score, kind) in pieces {
            tokens.push(text.to_owned());
            scores.push(score);
            types.push(kind);
        }
        Spm::new(tokens, &scores, &types, prefix, false)
    }

    fn ids(spm: &Spm, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        spm.each(text, true, &mut |id| ids.push(id));
        ids
    }

    #[test]
    fn the_best_score_joins_first_and_the_leftmost_of_equals() {
        let pieces = [
            ("▁", 0.0, 1),
            ("a", 0.0, 1),
            ("aa", -1.0, 1),
            ("ab", -0.5, 1),
            ("▁a", -2.0, 1),
        ];
        let spm = spm(&pieces, false).unwrap();
        assert_eq!(ids(&spm, "aaa"), [258, 257]);
        // `b` alone has no piece.
        assert_eq!(ids(&spm, "aab b"), [257, 259, 256, 98]);
        assert_eq!(ids(&spm, " a"), [260]);
    }

    #[test]
    fn a_prefix_is_due_at_the_beginning_and_after_a_user_defined_piece() {
        let spm = spm(&[("▁", 0.0, 1), ("x", 0.0, 1), ("<u>", 0.0, 4)], true).unwrap();
        assert_eq!(ids(&spm, "x<u>x"), [256, 257, 258, 256, 257]);
        assert!(ids(&spm, "").is_empty());
    }

    #[test]
    fn counts_add_up_unless_a_piece_crosses_a_seam() {
        let adds = |piece: &str, kind: i32, prefix: bool| {
            spm(&[("▁", 0.0, 1), (piece, 0.0, kind)], prefix)
                .unwrap()
                .adds_up()
        };
        assert!(adds("▁▁", 1, true) && adds("▁tea", 1, true) && adds("\n\n", 4, false));
        assert!(!adds(",▁", 1, true) && !adds("\nr", 1, true) && !adds(", x", 4, false));
        assert!(!adds("<u>", 4, true) && adds("<u>", 4, false) && adds("<|u|>", 4, true));
    }

    #[test]
    fn lengths_and_scores_are_judged() {
        assert!(spm(&[("▁", f32::NAN, 1)], false).is_err());
        assert!(spm(&[("x", 0.0, 1)], false).is_err());
        assert!(Spm::new(vec!["▁".to_owned()], &[], &[1], false, false).is_err());
    }
}
