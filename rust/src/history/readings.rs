//! The six readings: which contexts and which things share a line.
//!
//! All that `cheapest` asks took 489 ms a call of 5 million records on one thread; short sorts a bucket and hashes before
//! comparisons made 212 of it.

use super::lines::Lines;
use super::pieces::{Group, Pieces};
use super::sets::{Sets, NONE};
use super::write::{self, Things};
use crate::error::Error;

/// How things are grouped. The order breaks ties between equally short ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Contexts with equal sets of things share a line.
    Sequence,
    /// Things with equal sets of contexts share a line; each thing is written once.
    Item,
    /// `Sequence` inside one bucket.
    SequenceByBucket,
    /// `Item` inside one bucket.
    ItemByBucket,
    /// `Item`, but where a line would cost more in labels than its things do in other lines once more, they stand there.
    ItemSplit,
    /// In each bucket `SequenceByBucket` or `ItemByBucket`, whichever costs less there.
    ByBucket,
}

impl Layout {
    pub const ALL: [Self; 6] = [
        Self::Sequence,
        Self::Item,
        Self::SequenceByBucket,
        Self::ItemByBucket,
        Self::ItemSplit,
        Self::ByBucket,
    ];

    /// What `cheapest` asks, the shortest of which is taken.
    pub const RACE: [Self; 5] = [
        Self::Sequence,
        Self::Item,
        Self::SequenceByBucket,
        Self::ItemByBucket,
        Self::ItemSplit,
    ];

    /// What `cheapest` asks where texts are to keep their beginnings. In layouts over all buckets a new one moves early
    /// lines, since sets that were equal no longer are; and a choice for the whole text may change with any day.
    pub const STABLE: [Self; 1] = [Self::ByBucket];

    /// The layout at a row of `ALL`.
    pub fn from_row(row: usize) -> Result<Self, Error> {
        Self::ALL.get(row).copied().ok_or_else(|| Error::Value {
            argument: "layout",
            expected: format!("from 0 to {}", Self::ALL.len() - 1),
            came: row.to_string(),
            position: 0,
        })
    }
}

/// What happened to one thing in one bucket.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub thing: u32,
    pub bucket: u16,
    /// One bit a behavior.
    pub mask: u32,
}

impl Cell {
    #[inline]
    fn group(&self) -> Group {
        Group::new(self.bucket, self.mask)
    }
}

/// Scratch memory of the readings, reused from user to user.
#[derive(Default)]
pub struct Reader {
    sets: Sets,
    /// Per thing: its set in the closed and in the open part.
    set_of: Vec<u32>,
    counts: Vec<u32>,
    /// Lines by what decides their order.
    order: Vec<(Group, Group, u32)>,
    keys: Vec<u64>,
    contexts: Vec<Context>,
    /// Per set: tokens of its things; whether they stand in other lines.
    costs: Vec<u64>,
    split: Vec<bool>,
    path: Vec<Group>,
    /// Both readings by bucket.
    rivals: [Lines; 2],
}

impl Reader {
    /// Groups cells into lines. Cells come by bucket and, inside a bucket, each thing at most once; buckets from `open`
    /// on are open and share no line with closed ones.
    pub fn read(
        &mut self,
        cells: &[Cell],
        things: &Things,
        pieces: &mut Pieces<'_>,
        layout: Layout,
        open: u16,
        out: &mut Lines,
    ) {
        out.clear();
        match layout {
            Layout::Item => {
                self.walk(cells, things.rows.len(), open);
                self.item(things.rows.len(), out);
            }
            Layout::ItemSplit => {
                self.walk(cells, things.rows.len(), open);
                self.split(things, pieces);
                self.item(things.rows.len(), out);
            }
            Layout::ItemByBucket => self.item_by_bucket(cells, out),
            Layout::Sequence => self.sequence(cells, open, false, out),
            Layout::SequenceByBucket => self.sequence(cells, open, true, out),
            Layout::ByBucket => {
                let [mut sequence, mut item] = std::mem::take(&mut self.rivals);
                sequence.clear();
                self.sequence(cells, open, true, &mut sequence);
                item.clear();
                self.item_by_bucket(cells, &mut item);
                Self::cheaper(&sequence, &item, things, pieces, out);
                self.rivals = [sequence, item];
            }
        }
    }

    /// Takes the lines of each bucket from where they cost less, as if all of them went on; so what comes after them
    /// changes nothing. Both have lines of the same buckets, one group a line.
    fn cheaper(
        sequence: &Lines,
        item: &Lines,
        things: &Things,
        pieces: &mut Pieces<'_>,
        out: &mut Lines,
    ) {
        let bucket = |lines: &Lines, line: usize| lines.groups[line].bucket();
        let mut cost = |lines: &Lines, from: usize, to: usize| -> u64 {
            let labels = lines.groups[from..to]
                .iter()
                .map(|&group| pieces.label(group).count(true, true) + u64::from(pieces.bar))
                .sum::<u64>();
            let written = lines.things_of(from, to).iter();
            labels
                + written
                    .map(|&thing| write::cost(thing, things, pieces))
                    .sum::<u64>()
        };
        let mut from = [0, 0];
        while from[0] < sequence.len() {
            let now = bucket(sequence, from[0]);
            let to = [(sequence, from[0]), (item, from[1])].map(|(lines, from)| {
                (from..lines.len())
                    .find(|&line| bucket(lines, line) != now)
                    .unwrap_or(lines.len())
            });
            let (lines, place) = if cost(item, from[1], to[1]) < cost(sequence, from[0], to[0]) {
                (item, 1)
            } else {
                (sequence, 0)
            };
            out.append(lines, from[place], to[place]);
            from = to;
        }
    }

    /// Sets of groups as paths in a tree: a thing walks one step down for each of its cells, and things at the same
    /// node have the same set. Exact, and one look-up a cell. A walk over the tree, children in the order of their
    /// groups, meets the sets in the order of lines, which sorting lines by their sets did in a fifth more time.
    fn walk(&mut self, cells: &[Cell], things: usize, open: u16) {
        self.sets.clear(cells.len());
        self.set_of.clear();
        self.set_of.resize(2 * things, NONE);
        for cell in cells {
            let place = cell.thing as usize + if cell.bucket < open { 0 } else { things };
            self.set_of[place] = self.sets.step(self.set_of[place], cell.group());
        }
        self.counts.clear();
        self.counts.resize(self.sets.len(), 0);
        for &set in &self.set_of {
            self.counts[set as usize] += 1;
        }
        // Things without a set, so that no group that never stands alone seems to have some.
        self.counts[NONE as usize] = 0;
        self.split.clear();
        self.split.resize(self.counts.len(), false);
    }

    /// A line of a set costs its labels and its things; without it the things cost once more for each group but one, if
    /// each group has a line of its own anyway. Of heavy users with long texts half of the lines are for one thing.
    fn split(&mut self, things: &Things, pieces: &mut Pieces<'_>) {
        self.costs.clear();
        self.costs.resize(self.counts.len(), 0);
        for (place, &set) in self.set_of.iter().enumerate() {
            if set != NONE && self.sets.parent(set) != NONE {
                let thing = place % things.rows.len();
                self.costs[set as usize] += write::cost(thing as u32, things, pieces);
            }
        }
        for set in 1..self.sets.len() as u32 {
            if self.counts[set as usize] == 0 || self.sets.parent(set) == NONE {
                continue;
            }
            self.sets.path(set, &mut self.path);
            let labels = self.path.iter().map(|&group| pieces.label(group));
            let labels: u64 = labels.map(|label| label.count(true, true)).sum();
            let more = self.costs[set as usize] * (self.path.len() as u64 - 1);
            let alone = |&group: &Group| self.sets.alone(group) as usize;
            let counts = &mut self.counts;
            if more < labels + u64::from(pieces.bar)
                && self.path.iter().all(|group| counts[alone(group)] > 0)
            {
                for group in &self.path {
                    counts[alone(group)] += counts[set as usize];
                }
                counts[set as usize] = 0;
                self.split[set as usize] = true;
            }
        }
    }

    fn item(&mut self, things: usize, out: &mut Lines) {
        self.sets.link(&mut self.keys);
        let start = self.sets.walk(&mut self.counts, out);
        out.things.resize(start as usize, 0);
        let counts = &mut self.counts;
        let mut put = |set: u32, place: usize| {
            let to = &mut counts[set as usize];
            out.things[*to as usize] = if place < things {
                place
            } else {
                place - things
            } as u32;
            *to += 1;
        };
        for (place, &set) in self.set_of.iter().enumerate() {
            if set == NONE {
                continue;
            }
            if self.split[set as usize] {
                self.sets.path(set, &mut self.path);
                for &group in &self.path {
                    put(self.sets.alone(group), place);
                }
            } else {
                put(set, place);
            }
        }
    }

    fn item_by_bucket(&mut self, cells: &[Cell], out: &mut Lines) {
        for bucket in cells.chunk_by(|left, right| left.bucket == right.bucket) {
            self.keys.clear();
            let keys = bucket
                .iter()
                .map(|cell| u64::from(cell.mask) << 32 | u64::from(cell.thing));
            self.keys.extend(keys);
            self.keys.sort_unstable();
            for same in self.keys.chunk_by(|left, right| left >> 32 == right >> 32) {
                out.groups
                    .push(Group::new(bucket[0].bucket, (same[0] >> 32) as u32));
                out.things.extend(same.iter().map(|&key| key as u32));
                out.close();
            }
        }
    }

    /// Contexts with the same things stand together once they are sorted by scope, number and hash of their things; only
    /// where all three are equal are the things themselves compared.
    fn sequence(&mut self, cells: &[Cell], open: u16, by_bucket: bool, out: &mut Lines) {
        self.keys.clear();
        self.contexts.clear();
        for cells in cells.chunk_by(|left, right| left.bucket == right.bucket) {
            let bucket = cells[0].bucket;
            let first = self.keys.len();
            for cell in cells {
                let mut mask = cell.mask;
                while mask > 0 {
                    let behavior = u64::from(mask.trailing_zeros());
                    mask &= mask - 1;
                    self.keys.push(behavior << 32 | u64::from(cell.thing));
                }
            }
            // One bucket at a time: many short sorts are half as dear as a long one.
            self.keys[first..].sort_unstable();
            let mut start = first;
            for things in self.keys[first..].chunk_by(|left, right| left >> 32 == right >> 32) {
                self.contexts.push(Context {
                    scope: if by_bucket {
                        bucket
                    } else {
                        u16::from(bucket >= open)
                    },
                    len: things.len() as u32,
                    hash: things.iter().fold(0, |hash: u64, &key| {
                        (hash.rotate_left(5) ^ (key & 0xFFFF_FFFF)).wrapping_mul(MIX)
                    }),
                    start,
                    group: Group::new(bucket, 1 << (things[0] >> 32)),
                });
                start += things.len();
            }
        }
        let keys = &self.keys;
        let things = |context: &Context| {
            let keys = &keys[context.start..context.start + context.len as usize];
            keys.iter().map(|&key| key as u32)
        };
        self.contexts.sort_unstable_by(|left, right| {
            (left.scope, left.len, left.hash)
                .cmp(&(right.scope, right.len, right.hash))
                .then_with(|| things(left).cmp(things(right)))
                .then(left.start.cmp(&right.start))
        });
        // A context stands in one line only, so the first group decides the order of lines.
        self.order.clear();
        let mut start = 0;
        let same = |left: &Context, right: &Context| {
            (left.scope, left.len, left.hash) == (right.scope, right.len, right.hash)
                && things(left).eq(things(right))
        };
        for contexts in self.contexts.chunk_by(same) {
            let first = contexts
                .iter()
                .take_while(|context| context.group.bucket() == contexts[0].group.bucket())
                .fold(0, |mask, context| mask | context.group.mask());
            let group = Group::new(contexts[0].group.bucket(), first);
            self.order
                .push((group, Group(contexts.len() as u64), start));
            start += contexts.len() as u32;
        }
        self.order.sort_unstable();
        for &(_, count, start) in &self.order {
            let contexts = &self.contexts[start as usize..start as usize + count.0 as usize];
            for same in contexts.chunk_by(|left, right| left.group.bucket() == right.group.bucket())
            {
                let mask = same
                    .iter()
                    .fold(0, |mask, context| mask | context.group.mask());
                out.groups.push(Group::new(same[0].group.bucket(), mask));
            }
            out.things.extend(things(&contexts[0]));
            out.close();
        }
    }
}

/// One bucket and behavior, and its things among the keys.
#[derive(Debug, Clone, Copy)]
struct Context {
    /// Contexts of different scopes never share a line.
    scope: u16,
    len: u32,
    hash: u64,
    start: usize,
    group: Group,
}

/// The odd number nearest to 2^64 over the golden ratio: products with it spread well over the high bits.
pub const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
