//! EXPLAIN of a view: its operators, which of them only ever add rows, and where state is kept.

use std::fmt::Write as _;

use evert_fold::{Aggregate, JoinKind, Node, NodeId, Plan, SetOp, SortKey};
use serde_json::{Value, json};

/// What an operator does with rows that are only ever added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// It only ever adds rows too.
    Monotone,
    /// It may take rows back.
    Retracts,
}

/// An operator as EXPLAIN shows it.
pub(crate) struct Operator {
    id: NodeId,
    inputs: Vec<NodeId>,
    name: String,
    detail: Vec<String>,
    growth: Growth,
    /// Whether its rows are only ever added to.
    append_only: bool,
    /// What it keeps.
    state: Option<&'static str>,
    /// Rows and bytes of what it keeps, of a view that runs.
    size: Option<(u64, u64)>,
}

/// The operators of a plan, the output's last. `inputs` are the names of its inputs and whether
/// they are append-only, `sizes` the rows and bytes of each node's state as far as known.
pub(crate) fn operators(
    plan: &Plan,
    inputs: &[(String, bool)],
    sizes: impl Fn(NodeId) -> Option<(u64, u64)>,
) -> Vec<Operator> {
    let mut operators: Vec<Operator> = Vec::with_capacity(plan.nodes.len());
    for (id, node) in plan.nodes.iter().enumerate() {
        let columns: Vec<Vec<String>> =
            node.inputs().iter().map(|input| columns_of(plan, *input)).collect();
        let growth = growth(node);
        let append_only = match node {
            Node::Input { index, .. } => inputs.get(*index).is_some_and(|(_, only)| *only),
            node => {
                let only = |input: &NodeId| operators[*input].append_only;
                growth == Growth::Monotone && node.inputs().iter().all(only)
            }
        };
        let name = match node {
            Node::Input { index, .. } => {
                format!("Input {}", inputs.get(*index).map_or("?", |(name, _)| name))
            }
            node => name(node),
        };
        operators.push(Operator {
            id,
            inputs: node.inputs(),
            name,
            detail: detail(node, &columns),
            growth,
            append_only,
            state: state(node),
            size: sizes(id),
        });
    }
    let mut used = vec![false; operators.len()];
    mark(&operators, plan.output, &mut used);
    operators.retain(|operator| used[operator.id]);
    operators
}

fn mark(operators: &[Operator], id: NodeId, used: &mut [bool]) {
    if !std::mem::replace(&mut used[id], true) {
        operators[id].inputs.iter().for_each(|input| mark(operators, *input, used));
    }
}

/// The operators as an indented tree, one that is read twice in full once.
pub(crate) fn as_text(operators: &[Operator], output: NodeId) -> Vec<String> {
    let mut lines = Vec::new();
    let mut shown = Vec::new();
    text_of(operators, output, 0, &mut shown, &mut lines);
    lines
}

fn text_of(
    operators: &[Operator],
    id: NodeId,
    depth: usize,
    shown: &mut Vec<NodeId>,
    lines: &mut Vec<String>,
) {
    let operator = operators.iter().find(|operator| operator.id == id);
    let operator = operator.expect("what an operator reads is there");
    let indent = "  ".repeat(depth);
    let arrow = if depth == 0 { "" } else { "-> " };
    if shown.contains(&id) {
        lines.push(format!("{indent}{arrow}{} (#{id}, above)", operator.name));
        return;
    }
    shown.push(id);
    let rows = if operator.append_only { "append-only" } else { "changing" };
    let growth = match operator.growth {
        Growth::Monotone => "monotone",
        Growth::Retracts => "not monotone",
    };
    lines.push(format!("{indent}{arrow}{}  (#{id}, {growth}, {rows})", operator.name));
    for detail in &operator.detail {
        lines.push(format!("{indent}     {detail}"));
    }
    if let Some(state) = operator.state {
        let mut line = format!("{indent}     State: {state}");
        if let Some((rows, bytes)) = operator.size {
            write!(line, "; {rows} rows, {bytes} bytes").expect("a String takes all");
        }
        lines.push(line);
    }
    for input in &operator.inputs {
        text_of(operators, *input, depth + 1, shown, lines);
    }
}

/// The operators as JSON, those that are read before their readers.
pub(crate) fn as_json(operators: &[Operator], output: NodeId) -> Value {
    let operator = |operator: &Operator| {
        json!({
            "Id": operator.id,
            "Node Type": operator.name,
            "Inputs": operator.inputs,
            "Details": operator.detail,
            "Monotone": operator.growth == Growth::Monotone,
            "Append Only": operator.append_only,
            "State": operator.state,
            "State Rows": operator.size.map(|(rows, _)| rows),
            "State Bytes": operator.size.map(|(_, bytes)| bytes),
        })
    };
    json!([{ "Plan": { "Output": output, "Operators": operators.iter().map(operator).collect::<Vec<_>>() } }])
}

/// Whether a plan over these inputs only ever adds rows.
pub(crate) fn is_append_only(plan: &Plan, inputs: &[(String, bool)]) -> bool {
    let operators = operators(plan, inputs, |_| None);
    operators.iter().any(|operator| operator.id == plan.output && operator.append_only)
}

fn growth(node: &Node) -> Growth {
    let monotone = match node {
        Node::Input { .. }
        | Node::FilterProject { .. }
        | Node::Distinct { .. }
        | Node::Union { .. }
        | Node::Unnest { .. } => true,
        Node::Join { kind, .. } => matches!(kind, JoinKind::Inner | JoinKind::Semi),
        Node::SetOp { op, .. } => *op == SetOp::Intersect,
        // Groups alone are what DISTINCT gives.
        Node::Reduce { keys, aggregates, .. } => aggregates.is_empty() && !keys.is_empty(),
        Node::TopK { skip, limit, .. } => *skip == 0 && limit.is_none(),
        Node::TemporalFilter { until, .. } => until.is_none(),
        Node::Recursive { step, .. } => {
            step.nodes.iter().all(|node| growth(node) == Growth::Monotone)
        }
        Node::Window { .. } | Node::Session { .. } => false,
    };
    if monotone { Growth::Monotone } else { Growth::Retracts }
}

fn state(node: &Node) -> Option<&'static str> {
    Some(match node {
        Node::Input { .. }
        | Node::FilterProject { .. }
        | Node::Union { .. }
        | Node::Unnest { .. } => {
            return None;
        }
        Node::Join { .. } => "the rows of both sides, by key",
        Node::Reduce { .. } => "each group's accumulators",
        Node::Distinct { .. } => "each row, and how often it is there",
        Node::SetOp { .. } => "each row, and how often it is on either side",
        Node::TopK { .. } => "all rows of each group, in order",
        Node::Window { .. } => "all rows of each partition, in order, with what they gave",
        Node::TemporalFilter { .. } => "rows that come or go later, by time",
        Node::Session { .. } => "all rows of each key, by time",
        Node::Recursive { .. } => "the rows derived, and those of the step's operators",
    })
}

fn name(node: &Node) -> String {
    match node {
        Node::Input { .. } => "Input".into(),
        Node::FilterProject { predicate: Some(_), .. } => "Filter".into(),
        Node::FilterProject { predicate: None, .. } => "Project".into(),
        Node::Join { kind, on, .. } => {
            let kind = match kind {
                JoinKind::Inner if on.is_empty() => "Cross",
                JoinKind::Inner => "Inner",
                JoinKind::Left => "Left",
                JoinKind::Right => "Right",
                JoinKind::Full => "Full",
                JoinKind::Semi => "Semi",
                JoinKind::Anti | JoinKind::NullAwareAnti => "Anti",
                JoinKind::Mark => "Mark",
            };
            format!("{kind} Join")
        }
        Node::Reduce { .. } => "Reduce".into(),
        Node::Distinct { .. } => "Distinct".into(),
        Node::Union { .. } => "Union".into(),
        Node::SetOp { op, all, .. } => {
            let op = match op {
                SetOp::Intersect => "Intersect",
                SetOp::Except => "Except",
            };
            format!("{op}{}", if *all { " All" } else { "" })
        }
        Node::TopK { .. } => "TopK".into(),
        Node::Window { .. } => "Window".into(),
        Node::Unnest { .. } => "Unnest".into(),
        Node::TemporalFilter { .. } => "Temporal Filter".into(),
        Node::Session { .. } => "Session".into(),
        Node::Recursive { .. } => "Recursive".into(),
    }
}

/// The names of a node's columns.
fn columns_of(plan: &Plan, id: NodeId) -> Vec<String> {
    let prefix = Plan { nodes: plan.nodes.clone(), output: id, key: None };
    match prefix.output_schema() {
        Ok(schema) => schema.fields().iter().map(|field| field.name().clone()).collect(),
        Err(_) => Vec::new(),
    }
}

fn detail(node: &Node, columns: &[Vec<String>]) -> Vec<String> {
    let none = Vec::new();
    let first = columns.first().unwrap_or(&none);
    let second = columns.get(1).unwrap_or(&none);
    let mut lines = Vec::new();
    let mut line = |label: &str, what: String| {
        if !what.is_empty() {
            lines.push(format!("{label}: {what}"));
        }
    };
    match node {
        Node::Input { .. } | Node::Union { .. } | Node::Distinct { .. } | Node::SetOp { .. } => {}
        Node::FilterProject { predicate, exprs, .. } => {
            if let Some(predicate) = predicate {
                line("Filter", expression(predicate.to_string()));
            }
            line("Output", joined(exprs.iter().map(|expr| expression(expr.to_string()))));
        }
        Node::Join { on, null_equal, filter, .. } => {
            let equal = if *null_equal { "IS NOT DISTINCT FROM" } else { "=" };
            let pair = |(l, r): &(usize, usize)| {
                format!("{} {equal} {}", column(first, *l), column(second, *r))
            };
            line("On", joined(on.iter().map(pair)));
            if let Some(filter) = filter {
                line("Condition", expression(filter.to_string()));
            }
        }
        Node::Reduce { keys, aggregates, .. } => {
            line("Group Key", named(first, keys));
            line("Aggregates", joined(aggregates.iter().map(|call| aggregate(call, first))));
        }
        Node::TopK { keys, order, skip, limit, .. } => {
            line("Group Key", named(first, keys));
            line("Order", ordering(first, order));
            let limit = limit.map_or("all".to_owned(), |limit| limit.to_string());
            line("Limit", limit);
            if *skip > 0 {
                line("Offset", skip.to_string());
            }
        }
        Node::Window { partition, order, functions, .. } => {
            line("Partition", named(first, partition));
            line("Order", ordering(first, order));
            line("Functions", joined(functions.iter().map(|call| call.name().to_owned())));
        }
        Node::Unnest { columns, .. } => line("Lists", named(first, columns)),
        Node::TemporalFilter { from, until, .. } => {
            let bound = |bound: &std::sync::Arc<_>| expression(format!("{bound}"));
            line("From", from.as_ref().map(bound).unwrap_or_default());
            line("Until", until.as_ref().map(bound).unwrap_or_default());
        }
        Node::Session { keys, time, gap, .. } => {
            line("Key", named(first, keys));
            line("Time", format!("{}, gap {gap} microseconds", column(first, *time)));
        }
        Node::Recursive { distinct, rounds_max, step, .. } => {
            line("Rounds", format!("at most {rounds_max}"));
            line("Rows", if *distinct { "each once" } else { "as often as derived" }.to_owned());
            let operators = step.nodes.iter().filter(|node| !matches!(node, Node::Input { .. }));
            line("Step", joined(operators.map(name)));
        }
    }
    lines
}

fn aggregate(call: &Aggregate, columns: &[String]) -> String {
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let argument = match (&call.function, call.argument) {
        (evert_fold::AggregateFunction::General(general), _) => {
            joined(general.0.expressions().iter().map(|arg| expression(arg.to_string())))
        }
        (_, Some(argument)) => column(columns, argument),
        (_, None) => "*".to_owned(),
    };
    let filter = call.filter.map(|filter| format!(" FILTER ({})", column(columns, filter)));
    format!("{}({distinct}{argument}){}", call.function.name(), filter.unwrap_or_default())
}

fn ordering(columns: &[String], order: &[SortKey]) -> String {
    joined(order.iter().map(|key| {
        let direction = if key.descending { " DESC" } else { "" };
        let nulls = if key.nulls_first { " NULLS FIRST" } else { "" };
        format!("{}{direction}{nulls}", column(columns, key.column))
    }))
}

fn named(columns: &[String], which: &[usize]) -> String {
    joined(which.iter().map(|index| column(columns, *index)))
}

fn column(columns: &[String], index: usize) -> String {
    columns.get(index).cloned().unwrap_or_else(|| format!("#{index}"))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// An expression as the planner writes it, without the places of its columns: `a@0 + b@1`.
fn expression(text: String) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        quoted ^= character == '\'';
        if character == '@' && !quoted && characters.peek().is_some_and(char::is_ascii_digit) {
            while characters.next_if(char::is_ascii_digit).is_some() {}
            continue;
        }
        shown.push(character);
    }
    shown
}
