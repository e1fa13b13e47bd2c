//! The best items of one question while a scan goes on.

use std::cmp::Ordering;

use ahash::AHashMap;

use super::{Caps, Hit};

/// The best items seen so far. Hits gather unsorted and are settled when the room is full, so a large `k` stays cheap.
#[derive(Clone)]
pub struct Best<'a> {
    k: usize,
    caps: Option<Caps<'a>>,
    pub found: Vec<Hit>,
    /// An item that scores less cannot be in the result; one that scores the same still may, by its lower row.
    pub floor: f32,
}

impl<'a> Best<'a> {
    pub fn new(k: usize, caps: Option<Caps<'a>>) -> Self {
        Self {
            k,
            caps,
            found: Vec::new(),
            floor: f32::NEG_INFINITY,
        }
    }

    pub fn offer(&mut self, hit: Hit) {
        if hit.score < self.floor {
            return;
        }
        self.found.push(hit);
        if self.found.len() >= 2 * self.k + 32 {
            self.settle();
        }
    }

    /// Sort, walk best first, skip an item whose category is full, keep `k`. What is dropped here could never return:
    /// better items only make both the cap and the `k`-th place harder to reach.
    pub fn settle(&mut self) {
        self.found.sort_unstable_by(order);
        if let Some(caps) = self.caps {
            let mut taken: AHashMap<i32, usize> = AHashMap::new();
            self.found.retain(|hit| {
                let count = taken.entry(caps.categories[hit.item]).or_default();
                *count += 1;
                *count <= caps.limit
            });
        }
        self.found.truncate(self.k);
        if self.found.len() == self.k {
            let last = self.found.last().map_or(f32::INFINITY, |hit| hit.score);
            self.floor = self.floor.max(last);
        }
    }
}

fn order(left: &Hit, right: &Hit) -> Ordering {
    // Checked inputs cannot give NaN: products of norms up to 65504 stay far from infinity.
    let by_score = right
        .score
        .partial_cmp(&left.score)
        .unwrap_or(Ordering::Equal);
    by_score.then(left.item.cmp(&right.item))
}
