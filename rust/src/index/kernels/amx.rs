//! AMX: one instruction multiplies 16 rows by 16 items over 64 dimensions. Stable Rust has it only as `asm!`.
//!
//! The layout needs no repacking: 16 coded rows are a tile of signed bytes, half a panel is a tile of unsigned bytes
//! (a row of it is one `Line`), and a tile of sums is 16 rows by 64 bytes of the table. Registers: 0 and 1 hold the sums
//! of the two halves, 2 rows, 3 and 4 items; 5 to 7 the same for the last dimensions where 64 does not divide them.
//! The processors that we measure on have no AMX, so `sound` in `kernels.rs` tries this kernel before it is ever used.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

use crate::index::codes::{Line, Rows};
use crate::index::LANES;
use crate::near::near;

/// Whether processor and system have AMX for bytes; on Linux this process asks for its 8 KB of registers.
pub fn allowed() -> bool {
    let leaf = |number, sub| {
        if __cpuid(0).eax >= number {
            __cpuid_count(number, sub).edx
        } else {
            0
        }
    };
    // Leaf 7: tiles are bit 24, bytes in tiles bit 25. XCR0: the system saves tile registers if bits 17 and 18 are set.
    let tiles = leaf(7, 0) >> 24 & 3 == 3;
    // SAFETY: `xgetbv` exists where OSXSAVE (bit 27 of leaf 1) is set, and it is only then asked.
    tiles && __cpuid(1).ecx >> 27 & 1 == 1 && unsafe { xcr0() } >> 17 & 3 == 3 && permitted()
}

#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: register 0 exists wherever `xgetbv` does.
    unsafe { _xgetbv(0) }
}

#[cfg(target_os = "linux")]
fn permitted() -> bool {
    let answer: i64;
    // SAFETY: arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) only grants this process the use of tile registers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 158i64 => answer,
            in("rdi") 0x1023,
            in("rsi") 18,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// Other systems have other doors; none of them was tried.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The shape of each tile register, as `ldtilecfg` reads it.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Give this thread's tile registers their shapes for rows of so many quads. Nothing else may use AMX until `end`.
///
/// # Safety
/// `allowed` must have answered true.
pub unsafe fn begin(rows: &Rows) {
    let tail = (rows.quads % 16).max(1);
    let mut shapes = Shapes {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    shapes.row_bytes[..8].copy_from_slice(&[64, 64, 64, 64, 64, 4 * tail as u16, 64, 64]);
    shapes.rows[..8].copy_from_slice(&[16, 16, 16, 16, 16, 16, tail as u8, tail as u8]);
    // SAFETY: 64 aligned bytes of a valid palette; the processor has AMX (caller).
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
}

/// Give the tile registers back: the system then need not save them.
///
/// # Safety
/// `allowed` must have answered true.
pub unsafe fn end() {
    // SAFETY: the processor has AMX (caller).
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Multiply. The table must have room for a multiple of 16 rows.
///
/// # Safety
/// `begin` must have been called on this thread with rows of the same width, and `end` not since.
pub unsafe fn bytes(panel: &[Line], rows: &Rows, table: &mut [[i32; LANES]], next: &[Line]) {
    let (quads, count) = (rows.quads, rows.len().next_multiple_of(16));
    let (whole, last) = (quads / 16, quads % 16);
    assert!(table.len() >= count && rows.codes.len() >= count * quads);
    assert!(panel.len() == 2 * quads && rows.starts.len() >= count);
    // Tiles are multiplied faster than memory brings them.
    next.iter().for_each(near);
    // SAFETY: the shapes are set (caller). Every address lies in a slice whose length was asserted above: 16 rows of
    // codes `4 * quads` bytes apart, 16 (or `last`) lines of a half 64 bytes apart, 16 rows of the table 128 apart.
    unsafe {
        for tile in (0..count).step_by(16) {
            asm!(
                "tileloadd tmm0, [{base} + {step}]",
                "tileloadd tmm1, [{base} + {step}]",
                base = in(reg) rows.starts.as_ptr().add(tile),
                step = in(reg) 64usize,
                options(nostack, readonly),
            );
            let codes = rows.codes.as_ptr().add(tile * quads);
            for block in 0..whole {
                asm!(
                    "tileloadd tmm2, [{codes} + {width}]",
                    "tileloadd tmm3, [{low} + {step}]",
                    "tileloadd tmm4, [{high} + {step}]",
                    "tdpbsud tmm0, tmm2, tmm3",
                    "tdpbsud tmm1, tmm2, tmm4",
                    codes = in(reg) codes.add(block * 16),
                    width = in(reg) 4 * quads,
                    low = in(reg) panel.as_ptr().add(block * 16),
                    high = in(reg) panel.as_ptr().add(quads + block * 16),
                    step = in(reg) 64usize,
                    options(nostack, readonly),
                );
            }
            if last > 0 {
                asm!(
                    "tileloadd tmm5, [{codes} + {width}]",
                    "tileloadd tmm6, [{low} + {step}]",
                    "tileloadd tmm7, [{high} + {step}]",
                    "tdpbsud tmm0, tmm5, tmm6",
                    "tdpbsud tmm1, tmm5, tmm7",
                    codes = in(reg) codes.add(whole * 16),
                    width = in(reg) 4 * quads,
                    low = in(reg) panel.as_ptr().add(whole * 16),
                    high = in(reg) panel.as_ptr().add(quads + whole * 16),
                    step = in(reg) 64usize,
                    options(nostack, readonly),
                );
            }
            let out = table.as_mut_ptr().add(tile).cast::<u8>();
            asm!(
                "tilestored [{low} + {step}], tmm0",
                "tilestored [{high} + {step}], tmm1",
                low = in(reg) out,
                high = in(reg) out.add(64),
                step = in(reg) size_of::<[i32; LANES]>(),
                options(nostack),
            );
        }
    }
}
