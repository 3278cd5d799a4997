//! Functions that Evert adds to DataFusion's or has of its own kind.

mod arithmetic;
mod array_text;
mod beside;
mod bytes;
mod catalog;
mod clock;
mod constants;
mod conversions;
mod dates;
mod decimals;
mod exact;
mod extremes;
mod floats;
mod in_order;
mod json;
mod list_shapes;
mod lists;
mod mathematics;
mod moments;
mod ordered_sets;
mod pairs;
mod regexps;
mod rows;
mod script;
mod sessions;
mod shifted;
mod single;
mod sleep;
mod sorted;
mod spread;
mod strings;
mod sums;
mod texts;
mod tumble;
mod values;
mod windows;

pub(crate) use arithmetic::{CheckedArithmetic, checked_decimals};
pub(crate) use array_text::{array_in, array_out, items_of};
pub(crate) use beside::OF_ARRAYS;
pub(crate) use catalog::{SERVER_VERSION, SessionFacts, SharedSettings, Wishes, catalog_functions};
pub(crate) use clock::{CURRENT_DATE, LOCALTIMESTAMP, NOW, clock_functions};
pub(crate) use constants::{ConstantOperators, apart_from_text, constant_as, constant_text};
pub(crate) use conversions::{
    NUMERIC_SCALE, as_uuid, conversion, convert_value, converted, converted_argument,
};
pub(crate) use floats::{compared, has_floats, in_one_form};
pub(crate) use in_order::in_order;
pub(crate) use json::{JsonOperators, gives_json, json_functions, marked_json};
pub(crate) use lists::{ArrayOperators, in_list_order};
pub(crate) use moments::{TimeOperators, interval_of, is_read, times_of_texts};
pub(crate) use ordered_sets::{check_percentile, is_ordered_set};
pub(crate) use script::{fold_column, fold_function};
pub(crate) use sessions::{SESSION_END, SESSION_START, session_functions};
pub(crate) use shifted::shifted_functions;
pub(crate) use single::single_row;
pub(crate) use sums::{AVG, SUM};
pub(crate) use texts::{is_written, texts_of};
pub(crate) use tumble::{check_windows, tumble_functions};
pub(crate) use windows::{row_number, window_functions};

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// Evert's own aggregates, which take the place of DataFusion's.
pub(crate) fn aggregate_functions() -> impl Iterator<Item = &'static Arc<AggregateUDF>> {
    sums::functions()
        .iter()
        .chain(extremes::functions())
        .chain(spread::functions())
        .chain(sorted::functions())
        .chain(ordered_sets::functions())
}

/// Functions as Postgres has them, most in the place of DataFusion's of the same name.
pub(crate) fn postgres_functions() -> impl Iterator<Item = &'static Arc<ScalarUDF>> {
    dates::date_functions()
        .iter()
        .chain(moments::moment_functions())
        .chain(mathematics::mathematical_functions())
        .chain(strings::string_functions())
        .chain(values::value_functions())
        .chain(regexps::regexp_functions())
        .chain(bytes::byte_functions())
        .chain(list_shapes::shape_functions())
        .chain(lists::list_functions())
        .chain(beside::functions_beside())
        .chain(sleep::functions())
}
