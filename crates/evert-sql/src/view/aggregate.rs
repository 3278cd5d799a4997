//! GROUP BY.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::expr::{AggregateFunction as Call, NullTreatment};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate as GroupBy, Expr, GroupingSet};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::scalar::ScalarValue;
use evert_fold::{Aggregate, AggregateFunction, GeneralAggregate, Node, Spread};

use super::relation::{Relation, schema_of};
use super::translate::{Refusal, Result, Translation, fields, unsupported};
use crate::SqlError;
use crate::error::INTERNAL_ERROR;
use crate::functions::{AVG, SUM};

/// The columns that a Reduce reads: keys, arguments and filters.
#[derive(Default)]
struct Prepared {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    fields: Vec<Field>,
}

impl Prepared {
    /// The index of an expression, which is added unless it is there.
    fn column(&mut self, expr: Arc<dyn PhysicalExpr>, ty: DataType) -> usize {
        if let Some(index) = self.exprs.iter().position(|other| other == &expr) {
            return index;
        }
        self.fields.push(Field::new(format!("c{}", self.exprs.len()), ty, true));
        self.exprs.push(expr);
        self.exprs.len() - 1
    }

    /// A column, as an expression over the columns.
    fn expr(&self, index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(self.fields[index].name(), index))
    }
}

impl Translation<'_> {
    pub(super) fn aggregate(&mut self, group_by: &GroupBy) -> Result<Relation> {
        if let [Expr::GroupingSet(sets)] = group_by.group_expr.as_slice() {
            return self.grouping_sets(group_by, sets);
        }
        let input = self.relation(&group_by.input)?;
        let mut prepared = Prepared::default();
        let mut keys = Vec::with_capacity(group_by.group_expr.len());
        for expr in grouping_set_to_exprlist(&group_by.group_expr)? {
            keys.push(self.prepare(&mut prepared, expr, group_by)?);
        }
        let aggregates = self.calls(&mut prepared, group_by)?;
        let planned = fields(&group_by.schema);
        let types = prepared.fields.clone();
        let mut rows = self.builder.project(input, prepared.exprs, prepared.fields)?;
        let input = self.builder.place(&mut rows);
        self.reduce(input, &types, keys, aggregates, planned)
    }

    /// A Reduce, its columns cast to the planned types.
    pub(super) fn reduce(
        &mut self,
        input: usize,
        input_fields: &[Field],
        keys: Vec<usize>,
        aggregates: Vec<Aggregate>,
        planned: Vec<Field>,
    ) -> Result<Relation> {
        let folded = folded_fields(&planned, &keys, &aggregates, input_fields)?;
        let key = (!keys.is_empty()).then(|| (0..keys.len()).collect());
        let node = Node::Reduce { input, keys, aggregates, schema: schema_of(&folded) };
        let relation = Relation::of_node(self.builder.push(node), folded, key.clone());
        // Equal groups stay apart when their keys are cast, since only digits are added.
        let mut relation = self.with_fields(relation, &planned)?;
        relation.key = key;
        Ok(relation)
    }

    /// ROLLUP, CUBE and GROUPING SETS: a Reduce for each set, over the same rows. Output: the
    /// grouped columns, NULL where a set leaves one out, the grouping id, the aggregates.
    fn grouping_sets(&mut self, group_by: &GroupBy, sets: &GroupingSet) -> Result<Relation> {
        let planned = fields(&group_by.schema);
        let grouped = sets.distinct_expr();
        let input = self.relation(&group_by.input)?;
        let mut prepared = Prepared::default();
        let mut columns = Vec::with_capacity(grouped.len());
        for expr in &grouped {
            columns.push(self.prepare(&mut prepared, expr, group_by)?);
        }
        let aggregates = self.calls(&mut prepared, group_by)?;
        let types = prepared.fields.clone();
        let mut rows = self.builder.project(input, prepared.exprs, prepared.fields)?;
        let input = self.builder.place(&mut rows);
        let width = grouped.len();
        let mut seen: Vec<Vec<bool>> = Vec::new();
        let mut inputs = Vec::new();
        for set in sets_of(sets) {
            let member: Vec<bool> = grouped.iter().map(|expr| set.contains(expr)).collect();
            let keys: Vec<usize> = (0..width).filter(|place| member[*place]).collect();
            let key_columns = keys.iter().map(|place| columns[*place]).collect();
            let reduced = keys.iter().map(|place| planned[*place].clone());
            let reduced = reduced.chain(planned[width + 1..].iter().cloned()).collect();
            let groups = self.reduce(input, &types, key_columns, aggregates.clone(), reduced)?;
            let id = grouping_id(&member, seen.iter().filter(|other| **other == member).count());
            let own = groups.columns();
            let mut exprs: Vec<Arc<dyn PhysicalExpr>> = Vec::with_capacity(planned.len());
            for (place, field) in planned[..width].iter().enumerate() {
                exprs.push(match keys.iter().position(|key| *key == place) {
                    Some(position) => Arc::clone(&own[position]),
                    None => Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?)),
                });
            }
            let id = ScalarValue::UInt64(Some(id)).cast_to(planned[width].data_type())?;
            exprs.push(Arc::new(Literal::new(id)));
            exprs.extend_from_slice(&own[keys.len()..]);
            let mut set_rows = self.builder.project(groups, exprs, planned.clone())?;
            inputs.push(self.builder.place(&mut set_rows));
            seen.push(member);
        }
        let node = Node::Union { inputs, schema: schema_of(&planned) };
        let key = Some((0..=width).collect());
        Ok(Relation::of_node(self.builder.push(node), planned, key))
    }

    fn prepare(&self, prepared: &mut Prepared, expr: &Expr, group_by: &GroupBy) -> Result<usize> {
        let schema = group_by.input.schema();
        let expr = self.physical(expr, schema)?;
        let ty = expr.data_type(schema.as_arrow())?;
        Ok(prepared.column(expr, ty))
    }

    fn calls(&self, prepared: &mut Prepared, group_by: &GroupBy) -> Result<Vec<Aggregate>> {
        group_by.aggr_expr.iter().map(|expr| self.call(prepared, expr, group_by)).collect()
    }

    fn call(&self, prepared: &mut Prepared, expr: &Expr, group_by: &GroupBy) -> Result<Aggregate> {
        let Expr::AggregateFunction(call) = expr.clone().unalias_nested().data else {
            return Err(unsupported(format!("the aggregate {expr}")));
        };
        let Call { func, params } = &call;
        let filter = match &params.filter {
            Some(filter) => Some(self.prepare(prepared, filter, group_by)?),
            None => None,
        };
        let distinct = params.distinct;
        let Some(function) = own_function(func.name()) else {
            let function = self.general(prepared, &call, group_by)?;
            return Ok(Aggregate { function, argument: None, distinct, filter });
        };
        let argument = match params.args.as_slice() {
            [] => None,
            [arg] if function == AggregateFunction::Count && !distinct && is_constant(arg) => None,
            [arg] => Some(self.prepare(prepared, arg, group_by)?),
            _ => return Err(unsupported(format!("{}() of several columns", func.name()))),
        };
        Ok(Aggregate { function, argument, distinct, filter })
    }

    /// An aggregate that the fold only knows as DataFusion's.
    fn general(
        &self,
        prepared: &mut Prepared,
        call: &Call,
        group_by: &GroupBy,
    ) -> Result<AggregateFunction> {
        let Call { func, params } = call;
        let mut args: Vec<Arc<dyn PhysicalExpr>> = Vec::with_capacity(params.args.len());
        for arg in &params.args {
            let physical = self.physical(arg, group_by.input.schema())?;
            if physical.is::<Literal>() {
                args.push(physical);
                continue;
            }
            let column = self.prepare(prepared, arg, group_by)?;
            args.push(prepared.expr(column));
        }
        let mut order = Vec::with_capacity(params.order_by.len());
        for key in &params.order_by {
            let column = self.prepare(prepared, &key.expr, group_by)?;
            let expr = prepared.expr(column);
            let options = SortOptions { descending: !key.asc, nulls_first: key.nulls_first };
            order.push(PhysicalSortExpr { expr, options });
        }
        let ignore_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
        let built = AggregateExprBuilder::new(Arc::clone(func), args)
            .schema(schema_of(&prepared.fields))
            .alias(func.name())
            .order_by(order)
            .with_ignore_nulls(ignore_nulls)
            .build()?;
        // What it cannot compute is refused now, not when rows come.
        built.create_accumulator()?;
        Ok(AggregateFunction::General(GeneralAggregate(Arc::new(built))))
    }
}

/// The aggregates that the fold knows by itself.
fn own_function(name: &str) -> Option<AggregateFunction> {
    Some(match name {
        "count" => AggregateFunction::Count,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "bool_and" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        "var" => AggregateFunction::Spread(Spread::Variance),
        "var_pop" => AggregateFunction::Spread(Spread::VariancePopulation),
        "stddev" => AggregateFunction::Spread(Spread::Deviation),
        "stddev_pop" => AggregateFunction::Spread(Spread::DeviationPopulation),
        SUM => AggregateFunction::Sum,
        AVG => AggregateFunction::Avg,
        _ => return None,
    })
}

/// The sets of expressions to group by, one after the other.
fn sets_of(sets: &GroupingSet) -> Vec<Vec<&Expr>> {
    match sets {
        GroupingSet::Rollup(exprs) => {
            (0..=exprs.len()).map(|length| exprs[..length].iter().collect()).collect()
        }
        GroupingSet::Cube(exprs) => (0..1_usize << exprs.len())
            .map(|mask| {
                let member = |place: &usize| mask >> place & 1 == 1;
                (0..exprs.len()).filter(member).map(|place| &exprs[place]).collect()
            })
            .collect(),
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| set.iter().collect()).collect(),
    }
}

/// A bit for each column that a set leaves out, the last column's lowest; above them, how many
/// equal sets came before. See `Aggregate::INTERNAL_GROUPING_ID`.
fn grouping_id(member: &[bool], before: usize) -> u64 {
    let mask = member.iter().fold(0, |mask, member| mask << 1 | u64::from(!member));
    (before as u64) << member.len() | mask
}

/// The Reduce's output: the planned names with the fold's types.
fn folded_fields(
    planned: &[Field],
    keys: &[usize],
    aggregates: &[Aggregate],
    input: &[Field],
) -> Result<Vec<Field>> {
    let key_types = keys.iter().map(|key| Ok(input[*key].data_type().clone()));
    let aggregate_types = aggregates.iter().map(|aggregate| {
        let argument = aggregate.argument.map(|column| input[column].data_type());
        aggregate
            .function
            .output_type(argument)
            .map_err(|error| Refusal::Sql(SqlError::new(INTERNAL_ERROR, error.to_string())))
    });
    let types = key_types.chain(aggregate_types);
    planned.iter().zip(types).map(|(field, ty)| Ok(field.clone().with_data_type(ty?))).collect()
}

/// A constant that is not NULL, which count() counts as it counts rows.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => *value != ScalarValue::Null && !value.is_null(),
        _ => false,
    }
}
