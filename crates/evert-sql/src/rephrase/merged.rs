//! `JOIN ... USING` and `NATURAL JOIN` as joins ON: the columns that they merge are named once, and
//! come first under `*`, as in Postgres. What else a name means by the tables of its SELECT: the
//! value of a function in FROM, a table's whole row.
//!
//! Which columns a table has is known from the catalog or from what the statement says; of a
//! function in FROM it is not.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Ident, Join, JoinConstraint, JoinOperator, ObjectName,
    ObjectNamePart, OrderBy, OrderByKind, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, Visit,
    VisitMut, Visitor, VisitorMut, WildcardAdditionalOptions,
};

use super::from_functions::list_function;
use super::joined_row::{Meanings, Piece, Row, column_name, quoted};
use super::whole_rows::{self, WholeRow};
use super::{call, derived, function_name, keyed_groups, query_of, select_all, unnamed};
use crate::SqlError;
use crate::context::Tables;
use crate::names::{fold, relation_name};

/// Puts what a merged column is in the place of its name, in a query and all that it holds.
///
/// # Errors
/// 42703 for a column that a side of a join lacks, 42702 for one that it has twice, 0A000 where
/// that cannot be known.
pub(super) fn merge(query: &mut Query, tables: &dyn Tables) -> Result<(), SqlError> {
    if Visit::visit(query, &mut FindsMerging).is_continue() {
        return Ok(());
    }
    let scope = Scope { tables, named: Vec::new(), outer: Meanings::default() };
    scope.query(query)
}

/// Looks for a join that merges columns, for groups, for functions of two names, and for whole rows.
struct FindsMerging;

impl Visitor for FindsMerging {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let groups = match &select.group_by {
            GroupByExpr::Expressions(groups, _) => !groups.is_empty(),
            GroupByExpr::All(_) => false,
        };
        match groups || select.from.iter().any(|tables| merges(tables) || has_elements(tables)) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) if whole_rows::takes_rows(function) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn has_elements(tables: &TableWithJoins) -> bool {
    let joined = tables.joins.iter().map(|join| &join.relation);
    std::iter::once(&tables.relation).chain(joined).any(|table| elements_column(table).is_some())
}

fn merges(tables: &TableWithJoins) -> bool {
    let nested = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => merges(table_with_joins),
        _ => false,
    };
    nested(&tables.relation)
        || tables.joins.iter().any(|join| {
            let constraint = constraint_mut(&mut join.join_operator.clone()).cloned();
            matches!(constraint, Some(JoinConstraint::Using(_) | JoinConstraint::Natural))
                || nested(&join.relation)
        })
}

/// What names may mean in a query.
#[derive(Clone)]
struct Scope<'a> {
    tables: &'a dyn Tables,
    /// Common table expressions and their columns, the nearest last.
    named: Vec<(String, Option<Vec<String>>)>,
    /// What names mean by the tables of the SELECTs further out.
    outer: Meanings,
}

impl Scope<'_> {
    fn query(&self, query: &mut Query) -> Result<(), SqlError> {
        let mut scope = self.clone();
        scope.merge_in(query)
    }

    fn merge_in(&mut self, query: &mut Query) -> Result<(), SqlError> {
        if let Some(with) = &mut query.with {
            for cte in &mut with.cte_tables {
                let name = fold(&cte.alias.name);
                if with.recursive {
                    self.named.push((name.clone(), None));
                }
                self.query(&mut cte.query)?;
                let columns = renamed(Some(&cte.alias), self.columns_of(&cte.query));
                self.named.push((name, columns));
            }
        }
        let SetExpr::Select(select) = query.body.as_mut() else {
            return self.operands(&mut query.body);
        };
        self.complete_groups(select, query.order_by.as_ref());
        let mut meanings = self.select(select)?;
        // What ORDER BY names is a result first.
        let is_result = |name: &str| {
            select.projection.iter().any(|item| {
                matches!(item, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == name)
            })
        };
        meanings.values.retain(|(name, _)| !is_result(name));
        match &mut query.order_by {
            Some(order) => match &mut order.kind {
                OrderByKind::Expressions(exprs) => self.replace(exprs, meanings),
                OrderByKind::All(_) => Ok(()),
            },
            None => Ok(()),
        }
    }

    fn operands(&self, body: &mut SetExpr) -> Result<(), SqlError> {
        match body {
            SetExpr::Select(select) => {
                self.complete_groups(select, None);
                self.select(select).map(drop)
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.operands(left)?;
                self.operands(right)
            }
            SetExpr::Query(query) => self.query(query),
            body => self.replace(body, Meanings::default()),
        }
    }

    fn complete_groups(&self, select: &mut Select, order: Option<&OrderBy>) {
        let is_named = |name: &str| self.named.iter().any(|(other, _)| other == name);
        keyed_groups::complete(select, order, self.tables, &is_named);
    }

    /// Gives what names mean in the SELECT that are not columns of one table.
    fn select(&self, select: &mut Select) -> Result<Meanings, SqlError> {
        let does = select.from.iter().any(merges);
        let mut row = Row::default();
        for tables in &mut select.from {
            let more = self.chain(tables, &row)?;
            row.0.extend(more.0);
        }
        let meanings = row.meanings(&self.outer);
        let is_all = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_));
        if does && select.projection.iter().any(is_all) {
            let all = row.all()?;
            let items = std::mem::take(&mut select.projection).into_iter();
            let mut expanded = Vec::new();
            for item in items {
                match item {
                    SelectItem::Wildcard(options) if plain(&options) => {
                        expanded.extend(all.iter().cloned());
                    }
                    SelectItem::Wildcard(_) => {
                        return Err(SqlError::unsupported("* EXCEPT over JOIN ... USING")
                            .hint("Name the columns."));
                    }
                    item => expanded.push(item),
                }
            }
            select.projection = expanded;
        }
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
                && let Some(value) = meanings.value(&fold(name))
                && column_name(value) != Some(fold(name))
            {
                let alias = name.clone();
                *item = SelectItem::ExprWithAlias { expr: Expr::Identifier(name.clone()), alias };
            }
        }
        self.replace(&mut select.projection, meanings.clone())?;
        self.replace(&mut select.selection, meanings.clone())?;
        self.replace(&mut select.group_by, meanings.clone())?;
        self.replace(&mut select.having, meanings.clone())?;
        self.replace(&mut select.distinct, meanings.clone())?;
        self.replace(&mut select.qualify, meanings.clone())?;
        self.replace(&mut select.named_window, meanings.clone())?;
        Ok(meanings)
    }

    /// Puts meanings in the place of names, and goes into subqueries.
    fn replace(&self, part: &mut impl VisitMut, meanings: Meanings) -> Result<(), SqlError> {
        let scope = Scope { outer: meanings, ..self.clone() };
        match part.visit(&mut Names { scope: &scope, below: 0 }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// The row of a table and what is joined to it. `before`: what stands to the left in FROM.
    fn chain(&self, tables: &mut TableWithJoins, before: &Row) -> Result<Row, SqlError> {
        let mut row = self.factor(&mut tables.relation, before)?;
        for join in &mut tables.joins {
            let right = {
                let mut left = before.clone();
                left.0.extend(row.0.clone());
                self.factor(&mut join.relation, &left)?
            };
            row = self.join(join, row, right)?;
        }
        Ok(row)
    }

    fn factor(&self, factor: &mut TableFactor, left: &Row) -> Result<Row, SqlError> {
        if let TableFactor::NestedJoin { table_with_joins, alias } = factor {
            if alias.is_none() {
                return self.chain(table_with_joins, left);
            }
            let from = vec![table_with_joins.as_ref().clone()];
            let select = Select { from, ..*select_all() };
            let query = query_of(SetExpr::Select(Box::new(select)));
            *factor = derived(query, alias.take(), false);
        }
        self.replace(factor, left.meanings(&self.outer))?;
        let Some(table) = alias(factor) else { return Ok(Row(vec![Piece::Unnamed])) };
        if let Some(column) = elements_column(factor) {
            let value = Expr::CompoundIdentifier(vec![table.clone(), quoted(&column)]);
            let whole = Piece::Whole { name: fold(&table), value: value.clone() };
            return Ok(Row(vec![Piece::Column { name: column, value, is_merged: false }, whole]));
        }
        Ok(Row(match self.columns_of_factor(factor) {
            Some(columns) => {
                let with_value = |name: String| {
                    let value = vec![table.clone(), quoted(&name)];
                    (name, Expr::CompoundIdentifier(value))
                };
                let columns: Vec<_> = columns.into_iter().map(with_value).collect();
                let name = fold(&table);
                let row =
                    WholeRow { name, columns: columns.clone(), optional: false, hidden: false };
                let column = |(name, value)| Piece::Column { name, value, is_merged: false };
                let columns = columns.into_iter().map(column);
                columns.chain([Piece::Table(row)]).collect()
            }
            None => vec![Piece::Unknown { table, taken: Vec::new() }],
        }))
    }

    fn join(&self, join: &mut Join, mut left: Row, mut right: Row) -> Result<Row, SqlError> {
        use JoinOperator::{
            Anti, FullOuter, Left, LeftAnti, LeftOuter, LeftSemi, Right, RightAnti, RightOuter,
            RightSemi, Semi,
        };
        let both = |left: &Row, right: &Row| Row([left.0.clone(), right.0.clone()].concat());
        let operator = &mut join.join_operator;
        let is_full = matches!(operator, FullOuter(_));
        let is_right = matches!(operator, Right(_) | RightOuter(_));
        if is_full || is_right {
            left.make_optional();
        }
        if is_full || matches!(operator, Left(_) | LeftOuter(_)) {
            right.make_optional();
        }
        match operator {
            Semi(_) | LeftSemi(_) | Anti(_) | LeftAnti(_) => return Ok(left),
            RightSemi(_) | RightAnti(_) => return Ok(right),
            _ => {}
        }
        let Some(constraint) = constraint_mut(operator) else { return Ok(both(&left, &right)) };
        let names = match constraint {
            JoinConstraint::Using(columns) => columns.iter().filter_map(using_name).collect(),
            JoinConstraint::Natural => left.shared(&right)?,
            JoinConstraint::On(condition) => {
                let row = both(&left, &right);
                self.replace(condition, row.meanings(&self.outer))?;
                return Ok(row);
            }
            JoinConstraint::None => return Ok(both(&left, &right)),
        };
        let mut merged = Vec::with_capacity(names.len());
        let mut conditions = Vec::with_capacity(names.len());
        for name in names {
            let (a, b) = (left.take(&name, "left")?, right.take(&name, "right")?);
            conditions.push(Expr::BinaryOp {
                left: Box::new(a.clone()),
                op: BinaryOperator::Eq,
                right: Box::new(b.clone()),
            });
            let value = match (is_full, is_right) {
                (true, _) => call("coalesce", vec![unnamed(a), unnamed(b)]),
                (_, true) => b,
                _ => a,
            };
            merged.push(Piece::Column { name, value, is_merged: true });
        }
        let all = conditions.into_iter().reduce(|left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(right),
        });
        let always = || Expr::value(sqlparser::ast::Value::Boolean(true));
        *constraint = JoinConstraint::On(all.unwrap_or_else(always));
        Ok(Row([merged, left.0, right.0].concat()))
    }

    /// The columns of a table in FROM, if they are known.
    fn columns_of_factor(&self, factor: &TableFactor) -> Option<Vec<String>> {
        let (columns, alias) = match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                (self.columns_of_table(name), alias)
            }
            TableFactor::Derived { subquery, alias, .. } => (self.columns_of(subquery), alias),
            TableFactor::Table { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::Function { alias, .. } => {
                // A list of names for a function's columns names all of them.
                let named = alias.as_ref().filter(|alias| !alias.columns.is_empty());
                (named.map(|_| Vec::new()), alias)
            }
            _ => return None,
        };
        renamed(alias.as_ref(), columns)
    }

    fn columns_of_table(&self, name: &ObjectName) -> Option<Vec<String>> {
        if let [ObjectNamePart::Identifier(name)] = name.0.as_slice() {
            let name = fold(name);
            if let Some((_, columns)) = self.named.iter().rev().find(|(other, _)| *other == name) {
                return columns.clone();
            }
        }
        let table = self.tables.table(&relation_name(name).ok()?).ok()?;
        Some(table.schema().fields().iter().map(|field| field.name().clone()).collect())
    }

    /// The columns of a query's result, if they are known.
    fn columns_of(&self, query: &Query) -> Option<Vec<String>> {
        let mut scope = self.clone();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let columns = renamed(Some(&cte.alias), scope.columns_of(&cte.query));
            scope.named.push((fold(&cte.alias.name), columns));
        }
        scope.columns_of_body(&query.body)
    }

    fn columns_of_body(&self, body: &SetExpr) -> Option<Vec<String>> {
        match body {
            SetExpr::Query(query) => self.columns_of(query),
            SetExpr::SetOperation { left, .. } => self.columns_of_body(left),
            SetExpr::Values(values) => {
                let width = values.rows.first()?.content.len();
                Some((1..=width).map(|place| format!("column{place}")).collect())
            }
            SetExpr::Select(select) => {
                // What is merged in it has been named already, or is once it is visited.
                let mut row = Row::default();
                for tables in &select.from {
                    row.0.extend(self.chain(&mut tables.clone(), &row).ok()?.0);
                }
                let mut columns = Vec::new();
                for item in &select.projection {
                    match item {
                        SelectItem::ExprWithAlias { alias, .. } => columns.push(fold(alias)),
                        SelectItem::UnnamedExpr(expr) => {
                            columns.push(column_name(expr).unwrap_or_default());
                        }
                        SelectItem::Wildcard(options) if plain(options) => {
                            columns.extend(row.names(None)?);
                        }
                        SelectItem::QualifiedWildcard(
                            SelectItemQualifiedWildcardKind::ObjectName(table),
                            options,
                        ) if plain(options) => {
                            let [.., ObjectNamePart::Identifier(table)] = table.0.as_slice() else {
                                return None;
                            };
                            columns.extend(row.names(Some(&fold(table)))?);
                        }
                        _ => return None,
                    }
                }
                Some(columns)
            }
            _ => None,
        }
    }
}

/// The one column of a function in FROM whose column does not take the function's alias.
fn elements_column(factor: &TableFactor) -> Option<String> {
    let (TableFactor::Table { name, alias, args: Some(_), with_ordinality: false, .. }
    | TableFactor::Function { name, alias, with_ordinality: false, .. }) = factor
    else {
        return None;
    };
    let column = list_function(&function_name(name)?)?.1?;
    let named = alias.as_ref().and_then(|alias| alias.columns.first());
    Some(named.map_or_else(|| column.to_owned(), |column| fold(&column.name)))
}

/// Columns under the names that an alias gives them.
fn renamed(alias: Option<&TableAlias>, columns: Option<Vec<String>>) -> Option<Vec<String>> {
    let mut columns = columns?;
    let names = alias.iter().flat_map(|alias| &alias.columns);
    for (place, column) in names.enumerate() {
        match columns.get_mut(place) {
            Some(name) => *name = fold(&column.name),
            None => columns.push(fold(&column.name)),
        }
    }
    Some(columns)
}

/// Whether a `*` stands for all columns.
fn plain(options: &WildcardAdditionalOptions) -> bool {
    options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_ilike.is_none()
}

/// What a join is on, if it may merge columns.
fn constraint_mut(join: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    use JoinOperator::{
        CrossJoin, FullOuter, Inner, Left, LeftOuter, Right, RightOuter, StraightJoin,
    };
    match join {
        JoinOperator::Join(constraint)
        | Inner(constraint)
        | Left(constraint)
        | LeftOuter(constraint)
        | Right(constraint)
        | RightOuter(constraint)
        | FullOuter(constraint)
        | CrossJoin(constraint)
        | StraightJoin(constraint) => Some(constraint),
        _ => None,
    }
}

fn using_name(column: &ObjectName) -> Option<String> {
    match column.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Some(fold(name)),
        _ => None,
    }
}

/// What columns of a table are called by.
fn alias(table: &TableFactor) -> Option<Ident> {
    let (alias, name) = match table {
        TableFactor::Table { alias, name, .. } => (alias, Some(name)),
        TableFactor::Function { alias, name, .. } => (alias, Some(name)),
        TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => (alias, None),
        _ => return None,
    };
    match (alias, name.and_then(|name| name.0.last())) {
        (Some(alias), _) => Some(alias.name.clone()),
        (None, Some(ObjectNamePart::Identifier(name))) => Some(name.clone()),
        _ => None,
    }
}

/// Puts meanings in the place of names. Subqueries have tables of their own.
struct Names<'a> {
    scope: &'a Scope<'a>,
    below: usize,
}

impl VisitorMut for Names<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        if self.below == 0
            && let Err(error) = self.scope.query(query)
        {
            return ControlFlow::Break(error);
        }
        self.below += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<SqlError> {
        self.below -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        if self.below == 0
            && let Expr::Function(function) = expr
        {
            whole_rows::put(function, &self.scope.outer.rows);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        if self.below == 0
            && let Expr::Identifier(name) = expr
            && let Some(value) = self.scope.outer.value(&fold(name))
        {
            *expr = value.clone();
        }
        ControlFlow::Continue(())
    }
}
