//! Estimates: products of a group's rows with one panel, in bytes or in floats, folded to one figure a question and item.

use super::cells::NONE;
use super::codes::{pack, Codes, Rows};
use super::group::Asked;
use super::kernels::{Kernel, Largest, Pick, Ready};
use super::{Matrix, LANES};
use crate::near::near;

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
    /// How many panels ahead items are fetched.
    const AHEAD: usize;
    /// Multiply only these rows from now on, in this order, or all.
    fn choose(&mut self, rows: Option<&[u32]>);
    /// Multiply with a panel; `ahead`: the one that will come `AHEAD` panels later.
    fn products(
        &mut self,
        panel: usize,
        ahead: Option<usize>,
        table: &mut [[Self::Sum; LANES]],
    ) -> Facts;
    fn pick(kernel: &Kernel) -> Pick<Self::Sum>;
    fn largest(kernel: &Kernel) -> Largest<Self::Sum>;
    /// Rest and norm of the item at one place of that panel.
    fn of(&self, place: usize, facts: &Facts) -> (f32, f32);
}

pub struct Bytes<'a> {
    codes: &'a Codes,
    kernel: Kernel,
    ready: Ready,
    rows: &'a Rows,
    all: &'a Rows,
    some: Option<Rows>,
    spare: Rows,
}

impl<'a> Bytes<'a> {
    /// `rows` in their order, and `packed` for the kernel.
    pub fn new(codes: &'a Codes, rows: &'a Rows, packed: &'a Rows, kernel: Kernel) -> Self {
        Self {
            codes,
            kernel,
            ready: kernel.ready(rows),
            rows,
            all: packed,
            some: None,
            spare: Rows::default(),
        }
    }
}

impl Source for Bytes<'_> {
    type Sum = i32;
    const COARSE: bool = true;
    // With few rows to multiply, one panel is too short a time.
    const AHEAD: usize = 4;

    fn choose(&mut self, rows: Option<&[u32]>) {
        if let Some(old) = self.some.take() {
            self.spare = old;
        }
        self.some = rows.map(|rows| {
            let mut some = std::mem::take(&mut self.spare);
            self.rows.only(rows, self.kernel.tiles[0], &mut some);
            some
        });
    }

    fn pick(kernel: &Kernel) -> Pick<i32> {
        kernel.pick_bytes
    }

    fn largest(kernel: &Kernel) -> Largest<i32> {
        kernel.largest
    }

    fn products(
        &mut self,
        panel: usize,
        ahead: Option<usize>,
        table: &mut [[i32; LANES]],
    ) -> Facts {
        let rows = self.some.as_ref().unwrap_or(self.all);
        let next = ahead.map_or(&[][..], |ahead| {
            let scale = self.codes.panel_scale(ahead);
            near(&scale[0]);
            near(&scale[LANES / 2]);
            self.codes.panel(ahead)
        });
        self.ready
            .products(self.codes.panel(panel), rows, table, next);
        Facts {
            scale: *self.codes.panel_scale(panel),
            widest: self.codes.widest[panel],
        }
    }

    fn of(&self, place: usize, _: &Facts) -> (f32, f32) {
        (self.codes.rest[place], self.codes.norm[place])
    }
}

pub struct Floats<'a> {
    items: Matrix<'a>,
    order: Option<&'a [u32]>,
    rows: &'a [f32],
    all: &'a [f32],
    some: Option<Vec<f32>>,
    kernel: Kernel,
    panel: Vec<f32>,
}

impl<'a> Floats<'a> {
    /// Items by `order` or in row order; `rows` one after another, and `packed` for the kernel.
    pub fn new(
        items: Matrix<'a>,
        order: Option<&'a [u32]>,
        rows: &'a [f32],
        packed: &'a [f32],
        kernel: Kernel,
    ) -> Self {
        Self {
            items,
            order,
            rows,
            all: packed,
            some: None,
            kernel,
            panel: vec![0.0; items.dim * LANES],
        }
    }

    /// The vectors of a panel, and how many it has.
    fn vectors(&self, panel: usize) -> ([&'a [f32]; LANES], usize) {
        let mut rows: [&[f32]; LANES] = [&[]; LANES];
        let start = panel * LANES;
        let count = if let Some(order) = self.order {
            let order = &order[start..start + LANES];
            let count = order.iter().take_while(|&&row| row != NONE).count();
            for (lane, &row) in rows.iter_mut().zip(&order[..count]) {
                *lane = self.items.row(row as usize);
            }
            count
        } else {
            let count = LANES.min(self.items.rows().saturating_sub(start));
            for (lane, row) in rows[..count].iter_mut().enumerate() {
                *row = self.items.row(start + lane);
            }
            count
        };
        (rows, count)
    }
}

impl Source for Floats<'_> {
    type Sum = f32;
    const COARSE: bool = false;
    const AHEAD: usize = 1;

    fn choose(&mut self, rows: Option<&[u32]>) {
        let dim = self.items.dim;
        self.some = rows.map(|rows| {
            let row = |row: &u32| &self.rows[*row as usize * dim..][..dim];
            let some: Vec<f32> = rows.iter().flat_map(row).copied().collect();
            pack(&some, dim, self.kernel.tiles[1])
        });
    }

    fn pick(kernel: &Kernel) -> Pick<f32> {
        kernel.pick_floats
    }

    fn largest(_kernel: &Kernel) -> Largest<f32> {
        largest
    }

    fn products(
        &mut self,
        panel: usize,
        ahead: Option<usize>,
        table: &mut [[f32; LANES]],
    ) -> Facts {
        let (rows, count) = self.vectors(panel);
        (self.kernel.fill)(&rows[..count], &mut self.panel);
        let (next, ahead) = ahead.map_or(([&[][..]; LANES], 0), |ahead| self.vectors(ahead));
        let rows = self.some.as_deref().unwrap_or(self.all);
        (self.kernel.floats)(&self.panel, rows, table, &next[..ahead]);
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
        let norm = most.sqrt() * (1.0 + (self.items.dim + 8) as f32 * f32::EPSILON) + 1e-18;
        Facts {
            scale: [1.0; LANES],
            widest: (0.0, norm),
        }
    }

    fn of(&self, _place: usize, facts: &Facts) -> (f32, f32) {
        facts.widest
    }
}

/// For each lane the row with the largest sum, the first among equal ones.
// What is compiled for wider registers must be compiled into its caller.
#[allow(clippy::inline_always)]
#[inline(always)]
pub fn largest<S: Sum>(table: &[[S; LANES]]) -> [u32; LANES] {
    let (mut best, mut found) = (table[0], [0u32; LANES]);
    for (row, sums) in table.iter().enumerate().skip(1) {
        for lane in 0..LANES {
            let wins = sums[lane] > best[lane];
            best[lane] = if wins { sums[lane] } else { best[lane] };
            found[lane] = if wins { row as u32 } else { found[lane] };
        }
    }
    found
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
