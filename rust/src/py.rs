//! The whole Python boundary: take views, check, release the GIL, call the core, give back.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::Error;
use crate::{behaviors, tokenizer};

mod exposures;
mod history;
mod index;

/// Each case becomes one class of `recgpt.errors`; the class is looked up by name so that Python owns the tree.
impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let class = match &error {
            Error::Length { .. } | Error::Value { .. } => "InvalidArrayError",
            Error::Moment { .. } => "TimestampRangeError",
            Error::Tokenizer { .. } => "TokenizerError",
        };
        let message = error.to_string();
        Python::attach(|py| {
            py.import("recgpt.errors")
                .and_then(|module| module.getattr(class))
                .and_then(|class| class.call1((message.clone(),)))
                .map_or_else(|_| PyValueError::new_err(message), PyErr::from_value)
        })
    }
}

/// A tokenizer that counts as one model does. Immutable, so threads may share it.
#[pyclass(frozen)]
pub struct Tokenizer {
    pub inner: Arc<tokenizer::Tokenizer>,
}

#[pymethods]
impl Tokenizer {
    #[staticmethod]
    fn bytes() -> Self {
        Self {
            inner: Arc::new(tokenizer::Tokenizer::bytes()),
        }
    }

    #[staticmethod]
    #[allow(clippy::needless_pass_by_value)]
    fn bpe(
        py: Python<'_>,
        tokens: Vec<String>,
        types: Vec<i32>,
        merges: Vec<String>,
        pre: String,
    ) -> PyResult<Self> {
        let bpe = py.detach(|| tokenizer::bpe::Bpe::new(tokens, &types, &merges, &pre))?;
        Ok(Self {
            inner: Arc::new(tokenizer::Tokenizer::bpe(bpe)),
        })
    }

    #[staticmethod]
    #[allow(clippy::needless_pass_by_value)]
    fn spm(
        py: Python<'_>,
        tokens: Vec<String>,
        scores: Vec<f32>,
        types: Vec<i32>,
        prefix: bool,
        strip: bool,
    ) -> PyResult<Self> {
        let spm = py.detach(|| tokenizer::spm::Spm::new(tokens, &scores, &types, prefix, strip))?;
        Ok(Self {
            inner: Arc::new(tokenizer::Tokenizer::spm(spm)),
        })
    }

    #[allow(clippy::needless_pass_by_value)]
    fn count<'py>(&self, py: Python<'py>, texts: Vec<String>) -> Bound<'py, PyArray1<u32>> {
        let inner = Arc::clone(&self.inner);
        let counts =
            py.detach(|| inner.count_batch(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
        counts.into_pyarray(py)
    }

    fn encode<'py>(&self, py: Python<'py>, text: &str) -> Bound<'py, PyArray1<u32>> {
        py.detach(|| self.inner.encode(text)).into_pyarray(py)
    }
}

// ---- behaviors

type RuleColumns<'py> = (i32, PyReadonlyArray1<'py, f64>, f64, f64, Option<i32>);

/// Give each event the behavior it counts as, or -1.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
fn keep_reliable<'py>(
    py: Python<'py>,
    behaviors: PyReadonlyArray1<'py, i32>,
    reliable: Vec<bool>,
    rules: Vec<RuleColumns<'py>>,
) -> PyResult<Bound<'py, PyArray1<i32>>> {
    let codes = behaviors.as_slice()?;
    let rules = rules
        .iter()
        .map(|(behavior, values, above, below, becomes)| {
            Ok(behaviors::Rule {
                behavior: *behavior,
                values: values.as_slice()?,
                above: *above,
                below: *below,
                becomes: *becomes,
            })
        })
        .collect::<PyResult<Vec<_>>>()?;
    let kept = py.detach(|| behaviors::keep(codes, &reliable, &rules))?;
    Ok(kept.into_pyarray(py))
}

/// `"release"` or `"debug"`; a test refuses debug, because figures from it mean nothing.
fn build_profile() -> &'static str {
    if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    }
}

#[pymodule]
mod _core {
    use super::build_profile;
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::exposures::Exposures;
    #[pymodule_export]
    use super::history::{compress_history, history_rows, Catalogue};
    #[pymodule_export]
    use super::index::{check_vectors, kernels, scores, search, Codes};
    #[pymodule_export]
    use super::keep_reliable;
    #[pymodule_export]
    use super::Tokenizer;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("build_profile", build_profile())
    }
}
