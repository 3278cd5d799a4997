//! Rows are sorted where an order is asked for, whatever DataFusion believes to know of them.
//!
//! DataFusion leaves out what it takes for constant, equal or sorted already, and is mistaken at
//! times: a column that a condition makes constant on one side of an outer join is NULL where that
//! side has no row; `f(x) = x` makes it write `f(x)` for `x`; and what one of its rules relies on
//! another forgets. So nothing is known of the rows that sorts, windows and groups take in. Rows
//! come unsorted from every relation, so that this costs next to nothing.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// Hides what is known of the rows that sorts, windows and groups take in. It has to be the first
/// of the rules.
#[derive(Debug)]
pub(crate) struct Unsorted;

impl PhysicalOptimizerRule for Unsorted {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            if !takes_orders(plan.as_ref()) {
                return Ok(Transformed::no(plan));
            }
            let children = plan.children().into_iter().map(Arc::clone);
            let hidden = children.map(|child| match is_known(child.as_ref()) {
                true => Arc::new(Rows::of(child)) as Arc<dyn ExecutionPlan>,
                false => child,
            });
            let hidden = hidden.collect();
            Ok(Transformed::yes(plan.with_new_children(hidden)?))
        })
        .data()
    }

    fn name(&self) -> &str {
        "unsorted"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether an operator does something else where its input is sorted.
fn takes_orders(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<SortExec>()
        || plan.is::<AggregateExec>()
        || plan.is::<WindowAggExec>()
        || plan.is::<BoundedWindowAggExec>()
}

fn is_known(plan: &dyn ExecutionPlan) -> bool {
    let known = plan.properties().equivalence_properties();
    !known.eq_group().is_empty() || !known.oeq_class().is_empty()
}

/// The rows of another operator, of which nothing is known but their columns.
#[derive(Debug)]
struct Rows {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Rows {
    fn of(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::clone(input.properties());
        let nothing = EquivalenceProperties::new(input.schema());
        Self { input, properties: Arc::new(properties.with_eq_properties(nothing)) }
    }
}

impl DisplayAs for Rows {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rows")
    }
}

impl ExecutionPlan for Rows {
    fn name(&self) -> &str {
        "Rows"
    }

    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::of(children.swap_remove(0))))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        self.input.partition_statistics(partition)
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}
