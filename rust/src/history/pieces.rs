//! Labels, marks and their exact token counts, made once a thread.
//!
//! Counts are added piece by piece. Cutting before a space that stands between two other characters, and after a line
//! break that a digit or letter follows, is exact for every pre-tokenizer that `tokenizer.rs` accepts: none of their
//! patterns holds a space anywhere but at its beginning, nor goes on after a line break. `additive` checks that on the
//! tokenizer at hand; where it fails, whole texts are counted instead.

use ahash::AHashMap;

use super::catalogue::WIDE;
use super::dates::Dates;
use crate::calendar::iso;
use crate::tokenizer::Tokenizer;

/// Token counts of texts that were met before.
pub type Memo = AHashMap<String, u32>;

pub fn counted(tokenizer: &Tokenizer, memo: &mut Memo, text: &str) -> u32 {
    memo.get(text).copied().unwrap_or_else(|| {
        let count = tokenizer.count_inside(text) as u32;
        memo.insert(text.to_owned(), count);
        count
    })
}

/// Whether counts of pieces add up to the count of the whole, tried on the seams that histories have.
pub fn additive(tokenizer: &Tokenizer) -> bool {
    *tokenizer.additive.get_or_init(|| {
        let left = [
            "r12", "17-12-03", "undated", " (cart)", " (cart),", " |", " Tea,", " 2%", " a)",
            " \"tea\"", " é", " 茶",
        ];
        let right = [
            " 17-11", " (cart", " cart)", " |", " Tea", " 2%", " (a", " \"tea", " -", " #2", " x3",
            " é", " 茶",
        ];
        let adds = |left: &str, right: &str| {
            tokenizer.count_inside(&format!("{left}{right}"))
                == tokenizer.count_inside(left) + tokenizer.count_inside(right)
        };
        tokenizer.may_add_up()
            && left.iter().all(|left| {
                right.iter().all(|right| adds(left, right))
                    && ["17-11", "undated", "r2"]
                        .iter()
                        .all(|right| adds(&format!("{left}\n"), right))
            })
    })
}

/// The contexts of one bucket in one line: which bucket, and a bit for each behavior. Its order is the order of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

impl Group {
    #[inline]
    pub fn new(bucket: u16, mask: u32) -> Self {
        Self(u64::from(bucket) << 32 | u64::from(mask))
    }

    pub fn bucket(self) -> u16 {
        (self.0 >> 32) as u16
    }

    pub fn mask(self) -> u32 {
        self.0 as u32
    }
}

/// ` 17-12-03 (purchase, cart)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Where it stands in `Pieces::bytes`, its space included.
    pub start: u32,
    pub len: u32,
    /// Tokens at the beginning of a line (without the space) and after another piece; each before a bar or a comma.
    pub tokens: [[u32; 2]; 2],
}

impl Label {
    #[inline]
    pub fn count(&self, inner: bool, comma: bool) -> u64 {
        u64::from(self.tokens[usize::from(inner)][usize::from(comma)])
    }
}

const FREE: (Group, Label) = (
    Group(0),
    Label {
        start: 0,
        len: 0,
        tokens: [[0; 2]; 2],
    },
);

/// What one thread has written and counted so far.
pub struct Pieces<'a> {
    pub tokenizer: &'a Tokenizer,
    dates: &'a Dates,
    behaviors: &'a [String],
    long: bool,
    pub bytes: Vec<u8>,
    /// Open addressing by group; `Group(0)` is free, because no group is without a behavior.
    labels: Vec<(Group, Label)>,
    known: usize,
    memo: Memo,
    /// Tokens of `2017-12-03 (purchase) |` by stretch and behavior; `u32::MAX`: not counted yet.
    raw: Vec<u32>,
    pub bar: u32,
    /// Whether the first piece of a text counts as if a space stood before it.
    pub prefixes: bool,
}

impl<'a> Pieces<'a> {
    pub fn new(
        tokenizer: &'a Tokenizer,
        dates: &'a Dates,
        behaviors: &'a [String],
        long: bool,
    ) -> Self {
        Self {
            tokenizer,
            dates,
            behaviors,
            long,
            bytes: vec![0; WIDE],
            labels: vec![FREE; 1 << 10],
            known: 0,
            memo: Memo::default(),
            raw: vec![u32::MAX; dates.days.len() * behaviors.len()],
            bar: tokenizer.count_inside(" |") as u32,
            prefixes: tokenizer.prefixes(),
        }
    }

    #[inline]
    pub fn label(&mut self, group: Group) -> Label {
        let place = self.place(group);
        if self.labels[place].0 == group {
            self.labels[place].1
        } else {
            self.new_label(group)
        }
    }

    #[inline]
    fn place(&self, group: Group) -> usize {
        let mask = self.labels.len() - 1;
        let mut place = (group.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize & mask;
        while self.labels[place].0 != group && self.labels[place].0 != Group(0) {
            place = (place + 1) & mask;
        }
        place
    }

    #[cold]
    fn new_label(&mut self, group: Group) -> Label {
        if 2 * self.known > self.labels.len() {
            let old = std::mem::take(&mut self.labels);
            self.labels = vec![FREE; 2 * old.len()];
            for label in old.into_iter().filter(|label| *label != FREE) {
                let place = self.place(label.0);
                self.labels[place] = label;
            }
        }
        let mut text = format!(
            " {} (",
            self.dates.buckets[group.bucket() as usize].label(self.long)
        );
        for (behavior, name) in self.behaviors.iter().enumerate() {
            if group.mask() >> behavior & 1 == 1 {
                text.push_str(name);
                text.push_str(", ");
            }
        }
        text.truncate(text.len() - 2);
        text.push(')');
        let count = |text: &str| self.tokenizer.count_inside(text) as u32;
        let tokens = [&text[1..], &text].map(|text| [count(text), count(&format!("{text},"))]);
        if self.bytes.len() > 1 << 31 {
            // Places of labels are 32 bits wide, so now and then all are forgotten.
            self.labels.fill(FREE);
            self.known = 0;
            self.bytes.truncate(WIDE);
        }
        let start = self.bytes.len() - WIDE;
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.resize(self.bytes.len() + WIDE, 0);
        let label = Label {
            start: start as u32,
            len: text.len() as u32,
            tokens,
        };
        self.known += 1;
        let place = self.place(group);
        self.labels[place] = (group, label);
        label
    }

    /// Tokens of what stands before the item in the line of a single event.
    #[inline]
    pub fn raw(&mut self, stretch: usize, behavior: u32) -> u32 {
        let place = stretch * self.behaviors.len() + behavior as usize;
        match self.raw[place] {
            u32::MAX => {
                let text = self.raw_text(stretch, behavior);
                self.raw[place] = self.tokenizer.count_inside(&text) as u32;
                self.raw[place]
            }
            known => known,
        }
    }

    /// What the line of a single event costs more as the first one of a text.
    pub fn raw_prefix(&mut self, stretch: usize, behavior: u32) -> u32 {
        if !self.prefixes {
            return 0;
        }
        let text = format!(" {}", self.raw_text(stretch, behavior));
        self.count(&text)
            .saturating_sub(self.raw(stretch, behavior))
    }

    pub fn raw_text(&self, stretch: usize, behavior: u32) -> String {
        format!(
            "{} ({}) |",
            iso(self.dates.days[stretch]),
            self.behaviors[behavior as usize]
        )
    }

    /// Tokens of a row id or a mark, which begins a line or with a space.
    pub fn count(&mut self, text: &str) -> u32 {
        counted(self.tokenizer, &mut self.memo, text)
    }
}
