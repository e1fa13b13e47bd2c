//! The products in plain Rust: what every other kernel must equal, and all there is on other processors.

use crate::index::codes::{Line, Rows};
use crate::index::estimate::{one, Sum};
use crate::index::group::Asked;
use crate::index::LANES;

pub fn bytes(panel: &[Line], rows: &Rows, table: &mut [[i32; LANES]], _: &[Line]) {
    for (row, sums) in table.iter_mut().enumerate().take(rows.len()) {
        *sums = [rows.base[row]; LANES];
        for (half, lines) in panel.chunks_exact(rows.quads).enumerate() {
            let sums = &mut sums[half * 16..half * 16 + 16];
            let codes = &rows.codes[row * rows.quads..];
            for (line, codes) in lines.iter().zip(codes) {
                for (sum, item) in sums.iter_mut().zip(line.0.chunks_exact(4)) {
                    for (&byte, &code) in item.iter().zip(codes) {
                        *sum += i32::from(byte) * i32::from(code);
                    }
                }
            }
        }
    }
}

pub fn floats(panel: &[f32], rows: &[f32], table: &mut [[f32; LANES]], _: &[&[f32]]) {
    for (row, sums) in rows.chunks_exact(panel.len() / LANES).zip(table) {
        *sums = [0.0; LANES];
        for (column, &weight) in panel.chunks_exact(LANES).zip(row) {
            for (sum, &value) in sums.iter_mut().zip(column) {
                *sum += weight * value;
            }
        }
    }
}

pub fn fill(rows: &[&[f32]], panel: &mut [f32]) {
    for (lane, row) in rows.iter().enumerate() {
        for (column, &value) in panel.chunks_exact_mut(LANES).zip(*row) {
            column[lane] = value;
        }
    }
}

pub fn pick<S: Sum>(
    table: &[[S; LANES]],
    asked: &Asked,
    slots: &[u32],
    scale: &[f32; LANES],
    least: f32,
) -> u32 {
    let passes = |lane: &usize| scale[*lane] * one(table, asked, slots, *lane) >= least;
    (0..LANES).filter(passes).map(|lane| 1 << lane).sum()
}
