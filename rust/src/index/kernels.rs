//! Which instructions a scan runs on: one table a processor can be asked for, and a trial before any is trusted.
//!
//! A kernel fills a table with products of query rows and one panel of items, and picks the items over a threshold. All
//! else (bounds, filters, selection) is portable Rust, and exact scores decide, so answers do not depend on the kernel.

use std::ops::Range;
use std::sync::OnceLock;

use super::codes::{pack, Codes, Line, Rows};
use super::estimate::largest;
use super::exact::{score, Scored};
use super::group::Asked;
use super::{Matrix, LANES};
use crate::near::near;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// 32-bit products of coded rows with one coded panel. The last argument is what will be read next.
type Bytes = fn(&[Line], &Rows, &mut [[i32; LANES]], &[Line]);
/// Products of packed rows with one panel, `[dimension][lane]`; the order of additions is free. The last as above.
type Floats = fn(&[f32], &[f32], &mut [[f32; LANES]], &[&[f32]]);
/// Up to `LANES` rows into a panel, a lane each; other lanes stay as they are.
type Fill = fn(&[&[f32]], &mut [f32]);

/// Which lanes of a panel may enter an answer, a bit each: those whose estimate, `scale * (weights[0] * user's sum +
/// weights[1] * largest of the slots' sums)`, is at least `least`.
pub type Pick<S> = fn(&[[S; LANES]], &Asked, &[u32], &[f32; LANES], f32) -> u32;
/// `estimate::largest`, compiled for the kernel's registers.
pub type Largest<S> = fn(&[[S; LANES]]) -> [u32; LANES];
/// `exact::score`, compiled for the kernel's registers.
type Score = fn(&[f32], &[f32], Matrix<'_>, Range<usize>, f32) -> Scored;

/// One set of instructions.
#[derive(Clone, Copy)]
pub struct Kernel {
    pub name: &'static str,
    /// Largest code of a query row.
    pub limit: f32,
    /// How many coded rows and how many rows of floats stand side by side: see `pack`.
    pub tiles: [usize; 2],
    bytes: Bytes,
    /// Before and after all calls of `bytes` with rows of one width on one thread.
    begin: fn(&Rows),
    end: fn(),
    pub floats: Floats,
    pub fill: Fill,
    pub pick_bytes: Pick<i32>,
    pub pick_floats: Pick<f32>,
    pub largest: Largest<i32>,
    pub score: Score,
}

/// A kernel that is set up on this thread to multiply rows of one width.
pub struct Ready {
    kernel: Kernel,
    quads: usize,
}

impl Kernel {
    pub fn ready(self, rows: &Rows) -> Ready {
        (self.begin)(rows);
        Ready {
            kernel: self,
            quads: rows.quads,
        }
    }
}

impl Ready {
    /// Fill the table, a row of it a coded row, with 32-bit products. The table has room for a multiple of 16 rows.
    pub fn products(&self, panel: &[Line], rows: &Rows, table: &mut [[i32; LANES]], next: &[Line]) {
        assert_eq!(rows.quads, self.quads, "set up for other rows");
        (self.kernel.bytes)(panel, rows, table, next);
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        (self.kernel.end)();
    }
}

const PORTABLE: Kernel = Kernel {
    name: "portable",
    limit: 127.0,
    tiles: [1, 1],
    bytes: portable::bytes,
    begin: |_| (),
    end: || (),
    floats: portable::floats,
    fill: portable::fill,
    pick_bytes: portable::pick,
    pick_floats: portable::pick,
    largest,
    score,
};

/// Ask for a row that will be read soon.
pub fn fetch(row: &[f32]) {
    row.iter().step_by(16).for_each(near);
}

/// What a tile fetches of so many lines, so that the waiting is spread over all tiles.
fn share(lines: usize, tile: &Range<usize>, rows: usize) -> Range<usize> {
    lines * tile.start / rows..lines * tile.end / rows
}

/// Kernels that this processor has and that passed their trial, the fastest first; the last is always `portable`.
pub fn available() -> &'static [Kernel] {
    static FOUND: OnceLock<Vec<Kernel>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found = asked();
        found.retain(sound);
        found.push(PORTABLE);
        found
    })
}

#[cfg(target_arch = "x86_64")]
fn asked() -> Vec<Kernel> {
    let mut found = Vec::new();
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    // SAFETY, for all closures here: each stands behind the question whether the processor has its instructions.
    let fill: Fill = |rows, panel| unsafe { avx2::fill(rows, panel) };
    let wide = Kernel {
        name: "avx512",
        limit: 127.0,
        tiles: [12, 12],
        bytes: |panel, rows, table, next| unsafe { avx512::bytes(panel, rows, table, next) },
        begin: |_| (),
        end: || (),
        floats: |panel, rows, table, next| unsafe { avx512::floats(panel, rows, table, next) },
        fill,
        pick_bytes: |table, asked, slots, scale, least| unsafe {
            avx512::pick_bytes(table, asked, slots, scale, least)
        },
        pick_floats: |table, asked, slots, scale, least| unsafe {
            avx512::pick_floats(table, asked, slots, scale, least)
        },
        largest: |table| unsafe { avx512::largest_wide(table) },
        score: |panel, user, tags, mine, beta| unsafe {
            avx512::score_wide(panel, user, tags, mine, beta)
        },
    };
    if avx512 && amx::allowed() {
        found.push(Kernel {
            name: "amx",
            tiles: [1, 12],
            bytes: |panel, rows, table, next| unsafe { amx::bytes(panel, rows, table, next) },
            begin: |rows| unsafe { amx::begin(rows) },
            end: || unsafe { amx::end() },
            ..wide
        });
    }
    if avx512 {
        found.push(wide);
    }
    if avx2 {
        found.push(Kernel {
            name: "avx2",
            limit: avx2::LIMIT,
            tiles: [3, 3],
            bytes: |panel, rows, table, next| unsafe { avx2::bytes(panel, rows, table, next) },
            begin: |_| (),
            end: || (),
            floats: |panel, rows, table, next| unsafe { avx2::floats(panel, rows, table, next) },
            fill,
            pick_bytes: |table, asked, slots, scale, least| unsafe {
                avx2::pick_bytes(table, asked, slots, scale, least)
            },
            pick_floats: |table, asked, slots, scale, least| unsafe {
                avx2::pick_floats(table, asked, slots, scale, least)
            },
            largest: |table| unsafe { avx2::largest_wide(table) },
            score: |panel, user, tags, mine, beta| unsafe {
                avx2::score_wide(panel, user, tags, mine, beta)
            },
        });
    }
    found
}

#[cfg(not(target_arch = "x86_64"))]
fn asked() -> Vec<Kernel> {
    Vec::new()
}

/// A trial on this very machine: extreme codes, odd sizes, every sum equal to the portable kernel's.
///
/// It takes microseconds, and it is what makes a kernel safe to ship to processors that we never saw (AMX).
fn sound(kernel: &Kernel) -> bool {
    let agree = |&(dim, count): &(usize, usize)| {
        let value = |place: usize| ((place * 7919 + place / 3 * 31) % 255) as f32 - 127.0;
        let values: Vec<f32> = (0..LANES * dim).map(value).collect();
        let asked: Vec<f32> = (0..count * dim).map(|at| value(at * 13 + 5)).collect();
        let items = Matrix {
            values: &values,
            dim,
        };
        let codes = Codes::in_order(items, None);
        let run = |tried: &Kernel| {
            let mut rows = Rows::default();
            rows.push(&asked.chunks(dim).collect::<Vec<_>>(), kernel.limit, false);
            let rows = rows.packed(tried.tiles[0]);
            let mut bytes = vec![[0; LANES]; count.next_multiple_of(16)];
            tried
                .ready(&rows)
                .products(codes.panel(0), &rows, &mut bytes, &[]);
            bytes.truncate(count);
            let mut panel = vec![1.0; dim * LANES];
            let few: Vec<&[f32]> = values.chunks(dim).take(LANES - 1).collect();
            (tried.fill)(&few, &mut panel);
            let mut floats = vec![[f32::NAN; LANES]; count];
            (tried.floats)(&panel, &pack(&asked, dim, tried.tiles[1]), &mut floats, &[]);
            let every: Vec<u32> = (0..count as u32).collect();
            let asked = Asked {
                user: count - 1,
                tags: 0..count,
                weights: [0.5, 0.25],
                slack: [0.0; 2],
            };
            // Sums of half and quarter numbers are exact too, so kernels must agree where an estimate equals the floor.
            let least = 0.5 * floats[count - 1][7]
                + 0.25 * floats.iter().fold(f32::MIN, |most, row| most.max(row[7]));
            let picked = [&every[..], &every[..1], &[]].map(|slots| {
                let of_bytes = (tried.pick_bytes)(&bytes, &asked, slots, &[1.0; LANES], least);
                let of_floats = (tried.pick_floats)(&floats, &asked, slots, &[1.0; LANES], least);
                (of_bytes, of_floats)
            });
            ((tried.largest)(&bytes), bytes, panel, floats, picked)
        };
        // Whole numbers this small are added without rounding, so even the float sums must agree to the bit.
        run(kernel) == run(&PORTABLE)
    };
    // Miri takes minutes for the large ones: there a full tile and a part of one.
    let small = [(1, 1), (17, 3), (5, 14)];
    let sizes = [(1, 1), (17, 3), (64, 51), (70, 29), (200, 16)];
    let tried: &[(usize, usize)] = if cfg!(miri) { &small } else { &sizes };
    tried.iter().all(agree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_this_processor_passes_its_trial_and_the_rest_is_named() {
        let names: Vec<&str> = available().iter().map(|kernel| kernel.name).collect();
        for name in ["amx", "avx512", "avx2"] {
            if !names.contains(&name) {
                eprintln!(
                    "SKIPPED: this processor has no {name}; its kernel is compiled but not run"
                );
            }
        }
        assert_eq!(names.last(), Some(&"portable"));
        #[cfg(target_arch = "x86_64")]
        assert_eq!(asked().len() + 1, names.len(), "a kernel failed its trial");
    }

    #[test]
    fn a_kernel_that_multiplies_wrongly_fails_its_trial() {
        let wrong = Kernel {
            bytes: |panel, rows, table, next| {
                portable::bytes(panel, rows, table, next);
                table[0][31] += 1;
            },
            ..PORTABLE
        };
        assert!(sound(&PORTABLE) && !sound(&wrong));
    }
}
