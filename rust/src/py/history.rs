//! The boundary of stage 3: views of Arrow buffers in, buffers out, nothing copied.

use std::sync::Arc;

use numpy::ndarray::ArrayView1;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use super::Tokenizer;
use crate::error::Error;
use crate::history::{self, catalogue, columns, Spare};

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|error| Error::Value {
        argument: "text bytes",
        expected: "UTF-8".to_owned(),
        came: "not".to_owned(),
        position: error.valid_up_to(),
    })
}

/// Texts prepared for the kernel. Immutable, so calls and threads may share it.
#[pyclass(frozen)]
pub(super) struct Catalogue {
    inner: catalogue::Catalogue,
}

#[pymethods]
impl Catalogue {
    #[new]
    #[allow(clippy::needless_pass_by_value)]
    fn new(
        py: Python<'_>,
        offsets: PyReadonlyArray1<'_, i64>,
        bytes: PyReadonlyArray1<'_, u8>,
        categories: PyReadonlyArray1<'_, i32>,
        tokenizer: &Tokenizer,
    ) -> PyResult<Self> {
        let (offsets, bytes) = (offsets.as_slice()?, bytes.as_slice()?);
        let categories = categories.as_slice()?;
        let tokenizer = Arc::clone(&tokenizer.inner);
        let inner =
            py.detach(|| catalogue::Catalogue::new(offsets, utf8(bytes)?, categories, &tokenizer))?;
        Ok(Self { inner })
    }

    fn __len__(&self) -> usize {
        self.inner.count()
    }
}

#[derive(FromPyObject)]
pub(super) enum IntArray<'py> {
    I8(PyReadonlyArray1<'py, i8>),
    U8(PyReadonlyArray1<'py, u8>),
    I16(PyReadonlyArray1<'py, i16>),
    U16(PyReadonlyArray1<'py, u16>),
    I32(PyReadonlyArray1<'py, i32>),
    U32(PyReadonlyArray1<'py, u32>),
    I64(PyReadonlyArray1<'py, i64>),
}

impl IntArray<'_> {
    fn view(&self) -> PyResult<columns::Ints<'_>> {
        Ok(match self {
            Self::I8(array) => columns::Ints::I8(array.as_slice()?),
            Self::U8(array) => columns::Ints::U8(array.as_slice()?),
            Self::I16(array) => columns::Ints::I16(array.as_slice()?),
            Self::U16(array) => columns::Ints::U16(array.as_slice()?),
            Self::I32(array) => columns::Ints::I32(array.as_slice()?),
            Self::U32(array) => columns::Ints::U32(array.as_slice()?),
            Self::I64(array) => columns::Ints::I64(array.as_slice()?),
        })
    }
}

/// Values, then validity bits and the offset of the first one, where there are nulls.
pub(super) type NullableArray<'py> = (IntArray<'py>, Option<(PyReadonlyArray1<'py, u8>, usize)>);

fn nullable<'a>(array: &'a NullableArray<'_>) -> PyResult<columns::Nullable<'a>> {
    let valid = match &array.1 {
        None => None,
        Some((bits, offset)) => Some(columns::Valid {
            bits: bits.as_slice()?,
            offset: *offset,
        }),
    };
    Ok(columns::Nullable {
        values: array.0.view()?,
        valid,
    })
}

/// Users, moments, behaviors, items, queries.
pub(super) type BatchArrays<'py> = (
    IntArray<'py>,
    PyReadonlyArray1<'py, i64>,
    IntArray<'py>,
    NullableArray<'py>,
    Option<NullableArray<'py>>,
);

/// Base, map and size.
pub(super) type CodesArray<'py> = (i64, Option<PyReadonlyArray1<'py, i32>>, usize);

fn codes<'a>(array: &'a CodesArray<'_>) -> PyResult<columns::Codes<'a>> {
    let (base, map, size) = array;
    Ok(columns::Codes {
        base: *base,
        map: map.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        size: *size,
    })
}

/// Of users, behaviors, items and queries.
pub(super) type Meanings<'py> = (
    CodesArray<'py>,
    CodesArray<'py>,
    CodesArray<'py>,
    CodesArray<'py>,
);

fn log<'a>(
    batches: &'a [BatchArrays<'_>],
    meanings: &'a Meanings<'_>,
    nothing: u32,
) -> PyResult<columns::Log<'a>> {
    Ok(columns::Log {
        batches: batches
            .iter()
            .map(|(users, moments, behaviors, items, queries)| {
                Ok(columns::Batch {
                    users: users.view()?,
                    moments: moments.as_slice()?,
                    behaviors: behaviors.view()?,
                    items: nullable(items)?,
                    queries: queries.as_ref().map(nullable).transpose()?,
                })
            })
            .collect::<PyResult<_>>()?,
        users: codes(&meanings.0)?,
        behaviors: codes(&meanings.1)?,
        items: codes(&meanings.2)?,
        queries: codes(&meanings.3)?,
        nothing,
    })
}

fn read_clock(clock: Option<(i64, i64)>) -> history::Clock {
    match clock {
        Some((now, origin)) => history::Clock::Times { now, origin },
        None => history::Clock::Ranks,
    }
}

/// Where days begin, and what holds from there on.
pub(super) type Days<'py> = (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i64>);

fn pairs(days: &Days<'_>) -> PyResult<Vec<(i64, i64)>> {
    let (starts, values) = (days.0.as_slice()?, days.1.as_slice()?);
    Ok(starts.iter().copied().zip(values.iter().copied()).collect())
}

pub(super) type ChunkArrays<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u8>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u8>>,
);

/// Owns the bytes of an array; when the array goes, its memory goes back into the stock.
#[pyclass(frozen)]
struct Text {
    bytes: Spare<u8>,
}

impl Text {
    fn array(py: Python<'_>, bytes: Spare<u8>) -> PyResult<Bound<'_, PyArray1<u8>>> {
        let text = Bound::new(py, Self { bytes })?;
        let view = ArrayView1::from(text.get().bytes.as_slice());
        // SAFETY: the array holds on to its base, and nothing in Rust reads, writes or moves the bytes of that before it
        // is dropped.
        Ok(unsafe { PyArray1::borrow_from_array(&view, text.clone().into_any()) })
    }
}

/// Compress the events of every user; texts come back as buffers, some neighbouring users in one.
#[pyfunction]
#[pyo3(signature = (batches, meanings, nothing, catalogue, extra, behaviors, tokenizer, *, clock, days, today, budget, layout, counts, long_labels, stable, row_ids, threads, count=true))]
#[allow(
    clippy::needless_pass_by_value,
    clippy::too_many_arguments,
    clippy::fn_params_excessive_bools
)]
pub(super) fn compress_history<'py>(
    py: Python<'py>,
    batches: Vec<BatchArrays<'py>>,
    meanings: Meanings<'py>,
    nothing: u32,
    catalogue: &Catalogue,
    extra: (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, u8>),
    behaviors: Vec<String>,
    tokenizer: &Tokenizer,
    clock: Option<(i64, i64)>,
    days: Days<'py>,
    today: i32,
    budget: Option<u64>,
    layout: Option<usize>,
    counts: bool,
    long_labels: bool,
    stable: bool,
    row_ids: bool,
    threads: usize,
    count: bool,
) -> PyResult<Vec<ChunkArrays<'py>>> {
    let log = log(&batches, &meanings, nothing)?;
    let (clock, pairs) = (read_clock(clock), pairs(&days)?);
    let layout = layout.map(history::Layout::from_row).transpose()?;
    let options = history::Options {
        today,
        budget,
        layout,
        counts,
        long_labels,
        stable,
        row_ids,
        threads,
        count,
    };
    let (offsets, bytes) = (extra.0.as_slice()?, extra.1.as_slice()?);
    let tokenizer = Arc::clone(&tokenizer.inner);
    let chunks = py.detach(|| {
        let none = vec![-1; offsets.len().saturating_sub(1)];
        let extra = catalogue::Catalogue::new(offsets, utf8(bytes)?, &none, &tokenizer)?;
        let entries = catalogue::Entries::new(&catalogue.inner, extra);
        history::compress(
            &log, clock, &pairs, &entries, &behaviors, &tokenizer, &options,
        )
    })?;
    chunks
        .into_iter()
        .map(|chunk| {
            Ok((
                chunk.users.into_pyarray(py),
                chunk.offsets.into_pyarray(py),
                Text::array(py, chunk.bytes)?,
                chunk.tokens.into_pyarray(py),
                chunk.receipts.into_pyarray(py),
                chunk.layouts.into_pyarray(py),
            ))
        })
        .collect()
}

pub(super) type RowArrays<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u16>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<i32>>,
);

/// Give every user's cells as numbers, some neighbouring users in one, and the label of each bucket.
#[pyfunction]
#[pyo3(signature = (batches, meanings, nothing, *, items, entries, behaviors, clock, days, today, stable, threads))]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)]
pub(super) fn history_rows<'py>(
    py: Python<'py>,
    batches: Vec<BatchArrays<'py>>,
    meanings: Meanings<'py>,
    nothing: u32,
    items: usize,
    entries: usize,
    behaviors: usize,
    clock: Option<(i64, i64)>,
    days: Days<'py>,
    today: i32,
    stable: bool,
    threads: usize,
) -> PyResult<(Vec<String>, Vec<RowArrays<'py>>)> {
    let log = log(&batches, &meanings, nothing)?;
    let (clock, pairs) = (read_clock(clock), pairs(&days)?);
    let request = history::rows::Request {
        items,
        entries,
        behaviors,
        today,
        stable,
        threads,
    };
    let (labels, found) = py.detach(|| history::rows::rows(&log, clock, &pairs, request))?;
    let arrays = found.into_iter().map(|rows| {
        (
            rows.users.into_pyarray(py),
            rows.offsets.into_pyarray(py),
            rows.buckets.into_pyarray(py),
            rows.behaviors.into_pyarray(py),
            rows.items.into_pyarray(py),
        )
    });
    Ok((labels, arrays.collect()))
}
