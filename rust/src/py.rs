//! The whole Python boundary: take views, check, release the GIL, call the core, give back.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::Error;
use crate::tokenizer;

/// Each case becomes one class of `recgpt.errors`; the class is looked up by name so that Python owns the tree.
impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let class = match &error {
            Error::Length { .. } | Error::Value { .. } => "InvalidArrayError",
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
        merges: Vec<String>,
        pre: String,
    ) -> PyResult<Self> {
        let inner = py.detach(|| tokenizer::Tokenizer::bpe(tokens, &merges, &pre))?;
        Ok(Self {
            inner: Arc::new(inner),
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
    use super::*;

    #[pymodule_export]
    use super::Tokenizer;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("build_profile", build_profile())
    }
}
