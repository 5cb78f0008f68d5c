//! The Python module: checks arguments, reads texts, turns errors into exceptions.
//!
//! The GIL is held only to read texts, to build the result, and ten times a second to check for
//! Ctrl-C and report progress.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyIterator, PyString};

use crate::Error;
use crate::encode::{Encoder, MAX_MERGES};
use crate::split::{DEFAULT_PATTERN, Splitter};
use crate::train::{Batch, Pair, count_pieces, learn_merges};

/// Between two checks for Ctrl-C, and between two reports.
const TICK: Duration = Duration::from_millis(100);

/// More than the cores of any machine. A limit, because each thread costs memory.
const MAX_THREADS: usize = 1024;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

#[pyfunction]
#[pyo3(signature = (texts, vocab_size, pattern=None, num_threads=None, progress=None))]
fn train(
    py: Python<'_>,
    texts: &Bound<'_, PyAny>,
    vocab_size: i64,
    pattern: Option<PyBackedStr>,
    num_threads: Option<i64>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<Pair>> {
    let num_merges = match usize::try_from(vocab_size) {
        Ok(size @ 256..) if size - 256 <= MAX_MERGES => size - 256,
        _ => {
            return Err(PyValueError::new_err(format!(
                "vocab_size must be from 256 (the single bytes) to {}, not {vocab_size}",
                MAX_MERGES + 256
            )));
        }
    };
    let num_threads = thread_count(num_threads)?;
    let splitter = Splitter::new(pattern.as_deref())?;
    if texts.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(
            "texts must be an iterable of str, not one str",
        ));
    }
    let texts = texts.try_iter()?.unbind();
    py.detach(|| {
        let mut report = Report::new(progress);
        let mut done = 0;
        let mut waiting = Report::new(None);
        let counts = count_pieces(
            &splitter,
            num_threads,
            |batch| Python::attach(|py| read(texts.bind(py), batch, &mut done, &mut report)),
            || waiting.tick("count", 0, 0),
        )?;
        report.last("count", done, 0)?;
        let merges = learn_merges(counts, num_merges, |done| {
            report.tick("merge", done, num_merges)
        })?;
        report.last("merge", merges.len(), num_merges)?;
        Ok(merges)
    })
}

/// Fills a batch; leaves it empty when there are no more texts.
fn read(
    texts: &Bound<'_, PyIterator>,
    batch: &mut Batch,
    done: &mut usize,
    report: &mut Report,
) -> PyResult<()> {
    for text in texts.clone() {
        let text = text?;
        let Ok(text) = text.cast::<PyString>() else {
            let name = text.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "texts[{done}] is {name}, not str"
            )));
        };
        // Not to_str: that leaves a UTF-8 copy in the str for as long as it lives.
        let bytes = text
            .encode_utf8()
            .map_err(|e| surrogate(text.py(), e, *done))?;
        let utf8 = std::str::from_utf8(bytes.as_bytes());
        batch.push(utf8.map_err(|e| PyValueError::new_err(e.to_string()))?);
        *done += 1;
        report.tick("count", *done, 0)?;
        if batch.is_full() {
            break;
        }
    }
    Ok(())
}

/// Checks for Ctrl-C and calls the progress callback, both now and then.
struct Report {
    progress: Option<Py<PyAny>>,
    next: Instant,
}

impl Report {
    fn new(progress: Option<Py<PyAny>>) -> Self {
        Self {
            progress,
            next: Instant::now() + TICK,
        }
    }

    fn tick(&mut self, phase: &str, done: usize, total: usize) -> PyResult<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.last(phase, done, total)
    }

    /// The same without waiting for its time.
    fn last(&mut self, phase: &str, done: usize, total: usize) -> PyResult<()> {
        Python::attach(|py| {
            py.check_signals()?;
            if let Some(progress) = &self.progress {
                progress.call1(py, (phase, done, total))?;
            }
            self.next = Instant::now() + TICK; // a slow callback must not eat all the time
            Ok(())
        })
    }
}

#[pyclass(name = "Encoder", module = "rustbpe", frozen)]
struct PyEncoder(Encoder);

#[pymethods]
impl PyEncoder {
    #[new]
    #[pyo3(signature = (merges, pattern=None))]
    fn new(
        py: Python<'_>,
        merges: Vec<(i64, i64)>,
        pattern: Option<PyBackedStr>,
    ) -> PyResult<Self> {
        let pair = |&(left, right): &(i64, i64)| Ok((to_id(left)?, to_id(right)?));
        let merges = merges.iter().map(pair).collect::<PyResult<Vec<Pair>>>()?;
        let splitter = Splitter::new(pattern.as_deref())?;
        Ok(Self(py.detach(|| Encoder::new(&merges, splitter))?))
    }

    fn encode(&self, py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<Vec<u32>> {
        let text = text.to_str().map_err(|e| surrogate(py, e, 0))?;
        Ok(py.detach(|| self.0.encode(text))?)
    }

    #[pyo3(signature = (texts, num_threads=None))]
    fn encode_batch(
        &self,
        py: Python<'_>,
        texts: Vec<Bound<'_, PyString>>,
        num_threads: Option<i64>,
    ) -> PyResult<Vec<Vec<u32>>> {
        let num_threads = thread_count(num_threads)?;
        let text = |(i, text)| PyBackedStr::try_from(text).map_err(|e| surrogate(py, e, i));
        let texts = texts
            .into_iter()
            .enumerate()
            .map(text)
            .collect::<PyResult<Vec<_>>>()?;
        let mut report = Report::new(None);
        py.detach(|| {
            self.0
                .encode_batch(&texts, num_threads, || report.tick("", 0, 0))
        })
    }

    fn decode_bytes<'py>(&self, py: Python<'py>, ids: Vec<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let ids = ids.into_iter().map(to_id).collect::<PyResult<Vec<u32>>>()?;
        Ok(PyBytes::new(py, &py.detach(|| self.0.decode_bytes(&ids))?))
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }
}

/// The signatures take signed ids, so that a negative one is a ValueError like any other bad one.
fn to_id(id: i64) -> PyResult<u32> {
    u32::try_from(id).map_err(|_| PyValueError::new_err(format!("{id} is not an id")))
}

fn thread_count(num_threads: Option<i64>) -> PyResult<usize> {
    match num_threads {
        None => Ok(available_parallelism().map_or(1, usize::from)),
        Some(count) if count >= 1 => Ok(usize::try_from(count).unwrap_or(1).min(MAX_THREADS)),
        Some(count) => Err(PyValueError::new_err(format!(
            "num_threads must be 1 or more, not {count}"
        ))),
    }
}

/// A clear message for the one reason why a str is not valid UTF-8; other errors stay as they are.
fn surrogate(py: Python<'_>, error: PyErr, index: usize) -> PyErr {
    match error
        .value(py)
        .getattr("start")
        .and_then(|start| start.extract::<usize>())
    {
        Err(_) => error,
        Ok(at) => PyValueError::new_err(format!(
            "text {index} has a lone surrogate, which is not a character, at position {at}: \
             clean it with text.encode('utf-8', 'replace').decode()"
        )),
    }
}

#[pymodule]
fn rustbpe(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DEFAULT_PATTERN", DEFAULT_PATTERN)?;
    module.add_function(wrap_pyfunction!(train, module)?)?;
    module.add_class::<PyEncoder>()
}
