//! Token counts that equal the model's own, without loading the model.
//!
//! Byte-level BPE (`bpe`) and SentencePiece-like vocabularies (`spm`) come from a GGUF header. Control tokens are not
//! looked for, so text such as `<|im_end|>` counts as the plain text it is, which is also how untrusted text reaches the
//! model; user-defined tokens (`defined`) are, because llama.cpp finds them in any text.

pub mod bpe;
mod defined;
pub mod spm;

use std::sync::{OnceLock, PoisonError, RwLock};

use ahash::AHashMap;
use rayon::prelude::*;

use bpe::Bpe;
use spm::Spm;

enum Kind {
    /// One token a UTF-8 byte, for people without a model.
    Bytes,
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
}

/// Counts and encodes text exactly as one model does.
pub struct Tokenizer {
    kind: Kind,
    /// Whether counts of a history's pieces add up; `history::write` finds out once.
    pub(crate) additive: OnceLock<bool>,
    /// Counts of dates, labels and marks, which all calls share.
    pieces: RwLock<AHashMap<String, u32>>,
}

/// Pieces that are kept; there are as many dates in 170 years.
const PIECES: usize = 1 << 16;

impl Tokenizer {
    pub fn bytes() -> Self {
        Self {
            kind: Kind::Bytes,
            additive: OnceLock::new(),
            pieces: RwLock::default(),
        }
    }

    /// A byte-level BPE; see `Bpe::new`.
    pub fn bpe(bpe: Bpe) -> Self {
        Self {
            kind: Kind::Bpe(Box::new(bpe)),
            additive: OnceLock::new(),
            pieces: RwLock::default(),
        }
    }

    /// A SentencePiece-like one; see `Spm::new`.
    pub fn spm(spm: Spm) -> Self {
        Self {
            kind: Kind::Spm(Box::new(spm)),
            additive: OnceLock::new(),
            pieces: RwLock::default(),
        }
    }

    pub fn count(&self, text: &str) -> usize {
        self.count_from(text, true)
    }

    /// Tokens of a piece of a text: without what a tokenizer puts before the first one.
    pub fn count_inside(&self, piece: &str) -> usize {
        self.count_from(piece, false)
    }

    /// Like `count_inside`, remembered: for pieces that come again in every call.
    pub fn count_piece(&self, piece: &str) -> u32 {
        // A thread that panicked cannot leave a map of counts half written.
        let known = |pieces: &AHashMap<String, u32>| pieces.get(piece).copied();
        if let Some(count) = known(&self.pieces.read().unwrap_or_else(PoisonError::into_inner)) {
            return count;
        }
        let count = self.count_inside(piece) as u32;
        let mut pieces = self.pieces.write().unwrap_or_else(PoisonError::into_inner);
        if pieces.len() < PIECES {
            pieces.insert(piece.to_owned(), count);
        }
        count
    }

    fn count_from(&self, text: &str, first: bool) -> usize {
        match &self.kind {
            Kind::Bytes => text.len(),
            Kind::Bpe(inner) => {
                let mut count = 0;
                inner.each(text, &mut |_| count += 1);
                count
            }
            Kind::Spm(inner) => {
                let mut count = 0;
                inner.each(text, first, &mut |_| count += 1);
                count
            }
        }
    }

    /// Whether a space is put before a text, so that its first piece counts as if it had one.
    pub fn prefixes(&self) -> bool {
        matches!(&self.kind, Kind::Spm(inner) if inner.prefix)
    }

    /// `false` where the counts of a history's pieces may not add up; else worth a trial.
    pub fn may_add_up(&self) -> bool {
        match &self.kind {
            Kind::Bytes => true,
            Kind::Bpe(inner) => inner.adds_up(),
            Kind::Spm(inner) => inner.adds_up(),
        }
    }

    pub fn count_batch(&self, texts: &[&str]) -> Vec<u32> {
        texts
            .par_iter()
            .map(|text| self.count(text) as u32)
            .collect()
    }

    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &self.kind {
            Kind::Bytes => text.bytes().map(u32::from).collect(),
            Kind::Bpe(inner) => {
                let mut ids = Vec::new();
                inner.each(text, &mut |id| ids.push(id));
                ids
            }
            Kind::Spm(inner) => {
                let mut ids = Vec::new();
                inner.each(text, true, &mut |id| ids.push(id));
                ids
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Tokenizer {
        let tokens = ["a", "b", "ab", "Ġ", "Ġab", "1"]
            .map(str::to_owned)
            .to_vec();
        let merges = ["a b", "Ġ ab"].map(str::to_owned);
        Tokenizer::bpe(Bpe::new(tokens, &[1; 6], &merges, "smollm").unwrap())
    }

    #[test]
    fn merges_follow_the_list_and_digits_stand_alone() {
        assert_eq!(tiny().encode("ab ab11"), vec![2, 4, 5, 5]);
    }

    #[test]
    fn bytes_counts_utf8() {
        assert_eq!(Tokenizer::bytes().count("é1"), 3);
    }

    #[test]
    fn an_unknown_pre_tokenizer_is_refused() {
        let error = Bpe::new(vec!["a".into()], &[1], &[], "mystery")
            .err()
            .unwrap();
        assert!(error.to_string().contains("mystery"));
    }
}
