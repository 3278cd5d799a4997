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

    /// Rows in windows of time, which Postgres has to be told in its own words.
    pub(super) fn time_window(&mut self) -> Body {
        let tables = &self.world.tables;
        let table = tables[self.choices.below(tables.len())].clone();
        let mut times = table.columns.iter().filter(|(_, ty)| *ty == Ty::Timestamp);
        let Some((at, _)) = times.next_back() else { return self.body() };
        let (name, alias) = (table.name, self.name("x"));
        let (ours, theirs) = match self.choices.below(3) {
            0 => {
                self.note("TUMBLE");
                let size = self.choices.pick(&["6 hours", "1 day", "90 minutes"]);
                tumble(name, at, size)
            }
            1 => {
                self.note("HOP");
                let (slide, size) = self.choices.pick(&[
                    ("6 hours", "12 hours"),
                    ("1 day", "1 day"),
                    ("7 hours", "17 hours"),
                ]);
                hop(name, at, slide, size)
            }
            _ => {
                self.note("SESSION");
                let key = self.choices.pick(&["s", "a"]);
                let gap = self.choices.pick(&["6 hours", "1 hour", "2 days"]);
                session(name, at, key, gap)
            }
        };
        let from = either(&format!("{ours} AS {alias}"), &format!("({theirs}) AS {alias}"));
        let mut scope: Vec<Col> = table
            .columns
            .iter()
            .map(|(column, ty)| Col { sql: format!("{alias}.{column}"), ty: *ty })
            .collect();
        let window = ["window_start", "window_end"].map(|column| format!("{alias}.{column}"));
        let filter = match self.choices.below(3) {
            0 => format!(" WHERE {}", self.comparison(&scope, 1)),
            _ => String::new(),
        };
        if self.choices.below(2) == 0 {
            let mut items = window.to_vec();
            let ty = self.type_of(&scope);
            items.push(self.key(&scope, ty));
            let groups = items.join(", ");
            items.push("count(*)".to_owned());
            let columns = [Ty::Timestamp, Ty::Timestamp, ty, Ty::Big].map(Output::exact).to_vec();
            let sql = format!("SELECT {} FROM {from}{filter} GROUP BY {groups}", list(&items));
            return Body { sql, columns };
        }
        scope.extend(window.map(|sql| Col { sql, ty: Ty::Timestamp }));
        let (mut items, mut columns) = self.items(&scope, 3);
        items.push(format!("{alias}.window_end"));
        columns.push(Output::exact(Ty::Timestamp));
        Body { sql: format!("SELECT {} FROM {from}{filter}", list(&items)), columns }
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
        // A bare constant that is no number would end the planning.
        let s = match self.column(scope, Ty::Text) {
            Some(column) => column,
            None => format!("CASE WHEN {} IS NULL THEN 'a' ELSE '1' END", scope[0].sql),
        };
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

fn tumble(table: &str, at: &str, size: &str) -> (String, String) {
    let start = format!("date_bin('{size}', {at}, TIMESTAMP '1970-01-01')");
    (
        format!("TUMBLE(TABLE {table}, DESCRIPTOR({at}), INTERVAL '{size}')"),
        format!(
            "SELECT *, {start} AS window_start, {start} + INTERVAL '{size}' AS window_end \
             FROM {table} WHERE {at} IS NOT NULL"
        ),
    )
}

fn hop(table: &str, at: &str, slide: &str, size: &str) -> (String, String) {
    let last = format!("date_bin('{slide}', {at}, TIMESTAMP '1970-01-01')");
    (
        format!("HOP(TABLE {table}, DESCRIPTOR({at}), INTERVAL '{slide}', INTERVAL '{size}')"),
        format!(
            "SELECT {table}.*, bin AS window_start, bin + INTERVAL '{size}' AS window_end \
             FROM {table}, generate_series({last} - INTERVAL '{slide}' * 10, {last}, \
             INTERVAL '{slide}') AS bin \
             WHERE {at} IS NOT NULL AND bin > {at} - INTERVAL '{size}'"
        ),
    )
}

/// A session begins where the row before it is a gap away.
fn session(table: &str, at: &str, key: &str, gap: &str) -> (String, String) {
    let by_time = format!("(PARTITION BY {key} ORDER BY {at})");
    let of_session = format!("(PARTITION BY {key}, session_number)");
    (
        format!("SESSION(TABLE {table} PARTITION BY {key}, DESCRIPTOR({at}), INTERVAL '{gap}')"),
        format!(
            "SELECT *, min({at}) OVER {of_session} AS window_start, \
             max({at}) OVER {of_session} + INTERVAL '{gap}' AS window_end \
             FROM (SELECT *, count(*) FILTER (WHERE begins) OVER {by_time} AS session_number \
             FROM (SELECT *, {at} - lag({at}) OVER {by_time} >= INTERVAL '{gap}' AS begins \
             FROM {table} WHERE {at} IS NOT NULL) AS marked) AS numbered"
        ),
    )
}
