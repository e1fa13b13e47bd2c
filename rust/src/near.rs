//! The two hints that safe Rust cannot give: what will be read next, and what deserves large pages.

/// Asks the processor to bring a value near, without waiting for it.
///
/// A plain load would do the same, but it stands in the way of all that follows until it is done: with it the tables of
/// a catalogue that is larger than the cache took a fifth of the whole time.
#[inline]
#[allow(unsafe_code)]
pub fn near<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program can see and never faults; the address is that of a reference.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks the system for large pages for the room of an empty vector, where it gives them to those who ask.
///
/// The codes of a million items are 64 MB and are read block by block from anywhere: with pages of 4 KB a search waited
/// for their addresses a tenth of its time.
#[allow(unsafe_code)]
pub fn large_pages<T>(room: &mut Vec<T>) {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        const PAGE: usize = 1 << 21;
        const MADV_HUGEPAGE: i32 = 14;
        extern "C" {
            fn madvise(start: *mut std::ffi::c_void, length: usize, advice: i32) -> i32;
        }
        let bytes = room.spare_capacity_mut();
        let length = std::mem::size_of_val(bytes);
        let start: *mut u8 = bytes.as_mut_ptr().cast();
        let skip = start.align_offset(PAGE);
        let whole = length.saturating_sub(skip) / PAGE * PAGE;
        if whole > 0 {
            // SAFETY: whole pages inside memory that the vector owns; the advice changes neither it nor who may use it. A
            // refusal changes nothing, so the answer is not read.
            unsafe { madvise(start.wrapping_add(skip).cast(), whole, MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    let _ = room;
}

#[cfg(test)]
mod tests {
    #[test]
    fn room_of_any_size_stays_what_it_was() {
        for size in [0, 1, 4095, 1 << 21, (1 << 23) + 5] {
            let mut room: Vec<u8> = Vec::with_capacity(size);
            super::large_pages(&mut room);
            assert!(room.is_empty() && room.capacity() >= size);
            room.resize(size, 7);
            assert!(room.iter().all(|&byte| byte == 7));
        }
    }
}
