//! The budget ladder: what is given up, in which order, until a history fits.
//!
//! Steps, each taken only after all before it: (1) days become months, oldest first; (2) months become years, oldest
//! first, save the last `RECENT_MONTHS`; (3) the rarest behaviors become `other`, at first two, never the most frequent;
//! (4) the items of a category become one count where there are two or more, oldest bucket first and in it the fullest
//! category first; (5) triples are dropped, those with the fewest events first and among them the oldest.

use super::catalogue::Entries;
use super::cells::Cells;
use super::dates::Dates;
use super::partition::Record;
use super::readings::Cell;
use super::write::{Mark, Things};
use crate::calendar::Level;

/// Months that stay apart under any budget: an interest has to be seen coming back.
pub const RECENT_MONTHS: usize = 3;

const NEVER: u32 = u32::MAX;

/// Events of one user that share bucket, behavior and thing.
#[derive(Debug, Clone, Copy)]
struct Atom {
    bucket: u16,
    behavior: u32,
    thing: u32,
    /// An entry, or `NEVER`.
    category: u32,
    events: u64,
    /// How rare its behavior is: 0 for the rarest.
    rarity: u32,
    /// The fold and the drop that reach it.
    fold: u32,
    drop: u32,
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

/// Where an atom stands after some steps: bucket, behavior, whether a thing or a category, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    bucket: u16,
    behavior: u32,
    /// Categories stand before things: they sum up what is older.
    is_thing: bool,
    row: u32,
}

/// All steps for one user.
pub struct Ladder<'a> {
    dates: &'a Dates,
    atoms: Vec<Atom>,
    counts: bool,
    /// The code of `other`.
    other: u32,
    days: Vec<u16>,
    /// All but the recent ones.
    months: Vec<u16>,
    rare: usize,
    folds: usize,
    drops: usize,
}

impl<'a> Ladder<'a> {
    pub fn new(
        records: &[Record],
        cells: &mut Cells,
        dates: &'a Dates,
        counts: bool,
        other: u32,
    ) -> Self {
        let mut ladder = Self {
            dates,
            atoms: atoms(records, cells, dates),
            counts,
            other,
            days: Vec::new(),
            months: Vec::new(),
            rare: 0,
            folds: 0,
            drops: 0,
        };
        let level = |bucket: u16| dates.buckets[bucket as usize].level;
        let buckets = || ladder.atoms.iter().map(|atom| atom.bucket);
        let days = sorted(buckets().filter(|&bucket| level(bucket) == Level::Day));
        let mut months = sorted(
            buckets()
                .map(|bucket| match level(bucket) {
                    Level::Day => dates.coarser[bucket as usize],
                    _ => bucket,
                })
                .filter(|&bucket| level(bucket) == Level::Month),
        );
        months.truncate(months.len().saturating_sub(RECENT_MONTHS));
        (ladder.days, ladder.months) = (days, months);
        ladder.rank_behaviors();
        ladder.order_folds();
        ladder.order_drops();
        ladder
    }

    fn rank_behaviors(&mut self) {
        let mut events = vec![0u64; self.other as usize + 1];
        for atom in &self.atoms {
            events[atom.behavior as usize] += atom.events;
        }
        let mut rare: Vec<usize> = (0..events.len()).filter(|&code| events[code] > 0).collect();
        rare.sort_unstable_by_key(|&code| (events[code], std::cmp::Reverse(code)));
        let mut rarity = vec![0; events.len()];
        for (rank, &code) in rare.iter().enumerate() {
            rarity[code] = rank as u32;
        }
        for atom in &mut self.atoms {
            atom.rarity = rarity[atom.behavior as usize];
        }
        self.rare = rare.len().saturating_sub(2);
    }

    /// Folds come when all widening is done, so each atom is reached by one fold at most.
    fn order_folds(&mut self) {
        let widened = Taken {
            days: self.days.len(),
            months: self.months.len(),
            ..Taken::default()
        };
        let mut items: Vec<(u16, u32, u32, usize)> = self
            .atoms
            .iter()
            .enumerate()
            .filter(|(_, atom)| atom.category != NEVER)
            .map(|(row, atom)| (self.bucket(atom, widened), atom.category, atom.thing, row))
            .collect();
        items.sort_unstable();
        let mut folds: Vec<_> = items
            .chunk_by(|left, right| (left.0, left.1) == (right.0, right.1))
            .map(|same| {
                let things = same.chunk_by(|left, right| left.2 == right.2).count();
                (same[0].0, std::cmp::Reverse(things), same[0].1, same)
            })
            .filter(|fold| fold.1 .0 > 1)
            .collect();
        folds.sort_unstable_by_key(|&(bucket, things, category, _)| (bucket, things, category));
        for (step, (.., same)) in folds.iter().enumerate() {
            for &(.., row) in *same {
                self.atoms[row].fold = step as u32;
            }
        }
        self.folds = folds.len();
    }

    fn order_drops(&mut self) {
        let before = self.taken(self.steps());
        let mut places: Vec<(Place, usize)> = self
            .atoms
            .iter()
            .enumerate()
            .map(|(row, atom)| (self.place(atom, before).0, row))
            .collect();
        places.sort_unstable();
        let mut drops: Vec<(u64, &[(Place, usize)])> = places
            .chunk_by(|left, right| left.0 == right.0)
            .map(|same| {
                (
                    same.iter().map(|&(_, row)| self.atoms[row].events).sum(),
                    same,
                )
            })
            .collect();
        drops.sort_unstable_by_key(|&(events, same)| {
            let Place {
                bucket,
                behavior,
                is_thing,
                row,
            } = same[0].0;
            (events, bucket, is_thing, row, behavior)
        });
        self.drops = drops.len();
        for (step, (_, same)) in drops.into_iter().enumerate() {
            for &(_, row) in same {
                self.atoms[row].drop = step as u32;
            }
        }
    }

    /// Number of steps; after the last one nothing is left.
    pub fn steps(&self) -> usize {
        self.ends()[4]
    }

    /// Where each kind of step ends, so that a search need not leap over kinds.
    pub fn ends(&self) -> [usize; 5] {
        let mut end = 0;
        [
            self.days.len(),
            self.months.len(),
            self.rare,
            self.folds,
            self.drops,
        ]
        .map(|steps| {
            end += steps;
            end
        })
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
            rare: take(self.rare),
            folds: take(self.folds),
            drops: take(self.drops),
        }
    }

    fn bucket(&self, atom: &Atom, taken: Taken) -> u16 {
        let reached = |steps: &[u16], level: Level, bucket: u16| {
            self.dates.buckets[bucket as usize].level == level
                && steps.last().is_some_and(|&last| bucket <= last)
        };
        let mut bucket = atom.bucket;
        if reached(&self.days[..taken.days], Level::Day, bucket) {
            bucket = self.dates.coarser[bucket as usize];
        }
        if reached(&self.months[..taken.months], Level::Month, bucket) {
            bucket = self.dates.coarser[bucket as usize];
        }
        bucket
    }

    /// Where an atom stands after some steps, and whether it is folded.
    fn place(&self, atom: &Atom, taken: Taken) -> (Place, bool) {
        let rare = taken.rare > 0 && atom.rarity as usize <= taken.rare;
        let folded = (atom.fold as usize) < taken.folds;
        let place = Place {
            bucket: self.bucket(atom, taken),
            behavior: if rare { self.other } else { atom.behavior },
            is_thing: !folded,
            row: if folded { atom.category } else { atom.thing },
        };
        (place, rare || folded)
    }

    /// The history after `steps` steps.
    pub fn cells(
        &self,
        steps: usize,
        whole: &Things,
        entries: &Entries<'_>,
        out: &mut Vec<Cell>,
        things: &mut Things,
    ) {
        let taken = self.taken(steps);
        let mut placed: Vec<(Place, u32, u64)> = self
            .atoms
            .iter()
            .filter(|atom| atom.drop as usize >= taken.drops)
            .map(|atom| (self.place(atom, taken).0, atom.thing, atom.events))
            .collect();
        placed.sort_unstable();
        // What is written, where, by which behavior; a thing with another count is written as another one.
        let mut written: Vec<((bool, u32, u64), u16, u32)> = placed
            .chunk_by(|left, right| left.0 == right.0)
            .map(|same| {
                let Place {
                    bucket,
                    behavior,
                    is_thing,
                    row,
                } = same[0].0;
                let events: u64 = same.iter().map(|atom| atom.2).sum();
                let distinct = same.chunk_by(|left, right| left.1 == right.1).count() as u64;
                let shown = match (is_thing, self.counts) {
                    (true, true) if events > 1 => events,
                    (true, _) => 0,
                    (false, true) => events,
                    (false, false) => distinct,
                };
                ((is_thing, row, shown), bucket, behavior)
            })
            .collect();
        written.sort_unstable();
        out.clear();
        things.clear();
        for same in written.chunk_by(|left, right| left.0 == right.0) {
            let (is_thing, row, shown) = same[0].0;
            let number = if is_thing {
                whole.marks.get(row as usize).map_or(0, |mark| mark.number)
            } else {
                0
            };
            let entry = if is_thing {
                whole.rows[row as usize]
            } else {
                row
            };
            things.marks.push(Mark { number, shown });
            things.rows.push(entry);
            for &(_, bucket, behavior) in same {
                let thing = things.rows.len() as u32 - 1;
                match out.last_mut() {
                    Some(cell) if (cell.thing, cell.bucket) == (thing, bucket) => {
                        cell.mask |= 1 << behavior;
                    }
                    _ => out.push(Cell {
                        thing,
                        bucket,
                        mask: 1 << behavior,
                    }),
                }
            }
        }
        if things.marks.iter().all(Mark::is_empty) {
            things.marks.clear();
        }
        things.fetch(entries);
        // Stable, so that inside a bucket things keep their order.
        out.sort_by_key(|cell| cell.bucket);
    }

    /// What became of the events after `steps` steps.
    pub fn fate(&self, steps: usize) -> Fate {
        let taken = self.taken(steps);
        let mut fate = Fate::default();
        for atom in &self.atoms {
            let (place, folded) = self.place(atom, taken);
            let dropped = (atom.drop as usize) < taken.drops;
            *match (dropped, folded, place.bucket == atom.bucket) {
                (true, ..) => &mut fate.dropped,
                (_, true, _) => &mut fate.folded,
                (_, _, false) => &mut fate.coarsened,
                _ => &mut fate.full,
            } += atom.events;
        }
        fate
    }
}

fn atoms(records: &[Record], cells: &mut Cells, dates: &Dates) -> Vec<Atom> {
    let mut keys: Vec<(u16, u32, u32)> = records
        .iter()
        .map(|record| {
            let bucket = dates.bucket_of[dates.stretch(record.moment()).0];
            (bucket, record.behavior(), cells.thing(record.entry()))
        })
        .collect();
    keys.sort_unstable();
    keys.chunk_by(|left, right| left == right)
        .map(|same| {
            let (bucket, behavior, thing) = same[0];
            Atom {
                bucket,
                behavior,
                thing,
                category: cells.things.slots[thing as usize].category,
                events: same.len() as u64,
                rarity: 0,
                fold: NEVER,
                drop: NEVER,
            }
        })
        .collect()
}

fn sorted(buckets: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut buckets: Vec<_> = buckets.collect();
    buckets.sort_unstable();
    buckets.dedup();
    buckets
}
