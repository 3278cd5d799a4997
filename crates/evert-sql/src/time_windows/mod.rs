//! Windows of time in FROM, as Flink and Calcite write them:
//!
//! ```sql
//! SELECT window_start, window_end, count(*)
//! FROM TUMBLE(TABLE payments, DESCRIPTOR(paid_at), INTERVAL '1' MINUTE)
//! GROUP BY window_start, window_end
//! ```
//!
//! also `HOP(TABLE t, DESCRIPTOR(time), slide, size)`, `SESSION(TABLE t PARTITION BY key,
//! DESCRIPTOR(time), gap)` and Calcite's `SESSION(TABLE t, DESCRIPTOR(time), DESCRIPTOR(key),
//! gap)`, with or without `TABLE(...)` around. Each is a subquery that adds `window_start` and
//! `window_end` to the rows of its table whose time is not NULL.
//!
//! Owns: what such a call means. Not here: the functions that compute windows (`functions`).

mod tokens;

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Query, Statement, TableAlias, TableFactor, TableFunctionArgs, VisitMut,
    VisitorMut,
};

use crate::SqlError;
use crate::error::SYNTAX_ERROR;
use crate::text::parse_statements;
pub(crate) use tokens::{PARTITION, plain_tables};

/// Replaces windows in FROM, also those of subqueries and common table expressions.
pub(crate) fn replace_windows(query: &mut Query) -> Result<(), SqlError> {
    match query.visit(&mut Replacer) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Replacer;

impl VisitorMut for Replacer {
    type Break = Box<SqlError>;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Box<SqlError>> {
        let (name, args, alias) = match factor {
            TableFactor::Table {
                name, args: Some(TableFunctionArgs { args, .. }), alias, ..
            } => (&*name, &*args, &*alias),
            TableFactor::TableFunction { expr: Expr::Function(call), alias } => {
                let FunctionArguments::List(list) = &call.args else {
                    return ControlFlow::Continue(());
                };
                (&call.name, &list.args, &*alias)
            }
            _ => return ControlFlow::Continue(()),
        };
        let Some(kind) = Kind::of_name(name) else { return ControlFlow::Continue(()) };
        match kind.subquery(args, alias.clone()) {
            Ok(subquery) => {
                *factor = subquery;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tumble,
    Hop,
    Session,
}

/// What a call is made of.
struct Call {
    table: TableFactor,
    time: Expr,
    /// Of sessions.
    keys: Vec<Expr>,
    intervals: Vec<Expr>,
}

impl Kind {
    fn of_name(name: &ObjectName) -> Option<Self> {
        let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
        match crate::names::fold(name).as_str() {
            "tumble" => Some(Self::Tumble),
            "hop" => Some(Self::Hop),
            "session" => Some(Self::Session),
            _ => None,
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE(TABLE t, DESCRIPTOR(time), INTERVAL '1 minute')",
            Self::Hop => "HOP(TABLE t, DESCRIPTOR(time), INTERVAL '1 minute', INTERVAL '1 hour')",
            Self::Session => {
                "SESSION(TABLE t PARTITION BY key, DESCRIPTOR(time), INTERVAL '5 minutes')"
            }
        }
    }

    /// The subquery, but for its table, time, keys and intervals.
    fn template(self, call: &Call) -> String {
        let offset = |n| if call.intervals.len() > n { ", __offset" } else { "" };
        match self {
            Self::Tumble => {
                let args = format!("__time, __size{}", offset(1));
                format!(
                    "SELECT *, tumble({args}) AS window_start, tumble_end({args}) AS window_end \
                     FROM __table WHERE __time IS NOT NULL"
                )
            }
            Self::Hop => format!(
                "SELECT *, window_start + __size AS window_end FROM \
                 (SELECT *, unnest(hop(__time, __slide, __size{})) AS window_start \
                  FROM __table WHERE __time IS NOT NULL) AS hops",
                offset(2)
            ),
            Self::Session => {
                let keys: Vec<_> = (0..call.keys.len()).map(|key| format!("__key{key}")).collect();
                let over = match keys.is_empty() {
                    true => "ORDER BY __time".to_owned(),
                    false => format!("PARTITION BY {} ORDER BY __time", keys.join(", ")),
                };
                format!(
                    "SELECT *, session_start(__time, __size) OVER ({over}) AS window_start, \
                     session_end(__time, __size) OVER ({over}) AS window_end \
                     FROM __table WHERE __time IS NOT NULL"
                )
            }
        }
    }

    fn subquery(
        self,
        args: &[FunctionArg],
        alias: Option<TableAlias>,
    ) -> Result<TableFactor, SqlError> {
        let call = self.call(args).ok_or_else(|| {
            let name = self.usage().split('(').next().unwrap_or_default();
            let message = format!("{name} does not take these arguments");
            SqlError::new(SYNTAX_ERROR, message).hint(format!("Write {}.", self.usage()))
        })?;
        let alias = alias.or_else(|| own_name(&call.table));
        let mut statements = parse_statements(&self.template(&call))?;
        let Some(Statement::Query(mut query)) = statements.pop() else {
            return Err(SqlError::new(SYNTAX_ERROR, "a window is a subquery"));
        };
        let _ = query.visit(&mut Filler { kind: self, call: &call });
        Ok(TableFactor::Derived { lateral: false, subquery: query, alias, sample: None })
    }

    fn call(self, args: &[FunctionArg]) -> Option<Call> {
        let mut table = None;
        let (mut time, mut keys, mut intervals) = (None, Vec::new(), Vec::new());
        for arg in args {
            let expr = match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
                | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. }
                | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(expr), .. } => expr,
                _ => return None,
            };
            match columns(expr) {
                None if table.is_none() => table = Some(table_of(expr)?),
                None => intervals.push(expr.clone()),
                Some((PARTITION, columns)) => keys = columns,
                Some((_, mut columns)) if time.is_none() => {
                    time = Some(columns.pop().filter(|_| columns.is_empty())?);
                }
                Some((_, columns)) => keys = columns,
            }
        }
        let most = match self {
            Self::Tumble => 1..=2,
            Self::Hop => 2..=3,
            Self::Session => 1..=1,
        };
        let takes_keys = matches!(self, Self::Session) || keys.is_empty();
        let fits = most.contains(&intervals.len()) && takes_keys;
        fits.then_some(Call { table: table?, time: time?, keys, intervals })
    }
}

/// The columns in `DESCRIPTOR(a, b)`, and what stands there instead of the word.
fn columns(expr: &Expr) -> Option<(&'static str, Vec<Expr>)> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else {
        return None;
    };
    let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
    let word = match crate::names::fold(name).as_str() {
        "descriptor" => "descriptor",
        PARTITION => PARTITION,
        _ => return None,
    };
    let columns = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    Some((word, columns.collect::<Option<_>>()?))
}

fn table_of(expr: &Expr) -> Option<TableFactor> {
    let name = match expr {
        Expr::Identifier(name) => vec![name.clone()],
        Expr::CompoundIdentifier(names) => names.clone(),
        Expr::Subquery(query) => {
            let (subquery, alias) = (query.clone(), None);
            return Some(TableFactor::Derived { lateral: false, subquery, alias, sample: None });
        }
        Expr::Nested(inner) => return table_of(inner),
        _ => return None,
    };
    Some(TableFactor::Table {
        name: ObjectName::from(name),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    })
}

/// A table's own name goes on to name its windows.
fn own_name(table: &TableFactor) -> Option<TableAlias> {
    let TableFactor::Table { name, .. } = table else { return None };
    let ObjectNamePart::Identifier(name) = name.0.last()? else { return None };
    Some(TableAlias { explicit: true, name: name.clone(), columns: Vec::new(), at: None })
}

/// Puts a call's parts into the template.
struct Filler<'a> {
    kind: Kind,
    call: &'a Call,
}

impl Filler<'_> {
    fn part(&self, name: &Ident) -> Option<Expr> {
        let intervals = &self.call.intervals;
        let (slide, size, offset) = match self.kind {
            Kind::Hop => (intervals.first(), intervals.get(1), intervals.get(2)),
            _ => (None, intervals.first(), intervals.get(1)),
        };
        match name.value.as_str() {
            "__time" => Some(self.call.time.clone()),
            "__slide" => slide.cloned(),
            "__size" => size.cloned(),
            "__offset" => offset.cloned(),
            other => {
                let key: usize = other.strip_prefix("__key")?.parse().ok()?;
                self.call.keys.get(key).cloned()
            }
        }
    }
}

impl VisitorMut for Filler<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && let Some(part) = self.part(name)
        {
            *expr = part;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if matches!(factor, TableFactor::Table { name, .. } if name.to_string() == "__table") {
            *factor = self.call.table.clone();
        }
        ControlFlow::Continue(())
    }
}
