//! The kernels of recgpt: pure Rust, no Python. `py.rs` is the whole Python boundary.

pub mod error;
pub mod index;
pub mod tokenizer;

#[cfg(feature = "python")]
mod py;
