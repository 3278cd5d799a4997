//! Names of outer tables that subqueries use: `b.k` is the column of a table `b` further out, also
//! where a nearer table has a column `b`, whose member the planner would look for.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, VisitMut,
    VisitorMut,
};

use crate::names::fold;

/// The query with other names for the tables that subqueries name from further in; `None` if
/// there are none such.
pub(crate) fn with_outer_names(query: &Query) -> Option<Query> {
    let mut query = query.clone();
    let mut scopes = Scopes::default();
    let _ = query.visit(&mut scopes);
    if scopes.outer.is_empty() {
        return None;
    }
    let _ = query.visit(&mut Scopes { outer: scopes.outer, renames: true, ..Scopes::default() });
    Some(query)
}

/// The tables of a SELECT.
struct Scope {
    /// Which of the statement's SELECTs it is.
    number: usize,
    names: Vec<String>,
}

#[derive(Default)]
struct Scopes {
    open: Vec<Scope>,
    /// How many SELECTs have been seen.
    count: usize,
    /// Whether the query that is open has opened the scope of its SELECT, which its ORDER BY shares.
    queries: Vec<bool>,
    /// SELECTs and their tables that subqueries name.
    outer: BTreeSet<(usize, String)>,
    renames: bool,
}

impl Scopes {
    fn enter(&mut self, select: &mut Select) {
        let number = self.count;
        self.count += 1;
        let mut names = Vec::new();
        let mut note = |factor: &mut TableFactor| {
            let Some(name) = name_of(factor) else { return };
            if self.renames && self.outer.contains(&(number, name.clone())) {
                rename(factor, &name);
            }
            names.push(name);
        };
        for from in &mut select.from {
            each_factor(from, &mut note);
        }
        self.open.push(Scope { number, names });
    }

    /// The SELECT that a table's name belongs to, and whether it is further out.
    fn find(&self, name: &str) -> Option<(usize, bool)> {
        let is_in = |scope: &&Scope| scope.names.iter().any(|other| other == name);
        let scope = self.open.iter().rev().find(is_in)?;
        let inner = self.open.last().map(|inner| inner.number);
        Some((scope.number, inner != Some(scope.number)))
    }

    fn settle(&mut self, table: &mut Ident) {
        let name = fold(table);
        let Some((number, is_outer)) = self.find(&name) else { return };
        let key = (number, name);
        if !self.renames && is_outer {
            self.outer.insert(key);
        } else if self.renames && self.outer.contains(&key) {
            *table = renamed(&key.1);
        }
    }
}

impl VisitorMut for Scopes {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let select = match query.body.as_mut() {
            SetExpr::Select(select) => Some(select),
            _ => None,
        };
        self.queries.push(select.is_some());
        if let Some(select) = select {
            self.enter(select);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        if self.queries.pop() == Some(true) {
            self.open.pop();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        // An operand of UNION and its like has its own scope.
        if self.queries.last() == Some(&false) {
            self.enter(select);
        }
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(ObjectName(parts)),
                _,
            ) = item
                && let [ObjectNamePart::Identifier(table)] = parts.as_mut_slice()
            {
                self.settle(table);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &mut Select) -> ControlFlow<()> {
        if self.queries.last() == Some(&false) {
            self.open.pop();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [table, _] = parts.as_mut_slice()
        {
            self.settle(table);
        }
        ControlFlow::Continue(())
    }
}

fn each_factor(tables: &mut TableWithJoins, act: &mut dyn FnMut(&mut TableFactor)) {
    let joined = tables.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut tables.relation).chain(joined) {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                each_factor(table_with_joins, act);
            }
            other => act(other),
        }
    }
}

/// The alias of a table, or its own name.
fn name_of(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => Some(fold(&alias.name)),
        TableFactor::Table { name, alias: None, .. } => match name.0.last()? {
            ObjectNamePart::Identifier(name) => Some(fold(name)),
            ObjectNamePart::Function(_) => None,
        },
        _ => None,
    }
}

fn rename(factor: &mut TableFactor, name: &str) {
    let (TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. }) = factor else {
        return;
    };
    match alias {
        Some(alias) => alias.name = renamed(name),
        None => {
            let name = renamed(name);
            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        }
    }
}

fn renamed(name: &str) -> Ident {
    Ident::with_quote('"', format!("__outer_{name}"))
}
