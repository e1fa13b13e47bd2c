//! Estimates: products of a group's rows with one panel, in bytes or in floats, folded to one figure a question and item.

// What is compiled for wider registers must be compiled into its caller.
#![allow(clippy::inline_always)]

use super::codes::Codes;
use super::group::Asked;
use super::kernels::{Kernel, Ready};
use super::{Matrix, LANES};

/// What a source says of the panel that it just multiplied.
pub struct Facts {
    /// What one step of each item's code is worth.
    pub scale: [f32; LANES],
    /// The largest rest and norm of the panel's items.
    pub widest: (f32, f32),
}

/// Multiplies rows with panels, in bytes or in floats.
pub trait Source {
    type Sum: Copy + Default + PartialOrd;
    /// Whether there is a source with closer bounds.
    const COARSE: bool;
    fn float(sum: Self::Sum) -> f32;
    fn products(&mut self, panel: usize, table: &mut [[Self::Sum; LANES]]) -> Facts;
    /// Rest and norm of one item of that panel.
    fn of(&self, row: usize, facts: &Facts) -> (f32, f32);
}

pub struct Bytes<'a> {
    pub codes: &'a Codes,
    pub ready: Ready<'a>,
}

impl Source for Bytes<'_> {
    type Sum = i32;
    const COARSE: bool = true;

    #[inline(always)]
    fn float(sum: i32) -> f32 {
        sum as f32
    }

    #[inline(always)]
    fn products(&mut self, panel: usize, table: &mut [[i32; LANES]]) -> Facts {
        self.ready.products(self.codes.panel(panel), table);
        Facts {
            scale: *self.codes.panel_scale(panel),
            widest: self.codes.widest[panel],
        }
    }

    #[inline(always)]
    fn of(&self, row: usize, _: &Facts) -> (f32, f32) {
        (self.codes.rest[row], self.codes.norm[row])
    }
}

pub struct Floats<'a> {
    pub items: Matrix<'a>,
    pub rows: &'a [f32],
    pub kernel: Kernel,
    pub panel: Vec<f32>,
}

impl Source for Floats<'_> {
    type Sum = f32;
    const COARSE: bool = false;

    #[inline(always)]
    fn float(sum: f32) -> f32 {
        sum
    }

    #[inline(always)]
    fn products(&mut self, panel: usize, table: &mut [[f32; LANES]]) -> Facts {
        let dim = self.items.dim;
        let (start, end) = (panel * LANES, self.items.rows().min((panel + 1) * LANES));
        let rows = &self.items.values[start * dim..end * dim];
        (self.kernel.fill)(rows, dim, &mut self.panel);
        (self.kernel.floats)(&self.panel, self.rows, table);
        let mut squares = [0.0f32; LANES];
        for column in self.panel.chunks_exact(LANES) {
            for (square, value) in squares.iter_mut().zip(column) {
                *square += value * value;
            }
        }
        let most = squares
            .iter()
            .fold(0.0f32, |most, &square| most.max(square));
        // A square that underflows belongs to a norm below 1e-19, so that much is added.
        let norm = most.sqrt() * (1.0 + (dim + 8) as f32 * f32::EPSILON) + 1e-18;
        Facts {
            scale: [1.0; LANES],
            widest: (0.0, norm),
        }
    }

    #[inline(always)]
    fn of(&self, _: usize, facts: &Facts) -> (f32, f32) {
        facts.widest
    }
}

/// Estimates of one question for a panel: the best tag's sum and the user's, scaled.
#[inline(always)]
pub fn fold<S: Source>(
    table: &[[S::Sum; LANES]],
    slots: &[u32],
    asked: &Asked,
    scale: &[f32; LANES],
) -> [f32; LANES] {
    let mut estimate = [0.0; LANES];
    let user = &table[asked.user];
    let slots = &slots[asked.tags.clone()];
    if slots.is_empty() {
        for lane in 0..LANES {
            estimate[lane] = scale[lane] * (asked.weights[0] * S::float(user[lane]));
        }
        return estimate;
    }
    let mut best = table[slots[0] as usize];
    for &slot in &slots[1..] {
        let sums = &table[slot as usize];
        for lane in 0..LANES {
            best[lane] = if sums[lane] > best[lane] {
                sums[lane]
            } else {
                best[lane]
            };
        }
    }
    for lane in 0..LANES {
        let mixed =
            asked.weights[0] * S::float(user[lane]) + asked.weights[1] * S::float(best[lane]);
        estimate[lane] = scale[lane] * mixed;
    }
    estimate
}
