//! Vectors as bytes, and how far a product of bytes can be from the product of the vectors.
//!
//! A vector is `scale * code + rest`. By Cauchy and Schwarz a product of two vectors strays from the product of their
//! coded parts by at most `|coded query| * |item's rest| + |query's rest| * |item|`; all four are measured here, not
//! assumed, so the bound holds for any input, underflow and outliers included.

use std::ops::Range;

use rayon::prelude::*;

use super::cells::{Cells, NONE};
use super::kernels::fetch;
use super::{Matrix, LANES};
use crate::near::large_pages;

/// 64 bytes that one load fetches: 4 dimensions of 16 items.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Line(pub [u8; 64]);

/// How many rows ahead of their coding vectors are fetched.
const AHEAD: usize = 8;
/// Half a panel: the items of one `Line`.
const HALF: usize = 16;
/// Added and taken away again, it rounds to a whole number; `round` is a function call without SSE4.
const ROUND: f32 = 12_582_912.0;
/// Makes an f64 figure safe to round to f32 in either direction.
const UP: f64 = 1.0 + 1e-6;
/// More dimensions could overflow the 32-bit sums (255 * 127 each).
pub const MOST_DIMENSIONS: usize = 65_536;

/// Coded items in panels of `LANES`: `[panel][half][quad of dimensions][item][dimension]`, each byte a code plus 128.
///
/// The same bytes are what `vpdpbusd` takes as its unsigned side and what AMX takes as a tile of 16 columns.
pub struct Codes {
    pub rows: usize,
    pub quads: usize,
    /// Who stands where; without cells the items stand in row order.
    pub cells: Option<Cells>,
    /// With cells: the place of each row.
    places: Vec<u32>,
    lines: Vec<Line>,
    /// Per place, padded to whole panels with zeros: what one step of its code is worth.
    pub scale: Vec<f32>,
    /// Per place: at least the norm of what the code leaves out.
    pub rest: Vec<f32>,
    /// Per place: at least its norm.
    pub norm: Vec<f32>,
    /// The largest `rest` and `norm` of each panel.
    pub widest: Vec<(f32, f32)>,
}

/// Symmetric rounding to `-limit..=limit`: scale, norm of the coded part, norm of the rest, each at least the true one.
fn round(row: &[f32], scale: f32, limit: f32, mut put: impl FnMut(usize, i32)) -> (f64, f64) {
    // Four sums each, so that an addition need not wait for the last one. A scale too small to be divided by gives
    // infinite steps, which the clamp takes back, and NaN from 0, which a cast makes 0.
    let (mut coded, mut rest) = ([0.0f64; 4], [0.0f64; 4]);
    let steps = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (quad, values) in row.chunks(4).enumerate() {
        for (lane, &value) in values.iter().enumerate() {
            let code = ((value * steps).clamp(-limit, limit) + ROUND - ROUND) as i32;
            put(quad * 4 + lane, code);
            let kept = f64::from(scale) * f64::from(code);
            coded[lane] += kept * kept;
            let left = f64::from(value) - kept;
            rest[lane] += left * left;
        }
    }
    let norm = |sums: [f64; 4]| sums.iter().sum::<f64>().sqrt() * UP;
    (norm(coded), norm(rest))
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

/// At least the norm of a row.
pub fn norm(row: &[f32]) -> f64 {
    let mut squares = [0.0f64; 4];
    for values in row.chunks(4) {
        for (sum, &value) in squares.iter_mut().zip(values) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    squares.iter().sum::<f64>().sqrt() * UP
}

impl Codes {
    /// Code all rows in cells; `None` beyond `MOST_DIMENSIONS`, where only floats are scanned.
    pub fn new(items: Matrix<'_>) -> Option<Self> {
        if items.dim > MOST_DIMENSIONS {
            return None;
        }
        Some(Self::in_order(items, Some(Cells::new(items))))
    }

    /// Code all rows, by cells or in row order.
    pub fn in_order(items: Matrix<'_>, cells: Option<Cells>) -> Self {
        let (rows, quads) = (items.rows(), items.dim.div_ceil(4));
        let order = cells.as_ref().map(|cells| &cells.order[..]);
        let panels = order.map_or(rows, <[u32]>::len).div_ceil(LANES);
        let mut places = Vec::new();
        if let Some(order) = order {
            places = vec![0; rows];
            for (place, &row) in order.iter().enumerate().filter(|(_, &row)| row != NONE) {
                places[row as usize] = place as u32;
            }
        }
        let mut lines = Vec::with_capacity(panels * 2 * quads);
        large_pages(&mut lines);
        lines.resize(panels * 2 * quads, Line([128; 64]));
        let mut facts = vec![[0.0f32; 3]; panels * LANES];
        lines
            .par_chunks_mut(2 * quads)
            .zip(facts.par_chunks_mut(LANES))
            .enumerate()
            .for_each(|(panel, (lines, facts))| {
                let at = |place: usize| {
                    order.map_or(place, |order| {
                        order.get(place).map_or(rows, |&row| row as usize)
                    })
                };
                for (lane, fact) in facts.iter_mut().enumerate() {
                    let place = panel * LANES + lane;
                    // Rows of a cell lie anywhere: waiting for each took two thirds of the time.
                    if order.is_some() && at(place + AHEAD) < rows {
                        fetch(items.row(at(place + AHEAD)));
                    }
                    let row = at(place);
                    if row >= rows {
                        continue;
                    }
                    let row = items.row(row);
                    let scale = largest(row) / 127.0;
                    let half = &mut lines[lane / HALF * quads..][..quads];
                    let (_, rest) = round(row, scale, 127.0, |dimension, code| {
                        half[dimension / 4].0[lane % HALF * 4 + dimension % 4] = (code + 128) as u8;
                    });
                    *fact = [scale, rest as f32, norm(row) as f32];
                }
            });
        let column = |place: usize| facts.iter().map(|fact| fact[place]).collect::<Vec<f32>>();
        let (rest, norm) = (column(1), column(2));
        let widest = rest.chunks(LANES).zip(norm.chunks(LANES));
        Self {
            rows,
            quads,
            places,
            lines,
            scale: column(0),
            widest: widest
                .map(|(rest, norm)| (largest(rest), largest(norm)))
                .collect(),
            rest,
            norm,
            cells,
        }
    }

    /// Where a row stands.
    pub fn place(&self, row: usize) -> usize {
        self.places.get(row).map_or(row, |&place| place as usize)
    }

    /// Whether these may be the codes of those items.
    pub fn fit(&self, items: Matrix<'_>) -> bool {
        self.rows == items.rows() && self.quads == items.dim.div_ceil(4)
    }

    pub fn panel(&self, panel: usize) -> &[Line] {
        &self.lines[panel * 2 * self.quads..(panel + 1) * 2 * self.quads]
    }

    pub fn panel_scale(&self, panel: usize) -> &[f32; LANES] {
        self.scale[panel * LANES..].first_chunk().expect("padded")
    }
}

/// What the bound needs to know of one query row.
#[derive(Clone, Copy, Default)]
pub struct Size {
    pub scale: f32,
    pub coded: f64,
    pub rest: f64,
    pub norm: f64,
}

/// Coded query rows.
#[derive(Default)]
pub struct Rows {
    pub quads: usize,
    /// `[row][quad of dimensions][4]`, or, of what `only` makes, as the kernel takes them.
    pub codes: Vec<[i8; 4]>,
    /// `-128 * sum of the codes`: takes back what the items' 128 adds to every product.
    pub base: Vec<i32>,
    /// `base` as AMX loads it: 16 times a row. Like `codes` padded to a multiple of 16 rows.
    pub starts: Vec<[i32; 16]>,
    pub size: Vec<Size>,
}

impl Rows {
    /// Code rows to `-limit..=limit`. Rows of `shared` get one scale, so that their sums can be compared as they are.
    pub fn push(&mut self, rows: &[&[f32]], limit: f32, shared: bool) {
        let together = rows.iter().fold(0.0f32, |most, row| most.max(largest(row)));
        for row in rows {
            self.quads = row.len().div_ceil(4);
            let scale = if shared { together } else { largest(row) } / limit;
            let start = self.codes.len();
            self.codes.resize(start + self.quads, [0; 4]);
            let mut sum = 0;
            let (coded, rest) = round(row, scale, limit, |dimension, code| {
                self.codes[start + dimension / 4][dimension % 4] = code as i8;
                sum += code;
            });
            self.base.push(-128 * sum);
            self.size.push(Size {
                scale,
                coded,
                rest,
                norm: norm(row),
            });
        }
    }

    /// Some of the rows, in the order of a kernel that takes `tile` of them at a time, with room for one that takes 16.
    pub fn only(&self, rows: &[u32], tile: usize, into: &mut Self) {
        into.quads = self.quads;
        into.codes.clear();
        for tile in tiles(rows.len(), tile) {
            let rows = &rows[tile];
            for quad in 0..self.quads {
                into.codes.extend(
                    rows.iter()
                        .map(|&row| self.codes[row as usize * self.quads + quad]),
                );
            }
        }
        let count = rows.len().next_multiple_of(16);
        into.codes.resize(count * self.quads, [0; 4]);
        into.base.clear();
        into.base
            .extend(rows.iter().map(|&row| self.base[row as usize]));
        into.starts.clear();
        into.starts.extend(into.base.iter().map(|&base| [base; 16]));
        into.starts.resize(count, [0; 16]);
    }

    /// All rows in that order.
    pub fn packed(&self, tile: usize) -> Self {
        let mut packed = Self::default();
        self.only(
            &(0..self.len() as u32).collect::<Vec<_>>(),
            tile,
            &mut packed,
        );
        packed
    }

    pub fn len(&self) -> usize {
        self.base.len()
    }
}

/// Rows of `width` things, `[row][thing]`, as `[tile][thing][row of the tile]`: a kernel then reads them through one
/// pointer. With a pointer a row the registers ran out.
pub fn pack<T: Copy>(rows: &[T], width: usize, tile: usize) -> Vec<T> {
    tiles(rows.len() / width, tile)
        .flat_map(|tile| {
            (0..width).flat_map(move |thing| tile.clone().map(move |row| row * width + thing))
        })
        .map(|place| rows[place])
        .collect()
}

/// Cut `count` rows into tiles of at most `most` rows whose sizes differ by one at most: 51 rows by 12 are 10, 10, 10,
/// 10, 11. A last tile of 3 would leave the multipliers waiting for their own results.
pub fn tiles(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = count.div_ceil(most);
    (0..parts).map(move |part| count * part / parts..count * (part + 1) / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_all_rows_and_are_even() {
        for count in 1..200 {
            let cut: Vec<_> = tiles(count, 12).collect();
            assert_eq!(cut.iter().map(ExactSizeIterator::len).sum::<usize>(), count);
            let sizes = cut.iter().map(ExactSizeIterator::len);
            assert!(sizes.clone().max() <= sizes.min().map(|size| size + 1));
        }
        assert_eq!(pack(&[1, 2, 3, 4, 5, 6], 2, 2), [1, 2, 3, 5, 4, 6]);
    }
}
