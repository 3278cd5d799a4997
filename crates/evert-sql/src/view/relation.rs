//! A plan under construction: nodes, and on top of one a filter and projection not yet placed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::Operator;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use evert_fold::{Node, NodeId};
use evert_view::Name;

/// The nodes so far.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) nodes: Vec<Node>,
    pub(super) inputs: Vec<Name>,
    input_nodes: BTreeMap<Name, NodeId>,
    pub(super) props: ExecutionProps,
}

/// What a part of the plan gives: a node's rows, filtered and projected.
///
/// Neighbouring filters and projections gather here until something needs a node, so that they
/// become one.
pub(super) struct Relation {
    node: NodeId,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    /// `None`: the node's columns as they are.
    exprs: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// The output's columns.
    pub(super) fields: Vec<Field>,
    /// The output's columns that identify a row.
    pub(super) key: Option<Vec<usize>>,
}

impl Builder {
    pub(super) fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The rows of an input; one that is read twice is one node.
    pub(super) fn input(
        &mut self,
        name: &Name,
        schema: SchemaRef,
        key: Option<Vec<usize>>,
    ) -> Relation {
        let fields = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let node = match self.input_nodes.get(name) {
            Some(node) => *node,
            None => {
                let index = self.inputs.len();
                self.inputs.push(name.clone());
                let node = self.push(Node::Input { index, schema });
                self.input_nodes.insert(name.clone(), node);
                node
            }
        };
        Relation { node, predicate: None, exprs: None, fields, key }
    }

    /// The node that gives a relation's rows, which is made if filter or projection need one.
    pub(super) fn place(&mut self, relation: &mut Relation) -> NodeId {
        if relation.is_plain() {
            return relation.node;
        }
        let exprs = relation.exprs.take().unwrap_or_else(|| columns(&relation.fields));
        relation.node = self.push(Node::FilterProject {
            input: relation.node,
            predicate: relation.predicate.take(),
            exprs,
            schema: schema_of(&relation.fields),
        });
        relation.node
    }

    /// Keeps the rows for which `predicate`, over the relation's output, is true.
    pub(super) fn filter(
        &mut self,
        mut relation: Relation,
        predicate: Arc<dyn PhysicalExpr>,
    ) -> Result<Relation> {
        let predicate = self.over_node(&mut relation, predicate)?;
        relation.predicate = Some(match relation.predicate.take() {
            Some(before) => Arc::new(BinaryExpr::new(before, Operator::And, predicate)),
            None => predicate,
        });
        Ok(relation)
    }

    /// Replaces the columns by expressions over them.
    pub(super) fn project(
        &mut self,
        mut relation: Relation,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        fields: Vec<Field>,
    ) -> Result<Relation> {
        let kept =
            |column: &usize| exprs.iter().position(|expr| column_index(expr) == Some(*column));
        let key = relation.key.take().and_then(|key| key.iter().map(kept).collect());
        if is_identity(&exprs, relation.fields.len()) {
            return Ok(Relation { fields, key, ..relation });
        }
        let exprs = exprs
            .into_iter()
            .map(|expr| self.over_node(&mut relation, expr))
            .collect::<Result<Vec<_>>>()?;
        Ok(Relation { exprs: Some(exprs), fields, key, ..relation })
    }

    /// Rewrites an expression over the relation's output as one over its node. Computed columns
    /// are placed first, so that nothing is computed twice.
    fn over_node(
        &mut self,
        relation: &mut Relation,
        expr: Arc<dyn PhysicalExpr>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let computed = relation
            .exprs
            .as_ref()
            .is_some_and(|exprs| exprs.iter().any(|expr| column_index(expr).is_none()));
        if computed {
            self.place(relation);
        }
        match &relation.exprs {
            Some(exprs) => substitute(expr, |index| Arc::clone(&exprs[index])),
            None => Ok(expr),
        }
    }
}

impl Relation {
    /// A node's rows as they are.
    pub(super) fn of_node(node: NodeId, fields: Vec<Field>, key: Option<Vec<usize>>) -> Self {
        Self { node, predicate: None, exprs: None, fields, key }
    }

    /// Whether this is a node's output as it is.
    pub(super) fn is_plain(&self) -> bool {
        self.predicate.is_none() && self.exprs.is_none()
    }

    /// Forces a projection node even if it changes names only.
    pub(super) fn project_all(&mut self) {
        if self.exprs.is_none() {
            self.exprs = Some(columns(&self.fields));
        }
    }

    /// An expression for each output column, over the output.
    pub(super) fn columns(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        columns(&self.fields)
    }
}

/// A schema in which everything may be NULL: what the fold makes of rows is its own affair.
pub(super) fn schema_of(fields: &[Field]) -> SchemaRef {
    let fields = fields.iter().map(|field| field.clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn columns(fields: &[Field]) -> Vec<Arc<dyn PhysicalExpr>> {
    let column = |(index, field): (usize, &Field)| -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(field.name(), index))
    };
    fields.iter().enumerate().map(column).collect()
}

/// The index of the column that an expression is, if it is nothing else.
pub(super) fn column_index(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

fn is_identity(exprs: &[Arc<dyn PhysicalExpr>], columns: usize) -> bool {
    exprs.len() == columns
        && exprs.iter().enumerate().all(|(index, expr)| column_index(expr) == Some(index))
}

/// Puts expressions in the place of columns.
pub(super) fn substitute(
    expr: Arc<dyn PhysicalExpr>,
    with: impl Fn(usize) -> Arc<dyn PhysicalExpr>,
) -> Result<Arc<dyn PhysicalExpr>> {
    expr.transform_up(|expr| {
        Ok(match column_index(&expr) {
            Some(index) => Transformed::yes(with(index)),
            None => Transformed::no(expr),
        })
    })
    .data()
}

/// The type of a field list's column.
pub(super) fn type_of(fields: &[Field], column: usize) -> &DataType {
    fields[column].data_type()
}
