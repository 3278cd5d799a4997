//! What views need of SQL: a plan. `evert-sql` implements it, so that views need no parser.

use evert_fold::Plan;
use evert_model::RowSchema;

use crate::Name;
use crate::catalog::{Catalog, PlanError};

/// Turns a view's SQL into a plan.
pub trait Planner: Send + Sync {
    /// Plans a SELECT over the catalog's relations and views.
    ///
    /// # Errors
    /// With an SQLSTATE: unknown names, wrong types, constructs that cannot be a view.
    fn plan_view(&self, sql: &str, catalog: &Catalog) -> Result<PlannedView, PlanError>;
}

/// A view's plan and what it reads.
#[derive(Clone, Debug)]
pub struct PlannedView {
    /// The operators.
    pub plan: Plan,
    /// Relations and views, in the order of the plan's inputs.
    pub inputs: Vec<Name>,
    /// The view's columns; the key is the plan's, if it has one.
    pub schema: RowSchema,
}
