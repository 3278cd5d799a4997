//! The grammar: random SELECTs over a world's relations, in Evert's words and in Postgres's.
//!
//! Owns: which SELECTs there are. Texts that differ between the two are written once, with
//! [`either`]; everything else is the same for both.
//! Not here: what they should give.
//!
//! Invariants
//! - A SELECT has one answer: rows that an order does not tell apart are the same to the byte.
//! - Every choice of zero is the simplest, so that lists of choices shrink.

mod batch;
mod from;
mod group;
mod scalar;
mod select;
mod special;
mod subquery;
mod window;

use std::collections::BTreeSet;

use crate::choices::Choices;
use crate::world::{Ty, World};

/// A SELECT.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) ours: String,
    pub(crate) theirs: String,
    /// Which output columns are rounded differently by the two, so that they are compared as
    /// floats to nine digits.
    pub(crate) rounded: Vec<bool>,
    /// The constructs in it.
    pub(crate) constructs: BTreeSet<&'static str>,
    /// Whether some rows cannot be evaluated, which Postgres's text leaves out.
    pub(crate) poisoned: bool,
    /// Whether Postgres lacks it, so that DataFusion's batch answer judges it.
    pub(crate) batch: bool,
}

/// Stands for the log's time in Postgres's text.
pub(crate) const NOW: &str = "{now}";

/// A text for each database.
fn either(ours: &str, theirs: &str) -> String {
    format!("\u{1}{ours}\u{2}{theirs}\u{3}")
}

/// One side of a text with [`either`] in it, at any depth.
fn side(text: &str, ours: bool) -> String {
    let mut out = String::new();
    // For each `either` that is open: whether what comes is wanted.
    let mut wanted = vec![true];
    for c in text.chars() {
        match c {
            '\u{1}' => wanted.push(wanted[wanted.len() - 1] && ours),
            '\u{2}' => {
                wanted.pop();
                wanted.push(wanted[wanted.len() - 1] && !ours);
            }
            '\u{3}' => drop(wanted.pop()),
            c if wanted[wanted.len() - 1] => out.push(c),
            _ => {}
        }
    }
    out
}

/// A column that an expression may name.
#[derive(Clone, Debug)]
struct Col {
    sql: String,
    ty: Ty,
}

/// A SELECT's text and what it gives.
#[derive(Clone, Debug)]
struct Body {
    sql: String,
    columns: Vec<Output>,
}

/// One output column.
#[derive(Clone, Debug)]
struct Output {
    ty: Ty,
    /// The two databases round it differently.
    rounded: bool,
    /// It has this very type in both, so that more may be computed from it.
    plain: bool,
}

impl Output {
    fn exact(ty: Ty) -> Self {
        Self { ty, rounded: false, plain: true }
    }

    /// The same value of different types: Postgres sums int to bigint, Evert to numeric.
    fn wide(ty: Ty) -> Self {
        Self { ty, rounded: false, plain: false }
    }

    fn rounded() -> Self {
        Self { ty: Ty::Double, rounded: true, plain: false }
    }
}

struct Grammar<'a> {
    world: &'a World,
    choices: &'a mut Choices,
    constructs: BTreeSet<&'static str>,
    poisoned: bool,
    batch: bool,
    /// How many names have been given.
    names: usize,
    /// How many SELECTs may yet lie within.
    depth: usize,
}

/// A random SELECT over the world's relations.
pub(crate) fn query(world: &World, choices: &mut Choices) -> Query {
    let mut grammar = Grammar {
        world,
        choices,
        constructs: BTreeSet::new(),
        poisoned: false,
        batch: false,
        names: 0,
        depth: 2,
    };
    let body = grammar.top();
    Query {
        ours: side(&body.sql, true),
        theirs: side(&body.sql, false),
        rounded: body.columns.iter().map(|column| column.rounded).collect(),
        constructs: grammar.constructs,
        poisoned: grammar.poisoned,
        batch: grammar.batch,
    }
}

impl Grammar<'_> {
    fn note(&mut self, construct: &'static str) {
        self.constructs.insert(construct);
    }

    /// A name that no other has.
    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// What stands at the top of a view.
    fn top(&mut self) -> Body {
        match self.choices.weighted(&[
            (70, "any"),
            (8, "cte"),
            (6, "poisoned"),
            (5, "recursive"),
            (6, "unnest"),
            (5, "temporal"),
            (5, "time window"),
            (6, "batch"),
        ]) {
            "cte" => self.with_cte(),
            "poisoned" => self.poisoned(),
            "recursive" => self.recursive(),
            "unnest" => self.unnest(),
            "temporal" => self.temporal(),
            "time window" => self.time_window(),
            "batch" => self.batch_only(),
            _ => self.body(),
        }
    }

    /// A SELECT of any kind, which may also stand within another.
    fn body(&mut self) -> Body {
        match self.choices.weighted(&[
            (24, "plain"),
            (30, "group"),
            (6, "distinct"),
            (6, "distinct on"),
            (8, "top"),
            (5, "top by group"),
            (12, "window"),
            (9, "set"),
            (2, "cte"),
        ]) {
            "group" => self.group(),
            "distinct" => self.distinct(),
            "distinct on" => self.distinct_on(),
            "top" => self.top_rows(),
            "top by group" => self.top_rows_by_group(),
            "window" => self.window(),
            "set" => self.set_operation(),
            "cte" => self.with_cte(),
            _ => self.plain(),
        }
    }

    /// A SELECT within another, if there is depth left for it.
    fn inner_body(&mut self) -> Option<Body> {
        if self.depth == 0 {
            return None;
        }
        self.depth -= 1;
        let body = self.body();
        self.depth += 1;
        Some(body)
    }
}

#[test]
fn each_database_gets_its_side() {
    let inner = either("now()", NOW);
    let text = format!("a {} b {}", either(&format!("x {inner}"), &inner), either("", "y"));
    assert_eq!(side(&text, true), "a x now() b ");
    assert_eq!(side(&text, false), "a {now} b y");
}
