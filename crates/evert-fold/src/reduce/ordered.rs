//! Ordered values by group: min, max, and what DISTINCT aggregates derive.

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use std::sync::Arc;

use super::accumulators::{FloatSums, IntegerSums, Selection, cast_to, wide_type, wide_values};
use super::multiset::Multiset;
use crate::FoldError;
use crate::keys::{KeyCodec, canonical_f64};

/// A multiset of values for each group.
#[derive(Debug)]
pub(super) struct Ordered {
    data_type: DataType,
    sets: Sets,
    set_bytes: usize,
    distinct: Distinct,
}

/// Values as what orders them.
#[derive(Debug)]
enum Sets {
    /// Integers, dates, timestamps, booleans.
    Integers(Vec<Multiset<i64>>),
    /// Floats by codes that order as they do.
    Floats(Vec<Multiset<i64>>),
    /// Decimals by their unscaled values.
    Wide(Vec<Multiset<i128>>),
    /// Anything else by its key bytes.
    Bytes { codec: KeyCodec, sets: Vec<Multiset<Box<[u8]>>> },
}

/// What is known of the distinct values of each group.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    counts: Vec<i64>,
    sums: Option<DistinctSums>,
}

#[derive(Debug)]
enum DistinctSums {
    Integers(IntegerSums),
    Floats(FloatSums),
}

impl Ordered {
    pub(super) fn new(data_type: &DataType) -> Result<Self, FoldError> {
        let sets = match data_type {
            t if t.is_floating() => Sets::Floats(Vec::new()),
            t if wide_type(t).is_some() => Sets::Wide(Vec::new()),
            t if t.is_integer() || t.is_temporal() && !is_interval(t) => Sets::Integers(Vec::new()),
            DataType::Boolean => Sets::Integers(Vec::new()),
            other => Sets::Bytes { codec: KeyCodec::new([other])?, sets: Vec::new() },
        };
        let distinct = Distinct::default();
        Ok(Self { data_type: data_type.clone(), sets, set_bytes: 0, distinct })
    }

    /// Keeps the sums of distinct values from now on. Called before any row is added.
    pub(super) fn keep_distinct_sums(&mut self) {
        self.distinct.sums.get_or_insert_with(|| match self.sets {
            Sets::Floats(_) => DistinctSums::Floats(FloatSums::default()),
            _ => DistinctSums::Integers(IntegerSums::default()),
        });
    }

    pub(super) fn resize(&mut self, end: usize) {
        match &mut self.sets {
            Sets::Integers(sets) | Sets::Floats(sets) => sets.resize_with(end, Default::default),
            Sets::Wide(sets) => sets.resize_with(end, Default::default),
            Sets::Bytes { sets, .. } => sets.resize_with(end, Default::default),
        }
        self.distinct.resize(end);
    }

    pub(super) fn clear(&mut self, slot: u32) {
        let at = slot as usize;
        self.set_bytes -= match &mut self.sets {
            Sets::Integers(sets) | Sets::Floats(sets) => std::mem::take(&mut sets[at]).heap_bytes(),
            Sets::Wide(sets) => std::mem::take(&mut sets[at]).heap_bytes(),
            Sets::Bytes { sets, .. } => std::mem::take(&mut sets[at]).heap_bytes(),
        };
        self.distinct.clear(slot);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let slots = match &self.sets {
            Sets::Integers(sets) | Sets::Floats(sets) => {
                sets.capacity() * size_of::<Multiset<i64>>()
            }
            Sets::Wide(sets) => sets.capacity() * size_of::<Multiset<i128>>(),
            Sets::Bytes { sets, .. } => sets.capacity() * size_of::<Multiset<Box<[u8]>>>(),
        };
        slots + self.set_bytes + self.distinct.memory_bytes()
    }

    pub(super) fn distinct(&self) -> &Distinct {
        &self.distinct
    }

    pub(super) fn change(&mut self, column: &ArrayRef, input: &Selection<'_>) {
        let (bytes, distinct) = (&mut self.set_bytes, &mut self.distinct);
        match &mut self.sets {
            Sets::Integers(sets) => {
                let values = cast_to(column, &DataType::Int64);
                let values = values.as_primitive::<Int64Type>().values();
                input.for_each(|row, slot, weight| {
                    let value = values[row];
                    let step = add(&mut sets[slot as usize], &value, weight, |v| *v, bytes);
                    distinct.step(slot, step, Number::Integer(value.into()));
                });
            }
            Sets::Floats(sets) => {
                let values = cast_to(column, &DataType::Float64);
                let values = values.as_primitive::<Float64Type>().values();
                input.for_each(|row, slot, weight| {
                    let value = canonical_f64(values[row]);
                    let set = &mut sets[slot as usize];
                    let step = add(set, &float_code(value), weight, |v| *v, bytes);
                    distinct.step(slot, step, Number::Float(value));
                });
            }
            Sets::Wide(sets) => {
                let values = wide_values(column);
                let values = values.values();
                input.for_each(|row, slot, weight| {
                    let value = values[row];
                    let step = add(&mut sets[slot as usize], &value, weight, |v| *v, bytes);
                    distinct.step(slot, step, Number::Integer(value));
                });
            }
            Sets::Bytes { codec, sets } => {
                let keys = codec.encode(std::slice::from_ref(column), column.len());
                input.for_each(|row, slot, weight| {
                    let set = &mut sets[slot as usize];
                    let step = add(set, keys.get(row), weight, |v| v.into(), bytes);
                    distinct.step(slot, step, Number::None);
                });
            }
        }
    }

    /// The least or greatest value of each group.
    pub(super) fn extremes(&self, groups: &[u32], greatest: bool) -> ArrayRef {
        match &self.sets {
            Sets::Integers(sets) => {
                let values = groups.iter().map(|&g| extreme(&sets[g as usize], greatest).copied());
                self.cast_back(Arc::new(values.collect::<Int64Array>()))
            }
            Sets::Floats(sets) => {
                let values = groups.iter().map(|&g| {
                    extreme(&sets[g as usize], greatest).map(|&code| float_of_code(code))
                });
                self.cast_back(Arc::new(values.collect::<Float64Array>()))
            }
            Sets::Wide(sets) => {
                let values = groups.iter().map(|&g| extreme(&sets[g as usize], greatest).copied());
                let wide = wide_type(&self.data_type).expect("a type of 128 bits");
                let values: Decimal128Array = values.collect();
                self.cast_back(Arc::new(values.with_data_type(wide)))
            }
            Sets::Bytes { codec, sets } => {
                // The key bytes of NULL stand for groups without a value.
                let null = arrow::array::new_null_array(&self.data_type, 1);
                let null = codec.encode(&[null], 1);
                let keys = groups.iter().map(|&g| {
                    extreme(&sets[g as usize], greatest).map_or(null.get(0), |bytes| bytes)
                });
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
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

fn extreme<T: Ord>(set: &Multiset<T>, greatest: bool) -> Option<&T> {
    if greatest { set.max() } else { set.min() }
}

/// Changes a count; gives 1 if the value has come, -1 if it has gone.
fn add<T, Q>(
    set: &mut Multiset<T>,
    value: &Q,
    weight: i64,
    own: impl FnOnce(&Q) -> T,
    heap_bytes: &mut usize,
) -> i64
where
    T: Ord + std::borrow::Borrow<Q>,
    Q: Ord + ?Sized,
{
    if weight == 0 {
        return 0;
    }
    *heap_bytes -= set.heap_bytes();
    let after = set.add(value, weight, own);
    *heap_bytes += set.heap_bytes();
    i64::from(after > 0) - i64::from(after - weight > 0)
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

    pub(super) fn integer_sums(&self) -> Option<&IntegerSums> {
        match &self.sums {
            Some(DistinctSums::Integers(sums)) => Some(sums),
            _ => None,
        }
    }

    pub(super) fn float_sums(&self) -> Option<&FloatSums> {
        match &self.sums {
            Some(DistinctSums::Floats(sums)) => Some(sums),
            _ => None,
        }
    }

    #[inline]
    fn step(&mut self, slot: u32, step: i64, value: Number) {
        if step == 0 {
            return;
        }
        self.counts[slot as usize] += step;
        match (&mut self.sums, value) {
            (Some(DistinctSums::Integers(sums)), Number::Integer(value)) => {
                sums.add(slot, value, step);
            }
            (Some(DistinctSums::Floats(sums)), Number::Float(value)) => {
                sums.add(slot, value, step);
            }
            _ => {}
        }
    }

    fn resize(&mut self, end: usize) {
        self.counts.resize(end, 0);
        match &mut self.sums {
            Some(DistinctSums::Integers(sums)) => sums.resize(end),
            Some(DistinctSums::Floats(sums)) => sums.resize(end),
            None => {}
        }
    }

    fn clear(&mut self, slot: u32) {
        self.counts[slot as usize] = 0;
        match &mut self.sums {
            Some(DistinctSums::Integers(sums)) => sums.clear(slot),
            Some(DistinctSums::Floats(sums)) => sums.clear(slot),
            None => {}
        }
    }

    fn memory_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
            + match &self.sums {
                Some(DistinctSums::Integers(sums)) => sums.memory_bytes(),
                Some(DistinctSums::Floats(sums)) => sums.memory_bytes(),
                None => 0,
            }
    }
}
