//! Estimates: products of a group's rows with one panel, in bytes or in floats, folded to one figure a question and item.

use super::codes::Codes;
use super::group::Asked;
use super::kernels::{Kernel, Pick, Ready};
use super::{Matrix, LANES};

/// What a source says of the panel that it just multiplied.
pub struct Facts {
    /// What one step of each item's code is worth.
    pub scale: [f32; LANES],
    /// The largest rest and norm of the panel's items.
    pub widest: (f32, f32),
}

/// A sum of products: whole, of bytes, or a float.
pub trait Sum: Copy + Default + PartialOrd {
    fn float(self) -> f32;
}

impl Sum for i32 {
    fn float(self) -> f32 {
        self as f32
    }
}

impl Sum for f32 {
    fn float(self) -> f32 {
        self
    }
}

/// Multiplies rows with panels, in bytes or in floats.
pub trait Source {
    type Sum: Sum;
    /// Whether there is a source with closer bounds.
    const COARSE: bool;
    fn products(&mut self, panel: usize, table: &mut [[Self::Sum; LANES]]) -> Facts;
    fn pick(kernel: &Kernel) -> Pick<Self::Sum>;
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

    fn pick(kernel: &Kernel) -> Pick<i32> {
        kernel.pick_bytes
    }

    fn products(&mut self, panel: usize, table: &mut [[i32; LANES]]) -> Facts {
        self.ready.products(self.codes.panel(panel), table);
        Facts {
            scale: *self.codes.panel_scale(panel),
            widest: self.codes.widest[panel],
        }
    }

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

    fn pick(kernel: &Kernel) -> Pick<f32> {
        kernel.pick_floats
    }

    fn products(&mut self, panel: usize, table: &mut [[f32; LANES]]) -> Facts {
        let (dim, end) = (self.items.dim, self.items.rows());
        let start = panel * LANES;
        let mut rows: [&[f32]; LANES] = [&[]; LANES];
        let count = LANES.min(end - start);
        for (lane, row) in rows[..count].iter_mut().enumerate() {
            *row = self.items.row(start + lane);
        }
        (self.kernel.fill)(&rows[..count], &mut self.panel);
        let (from, to) = ((start + LANES).min(end), (start + 2 * LANES).min(end));
        let next = &self.items.values[from * dim..to * dim];
        (self.kernel.floats)(&self.panel, self.rows, table, next);
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

    fn of(&self, _: usize, facts: &Facts) -> (f32, f32) {
        facts.widest
    }
}

/// One item's sums, weighed: the estimate but for the item's scale.
pub fn one<S: Sum>(table: &[[S; LANES]], asked: &Asked, slots: &[u32], lane: usize) -> f32 {
    let of_user = asked.weights[0] * table[asked.user][lane].float();
    let mut sums = slots.iter().map(|&slot| table[slot as usize][lane]);
    sums.next().map_or(of_user, |first| {
        let best = sums.fold(first, |best, sum| if sum > best { sum } else { best });
        of_user + asked.weights[1] * best.float()
    })
}
