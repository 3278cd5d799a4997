//! Functions that tell the definition of what an oid stands for: `pg_get_indexdef(oid)`, ...

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Builder, ListArray, StringViewArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, create_udf,
};
use evert_view::{Catalog, Views};

use super::catalog::{OWNER, constraint_definition, index_column, index_definition};
use super::oids::{self, Class};
use super::server;
use crate::outlets::definition;

/// What is told of one oid; `None` is NULL.
#[derive(Clone, Copy)]
enum Tell {
    Text(fn(&Catalog, &[Class], i64) -> Option<String>),
    Truth(fn(&Catalog, &[Class], i64) -> Option<bool>),
    /// Of one of its columns, if the second argument names one by its place.
    Column(fn(&[Class], i64, i64) -> Option<String>),
}

/// The schemas in which names are found without saying so.
const VISIBLE: [&str; 2] = ["public", "pg_catalog"];

/// A function of an oid, and of more that does not matter here, over the catalog as it is.
struct Told {
    name: &'static str,
    tell: Tell,
    views: Views,
    signature: Signature,
}

/// The functions over a server's catalog.
pub(crate) fn functions(views: &Views) -> Vec<ScalarUDF> {
    use Tell::{Column, Text, Truth};
    let told = |name, tell: Tell| {
        let signature = Signature::variadic_any(Volatility::Stable);
        ScalarUDF::from(Told { name, tell, views: views.clone(), signature })
    };
    vec![
        expand_array(),
        server::transaction("txid_current", views),
        server::transaction("pg_current_xact_id", views),
        told(
            "pg_get_indexdef",
            Column(|classes, oid, column| {
                let index = find(classes, oid)?;
                match column {
                    0 => index_definition(classes, index),
                    column => Some(index_column(classes, index, column).unwrap_or_default()),
                }
            }),
        ),
        told(
            "pg_get_constraintdef",
            Text(|_, classes, oid| constraint_definition(classes, find(classes, oid)?)),
        ),
        told(
            "pg_get_viewdef",
            Text(|catalog, classes, oid| {
                let class = find(classes, oid)?;
                let outlet = || Some(definition(catalog.outlets.get(&class.name)?));
                catalog.views.get(&class.name).map(|view| view.sql.clone()).or_else(outlet)
            }),
        ),
        told(
            "pg_get_userbyid",
            Text(|_, _, oid| {
                Some(if oid == OWNER { "evert".into() } else { format!("unknown (OID={oid})") })
            }),
        ),
        told(
            "pg_table_is_visible",
            Truth(|_, classes, oid| {
                Some(VISIBLE.contains(&find(classes, oid)?.name.schema.as_str()))
            }),
        ),
    ]
}

/// `information_schema._pg_expandarray(numbers)`: each element `x` with its place `n`, as a list
/// for `unnest`.
fn expand_array() -> ScalarUDF {
    let numbers = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
    create_udf(
        "_pg_expandarray",
        vec![numbers],
        DataType::List(expanded()),
        Volatility::Immutable,
        Arc::new(|args| {
            let lists = args[0].to_array(1)?;
            let lists = lists.as_list::<i32>();
            let mut places = Int32Builder::with_capacity(lists.values().len());
            for row in 0..lists.len() {
                (1..=lists.value_length(row)).for_each(|place| places.append_value(place));
            }
            let first = lists.value_offsets()[0] as usize;
            let count = lists.value_offsets()[lists.len()] as usize - first;
            let values = lists.values().slice(first, count);
            let DataType::Struct(fields) = expanded().data_type().clone() else { unreachable!() };
            let pairs = StructArray::new(fields, vec![values, Arc::new(places.finish())], None);
            let offsets = OffsetBuffer::from_lengths(
                (0..lists.len()).map(|row| lists.value_length(row) as usize),
            );
            let lists =
                ListArray::new(expanded(), offsets, Arc::new(pairs), lists.nulls().cloned());
            Ok(ColumnarValue::Array(Arc::new(lists)))
        }),
    )
}

fn expanded() -> Arc<Field> {
    let field = |name| Field::new(name, DataType::Int32, true);
    let pair = DataType::Struct(vec![field("x"), field("n")].into());
    Arc::new(Field::new_list_field(pair, true))
}

fn find(classes: &[Class], oid: i64) -> Option<&Class> {
    classes.iter().find(|class| class.oid == oid)
}

impl ScalarUDFImpl for Told {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.tell {
            Tell::Text(_) | Tell::Column(_) => DataType::Utf8View,
            Tell::Truth(_) => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(oids) = args.args.first() else {
            return datafusion::common::exec_err!("{}() needs an oid", self.name);
        };
        let oids = cast(&oids.to_array(args.number_rows)?, &DataType::Int64)?;
        let catalog = self.views.catalog();
        let classes = oids::classes(&catalog);
        let columns = match args.args.get(1) {
            Some(columns) if matches!(self.tell, Tell::Column(_)) => {
                let columns = cast(&columns.to_array(args.number_rows)?, &DataType::Int64)?;
                Some(columns.as_primitive::<Int64Type>().clone())
            }
            _ => None,
        };
        let column = |row| match &columns {
            Some(columns) => columns.is_valid(row).then(|| columns.value(row)),
            None => Some(0),
        };
        let oids = oids.as_primitive::<Int64Type>().iter();
        let told: ArrayRef = match self.tell {
            Tell::Text(tell) => Arc::new(
                oids.map(|oid| tell(&catalog, &classes, oid?)).collect::<StringViewArray>(),
            ),
            Tell::Column(tell) => {
                let told = oids.enumerate().map(|(row, oid)| tell(&classes, oid?, column(row)?));
                Arc::new(told.collect::<StringViewArray>())
            }
            Tell::Truth(tell) => {
                Arc::new(oids.map(|oid| tell(&catalog, &classes, oid?)).collect::<BooleanArray>())
            }
        };
        Ok(ColumnarValue::Array(told))
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Told {}

impl Hash for Told {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
