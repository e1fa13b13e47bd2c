//! The least that a cut text can cost in each layout, kept up to date while a step moves a few of its things.
//!
//! Labels and things count as if something followed them, less what the ends of lines may save at most, so a text never
//! has fewer tokens than its floor; with the tokenizers that we know it has as many, or one or two more. A text is only
//! written where its floor fits the budget, mostly once a user. Halving over written texts took 10 to 19 times an
//! unbudgeted call, this takes 2 to 6; and as tokens do not fall with every step, it passed by some texts that fitted.

mod items;
mod sequences;

use std::ops::{AddAssign, SubAssign};

use ahash::AHashMap;

use super::pieces::{Group, Pieces};
use super::readings::{Layout, MIX};
use super::write::of_row_id;
use items::{Items, Set};
use sequences::Sequences;

/// Tokens as layouts weigh them, with a comma behind each piece, and at least.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    comma: i64,
    least: i64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.comma += other.comma;
        self.least += other.least;
    }
}

impl SubAssign for Cost {
    fn sub_assign(&mut self, other: Self) {
        self.comma -= other.comma;
        self.least -= other.least;
    }
}

/// What something adds to a text: tokens and lines.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    cost: Cost,
    lines: i64,
}

impl Part {
    fn line(costs: &[Cost]) -> Self {
        let mut part = Self {
            lines: 1,
            ..Self::default()
        };
        for &cost in costs {
            part.cost += cost;
        }
        part
    }

    /// Replaces one part by another.
    fn turn(&mut self, before: Self, after: Self) {
        self.cost += after.cost;
        self.cost -= before.cost;
        self.lines += after.lines - before.lines;
    }
}

/// What is written: a thing or a category, with its marks.
#[derive(Default)]
struct Written {
    cost: Cost,
    hash: u64,
    /// By bucket which behaviors.
    groups: Vec<(u16, u32)>,
    sets: [Set; 2],
}

/// Sums over the lines of a text in every layout that is asked for.
#[derive(Default)]
pub struct Floor {
    asked: [bool; 6],
    row_ids: bool,
    open: u16,
    bar: Cost,
    /// Tokens that the last thing of a text has less, at most.
    saved_at_end: i64,
    written: Vec<Written>,
    used: usize,
    /// Number of each thing without a mark for its count, and one more; 0 if there is none.
    plain: Vec<u32>,
    /// The same of all others, by whether it is a thing, its row and the count behind it.
    marked: AHashMap<(bool, u32, u64), u32>,
    items: Items,
    sequences: Sequences,
    /// Both readings of each bucket, and whichever costs less.
    buckets: AHashMap<u16, [Part; 2]>,
    by_bucket: [Part; 3],
    /// Tokens of the first so many row ids.
    ids: Vec<i64>,
}

/// Spreads a number over 64 bits, so that sums of some of them are as good as never equal by chance. If they are, the
/// floor is too low, and no more.
fn spread(number: u64) -> u64 {
    let mixed = (number ^ number >> 29).wrapping_mul(MIX);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(MIX);
    mixed ^ mixed >> 29
}

fn hash(group: Group) -> u64 {
    spread(group.0)
}

fn label(bucket: u16, mask: u32, pieces: &mut Pieces<'_>) -> Cost {
    if mask == 0 {
        return Cost::default();
    }
    let comma = pieces.label(Group::new(bucket, mask)).count(true, true) as i64;
    Cost {
        comma,
        least: comma,
    }
}

/// Of the readings of a bucket the one that `ByBucket` takes.
fn either([sequence, item]: [Part; 2]) -> Part {
    if item.cost.comma < sequence.cost.comma {
        item
    } else {
        sequence
    }
}

impl Floor {
    /// Empties all sums; `layouts` are those of which the least is wanted, `things` how many there are.
    pub fn clear(
        &mut self,
        layouts: &[Layout],
        things: usize,
        (open, row_ids): (u16, bool),
        pieces: &Pieces<'_>,
    ) {
        self.asked = Layout::ALL.map(|layout| layouts.contains(&layout));
        (self.row_ids, self.open) = (row_ids, open);
        let bar = i64::from(pieces.bar);
        self.bar = Cost {
            comma: bar,
            least: bar - pieces.saved(row_ids),
        };
        self.saved_at_end = 0;
        self.used = 0;
        self.plain.clear();
        self.plain.resize(things, 0);
        self.marked.clear();
        self.items.clear(layouts.contains(&Layout::ItemSplit));
        self.sequences.clear();
        self.buckets.clear();
        self.by_bucket = [Part::default(); 3];
    }

    fn asks(&self, layouts: &[Layout]) -> bool {
        layouts.iter().any(|&layout| self.asked[layout as usize])
    }

    /// The number of what is written; `weigh` gives its tokens before a comma, before a line break and at the end.
    pub fn number(&mut self, what: (bool, u32, u64), weigh: impl FnOnce() -> [u64; 3]) -> u32 {
        let (is_thing, row, shown) = what;
        let number = if is_thing && shown == 0 {
            &mut self.plain[row as usize]
        } else {
            self.marked.entry(what).or_default()
        };
        if *number > 0 {
            return *number - 1;
        }
        self.used += 1;
        *number = self.used as u32;
        if self.written.len() < self.used {
            self.written.push(Written::default());
        }
        let [comma, line, end] = weigh().map(|tokens| tokens as i64);
        let least = comma.min(line);
        self.saved_at_end = self.saved_at_end.max(least - end);
        let written = &mut self.written[self.used - 1];
        written.cost = Cost { comma, least };
        written.hash = spread(self.used as u64);
        written.groups.clear();
        written.sets = [Set::default(); 2];
        self.used as u32 - 1
    }

    /// Puts what is written into a context, or takes it out where it stands there.
    pub fn turn(&mut self, number: u32, bucket: u16, behavior: u32, pieces: &mut Pieces<'_>) {
        use Layout::{ByBucket, Item, ItemByBucket, ItemSplit, Sequence, SequenceByBucket};
        let by_bucket = self.asks(&[SequenceByBucket, ItemByBucket, ByBucket]);
        let (by_item, by_sequence) = (self.asks(&[Item, ItemSplit]), self.asks(&[Sequence]));
        let (open, bar) = (self.open, self.bar);
        let written = &mut self.written[number as usize];
        let place = written.groups.iter().position(|group| group.0 == bucket);
        let before = place.map_or(0, |place| written.groups[place].1);
        let after = before ^ 1 << behavior;
        match place {
            Some(place) if after == 0 => {
                written.groups.swap_remove(place);
            }
            Some(place) => written.groups[place].1 = after,
            None => written.groups.push((bucket, after)),
        }
        let change = (bucket, (before, after));
        if by_item {
            let is_open = bucket >= open;
            let same = written
                .groups
                .iter()
                .filter(|group| (group.0 >= open) == is_open);
            let groups = same.map(|&(bucket, mask)| Group::new(bucket, mask));
            let set = &mut written.sets[usize::from(is_open)];
            self.items
                .turn((written.cost, set), change, groups, bar, pieces);
        }
        let old = self.buckets.get(&bucket).copied().unwrap_or_default();
        let mut new = old;
        if by_bucket {
            self.items
                .turn_in_bucket(written.cost, change, &mut new[1], bar, pieces);
        }
        if by_sequence || by_bucket {
            let thing = (written.cost, written.hash, after > before);
            let context = (bucket, 1 << behavior, bucket >= open);
            self.sequences
                .turn(thing, context, &mut new[0], bar, pieces);
        }
        if by_bucket {
            self.buckets.insert(bucket, new);
            self.by_bucket[0].turn(old[0], new[0]);
            self.by_bucket[1].turn(old[1], new[1]);
            self.by_bucket[2].turn(either(old), either(new));
        }
    }

    /// No text has fewer tokens.
    pub fn least(&mut self, pieces: &mut Pieces<'_>) -> u64 {
        // In the order of `Layout::ALL`.
        let sums = [
            self.sequences.sum,
            self.items.sums[0],
            self.by_bucket[0],
            self.by_bucket[1],
            self.items.sums[1],
            self.by_bucket[2],
        ];
        let mut least = i64::MAX;
        for (sum, _) in sums.iter().zip(self.asked).filter(|pair| pair.1) {
            let ids = self.of_row_ids(sum.lines as usize, pieces);
            least = least.min(sum.cost.least - self.saved_at_end + ids);
        }
        least.max(0) as u64
    }

    fn of_row_ids(&mut self, lines: usize, pieces: &mut Pieces<'_>) -> i64 {
        if !self.row_ids || lines == 0 {
            return 0;
        }
        while self.ids.len() < lines {
            let before = self.ids.last().copied().unwrap_or(0);
            let id = of_row_id(self.ids.len(), pieces) as i64;
            self.ids.push(before + id);
        }
        self.ids[lines - 1]
    }
}
