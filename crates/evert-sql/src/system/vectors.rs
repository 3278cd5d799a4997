//! `int2vector` and `oidvector`, which count from 0 where arrays count from 1.
//!
//! Owns: subscripts in catalog queries, as calls that ask a column's field which of the two it is.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Builder, ListBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use evert_model::is_vector;
use sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, Ident, ObjectName, Subscript, TableAlias,
    TableFactor, Value,
};

use super::clients::{bare, call};

/// The functions that rewritten queries call.
pub(super) fn functions() -> [ScalarUDF; 2] {
    let offset = Offset { signature: Signature::any(1, Volatility::Immutable) };
    let subscripts = Subscripts { signature: Signature::any(2, Volatility::Immutable) };
    [ScalarUDF::from(offset), ScalarUDF::from(subscripts)]
}

/// `vector_offset(list)`: what to add to a vector's subscript for an array's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Offset {
    signature: Signature,
}

fn offset(field: &Field) -> i32 {
    i32::from(is_vector(field))
}

impl ScalarUDFImpl for Offset {
    fn name(&self) -> &str {
        "vector_offset"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let offset = i64::from(offset(&args.arg_fields[0]));
        Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(offset))))
    }
}

/// `catalog_subscripts(list, 1)`: the places of a list's elements, as a list for `unnest`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Subscripts {
    signature: Signature,
}

impl ScalarUDFImpl for Subscripts {
    fn name(&self) -> &str {
        "catalog_subscripts"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let lists = args.args[0].to_array(args.number_rows)?;
        let Some(lists) = lists.as_list_opt::<i32>() else {
            return exec_err!("generate_subscripts() takes an array");
        };
        let dimensions = cast(&args.args[1].to_array(args.number_rows)?, &DataType::Int64)?;
        let dimensions = dimensions.as_primitive::<Int64Type>();
        let first = 1 - offset(&args.arg_fields[0]);
        let mut places = ListBuilder::new(Int32Builder::new());
        for row in 0..lists.len() {
            let is_known = lists.is_valid(row) && dimensions.is_valid(row);
            // The catalogs' arrays have one dimension.
            let is_there = is_known && dimensions.value(row) == 1;
            let length = if is_there { lists.value_length(row) } else { 0 };
            (first..first + length).for_each(|place| places.values().append_value(place));
            places.append(is_known);
        }
        Ok(ColumnarValue::Array(Arc::new(places.finish())))
    }
}

fn is_generated(name: &ObjectName) -> bool {
    bare(name) == "generate_subscripts"
}

/// The rows of `generate_subscripts(...)`, unnested. `None` for other calls.
pub(super) fn unnested(function: &Function) -> Option<Expr> {
    is_generated(&function.name).then(|| {
        let name = ObjectName::from(vec![Ident::new("catalog_subscripts")]);
        call("unnest", Expr::Function(Function { name, ..function.clone() }))
    })
}

/// The same in FROM.
pub(super) fn unnested_table(factor: &TableFactor) -> Option<TableFactor> {
    let (name, args, alias, with_ordinality) = match factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } => {
            (name, &args.args, alias, with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            (name, args, alias, with_ordinality)
        }
        _ => return None,
    };
    let own_name = || {
        let name = Ident::new("generate_subscripts");
        TableAlias { explicit: true, name, columns: Vec::new(), at: None }
    };
    is_generated(name).then(|| TableFactor::UNNEST {
        alias: Some(alias.clone().unwrap_or_else(own_name)),
        array_exprs: vec![crate::rephrase::call("catalog_subscripts", args.clone())],
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: *with_ordinality,
    })
}

/// Counts the first subscript of a column from where the column counts.
pub(super) fn count_subscript(root: &Expr, chain: &mut [AccessExpr]) {
    // `t.a[1]`
    let path: Vec<Ident> = chain
        .iter()
        .map_while(|access| match access {
            AccessExpr::Dot(Expr::Identifier(name)) => Some(name.clone()),
            _ => None,
        })
        .collect();
    let column = match root {
        Expr::Identifier(first) if !path.is_empty() => {
            Expr::CompoundIdentifier(std::iter::once(first).chain(&path).cloned().collect())
        }
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) if path.is_empty() => root.clone(),
        _ => return,
    };
    let count = |index: &mut Expr| {
        // A member of an object has a name.
        if !matches!(index, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
        {
            *index = Expr::BinaryOp {
                left: Box::new(Expr::Nested(Box::new(index.clone()))),
                op: BinaryOperator::Plus,
                right: Box::new(call("vector_offset", column.clone())),
            };
        }
    };
    match chain.get_mut(path.len()) {
        Some(AccessExpr::Subscript(Subscript::Index { index })) => count(index),
        Some(AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. })) => {
            lower_bound.iter_mut().chain(upper_bound).for_each(count);
        }
        _ => {}
    }
}
