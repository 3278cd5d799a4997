//! SELECT of rows: projections, DISTINCT, the first rows in an order, set operations.

use super::{Body, Col, Grammar, Output};
use crate::world::Ty;

/// Expressions under the names `o0`, `o1`, ...
pub(super) fn list(items: &[String]) -> String {
    let items = items.iter().enumerate().map(|(index, item)| format!("{item} AS o{index}"));
    items.collect::<Vec<_>>().join(", ")
}

/// Those names.
pub(super) fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("o{index}")).collect()
}

impl Grammar<'_> {
    /// Expressions over columns, at least one, none with a subquery.
    pub(super) fn items(&mut self, scope: &[Col], most: usize) -> (Vec<String>, Vec<Output>) {
        let count = 1 + self.choices.below(most);
        let items = (0..count).map(|_| {
            let ty = self.type_of(scope);
            (self.expr(scope, ty, 2), Output::exact(ty))
        });
        items.unzip()
    }

    pub(super) fn plain(&mut self) -> Body {
        let from = self.from();
        let (mut items, mut columns) = self.items(&from.scope, 4);
        if self.choices.one_in(8) {
            let ty = self.type_of(&from.scope);
            items.push(self.scalar_subquery(&from.scope, ty));
            columns.push(Output::exact(ty));
        }
        if self.choices.one_in(12) {
            self.note("subquery as a value");
            let value = match self.choices.below(2) {
                0 => self.exists(&from.scope),
                _ => self.in_subquery(&from.scope),
            };
            items.push(format!("({value})"));
            columns.push(Output::exact(Ty::Bool));
        }
        let filter = self.filter(&from.scope);
        Body { sql: format!("SELECT {} FROM {}{filter}", list(&items), from.sql), columns }
    }

    pub(super) fn distinct(&mut self) -> Body {
        self.note("DISTINCT");
        let mut body = self.plain();
        body.sql = body.sql.replacen("SELECT ", "SELECT DISTINCT ", 1);
        body
    }

    /// An order by some expressions and then by every column, so that it leaves nothing open.
    pub(super) fn order(&mut self, by: &[String], rest: &[String]) -> String {
        let mut keys: Vec<String> = by
            .iter()
            .map(|key| {
                let direction =
                    self.choices.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST", " ASC"]);
                format!("{key}{direction}")
            })
            .collect();
        keys.extend(rest.iter().cloned());
        keys.join(", ")
    }

    pub(super) fn distinct_on(&mut self) -> Body {
        self.note("DISTINCT ON");
        let from = self.from();
        let (items, columns) = self.items(&from.scope, 3);
        let keys: Vec<String> = (0..1 + self.choices.below(2))
            .map(|_| self.type_of(&from.scope))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|ty| self.leaf_column(&from.scope, ty))
            .collect();
        let order = self.order(&keys, &names(items.len()));
        let filter = self.filter(&from.scope);
        let limit = self.choices.pick(&["", "", " LIMIT 2", " LIMIT 2 OFFSET 1"]);
        let sql = format!(
            "SELECT DISTINCT ON ({}) {} FROM {}{filter} ORDER BY {order}{limit}",
            keys.join(", "),
            list(&items),
            from.sql
        );
        Body { sql, columns }
    }

    /// A column of a type that the scope has.
    pub(super) fn leaf_column(&mut self, scope: &[Col], ty: Ty) -> String {
        self.column(scope, ty).unwrap_or_else(|| self.literal(ty))
    }

    pub(super) fn top_rows(&mut self) -> Body {
        self.note("ORDER BY LIMIT");
        let from = self.from();
        let (items, columns) = self.items(&from.scope, 3);
        let ty = self.type_of(&from.scope);
        let by = self.key(&from.scope, ty);
        let order = self.order(&[by], &names(items.len()));
        let filter = self.filter(&from.scope);
        let limit = self.choices.pick(&["LIMIT 3", "LIMIT 1", "LIMIT 5 OFFSET 2", "LIMIT 0"]);
        let sql =
            format!("SELECT {} FROM {}{filter} ORDER BY {order} {limit}", list(&items), from.sql);
        Body { sql, columns }
    }

    pub(super) fn top_rows_by_group(&mut self) -> Body {
        self.note("row_number() <= k");
        let from = self.from();
        let (mut items, columns) = self.items(&from.scope, 3);
        let ty = self.type_of(&from.scope);
        let group = self.leaf_column(&from.scope, ty);
        let ty = self.type_of(&from.scope);
        let by = self.key(&from.scope, ty);
        let order = self.order(&[by], &items);
        let filter = self.filter(&from.scope);
        items.push(format!("row_number() OVER (PARTITION BY {group} ORDER BY {order})"));
        let inner = format!("SELECT {} FROM {}{filter}", list(&items), from.sql);
        let alias = self.name("x");
        let number = format!("{alias}.o{}", columns.len());
        let kept = (0..columns.len()).map(|index| format!("{alias}.o{index}")).collect::<Vec<_>>();
        let bound = self.choices.pick(&["<= 1", "<= 2", "< 4", "= 2", "= 1"]);
        let sql =
            format!("SELECT {} FROM ({inner}) AS {alias} WHERE {number} {bound}", list(&kept));
        Body { sql, columns }
    }

    pub(super) fn set_operation(&mut self) -> Body {
        let types: Vec<Ty> = (0..1 + self.choices.below(3))
            .map(|_| self.choices.pick(&super::scalar::TYPES))
            .collect();
        let mut sql = self.of_types(&types);
        for _ in 0..1 + self.choices.below(2) {
            let operator = self.choices.pick(&[
                "UNION ALL",
                "UNION",
                "INTERSECT",
                "EXCEPT",
                "INTERSECT ALL",
                "EXCEPT ALL",
            ]);
            self.note(operator);
            sql = format!("({sql}) {operator} ({})", self.of_types(&types));
        }
        Body { sql, columns: types.into_iter().map(Output::exact).collect() }
    }

    /// A SELECT of columns of these types.
    fn of_types(&mut self, types: &[Ty]) -> String {
        let from = if self.choices.one_in(4) { self.from() } else { self.relation() };
        let items: Vec<String> = types.iter().map(|ty| self.expr(&from.scope, *ty, 1)).collect();
        let filter = self.filter(&from.scope);
        format!("SELECT {} FROM {}{filter}", list(&items), from.sql)
    }

    pub(super) fn with_cte(&mut self) -> Body {
        self.note("WITH");
        let Some(body) = self.inner_body() else { return self.plain() };
        let name = self.name("cte");
        let scope: Vec<Vec<Col>> = ["p", "q"]
            .iter()
            .map(|alias| {
                let columns = body.columns.iter().enumerate();
                let columns = columns.filter(|(_, column)| column.plain);
                let column = |(index, column): (usize, &Output)| Col {
                    sql: format!("{alias}.o{index}"),
                    ty: column.ty,
                };
                columns.map(column).collect()
            })
            .collect();
        let both: Vec<Col> = scope.concat();
        let (from, scope) = match self.choices.below(2) {
            0 => (format!("{name} AS p"), scope[0].clone()),
            _ => {
                let on = self.equality(&scope[0], &scope[1]).unwrap_or_else(|| "1 = 1".into());
                (format!("{name} AS p JOIN {name} AS q ON {on}"), both)
            }
        };
        let (items, columns) = self.items(&scope, 3);
        let sql = format!("WITH {name} AS ({}) SELECT {} FROM {from}", body.sql, list(&items));
        Body { sql, columns }
    }
}
