//! Window functions.

use super::select::list;
use super::{Body, Col, Grammar, Output, either};
use crate::world::Ty;

impl Grammar<'_> {
    pub(super) fn window(&mut self) -> Body {
        self.note("window");
        let mut from = self.from();
        // Documents have no order that would tell rows apart.
        from.scope.retain(|col| col.ty != Ty::Json);
        let (mut items, mut columns) = self.items(&from.scope, 3);
        for place in 0..1 + self.choices.below(2) {
            let (item, output) = self.window_function(&from.scope, place == 0);
            items.push(item);
            columns.push(output);
        }
        let filter = self.filter(&from.scope);
        Body { sql: format!("SELECT {} FROM {}{filter}", list(&items), from.sql), columns }
    }

    /// Only one function of a SELECT may tell equal rows apart: nothing says which of them gets
    /// which pair of numbers.
    fn window_function(&mut self, scope: &[Col], may_number: bool) -> (String, Output) {
        let partition = match self.choices.below(3) {
            0 => String::new(),
            _ => {
                let ty = self.type_of(scope);
                format!("PARTITION BY {} ", self.expr(scope, ty, 1))
            }
        };
        let ty = self.type_of(scope);
        let by = self.leaf_column(scope, ty);
        // Every column that has an order, so that no two different rows tie.
        let all: Vec<String> =
            scope.iter().filter(|col| col.ty != Ty::Json).map(|col| col.sql.clone()).collect();
        let total = format!("{partition}ORDER BY {}", self.order(std::slice::from_ref(&by), &all));
        let loose = format!("{partition}ORDER BY {}", self.order(&[by], &[]));
        let loosely = !may_number || self.choices.below(2) == 0;
        let kind =
            if may_number { self.choices.below(7) } else { self.choices.pick(&[1, 2, 5, 6]) };
        match kind {
            0 => {
                let function = self.choices.pick(&["row_number()", "ntile(3)"]);
                self.note("row_number, ntile");
                (format!("{function} OVER ({total})"), Output::exact(Ty::Big))
            }
            1 => {
                self.note("rank");
                let function = self.choices.pick(&["rank()", "dense_rank()"]);
                (format!("{function} OVER ({loose})"), Output::exact(Ty::Big))
            }
            2 => {
                let function = self.choices.pick(&["percent_rank()", "cume_dist()"]);
                self.note("percent_rank, cume_dist");
                (format!("{function} OVER ({loose})"), Output::rounded())
            }
            3 => self.offset_function(scope, &total),
            4 => {
                self.note("value of a frame");
                let ty = self.type_of(scope);
                let x = self.expr(scope, ty, 1);
                let calls = [
                    format!("first_value({x})"),
                    format!("last_value({x})"),
                    format!("nth_value({x}, 2)"),
                ];
                let call = self.choices.pick(&calls);
                let frame = self.frame();
                (format!("{call} OVER ({total}{frame})"), Output::exact(ty))
            }
            5 => {
                self.note("aggregate over a partition");
                let (call, output) = self.window_aggregate(scope);
                let partition = partition.trim_end();
                (format!("{call} OVER ({partition})"), output)
            }
            _ => {
                self.note("aggregate over a frame");
                let (call, output) = self.window_aggregate(scope);
                let over = match loosely {
                    true => format!("{loose}{}", self.frame_of_peers(ty)),
                    false => format!("{total}{}", self.frame()),
                };
                (format!("{call} OVER ({over})"), output)
            }
        }
    }

    fn offset_function(&mut self, scope: &[Col], over: &str) -> (String, Output) {
        if self.choices.one_in(4) {
            return self.without_nulls(scope, over);
        }
        self.note("lag, lead");
        let ty = self.type_of(scope);
        let x = self.expr(scope, ty, 1);
        let function = self.choices.pick(&["lag", "lead"]);
        let call = match self.choices.below(3) {
            0 => format!("{function}({x})"),
            1 => format!("{function}({x}, 2)"),
            _ => format!("{function}({x}, 1, {})", self.typed_literal(ty)),
        };
        (format!("{call} OVER ({over})"), Output::exact(ty))
    }

    /// What Postgres has to gather first.
    fn without_nulls(&mut self, scope: &[Col], over: &str) -> (String, Output) {
        self.note("IGNORE NULLS");
        let ty = self.type_of(scope);
        let x = self.leaf_column(scope, ty);
        let (call, frame, place) = self.choices.pick(&[
            ("lag({x})", "UNBOUNDED PRECEDING AND 1 PRECEDING", "cardinality(l)"),
            ("lead({x})", "1 FOLLOWING AND UNBOUNDED FOLLOWING", "1"),
            ("lag({x}, 2)", "UNBOUNDED PRECEDING AND 1 PRECEDING", "cardinality(l) - 1"),
            ("lead({x}, 2)", "1 FOLLOWING AND UNBOUNDED FOLLOWING", "2"),
            ("first_value({x})", "UNBOUNDED PRECEDING AND CURRENT ROW", "1"),
            ("last_value({x})", "UNBOUNDED PRECEDING AND CURRENT ROW", "cardinality(l)"),
        ]);
        let ours = format!("{} IGNORE NULLS OVER ({over})", call.replace("{x}", &x));
        let frame = format!("array_agg({x}) OVER ({over} ROWS BETWEEN {frame})");
        let list = format!("array_remove({frame}, NULL)");
        let place = place.replace("(l)", &format!("({list})"));
        (either(&ours, &format!("({list})[{place}]")), Output::exact(ty))
    }

    fn typed_literal(&mut self, ty: Ty) -> String {
        format!("{}::{}", self.literal(ty), ty.sql())
    }

    fn window_aggregate(&mut self, scope: &[Col]) -> (String, Output) {
        match self.choices.below(5) {
            0 => ("count(*)".to_owned(), Output::exact(Ty::Big)),
            1 => {
                let ty = self.number_type_of(scope);
                let x = self.expr(scope, ty, 1);
                (format!("sum({x})"), Output::wide(ty))
            }
            2 => {
                let ty = self.number_type_of(scope);
                let x = self.expr(scope, ty, 1);
                (format!("avg({x})"), Output::rounded())
            }
            3 => {
                let ty = self.type_of(scope);
                (format!("count({})", self.expr(scope, ty, 1)), Output::exact(Ty::Big))
            }
            _ => {
                let ty = self.type_of(scope);
                let ty = if ty == Ty::Bool { Ty::Int } else { ty };
                let x = self.expr(scope, ty, 1);
                (format!("{}({x})", self.choices.pick(&["max", "min"])), Output::exact(ty))
            }
        }
    }

    /// A frame that holds rows of an equal order together or not at all, or none.
    fn frame_of_peers(&mut self, ty: Ty) -> &'static str {
        match self.choices.below(4) {
            1 => {
                self.note("frame of GROUPS");
                self.choices.pick(&[
                    " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
                    " GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING",
                    " GROUPS BETWEEN CURRENT ROW AND 2 FOLLOWING",
                ])
            }
            // The greatest numbers have none that are greater by one.
            2 if matches!(ty, Ty::Int | Ty::Big | Ty::Numeric) && !self.world.extreme => {
                self.note("frame of a RANGE");
                self.choices.pick(&[
                    " RANGE BETWEEN 1 PRECEDING AND CURRENT ROW",
                    " RANGE BETWEEN 2 PRECEDING AND 1 FOLLOWING",
                    " RANGE BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING",
                ])
            }
            3 if matches!(ty, Ty::Timestamp) => {
                self.note("frame of a RANGE");
                " RANGE BETWEEN INTERVAL '1 day' PRECEDING AND INTERVAL '1 hour' FOLLOWING"
            }
            _ => "",
        }
    }

    /// A frame of rows, or none.
    fn frame(&mut self) -> &'static str {
        self.choices.pick(&[
            "",
            " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
            " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
            " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            " ROWS BETWEEN CURRENT ROW AND 2 FOLLOWING",
        ])
    }
}
