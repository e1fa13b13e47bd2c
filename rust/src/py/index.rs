//! The boundary of the vector index: views of numpy arrays in, columns out.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::index::{self, Filter, Fuse, Matrix, Part};

/// Items as bytes, with the bounds of what that leaves out. Immutable, so calls and threads may share them.
#[pyclass(frozen)]
pub(super) struct Codes {
    inner: Option<index::Codes>,
}

#[pymethods]
impl Codes {
    #[new]
    #[allow(clippy::needless_pass_by_value)]
    fn new(py: Python<'_>, vectors: PyReadonlyArray2<'_, f32>) -> PyResult<Self> {
        let vectors = matrix(&vectors)?;
        Ok(Self {
            inner: py.detach(|| index::Codes::new(vectors)),
        })
    }

    fn __len__(&self) -> usize {
        self.inner.as_ref().map_or(0, |codes| codes.rows)
    }
}

fn matrix<'a>(array: &'a PyReadonlyArray2<'_, f32>) -> PyResult<Matrix<'a>> {
    let dim = array.shape()[1];
    if dim == 0 {
        return Err(PyValueError::new_err(
            "vectors must have at least one dimension, but have 0",
        ));
    }
    Ok(Matrix {
        values: array.as_slice()?,
        dim,
    })
}

type Parts<'py> = Vec<(PyReadonlyArray2<'py, f32>, Option<Py<Codes>>)>;
type Ints<'py> = PyReadonlyArray1<'py, i64>;

fn parts<'a>(pieces: &'a Parts<'_>) -> PyResult<Vec<Part<'a>>> {
    let mut first = 0;
    let part = |(vectors, codes): &'a (_, Option<Py<Codes>>)| {
        let items = matrix(vectors)?;
        let codes = codes.as_ref().and_then(|codes| codes.get().inner.as_ref());
        if codes.is_some_and(|codes| !codes.fit(items)) {
            return Err(PyValueError::new_err("codes belong to other vectors"));
        }
        first += items.rows();
        Ok(Part {
            items,
            codes,
            first: first - items.rows(),
        })
    };
    pieces.iter().map(part).collect()
}

/// The kernels of this processor, the fastest first.
#[pyfunction]
pub(super) fn kernels() -> Vec<&'static str> {
    index::available()
        .iter()
        .map(|kernel| kernel.name)
        .collect()
}

#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
pub(super) fn check_vectors(
    py: Python<'_>,
    vectors: PyReadonlyArray2<'_, f32>,
    name: &str,
) -> PyResult<()> {
    let vectors = matrix(&vectors)?;
    let name = match name {
        "users" => "users",
        "tags" => "tags",
        _ => "vectors",
    };
    Ok(py.detach(|| vectors.check(name))?)
}

type Scores<'py> = (
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<i32>>,
);

#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
pub(super) fn scores<'py>(
    py: Python<'py>,
    items: Parts<'py>,
    user: PyReadonlyArray2<'py, f32>,
    tags: PyReadonlyArray2<'py, f32>,
    beta: f32,
) -> PyResult<Scores<'py>> {
    let (items, user, tags) = (parts(&items)?, matrix(&user)?, matrix(&tags)?);
    let scored = py.detach(|| index::scores(&items, user, tags, beta))?;
    let float = |pick: fn(&(f32, f32, f32, i32)) -> f32| {
        scored.iter().map(pick).collect::<Vec<_>>().into_pyarray(py)
    };
    let tags = scored.iter().map(|item| item.3).collect::<Vec<_>>();
    Ok((
        float(|item| item.0),
        float(|item| item.1),
        float(|item| item.2),
        tags.into_pyarray(py),
    ))
}

type Hits<'py> = (
    Bound<'py, PyArray1<i32>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<i32>>,
    Bound<'py, PyArray1<bool>>,
);

#[pyfunction]
#[pyo3(signature = (items, users, tags, offsets, beta, k, fuse, kernel="bytes", exclude=None, allow=None, deny=None, removed=None, caps=None))]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)]
pub(super) fn search<'py>(
    py: Python<'py>,
    items: Parts<'py>,
    users: PyReadonlyArray2<'py, f32>,
    tags: PyReadonlyArray2<'py, f32>,
    offsets: Ints<'py>,
    beta: f32,
    k: usize,
    fuse: &str,
    kernel: &str,
    exclude: Option<(Ints<'py>, Ints<'py>)>,
    allow: Option<Ints<'py>>,
    deny: Option<Ints<'py>>,
    removed: Option<Ints<'py>>,
    caps: Option<(PyReadonlyArray1<'py, i32>, usize)>,
) -> PyResult<Hits<'py>> {
    let items = parts(&items)?;
    let query = index::Query {
        users: matrix(&users)?,
        tags: matrix(&tags)?,
        offsets: offsets.as_slice()?,
        beta,
        k,
        fuse: match fuse {
            "lists" => Fuse::Lists,
            "sum" => Fuse::Sum,
            _ => Fuse::Max,
        },
        exclude: match &exclude {
            Some((values, offsets)) => Some(index::Ragged {
                values: values.as_slice()?,
                offsets: offsets.as_slice()?,
            }),
            None => None,
        },
        filter: Filter {
            allow: allow.as_ref().map(|rows| rows.as_slice()).transpose()?,
            deny: deny.as_ref().map_or(Ok(&[][..]), |rows| rows.as_slice())?,
            removed: removed
                .as_ref()
                .map_or(Ok(&[][..]), |rows| rows.as_slice())?,
        },
        caps: match &caps {
            Some((categories, limit)) => Some(index::Caps {
                categories: categories.as_slice()?,
                limit: *limit,
            }),
            None => None,
        },
        kernel,
    };
    let hits = py.detach(|| index::search(&items, &query).map(index::Columns::from))?;
    Ok((
        hits.user.into_pyarray(py),
        hits.item.into_pyarray(py),
        hits.score.into_pyarray(py),
        hits.col.into_pyarray(py),
        hits.sem.into_pyarray(py),
        hits.tag.into_pyarray(py),
        hits.tag_side_alone.into_pyarray(py),
    ))
}
