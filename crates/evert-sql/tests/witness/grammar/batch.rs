//! What Postgres lacks and DataFusion has: its batch answer judges these.
//!
//! Only what the two mean alike is drawn: columns of types that compare alike, no arithmetic.

use super::select::list;
use super::{Body, Col, Grammar, Output};
use crate::world::Ty;

/// Types that compare alike in the fold and in stock DataFusion.
const ALIKE: [Ty; 6] = [Ty::Int, Ty::Big, Ty::Text, Ty::Bool, Ty::Date, Ty::Timestamp];

impl Grammar<'_> {
    pub(super) fn batch_only(&mut self) -> Body {
        // Stock DataFusion's arithmetic wraps around.
        if self.world.extreme {
            return self.body();
        }
        self.batch = true;
        let left = self.alike();
        match self.choices.below(5) {
            0 => self.semi_join(left),
            1 => self.full_join_on_anything(left),
            2 => self.qualify(left),
            3 => self.group_by_all(left),
            _ => self.ordered_aggregate(left),
        }
    }

    fn alike(&mut self) -> super::from::From {
        let mut from = self.relation();
        from.scope.retain(|col| ALIKE.contains(&col.ty));
        from
    }

    fn any_column(&mut self, scope: &[Col]) -> Col {
        self.choices.pick(scope)
    }

    fn columns(&mut self, scope: &[Col], most: usize) -> (Vec<String>, Vec<Output>) {
        let count = 1 + self.choices.below(most);
        let columns: Vec<Col> = (0..count).map(|_| self.any_column(scope)).collect();
        columns.into_iter().map(|col| (col.sql, Output::exact(col.ty))).unzip()
    }

    /// A condition over two sides that is no equality.
    fn unequal(&mut self, left: &[Col], right: &[Col]) -> String {
        let operator = self.choices.pick(&["<", "<>", ">="]);
        let x = self.column(left, Ty::Int).expect("relations have one");
        let y = self.column(right, Ty::Int).expect("relations have one");
        format!("{x} {operator} {y}")
    }

    fn semi_join(&mut self, left: super::from::From) -> Body {
        self.note("SEMI, ANTI JOIN");
        let right = self.alike();
        let kind = self.choices.pick(&["LEFT SEMI", "LEFT ANTI"]);
        let on = match self.choices.below(2) {
            0 => self.equality(&left.scope, &right.scope).unwrap_or_else(|| "true".into()),
            _ => self.unequal(&left.scope, &right.scope),
        };
        let (items, columns) = self.columns(&left.scope, 3);
        let sql =
            format!("SELECT {} FROM {} {kind} JOIN {} ON {on}", list(&items), left.sql, right.sql);
        Body { sql, columns }
    }

    fn full_join_on_anything(&mut self, left: super::from::From) -> Body {
        self.note("FULL JOIN on inequality");
        let right = self.alike();
        let mut on = self.unequal(&left.scope, &right.scope);
        if self.choices.below(2) == 0
            && let Some(equal) = self.equality(&left.scope, &right.scope)
        {
            on = format!("{equal} AND {on}");
        }
        let both = [left.scope, right.scope].concat();
        let (items, columns) = self.columns(&both, 4);
        let sql =
            format!("SELECT {} FROM {} FULL JOIN {} ON {on}", list(&items), left.sql, right.sql);
        Body { sql, columns }
    }

    /// Every column in an order, so that no two different rows tie.
    fn total_order(&mut self, scope: &[Col]) -> String {
        let first = self.any_column(scope).sql;
        let direction = self.choices.pick(&["", " DESC", " NULLS FIRST"]);
        let rest = scope.iter().map(|col| col.sql.as_str()).filter(|col| *col != first);
        let keys: Vec<&str> = rest.collect();
        format!("{first}{direction}, {}", keys.join(", "))
    }

    fn qualify(&mut self, from: super::from::From) -> Body {
        self.note("QUALIFY");
        let (items, columns) = self.columns(&from.scope, 3);
        let key = self.any_column(&from.scope).sql;
        let order = self.total_order(&from.scope);
        let bound = self.choices.pick(&["= 1", "<= 2"]);
        let sql = format!(
            "SELECT {} FROM {} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) \
             {bound}",
            list(&items),
            from.sql
        );
        Body { sql, columns }
    }

    fn group_by_all(&mut self, from: super::from::From) -> Body {
        self.note("GROUP BY ALL");
        let (mut items, mut columns) = self.columns(&from.scope, 2);
        items.push("count(*)".to_owned());
        columns.push(Output::exact(Ty::Big));
        Body { sql: format!("SELECT {} FROM {} GROUP BY ALL", list(&items), from.sql), columns }
    }

    /// Aggregates that the fold knows as DataFusion's only.
    fn ordered_aggregate(&mut self, from: super::from::From) -> Body {
        self.note("first_value, median");
        let key = self.any_column(&from.scope);
        let col = self.any_column(&from.scope);
        let order = self.total_order(&from.scope);
        let (call, output) = match self.choices.below(4) {
            0 => (format!("first_value({} ORDER BY {order})", col.sql), Output::exact(col.ty)),
            1 => (format!("last_value({} ORDER BY {order})", col.sql), Output::exact(col.ty)),
            2 => (format!("nth_value({}, 2 ORDER BY {order})", col.sql), Output::exact(col.ty)),
            _ => {
                let x = self.column(&from.scope, Ty::Int).expect("relations have one");
                (format!("median({x})"), Output::exact(Ty::Int))
            }
        };
        let sql = format!(
            "SELECT {}, count(*) AS o2 FROM {} GROUP BY {}",
            list(&[key.sql.clone(), call]),
            from.sql,
            key.sql
        );
        let columns = vec![Output::exact(key.ty), output, Output::exact(Ty::Big)];
        Body { sql, columns }
    }
}
