//! WITH RECURSIVE: what its terms' types are to each other.
//!
//! The planner casts what the recursive term gives to the types of the first, and digits are lost
//! without a word. Postgres refuses terms of different types. Casts that are written stay: they are
//! marked before planning (`rephrase`), since a plan cannot tell them from the planner's own.

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, RecursiveQuery};

use crate::SqlError;
use crate::error::DATATYPE_MISMATCH;
use crate::wording::type_name;

/// Refuses recursive terms that give more digits than the first term has.
///
/// # Errors
/// 42804, as Postgres words it.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::RecursiveQuery(query) = plan {
            check_query(query)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn check_query(query: &RecursiveQuery) -> Result<()> {
    let LogicalPlan::Projection(projection) = query.recursive_term.as_ref() else { return Ok(()) };
    let input = projection.input.schema();
    for (place, expr) in projection.expr.iter().enumerate() {
        let Expr::Cast(cast) = expr.clone().unalias_nested().data else { continue };
        let (from, to) = (cast.expr.get_type(input)?, cast.field.data_type());
        if loses_digits(&from, to) {
            let name = |ty: &DataType| type_name(&Field::new("", ty.clone(), true));
            let (number, query) = (place + 1, &query.name);
            let (first, overall) = (name(to), name(&from));
            let message = format!(
                "recursive query \"{query}\" column {number} has type {first} in non-recursive \
                 term but type {overall} overall"
            );
            let error = SqlError::new(DATATYPE_MISMATCH, message).hint(
                "Cast the output of both terms to one type, such as numeric(38,10), or double \
                 precision.",
            );
            return Err(DataFusionError::External(Box::new(error)));
        }
    }
    Ok(())
}

fn loses_digits(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => from > to,
        (DataType::Decimal128(_, scale), to) if to.is_integer() => *scale > 0,
        (from, to) => from.is_floating() && (to.is_integer() || to.is_decimal()),
    }
}
