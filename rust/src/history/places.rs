//! What the ladder moves: a user's events that share bucket, behavior and thing, and where they stand.

use super::cells::Cells;
use super::dates::Dates;
use super::partition::Record;

pub const NEVER: u32 = u32::MAX;

/// Events of one user that share bucket, behavior and thing.
#[derive(Debug, Clone, Copy)]
pub struct Atom {
    pub bucket: u16,
    pub behavior: u32,
    pub thing: u32,
    /// An entry, or `NEVER`.
    pub category: u32,
    pub events: u64,
    /// How rare its behavior is: 0 for the rarest.
    pub rarity: u32,
    /// The fold and the drop that reach it.
    pub fold: u32,
    pub drop: u32,
}

/// What became of a user's events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    pub full: u64,
    pub coarsened: u64,
    pub folded: u64,
    pub dropped: u64,
}

/// Where an atom stands after some steps, as one number, which sorts five times as fast as its parts: bucket, behavior,
/// whether it is a thing or a category (which sum up what is older, so they come first), and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u64);

impl Place {
    pub fn new(bucket: u16, behavior: u32, is_thing: bool, row: u32) -> Self {
        Self(
            u64::from(bucket) << 48
                | u64::from(behavior) << 40
                | u64::from(is_thing) << 32
                | u64::from(row),
        )
    }

    pub fn bucket(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub fn behavior(self) -> u32 {
        (self.0 >> 40) as u32 & 0xFF
    }

    pub fn is_thing(self) -> bool {
        self.0 >> 32 & 1 == 1
    }

    pub fn row(self) -> u32 {
        self.0 as u32
    }
}

/// The atoms that each step of a kind reaches.
#[derive(Default)]
pub struct Runs {
    atoms: Vec<u32>,
    ends: Vec<usize>,
}

impl Runs {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn push(&mut self, atoms: impl Iterator<Item = u32>) {
        self.atoms.extend(atoms);
        self.ends.push(self.atoms.len());
    }

    pub fn get(&self, step: usize) -> &[u32] {
        let start = step.checked_sub(1).map_or(0, |step| self.ends[step]);
        &self.atoms[start..self.ends[step]]
    }
}

pub fn atoms(records: &[Record], cells: &mut Cells, dates: &Dates) -> Vec<Atom> {
    let mut keys: Vec<Place> = records
        .iter()
        .map(|record| {
            let bucket = dates.bucket_of[dates.stretch(record.moment()).0];
            let thing = cells.thing(record.entry());
            Place::new(bucket, record.behavior(), true, thing)
        })
        .collect();
    keys.sort_unstable();
    keys.chunk_by(|left, right| left == right)
        .map(|same| {
            let thing = same[0].row();
            Atom {
                bucket: same[0].bucket(),
                behavior: same[0].behavior(),
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
