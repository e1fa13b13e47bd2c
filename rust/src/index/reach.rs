//! What a block of items can score at most for each question, and so which rows are multiplied with it at all.
//!
//! A row that cannot bring an item of the block over the floor is left out of the product: where it would have been an
//! item's best tag, that item cannot enter anyway.

use std::ops::Range;

use rayon::prelude::*;

use super::cells::{Block, Cells};
use super::codes::Size;
use super::group::{rounding, up, Asked, Group};
use super::kernels::Kernel;
use super::{Query, LANES};

/// Products below this vanish, and with them every relative bound.
pub const NOTHING: f32 = 1e-36;
/// Most questions whose bounds are kept: 1 MB for a million items.
const FEW: usize = 64;
/// Cells whose products are made by one task.
const SHARE: usize = 4 * LANES;

/// The rows of a group against the cells of a part. A line is one of a question's rows: the user's, fused with a tag's.
pub struct Reach<'a> {
    pub cells: &'a Cells,
    /// `[cell][row]`: products with the cell's axis.
    along: Vec<f32>,
    rows: usize,
    asked: Vec<Asked>,
    /// Each question's lines.
    lines: Vec<Range<usize>>,
    /// The user's weight in each question.
    weight: Vec<f32>,
    /// At least the square of each line's norm.
    squares: Vec<f32>,
    /// `[block][question]`: the largest bound, if the questions are few. A block is mostly refused by these alone.
    promised: Vec<f32>,
    /// For each question: how far a bound can be from the score, for each unit of an item's norm.
    slack: Vec<f32>,
}

/// The lines of all questions as one cell sees them.
struct Seen {
    cell: usize,
    along: Vec<f32>,
    aside: Vec<f32>,
    most: Vec<f32>,
}

impl Seen {
    fn new(lines: usize) -> Self {
        Self {
            cell: usize::MAX,
            along: vec![0.0; lines],
            aside: vec![0.0; lines],
            most: vec![0.0; lines],
        }
    }
}

impl<'a> Reach<'a> {
    /// With the group's rows as floats, the same in the order of the kernel, and their sizes.
    pub fn new(
        query: &Query<'_>,
        group: &Group,
        kernel: &Kernel,
        cells: &'a Cells,
        (plain, packed, sizes): (&[f32], &[f32], &[Size]),
    ) -> Self {
        let (rows, dim) = (group.rows(), query.users.dim);
        let mut along = vec![0.0f32; cells.axes.len() / dim * rows];
        along
            .par_chunks_mut(SHARE * rows)
            .zip(cells.axes.par_chunks(SHARE * dim))
            .for_each(|(along, axes)| {
                let mut table = vec![[0.0f32; LANES]; rows];
                let mut panel = vec![0.0f32; dim * LANES];
                for (along, axes) in along.chunks_mut(LANES * rows).zip(axes.chunks(LANES * dim)) {
                    let axes: Vec<&[f32]> = axes.chunks_exact(dim).collect();
                    (kernel.fill)(&axes, &mut panel);
                    (kernel.floats)(&panel, packed, &mut table, &[]);
                    for (lane, along) in along.chunks_exact_mut(rows).enumerate() {
                        for (value, products) in along.iter_mut().zip(&table) {
                            *value = products[lane];
                        }
                    }
                }
            });
        let mut reach = Self {
            cells,
            along,
            rows,
            asked: group.asked(query, sizes),
            lines: Vec::new(),
            weight: Vec::new(),
            squares: Vec::new(),
            promised: Vec::new(),
            slack: Vec::new(),
        };
        let turn = rounding(dim);
        let row = |row: usize| &plain[row * dim..(row + 1) * dim];
        for asked in &reach.asked {
            let start = reach.squares.len();
            let beta = if asked.tags.is_empty() {
                1.0
            } else {
                query.beta
            };
            let (of_user, of_tag) = (f64::from(beta), f64::from(1.0 - beta));
            let own = row(asked.user);
            let mut norm = 0.0f64;
            let mut push = |tag: Option<u32>| {
                let tag_row = tag.map_or(own, |tag| row(tag as usize));
                let mut square = 0.0f64;
                for (&user, &tag) in own.iter().zip(tag_row) {
                    let fused = of_user * f64::from(user) + of_tag * f64::from(tag);
                    square += fused * fused;
                }
                let size = |row: usize| sizes[row].norm;
                let both =
                    of_user * size(asked.user) + tag.map_or(0.0, |tag| of_tag * size(tag as usize));
                norm = norm.max(both);
                // `along` strays by two roundings for each unit of both norms. Where user and tag point against each other,
                // that is more than any share of what is left of them.
                let stray = 2.0 * turn * both;
                let fused = square.sqrt() + stray;
                reach.squares.push(up(square + 4.0 * stray * fused));
            };
            if asked.tags.is_empty() {
                push(None);
            }
            group.slots[asked.tags.clone()]
                .iter()
                .for_each(|&slot| push(Some(slot)));
            reach.lines.push(start..reach.squares.len());
            reach.weight.push(beta);
            reach.slack.push(up(8.0 * turn * norm));
        }
        reach
    }

    /// Look at all lines from a block's cell, and bound what they give in the block.
    fn see(&self, group: &Group, block: &Block, seen: &mut Seen) {
        if seen.cell != block.cell {
            seen.cell = block.cell;
            let rows = &self.along[block.cell * self.rows..(block.cell + 1) * self.rows];
            for (question, lines) in self.lines.iter().enumerate() {
                let asked = &self.asked[question];
                let of_user = self.weight[question] * rows[asked.user];
                let of_tag = 1.0 - self.weight[question];
                let along = &mut seen.along[lines.clone()];
                if asked.tags.is_empty() {
                    along[0] = of_user;
                }
                for (along, &slot) in along.iter_mut().zip(&group.slots[asked.tags.clone()]) {
                    *along = of_user + of_tag * rows[slot as usize];
                }
            }
            for ((aside, &along), &square) in
                seen.aside.iter_mut().zip(&seen.along).zip(&self.squares)
            {
                // A square below 1e-38 may have become nothing, so as much as its root is added.
                *aside = (square - along * along).max(0.0).sqrt() + 1e-18;
            }
        }
        for ((most, &along), &aside) in seen.most.iter_mut().zip(&seen.along).zip(&seen.aside) {
            *most = (along * block.along[0]).max(along * block.along[1]) + aside * block.aside;
        }
    }

    fn slack(&self, question: usize, block: &Block) -> f32 {
        self.slack[question] * block.norm + NOTHING
    }

    /// The blocks in the order of what they promise, so that floors rise at once: first the best two of each question.
    pub fn order(&mut self, group: &Group) -> Vec<u32> {
        let mut seen = Seen::new(self.squares.len());
        let mut first = vec![[(f32::NEG_INFINITY, u32::MAX); 2]; self.lines.len()];
        let mut order: Vec<(f32, u32)> = Vec::with_capacity(self.cells.blocks.len());
        let mut promised = Vec::new();
        for (number, block) in self.cells.blocks.iter().enumerate() {
            self.see(group, block, &mut seen);
            let mut best = f32::NEG_INFINITY;
            for (lines, first) in self.lines.iter().zip(&mut first) {
                let most = largest(&seen.most[lines.clone()]);
                best = best.max(most);
                if self.lines.len() <= FEW {
                    promised.push(most);
                }
                if most > first[0].0 {
                    *first = [(most, number as u32), first[0]];
                } else if most > first[1].0 {
                    first[1] = (most, number as u32);
                }
            }
            order.push((best, number as u32));
        }
        for (place, (_, number)) in first.iter().flatten().enumerate() {
            if let Some(entry) = order.get_mut(*number as usize) {
                // Below infinity, where single floats are far apart, the order is kept by the number of steps.
                entry.0 = f32::from_bits(f32::INFINITY.to_bits() - place as u32);
            }
        }
        self.promised = promised;
        order.sort_unstable_by(|left, right| right.0.total_cmp(&left.0));
        order.into_iter().map(|(_, number)| number).collect()
    }
}

fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    for values in values.chunks(8) {
        for (most, &value) in lanes.iter_mut().zip(values) {
            *most = if value > *most { value } else { *most };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// What is asked of one block: the rows to multiply, and the questions in their terms.
pub struct Choice {
    seen: Seen,
    /// Rows of the group's table; not used if `all`.
    pub rows: Vec<u32>,
    pub all: bool,
    pub asked: Vec<(usize, Asked)>,
    pub slots: Vec<u32>,
    place: Vec<u32>,
}

impl Choice {
    /// Everything is asked of every block, until `choose` says otherwise.
    pub fn new(group: &Group, asked: &[Asked], reach: Option<&Reach<'_>>) -> Self {
        Self {
            seen: Seen::new(reach.map_or(0, |reach| reach.squares.len())),
            rows: Vec::new(),
            all: true,
            asked: asked.iter().cloned().enumerate().collect(),
            slots: group.slots.clone(),
            place: vec![u32::MAX; group.rows()],
        }
    }

    /// Leave out what cannot reach the floors in this block; whether anything is left.
    pub fn choose(
        &mut self,
        reach: &Reach<'_>,
        group: &Group,
        asked: &[Asked],
        number: usize,
        floors: &[f32],
    ) -> bool {
        let block = &reach.cells.blocks[number];
        let count = floors.len();
        if let Some(promised) = reach.promised.get(number * count..(number + 1) * count) {
            let refused = |(question, &most): (usize, &f32)| {
                most < floors[question] - reach.slack(question, block)
            };
            if promised.iter().enumerate().all(refused) {
                return false;
            }
        }
        reach.see(group, block, &mut self.seen);
        self.asked.clear();
        self.slots.clear();
        self.place.fill(u32::MAX);
        for (question, asked) in asked.iter().enumerate() {
            let least = floors[question] - reach.slack(question, block);
            let most = &self.seen.most[reach.lines[question].clone()];
            if largest(most) < least {
                continue;
            }
            let start = self.slots.len();
            for (&slot, &most) in group.slots[asked.tags.clone()].iter().zip(most) {
                if most >= least {
                    self.slots.push(slot);
                    self.place[slot as usize] = 0;
                }
            }
            self.place[asked.user] = 0;
            self.asked.push((
                question,
                Asked {
                    tags: start..self.slots.len(),
                    ..asked.clone()
                },
            ));
        }
        self.rows.clear();
        for (row, place) in self
            .place
            .iter_mut()
            .enumerate()
            .filter(|(_, place)| **place == 0)
        {
            *place = self.rows.len() as u32;
            self.rows.push(row as u32);
        }
        self.all = self.rows.len() == self.place.len();
        for slot in &mut self.slots {
            *slot = self.place[*slot as usize];
        }
        for (_, asked) in &mut self.asked {
            asked.user = self.place[asked.user] as usize;
        }
        !self.asked.is_empty()
    }
}
