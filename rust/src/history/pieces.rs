//! Labels, marks and their exact token counts, made once a thread.
//!
//! Labels are counted from parts that the tokenizer remembers: with a real one a call of 5 million records on one thread
//! took 263 ms when each thread counted the texts of 20,000 labels, and 109 then.
//!
//! Counts are added piece by piece. Cutting before a space that stands between two other characters, and after a line
//! break that a digit or letter follows, is exact for every pre-tokenizer that `tokenizer.rs` accepts: none of their
//! patterns holds a space anywhere but at its beginning, nor goes on after a line break. `additive` checks that on the
//! tokenizer at hand; where it fails, whole texts are counted instead.

use ahash::AHashMap;

use super::catalogue::WIDE;
use super::dates::Dates;
use super::write::{self, Mark};
use super::Options;
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
    /// Whether tokens are counted at all.
    pub counting: bool,
    pub bytes: Vec<u8>,
    /// Open addressing by group; `Group(0)` is free, because no group is without a behavior.
    labels: Vec<(Group, Label)>,
    known: usize,
    memo: Memo,
    marks: AHashMap<Mark, [u32; 3]>,
    /// Tokens of each bucket's label at the beginning of a line and after a space.
    buckets: Vec<[u32; 2]>,
    /// Tokens of each behavior, first or not in its brackets, before `,`, `)` and `),`.
    named: Vec<[[u32; 3]; 2]>,
    /// Tokens of the date of each stretch; `u32::MAX`: not counted yet.
    days: Vec<u32>,
    /// Tokens of what follows the date in the line of a single event, ` (purchase) |`.
    pub events: Vec<u32>,
    pub bar: u32,
    /// Whether the first piece of a text counts as if a space stood before it.
    pub prefixes: bool,
}

impl<'a> Pieces<'a> {
    pub fn new(
        tokenizer: &'a Tokenizer,
        dates: &'a Dates,
        behaviors: &'a [String],
        options: &Options,
    ) -> Self {
        let mut pieces = Self {
            tokenizer,
            dates,
            behaviors,
            long: options.long_labels,
            counting: options.count,
            bytes: vec![0; WIDE],
            labels: vec![FREE; 1 << 10],
            known: 0,
            memo: Memo::default(),
            marks: AHashMap::new(),
            buckets: Vec::new(),
            named: Vec::new(),
            days: vec![u32::MAX; dates.days.len()],
            events: Vec::new(),
            bar: 0,
            prefixes: tokenizer.prefixes(),
        };
        pieces.bar = pieces.count(" |");
        for bucket in &dates.buckets {
            let label = bucket.label(options.long_labels);
            let tokens = [label.clone(), format!(" {label}")].map(|text| pieces.count(&text));
            pieces.buckets.push(tokens);
        }
        for name in behaviors {
            let tokens = [" (", " "].map(|start| {
                [",", ")", "),"].map(|end| pieces.count(&format!("{start}{name}{end}")))
            });
            pieces.named.push(tokens);
            pieces.events.push(tokens[0][1] + pieces.bar);
        }
        pieces
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
        let tokens = self.buckets[group.bucket() as usize]
            .map(|bucket| [1, 2].map(|end| bucket + self.of_behaviors(group.mask(), end)));
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

    /// Tokens that labels of a line have less than after spaces and before commas, at most: the first one without a space
    /// where lines have no numbers, the last one without a comma.
    pub fn saved(&self, row_ids: bool) -> i64 {
        let less = |from: u32, to: u32| i64::from(from) - i64::from(to);
        let at_start = self.buckets.iter().map(|label| less(label[1], label[0]));
        let ends = self.named.iter().flatten();
        let at_end = ends.map(|named| less(named[2], named[1])).max();
        let at_start = if row_ids { None } else { at_start.max() };
        at_start.unwrap_or(0).max(0) + at_end.unwrap_or(0).max(0)
    }

    /// Tokens of ` (purchase, cart)`, before what follows.
    fn of_behaviors(&self, mask: u32, end: usize) -> u32 {
        let last = mask.ilog2();
        (mask.trailing_zeros()..=last)
            .filter(|behavior| mask >> behavior & 1 == 1)
            .map(|behavior| {
                let inner = usize::from(behavior > mask.trailing_zeros());
                let end = if behavior == last { end } else { 0 };
                self.named[behavior as usize][inner][end]
            })
            .sum()
    }

    /// Tokens of a date at the beginning of a line.
    pub fn day(&mut self, stretch: usize) -> u32 {
        if self.days[stretch] == u32::MAX {
            self.days[stretch] = self.count(&iso(self.dates.days[stretch]));
        }
        self.days[stretch]
    }

    /// What a date costs more as the first word of a text.
    pub fn day_prefix(&mut self, stretch: usize) -> u32 {
        if !self.prefixes {
            return 0;
        }
        let after_space = self.count(&format!(" {}", iso(self.dates.days[stretch])));
        after_space.saturating_sub(self.day(stretch))
    }

    pub fn raw_text(&self, stretch: usize, behavior: u32) -> String {
        format!(
            "{} ({}) |",
            iso(self.dates.days[stretch]),
            self.behaviors[behavior as usize]
        )
    }

    /// Tokens of marks before a comma, before a line break, and as the end of a text.
    pub fn of_mark(&mut self, mark: Mark) -> [u32; 3] {
        if let Some(&counts) = self.marks.get(&mark) {
            return counts;
        }
        let counts = write::of_mark(mark, |text| self.count(text));
        self.marks.insert(mark, counts);
        counts
    }

    /// Tokens of a piece that begins a line or begins with a space; asked of the tokenizer once in its life.
    pub fn count(&mut self, text: &str) -> u32 {
        if let Some(&count) = self.memo.get(text) {
            return count;
        }
        let count = self.tokenizer.count_piece(text);
        self.memo.insert(text.to_owned(), count);
        count
    }
}
