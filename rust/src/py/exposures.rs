//! The boundary of exposure counting: views of columns in, sums by user and by item out.

use std::sync::{Mutex, PoisonError};

use ahash::AHashMap;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::exposures::{Batch, ItemSum, Sum, Totals};

/// Sums over all batches so far. Calls from several threads wait for one another.
#[pyclass(frozen)]
pub(super) struct Exposures {
    totals: Mutex<Totals>,
    names: Mutex<AHashMap<Box<[u8]>, i64>>,
}

type Column<'py, T> = PyReadonlyArray1<'py, T>;
type Column1<'py, T> = Bound<'py, PyArray1<T>>;
type Users<'py> = (Column1<'py, i64>, Vec<Column1<'py, u64>>, Column1<'py, f64>);

#[pymethods]
impl Exposures {
    #[new]
    #[allow(clippy::needless_pass_by_value)]
    fn new(categories: Column<'_, i32>, threads: usize) -> PyResult<Self> {
        Ok(Self {
            totals: Mutex::new(Totals::new(categories.as_slice()?, threads)),
            names: Mutex::default(),
        })
    }

    /// Give texts their numbers, the same text always the same, new ones the next.
    #[allow(clippy::needless_pass_by_value)]
    fn numbers<'py>(
        &self,
        py: Python<'py>,
        offsets: Column<'py, i64>,
        bytes: Column<'py, u8>,
    ) -> PyResult<Column1<'py, i64>> {
        let (offsets, bytes) = (offsets.as_slice()?, bytes.as_slice()?);
        let numbers = py.detach(|| {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let mut number = |ends: &[i64]| {
                let text = bytes.get(ends[0] as usize..ends[1] as usize)?;
                if let Some(known) = names.get(text) {
                    return Some(*known);
                }
                let next = names.len() as i64;
                names.insert(text.into(), next);
                Some(next)
            };
            let numbers: Option<Vec<_>> = offsets.windows(2).map(&mut number).collect();
            numbers
        });
        let numbers = numbers.ok_or_else(|| PyValueError::new_err("offsets outside the bytes"))?;
        Ok(numbers.into_pyarray(py))
    }

    #[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)]
    fn add(
        &self,
        py: Python<'_>,
        user: Column<'_, i64>,
        item: Column<'_, i32>,
        day: Column<'_, i32>,
        click: Column<'_, u32>,
        cart: Column<'_, u32>,
        dwell: Column<'_, f64>,
    ) -> PyResult<()> {
        let batch = Batch {
            user: user.as_slice()?,
            item: item.as_slice()?,
            day: day.as_slice()?,
            click: click.as_slice()?,
            cart: cart.as_slice()?,
            dwell: dwell.as_slice()?,
        };
        Ok(py.detach(|| self.held().add(batch))?)
    }

    /// Ids in ascending order; exposures, clicked, clicks, carts, categories shown, categories clicked, days with a
    /// click; seconds of dwell.
    fn users<'py>(&self, py: Python<'py>) -> Users<'py> {
        let users = py.detach(|| self.held().users());
        let counts: [fn(&Sum) -> u64; 7] = [
            |sum| sum.exposures,
            |sum| sum.clicked,
            |sum| sum.clicks,
            |sum| sum.carts,
            |sum| u64::from(sum.shown_categories),
            |sum| u64::from(sum.clicked_categories),
            |sum| u64::from(sum.click_days),
        ];
        let ids: Vec<_> = users.iter().map(|(id, _)| *id).collect();
        let column = |count: fn(&Sum) -> u64| {
            let values: Vec<_> = users.iter().map(|(_, sum)| count(sum)).collect();
            values.into_pyarray(py)
        };
        let dwell: Vec<_> = users.iter().map(|(_, sum)| sum.dwell).collect();
        (
            ids.into_pyarray(py),
            counts.map(column).into(),
            dwell.into_pyarray(py),
        )
    }

    /// Exposures, clicked and clicks of each catalogue row and, last, of all items that the catalogue does not have.
    fn items<'py>(&self, py: Python<'py>) -> Vec<Column1<'py, u64>> {
        let items = py.detach(|| self.held().items());
        let column = |pick: fn(&ItemSum) -> u64| {
            let values: Vec<_> = items.iter().map(pick).collect();
            values.into_pyarray(py)
        };
        vec![
            column(|sum| sum.exposures),
            column(|sum| sum.clicked),
            column(|sum| sum.clicks),
        ]
    }

    /// The texts that have numbers, by number.
    fn names(&self) -> Vec<String> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut texts: Vec<_> = names.iter().collect();
        texts.sort_unstable_by_key(|(_, number)| **number);
        texts
            .into_iter()
            .map(|(text, _)| String::from_utf8_lossy(text).into_owned())
            .collect()
    }

    fn nbytes(&self) -> usize {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let texts: usize = names.keys().map(|text| text.len() + NAME).sum();
        self.held().bytes() + texts
    }
}

/// What a name costs beside its letters: its slot at a load of at least 7/16, and the allocator's header.
const NAME: usize = 72;

impl Exposures {
    fn held(&self) -> std::sync::MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
