//! What lines name, prepared once for many calls: texts that can be copied in one piece, and their token counts.
//!
//! With text, length and tokens of an entry in one cache line a call of 5 million records on one thread took 178 ms in
//! place of 269.

use ahash::AHashMap;
use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;
use rayon::prelude::*;

use super::pieces::{additive, counted, Memo};
use crate::error::Error;
use crate::tokenizer::spm::SPACE;
use crate::tokenizer::Tokenizer;

/// Buffers into which slots are copied have this many bytes to spare.
pub const WIDE: usize = 48;

/// The text that an item without a brief gets begins so.
const NAMED: &str = "item ";

/// One entry: one cache line with all that a history needs of it. With texts in a buffer of their own an entry cost up
/// to three misses in place of one, and they were a third of the whole time.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Slot {
    /// The text with a space before it; where it is longer than this, its place among the long texts.
    head: [u8; WIDE],
    /// The category that it folds into, an entry, or `u32::MAX`.
    pub category: u32,
    /// Entries with equal texts have equal classes; the highest bit: there may be more than one.
    class: u32,
    /// Bytes of the text, with the space.
    pub len: u16,
    /// Tokens at the end of the text, before a comma and before a line break.
    pub text: u16,
    pub comma: u16,
    pub line: u16,
}

/// So that lengths and token counts fit their fields: a text never has more tokens than bytes.
const MAX_TEXT: i64 = 30_000;

const SHARED: u32 = 1 << 31;

impl Slot {
    /// The class of its text if another entry may have the same.
    #[inline]
    pub fn shared(&self) -> Option<u32> {
        (self.class & SHARED != 0).then_some(self.class)
    }

    /// The text and what follows it, if it is short.
    #[inline]
    pub fn short(&self) -> Option<&[u8; WIDE]> {
        (self.len as usize <= WIDE).then_some(&self.head)
    }

    fn place(&self) -> usize {
        let mut place = [0; 8];
        place.copy_from_slice(&self.head[..8]);
        u64::from_le_bytes(place) as usize
    }
}

/// Slots in huge pages where the system has them.
struct Arena {
    /// Zeroed and never moved; `None` if there are no slots, because nothing cannot be mapped.
    memory: Option<MmapMut>,
}

impl Arena {
    fn new(len: usize) -> Result<Self, Error> {
        let memory = (len > 0)
            .then(|| MmapMut::map_anon(len * size_of::<Slot>()))
            .transpose()
            .map_err(|error| Error::Value {
                argument: "texts",
                expected: format!("few enough for {} bytes of memory", len * size_of::<Slot>()),
                came: error.to_string(),
                position: len,
            })?;
        // Miri, which checks the tests, knows no advice to the system.
        #[cfg(all(target_os = "linux", not(miri)))]
        if let Some(memory) = &memory {
            // Where there are no huge pages, small ones do: slower and as right.
            let _ = memory.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { memory })
    }

    #[inline]
    fn slots(&self) -> &[Slot] {
        match &self.memory {
            Some(memory) => bytemuck::cast_slice(&memory[..]),
            None => &[],
        }
    }

    fn all(&mut self) -> &mut [Slot] {
        match &mut self.memory {
            Some(memory) => bytemuck::cast_slice_mut(&mut memory[..]),
            None => &mut [],
        }
    }
}

/// Items in the order of their ids, then categories.
pub struct Catalogue {
    slots: Arena,
    /// Texts that are too long for a slot, each with a space before it.
    long: Vec<u8>,
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
        let counts: Vec<[u16; 3]> = texts
            .par_iter()
            .map_init(Memo::default, |memo, text| forms(text, tokenizer, memo))
            .collect();
        let mut classes: AHashMap<&str, u32> = AHashMap::with_capacity(texts.len());
        let mut catalogue = Self {
            slots: Arena::new(texts.len())?,
            long: Vec::new(),
            named: AHashMap::new(),
        };
        for (row, (&text, [at_end, comma, line])) in texts.iter().zip(counts).enumerate() {
            let class = *classes.entry(text).or_insert(row as u32);
            let mut shared = 0;
            if class != row as u32 {
                catalogue.slots.all()[class as usize].class |= SHARED;
                shared = SHARED;
            }
            if text.starts_with(NAMED) {
                catalogue.named.insert(text.to_owned(), class | SHARED);
                shared = SHARED;
            }
            let head = catalogue.head(text);
            catalogue.slots.all()[row] = Slot {
                head,
                category: u32::try_from(categories[row]).unwrap_or(u32::MAX),
                class: class | shared,
                len: text.len() as u16 + 1,
                text: at_end,
                comma,
                line,
            };
        }
        Ok(catalogue)
    }

    pub fn count(&self) -> usize {
        self.slots.slots().len()
    }

    fn head(&mut self, text: &str) -> [u8; WIDE] {
        let mut head = [0; WIDE];
        if text.len() < WIDE {
            head[0] = b' ';
            head[1..=text.len()].copy_from_slice(text.as_bytes());
        } else {
            head[..8].copy_from_slice(&(self.long.len() as u64).to_le_bytes());
            self.long.push(b' ');
            self.long.extend_from_slice(text.as_bytes());
        }
        head
    }

    /// The text of one of its slots, with the space.
    fn text<'a>(&'a self, slot: &'a Slot) -> &'a [u8] {
        let len = slot.len as usize;
        match slot.short() {
            Some(head) => &head[..len],
            None => &self.long[slot.place()..slot.place() + len],
        }
    }
}

/// Entries of the catalogue, then those that one log brings along: items without a brief, queries, `-`.
pub struct Entries<'a> {
    base: &'a Catalogue,
    extra: Catalogue,
}

impl<'a> Entries<'a> {
    pub fn new(base: &'a Catalogue, mut extra: Catalogue) -> Self {
        let first = base.count() as u32;
        for row in 0..extra.count() {
            let slot = extra.slots.slots()[row];
            let same = std::str::from_utf8(&extra.text(&slot)[1..])
                .ok()
                .and_then(|text| base.named.get(text));
            extra.slots.all()[row].class = same.copied().unwrap_or(slot.class + first);
        }
        Self { base, extra }
    }

    pub fn count(&self) -> usize {
        self.base.count() + self.extra.count()
    }

    #[inline]
    pub fn slot(&self, entry: u32) -> &Slot {
        let known = self.base.slots.slots();
        match known.get(entry as usize) {
            Some(slot) => slot,
            None => &self.extra.slots.slots()[entry as usize - known.len()],
        }
    }

    /// The text of an entry, with the space before it.
    pub fn text(&self, entry: u32) -> &[u8] {
        let of = if (entry as usize) < self.base.count() {
            self.base
        } else {
            &self.extra
        };
        of.text(self.slot(entry))
    }
}

/// Token counts of a text after a space: at the end, before a comma, before a line break.
fn forms(text: &str, tokenizer: &Tokenizer, memo: &mut Memo) -> [u16; 3] {
    const ENDS: [&str; 3] = ["", ",", "\n"];
    let (head, last) = text.rsplit_once(' ').unwrap_or(("", text));
    // A `▁` of its own is a space to some tokenizers.
    let apart = |word: &str| {
        !word.is_empty() && !word.contains(|letter: char| letter.is_whitespace() || letter == SPACE)
    };
    let alone = head.is_empty() && !text.starts_with(' ');
    if !additive(tokenizer) || !(alone || head.split(' ').all(apart)) || !apart(last) {
        return ENDS.map(|end| tokenizer.count_inside(&format!(" {text}{end}")) as u16);
    }
    // The words of a catalogue are few, so nearly all of them have been counted before.
    let mut count = |word: &str, end: &str| counted(tokenizer, memo, &format!(" {word}{end}"));
    let before: u32 = head
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| count(word, ""))
        .sum();
    ENDS.map(|end| (before + count(last, end)) as u16)
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
    if let Some(position) = offsets
        .windows(2)
        .position(|pair| pair[1] - pair[0] > MAX_TEXT)
    {
        let came = format!("{} bytes long", offsets[position + 1] - offsets[position]);
        return Err(wrong(position, "at most 30,000 bytes apart", came));
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
