//! AVX2: bytes are multiplied and added in pairs to 16 bits, then to 32. Also fills panels, eight rows at a time.

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

/// A pair of products must fit 16 bits: 2 * 255 * 64 = 32,640. So query rows have one bit less here, and a wider bound.
pub const LIMIT: f32 = 64.0;

/// The registers of a panel.
const PLACES: [usize; 4] = [0, 1, 2, 3];

/// Up to 3 rows by 4 registers of 8 items make 12 sums of the 16 registers.
macro_rules! by_rows {
    ($count:expr, $tile:ident($($argument:expr),*)) => {
        match $count {
            1 => $tile::<1>($($argument),*),
            2 => $tile::<2>($($argument),*),
            _ => $tile::<3>($($argument),*),
        }
    };
}

#[target_feature(enable = "avx2,fma")]
pub fn bytes(panel: &[Line], rows: &Rows, table: &mut [[i32; LANES]], next: &[Line]) {
    for tile in tiles(rows.len(), 3) {
        next[share(next.len(), &tile, rows.len())]
            .iter()
            .for_each(near);
        let codes = &rows.codes[tile.start * rows.quads..tile.end * rows.quads];
        let (base, table) = (&rows.base[tile.clone()], &mut table[tile.clone()]);
        by_rows!(tile.len(), byte_tile(panel, codes, base, table));
    }
}

#[target_feature(enable = "avx2,fma")]
fn byte_tile<const R: usize>(
    panel: &[Line],
    codes: &[[i8; 4]],
    base: &[i32],
    table: &mut [[i32; LANES]],
) {
    let (low, high) = panel.split_at(panel.len() / 2);
    let mut sums: [[__m256i; 4]; R] = std::array::from_fn(|row| [_mm256_set1_epi32(base[row]); 4]);
    let ones = _mm256_set1_epi16(1);
    for ((low, high), codes) in low.iter().zip(high).zip(codes.as_chunks::<R>().0) {
        let lines = [&low.0, &high.0];
        for (sums, code) in sums.iter_mut().zip(codes) {
            let code = _mm256_set1_epi32(i32::from_le_bytes(code.map(|code| code as u8)));
            for (place, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a line is 64 bytes, two registers.
                let items = unsafe {
                    _mm256_loadu_si256(lines[place / 2].as_ptr().add(place % 2 * 32).cast())
                };
                let pairs = _mm256_maddubs_epi16(items, code);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    for (sums, out) in sums.iter().zip(&mut table[..R]) {
        for (sum, out) in sums.iter().zip(out.chunks_exact_mut(8)) {
            // SAFETY: a chunk has room for 8 sums.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), *sum) };
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub fn floats(panel: &[f32], rows: &[f32], table: &mut [[f32; LANES]], _: &[&[f32]]) {
    let dim = panel.len() / LANES;
    for tile in tiles(rows.len() / dim, 3) {
        let rows = &rows[tile.start * dim..tile.end * dim];
        by_rows!(tile.len(), float_tile(panel, rows, &mut table[tile]));
    }
}

#[target_feature(enable = "avx2,fma")]
fn float_tile<const R: usize>(panel: &[f32], rows: &[f32], table: &mut [[f32; LANES]]) {
    let mut sums = [[_mm256_setzero_ps(); 4]; R];
    for (column, weights) in panel.chunks_exact(LANES).zip(rows.as_chunks::<R>().0) {
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            let weight = _mm256_set1_ps(weight);
            for (place, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a column is 32 values, four registers.
                let items = unsafe { _mm256_loadu_ps(column.as_ptr().add(place * 8)) };
                *sum = _mm256_fmadd_ps(weight, items, *sum);
            }
        }
    }
    for (sums, out) in sums.iter().zip(&mut table[..R]) {
        for (sum, out) in sums.iter().zip(out.chunks_exact_mut(8)) {
            // SAFETY: a chunk has room for 8 sums.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *sum) };
        }
    }
}

/// Turn rows into a panel by blocks of 8 by 8: 24 shuffles for 64 values, a fifth of what single stores take.
#[target_feature(enable = "avx2,fma")]
pub fn fill(rows: &[&[f32]], panel: &mut [f32]) {
    let dim = panel.len() / LANES;
    assert!(rows.len() <= LANES && rows.iter().all(|row| row.len() == dim));
    let (eights, others) = rows.as_chunks::<8>();
    for (eight, rows) in eights.iter().enumerate() {
        for from in (0..dim / 8 * 8).step_by(8) {
            // SAFETY: each row has values `from..from + 8`, the panel has lanes `8 * eight..8 * eight + 8`.
            unsafe {
                let turned = turn(rows.map(|row| _mm256_loadu_ps(row.as_ptr().add(from))));
                let target = panel.as_mut_ptr().add(from * LANES + eight * 8);
                for (column, lanes) in turned.into_iter().enumerate() {
                    _mm256_storeu_ps(target.add(column * LANES), lanes);
                }
            }
        }
    }
    let whole = dim / 8 * 8;
    for (lane, row) in rows.iter().enumerate() {
        let from = if lane < rows.len() - others.len() {
            whole
        } else {
            0
        };
        for (column, &value) in panel.chunks_exact_mut(LANES).zip(*row).skip(from) {
            column[lane] = value;
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn turn(rows: [__m256; 8]) -> [__m256; 8] {
    let pair = |place: usize| {
        let (low, high) = (rows[place], rows[place + 1]);
        [_mm256_unpacklo_ps(low, high), _mm256_unpackhi_ps(low, high)]
    };
    let pairs = [pair(0), pair(2), pair(4), pair(6)];
    // Columns 0 to 3 of four rows, in the low half of a register, and 4 to 7 in the high half.
    let quad = |from: usize| {
        let [left, right] = [pairs[from], pairs[from + 1]];
        [
            _mm256_shuffle_ps::<0x44>(left[0], right[0]),
            _mm256_shuffle_ps::<0xEE>(left[0], right[0]),
            _mm256_shuffle_ps::<0x44>(left[1], right[1]),
            _mm256_shuffle_ps::<0xEE>(left[1], right[1]),
        ]
    };
    let (upper, lower) = (quad(0), quad(2));
    std::array::from_fn(|column| {
        let (upper, lower) = (upper[column % 4], lower[column % 4]);
        if column < 4 {
            _mm256_permute2f128_ps::<0x20>(upper, lower)
        } else {
            _mm256_permute2f128_ps::<0x31>(upper, lower)
        }
    })
}

#[target_feature(enable = "avx2,fma")]
pub fn pick_bytes(
    table: &[[i32; LANES]],
    asked: &Asked,
    slots: &[u32],
    scale: &[f32; LANES],
    least: f32,
) -> u32 {
    let load = |row: &[i32; LANES]| {
        // SAFETY: a row is 32 sums.
        unsafe { PLACES.map(|place| _mm256_loadu_si256(row.as_ptr().add(place * 8).cast())) }
    };
    let best = slots.split_first().map(|(&first, others)| {
        let mut best = load(&table[first as usize]);
        for &slot in others {
            let sums = load(&table[slot as usize]);
            best = PLACES.map(|place| _mm256_max_epi32(best[place], sums[place]));
        }
        best.map(|sums| _mm256_cvtepi32_ps(sums))
    });
    let user = load(&table[asked.user]).map(|sums| _mm256_cvtepi32_ps(sums));
    compare(user, best, asked, scale, least)
}

#[target_feature(enable = "avx2,fma")]
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
            best = PLACES.map(|place| _mm256_max_ps(best[place], sums[place]));
        }
        best
    });
    compare(load(&table[asked.user]), best, asked, scale, least)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(row: &[f32; LANES]) -> [__m256; 4] {
    // SAFETY: a row is 32 sums.
    unsafe { PLACES.map(|place| _mm256_loadu_ps(row.as_ptr().add(place * 8))) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn compare(
    user: [__m256; 4],
    best: Option<[__m256; 4]>,
    asked: &Asked,
    scale: &[f32; LANES],
    least: f32,
) -> u32 {
    let [of_user, of_tags] = asked.weights.map(|weight| _mm256_set1_ps(weight));
    let mut estimate = user.map(|sums| _mm256_mul_ps(of_user, sums));
    if let Some(best) = best {
        estimate = PLACES.map(|place| _mm256_fmadd_ps(of_tags, best[place], estimate[place]));
    }
    let (scale, least) = (load(scale), _mm256_set1_ps(least));
    let masks = PLACES.map(|place| {
        let estimate = _mm256_mul_ps(scale[place], estimate[place]);
        _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(estimate, least)) as u32
    });
    masks[0] | masks[1] << 8 | masks[2] << 16 | masks[3] << 24
}

#[target_feature(enable = "avx2,fma")]
pub fn score_wide(
    panel: &[f32],
    user: &[f32],
    tags: Matrix<'_>,
    mine: Range<usize>,
    beta: f32,
) -> Scored {
    score(panel, user, tags, mine, beta)
}

#[target_feature(enable = "avx2,fma")]
pub fn largest_wide(table: &[[i32; LANES]]) -> [u32; LANES] {
    largest(table)
}
