//! The kernels of recgpt: pure Rust, no Python. `py.rs` is the whole Python boundary.
//!
//! The compiler refuses `unsafe` in all of them but for two places: `index::kernels` multiplies with instructions that the
//! processor was asked for, and `near` gives a prefetch hint. What macros write for the Python boundary is exempt.

#![deny(unsafe_code)]

#[forbid(unsafe_code)]
pub mod behaviors;
#[forbid(unsafe_code)]
pub mod calendar;
#[forbid(unsafe_code)]
pub mod error;
#[forbid(unsafe_code)]
pub mod exposures;
#[forbid(unsafe_code)]
pub mod history;
pub mod index;
mod near;
#[forbid(unsafe_code)]
pub mod tokenizer;

#[cfg(feature = "python")]
#[allow(unsafe_code)]
mod py;
