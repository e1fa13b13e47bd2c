//! AVX-512: `vpdpbusd` adds four products of bytes a lane in one instruction, 64 a cycle even where the unit is 256 wide.
//!
//! Up to 12 rows by 2 halves of a panel make 24 sums; with two lines of items and one broadcast they fill 27 of the 32
//! registers, and 24 independent chains hide the four cycles that a sum takes.

// The names of instructions are many, and each says where it comes from.
#[allow(clippy::wildcard_imports)]
use std::arch::x86_64::*;
use std::ops::Range;

use super::share;
use crate::index::codes::{tiles, Line, Rows};
use crate::index::estimate::largest;
use crate::index::exact::{score, Scored};
use crate::index::group::Asked;
use crate::index::{Matrix, LANES};
use crate::near::near;

/// Call `$tile::<N>` for the number of rows in the tile, so that all sums stay in registers.
macro_rules! by_rows {
    ($count:expr, $tile:ident($($argument:expr),*)) => {
        match $count {
            1 => $tile::<1>($($argument),*),
            2 => $tile::<2>($($argument),*),
            3 => $tile::<3>($($argument),*),
            4 => $tile::<4>($($argument),*),
            5 => $tile::<5>($($argument),*),
            6 => $tile::<6>($($argument),*),
            7 => $tile::<7>($($argument),*),
            8 => $tile::<8>($($argument),*),
            9 => $tile::<9>($($argument),*),
            10 => $tile::<10>($($argument),*),
            11 => $tile::<11>($($argument),*),
            _ => $tile::<12>($($argument),*),
        }
    };
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn bytes(panel: &[Line], rows: &Rows, table: &mut [[i32; LANES]], next: &[Line]) {
    for tile in tiles(rows.len(), 12) {
        // Left to the processor, a quarter of this function's time was the wait at its first loads.
        next[share(next.len(), &tile, rows.len())]
            .iter()
            .for_each(near);
        let codes = &rows.codes[tile.start * rows.quads..tile.end * rows.quads];
        let (base, table) = (&rows.base[tile.clone()], &mut table[tile.clone()]);
        by_rows!(tile.len(), byte_tile(panel, codes, base, table));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn byte_tile<const R: usize>(
    panel: &[Line],
    codes: &[[i8; 4]],
    base: &[i32],
    table: &mut [[i32; LANES]],
) {
    let (low, high) = panel.split_at(panel.len() / 2);
    let mut sums: [[__m512i; 2]; R] = std::array::from_fn(|row| [_mm512_set1_epi32(base[row]); 2]);
    for ((low, high), codes) in low.iter().zip(high).zip(codes.as_chunks::<R>().0) {
        // SAFETY: a `Line` is 64 aligned bytes.
        let [low, high] =
            unsafe { [low, high].map(|line| _mm512_load_si512(line.0.as_ptr().cast())) };
        for (sums, code) in sums.iter_mut().zip(codes) {
            let code = _mm512_set1_epi32(i32::from_le_bytes(code.map(|code| code as u8)));
            sums[0] = _mm512_dpbusd_epi32(sums[0], low, code);
            sums[1] = _mm512_dpbusd_epi32(sums[1], high, code);
        }
    }
    for (sums, out) in sums.iter().zip(&mut table[..R]) {
        let (low, high) = out.split_at_mut(16);
        // SAFETY: each half has room for 16 sums.
        unsafe {
            _mm512_storeu_si512(low.as_mut_ptr().cast(), sums[0]);
            _mm512_storeu_si512(high.as_mut_ptr().cast(), sums[1]);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn floats(panel: &[f32], rows: &[f32], table: &mut [[f32; LANES]], next: &[&[f32]]) {
    let dim = panel.len() / LANES;
    for tile in tiles(rows.len() / dim, 12) {
        for row in &next[share(next.len(), &tile, rows.len() / dim)] {
            for line in row.chunks(16) {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
            }
        }
        let rows = &rows[tile.start * dim..tile.end * dim];
        by_rows!(tile.len(), float_tile(panel, rows, &mut table[tile]));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn float_tile<const R: usize>(panel: &[f32], rows: &[f32], table: &mut [[f32; LANES]]) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    for (column, weights) in panel.chunks_exact(LANES).zip(rows.as_chunks::<R>().0) {
        // SAFETY: a column is 32 values.
        let [low, high] = unsafe { [0, 16].map(|from| _mm512_loadu_ps(column.as_ptr().add(from))) };
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            let weight = _mm512_set1_ps(weight);
            sums[0] = _mm512_fmadd_ps(weight, low, sums[0]);
            sums[1] = _mm512_fmadd_ps(weight, high, sums[1]);
        }
    }
    for (sums, out) in sums.iter().zip(&mut table[..R]) {
        let (low, high) = out.split_at_mut(16);
        // SAFETY: each half has room for 16 sums.
        unsafe {
            _mm512_storeu_ps(low.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(high.as_mut_ptr(), sums[1]);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn pick_bytes(
    table: &[[i32; LANES]],
    asked: &Asked,
    slots: &[u32],
    scale: &[f32; LANES],
    least: f32,
) -> u32 {
    let load = |row: &[i32; LANES]| {
        // SAFETY: a row is 32 sums.
        unsafe { [0, 16].map(|from| _mm512_loadu_si512(row.as_ptr().add(from).cast())) }
    };
    let best = slots.split_first().map(|(&first, others)| {
        let mut best = load(&table[first as usize]);
        for &slot in others {
            let sums = load(&table[slot as usize]);
            best = [0, 1].map(|half| _mm512_max_epi32(best[half], sums[half]));
        }
        best.map(|sums| _mm512_cvtepi32_ps(sums))
    });
    let user = load(&table[asked.user]).map(|sums| _mm512_cvtepi32_ps(sums));
    compare(user, best, asked, scale, least)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn pick_floats(
    table: &[[f32; LANES]],
    asked: &Asked,
    slots: &[u32],
    scale: &[f32; LANES],
    least: f32,
) -> u32 {
    let best = slots.split_first().map(|(&first, others)| {
        let mut best = load(&table[first as usize]);
        for &slot in others {
            let sums = load(&table[slot as usize]);
            best = [0, 1].map(|half| _mm512_max_ps(best[half], sums[half]));
        }
        best
    });
    compare(load(&table[asked.user]), best, asked, scale, least)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn load(row: &[f32; LANES]) -> [__m512; 2] {
    // SAFETY: a row is 32 sums.
    unsafe { [0, 16].map(|from| _mm512_loadu_ps(row.as_ptr().add(from))) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn compare(
    user: [__m512; 2],
    best: Option<[__m512; 2]>,
    asked: &Asked,
    scale: &[f32; LANES],
    least: f32,
) -> u32 {
    let [of_user, of_tags] = asked.weights.map(|weight| _mm512_set1_ps(weight));
    let mut estimate = user.map(|sums| _mm512_mul_ps(of_user, sums));
    if let Some(best) = best {
        estimate = [0, 1].map(|half| _mm512_fmadd_ps(of_tags, best[half], estimate[half]));
    }
    let (scale, least) = (load(scale), _mm512_set1_ps(least));
    let [low, high] = [0, 1].map(|half| {
        let estimate = _mm512_mul_ps(scale[half], estimate[half]);
        _mm512_cmp_ps_mask::<_CMP_GE_OQ>(estimate, least)
    });
    u32::from(low) | u32::from(high) << 16
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn score_wide(
    panel: &[f32],
    user: &[f32],
    tags: Matrix<'_>,
    mine: Range<usize>,
    beta: f32,
) -> Scored {
    score(panel, user, tags, mine, beta)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn largest_wide(table: &[[i32; LANES]]) -> [u32; LANES] {
    largest(table)
}
