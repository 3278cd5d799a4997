//! The plan: a view as a graph of operators, and the checks that it hangs together.
//!
//! Owns: the IR that `evert-sql` emits and [`Dataflow`](crate::Dataflow) runs.
//! Not here: SQL text, optimisation, execution.

use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::window::WindowExpr;
use thiserror::Error;

use crate::recursion::OTHERS_MAX;
use crate::unnest::element_type;

pub(crate) use aggregate::SUM_PRECISION;
pub use aggregate::{Aggregate, AggregateFunction, GeneralAggregate, Spread};

mod aggregate;

/// Index of a node in its plan. A node's inputs come before it.
pub type NodeId = usize;

/// A view as a graph of operators.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The operators; each names earlier ones as its inputs.
    pub nodes: Vec<Node>,
    /// The node whose output is the view.
    pub output: NodeId,
    /// The output's columns that identify a row, if any: GROUP BY's keys.
    pub key: Option<Vec<usize>>,
}

/// A column as an expression, for plans that are made by hand.
pub fn column(name: &str, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(datafusion_physical_expr::expressions::Column::new(name, index))
}

/// One operator.
#[derive(Clone, Debug)]
pub enum Node {
    /// Deltas from outside: the `index`-th input of [`Dataflow::tick`](crate::Dataflow::tick).
    Input {
        /// Which of the tick's inputs.
        index: usize,
        /// What its rows look like.
        schema: SchemaRef,
    },
    /// WHERE, then SELECT. A row whose evaluation fails becomes a
    /// [`RowError`](crate::RowError) and is left out.
    FilterProject {
        /// Where the rows come from.
        input: NodeId,
        /// Rows for which it is false or NULL are dropped.
        predicate: Option<Arc<dyn PhysicalExpr>>,
        /// Over the input's columns.
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        /// The output; results of another physical type are cast to it.
        schema: SchemaRef,
    },
    /// A join on equal keys and a condition. No keys: every pair is tried.
    Join {
        /// The left input.
        left: NodeId,
        /// The right input.
        right: NodeId,
        /// Which rows it gives, and of which columns.
        kind: JoinKind,
        /// Pairs of (left column, right column) that must be equal.
        on: Vec<(usize, usize)>,
        /// Whether a NULL key equals a NULL key (IS NOT DISTINCT FROM); otherwise it matches
        /// nothing.
        null_equal: bool,
        /// Over the left's columns, then the right's. A pair for which it is false or NULL is no
        /// match; one for which it fails is no match either, and a
        /// [`RowError`](crate::RowError).
        filter: Option<Arc<dyn PhysicalExpr>>,
        /// The output.
        schema: SchemaRef,
    },
    /// GROUP BY. Output: keys, then aggregates. With no keys there is exactly one row, always
    /// (also over no input). A group one of whose aggregates does not fit its type is a
    /// [`RowError`](crate::RowError) for as long as it does not, and has no row meanwhile.
    Reduce {
        /// Where the rows come from.
        input: NodeId,
        /// The input's columns to group by.
        keys: Vec<usize>,
        /// What to compute for each group.
        aggregates: Vec<Aggregate>,
        /// The output.
        schema: SchemaRef,
    },
    /// SELECT DISTINCT. -0.0 and 0.0 are one value, and so are all NaNs.
    Distinct {
        /// Where the rows come from.
        input: NodeId,
    },
    /// UNION ALL.
    Union {
        /// Where the rows come from, column by column in the same order.
        inputs: Vec<NodeId>,
        /// The output; columns of another physical type are cast to it.
        schema: SchemaRef,
    },
    /// INTERSECT and EXCEPT, by whole rows; NULL equals NULL.
    SetOp {
        /// The left input.
        left: NodeId,
        /// The right input, of the same types.
        right: NodeId,
        /// Which.
        op: SetOp,
        /// ALL: multiplicities count (the lesser, or the difference); otherwise each row once.
        all: bool,
    },
    /// The first rows of each group in an order: ORDER BY ... LIMIT, DISTINCT ON. Ties break by
    /// whole-row bytes. Output: the input's columns.
    TopK {
        /// Where the rows come from.
        input: NodeId,
        /// The input's columns to group by; none: one group of all rows.
        keys: Vec<usize>,
        /// The order in a group.
        order: Vec<SortKey>,
        /// Rows of each group left out at the front.
        skip: usize,
        /// Rows of each group given after those; `None`: all.
        limit: Option<usize>,
    },
    /// Window functions over partitions. Ties in the order break by whole-row bytes. Output: the
    /// input's columns, then one for each function.
    Window {
        /// Where the rows come from.
        input: NodeId,
        /// The input's columns to partition by.
        partition: Vec<usize>,
        /// The order in a partition.
        order: Vec<SortKey>,
        /// Over the input's columns; each has this partition and order.
        functions: Vec<Arc<dyn WindowExpr>>,
        /// The output.
        schema: SchemaRef,
    },
    /// A row for each element of lists: the elements side by side, the shorter list padded with
    /// NULL. Output: the input's columns, the list columns replaced by their elements.
    Unnest {
        /// Where the rows come from.
        input: NodeId,
        /// The list columns.
        columns: Vec<usize>,
        /// Whether a row all of whose lists are empty or NULL stays, with NULL elements.
        keep_empty: bool,
        /// The output.
        schema: SchemaRef,
    },
    /// Rows that are there while log time is in their interval: `from <= time < until`. Output:
    /// the input's columns.
    TemporalFilter {
        /// Where the rows come from.
        input: NodeId,
        /// Over the input's columns: microseconds since the epoch (Int64 or a timestamp in
        /// microseconds). `None`: from ever. A row for which it is NULL is never there; the
        /// greatest moment there is does not come.
        from: Option<Arc<dyn PhysicalExpr>>,
        /// As `from`; the first moment at which the row is gone. `None`: for ever.
        until: Option<Arc<dyn PhysicalExpr>>,
    },
    /// Session windows: rows of a key whose times lie closer than `gap` share one. Output: the
    /// input's columns, then the session's start (its first time) and end (its last time plus
    /// the gap), as the time column's type. A row whose time is NULL is left out.
    Session {
        /// Where the rows come from.
        input: NodeId,
        /// The input's columns that sessions are apart by.
        keys: Vec<usize>,
        /// The input's timestamp column, in microseconds.
        time: usize,
        /// Microseconds, above zero.
        gap: i64,
        /// The output.
        schema: SchemaRef,
    },
    /// WITH RECURSIVE: the least set of rows that holds the base and all that `step` derives from
    /// it. Evaluated to its fixpoint within a tick.
    Recursive {
        /// The rows to begin with.
        base: NodeId,
        /// What else the step reads: its inputs 1, 2, ...
        others: Vec<NodeId>,
        /// Derives rows from the rows of the last round (its input 0).
        step: Box<Plan>,
        /// UNION: each row once, ever. Otherwise UNION ALL.
        distinct: bool,
        /// Rounds in one tick after which the view fails, with this bound in the error.
        rounds_max: usize,
    },
}

/// Which rows a join gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// Matching pairs: left columns, then right columns.
    Inner,
    /// And left rows without a match, with NULLs on the right.
    Left,
    /// And right rows without a match, with NULLs on the left.
    Right,
    /// And both.
    Full,
    /// Left rows with a match, left columns only: EXISTS, IN.
    Semi,
    /// Left rows without a match, left columns only: NOT EXISTS.
    Anti,
    /// NOT IN: left rows for which it is true. Of the right rows that pass `filter` together with
    /// the left row, none may have an equal key or a NULL key; a left row with a NULL key is given
    /// only if no right row passes at all. Exactly one pair in `on`, not `null_equal`; left
    /// columns only.
    NullAwareAnti,
    /// Left columns, then a boolean: whether the row has a match. EXISTS or IN within an
    /// expression.
    Mark,
}

/// A set operation other than UNION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetOp {
    /// Rows of both sides.
    Intersect,
    /// Rows of the left side that are not on the right.
    Except,
}

/// One column of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SortKey {
    /// The input's column.
    pub column: usize,
    /// Greatest first.
    pub descending: bool,
    /// NULLs come before everything else.
    pub nulls_first: bool,
}

/// Why a plan cannot run.
#[derive(Debug, Error)]
pub enum FoldError {
    /// The plan contradicts itself or asks for what no operator does.
    #[error("the plan is not valid: {0}")]
    InvalidPlan(String),
}

impl Plan {
    /// The schema of what the plan puts out.
    ///
    /// # Errors
    /// If the plan is not valid.
    pub fn output_schema(&self) -> Result<SchemaRef, FoldError> {
        let schemas = self.schemas()?;
        schemas
            .get(self.output)
            .cloned()
            .ok_or_else(|| FoldError::InvalidPlan(format!("there is no node {}", self.output)))
    }

    /// Every node's output schema, after checking the plan.
    pub(crate) fn schemas(&self) -> Result<Vec<SchemaRef>, FoldError> {
        let mut schemas: Vec<SchemaRef> = Vec::with_capacity(self.nodes.len());
        for (id, node) in self.nodes.iter().enumerate() {
            let schema = node
                .check(&schemas)
                .map_err(|what| FoldError::InvalidPlan(format!("node {id}: {what}")))?;
            schemas.push(schema);
        }
        let Some(output) = schemas.get(self.output) else {
            return Err(FoldError::InvalidPlan(format!("there is no node {}", self.output)));
        };
        for &column in self.key.iter().flatten() {
            in_range(output, column).map_err(FoldError::InvalidPlan)?;
        }
        Ok(schemas)
    }
}

impl Node {
    /// The nodes that this one reads.
    pub fn inputs(&self) -> Vec<NodeId> {
        match self {
            Self::Input { .. } => Vec::new(),
            Self::FilterProject { input, .. }
            | Self::Reduce { input, .. }
            | Self::Distinct { input }
            | Self::TopK { input, .. }
            | Self::Window { input, .. }
            | Self::Unnest { input, .. }
            | Self::TemporalFilter { input, .. }
            | Self::Session { input, .. } => vec![*input],
            Self::Join { left, right, .. } | Self::SetOp { left, right, .. } => {
                vec![*left, *right]
            }
            Self::Union { inputs, .. } => inputs.clone(),
            Self::Recursive { base, others, .. } => {
                std::iter::once(*base).chain(others.iter().copied()).collect()
            }
        }
    }

    /// The output schema, if the node fits those before it.
    fn check(&self, before: &[SchemaRef]) -> Result<SchemaRef, String> {
        for input in self.inputs() {
            if input >= before.len() {
                return Err(format!("its input {input} does not come before it"));
            }
        }
        match self {
            Self::Input { schema, .. } => Ok(Arc::clone(schema)),
            Self::FilterProject { exprs, schema, .. } => {
                if exprs.len() != schema.fields().len() {
                    return Err(format!(
                        "{} expressions for {} columns",
                        exprs.len(),
                        schema.fields().len()
                    ));
                }
                Ok(Arc::clone(schema))
            }
            Self::Join { left, right, kind, on, null_equal, schema, .. } => {
                if *null_equal && *kind == JoinKind::NullAwareAnti {
                    return Err("NOT IN never takes NULL for equal to NULL".to_owned());
                }
                check_join(&before[*left], &before[*right], *kind, on, schema)?;
                Ok(Arc::clone(schema))
            }
            Self::Reduce { input, keys, aggregates, schema } => {
                check_reduce(&before[*input], keys, aggregates, schema)?;
                Ok(Arc::clone(schema))
            }
            Self::Distinct { input } | Self::TemporalFilter { input, .. } => {
                Ok(Arc::clone(&before[*input]))
            }
            Self::SetOp { left, right, .. } => {
                let right = before[*right].fields().iter().map(|field| field.data_type());
                same_types(right, &before[*left])?;
                Ok(Arc::clone(&before[*left]))
            }
            Self::TopK { input, keys, order, .. } => {
                let input = &before[*input];
                check_columns(input, keys.iter().chain(order.iter().map(|key| &key.column)))?;
                Ok(Arc::clone(input))
            }
            Self::Window { input, partition, order, functions, schema } => {
                let input = &before[*input];
                check_columns(input, partition.iter().chain(order.iter().map(|key| &key.column)))?;
                if input.fields().len() + functions.len() != schema.fields().len() {
                    return Err("it has another number of columns than its schema".to_owned());
                }
                Ok(Arc::clone(schema))
            }
            Self::Unnest { input, columns, schema, .. } => {
                check_unnest(&before[*input], columns, schema)?;
                Ok(Arc::clone(schema))
            }
            Self::Session { input, keys, time, gap, schema } => {
                check_columns(&before[*input], keys.iter().chain([time]))?;
                if *gap <= 0 {
                    return Err(format!("a session's gap of {gap} microseconds"));
                }
                Ok(Arc::clone(schema))
            }
            Self::Recursive { base, others, step, .. } => {
                let base = &before[*base];
                check_step(step, base, &others.iter().map(|&o| &before[o]).collect::<Vec<_>>())?;
                let step = step.output_schema().map_err(|error| error.to_string())?;
                same_types(step.fields().iter().map(|field| field.data_type()), base)?;
                Ok(Arc::clone(base))
            }
            Self::Union { inputs, schema } => {
                for &input in inputs {
                    if before[input].fields().len() != schema.fields().len() {
                        return Err(format!("input {input} has another number of columns"));
                    }
                }
                Ok(Arc::clone(schema))
            }
        }
    }
}

fn check_join(
    left: &Schema,
    right: &Schema,
    kind: JoinKind,
    on: &[(usize, usize)],
    schema: &Schema,
) -> Result<(), String> {
    for &(l, r) in on {
        in_range(left, l)?;
        in_range(right, r)?;
        let (l, r) = (left.field(l).data_type(), right.field(r).data_type());
        if l != r {
            return Err(format!("a join key is {l} on the left and {r} on the right"));
        }
    }
    let left = left.fields().iter().map(|field| field.data_type());
    let right = right.fields().iter().map(|field| field.data_type());
    match kind {
        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {
            same_types(left.chain(right), schema)
        }
        JoinKind::Semi | JoinKind::Anti => same_types(left, schema),
        JoinKind::NullAwareAnti if on.len() != 1 => {
            Err(format!("NOT IN compares one column, not {}", on.len()))
        }
        JoinKind::NullAwareAnti => same_types(left, schema),
        JoinKind::Mark => same_types(left.chain([&DataType::Boolean]), schema),
    }
}

/// Whether a recursion's step reads what it is given.
fn check_step(step: &Plan, base: &SchemaRef, others: &[&SchemaRef]) -> Result<(), String> {
    if others.len() > OTHERS_MAX {
        return Err(format!("a step reads at most {OTHERS_MAX} inputs, not {}", others.len()));
    }
    for node in &step.nodes {
        let Node::Input { index, schema } = node else { continue };
        let given = match index {
            0 => base,
            n => others.get(n - 1).ok_or_else(|| format!("the step has no input {n}"))?,
        };
        same_types(given.fields().iter().map(|field| field.data_type()), schema)
            .map_err(|why| format!("input {index} of the step: {why}"))?;
    }
    Ok(())
}

fn check_unnest(input: &Schema, columns: &[usize], schema: &Schema) -> Result<(), String> {
    check_columns(input, columns)?;
    if input.fields().len() != schema.fields().len() {
        return Err("it has another number of columns than its input".to_owned());
    }
    for (i, (from, to)) in input.fields().iter().zip(schema.fields()).enumerate() {
        let (from, to) = (from.data_type(), to.data_type());
        if !columns.contains(&i) {
            if from != to {
                return Err(format!("column {i} is {from}, and its schema says {to}"));
            }
            continue;
        }
        let element = element_type(from).ok_or_else(|| format!("column {i} is no list: {from}"))?;
        if element != to && !can_cast_types(element, to) {
            return Err(format!("an element of column {i} is {element}, and no {to}"));
        }
    }
    Ok(())
}

fn check_columns<'a>(
    schema: &Schema,
    columns: impl IntoIterator<Item = &'a usize>,
) -> Result<(), String> {
    columns.into_iter().try_for_each(|&column| in_range(schema, column))
}

fn check_reduce(
    input: &Schema,
    keys: &[usize],
    aggregates: &[Aggregate],
    schema: &Schema,
) -> Result<(), String> {
    let mut types = Vec::new();
    for &key in keys {
        in_range(input, key)?;
        types.push(input.field(key).data_type().clone());
    }
    for aggregate in aggregates {
        if let Some(argument) = aggregate.argument {
            in_range(input, argument)?;
        }
        if let Some(filter) = aggregate.filter {
            in_range(input, filter)?;
            if input.field(filter).data_type() != &DataType::Boolean {
                return Err(format!("FILTER's column {filter} is not boolean"));
            }
        }
        if let AggregateFunction::General(general) = &aggregate.function {
            general.check(input)?;
        }
        let argument = aggregate.argument.map(|column| input.field(column).data_type());
        types.push(aggregate.function.output_type(argument).map_err(|error| error.to_string())?);
    }
    same_types(types.iter(), schema)
}

fn in_range(schema: &Schema, column: usize) -> Result<(), String> {
    if column < schema.fields().len() {
        return Ok(());
    }
    Err(format!("there is no column {column} among {}", schema.fields().len()))
}

fn same_types<'a>(
    types: impl Iterator<Item = &'a DataType>,
    schema: &Schema,
) -> Result<(), String> {
    let types: Vec<_> = types.collect();
    let declared: Vec<_> = schema.fields().iter().map(|field| field.data_type()).collect();
    if types == declared {
        return Ok(());
    }
    Err(format!("it gives {types:?} where its schema says {declared:?}"))
}
