//! The kernels of recgpt: pure Rust, no Python. `py.rs` is the whole Python boundary.
//!
//! The compiler refuses `unsafe` in all of them but `index`, which has one block: the call of its AVX2 form after the
//! processor was asked for AVX2. What macros write for the Python boundary is exempt too.

#![deny(unsafe_code)]

#[forbid(unsafe_code)]
pub mod behaviors;
#[forbid(unsafe_code)]
pub mod calendar;
#[forbid(unsafe_code)]
pub mod error;
#[forbid(unsafe_code)]
pub mod history;
#[allow(unsafe_code)]
pub mod index;
#[forbid(unsafe_code)]
pub mod tokenizer;

#[cfg(feature = "python")]
#[allow(unsafe_code)]
mod py;
