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
    /// For each category with as many items as may appear, the least score among them.
    full: AHashMap<i32, f32>,
}

impl<'a> Best<'a> {
    pub fn new(k: usize, caps: Option<Caps<'a>>) -> Self {
        Self {
            k,
            caps,
            found: Vec::new(),
            floor: f32::NEG_INFINITY,
            full: AHashMap::new(),
        }
    }

    /// Whether an item that scores at most `most` cannot appear, for as many of its category are better. Without this
    /// question before scoring, a cap of 20 doubled the time of a search.
    pub fn crowded_out(&self, item: usize, most: f32) -> bool {
        let Some(caps) = self.caps.filter(|_| !self.full.is_empty()) else {
            return false;
        };
        let least = self.full.get(&caps.categories[item]);
        least.is_some_and(|&least| most < least)
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
            let full = &mut self.full;
            self.found.retain(|hit| {
                let category = caps.categories[hit.item];
                let count = taken.entry(category).or_default();
                *count += 1;
                if *count == caps.limit {
                    full.insert(category, hit.score);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hit(item: usize, score: f32) -> Hit {
        Hit {
            item,
            score,
            col: score,
            sem: f32::NAN,
            tag: -1,
            tag_side_alone: false,
        }
    }

    #[test]
    fn an_item_behind_a_full_category_is_crowded_out_and_one_that_ties_is_not() {
        let categories = [7, 7, 8, 7];
        let caps = Caps {
            categories: &categories,
            limit: 2,
        };
        let mut best = Best::new(10, Some(caps));
        for (item, score) in [(0, 3.0), (1, 2.0), (2, 1.0)] {
            best.offer(hit(item, score));
        }
        assert!(
            !best.crowded_out(3, 0.5),
            "known only after hits are settled"
        );
        best.settle();
        let asked = [(3, 1.9), (3, 2.0), (2, 0.5)].map(|(item, most)| best.crowded_out(item, most));
        assert_eq!(asked, [true, false, false]);
        assert!(!Best::new(10, None).crowded_out(3, 0.5));
    }

    proptest! {
        /// Leaving out what is crowded out, at any moment, changes nothing.
        #[test]
        fn what_is_crowded_out_is_in_no_answer(
            scores in prop::collection::vec((0u8..30, 0i32..4), 0..400), k in 1usize..30, limit in 1usize..5,
        ) {
            let categories: Vec<i32> = scores.iter().map(|&(_, category)| category).collect();
            let caps = Some(Caps { categories: &categories, limit });
            let (mut all, mut some) = (Best::new(k, caps), Best::new(k, caps));
            for (item, &(score, _)) in scores.iter().enumerate() {
                let score = f32::from(score);
                all.offer(hit(item, score));
                if !some.crowded_out(item, score) {
                    some.offer(hit(item, score));
                }
            }
            all.settle();
            some.settle();
            let items = |best: &Best<'_>| best.found.iter().map(|hit| hit.item).collect::<Vec<_>>();
            prop_assert_eq!(items(&all), items(&some));
        }
    }
}
