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
    /// The result's columns; `None` for statements that return no rows.
    pub columns: Option<SchemaRef>,
}

pub(crate) struct Parsed {
    /// The whole text that the statement was part of: its places are those in it.
    pub(crate) text: Arc<str>,
    pub(crate) command: Command,
    plan: Mutex<Option<CachedPlan>>,
}

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
        let cache = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .as_ref()
            .filter(|cached| Arc::ptr_eq(&cached.catalog, catalog) && cached.suits(hints))
            .map(|cached| Arc::clone(&cached.planned))
    }

    pub(crate) fn cache(
        &self,
        catalog: &Arc<Catalog>,
        hints: &[Option<DataType>],
        planned: &Arc<Planned>,
    ) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(CachedPlan {
            catalog: Arc::clone(catalog),
            hints: hints.to_vec(),
            planned: Arc::clone(planned),
        });
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
                Statement(Arc::new(Parsed { text, command, plan: Mutex::new(None) }))
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
