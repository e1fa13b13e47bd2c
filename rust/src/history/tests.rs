//! Tests of the whole kernel.
