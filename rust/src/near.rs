//! The one hint that safe Rust cannot give.

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
