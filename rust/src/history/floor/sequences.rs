//! The floor of layouts that put contexts with equal things together, anywhere or in one bucket.

use ahash::AHashMap;

use super::{label, Cost, Part};
use crate::history::pieces::{Group, Pieces};

/// One bucket and behavior, and its things.
#[derive(Debug, Clone, Copy, Default)]
struct Context {
    hash: u64,
    things: u32,
    cost: Cost,
}

/// Contexts with one set of things.
#[derive(Default)]
struct Line {
    contexts: u32,
    labels: Cost,
}

impl Line {
    fn part(&self, bar: Cost, things: Cost) -> Part {
        if self.contexts == 0 {
            return Part::default();
        }
        Part::line(&[self.labels, bar, things])
    }
}

#[derive(Default)]
pub struct Sequences {
    contexts: AHashMap<Group, Context>,
    lines: AHashMap<u64, Line>,
    /// Behaviors of a line in one bucket.
    masks: AHashMap<(u64, u16), u32>,
    /// In `Sequence`.
    pub sum: Part,
}

impl Sequences {
    pub fn clear(&mut self) {
        self.contexts.clear();
        self.lines.clear();
        self.masks.clear();
        self.sum = Part::default();
    }

    /// Puts a thing of that cost and hash into a context of the closed or the open part, or takes it out; `side` is what
    /// the bucket adds in `SequenceByBucket`.
    pub fn turn(
        &mut self,
        (cost, hash, joins): (Cost, u64, bool),
        (bucket, bit, open): (u16, u32, bool),
        side: &mut Part,
        bar: Cost,
        pieces: &mut Pieces<'_>,
    ) {
        let context = self.contexts.entry(Group::new(bucket, bit)).or_default();
        let old = *context;
        if joins {
            context.hash = context.hash.wrapping_add(hash);
            context.things += 1;
            context.cost += cost;
        } else {
            context.hash = context.hash.wrapping_sub(hash);
            context.things -= 1;
            context.cost -= cost;
        }
        let new = *context;
        for (context, joins) in [(old, false), (new, true)] {
            if context.things > 0 {
                let key = context.hash ^ u64::from(open);
                let mask = self.masks.entry((key, bucket)).or_default();
                let before = *mask;
                *mask ^= bit;
                let after = *mask;
                let labels = [before, after].map(|mask| label(bucket, mask, pieces));
                let part = |mask: u32, label: Cost| {
                    if mask == 0 {
                        return Part::default();
                    }
                    Part::line(&[label, bar, context.cost])
                };
                side.turn(part(before, labels[0]), part(after, labels[1]));
                let line = self.lines.entry(key).or_default();
                let was = line.part(bar, context.cost);
                line.labels += labels[1];
                line.labels -= labels[0];
                line.contexts = if joins {
                    line.contexts + 1
                } else {
                    line.contexts - 1
                };
                self.sum.turn(was, line.part(bar, context.cost));
            }
        }
    }
}
