//! What lines name, prepared once for many calls: texts that can be copied in one piece, and their token counts.

use ahash::AHashMap;
use rayon::prelude::*;

use super::pieces::{additive, counted, Memo};
use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// Texts are copied this many bytes at a time, so every buffer has as many to spare. Nearly all texts are shorter:
/// one copy of known length instead of a call with an unknown one.
pub const WIDE: usize = 64;

/// The text that an item without a brief gets begins so.
const NAMED: &str = "item ";

/// One entry; 32 bytes, so that all of it comes with one cache line.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Where its text begins, with the space before it.
    pub start: u64,
    /// Bytes, with the space.
    pub len: u32,
    /// Entries with equal texts have equal classes; the highest bit: there may be more than one.
    class: u32,
    /// Tokens before a line break, before a comma and at the end of the text.
    pub text: u32,
    pub comma: u32,
    pub line: u32,
    /// The category that it folds into, an entry, or `u32::MAX`.
    pub category: u32,
}

const SHARED: u32 = 1 << 31;

impl Entry {
    /// The class of its text if another entry may have the same.
    #[inline]
    pub fn shared(&self) -> Option<u32> {
        (self.class & SHARED != 0).then_some(self.class)
    }
}

/// Items in the order of their ids, then categories.
pub struct Catalogue {
    /// Every text with a space before it, and `WIDE` spare bytes at the end.
    pub bytes: Vec<u8>,
    pub entries: Vec<Entry>,
    /// Classes of texts that an item without a brief might be called by.
    named: AHashMap<String, u32>,
}

impl Catalogue {
    /// `offsets` cut `bytes` into texts; `categories` are rows of the texts, or -1.
    pub fn new(
        offsets: &[i64],
        bytes: &str,
        categories: &[i32],
        tokenizer: &Tokenizer,
    ) -> Result<Self, Error> {
        check(offsets, bytes, categories)?;
        let texts: Vec<&str> = offsets
            .windows(2)
            .map(|pair| &bytes[pair[0] as usize..pair[1] as usize])
            .collect();
        let counts: Vec<[u32; 3]> = texts
            .par_iter()
            .map_init(Memo::default, |memo, text| forms(text, tokenizer, memo))
            .collect();
        let mut classes: AHashMap<&str, u32> = AHashMap::with_capacity(texts.len());
        let mut entries: Vec<Entry> = Vec::with_capacity(texts.len());
        let mut arena = Vec::with_capacity(bytes.len() + texts.len() + WIDE);
        let mut named = AHashMap::new();
        for (row, (&text, [at_end, comma, line])) in texts.iter().zip(counts).enumerate() {
            let class = *classes.entry(text).or_insert(row as u32);
            let mut shared = 0;
            if class != row as u32 {
                entries[class as usize].class |= SHARED;
                shared = SHARED;
            }
            if text.starts_with(NAMED) {
                named.insert(text.to_owned(), class | SHARED);
                shared = SHARED;
            }
            entries.push(Entry {
                start: arena.len() as u64,
                len: text.len() as u32 + 1,
                class: class | shared,
                text: at_end,
                comma,
                line,
                category: u32::try_from(categories[row]).unwrap_or(u32::MAX),
            });
            arena.push(b' ');
            arena.extend_from_slice(text.as_bytes());
        }
        arena.resize(arena.len() + WIDE, 0);
        Ok(Self {
            bytes: arena,
            entries,
            named,
        })
    }

    fn text(&self, row: usize) -> &[u8] {
        let Entry { start, len, .. } = self.entries[row];
        &self.bytes[start as usize..start as usize + len as usize]
    }
}

/// Entries of the catalogue, then those that one log brings along: items without a brief, queries, `-`.
pub struct Entries<'a> {
    base: &'a Catalogue,
    extra: Catalogue,
}

impl<'a> Entries<'a> {
    pub fn new(base: &'a Catalogue, mut extra: Catalogue) -> Self {
        let first = base.entries.len() as u32;
        for row in 0..extra.entries.len() {
            let class = extra.entries[row].class + first;
            let same = std::str::from_utf8(&extra.text(row)[1..])
                .ok()
                .and_then(|text| base.named.get(text));
            extra.entries[row].class = same.copied().unwrap_or(class);
        }
        Self { base, extra }
    }

    pub fn len(&self) -> usize {
        self.base.entries.len() + self.extra.entries.len()
    }

    #[inline]
    pub fn get(&self, entry: u32) -> Entry {
        match self.base.entries.get(entry as usize) {
            Some(&known) => known,
            None => self.extra.entries[entry as usize - self.base.entries.len()],
        }
    }

    /// The buffer in which an entry's text stands.
    #[inline]
    pub fn bytes(&self, entry: u32) -> &[u8] {
        if (entry as usize) < self.base.entries.len() {
            &self.base.bytes
        } else {
            &self.extra.bytes
        }
    }
}

/// Token counts of a text after a space: at the end, before a comma, before a line break.
fn forms(text: &str, tokenizer: &Tokenizer, memo: &mut Memo) -> [u32; 3] {
    const ENDS: [&str; 3] = ["", ",", "\n"];
    let (head, last) = text.rsplit_once(' ').unwrap_or(("", text));
    let apart = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
    if !additive(tokenizer) || !(head.is_empty() || head.split(' ').all(apart)) || !apart(last)
    {
        return ENDS.map(|end| tokenizer.count(&format!(" {text}{end}")) as u32);
    }
    // The words of a catalogue are few, so nearly all of them have been counted before.
    let mut count = |word: &str, end: &str| counted(tokenizer, memo, &format!(" {word}{end}"));
    let before: u32 = head
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| count(word, ""))
        .sum();
    ENDS.map(|end| before + count(last, end))
}

fn check(offsets: &[i64], bytes: &str, categories: &[i32]) -> Result<(), Error> {
    let wrong = |position: usize, expected: &str, came: String| Error::Value {
        argument: "text offsets",
        expected: expected.to_owned(),
        came,
        position,
    };
    let ascending = format!("ascending from 0 to {}", bytes.len());
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        return Err(wrong(0, &ascending, "missing".to_owned()));
    };
    if first != 0 {
        return Err(wrong(0, &ascending, first.to_string()));
    }
    if let Some(position) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(wrong(
            position + 1,
            &ascending,
            offsets[position + 1].to_string(),
        ));
    }
    if last != bytes.len() as i64 {
        return Err(wrong(offsets.len() - 1, &ascending, last.to_string()));
    }
    if let Some(position) = offsets
        .iter()
        .position(|&offset| !bytes.is_char_boundary(offset as usize))
    {
        let came = offsets[position].to_string();
        return Err(wrong(position, "at the beginning of a character", came));
    }
    let texts = offsets.len() - 1;
    if categories.len() != texts {
        return Err(Error::Length {
            left: "texts",
            left_len: texts,
            right: "categories",
            right_len: categories.len(),
        });
    }
    match categories
        .iter()
        .position(|&row| row < -1 || i64::from(row) >= texts as i64)
    {
        None => Ok(()),
        Some(position) => Err(Error::Value {
            argument: "categories",
            expected: format!("a row from -1 to {}", texts as i64 - 1),
            came: categories[position].to_string(),
            position,
        }),
    }
}
