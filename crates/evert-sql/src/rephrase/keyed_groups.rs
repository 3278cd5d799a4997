//! `SELECT t.*, count(*) ... GROUP BY t.id`: a table's key takes its other columns along, as in
//! Postgres. Those that the statement names are grouped by, too.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::functions_aggregate::all_default_aggregate_functions;

use sqlparser::ast::{
    Expr, GroupByExpr, Ident, OrderBy, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableFactor, TableWithJoins, Visit, Visitor,
};

use super::joined_row::{column_name, quoted};
use crate::context::Tables;
use crate::functions::aggregate_functions;
use crate::names::{fold, relation_name};

/// Adds to GROUP BY what its keys take along. `is_named`: whether a name is a common table
/// expression's.
pub(super) fn complete(
    select: &mut Select,
    order: Option<&OrderBy>,
    tables: &dyn Tables,
    is_named: &dyn Fn(&str) -> bool,
) {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else { return };
    if groups.is_empty() || groups.iter().any(|group| column_name(group).is_none()) {
        return;
    }
    let mut keyed = Vec::new();
    for from in &select.from {
        each_table(from, &mut |factor| keyed.extend(Keyed::of(factor, tables, is_named)));
    }
    let asked = Asked::of(select, order);
    let mut more = Vec::new();
    for table in &keyed {
        let is_grouped = |column: &String| groups.iter().any(|group| table.is(group, column));
        if table.key.iter().all(is_grouped) {
            let columns = table.columns.iter().filter(|column| !is_grouped(column));
            let columns = columns.filter(|column| asked.has(&fold(&table.name), column));
            more.extend(
                columns.map(|column| {
                    Expr::CompoundIdentifier(vec![table.name.clone(), quoted(column)])
                }),
            );
        }
    }
    if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
        groups.extend(more);
    }
}

fn each_table(from: &TableWithJoins, found: &mut dyn FnMut(&TableFactor)) {
    let joined = from.joins.iter().map(|join| &join.relation);
    for factor in std::iter::once(&from.relation).chain(joined) {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                each_table(table_with_joins, found);
            }
            factor => found(factor),
        }
    }
}

/// A table with a key, as FROM names it.
struct Keyed {
    name: Ident,
    columns: Vec<String>,
    key: Vec<String>,
}

impl Keyed {
    fn of(
        factor: &TableFactor,
        tables: &dyn Tables,
        is_named: &dyn Fn(&str) -> bool,
    ) -> Option<Self> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        let own = name.0.last()?.as_ident()?;
        if name.0.len() == 1 && is_named(&fold(own)) {
            return None;
        }
        let (columns, key) = tables.keyed(&relation_name(name).ok()?)?;
        let name = match alias {
            Some(alias) if !alias.columns.is_empty() => return None,
            Some(alias) => alias.name.clone(),
            None => own.clone(),
        };
        let key = key.into_iter().map(|place| columns[place].clone()).collect();
        Some(Self { name, columns, key })
    }

    /// Whether an expression is this table's column: by its name alone, only this table may have it.
    fn is(&self, expr: &Expr, column: &str) -> bool {
        match expr {
            Expr::CompoundIdentifier(parts) => {
                let [.., table, name] = parts.as_slice() else { return false };
                fold(table) == fold(&self.name) && fold(name) == column
            }
            Expr::Identifier(name) => fold(name) == column,
            _ => false,
        }
    }
}

/// The columns that a statement names outside GROUP BY and aggregates.
#[derive(Default)]
struct Asked {
    /// How many aggregates are open.
    within: usize,
    /// With their table's name, if it is told.
    columns: BTreeSet<(Option<String>, String)>,
    /// Tables of which all are.
    whole: BTreeSet<String>,
    all: bool,
}

impl Asked {
    fn of(select: &Select, order: Option<&OrderBy>) -> Self {
        let mut asked = Self::default();
        for item in &select.projection {
            match item {
                SelectItem::Wildcard(_) => asked.all = true,
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(table),
                    _,
                ) => asked.whole.extend(table.0.last().and_then(|part| part.as_ident()).map(fold)),
                item => asked.look_at(item),
            }
        }
        asked.look_at(&select.having);
        if let Some(order) = order {
            asked.look_at(order);
        }
        asked
    }

    fn look_at(&mut self, part: &impl Visit) {
        let _ = part.visit(self);
    }

    fn has(&self, table: &str, column: &str) -> bool {
        let named = |table: Option<&str>| {
            self.columns.contains(&(table.map(str::to_owned), column.to_owned()))
        };
        self.all || self.whole.contains(table) || named(None) || named(Some(table))
    }
}

impl Visitor for Asked {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            expr if is_aggregate(expr) => self.within += 1,
            _ if self.within > 0 => {}
            Expr::Identifier(name) => drop(self.columns.insert((None, fold(name)))),
            Expr::CompoundIdentifier(parts) => {
                if let [.., table, name] = parts.as_slice() {
                    self.columns.insert((Some(fold(table)), fold(name)));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.within -= usize::from(is_aggregate(expr));
        ControlFlow::Continue(())
    }
}

static AGGREGATES: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let mut functions = all_default_aggregate_functions();
    functions.extend(aggregate_functions().cloned());
    let mut names: HashSet<String> = ["variance", "every"].map(str::to_owned).into();
    for function in &functions {
        names.insert(function.name().to_owned());
        names.extend(function.aliases().iter().cloned());
    }
    names
});

/// What is computed over a group's rows, and not over the groups.
fn is_aggregate(expr: &Expr) -> bool {
    let Expr::Function(function) = expr else { return false };
    let name = function.name.0.last().and_then(|part| part.as_ident()).map(fold);
    function.over.is_none() && name.is_some_and(|name| AGGREGATES.contains(&name))
}
