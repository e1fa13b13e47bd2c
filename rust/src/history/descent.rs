//! How far down the ladder a history has to go: the fewest steps after which its text fits.

use ahash::AHashMap;

use super::catalogue::Entries;
use super::ladder::Ladder;
use super::pieces::Pieces;
use super::places::{Place, NEVER};
use super::user::{Choice, Worker};
use super::write::{self, Things};

/// What stands at a place: events, and the number under which the floor knows it.
pub type Standing = AHashMap<Place, (u64, u32)>;

impl Worker<'_> {
    /// The fewest steps after which the text fits; its lines are the best ones then. Whatever fits a budget fits every
    /// larger one, so more budget never leads further down.
    pub fn search(&mut self, ladder: &mut Ladder<'_>, budget: u64) -> (usize, Choice) {
        if !self.additive {
            return self.halve(ladder, budget);
        }
        // Before items fold, each of them is named at least once; most users who need folds are known by that alone.
        let least: Vec<u64> = (0..self.whole.things.rows.len() as u32)
            .map(|row| {
                let (things, pieces) = (&self.whole.things, &mut self.pieces);
                let [comma, line, end] = weigh((true, row, 0), things, self.entries, pieces);
                comma.min(line).min(end)
            })
            .collect();
        if least.iter().sum::<u64>() <= budget {
            if let Some(found) = self.walk(ladder, 1, budget) {
                return found;
            }
        }
        let before = ladder.steps();
        ladder.order_folds();
        if let Some(first) = first_fold(ladder, &least, budget) {
            if let Some(found) = self.walk(ladder, before + first, budget) {
                return found;
            }
        }
        let before = ladder.steps();
        ladder.order_drops();
        let first = self.first_drop(ladder, &least, budget);
        let found = self.walk(ladder, before + first, budget);
        let Some(found) = found else {
            unreachable!("nothing is left after the last step, and that fits")
        };
        found
    }

    /// The first drop after which what is still named need not be too long, categories among the things.
    fn first_drop(&self, ladder: &Ladder<'_>, least: &[u64], budget: u64) -> usize {
        let mut last = vec![None; least.len()];
        let mut categories: AHashMap<u32, u32> = AHashMap::new();
        for atom in &ladder.atoms {
            if atom.fold == NEVER {
                let last = &mut last[atom.thing as usize];
                *last = Some(atom.drop).max(*last);
            } else {
                let last = categories.entry(atom.category).or_default();
                *last = atom.drop.max(*last);
            }
        }
        let of_category = |(category, last): (u32, u32)| {
            let slot = self.entries.slot(category);
            (last, u64::from(slot.text))
        };
        let things = last.iter().zip(least);
        let gone = things
            .filter_map(|(&last, &least)| Some((last?, least)))
            .chain(categories.into_iter().map(of_category));
        let [.., folded, dropped] = ladder.ends();
        first(gone, dropped - folded, budget).unwrap_or(dropped - folded)
    }

    /// Goes down from some step to the last one so far, until a text fits.
    fn walk(&mut self, ladder: &Ladder<'_>, from: usize, budget: u64) -> Option<(usize, Choice)> {
        if from > ladder.steps() {
            return None;
        }
        self.stand(ladder, from);
        for steps in from..=ladder.steps() {
            if steps > from {
                self.step(ladder, steps);
            }
            if self.floor.least(&mut self.pieces) <= budget {
                self.descend(ladder, steps);
                let choice = self.shortest(true, false);
                if choice.tokens <= budget {
                    return Some((steps, choice));
                }
            }
        }
        None
    }

    fn stand(&mut self, ladder: &Ladder<'_>, steps: usize) {
        let (layouts, things) = (self.layouts(), self.whole.things.rows.len());
        let (open, row_ids) = (self.dates.open, self.options.row_ids);
        self.floor
            .clear(layouts, things, (open, row_ids), &self.pieces);
        self.standing.clear();
        ladder.left(steps, |place, events, shown| {
            self.put(place, events, shown);
        });
    }

    fn step(&mut self, ladder: &Ladder<'_>, steps: usize) {
        let (before, after) = (ladder.taken(steps - 1), ladder.taken(steps));
        let mut folded: Vec<(Place, u32, u64)> = Vec::new();
        ladder.reached(steps, |atom| {
            let old = ladder.place(atom, before).0;
            let new = ladder.place(atom, after).0;
            if after.drops > before.drops {
                self.lift(ladder, old, atom.events);
            } else if new != old {
                self.lift(ladder, old, atom.events);
                if new.is_thing() {
                    self.add(ladder, new, atom.events);
                } else {
                    folded.push((new, atom.thing, atom.events));
                }
            }
        });
        folded.sort_unstable();
        for same in folded.chunk_by(|left, right| left.0 == right.0) {
            let events = same.iter().map(|atom| atom.2).sum();
            let distinct = same.chunk_by(|left, right| left.1 == right.1).count() as u64;
            self.put(same[0].0, events, ladder.shown(false, events, distinct));
        }
    }

    /// Puts events where none stand.
    fn put(&mut self, place: Place, events: u64, shown: u64) {
        let what = (place.is_thing(), place.row(), shown);
        let (things, entries, pieces) = (&self.whole.things, self.entries, &mut self.pieces);
        let number = self
            .floor
            .number(what, || weigh(what, things, entries, pieces));
        self.standing.insert(place, (events, number));
        self.floor
            .turn(number, place.bucket(), place.behavior(), pieces);
    }

    /// Adds events of a thing to those that may stand there.
    fn add(&mut self, ladder: &Ladder<'_>, place: Place, events: u64) {
        let there = self.standing.get(&place).map_or(0, |standing| standing.0);
        self.replace(ladder, place, there, there + events);
    }

    /// Takes some of the events away that stand at a place; of categories all go with the first.
    fn lift(&mut self, ladder: &Ladder<'_>, place: Place, events: u64) {
        if let Some(&(there, _)) = self.standing.get(&place) {
            let left = if place.is_thing() { there - events } else { 0 };
            self.replace(ladder, place, there, left);
        }
    }

    fn replace(&mut self, ladder: &Ladder<'_>, place: Place, there: u64, events: u64) {
        let shown = |events| ladder.shown(place.is_thing(), events, 1);
        if there > 0 && events > 0 && shown(there) == shown(events) {
            let number = self.standing[&place].1;
            self.standing.insert(place, (events, number));
            return;
        }
        if let Some((_, number)) = self.standing.remove(&place) {
            let pieces = &mut self.pieces;
            self.floor
                .turn(number, place.bucket(), place.behavior(), pieces);
        }
        if events > 0 {
            self.put(place, events, shown(events));
        }
    }

    /// For tokenizers whose pieces do not add up, so that a text costs what all of it costs: the first kind of step whose
    /// end fits, then halving inside it. One step less would not fit.
    fn halve(&mut self, ladder: &mut Ladder<'_>, budget: u64) -> (usize, Choice) {
        ladder.order_folds();
        ladder.order_drops();
        let mut fits = |steps: usize| {
            self.descend(ladder, steps);
            self.shortest(true, false).tokens <= budget
        };
        let (mut too_long, mut enough) = (0, ladder.steps());
        for end in ladder.ends() {
            if end > too_long {
                if fits(end) {
                    enough = end;
                    break;
                }
                too_long = end;
            }
        }
        while enough - too_long > 1 {
            let middle = usize::midpoint(too_long, enough);
            if fits(middle) {
                enough = middle;
            } else {
                too_long = middle;
            }
        }
        self.descend(ladder, enough);
        (enough, self.shortest(true, false))
    }
}

/// Tokens of what is written before a comma, before a line break, and as the end of a text.
fn weigh(
    (is_thing, row, shown): (bool, u32, u64),
    things: &Things,
    entries: &Entries<'_>,
    pieces: &mut Pieces<'_>,
) -> [u64; 3] {
    let (entry, mark) = things.marked(is_thing, row, shown);
    // Slots of things are near already.
    let slot = if is_thing {
        &things.slots[row as usize]
    } else {
        entries.slot(entry)
    };
    write::weigh(slot, mark, pieces)
}

/// The first fold after which the things that are still named need not be too long.
fn first_fold(ladder: &Ladder<'_>, least: &[u64], budget: u64) -> Option<usize> {
    let mut last = vec![0; least.len()];
    for atom in &ladder.atoms {
        let last = &mut last[atom.thing as usize];
        *last = atom.fold.max(*last);
    }
    let [.., widened, folded, _] = ladder.ends();
    let gone = last.iter().zip(least).map(|(&last, &least)| (last, least));
    first(gone, folded - widened, budget)
}

/// The first of some steps after which no more than the budget is left; each pair is gone after a step, the first being
/// 0, and costs so much until then.
fn first(gone: impl Iterator<Item = (u32, u64)>, steps: usize, budget: u64) -> Option<usize> {
    let (mut left, mut freed) = (0, vec![0; steps]);
    for (last, cost) in gone {
        left += cost;
        if let Some(freed) = freed.get_mut(last as usize) {
            *freed += cost;
        }
    }
    freed.iter().zip(1..).find_map(|(freed, step)| {
        left -= freed;
        (left <= budget).then_some(step)
    })
}
