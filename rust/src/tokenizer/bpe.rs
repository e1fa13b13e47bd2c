//! Byte-level BPE as llama.cpp encodes with the vocabularies it calls `gpt2`.
//!
//! User-defined tokens are taken out of the text first; the rest is cut into words by the patterns of the model's family,
//! and the bytes of a word join in the order of the merges.

use ahash::AHashMap;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::defined::{Defined, Part, USER_DEFINED};
use crate::error::Error;

/// Pre-tokenizers by the name that GGUF files use in `tokenizer.ggml.pre`.
pub const PRE_TOKENIZERS: [&str; 5] = ["gpt-2", "smollm", "llama-bpe", "qwen2", "default"];

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    "[0-9][0-9][0-9]",
];

pub struct Bpe {
    inner: tokenizers::Tokenizer,
    defined: Defined,
}

impl Bpe {
    /// `tokens[i]` is the text of id `i` and `types[i]` its type as in GGUF files; a merge is two token texts with one
    /// space between.
    pub fn new(
        tokens: Vec<String>,
        types: &[i32],
        merges: &[String],
        pre: &str,
    ) -> Result<Self, Error> {
        if types.len() != tokens.len() {
            return Err(Error::Length {
                left: "tokens",
                left_len: tokens.len(),
                right: "types",
                right_len: types.len(),
            });
        }
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
        let defined = (0u32..)
            .zip(&tokens)
            .zip(types)
            .filter(|(_, &kind)| kind == USER_DEFINED)
            .map(|((id, text), _)| (text.clone(), id));
        let defined = Defined::new(defined, false);
        let vocab: AHashMap<String, u32> = tokens.into_iter().zip(0u32..).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, pairs)
            // A whole word of a Llama 3 vocabulary is one token, whatever its merges would make of it.
            .ignore_merges(pre == "llama-bpe")
            .build()
            .map_err(|error| Error::Tokenizer {
                message: format!("the vocabulary and its merges do not fit: {error}"),
            })?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(pre_tokenizer(pre)?));
        Ok(Self { inner, defined })
    }

    /// Gives each id of a text.
    pub fn each(&self, text: &str, give: &mut impl FnMut(u32)) {
        for part in self.defined.parts(text) {
            match part {
                Part::Piece(id) => give(id),
                // There is a token for every byte, and neither normalizer nor limit: encoding cannot fail.
                Part::Text(text) => {
                    if let Ok(encoding) = self.inner.encode_fast(text, false) {
                        encoding.get_ids().iter().copied().for_each(&mut *give);
                    }
                }
            }
        }
    }

    /// Whether cutting a history before a space or after a line break leaves its user-defined tokens whole.
    pub fn adds_up(&self) -> bool {
        self.defined.adds_up(false)
    }
}

/// The patterns that llama.cpp has for a family: each one cuts what the ones before it left.
fn pre_tokenizer(name: &str) -> Result<PreTokenizerWrapper, Error> {
    // Its own pattern ends with one alternative more than llama.cpp's, `\s+`, for what no other takes: one word in both.
    let gpt2 = || PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true));
    let patterns: &[&str] = match name {
        "gpt-2" => return Ok(gpt2()),
        "smollm" => {
            return Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
                PreTokenizerWrapper::Digits(Digits::new(true)),
                gpt2(),
            ])))
        }
        "llama-bpe" => &[LLAMA3],
        "qwen2" => &[QWEN2],
        // Also what a file without a family's name gets.
        "default" => &DEFAULT,
        other => {
            return Err(Error::Tokenizer {
                message: format!(
                    "pre-tokenizer `{other}` is not one of {}; counts would not be exact",
                    PRE_TOKENIZERS.join(", ")
                ),
            })
        }
    };
    let mut steps = Vec::with_capacity(patterns.len() + 1);
    for pattern in patterns {
        let split = Split::new(
            SplitPattern::Regex((*pattern).to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(|error| Error::Tokenizer {
            message: format!("pre-tokenizer {name}: {error}"),
        })?;
        steps.push(PreTokenizerWrapper::Split(split));
    }
    // Each byte as a letter of its own; the words are cut already.
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(
        false, true, false,
    )));
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(steps)))
}
