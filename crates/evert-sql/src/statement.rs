//! Statements: a command with its text and, once it has run, its plan.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, SchemaRef};
use evert_view::Catalog;

use crate::command::Command;
use crate::parse::parse;
use crate::query::Planned;
use crate::{Response, SqlError};

/// A parsed statement. Cheap to clone.
#[derive(Clone)]
pub struct Statement(pub(crate) Arc<Parsed>);

/// What a statement takes and gives.
#[derive(Clone, Debug)]
pub struct Description {
    /// The type of each parameter `$1`, `$2`, ...
    pub params: Vec<DataType>,
    /// Parameters, by index, whose Arrow type does not tell Postgres's, with its OID, or that of an
    /// array's items: `uuid`, `oid`.
    pub oids: Vec<(usize, u32)>,
    /// The result's columns; `None` for statements that return no rows.
    pub columns: Option<SchemaRef>,
}

impl Description {
    /// Of a statement without parameters.
    pub(crate) fn of_columns(columns: Option<SchemaRef>) -> Self {
        Self { params: Vec::new(), oids: Vec::new(), columns }
    }
}

pub(crate) struct Parsed {
    /// The whole text that the statement was part of: its places are those in it.
    pub(crate) text: Arc<str>,
    pub(crate) command: Command,
    /// The plans that were used last, the latest first.
    plans: Mutex<Vec<CachedPlan>>,
}

/// Plans of one statement that are kept: its parameters may come in several types.
const PLANS_MAX: usize = 4;

struct CachedPlan {
    catalog: Arc<Catalog>,
    hints: Vec<Option<DataType>>,
    planned: Arc<Planned>,
}

impl CachedPlan {
    /// Whether planning with these hints would come to the same: they are those of before, or
    /// what became of them.
    fn suits(&self, hints: &[Option<DataType>]) -> bool {
        let resolved = &self.planned.params;
        self.hints == hints
            || (hints.len() == resolved.len()
                && hints.iter().zip(resolved).all(|(hint, ty)| hint.as_ref() == Some(ty)))
    }
}

impl Parsed {
    /// The plan that was made for this catalog and these parameter types.
    pub(crate) fn cached(
        &self,
        catalog: &Arc<Catalog>,
        hints: &[Option<DataType>],
    ) -> Option<Arc<Planned>> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let suits =
            |cached: &CachedPlan| Arc::ptr_eq(&cached.catalog, catalog) && cached.suits(hints);
        let found = plans.iter().position(suits)?;
        plans[..=found].rotate_right(1);
        Some(Arc::clone(&plans[0].planned))
    }

    pub(crate) fn cache(
        &self,
        catalog: &Arc<Catalog>,
        hints: &[Option<DataType>],
        planned: &Arc<Planned>,
    ) {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.retain(|cached| Arc::ptr_eq(&cached.catalog, catalog));
        plans.truncate(PLANS_MAX - 1);
        let (catalog, planned) = (Arc::clone(catalog), Arc::clone(planned));
        plans.insert(0, CachedPlan { catalog, hints: hints.to_vec(), planned });
    }
}

/// The statements of texts that came lately, so that a text that comes often is parsed and
/// planned once.
#[derive(Default)]
pub(crate) struct Statements {
    known: Mutex<HashMap<Arc<str>, Vec<Statement>>>,
}

/// How many texts are kept, and how long one may be.
const TEXTS_MAX: usize = 1024;
const TEXT_BYTES_MAX: usize = 4096;

impl Statements {
    pub(crate) fn parse(&self, text: &str) -> Result<Vec<Statement>, SqlError> {
        if let Some(known) = self.lock().get(text) {
            return Ok(known.clone());
        }
        let shared: Arc<str> = text.into();
        let statements: Vec<_> = parse(text)?
            .into_iter()
            .map(|command| {
                let text = Arc::clone(&shared);
                Statement(Arc::new(Parsed { text, command, plans: Mutex::default() }))
            })
            .collect();
        if text.len() <= TEXT_BYTES_MAX {
            let mut known = self.lock();
            if known.len() >= TEXTS_MAX {
                known.clear();
            }
            known.insert(shared, statements.clone());
        }
        Ok(statements)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Vec<Statement>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command's tag.
pub(crate) fn done(tag: impl Into<String>) -> Response {
    Response::Done { tag: tag.into() }
}
