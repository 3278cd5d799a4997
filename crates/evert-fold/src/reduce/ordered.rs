//! Ordered values by group: min, max, and what DISTINCT aggregates derive.

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Int64Type};
use std::sync::Arc;

use super::sums::{FloatSums, IntegerSums, MomentSums};
use super::values::{Selection, cast_to, floats, wide_type, wide_values};
use crate::FoldError;
use crate::keys::{KeyCodec, canonical_f64};
use crate::multiset::Multiset;
use crate::sets::{Sets, ValueSink};
use crate::state::StateError;

/// A multiset of values for each group.
#[derive(Debug)]
pub(super) struct Ordered {
    data_type: DataType,
    values: Values,
    distinct: Distinct,
}

/// Values as what orders them.
#[derive(Debug)]
enum Values {
    /// Integers, dates, timestamps, booleans.
    Integers(Sets<i64>),
    /// Floats by codes that order as they do.
    Floats(Sets<i64>),
    /// Decimals by their unscaled values.
    Wide(Sets<i128>),
    /// Anything else by its key bytes.
    Bytes { codec: KeyCodec, sets: Sets<Box<[u8]>> },
}

/// What is known of the distinct values of each group.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    counts: Vec<i64>,
    integers: Option<IntegerSums>,
    floats: Option<FloatSums>,
    moments: Option<MomentSums>,
}

impl Ordered {
    pub(super) fn new(data_type: &DataType) -> Result<Self, FoldError> {
        let values = match data_type {
            t if t.is_floating() => Values::Floats(Sets::default()),
            t if wide_type(t).is_some() => Values::Wide(Sets::default()),
            t if t.is_integer() || t.is_temporal() && !is_interval(t) => {
                Values::Integers(Sets::default())
            }
            DataType::Boolean => Values::Integers(Sets::default()),
            other => {
                // In arrays NULLs are the greatest, as in Postgres.
                let options = SortOptions { descending: false, nulls_first: false };
                let codec = KeyCodec::with_options([(other.clone(), options)])?;
                Values::Bytes { codec, sets: Sets::default() }
            }
        };
        Ok(Self { data_type: data_type.clone(), values, distinct: Distinct::default() })
    }

    /// Keeps the sums of distinct values from now on. Called before any row is added.
    pub(super) fn keep_distinct_sums(&mut self) {
        match self.values {
            Values::Floats(_) => drop(self.distinct.floats.get_or_insert_default()),
            _ => drop(self.distinct.integers.get_or_insert_default()),
        }
    }

    /// Keeps the sums of distinct values and of their squares. Called before any row is added.
    pub(super) fn keep_distinct_moments(&mut self) {
        self.distinct.moments.get_or_insert_default();
    }

    pub(super) fn resize(&mut self, end: usize) {
        match &mut self.values {
            Values::Integers(sets) | Values::Floats(sets) => sets.resize(end),
            Values::Wide(sets) => sets.resize(end),
            Values::Bytes { sets, .. } => sets.resize(end),
        }
        self.distinct.resize(end);
    }

    pub(super) fn clear(&mut self, slot: u32) {
        match &mut self.values {
            Values::Integers(sets) | Values::Floats(sets) => sets.clear(slot),
            Values::Wide(sets) => sets.clear(slot),
            Values::Bytes { sets, .. } => sets.clear(slot),
        }
        self.distinct.clear(slot);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Integers(sets) | Values::Floats(sets) => sets.memory_bytes(),
            Values::Wide(sets) => sets.memory_bytes(),
            Values::Bytes { sets, .. } => sets.memory_bytes(),
        };
        values + self.distinct.memory_bytes()
    }

    pub(super) fn distinct(&self) -> &Distinct {
        &self.distinct
    }

    pub(super) fn change(&mut self, column: &ArrayRef, input: &Selection<'_>) {
        let (distinct, ids) = (&mut self.distinct, input.ids);
        match &mut self.values {
            Values::Integers(sets) => {
                let values = cast_to(column, &DataType::Int64);
                let values = values.as_primitive::<Int64Type>().values();
                input.for_each(|row, slot, weight| {
                    let value = values[row];
                    let step = sets.add(slot, ids, &value, weight);
                    distinct.step(slot, step, Number::Integer(value.into()));
                });
            }
            Values::Floats(sets) => {
                let values = floats(column);
                let values = values.values();
                input.for_each(|row, slot, weight| {
                    let value = canonical_f64(values[row]);
                    let step = sets.add(slot, ids, &float_code(value), weight);
                    distinct.step(slot, step, Number::Float(value));
                });
            }
            Values::Wide(sets) => {
                let values = wide_values(column);
                let values = values.values();
                input.for_each(|row, slot, weight| {
                    let value = values[row];
                    let step = sets.add(slot, ids, &value, weight);
                    distinct.step(slot, step, Number::Integer(value));
                });
            }
            Values::Bytes { codec, sets } => {
                let keys = codec.encode_normalised(std::slice::from_ref(column), column.len());
                input.for_each(|row, slot, weight| {
                    let step = sets.add(slot, ids, keys.get(row), weight);
                    distinct.step(slot, step, Number::None);
                });
            }
        }
    }

    /// The least or greatest value of each group.
    pub(super) fn extremes(&self, groups: &[u32], greatest: bool) -> ArrayRef {
        match &self.values {
            Values::Integers(sets) => {
                let values = groups.iter().map(|&g| extreme(sets.get(g), greatest).copied());
                self.cast_back(Arc::new(values.collect::<Int64Array>()))
            }
            Values::Floats(sets) => {
                let values = groups
                    .iter()
                    .map(|&g| extreme(sets.get(g), greatest).map(|&code| float_of_code(code)));
                self.cast_back(Arc::new(values.collect::<Float64Array>()))
            }
            Values::Wide(sets) => {
                let values = groups.iter().map(|&g| extreme(sets.get(g), greatest).copied());
                let wide = wide_type(&self.data_type).expect("a type of 128 bits");
                let values: Decimal128Array = values.collect();
                self.cast_back(Arc::new(values.with_data_type(wide)))
            }
            Values::Bytes { codec, sets } => {
                // The key bytes of NULL stand for groups without a value.
                let null = arrow::array::new_null_array(&self.data_type, 1);
                let null = codec.encode(&[null], 1);
                let keys = groups
                    .iter()
                    .map(|&g| extreme(sets.get(g), greatest).map_or(null.get(0), |bytes| bytes));
                codec.decode(keys).pop().expect("one column")
            }
        }
    }

    fn cast_back(&self, values: ArrayRef) -> ArrayRef {
        if values.data_type() == &self.data_type {
            return values;
        }
        cast(&values, &self.data_type).expect("the values came from this type")
    }

    pub(super) fn track(&mut self) {
        match &mut self.values {
            Values::Integers(sets) | Values::Floats(sets) => sets.track(),
            Values::Wide(sets) => sets.track(),
            Values::Bytes { sets, .. } => sets.track(),
        }
    }

    pub(super) fn save(&mut self, ids: &[u64], next: u64, sink: &mut ValueSink<'_>) {
        match &mut self.values {
            Values::Integers(sets) | Values::Floats(sets) => sets.save(ids, next, sink),
            Values::Wide(sets) => sets.save(ids, next, sink),
            Values::Bytes { sets, .. } => sets.save(ids, next, sink),
        }
    }

    pub(super) fn loaded(&mut self, next: u64) {
        match &mut self.values {
            Values::Integers(sets) | Values::Floats(sets) => sets.loaded(next),
            Values::Wide(sets) => sets.loaded(next),
            Values::Bytes { sets, .. } => sets.loaded(next),
        }
    }

    /// Takes one saved value.
    pub(super) fn load(&mut self, slot: u32, value: &[u8], count: i64) -> Result<(), StateError> {
        let distinct = &mut self.distinct;
        match &mut self.values {
            Values::Integers(sets) => {
                let value = Sets::<i64>::read(value)?;
                let step = sets.step(slot, &value, count);
                distinct.step(slot, step, Number::Integer(value.into()));
            }
            Values::Floats(sets) => {
                let code = Sets::<i64>::read(value)?;
                let step = sets.step(slot, &code, count);
                distinct.step(slot, step, Number::Float(float_of_code(code)));
            }
            Values::Wide(sets) => {
                let value = Sets::<i128>::read(value)?;
                let step = sets.step(slot, &value, count);
                distinct.step(slot, step, Number::Integer(value));
            }
            Values::Bytes { sets, .. } => {
                let step = sets.step(slot, value, count);
                distinct.step(slot, step, Number::None);
            }
        }
        Ok(())
    }
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

fn extreme<T: Ord>(set: &Multiset<T>, greatest: bool) -> Option<&T> {
    if greatest { set.max() } else { set.min() }
}

/// Codes order as floats do, NaN above all. Canonical floats only.
fn float_code(value: f64) -> i64 {
    flip(value.to_bits() as i64)
}

fn float_of_code(code: i64) -> f64 {
    f64::from_bits(flip(code) as u64)
}

/// Negative floats grow with their magnitude bits: turned round, all codes ascend.
fn flip(bits: i64) -> i64 {
    bits ^ ((bits >> 63) & i64::MAX)
}

enum Number {
    None,
    Integer(i128),
    Float(f64),
}

impl Distinct {
    pub(super) fn count(&self, slot: u32) -> i64 {
        self.counts[slot as usize]
    }

    pub(super) fn integers(&self) -> &IntegerSums {
        self.integers.as_ref().expect("distinct sums of integers are kept")
    }

    pub(super) fn floats(&self) -> &FloatSums {
        self.floats.as_ref().expect("distinct sums of floats are kept")
    }

    pub(super) fn moments(&self) -> &MomentSums {
        self.moments.as_ref().expect("distinct sums of squares are kept")
    }

    #[inline]
    fn step(&mut self, slot: u32, step: i64, value: Number) {
        if step == 0 {
            return;
        }
        self.counts[slot as usize] += step;
        match value {
            Number::None => {}
            Number::Integer(value) => {
                if let Some(sums) = &mut self.integers {
                    sums.add(slot, value, step);
                }
                if let Some(moments) = &mut self.moments {
                    moments.add_integer(slot, value, step);
                }
            }
            Number::Float(value) => {
                if let Some(sums) = &mut self.floats {
                    sums.add(slot, value, step);
                }
                if let Some(moments) = &mut self.moments {
                    moments.add_float(slot, value, step);
                }
            }
        }
    }

    fn resize(&mut self, end: usize) {
        self.counts.resize(end, 0);
        self.integers.iter_mut().for_each(|sums| sums.resize(end));
        self.floats.iter_mut().for_each(|sums| sums.resize(end));
        self.moments.iter_mut().for_each(|moments| moments.resize(end));
    }

    fn clear(&mut self, slot: u32) {
        self.counts[slot as usize] = 0;
        self.integers.iter_mut().for_each(|sums| sums.clear(slot));
        self.floats.iter_mut().for_each(|sums| sums.clear(slot));
        self.moments.iter_mut().for_each(|moments| moments.clear(slot));
    }

    fn memory_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
            + self.integers.as_ref().map_or(0, IntegerSums::memory_bytes)
            + self.floats.as_ref().map_or(0, FloatSums::memory_bytes)
            + self.moments.as_ref().map_or(0, MomentSums::memory_bytes)
    }
}
