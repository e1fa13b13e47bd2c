//! Cells: items that point the same way stand together, so that a block of them has a bound and most are never multiplied.
//!
//! With an axis `e` of length 1, an item is `along * e + the rest`, and a query as well, so by Cauchy and Schwarz their
//! product is at most `query's along * item's along + |query's rest| * |item's rest|`. Within a cell the items stand in
//! the order of their rests, so that a block has little spread in either. Which items share a cell changes only the time.

use std::ops::Range;

use rayon::prelude::*;

use super::codes::{pack, Codes, Rows};
use super::estimate::{Bytes, Floats, Source};
use super::kernels::available;
use super::{Matrix, LANES};

/// Panels of a block: enough to make choosing its tags cheap, few enough to have a bound close to its items.
pub const PANELS: usize = 8;
/// Fewest items that a cell should have, on the mean. Cells are padded to whole panels.
const FEWEST: usize = 512;
/// Items a center is learned from, and how often.
const SAMPLE: usize = 16;
const ROUNDS: usize = 4;
/// Makes an f64 figure safe to round to f32 in either direction.
const SPREAD: f64 = 1e-6;

/// Items of one cell that stand together.
pub struct Block {
    pub cell: usize,
    pub panels: Range<usize>,
    /// How many items stand in them.
    pub count: usize,
    /// The least and the largest product of its items with the cell's axis.
    pub along: [f32; 2],
    /// At least the norm of what each item has besides.
    pub aside: f32,
    /// At least the norm of each item.
    pub norm: f32,
}

/// Where each item stands.
pub struct Cells {
    /// The row of each place; `NONE` where a cell ends before its last panel does.
    pub order: Vec<u32>,
    /// `[cell][dimension]`, each of length 1, or all zeros.
    pub axes: Vec<f32>,
    pub blocks: Vec<Block>,
}

/// No row.
pub const NONE: u32 = u32::MAX;

/// How an item lies to its cell's axis.
#[derive(Clone, Copy, Default)]
struct Lie {
    along: f64,
    aside: f64,
    norm: f64,
}

impl Cells {
    pub fn new(items: Matrix<'_>) -> Self {
        let rows = items.rows();
        // More cells have closer bounds, but each item is compared with all of them, and small cells are padded.
        let count = ((rows as f64).sqrt() as usize / 2)
            .min(rows / FEWEST)
            .max(1);
        let axes = learn(items, count);
        let mut members: Vec<Vec<(Lie, u32)>> = vec![Vec::new(); count];
        for (row, (cell, lie)) in nearest(items, &axes).into_iter().enumerate() {
            members[cell as usize].push((lie, row as u32));
        }
        let built: Vec<(Vec<u32>, Vec<Block>)> = members
            .into_par_iter()
            .enumerate()
            .map(|(cell, members)| arrange(cell, members))
            .collect();
        let mut cells = Self {
            order: Vec::with_capacity(rows + count * LANES),
            axes,
            blocks: Vec::new(),
        };
        for (order, blocks) in built {
            let first = cells.order.len() / LANES;
            cells.order.extend(order);
            cells
                .order
                .resize(cells.order.len().next_multiple_of(LANES), NONE);
            cells.blocks.extend(blocks.into_iter().map(|block| Block {
                panels: block.panels.start + first..block.panels.end + first,
                ..block
            }));
        }
        cells
    }
}

/// Sort one cell's items by what they have besides the axis, and cut them into blocks.
fn arrange(cell: usize, mut lies: Vec<(Lie, u32)>) -> (Vec<u32>, Vec<Block>) {
    lies.sort_unstable_by(|left, right| {
        left.0
            .aside
            .total_cmp(&right.0.aside)
            .then(left.1.cmp(&right.1))
    });
    let blocks = lies
        .chunks(PANELS * LANES)
        .enumerate()
        .map(|(place, lies)| {
            let (mut low, mut high, mut aside, mut norm) =
                (f64::INFINITY, f64::NEG_INFINITY, 0.0f64, 0.0f64);
            for (lie, _) in lies {
                (low, high) = (low.min(lie.along), high.max(lie.along));
                (aside, norm) = (aside.max(lie.aside), norm.max(lie.norm));
            }
            let start = place * PANELS;
            Block {
                cell,
                panels: start..start + lies.len().div_ceil(LANES),
                count: lies.len(),
                along: [
                    (low - low.abs() * SPREAD) as f32,
                    (high + high.abs() * SPREAD) as f32,
                ],
                aside: (aside * (1.0 + SPREAD)) as f32,
                norm: (norm * (1.0 + SPREAD)) as f32,
            }
        });
    let blocks = blocks.collect();
    (lies.into_iter().map(|(_, row)| row).collect(), blocks)
}

fn lie(row: &[f32], axis: &[f32]) -> Lie {
    let mut along = [0.0f64; 4];
    for (values, weights) in row.chunks(4).zip(axis.chunks(4)) {
        for ((sum, &value), &weight) in along.iter_mut().zip(values).zip(weights) {
            *sum += f64::from(value) * f64::from(weight);
        }
    }
    let along: f64 = along.iter().sum();
    let (mut aside, mut norm) = ([0.0f64; 4], [0.0f64; 4]);
    for (values, weights) in row.chunks(4).zip(axis.chunks(4)) {
        for (lane, (&value, &weight)) in values.iter().zip(weights).enumerate() {
            let rest = f64::from(value) - along * f64::from(weight);
            aside[lane] += rest * rest;
            norm[lane] += f64::from(value) * f64::from(value);
        }
    }
    Lie {
        along,
        aside: aside.iter().sum::<f64>().sqrt(),
        norm: norm.iter().sum::<f64>().sqrt(),
    }
}

fn add(sum: &mut [f64], row: &[f32]) {
    for (sum, &value) in sum.iter_mut().zip(row) {
        *sum += f64::from(value);
    }
}

fn unit(sum: &[f64]) -> Vec<f32> {
    let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    let factor = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    sum.iter().map(|value| (value * factor) as f32).collect()
}

/// Directions of `count` cells, learned from a few of the items: every so many rows, so that the same items give the same.
fn learn(items: Matrix<'_>, count: usize) -> Vec<f32> {
    let rows = items.rows();
    let spread = |many: usize| (0..many).map(move |place| place * rows / many);
    let unit_row = |row: usize| {
        let mut sum = vec![0.0; items.dim];
        add(&mut sum, items.row(row));
        unit(&sum)
    };
    let sample: Vec<f32> = spread((SAMPLE * count).min(rows))
        .flat_map(unit_row)
        .collect();
    let sample = Matrix {
        values: &sample,
        dim: items.dim,
    };
    if rows == 0 {
        return vec![0.0; items.dim];
    }
    let mut axes: Vec<f32> = spread(count).flat_map(unit_row).collect();
    for _ in 0..if count > 1 { ROUNDS } else { 1 } {
        let mut sums = vec![0.0f64; axes.len()];
        for (row, (cell, _)) in nearest(sample, &axes).into_iter().enumerate() {
            add(
                &mut sums[cell as usize * items.dim..][..items.dim],
                sample.row(row),
            );
        }
        for (axis, sum) in axes
            .chunks_exact_mut(items.dim)
            .zip(sums.chunks_exact(items.dim))
        {
            if sum.iter().any(|&value| value != 0.0) {
                axis.copy_from_slice(&unit(sum));
            }
        }
    }
    axes
}

/// For each item the axis with the largest product, nearly (it is judged by bytes), and how it lies to that.
fn nearest(items: Matrix<'_>, axes: &[f32]) -> Vec<(u32, Lie)> {
    let (dim, kernel) = (items.dim, available()[0]);
    let mut rows = Rows::default();
    rows.push(
        &axes.chunks_exact(dim).collect::<Vec<_>>(),
        kernel.limit,
        true,
    );
    let packed = rows.packed(kernel.tiles[0]);
    let plain = pack(axes, dim, kernel.tiles[1]);
    let mut found = vec![(0u32, Lie::default()); items.rows()];
    let width = 64 * LANES;
    let shares = found
        .par_chunks_mut(width)
        .zip(items.values.par_chunks(width * dim));
    shares.for_each(|(found, values)| {
        let items = Matrix { values, dim };
        if axes.len() > dim {
            // Without instructions for them, products of bytes are slower than those of floats.
            if kernel.name == "portable" {
                let source = Floats::new(items, None, axes, &plain, kernel);
                argmax(source, axes.len() / dim, found);
            } else {
                let codes = Codes::in_order(items, None);
                let source = Bytes::new(&codes, &rows, &packed, kernel);
                argmax(source, axes.len() / dim, found);
            }
        }
        for (row, (cell, lies)) in found.iter_mut().enumerate() {
            *lies = lie(items.row(row), &axes[*cell as usize * dim..][..dim]);
        }
    });
    found
}

fn argmax<S: Source>(mut source: S, count: usize, found: &mut [(u32, Lie)]) {
    let mut table = vec![[S::Sum::default(); LANES]; count.next_multiple_of(16)];
    let largest = S::largest(&available()[0]);
    let panels = found.len().div_ceil(LANES);
    for (panel, found) in found.chunks_mut(LANES).enumerate() {
        let ahead = Some(panel + S::AHEAD).filter(|&ahead| ahead < panels);
        source.products(panel, ahead, &mut table);
        for ((cell, _), largest) in found.iter_mut().zip(largest(&table[..count])) {
            *cell = largest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every item stands in one place, and every block's figures hold for each of its items.
        #[test]
        fn blocks_hold_all_items_within_their_bounds(
            rows in 0usize..6000, dim in 1usize..9, scale in -20i32..4, seed in any::<u64>(),
        ) {
            let value = |place: usize| {
                let mixed = (place as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
                (mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            };
            let values: Vec<f32> = (0..rows * dim).map(|place| value(place) * 10f32.powi(scale)).collect();
            let items = Matrix { values: &values, dim };
            let cells = Cells::new(items);
            let mut order: Vec<u32> = cells.order.iter().copied().filter(|&row| row != NONE).collect();
            order.sort_unstable();
            prop_assert!(order.iter().copied().eq(0..rows as u32));
            prop_assert_eq!(cells.blocks.iter().map(|block| block.count).sum::<usize>(), rows);
            for block in &cells.blocks {
                let axis = &cells.axes[block.cell * dim..][..dim];
                let places = block.panels.start * LANES..block.panels.end * LANES;
                prop_assert!(cells.order[places.clone()][block.count..].iter().all(|&row| row == NONE));
                for &row in &cells.order[places][..block.count] {
                    let lie = lie(items.row(row as usize), axis);
                    prop_assert!(f64::from(block.along[0]) <= lie.along && lie.along <= f64::from(block.along[1]));
                    prop_assert!(lie.aside <= f64::from(block.aside) && lie.norm <= f64::from(block.norm));
                }
            }
        }
    }
}
