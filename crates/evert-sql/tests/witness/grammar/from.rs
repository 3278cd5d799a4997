//! FROM: relations, joins of every kind, SELECTs in parentheses.

use super::select::{list, names};
use super::{Col, Grammar, Output};
use crate::world::Ty;

/// A FROM clause and the columns that it gives.
pub(super) struct From {
    pub(super) sql: String,
    pub(super) scope: Vec<Col>,
}

impl Grammar<'_> {
    /// A relation under a name of its own.
    pub(super) fn relation(&mut self) -> From {
        let tables = &self.world.tables;
        let table = &tables[self.choices.below(tables.len())];
        let alias = self.name("x");
        let scope = table
            .columns
            .iter()
            .map(|(name, ty)| Col { sql: format!("{alias}.{name}"), ty: *ty })
            .collect();
        From { sql: format!("{} AS {alias}", table.name), scope }
    }

    /// A relation, or a SELECT of which the columns that are the same everywhere can be named.
    fn source(&mut self) -> From {
        if !self.choices.one_in(6) {
            return self.relation();
        }
        let Some(body) = self.inner_body() else { return self.relation() };
        self.note("derived table");
        let alias = self.name("x");
        let columns = body.columns.iter().enumerate();
        let scope: Vec<Col> = columns
            .filter(|(_, column)| column.plain)
            .map(|(index, column)| Col { sql: format!("{alias}.o{index}"), ty: column.ty })
            .collect();
        if scope.is_empty() {
            return self.relation();
        }
        From { sql: format!("({}) AS {alias}", body.sql), scope }
    }

    /// A FROM clause of one to three sources.
    pub(super) fn from(&mut self) -> From {
        let mut from = self.source();
        for _ in 0..self.choices.weighted(&[(10, 0), (7, 1), (2, 2)]) {
            from = self.join(from);
        }
        from
    }

    fn join(&mut self, left: From) -> From {
        if self.choices.one_in(12) {
            return self.lateral(left);
        }
        let right = match self.choices.one_in(16) {
            true => self.values(),
            false => self.source(),
        };
        let mut scope = left.scope.clone();
        scope.extend(right.scope.iter().cloned());
        let kind = self.choices.weighted(&[
            (6, "JOIN"),
            (6, "LEFT JOIN"),
            (3, "RIGHT JOIN"),
            (3, "FULL JOIN"),
            (1, "CROSS JOIN"),
        ]);
        self.note(match kind {
            "JOIN" => "inner join",
            "LEFT JOIN" => "left join",
            "RIGHT JOIN" => "right join",
            "FULL JOIN" => "full join",
            _ => "cross join",
        });
        if kind == "CROSS JOIN" {
            return From { sql: format!("{} CROSS JOIN {}", left.sql, right.sql), scope };
        }
        let is_relation = |from: &From| from.sql.split(' ').count() == 3 && !from.sql.contains('(');
        if is_relation(&left) && is_relation(&right) && self.choices.one_in(8) {
            self.note("USING");
            let columns = self.choices.pick(&["id", "a", "s", "id, a"]);
            let sql = format!("{} {kind} {} USING ({columns})", left.sql, right.sql);
            return From { sql, scope };
        }
        // Postgres joins FULL on equality only.
        let equal = self.equality(&left.scope, &right.scope);
        let on = match equal {
            Some(equal) if kind == "FULL JOIN" => equal,
            Some(equal) => match self.choices.weighted(&[(6, 0), (3, 1), (1, 2), (1, 3), (1, 4)]) {
                4 => format!("{equal} AND {}", self.pinned(&right.scope)),
                1 => format!("{equal} AND {}", self.comparison(&scope, 1)),
                2 => {
                    self.note("non-equi join");
                    self.comparison(&scope, 1)
                }
                3 => {
                    let other = self.equality(&left.scope, &right.scope);
                    format!("{equal} AND {}", other.unwrap_or_else(|| "true".to_owned()))
                }
                _ => equal,
            },
            None => "1 = 1".to_owned(),
        };
        From { sql: format!("{} {kind} {} ON {on}", left.sql, right.sql), scope }
    }

    /// Constant rows.
    fn values(&mut self) -> From {
        self.note("VALUES");
        let alias = self.name("x");
        let rows = (0..1 + self.choices.below(3)).map(|_| {
            let a = self.choices.pick(&["1", "0", "2", "NULL"]);
            let s = self.choices.pick(&["'a'", "''", "NULL", "'b'"]);
            format!("({a}::int, {s}::text)")
        });
        let rows = rows.collect::<Vec<_>>().join(", ");
        let sql = format!("(VALUES {rows}) AS {alias}(a, s)");
        let column = |name: &str, ty| Col { sql: format!("{alias}.{name}"), ty };
        From { sql, scope: vec![column("a", Ty::Int), column("s", Ty::Text)] }
    }

    /// A SELECT that sees the columns to its left: rows, the first of them, or what they sum up to.
    fn lateral(&mut self, left: From) -> From {
        self.note("lateral");
        let inner = self.relation();
        let mut conditions: Vec<String> =
            self.equality(&left.scope, &inner.scope).into_iter().collect();
        if self.choices.one_in(3) {
            conditions.push(self.comparison(&inner.scope, 1));
        }
        let filter = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        let (items, columns, tail) = match self.choices.below(3) {
            0 => {
                let (items, columns) = self.items(&inner.scope, 2);
                (items, columns, String::new())
            }
            1 => {
                let (items, columns) = self.items(&inner.scope, 2);
                let ty = self.type_of(&inner.scope);
                let by = self.leaf_column(&inner.scope, ty);
                let order = self.order(std::slice::from_ref(&by), &names(items.len()));
                let limit = self.choices.pick(&["LIMIT 2", "LIMIT 1", "LIMIT 1 OFFSET 1"]);
                // A constant would name a column by its place.
                let is_column = inner.scope.iter().any(|col| col.sql == by);
                let tail =
                    if is_column { format!(" ORDER BY {order} {limit}") } else { String::new() };
                (items, columns, tail)
            }
            _ => {
                let x = self.leaf_column(&inner.scope, Ty::Int);
                let items = vec!["count(*)".to_owned(), format!("max({x})")];
                (items, vec![Output::exact(Ty::Big), Output::exact(Ty::Int)], String::new())
            }
        };
        let alias = self.name("x");
        let body = format!("SELECT {} FROM {}{filter}{tail}", list(&items), inner.sql);
        let mut scope = left.scope;
        let own = columns.iter().enumerate();
        scope.extend(
            own.map(|(index, column)| Col { sql: format!("{alias}.o{index}"), ty: column.ty }),
        );
        let sql = match self.choices.below(2) {
            0 => format!("{} CROSS JOIN LATERAL ({body}) AS {alias}", left.sql),
            _ => format!("{} LEFT JOIN LATERAL ({body}) AS {alias} ON true", left.sql),
        };
        From { sql, scope }
    }

    /// A left column equal to a right one of its type.
    pub(super) fn equality(&mut self, left: &[Col], right: &[Col]) -> Option<String> {
        let pairs: Vec<_> = left
            .iter()
            .flat_map(|l| right.iter().map(move |r| (l, r)))
            .filter(|(l, r)| l.ty == r.ty && !matches!(l.ty, Ty::Json | Ty::Bool))
            .map(|(l, r)| format!("{} = {}", l.sql, r.sql))
            .collect();
        if pairs.is_empty() { None } else { Some(self.choices.pick(&pairs)) }
    }

    /// A column equal to a constant.
    fn pinned(&mut self, scope: &[Col]) -> String {
        self.note("column = constant");
        let ty = self.type_of(scope);
        let column = self.leaf_column(scope, ty);
        format!("{column} = {}", self.literal(ty))
    }

    /// ` WHERE ...`, at times.
    pub(super) fn filter(&mut self, scope: &[Col]) -> String {
        let condition = match self.choices.weighted(&[(5, 0), (5, 1), (3, 2), (1, 3)]) {
            0 => return String::new(),
            1 => self.condition(scope, 2),
            2 => self.subquery_condition(scope),
            _ => self.pinned(scope),
        };
        format!(" WHERE {condition}")
    }
}
