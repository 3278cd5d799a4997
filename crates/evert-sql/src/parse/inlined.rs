//! `WITH ... INSERT`, `WITH ... UPDATE` and `WITH ... DELETE`: what is named before the statement as
//! subqueries in it.

use std::ops::ControlFlow;

use sqlparser::ast::{Cte, SetExpr, Statement, TableFactor, VisitMut, VisitorMut, With};

use crate::SqlError;
use crate::names::fold;

/// The statement with subqueries in the place of names.
///
/// # Errors
/// 0A000 for WITH RECURSIVE and for statements that change rows within WITH.
pub(super) fn inlined(with: With, statement: Statement) -> Result<Statement, SqlError> {
    if with.recursive {
        return Err(SqlError::unsupported("WITH RECURSIVE before INSERT, UPDATE or DELETE")
            .hint("Put it into the SELECT that gives the rows."));
    }
    let mut named: Vec<Cte> = Vec::with_capacity(with.cte_tables.len());
    for mut cte in with.cte_tables {
        if matches!(*cte.query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_)) {
            return Err(SqlError::unsupported("INSERT, UPDATE or DELETE within WITH"));
        }
        let _ = cte.query.visit(&mut Inliner(&named));
        named.push(cte);
    }
    let mut statement = statement;
    let _ = statement.visit(&mut Inliner(&named));
    Ok(statement)
}

/// Puts subqueries in the place of names, the last of a name first.
struct Inliner<'a>(&'a [Cte]);

impl VisitorMut for Inliner<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let [part] = name.0.as_slice() else { return ControlFlow::Continue(()) };
        let found = part
            .as_ident()
            .and_then(|name| self.0.iter().rev().find(|cte| fold(&cte.alias.name) == fold(name)));
        if let Some(cte) = found {
            let mut given = cte.alias.clone();
            if let Some(alias) = alias {
                given.name = alias.name.clone();
                if !alias.columns.is_empty() {
                    given.columns = alias.columns.clone();
                }
            }
            let (lateral, alias, sample) = (false, Some(given), None);
            *factor = TableFactor::Derived { lateral, subquery: cte.query.clone(), alias, sample };
        }
        ControlFlow::Continue(())
    }
}
