//! The least that a cut text can cost in each layout, kept up to date while a step moves a few of its things.
//!
//! Labels and things count as if something followed them, less what the ends of lines may save at most, so a text never
//! has fewer tokens than its floor; with the tokenizers that we know it has as many, or one or two more. A text is only written where its floor fits the budget,
//! mostly once a user: halving over written texts took 10 to 19 times an unbudgeted call, and as tokens do not fall with
//! every step, it passed by some texts that fitted (docs/log.md).

use std::ops::{AddAssign, SubAssign};

use ahash::AHashMap;

use super::pieces::{Group, Pieces};
use super::readings::{Layout, MIX};
use super::write::of_row_id;

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
    fn turn(&mut self, before: Self, after: Self) {
        self.cost += after.cost;
        self.cost -= before.cost;
        self.lines += after.lines - before.lines;
    }
}

/// The contexts of a thing in the closed or the open part: a hash that does not ask for their order.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    hash: u64,
    labels: Cost,
    len: u32,
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

/// The things with one set of contexts.
#[derive(Default)]
struct ItemLine {
    things: u32,
    cost: Cost,
    set: Set,
    /// How many of its contexts no other line has alone.
    missing: u32,
}

/// One bucket and behavior, and its things.
#[derive(Debug, Clone, Copy, Default)]
struct Context {
    hash: u64,
    things: u32,
    cost: Cost,
}

/// Contexts with one set of things.
#[derive(Default)]
struct SequenceLine {
    contexts: u32,
    labels: Cost,
}

/// Rows of the sums.
const SEQUENCE: usize = Layout::Sequence as usize;
const ITEM: usize = Layout::Item as usize;
const SEQUENCES: usize = Layout::SequenceByBucket as usize;
const ITEMS: usize = Layout::ItemByBucket as usize;
const SPLIT: usize = Layout::ItemSplit as usize;
const EITHER: usize = Layout::ByBucket as usize;

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
    /// Number of what is written, by whether it is a thing, its row and the count behind it.
    numbers: AHashMap<(bool, u32, u64), u32>,
    items: AHashMap<u64, ItemLine>,
    /// Lines of several contexts by each of these.
    holders: AHashMap<u64, Vec<u64>>,
    /// Things by bucket and all their behaviors in it.
    groups: AHashMap<Group, u32>,
    contexts: AHashMap<Group, Context>,
    sequences: AHashMap<u64, SequenceLine>,
    /// Behaviors of a line in one bucket.
    masks: AHashMap<(u64, u16), u32>,
    /// Both readings of each bucket.
    buckets: AHashMap<u16, [Part; 2]>,
    sums: [Part; 6],
    /// Tokens of the first so many row ids.
    ids: Vec<i64>,
}

/// Spreads a number over 64 bits, so that sums of some of them are as good as never equal by chance.
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

impl Floor {
    /// Empties all sums; `layouts` are those of which the least is wanted.
    pub fn clear(&mut self, layouts: &[Layout], open: u16, row_ids: bool, pieces: &Pieces<'_>) {
        self.asked = Layout::ALL.map(|layout| layouts.contains(&layout));
        (self.row_ids, self.open) = (row_ids, open);
        let bar = i64::from(pieces.bar);
        self.bar = Cost {
            comma: bar,
            least: bar - pieces.saved(row_ids),
        };
        self.saved_at_end = 0;
        self.used = 0;
        self.numbers.clear();
        self.items.clear();
        self.holders.clear();
        self.groups.clear();
        self.contexts.clear();
        self.sequences.clear();
        self.masks.clear();
        self.buckets.clear();
        self.sums = [Part::default(); 6];
        // Row ids cost the same in all texts of a call.
        if self.ids.is_empty() {
            self.ids.push(0);
        }
    }

    /// The number of what is written; `weigh` gives its tokens before a comma, before a line break and at the end.
    pub fn number(&mut self, what: (bool, u32, u64), weigh: impl FnOnce() -> [u64; 3]) -> u32 {
        *self.numbers.entry(what).or_insert_with(|| {
            let number = self.used;
            self.used += 1;
            if self.written.len() < self.used {
                self.written.push(Written::default());
            }
            let written = &mut self.written[number];
            let [comma, line, end] = weigh().map(|tokens| tokens as i64);
            let least = comma.min(line);
            written.cost = Cost { comma, least };
            self.saved_at_end = self.saved_at_end.max(least - end);
            written.hash = spread(number as u64 + 1);
            written.groups.clear();
            written.sets = [Set::default(); 2];
            number as u32
        })
    }

    /// Puts what is written into a context, or takes it out where it stands there.
    pub fn turn(&mut self, number: u32, bucket: u16, behavior: u32, pieces: &mut Pieces<'_>) {
        let asked = |layouts: &[usize]| layouts.iter().any(|&layout| self.asked[layout]);
        let by_bucket = asked(&[SEQUENCES, ITEMS, EITHER]);
        let (by_items, by_sequence) = (asked(&[ITEM, SPLIT]), asked(&[SEQUENCE]) || by_bucket);
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
        if by_items {
            self.turn_item(number, bucket, (before, after), pieces);
        }
        let old = self.buckets.get(&bucket).copied().unwrap_or_default();
        let mut sides = old;
        if by_bucket {
            self.turn_group(number, bucket, (before, after), &mut sides[1], pieces);
        }
        if by_sequence {
            let added = after > before;
            self.turn_context(number, (bucket, behavior), added, &mut sides[0], pieces);
        }
        if by_bucket {
            self.buckets.insert(bucket, sides);
            let either = |sides: [Part; 2]| {
                if sides[1].cost.comma < sides[0].cost.comma {
                    sides[1]
                } else {
                    sides[0]
                }
            };
            self.sums[SEQUENCES].turn(old[0], sides[0]);
            self.sums[ITEMS].turn(old[1], sides[1]);
            self.sums[EITHER].turn(either(old), either(sides));
        }
    }

    fn turn_item(
        &mut self,
        number: u32,
        bucket: u16,
        (before, after): (u32, u32),
        pieces: &mut Pieces<'_>,
    ) {
        let scope = usize::from(bucket >= self.open);
        let written = &mut self.written[number as usize];
        let old = written.sets[scope];
        let mut new = old;
        for (mask, sign) in [(before, false), (after, true)] {
            if mask == 0 {
                continue;
            }
            let (hash, label) = (hash(Group::new(bucket, mask)), label(bucket, mask, pieces));
            if sign {
                new.hash = new.hash.wrapping_add(hash);
                new.labels += label;
                new.len += 1;
            } else {
                new.hash = new.hash.wrapping_sub(hash);
                new.labels -= label;
                new.len -= 1;
            }
        }
        written.sets[scope] = new;
        let cost = written.cost;
        if old.len > 0 {
            self.change(old.hash, |line| {
                line.things -= 1;
                line.cost -= cost;
            });
        }
        if new.len > 0 {
            if self.asked[SPLIT] && new.len > 1 && !self.items.contains_key(&new.hash) {
                self.hold(number, scope, new.hash);
            }
            self.change(new.hash, |line| {
                line.set = new;
                line.things += 1;
                line.cost += cost;
            });
        }
    }

    /// Notes the contexts of a new line, and how many of them no line has alone.
    fn hold(&mut self, number: u32, scope: usize, line: u64) {
        let mut missing = 0;
        for &(bucket, mask) in &self.written[number as usize].groups {
            if usize::from(bucket >= self.open) == scope {
                let alone = hash(Group::new(bucket, mask));
                self.holders.entry(alone).or_default().push(line);
                missing += u32::from(self.items.get(&alone).is_none_or(|line| line.things == 0));
            }
        }
        self.items.entry(line).or_default().missing = missing;
    }

    /// Changes a line and the sums; where it is one of a single context, also whether others may give way to it.
    fn change(&mut self, hash: u64, change: impl FnOnce(&mut ItemLine)) {
        let line = self.items.entry(hash).or_default();
        let before = Self::parts(line, self.bar);
        let was = line.things > 0;
        change(line);
        let after = Self::parts(line, self.bar);
        let (is, len) = (line.things > 0, line.set.len);
        self.sums[ITEM].turn(before[0], after[0]);
        self.sums[SPLIT].turn(before[1], after[1]);
        if was == is || len != 1 || !self.asked[SPLIT] {
            return;
        }
        let Some(holders) = self.holders.get(&hash) else {
            return;
        };
        for holder in holders {
            let Some(line) = self.items.get_mut(holder) else {
                continue;
            };
            let before = Self::parts(line, self.bar);
            line.missing = if is {
                line.missing - 1
            } else {
                line.missing + 1
            };
            self.sums[SPLIT].turn(before[1], Self::parts(line, self.bar)[1]);
        }
    }

    /// What a line adds in `Item` and in `ItemSplit`, where its things may stand in other lines.
    fn parts(line: &ItemLine, bar: Cost) -> [Part; 2] {
        if line.things == 0 {
            return [Part::default(); 2];
        }
        let whole = Part {
            cost: sum(&[line.set.labels, bar, line.cost]),
            lines: 1,
        };
        let len = i64::from(line.set.len);
        let more = line.cost.comma * (len - 1);
        let split = len > 1 && line.missing == 0 && more < line.set.labels.comma + bar.comma;
        let apart = Part {
            cost: Cost {
                comma: line.cost.comma * len,
                least: line.cost.least * len,
            },
            lines: 0,
        };
        [whole, if split { apart } else { whole }]
    }

    /// `ItemByBucket`: the things of a bucket by all their behaviors in it.
    fn turn_group(
        &mut self,
        number: u32,
        bucket: u16,
        (before, after): (u32, u32),
        side: &mut Part,
        pieces: &mut Pieces<'_>,
    ) {
        let cost = self.written[number as usize].cost;
        if before > 0 {
            side.cost -= cost;
            let things = self.groups.entry(Group::new(bucket, before)).or_default();
            *things -= 1;
            if *things == 0 {
                side.cost -= sum(&[label(bucket, before, pieces), self.bar]);
                side.lines -= 1;
            }
        }
        if after > 0 {
            side.cost += cost;
            let things = self.groups.entry(Group::new(bucket, after)).or_default();
            *things += 1;
            if *things == 1 {
                side.cost += sum(&[label(bucket, after, pieces), self.bar]);
                side.lines += 1;
            }
        }
    }

    /// `Sequence` and `SequenceByBucket`: contexts by all their things.
    fn turn_context(
        &mut self,
        number: u32,
        (bucket, behavior): (u16, u32),
        added: bool,
        side: &mut Part,
        pieces: &mut Pieces<'_>,
    ) {
        let bit = 1 << behavior;
        let written = &self.written[number as usize];
        let context = self.contexts.entry(Group::new(bucket, bit)).or_default();
        let old = *context;
        if added {
            context.hash = context.hash.wrapping_add(written.hash);
            context.things += 1;
            context.cost += written.cost;
        } else {
            context.hash = context.hash.wrapping_sub(written.hash);
            context.things -= 1;
            context.cost -= written.cost;
        }
        let new = *context;
        for (context, joins) in [(old, false), (new, true)] {
            if context.things == 0 {
                continue;
            }
            let hash = context.hash ^ u64::from(bucket >= self.open);
            let mask = self.masks.entry((hash, bucket)).or_default();
            let before = *mask;
            *mask ^= bit;
            let labels = [before, *mask].map(|mask| label(bucket, mask, pieces));
            let part = |mask: u32, label: Cost| {
                if mask == 0 {
                    return Part::default();
                }
                Part {
                    cost: sum(&[label, self.bar, context.cost]),
                    lines: 1,
                }
            };
            side.turn(part(before, labels[0]), part(*mask, labels[1]));
            let line = self.sequences.entry(hash).or_default();
            let whole = |line: &SequenceLine| {
                if line.contexts == 0 {
                    return Part::default();
                }
                Part {
                    cost: sum(&[line.labels, self.bar, context.cost]),
                    lines: 1,
                }
            };
            let was = whole(line);
            line.labels += labels[1];
            line.labels -= labels[0];
            line.contexts = if joins {
                line.contexts + 1
            } else {
                line.contexts - 1
            };
            self.sums[SEQUENCE].turn(was, whole(line));
        }
    }

    /// No text has fewer tokens.
    pub fn least(&mut self, pieces: &mut Pieces<'_>) -> u64 {
        let mut least = i64::MAX;
        for (sum, _) in self.sums.iter().zip(self.asked).filter(|pair| pair.1) {
            let lines = if self.row_ids { sum.lines as usize } else { 0 };
            while self.ids.len() <= lines {
                let line = self.ids.len() - 1;
                self.ids
                    .push(self.ids[line] + of_row_id(line, pieces) as i64);
            }
            least = least.min(sum.cost.least - self.saved_at_end + self.ids[lines]);
        }
        least.max(0) as u64
    }
}

fn sum(parts: &[Cost]) -> Cost {
    let mut sum = Cost::default();
    for &part in parts {
        sum += part;
    }
    sum
}
