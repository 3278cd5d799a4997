//! WITH RECURSIVE.

use std::sync::Arc;

use datafusion::logical_expr::RecursiveQuery;
use evert_fold::{Node, Plan};
use evert_view::Name;

use super::relation::{Builder, Relation, schema_of};
use super::translate::{Result, Translation, fields};

/// Rounds after which a recursion is taken to have no end.
pub(super) const ROUNDS_MAX: usize = 10_000;

impl Translation<'_> {
    pub(super) fn recursive(&mut self, query: &RecursiveQuery) -> Result<Relation> {
        let planned = fields(&query.schema);
        let static_term = self.relation(&query.static_term)?;
        let mut base = self.with_fields(static_term, &planned)?;
        let work = Name::new("", &query.name);
        let mut step = Translation {
            builder: Builder::default(),
            keys: self.keys,
            work_tables: self.work_tables.clone(),
        };
        // The rows of the last round are the step's input 0.
        step.work_tables.push(query.name.clone());
        step.builder.input(&work, schema_of(&planned), None);
        let derived = step.relation(&query.recursive_term)?;
        let mut derived = step.with_fields(derived, &planned)?;
        let output = step.builder.place(&mut derived);
        let Builder { nodes, inputs, .. } = step.builder;
        let schemas: Vec<_> = nodes
            .iter()
            .filter_map(|node| match node {
                Node::Input { index, schema } => Some((*index, Arc::clone(schema))),
                _ => None,
            })
            .collect();
        let mut others = Vec::with_capacity(inputs.len() - 1);
        for (index, name) in inputs.iter().enumerate().skip(1) {
            let (_, schema) =
                schemas.iter().find(|(of, _)| *of == index).expect("each input has its node");
            let mut relation = self.builder.input(name, Arc::clone(schema), None);
            others.push(self.builder.place(&mut relation));
        }
        let node = Node::Recursive {
            base: self.builder.place(&mut base),
            others,
            step: Box::new(Plan { nodes, output, key: None }),
            distinct: query.is_distinct,
            rounds_max: ROUNDS_MAX,
        };
        let key = query.is_distinct.then(|| (0..planned.len()).collect());
        Ok(Relation::of_node(self.builder.push(node), planned, key))
    }
}
