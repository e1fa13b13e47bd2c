//! The floor of layouts that put things with equal contexts together, anywhere or in one bucket.

use ahash::AHashMap;

use super::{hash, label, Cost, Part};
use crate::history::pieces::{Group, Pieces};

/// The contexts of a thing in the closed or the open part: a hash that does not ask for their order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Set {
    hash: u64,
    labels: Cost,
    len: u32,
}

impl Set {
    /// The set where a thing has other behaviors in a bucket.
    fn turned(mut self, bucket: u16, (before, after): (u32, u32), pieces: &mut Pieces<'_>) -> Self {
        if before > 0 {
            self.hash = self.hash.wrapping_sub(hash(Group::new(bucket, before)));
            self.labels -= label(bucket, before, pieces);
            self.len -= 1;
        }
        if after > 0 {
            self.hash = self.hash.wrapping_add(hash(Group::new(bucket, after)));
            self.labels += label(bucket, after, pieces);
            self.len += 1;
        }
        self
    }
}

/// The things with one set of contexts.
#[derive(Default)]
struct Line {
    things: u32,
    cost: Cost,
    set: Set,
    /// How many of its contexts no other line has alone.
    missing: u32,
}

impl Line {
    /// What it adds in `Item`, and in `ItemSplit`, where its things may stand in other lines.
    fn parts(&self, bar: Cost) -> [Part; 2] {
        if self.things == 0 {
            return [Part::default(); 2];
        }
        let whole = Part::line(&[self.set.labels, bar, self.cost]);
        let len = i64::from(self.set.len);
        let more = self.cost.comma * (len - 1);
        let split = len > 1 && self.missing == 0 && more < self.set.labels.comma + bar.comma;
        let apart = Part {
            cost: Cost {
                comma: self.cost.comma * len,
                least: self.cost.least * len,
            },
            lines: 0,
        };
        [whole, if split { apart } else { whole }]
    }
}

#[derive(Default)]
pub struct Items {
    lines: AHashMap<u64, Line>,
    /// Lines of several contexts by each of these; only kept where lines may split.
    holders: AHashMap<u64, Vec<u64>>,
    /// Things by bucket and all their behaviors in it.
    groups: AHashMap<Group, u32>,
    /// In `Item` and in `ItemSplit`.
    pub sums: [Part; 2],
    pub splits: bool,
}

impl Items {
    pub fn clear(&mut self, splits: bool) {
        self.lines.clear();
        self.holders.clear();
        self.groups.clear();
        self.sums = [Part::default(); 2];
        self.splits = splits;
    }

    /// Gives a thing of that cost other behaviors in a bucket; `groups` are all its contexts of the same part after that.
    pub fn turn(
        &mut self,
        (cost, set): (Cost, &mut Set),
        (bucket, masks): (u16, (u32, u32)),
        groups: impl Iterator<Item = Group>,
        bar: Cost,
        pieces: &mut Pieces<'_>,
    ) {
        let old = *set;
        *set = old.turned(bucket, masks, pieces);
        let new = *set;
        if old.len > 0 {
            self.change(old.hash, bar, |line| {
                line.things -= 1;
                line.cost -= cost;
            });
        }
        if new.len > 0 {
            if self.splits && new.len > 1 && !self.lines.contains_key(&new.hash) {
                self.hold(groups, new.hash);
            }
            self.change(new.hash, bar, |line| {
                line.set = new;
                line.things += 1;
                line.cost += cost;
            });
        }
    }

    /// Notes the contexts of a new line, and how many of them no line has alone.
    fn hold(&mut self, groups: impl Iterator<Item = Group>, line: u64) {
        let mut missing = 0;
        for alone in groups.map(hash) {
            self.holders.entry(alone).or_default().push(line);
            missing += u32::from(self.lines.get(&alone).is_none_or(|line| line.things == 0));
        }
        self.lines.entry(line).or_default().missing = missing;
    }

    /// Changes a line and the sums; where it is one of a single context, also whether others may give way to it.
    fn change(&mut self, hash: u64, bar: Cost, change: impl FnOnce(&mut Line)) {
        let line = self.lines.entry(hash).or_default();
        let (before, was) = (line.parts(bar), line.things > 0);
        change(line);
        let (after, is, len) = (line.parts(bar), line.things > 0, line.set.len);
        self.sums[0].turn(before[0], after[0]);
        self.sums[1].turn(before[1], after[1]);
        if was == is || len != 1 {
            return;
        }
        for holder in self.holders.get(&hash).into_iter().flatten() {
            if let Some(line) = self.lines.get_mut(holder) {
                let before = line.parts(bar)[1];
                line.missing = if is {
                    line.missing - 1
                } else {
                    line.missing + 1
                };
                self.sums[1].turn(before, line.parts(bar)[1]);
            }
        }
    }

    /// `ItemByBucket`: the things of a bucket by all their behaviors in it; `side` is what the bucket adds.
    pub fn turn_in_bucket(
        &mut self,
        cost: Cost,
        (bucket, (before, after)): (u16, (u32, u32)),
        side: &mut Part,
        bar: Cost,
        pieces: &mut Pieces<'_>,
    ) {
        if before > 0 {
            side.cost -= cost;
            let things = self.groups.entry(Group::new(bucket, before)).or_default();
            *things -= 1;
            if *things == 0 {
                let line = Part::line(&[label(bucket, before, pieces), bar]);
                side.turn(line, Part::default());
            }
        }
        if after > 0 {
            side.cost += cost;
            let things = self.groups.entry(Group::new(bucket, after)).or_default();
            *things += 1;
            if *things == 1 {
                let line = Part::line(&[label(bucket, after, pieces), bar]);
                side.turn(Part::default(), line);
            }
        }
    }
}
