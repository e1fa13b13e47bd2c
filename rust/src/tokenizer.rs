//! Token counts that equal the model's own, without loading the model.
//!
//! Byte-level BPE comes from the vocabulary and merges in a GGUF header. No control token is registered, so text such
//! as `<|im_end|>` counts as the plain text it is, which is also how untrusted text reaches the model.
//! SentencePiece-like vocabularies are in `spm`.

pub mod spm;

use std::sync::{OnceLock, PoisonError, RwLock};

use ahash::AHashMap;
use rayon::prelude::*;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::error::Error;
use spm::Spm;

/// Pre-tokenizers by the name that GGUF files use in `tokenizer.ggml.pre`.
pub const PRE_TOKENIZERS: [&str; 5] = ["gpt-2", "smollm", "llama-bpe", "qwen2", "default"];

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

enum Kind {
    /// One token a UTF-8 byte, for people without a model.
    Bytes,
    Bpe(Box<tokenizers::Tokenizer>),
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

    /// `tokens[i]` is the text of id `i`; a merge is two token texts with one space between.
    pub fn bpe(tokens: Vec<String>, merges: &[String], pre: &str) -> Result<Self, Error> {
        let fail = |message: String| Error::Tokenizer { message };
        let pairs = merges
            .iter()
            .enumerate()
            .map(|(row, merge)| {
                merge
                    .split_once(' ')
                    .map(|(left, right)| (left.to_owned(), right.to_owned()))
                    .ok_or_else(|| Error::Value {
                        argument: "merges",
                        expected: "two token texts with a space between".to_owned(),
                        came: format!("{merge:?}"),
                        position: row,
                    })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let vocab: AHashMap<String, u32> = tokens.into_iter().zip(0u32..).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, pairs)
            .build()
            .map_err(|error| fail(format!("the vocabulary and its merges do not fit: {error}")))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(pre_tokenizer(pre)?));
        Ok(Self {
            kind: Kind::Bpe(Box::new(inner)),
            additive: OnceLock::new(),
            pieces: RwLock::default(),
        })
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
            Kind::Bpe(inner) => encode(inner, text).len(),
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
            Kind::Bytes | Kind::Bpe(_) => true,
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
            Kind::Bpe(inner) => encode(inner, text),
            Kind::Spm(inner) => {
                let mut ids = Vec::new();
                inner.each(text, true, &mut |id| ids.push(id));
                ids
            }
        }
    }
}

fn encode(inner: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    // Byte-level BPE without normalizer or length limit has a token for every byte, so encoding cannot fail.
    inner
        .encode_fast(text, false)
        .map(|encoding| encoding.get_ids().to_vec())
        .unwrap_or_default()
}

fn pre_tokenizer(name: &str) -> Result<PreTokenizerWrapper, Error> {
    let gpt2 = || PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true));
    let by_regex = |pattern: &str| -> Result<PreTokenizerWrapper, Error> {
        let split = Split::new(
            SplitPattern::Regex(pattern.to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(|error| Error::Tokenizer {
            message: format!("pre-tokenizer {name}: {error}"),
        })?;
        Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)),
        ])))
    };
    match name {
        "gpt-2" | "default" => Ok(gpt2()),
        "smollm" => Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
            PreTokenizerWrapper::Digits(Digits::new(true)),
            gpt2(),
        ]))),
        "llama-bpe" => by_regex(LLAMA3),
        "qwen2" => by_regex(QWEN2),
        other => Err(Error::Tokenizer {
            message: format!(
                "pre-tokenizer `{other}` is not one of {}; counts would not be exact",
                PRE_TOKENIZERS.join(", ")
            ),
        }),
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
        Tokenizer::bpe(tokens, &merges, "smollm").unwrap()
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
        let error = Tokenizer::bpe(vec!["a".into()], &[], "mystery")
            .err()
            .unwrap();
        assert!(error.to_string().contains("mystery"));
    }
}
