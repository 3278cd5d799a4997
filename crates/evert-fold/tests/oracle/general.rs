//! Aggregates of DataFusion's, with an order of their own, and their naive answers.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::functions_aggregate::{
    array_agg::array_agg_udaf,
    bit_and_or_xor::bit_xor_udaf,
    first_last::{first_value_udaf, last_value_udaf},
    string_agg::string_agg_udaf,
};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion_common::ScalarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Column, Literal};
use evert_fold::{AggregateFunction, GeneralAggregate, SortKey};
use fastrand::Rng;

use crate::ordered::{by_keys, random_order};
use crate::values::{Row, Value};

#[derive(Clone, Debug)]
pub(crate) struct NaiveGeneral {
    function: Function,
    column: usize,
    order: Vec<SortKey>,
    distinct: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    StringAgg,
    ArrayAgg,
    First,
    Last,
    BitXor,
}

/// An aggregate over some column, and its output type.
pub(crate) fn random(
    rng: &mut Rng,
    schema: &SchemaRef,
) -> Option<(AggregateFunction, NaiveGeneral, DataType)> {
    use Function::{ArrayAgg, BitXor, First, Last, StringAgg};
    if schema.fields().is_empty() {
        return None;
    }
    let function = [StringAgg, ArrayAgg, First, Last, BitXor][rng.usize(0..5)];
    let column = rng.usize(0..schema.fields().len());
    let ty = schema.field(column).data_type();
    let fits = match function {
        StringAgg => ty == &DataType::Utf8View,
        BitXor => ty == &DataType::Int64,
        // Lists of lists are no more than lists.
        ArrayAgg => !ty.is_nested(),
        First | Last => true,
    };
    let distinct = rng.u8(0..3) == 0 && matches!(function, StringAgg | ArrayAgg | BitXor);
    let mut order = if rng.u8(0..3) == 0 { Vec::new() } else { random_order(rng, schema) };
    if distinct {
        // As in SQL, a distinct aggregate's order is that of its argument.
        order.iter_mut().for_each(|key| key.column = column);
        order.truncate(1);
    }
    if !fits {
        return None;
    }
    let udaf = match function {
        StringAgg => string_agg_udaf(),
        ArrayAgg => array_agg_udaf(),
        First => first_value_udaf(),
        Last => last_value_udaf(),
        BitXor => bit_xor_udaf(),
    };
    let physical = |column: usize| -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(schema.field(column).name(), column))
    };
    let mut args = vec![physical(column)];
    if function == StringAgg {
        args.push(Arc::new(Literal::new(ScalarValue::from("/"))));
    }
    let sorts = order.iter().map(|key| {
        let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
        PhysicalSortExpr::new(physical(key.column), options)
    });
    let expr = AggregateExprBuilder::new(udaf, args)
        .schema(Arc::clone(schema))
        .alias("general")
        .order_by(sorts.collect())
        .with_distinct(distinct)
        .build()
        .expect("the aggregate is sound");
    let general = AggregateFunction::General(GeneralAggregate(Arc::new(expr)));
    let output = general.output_type(None).expect("it has a type");
    // An order that the function does not care about is none.
    if function == BitXor {
        order.clear();
    }
    Some((general, NaiveGeneral { function, column, order, distinct }, output))
}

pub(crate) fn answer(general: &NaiveGeneral, rows: &[&Row]) -> Value {
    let column = general.column;
    let normal = |value: &Value| if general.distinct { value.normalised() } else { value.clone() };
    // In the aggregate's order, ties by its argument.
    let mut rows: Vec<Row> = rows.iter().map(|row| row.iter().map(normal).collect()).collect();
    rows.sort_by(|left: &Row, right: &Row| {
        by_keys(&general.order, left, right).then_with(|| left[column].cmp(&right[column]))
    });
    let mut values: Vec<Value> = rows.iter().map(|row| row[column].clone()).collect();
    if general.distinct {
        values.dedup();
    }
    let present = values.iter().filter(|value| **value != Value::Null);
    match general.function {
        Function::First => values.first().cloned().unwrap_or(Value::Null),
        Function::Last => values.last().cloned().unwrap_or(Value::Null),
        Function::ArrayAgg if values.is_empty() => Value::Null,
        Function::ArrayAgg => Value::List(values),
        Function::BitXor => present
            .map(|value| if let Value::Int(value) = value { *value } else { panic!("{value:?}") })
            .reduce(|left, right| left ^ right)
            .map_or(Value::Null, Value::Int),
        Function::StringAgg => {
            let texts: Vec<&str> = present
                .map(|value| if let Value::Text(text) = value { text } else { panic!("{value:?}") })
                .map(String::as_str)
                .collect();
            if texts.is_empty() { Value::Null } else { Value::Text(texts.join("/")) }
        }
    }
}
