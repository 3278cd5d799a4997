//! What stands at the top only: recursion, unnest, log time, rows that cannot be evaluated.

use super::select::list;
use super::{Body, Col, Grammar, NOW, Output, either};
use crate::world::Ty;

impl Grammar<'_> {
    /// Reachability and bounded walks over the pairs of two integer columns.
    pub(super) fn recursive(&mut self) -> Body {
        self.note("WITH RECURSIVE");
        let (base, edges) = (self.relation(), self.relation());
        let start = self.leaf_column(&base.scope, Ty::Int);
        let filter = self.filter(&base.scope);
        let from = self.leaf_column(&edges.scope, Ty::Int);
        let to = match self.column(&edges.scope, Ty::Big) {
            Some(id) if !self.world.extreme => format!("({id} % 7)::int"),
            _ => format!("(length({}) % 5)", self.leaf_column(&edges.scope, Ty::Text)),
        };
        let name = self.name("reach");
        let bounded = self.choices.below(2) == 1;
        let (seed, step) = if bounded {
            (
                format!("SELECT {start} AS o0, 0 AS o1 FROM {}{filter}", base.sql),
                format!(
                    "SELECT {to}, r.o1 + 1 FROM {name} AS r JOIN {} ON {from} = r.o0 \
                     WHERE r.o1 < 3",
                    edges.sql
                ),
            )
        } else {
            (
                format!("SELECT {start} AS o0 FROM {}{filter}", base.sql),
                format!("SELECT {to} FROM {name} AS r JOIN {} ON {from} = r.o0", edges.sql),
            )
        };
        let columns = vec![Output::exact(Ty::Int); if bounded { 2 } else { 1 }];
        let names = if bounded { "o0, o1" } else { "o0" };
        let (sql, columns) = match self.choices.below(3) {
            0 => (format!("SELECT {} FROM {name}", names), columns),
            1 => (
                format!("SELECT o0, count(*) AS o1 FROM {name} GROUP BY o0"),
                vec![Output::exact(Ty::Int), Output::exact(Ty::Big)],
            ),
            _ => {
                let other = self.relation();
                let a = self.leaf_column(&other.scope, Ty::Int);
                let sql =
                    format!("SELECT {a} AS o0 FROM {} JOIN {name} ON {name}.o0 = {a}", other.sql);
                (sql, vec![Output::exact(Ty::Int)])
            }
        };
        Body { sql: format!("WITH RECURSIVE {name} AS ({seed} UNION {step}) {sql}"), columns }
    }

    pub(super) fn unnest(&mut self) -> Body {
        self.note("unnest");
        let from = self.relation();
        let (mut items, mut columns) = self.items(&from.scope, 2);
        let filter = self.filter(&from.scope);
        let element = match self.choices.below(3) {
            0 => {
                let (x, y) = (self.leaf(&from.scope, Ty::Int), self.leaf(&from.scope, Ty::Int));
                columns.push(Output::exact(Ty::Int));
                format!("unnest(ARRAY[{x}, {y}])")
            }
            1 => {
                columns.push(Output::exact(Ty::Text));
                format!("unnest(string_to_array({}, ','))", self.leaf(&from.scope, Ty::Text))
            }
            _ => {
                columns.push(Output::exact(Ty::Text));
                match self.column(&from.scope, Ty::Json) {
                    Some(json) => format!("json_array_elements_text({json} -> 'l')"),
                    None => {
                        format!("unnest(ARRAY[{}, 'z'])", self.leaf(&from.scope, Ty::Text))
                    }
                }
            }
        };
        items.push(element);
        let mut sql = format!("SELECT {} FROM {}{filter}", list(&items), from.sql);
        if self.choices.one_in(3) {
            let last = columns.pop().expect("the element");
            sql = format!(
                "SELECT o{0} AS o0, count(*) AS o1 FROM ({sql}) AS e GROUP BY o{0}",
                columns.len()
            );
            columns = vec![last, Output::exact(Ty::Big)];
        }
        Body { sql, columns }
    }

    /// Rows by the log's time.
    pub(super) fn temporal(&mut self) -> Body {
        let from = self.relation();
        let Some(at) = self.column(&from.scope, Ty::Timestamp) else { return self.body() };
        self.note("now()");
        let now = either("now()", &format!("TIMESTAMP '{NOW}'"));
        let today = either("current_date", &format!("DATE(TIMESTAMP '{NOW}')"));
        let conditions = [
            format!("{at} > {now} - INTERVAL '6 hours'"),
            format!("{at} <= {now}"),
            format!("{at}::date = {today}"),
            format!("{at} >= {now} - INTERVAL '1 day' AND {at} < {now}"),
            format!("{at} + INTERVAL '2 hours' > {now}"),
            format!("{at} BETWEEN {now} - INTERVAL '3 hours' AND {now} + INTERVAL '3 hours'"),
            format!("date_trunc('day', {at}) = date_trunc('day', {now})"),
        ];
        let mut condition = self.choices.pick(&conditions);
        if self.choices.one_in(3) {
            condition = format!("{condition} AND {}", self.comparison(&from.scope, 1));
        }
        let ty = self.type_of(&from.scope);
        let key = self.leaf_column(&from.scope, ty);
        let (items, columns, group) = match self.choices.below(2) {
            0 => {
                let (items, columns) = self.items(&from.scope, 3);
                (items, columns, String::new())
            }
            _ => (
                vec![key, "count(*)".to_owned()],
                vec![Output::exact(ty), Output::exact(Ty::Big)],
                " GROUP BY 1".to_owned(),
            ),
        };
        let sql = format!("SELECT {} FROM {} WHERE {condition}{group}", list(&items), from.sql);
        Body { sql, columns }
    }

    /// Rows some of which cannot be evaluated: the view leaves them out, and in Postgres a
    /// condition does.
    pub(super) fn poisoned(&mut self) -> Body {
        self.note("rows in error");
        self.poisoned = true;
        let from = if self.choices.one_in(3) { self.from() } else { self.relation() };
        let scope = &from.scope;
        // A column of a subquery may be wider in Evert, where bare constants are bigint.
        let (x, y) = (self.leaf(scope, Ty::Int), self.leaf_column(scope, Ty::Int));
        let (x, y) = (format!("({x})::int"), format!("({y})::int"));
        let s = self.leaf_column(scope, Ty::Text);
        let (value, fits, ty) = match self.choices.below(5) {
            0 => (format!("{x} / {y}"), format!("({y}) <> 0 OR ({x}) IS NULL"), Ty::Int),
            1 => (format!("{x} % {y}"), format!("({y}) <> 0 OR ({x}) IS NULL"), Ty::Int),
            2 => {
                let sum = format!("({x})::bigint + ({y})::bigint");
                let fits = format!("{sum} BETWEEN -2147483648 AND 2147483647");
                (format!("{x} + {y}"), fits, Ty::Int)
            }
            3 => {
                let product = format!("({x})::bigint * 1000000000");
                let fits = format!("{product} BETWEEN -2147483648 AND 2147483647");
                // A bare constant is a bigint in Evert.
                (format!("{x} * 1000000000::int"), fits, Ty::Int)
            }
            _ => (format!("({s})::int"), format!("{s} ~ '^[0-9]+$'"), Ty::Int),
        };
        // Where the condition is NULL the value is NULL too, and no error.
        let fits = format!("({fits}) IS NOT FALSE");
        let guarded = either(&value, &format!("CASE WHEN {fits} THEN {value} END"));
        let (mut items, mut columns) = self.items(scope, 2);
        let condition = self.comparison(scope, 1);
        match self.choices.below(3) {
            // The value is shown.
            0 => {
                items.push(guarded);
                columns.push(Output::exact(ty));
                let filter = either(
                    &format!(" WHERE {condition}"),
                    &format!(" WHERE ({condition}) AND {fits}"),
                );
                let sql = format!("SELECT {} FROM {}{filter}", list(&items), from.sql);
                Body { sql, columns }
            }
            // It decides whether the row is there.
            1 => {
                let filter = either(
                    &format!(" WHERE {value} > 0"),
                    &format!(" WHERE {guarded} > 0 AND {fits}"),
                );
                let sql = format!("SELECT {} FROM {}{filter}", list(&items), from.sql);
                Body { sql, columns }
            }
            // It is summed up.
            _ => {
                let filter = either("", &format!(" WHERE {fits}"));
                let key = self.group_key(scope);
                let sql = format!(
                    "SELECT {key} AS o0, count({guarded}) AS o1, max({guarded}) AS o2 \
                     FROM {}{filter} GROUP BY {key}",
                    from.sql
                );
                let columns =
                    vec![Output::exact(Ty::Text), Output::exact(Ty::Big), Output::exact(ty)];
                Body { sql, columns }
            }
        }
    }

    fn group_key(&mut self, scope: &[Col]) -> String {
        self.leaf_column(scope, Ty::Text)
    }
}
