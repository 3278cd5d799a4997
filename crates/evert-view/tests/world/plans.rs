//! Plans by hand: what a planner would make of some SELECTs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use evert_fold::{Aggregate, AggregateFunction, JoinKind, Node, Plan, column};
use evert_model::{Column, ColumnType, RowSchema};
use evert_view::{Catalog, Name, PlanError, PlannedView, Planner};

/// Knows the views of [`super::View`] by their names.
pub(crate) struct Plans;

impl Planner for Plans {
    fn plan_view(&self, sql: &str, catalog: &Catalog) -> Result<PlannedView, PlanError> {
        let table = |name: &str| catalog.relations[&Name::public(name)].schema.to_arrow();
        let planned = match sql {
            "by_branch" | "fresh" => reduce(
                &["accounts"],
                match sql {
                    "fresh" => {
                        let until = Some(column("until", 3));
                        let filter = Node::TemporalFilter { input: 0, from: None, until };
                        vec![input(0, table("accounts")), filter]
                    }
                    _ => vec![input(0, table("accounts"))],
                },
                &[1],
                &[
                    (AggregateFunction::Count, None),
                    (AggregateFunction::Sum, Some(2)),
                    (AggregateFunction::Max, Some(2)),
                ],
            ),
            "by_city" => {
                let (accounts, branches) = (table("accounts"), table("branches"));
                let fields = accounts.fields().iter().chain(branches.fields()).cloned();
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                let join = Node::Join {
                    left: 0,
                    right: 1,
                    kind: JoinKind::Inner,
                    null_equal: false,
                    on: vec![(1, 0)],
                    filter: None,
                    schema,
                };
                let nodes = vec![input(0, accounts), input(1, branches), join];
                reduce(
                    &["accounts", "branches"],
                    nodes,
                    &[5],
                    &[(AggregateFunction::Count, None), (AggregateFunction::Min, Some(2))],
                )
            }
            "total" | "recent" => reduce(
                &["events"],
                match sql {
                    "recent" => {
                        let (from, until) = (Some(column("at", 2)), Some(column("until", 3)));
                        let filter = Node::TemporalFilter { input: 0, from, until };
                        vec![input(0, table("events")), filter]
                    }
                    _ => vec![input(0, table("events"))],
                },
                &[],
                &[(AggregateFunction::Count, None), (AggregateFunction::Sum, Some(1))],
            ),
            "widest" | "freshest" => {
                let read = if sql == "widest" { "by_branch" } else { "fresh" };
                let below = catalog.views[&Name::public(read)].schema.to_arrow();
                reduce(
                    &[read],
                    vec![input(0, below)],
                    &[],
                    &[(AggregateFunction::Count, None), (AggregateFunction::Max, Some(1))],
                )
            }
            other => {
                let message = format!("no plan for {other}");
                return Err(PlanError { sqlstate: "0A000", message, hint: None });
            }
        };
        Ok(planned)
    }
}

fn input(index: usize, schema: SchemaRef) -> Node {
    Node::Input { index, schema }
}

fn output_schema(nodes: &[Node], node: usize) -> &SchemaRef {
    match &nodes[node] {
        Node::Input { schema, .. } | Node::Join { schema, .. } => schema,
        Node::TemporalFilter { input, .. } => output_schema(nodes, *input),
        _ => panic!("no such node lies under these aggregates"),
    }
}

/// `nodes`, and a GROUP BY over the last of them as the view.
fn reduce(
    inputs: &[&str],
    mut nodes: Vec<Node>,
    keys: &[usize],
    aggregates: &[(AggregateFunction, Option<usize>)],
) -> PlannedView {
    let below = output_schema(&nodes, nodes.len() - 1).clone();
    let mut fields: Vec<Field> = keys.iter().map(|&key| below.field(key).clone()).collect();
    for (index, (function, argument)) in aggregates.iter().enumerate() {
        let argument = argument.map(|argument| below.field(argument).data_type().clone());
        let ty = function.output_type(argument.as_ref()).expect("a type that aggregates");
        fields.push(Field::new(format!("a{index}"), ty, true));
    }
    let columns = fields.iter().map(|field| Column {
        name: field.name().clone(),
        ty: column_type(field.data_type()),
        nullable: true,
    });
    let key: Vec<usize> = (0..keys.len()).collect();
    let schema = RowSchema { columns: columns.collect(), key: key.clone() };
    let aggregates = aggregates.iter().map(|(function, argument)| Aggregate {
        function: function.clone(),
        argument: *argument,
        distinct: false,
        filter: None,
    });
    nodes.push(Node::Reduce {
        input: nodes.len() - 1,
        keys: keys.to_vec(),
        aggregates: aggregates.collect(),
        schema: schema.to_arrow(),
    });
    let output = nodes.len() - 1;
    PlannedView {
        plan: Plan { nodes, output, key: (!keys.is_empty()).then_some(key) },
        inputs: inputs.iter().map(|input| Name::public(*input)).collect(),
        schema,
    }
}

fn column_type(ty: &DataType) -> ColumnType {
    ColumnType::of_field(&Field::new("c", ty.clone(), true)).expect("a type that columns have")
}
