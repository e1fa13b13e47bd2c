//! The budget ladder: what is given up, in which order, until a history fits.
//!
//! Steps, each taken only after all before it: (1) days become months, oldest first; (2) months become years, oldest
//! first, save the last `RECENT_MONTHS`; (3) the rarest behaviors become `other`, at first two, never the most frequent;
//! (4) the items of a category become one count where there are two or more, oldest bucket first and in it the fullest
//! category first; (5) triples are dropped, those with the fewest events first and among them the oldest.
//!
//! The fewest steps are taken after which the text fits (`descent` finds them), so a larger budget never shows an event
//! less exactly.

use super::catalogue::Entries;
use super::cells::Cells;
use super::dates::Dates;
use super::partition::Record;
use super::places::{atoms, Atom, Fate, Place, Runs, NEVER};
use super::readings::Cell;
use super::write::{Mark, Things};
use crate::calendar::Level;

/// Months that stay apart under any budget: an interest has to be seen coming back.
pub const RECENT_MONTHS: usize = 3;

/// How many of each kind of step have been taken.
#[derive(Default, Clone, Copy)]
pub struct Taken {
    days: usize,
    months: usize,
    rare: usize,
    folds: usize,
    pub drops: usize,
}

/// All steps for one user; folds and drops once they are asked for, because most users need none.
pub struct Ladder<'a> {
    dates: &'a Dates,
    /// By bucket.
    pub atoms: Vec<Atom>,
    counts: bool,
    /// The code of `other`.
    other: u32,
    days: Vec<u16>,
    /// All but the recent ones.
    months: Vec<u16>,
    rare: usize,
    folds: Runs,
    drops: Runs,
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
            folds: Runs::default(),
            drops: Runs::default(),
        };
        let level = |bucket: u16| dates.buckets[bucket as usize].level;
        // Atoms come by bucket, and wider buckets in the same order.
        let mut buckets: Vec<u16> = ladder.atoms.iter().map(|atom| atom.bucket).collect();
        buckets.dedup();
        let of = |wanted: Level| move |&bucket: &u16| level(bucket) == wanted;
        ladder.days = buckets.iter().copied().filter(of(Level::Day)).collect();
        let wider = buckets.iter().map(|&bucket| match level(bucket) {
            Level::Day => dates.coarser[bucket as usize],
            _ => bucket,
        });
        ladder.months = wider.filter(of(Level::Month)).collect();
        ladder.months.sort_unstable();
        ladder.months.dedup();
        let old = ladder.months.len().saturating_sub(RECENT_MONTHS);
        ladder.months.truncate(old);
        ladder.rank_behaviors();
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

    /// Adds the folds. They come when all widening is done, so each atom is reached by one fold at most.
    pub fn order_folds(&mut self) {
        let widened = self.taken(self.steps());
        let mut items: Vec<u128> = (0..)
            .zip(&self.atoms)
            .filter(|(_, atom)| atom.category != NEVER)
            .map(|(row, atom)| {
                let bucket = u128::from(self.bucket(atom, widened));
                let item = u128::from(atom.thing) << 32 | row;
                bucket << 96 | u128::from(atom.category) << 64 | item
            })
            .collect();
        items.sort_unstable();
        let mut folds: Vec<_> = items
            .chunk_by(|left, right| left >> 64 == right >> 64)
            .map(|same| {
                let things = same.chunk_by(|left, right| left >> 32 == right >> 32);
                let key = (same[0] >> 64) as u64;
                (key >> 32, std::cmp::Reverse(things.count()), key, same)
            })
            .filter(|fold| fold.1 .0 > 1)
            .collect();
        folds.sort_unstable_by_key(|&(bucket, things, key, _)| (bucket, things, key));
        for (step, (.., same)) in folds.into_iter().enumerate() {
            self.folds.push(same.iter().map(|&item| item as u32));
            for &item in same {
                self.atoms[item as u32 as usize].fold = step as u32;
            }
        }
    }

    /// Adds the drops, after the folds; behind the last one nothing is left.
    pub fn order_drops(&mut self) {
        let before = self.taken(self.steps());
        let mut places: Vec<u128> = (0..)
            .zip(&self.atoms)
            .map(|(row, atom)| u128::from(self.place(atom, before).0 .0) << 32 | row)
            .collect();
        places.sort_unstable();
        let mut drops: Vec<_> = places
            .chunk_by(|left, right| left >> 32 == right >> 32)
            .map(|same| {
                let events = |&row: &u128| self.atoms[row as u32 as usize].events;
                let place = Place((same[0] >> 32) as u64);
                let which = u64::from(place.is_thing()) << 40 | u64::from(place.row()) << 8;
                let key = u64::from(place.bucket()) << 41 | which | u64::from(place.behavior());
                (same.iter().map(events).sum::<u64>(), key, same)
            })
            .collect();
        drops.sort_unstable_by_key(|&(events, key, _)| (events, key));
        for (step, (.., same)) in drops.into_iter().enumerate() {
            self.drops.push(same.iter().map(|&row| row as u32));
            for &row in same {
                self.atoms[row as u32 as usize].drop = step as u32;
            }
        }
    }

    /// Number of steps so far.
    pub fn steps(&self) -> usize {
        self.ends()[4]
    }

    /// Where each kind of step ends.
    pub fn ends(&self) -> [usize; 5] {
        let mut end = 0;
        [
            self.days.len(),
            self.months.len(),
            self.rare,
            self.folds.len(),
            self.drops.len(),
        ]
        .map(|steps| {
            end += steps;
            end
        })
    }

    pub fn taken(&self, mut steps: usize) -> Taken {
        let mut take = |most: usize| {
            let taken = steps.min(most);
            steps -= taken;
            taken
        };
        Taken {
            days: take(self.days.len()),
            months: take(self.months.len()),
            rare: take(self.rare),
            folds: take(self.folds.len()),
            drops: take(self.drops.len()),
        }
    }

    /// Hands over the atoms that a step reaches, the first one being step 1.
    pub fn reached(&self, step: usize, mut take: impl FnMut(&Atom)) {
        let (before, after) = (self.taken(step - 1), self.taken(step));
        if after.rare > before.rare {
            let rarities = if before.rare == 0 { 0 } else { after.rare }..=after.rare;
            let reached = |atom: &&Atom| rarities.contains(&(atom.rarity as usize));
            self.atoms.iter().filter(reached).for_each(take);
        } else if after.folds > before.folds || after.drops > before.drops {
            let rows = if after.folds > before.folds {
                self.folds.get(before.folds)
            } else {
                self.drops.get(before.drops)
            };
            for &row in rows {
                take(&self.atoms[row as usize]);
            }
        } else {
            let bucket = if after.days > before.days {
                self.days[before.days]
            } else {
                self.months[before.months]
            };
            let place = |end: u32| {
                self.atoms
                    .partition_point(|atom| u32::from(self.bucket(atom, before)) < end)
            };
            let (from, to) = (place(u32::from(bucket)), place(u32::from(bucket) + 1));
            self.atoms[from..to].iter().for_each(take);
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
    pub fn place(&self, atom: &Atom, taken: Taken) -> (Place, bool) {
        let rare = taken.rare > 0 && atom.rarity as usize <= taken.rare;
        let folded = (atom.fold as usize) < taken.folds;
        let place = Place::new(
            self.bucket(atom, taken),
            if rare { self.other } else { atom.behavior },
            !folded,
            if folded { atom.category } else { atom.thing },
        );
        (place, rare || folded)
    }

    /// What is left after some steps: by place how many events, and the number that is written behind it, if any.
    pub fn left(&self, steps: usize, mut take: impl FnMut(Place, u64, u64)) {
        let taken = self.taken(steps);
        // Place, thing and events as one number; a user has fewer than 2^32 events.
        let mut placed: Vec<u128> = self
            .atoms
            .iter()
            .filter(|atom| atom.drop as usize >= taken.drops)
            .map(|atom| {
                let place = u128::from(self.place(atom, taken).0 .0);
                place << 64 | u128::from(atom.thing) << 32 | u128::from(atom.events)
            })
            .collect();
        placed.sort_unstable();
        for same in placed.chunk_by(|left, right| left >> 64 == right >> 64) {
            let place = Place((same[0] >> 64) as u64);
            let events = same.iter().map(|&atom| u64::from(atom as u32)).sum();
            let things = same.chunk_by(|left, right| left >> 32 == right >> 32);
            let shown = self.shown(place.is_thing(), events, things.count() as u64);
            take(place, events, shown);
        }
    }

    /// The number behind a thing or a category of so many events and distinct things; 0 if there is none.
    pub fn shown(&self, is_thing: bool, events: u64, distinct: u64) -> u64 {
        match (is_thing, self.counts) {
            (true, true) if events > 1 => events,
            (true, _) => 0,
            (false, true) => events,
            (false, false) => distinct,
        }
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
        // What is written, where, by which behavior; a thing with another count is written as another one.
        let mut written: Vec<u128> = Vec::new();
        self.left(steps, |place, _, shown| {
            let what = u128::from(place.is_thing()) << 32 | u128::from(place.row());
            let context = u128::from(place.bucket()) << 8 | u128::from(place.behavior());
            written.push(what << 64 | u128::from(shown) << 24 | context);
        });
        written.sort_unstable();
        out.clear();
        things.clear();
        for same in written.chunk_by(|left, right| left >> 24 == right >> 24) {
            let what = (same[0] >> 64) as u64;
            let shown = (same[0] as u64) >> 24;
            let (entry, mark) = whole.marked(what >> 32 == 1, what as u32, shown);
            things.marks.push(mark);
            things.rows.push(entry);
            for &one in same {
                let (bucket, behavior) = ((one >> 8) as u16, one as u32 & 0xFF);
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
            *match (dropped, folded, place.bucket() == atom.bucket) {
                (true, ..) => &mut fate.dropped,
                (_, true, _) => &mut fate.folded,
                (_, _, false) => &mut fate.coarsened,
                _ => &mut fate.full,
            } += atom.events;
        }
        fate
    }
}
