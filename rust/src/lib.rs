//! The kernels of recgpt: pure Rust, no Python. `py.rs` is the whole Python boundary.

pub mod behaviors;
pub mod calendar;
pub mod error;
pub mod history;
pub mod index;
pub mod tokenizer;

#[cfg(feature = "python")]
mod py;
