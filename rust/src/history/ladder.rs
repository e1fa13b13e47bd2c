//! The budget ladder: what is given up, in which order, until a history fits.
//!
//! Steps, each taken only after all before it: (1) days become months, oldest first; (2) months become years, oldest
//! first, save the last `RECENT_MONTHS`; (3) the rarest behaviors become `other`, at first two, never the most frequent;
//! (4) the items of a category become one count where there are two or more, oldest bucket first and in it the fullest
//! category first; (5) triples are dropped, those with the
//! fewest events first and among them the oldest.

use ahash::{AHashMap, AHashSet};

use super::layout::{Triple, Written};
use crate::calendar::{Bucket, Level};

/// Months that stay apart under any budget: an interest has to be seen coming back.
pub const RECENT_MONTHS: usize = 3;

/// Events of one user that share bucket, behavior and entry.
#[derive(Debug, Clone, Copy)]
pub struct Atom {
    pub bucket: Bucket,
    pub behavior: u32,
    /// The user's entry in order of first appearance.
    pub entry: u32,
    /// Row of the entry's category among all entries, if it has one.
    pub category: Option<u32>,
    pub events: u64,
}

/// How many of each kind of step have been taken.
#[derive(Default, Clone, Copy)]
struct Taken {
    days: usize,
    months: usize,
    rare: usize,
    folds: usize,
    drops: usize,
}

/// What became of a user's events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    pub full: u64,
    pub coarsened: u64,
    pub folded: u64,
    pub dropped: u64,
}

type Key = (Bucket, u32, bool, u32);

/// All steps for one user.
pub struct Ladder<'a> {
    atoms: &'a [Atom],
    counts: bool,
    /// The code of `other`.
    other: u32,
    days: Vec<Bucket>,
    /// All but the recent ones.
    months: Vec<Bucket>,
    /// Behaviors, rarest first.
    rare: Vec<u32>,
    /// Step of each (bucket, category).
    folds: AHashMap<(Bucket, u32), usize>,
    /// Step of each remaining triple.
    drops: AHashMap<Key, usize>,
}

impl<'a> Ladder<'a> {
    pub fn new(atoms: &'a [Atom], counts: bool, other: u32) -> Self {
        let mut ladder = Self {
            atoms,
            counts,
            other,
            days: sorted(
                atoms
                    .iter()
                    .map(|atom| atom.bucket)
                    .filter(|bucket| bucket.level == Level::Day),
            ),
            months: Vec::new(),
            rare: Vec::new(),
            folds: AHashMap::new(),
            drops: AHashMap::new(),
        };
        ladder.months = sorted(atoms.iter().filter_map(|atom| match atom.bucket.level {
            Level::Day => Some(atom.bucket.coarser()),
            Level::Month => Some(atom.bucket),
            Level::Year | Level::Undated => None,
        }));
        ladder
            .months
            .truncate(ladder.months.len().saturating_sub(RECENT_MONTHS));
        let mut events: AHashMap<u32, u64> = AHashMap::new();
        for atom in atoms {
            *events.entry(atom.behavior).or_default() += atom.events;
        }
        let mut rare: Vec<_> = events.into_iter().collect();
        rare.sort_unstable_by_key(|&(behavior, events)| (events, std::cmp::Reverse(behavior)));
        ladder.rare = rare.into_iter().map(|(behavior, _)| behavior).collect();

        let before_folds = Taken {
            days: ladder.days.len(),
            months: ladder.months.len(),
            ..Taken::default()
        };
        let mut items: AHashMap<(Bucket, u32), AHashSet<u32>> = AHashMap::new();
        for atom in atoms {
            if let Some(category) = atom.category {
                items
                    .entry((ladder.bucket(atom, before_folds), category))
                    .or_default()
                    .insert(atom.entry);
            }
        }
        let mut order: Vec<_> = items
            .into_iter()
            .filter(|(_, items)| items.len() > 1)
            .map(|((bucket, category), items)| (bucket, std::cmp::Reverse(items.len()), category))
            .collect();
        order.sort_unstable();
        ladder.folds = order
            .iter()
            .enumerate()
            .map(|(step, &(bucket, _, category))| ((bucket, category), step))
            .collect();

        let mut last: Vec<(Key, u64)> = Vec::new();
        let mut rest: AHashMap<Key, u64> = AHashMap::new();
        let before_drops = ladder.taken(ladder.steps());
        for atom in atoms {
            *rest.entry(ladder.place(atom, before_drops).0).or_default() += atom.events;
        }
        last.extend(rest);
        last.sort_unstable_by_key(|&((bucket, behavior, is_entry, index), events)| {
            (events, bucket, is_entry, index, behavior)
        });
        ladder.drops = last
            .into_iter()
            .enumerate()
            .map(|(step, (key, _))| (key, step))
            .collect();
        ladder
    }

    /// Number of steps; after the last one nothing is left.
    pub fn steps(&self) -> usize {
        self.days.len()
            + self.months.len()
            + self.rare_steps()
            + self.folds.len()
            + self.drops.len()
    }

    /// Where each kind of step ends, so that a search need not leap over kinds.
    pub fn ends(&self) -> [usize; 5] {
        let mut end = 0;
        [
            self.days.len(),
            self.months.len(),
            self.rare_steps(),
            self.folds.len(),
            self.drops.len(),
        ]
        .map(|steps| {
            end += steps;
            end
        })
    }

    fn rare_steps(&self) -> usize {
        self.rare.len().saturating_sub(2)
    }

    fn taken(&self, mut steps: usize) -> Taken {
        let mut take = |most: usize| {
            let taken = steps.min(most);
            steps -= taken;
            taken
        };
        Taken {
            days: take(self.days.len()),
            months: take(self.months.len()),
            rare: take(self.rare_steps()),
            folds: take(self.folds.len()),
            drops: take(self.drops.len()),
        }
    }

    fn bucket(&self, atom: &Atom, taken: Taken) -> Bucket {
        let reached =
            |steps: &[Bucket], bucket: Bucket| steps.last().is_some_and(|last| bucket <= *last);
        let mut bucket = atom.bucket;
        if bucket.level == Level::Day && reached(&self.days[..taken.days], bucket) {
            bucket = bucket.coarser();
        }
        if bucket.level == Level::Month && reached(&self.months[..taken.months], bucket) {
            bucket = bucket.coarser();
        }
        bucket
    }

    /// Where an atom stands after some steps, and whether it is folded.
    fn place(&self, atom: &Atom, taken: Taken) -> (Key, bool) {
        let rare = taken.rare > 0 && self.rare[..=taken.rare].contains(&atom.behavior);
        let behavior = if rare { self.other } else { atom.behavior };
        let bucket = self.bucket(atom, taken);
        let category = atom.category.filter(|&category| {
            taken.folds > 0
                && self
                    .folds
                    .get(&(bucket, category))
                    .is_some_and(|&step| step < taken.folds)
        });
        (
            (
                bucket,
                behavior,
                category.is_none(),
                category.unwrap_or(atom.entry),
            ),
            rare || category.is_some(),
        )
    }

    fn dropped(&self, key: &Key, taken: Taken) -> bool {
        taken.drops > 0 && self.drops[key] < taken.drops
    }

    /// The history after `steps` steps.
    pub fn triples(&self, steps: usize) -> Vec<Triple> {
        let taken = self.taken(steps);
        let mut placed: Vec<(Key, u32, u64)> = self
            .atoms
            .iter()
            .map(|atom| (self.place(atom, taken).0, atom.entry, atom.events))
            .filter(|(key, ..)| !self.dropped(key, taken))
            .collect();
        placed.sort_unstable();
        placed
            .chunk_by(|left, right| left.0 == right.0)
            .map(|same| {
                let ((bucket, behavior, is_entry, index), ..) = same[0];
                let events: u64 = same.iter().map(|atom| atom.2).sum();
                let distinct = same.chunk_by(|left, right| left.1 == right.1).count() as u64;
                let shown = match (is_entry, self.counts) {
                    (true, true) if events > 1 => events,
                    (true, _) => 0,
                    (false, true) => events,
                    (false, false) => distinct,
                };
                Triple {
                    bucket,
                    behavior,
                    written: Written {
                        is_entry,
                        index,
                        shown,
                    },
                }
            })
            .collect()
    }

    /// What became of the events after `steps` steps.
    pub fn fate(&self, steps: usize) -> Fate {
        let taken = self.taken(steps);
        let mut fate = Fate::default();
        for atom in self.atoms {
            let (key, folded) = self.place(atom, taken);
            *match (self.dropped(&key, taken), folded, key.0 == atom.bucket) {
                (true, ..) => &mut fate.dropped,
                (_, true, _) => &mut fate.folded,
                (_, _, false) => &mut fate.coarsened,
                _ => &mut fate.full,
            } += atom.events;
        }
        fate
    }
}

fn sorted(buckets: impl Iterator<Item = Bucket>) -> Vec<Bucket> {
    let mut buckets: Vec<_> = buckets.collect();
    buckets.sort_unstable();
    buckets.dedup();
    buckets
}
