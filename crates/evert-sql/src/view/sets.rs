//! Set operations and DISTINCT.

use arrow::datatypes::Field;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{LogicalPlan, Union};
use evert_fold::Node;

use super::relation::{Relation, schema_of};
use super::translate::{Result, Translation, cast, fields};
use crate::rules::{SetOperation, SetOperator};

impl Translation<'_> {
    pub(super) fn distinct(&mut self, input: &LogicalPlan) -> Result<Relation> {
        let mut relation = self.relation(input)?;
        let input = self.builder.place(&mut relation);
        let node = self.builder.push(Node::Distinct { input });
        let key = relation.key.or_else(|| Some((0..relation.fields.len()).collect()));
        Ok(Relation::of_node(node, relation.fields, key))
    }

    pub(super) fn union(&mut self, union: &Union) -> Result<Relation> {
        let fields = fields(&union.schema);
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let mut relation = self.of_types(input, &union.schema)?;
            inputs.push(self.builder.place(&mut relation));
        }
        let node = Node::Union { inputs, schema: schema_of(&fields) };
        Ok(Relation::of_node(self.builder.push(node), fields, None))
    }

    pub(super) fn set_operation(&mut self, operation: &SetOperation) -> Result<Relation> {
        let mut left = self.of_types(&operation.left, &operation.schema)?;
        let mut right = self.of_types(&operation.right, &operation.schema)?;
        // What is left of the left side's rows is identified as they were; each row once, by all
        // of its columns.
        let whole = || (!operation.all).then(|| (0..left.fields.len()).collect());
        let key = left.key.clone().or_else(whole);
        let op = match operation.operator {
            SetOperator::Intersect => evert_fold::SetOp::Intersect,
            SetOperator::Except => evert_fold::SetOp::Except,
        };
        let (l, r) = (self.builder.place(&mut left), self.builder.place(&mut right));
        let node = Node::SetOp { left: l, right: r, op, all: operation.all };
        Ok(Relation::of_node(self.builder.push(node), left.fields, key))
    }

    /// The rows of a plan, its columns of a schema's names and types.
    fn of_types(&mut self, plan: &LogicalPlan, schema: &DFSchema) -> Result<Relation> {
        let relation = self.relation(plan)?;
        self.with_fields(relation, &fields(schema))
    }

    /// Gives a relation's columns other names and types.
    pub(super) fn with_fields(&mut self, relation: Relation, wanted: &[Field]) -> Result<Relation> {
        let columns = relation.columns().into_iter().zip(relation.fields.iter().zip(wanted));
        let exprs = columns
            .map(|(column, (have, want))| cast(column, have.data_type(), want.data_type()))
            .collect();
        Ok(self.builder.project(relation, exprs, wanted.to_vec())?)
    }
}
