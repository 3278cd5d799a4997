//! Scripts: a fold's code with the columns that it reads and gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BinaryArray};
use arrow::error::ArrowError;
use evert_model::Column;

use crate::output::Packing;
use crate::realm::{Realm, thrown};
use crate::worker;

/// Bytes that one group's evaluation may hold, the engine's own half megabyte among them.
pub(crate) const BYTES_MAX: usize = 32 << 20;
/// How long one group's evaluation may take. What makes its steps and takes its memory is done well
/// before; only built-in functions that work for long on little are not.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How [`Failure::TooSlow`] and [`Failure::Unwanted`] begin, and nothing else: `evert-view` knows
/// them by these words.
pub(crate) const GIVEN_UP: &str = "the fold was given up: ";
/// Bytes of code.
const SOURCE_BYTES_MAX: usize = 1 << 20;

/// What makes a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// An expression, or a function's body that returns one: an object with the functions `init`,
    /// `step` and `row`.
    pub source: String,
    /// The columns of a row as `step` gets it.
    pub input: Vec<Column>,
    /// The columns that `row` may return.
    pub output: Vec<Column>,
}

/// Why code cannot be a fold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// It is no JavaScript.
    #[error("{message} at line {line}, column {column}")]
    Syntax {
        /// What the engine says.
        message: String,
        /// From 1; 0 if the engine does not know.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// It is, but no object with the three functions.
    #[error("the code gives no object with a function \"{0}\"")]
    Missing(String),
    /// It throws before it has seen a row.
    #[error("{0}")]
    Throws(Failure),
    /// There is too much of it.
    #[error("the code has more than {SOURCE_BYTES_MAX} bytes")]
    TooLong,
    /// The engine could not be set up.
    #[error("the JavaScript engine: {0}")]
    Engine(String),
}

impl ScriptError {
    /// Line and column of the code, from 1, as far as they are known.
    pub fn place(&self) -> Option<(usize, usize)> {
        match self {
            Self::Syntax { line, column, .. } => (*line > 0).then_some((*line, *column)),
            _ => None,
        }
    }
}

/// Why a group has no row, though it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The code threw.
    #[error("{message}{}", line.map(|line| format!(" at line {line}")).unwrap_or_default())]
    Thrown {
        /// The error's name and message.
        message: String,
        /// From 1, if the code has a part in it.
        line: Option<usize>,
    },
    /// The code was stopped.
    #[error("the fold was stopped: it makes more steps than {rows} rows may take")]
    TooManySteps {
        /// Rows of the group.
        rows: usize,
    },
    /// The code was stopped.
    #[error("the fold was stopped: it holds more than {} MiB", BYTES_MAX >> 20)]
    TooLarge,
    /// The code was stopped by the clock. It says nothing of the group: another run may have an
    /// outcome.
    #[error("{GIVEN_UP}it took more than {} s", TIME_MAX.as_secs())]
    TooSlow,
    /// The code was stopped: the view was dropped or replaced. It says nothing of the group either.
    #[error("{GIVEN_UP}it is not wanted any more")]
    Unwanted,
    /// The code left something to be done later, which never comes.
    #[error("a fold cannot wait: it has used a promise")]
    Waits,
    /// A returned value does not fit its column.
    #[error("column \"{column}\": {why}")]
    Value {
        /// The column's name.
        column: String,
        /// What is wrong.
        why: String,
    },
}

/// A fold's code, which has been looked at.
#[derive(Debug)]
pub struct Script {
    pub(crate) definition: Definition,
    pub(crate) packing: Packing,
    /// What threads know their realms by.
    pub(crate) id: Arc<u64>,
    pub(crate) time_max: Duration,
    /// A group was given up. Whoever folds with this script fails for it, so no other is begun.
    pub(crate) given_up: AtomicBool,
}

impl Script {
    /// Compiles code, and calls its `init` once.
    ///
    /// # Errors
    /// If it is no JavaScript, lacks a function, or throws.
    pub fn new(definition: Definition) -> Result<Self, ScriptError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if definition.source.len() > SOURCE_BYTES_MAX {
            return Err(ScriptError::TooLong);
        }
        let packing = Packing::new(&definition.output)
            .map_err(|error| ScriptError::Engine(error.to_string()))?;
        try_out(&definition)?;
        let id = Arc::new(NEXT.fetch_add(1, Ordering::Relaxed));
        let given_up = AtomicBool::new(false);
        Ok(Self { definition, packing, id, time_max: TIME_MAX, given_up })
    }

    /// What it was made of.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Folds a group's rows, in the order in which they come: batches of the input's columns, each
    /// of its column's physical type. Gives the row packed, or `None` for no row.
    ///
    /// # Errors
    /// What the code has done wrong.
    pub fn fold(&self, batches: &[Vec<ArrayRef>]) -> Result<Option<Vec<u8>>, Failure> {
        worker::fold(self, batches)
    }

    /// One column of packed rows, NULL where there is no row.
    ///
    /// # Errors
    /// If the bytes are none that [`Self::fold`] gave.
    pub fn unpack(&self, rows: &BinaryArray, column: usize) -> Result<ArrayRef, ArrowError> {
        self.packing.unpack(rows, column)
    }
}

/// Whether code can be a fold.
fn try_out(definition: &Definition) -> Result<(), ScriptError> {
    let realm = Realm::new(definition, BYTES_MAX)?;
    let calls_max = worker::calls_max(0);
    realm.meter.begin(calls_max, Some(Instant::now() + TIME_MAX));
    let outcome = realm.with(|ctx, realm| {
        let throws = |error| ScriptError::Throws(thrown(ctx, error).into());
        if let Some(name) = realm.missing(ctx).map_err(throws)? {
            return Err(ScriptError::Missing(name));
        }
        realm.begin(ctx).map(drop).map_err(throws)
    });
    match worker::stopped(&realm, 0) {
        Some(failure) => Err(ScriptError::Throws(failure)),
        None => outcome,
    }
}
