//! Which rows an accumulator takes in, and their values as what accumulators compute with.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, prep_null_mask_filter};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

/// The rows that a store takes in.
pub(super) struct Selection<'a> {
    slots: &'a [u32],
    weights: &'a [i64],
    /// By slot, the groups' numbers; empty if none are given.
    pub(super) ids: &'a [u64],
    selected: Option<BooleanBuffer>,
}

impl<'a> Selection<'a> {
    /// Every row: one slot and weight each.
    pub(super) fn all(slots: &'a [u32], weights: &'a [i64], ids: &'a [u64]) -> Self {
        Self { slots, weights, ids, selected: None }
    }

    /// Those where `filter` is true and `argument` not NULL.
    pub(super) fn of(&self, filter: Option<&ArrayRef>, argument: Option<&ArrayRef>) -> Self {
        let filter = filter.map(|mask| {
            let mask = mask.as_boolean();
            if mask.null_count() > 0 {
                prep_null_mask_filter(mask).values().clone()
            } else {
                mask.values().clone()
            }
        });
        let valid = argument
            .and_then(|column| column.logical_nulls())
            .filter(|nulls| nulls.null_count() > 0)
            .map(|nulls| nulls.inner().clone());
        let selected = match (filter, valid) {
            (Some(filter), Some(valid)) => Some(&filter & &valid),
            (one, other) => one.or(other),
        };
        Self { slots: self.slots, weights: self.weights, ids: self.ids, selected }
    }

    #[inline]
    pub(super) fn for_each(&self, mut f: impl FnMut(usize, u32, i64)) {
        let rows = self.slots.iter().zip(self.weights).enumerate();
        match &self.selected {
            None => rows.for_each(|(row, (&slot, &weight))| f(row, slot, weight)),
            Some(selected) => {
                for (row, (&slot, &weight)) in rows {
                    if selected.value(row) {
                        f(row, slot, weight);
                    }
                }
            }
        }
    }
}

/// Integers and decimals by their unscaled values.
pub(super) enum Integers {
    Small(Int64Array),
    Wide(Decimal128Array),
}

impl Integers {
    pub(super) fn of(column: &ArrayRef) -> Self {
        if wide_type(column.data_type()).is_some() {
            return Self::Wide(wide_values(column));
        }
        Self::Small(cast_to(column, &DataType::Int64).as_primitive::<Int64Type>().clone())
    }
}

pub(super) fn floats(column: &ArrayRef) -> Float64Array {
    cast_to(column, &DataType::Float64).as_primitive::<Float64Type>().clone()
}

pub(super) fn cast_to(column: &ArrayRef, data_type: &DataType) -> ArrayRef {
    if column.data_type() == data_type {
        return Arc::clone(column);
    }
    cast(column, data_type).expect("numbers cast to a wider type")
}

/// The decimal type of the unscaled values of what does not fit 64 bits.
pub(super) fn wide_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            Some(DataType::Decimal128(*p, *s))
        }
        DataType::UInt64 => Some(DataType::Decimal128(20, 0)),
        _ => None,
    }
}

pub(super) fn wide_values(column: &ArrayRef) -> Decimal128Array {
    let wide = wide_type(column.data_type()).expect("a type of 128 bits");
    cast_to(column, &wide).as_primitive::<Decimal128Type>().clone()
}

/// The digits after the decimal point.
pub(super) fn scale_of(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) => *s,
        _ => 0,
    }
}
