//! Accumulators: for each aggregate a column over groups.
//!
//! Aggregates over the same argument and filter share what they can: sum and avg one sum, min,
//! max and every DISTINCT one multiset.

use std::collections::BTreeMap;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, prep_null_mask_filter};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, SchemaRef};
use std::sync::Arc;

use super::ordered::{Distinct, Ordered};
use crate::exact::{ExactFloatSum, ExactIntegerSum, OutOfRange, add_with_carry};
use crate::plan::{Aggregate, AggregateFunction, FoldError, SUM_PRECISION};

/// The accumulators of all groups.
#[derive(Debug)]
pub(super) struct Accumulators {
    stores: Vec<Store>,
    outputs: Vec<Output>,
}

/// One state over the rows that pass a filter and have an argument.
#[derive(Debug)]
struct Store {
    argument: Option<usize>,
    filter: Option<usize>,
    state: State,
}

#[derive(Debug)]
enum State {
    Count(Vec<i64>),
    Integers(IntegerSums),
    Floats(FloatSums),
    Ordered(Box<Ordered>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Count,
    Sum,
    Ordered,
}

/// Where a count is found.
#[derive(Clone, Copy, Debug)]
enum CountOf {
    GroupRows,
    Store(usize),
    Distinct(usize),
}

/// Where a sum is found.
#[derive(Clone, Copy, Debug)]
enum SumOf {
    Store(usize),
    Distinct(usize),
}

#[derive(Debug)]
struct Output {
    what: What,
    data_type: DataType,
    /// The reason if the result does not fit.
    overflow: String,
}

#[derive(Debug)]
enum What {
    Count(CountOf),
    SumInteger(SumOf, CountOf),
    SumFloat(SumOf, CountOf),
    AvgInteger(SumOf, CountOf),
    AvgDecimal { sum: SumOf, count: CountOf, scale_more: u32 },
    AvgFloat(SumOf, CountOf),
    Min(usize),
    Max(usize),
}

/// Exact integer sums by group. The part above 128 bits is rarely there.
#[derive(Debug, Default)]
pub(super) struct IntegerSums {
    low: Vec<i128>,
    high: BTreeMap<u32, i128>,
}

impl IntegerSums {
    pub(super) fn resize(&mut self, end: usize) {
        self.low.resize(end, 0);
    }

    #[inline]
    pub(super) fn add(&mut self, slot: u32, value: i128, weight: i64) {
        let carry = add_with_carry(&mut self.low[slot as usize], value, weight);
        if carry != 0 {
            *self.high.entry(slot).or_default() += carry;
        }
    }

    fn get(&self, slot: u32) -> ExactIntegerSum {
        let high = self.high.get(&slot).copied().unwrap_or(0);
        ExactIntegerSum::from_parts(self.low[slot as usize], high)
    }

    pub(super) fn clear(&mut self, slot: u32) {
        self.low[slot as usize] = 0;
        self.high.remove(&slot);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.low.capacity() * size_of::<i128>() + self.high.len() * 48
    }
}

/// Exact float sums by group.
#[derive(Debug, Default)]
pub(super) struct FloatSums {
    sums: Vec<ExactFloatSum>,
    heap_bytes: usize,
}

impl FloatSums {
    pub(super) fn resize(&mut self, end: usize) {
        self.sums.resize(end, ExactFloatSum::default());
    }

    #[inline]
    pub(super) fn add(&mut self, slot: u32, value: f64, weight: i64) {
        let sum = &mut self.sums[slot as usize];
        let before = sum.heap_bytes();
        sum.add(value, weight);
        self.heap_bytes += sum.heap_bytes() - before;
    }

    fn get(&self, slot: u32) -> &ExactFloatSum {
        &self.sums[slot as usize]
    }

    pub(super) fn clear(&mut self, slot: u32) {
        let old = std::mem::take(&mut self.sums[slot as usize]);
        self.heap_bytes -= old.heap_bytes();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<ExactFloatSum>() + self.heap_bytes
    }
}

impl Accumulators {
    pub(super) fn new(input: &SchemaRef, aggregates: &[Aggregate]) -> Result<Self, FoldError> {
        let mut accumulators = Self { stores: Vec::new(), outputs: Vec::new() };
        for aggregate in aggregates {
            let output = accumulators.compile(input, aggregate)?;
            accumulators.outputs.push(output);
        }
        Ok(accumulators)
    }

    fn compile(&mut self, input: &SchemaRef, aggregate: &Aggregate) -> Result<Output, FoldError> {
        use AggregateFunction::{Avg, Count, Max, Min, Sum};
        let argument = aggregate.argument.map(|column| input.field(column).data_type());
        let data_type = aggregate.function.output_type(argument)?;
        let what = match (&aggregate.function, argument) {
            (Count, _) => What::Count(self.count(input, aggregate)?),
            (Min, _) => What::Min(self.store(input, aggregate, Kind::Ordered)?),
            (Max, _) => What::Max(self.store(input, aggregate, Kind::Ordered)?),
            (Sum | Avg, None) => {
                return Err(FoldError::InvalidPlan("a sum has an argument".to_owned()));
            }
            (Sum, Some(argument)) => {
                let (sum, count) = (self.sum(input, aggregate)?, self.count(input, aggregate)?);
                if argument.is_floating() {
                    What::SumFloat(sum, count)
                } else {
                    What::SumInteger(sum, count)
                }
            }
            (Avg, Some(argument)) => {
                let (sum, count) = (self.sum(input, aggregate)?, self.count(input, aggregate)?);
                match (argument, &data_type) {
                    (argument, _) if argument.is_floating() => What::AvgFloat(sum, count),
                    (
                        DataType::Decimal32(_, s)
                        | DataType::Decimal64(_, s)
                        | DataType::Decimal128(_, s),
                        DataType::Decimal128(_, scale),
                    ) => What::AvgDecimal {
                        sum,
                        count,
                        scale_more: (scale - s).unsigned_abs().into(),
                    },
                    _ => What::AvgInteger(sum, count),
                }
            }
            (other, _) => {
                return Err(FoldError::InvalidPlan(format!("no operator for {}", other.name())));
            }
        };
        let overflow = format!("{} is out of range for {data_type}", aggregate.function.name());
        Ok(Output { what, data_type, overflow })
    }

    fn count(&mut self, input: &SchemaRef, aggregate: &Aggregate) -> Result<CountOf, FoldError> {
        if aggregate.distinct && aggregate.argument.is_some() {
            return Ok(CountOf::Distinct(self.store(input, aggregate, Kind::Ordered)?));
        }
        if aggregate.filter.is_none() && aggregate.argument.is_none() {
            return Ok(CountOf::GroupRows);
        }
        Ok(CountOf::Store(self.store(input, aggregate, Kind::Count)?))
    }

    fn sum(&mut self, input: &SchemaRef, aggregate: &Aggregate) -> Result<SumOf, FoldError> {
        if !aggregate.distinct {
            return Ok(SumOf::Store(self.store(input, aggregate, Kind::Sum)?));
        }
        let store = self.store(input, aggregate, Kind::Ordered)?;
        if let State::Ordered(ordered) = &mut self.stores[store].state {
            ordered.keep_distinct_sums();
        }
        Ok(SumOf::Distinct(store))
    }

    /// The store for an aggregate, shared if there is one.
    fn store(
        &mut self,
        input: &SchemaRef,
        aggregate: &Aggregate,
        kind: Kind,
    ) -> Result<usize, FoldError> {
        let Aggregate { argument, filter, .. } = *aggregate;
        let shared = self.stores.iter().position(|store| {
            (store.argument, store.filter, store.state.kind()) == (argument, filter, kind)
        });
        if let Some(shared) = shared {
            return Ok(shared);
        }
        let data_type = argument.map(|column| input.field(column).data_type());
        let state = match (kind, data_type) {
            (Kind::Sum, Some(t)) if t.is_floating() => State::Floats(FloatSums::default()),
            (Kind::Sum, Some(_)) => State::Integers(IntegerSums::default()),
            (Kind::Ordered, Some(t)) => State::Ordered(Box::new(Ordered::new(t)?)),
            _ => State::Count(Vec::new()),
        };
        self.stores.push(Store { argument, filter, state });
        Ok(self.stores.len() - 1)
    }

    pub(super) fn resize(&mut self, end: usize) {
        for store in &mut self.stores {
            match &mut store.state {
                State::Count(counts) => counts.resize(end, 0),
                State::Integers(sums) => sums.resize(end),
                State::Floats(sums) => sums.resize(end),
                State::Ordered(ordered) => ordered.resize(end),
            }
        }
    }

    pub(super) fn clear(&mut self, slot: u32) {
        for store in &mut self.stores {
            match &mut store.state {
                State::Count(counts) => counts[slot as usize] = 0,
                State::Integers(sums) => sums.clear(slot),
                State::Floats(sums) => sums.clear(slot),
                State::Ordered(ordered) => ordered.clear(slot),
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let bytes = self.stores.iter().map(|store| match &store.state {
            State::Count(counts) => counts.capacity() * size_of::<i64>(),
            State::Integers(sums) => sums.memory_bytes(),
            State::Floats(sums) => sums.memory_bytes(),
            State::Ordered(ordered) => ordered.memory_bytes(),
        });
        bytes.sum()
    }

    /// Adds rows to the groups in `slots`, one a row.
    pub(super) fn change(&mut self, rows: &RecordBatch, slots: &[u32], weights: &[i64]) {
        for store in &mut self.stores {
            store.change(rows, slots, weights);
        }
    }

    /// The aggregates of `groups`; where one does not fit, the reason goes to `errors`.
    pub(super) fn show(
        &self,
        group_rows: &[i64],
        groups: &[u32],
        errors: &mut [Option<String>],
    ) -> Vec<ArrayRef> {
        let mut view = View { stores: &self.stores, group_rows, groups, errors };
        self.outputs.iter().map(|output| view.show(output)).collect()
    }
}

impl State {
    fn kind(&self) -> Kind {
        match self {
            Self::Count(_) => Kind::Count,
            Self::Integers(_) | Self::Floats(_) => Kind::Sum,
            Self::Ordered(_) => Kind::Ordered,
        }
    }
}

impl Store {
    fn change(&mut self, rows: &RecordBatch, slots: &[u32], weights: &[i64]) {
        let argument = self.argument.map(|column| rows.column(column));
        let filter = self.filter.map(|column| {
            let mask = rows.column(column).as_boolean();
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
        let input = Selection { slots, weights, selected };
        match (&mut self.state, argument) {
            (State::Count(counts), _) => {
                input.for_each(|_, slot, weight| counts[slot as usize] += weight);
            }
            (State::Integers(sums), Some(column)) => match to_integers(column) {
                Integers::Small(values) => {
                    let values = values.values();
                    input.for_each(|row, slot, w| sums.add(slot, values[row].into(), w));
                }
                Integers::Wide(values) => {
                    let values = values.values();
                    input.for_each(|row, slot, w| sums.add(slot, values[row], w));
                }
            },
            (State::Floats(sums), Some(column)) => {
                let values = to_floats(column);
                let values = values.values();
                input.for_each(|row, slot, w| sums.add(slot, values[row], w));
            }
            (State::Ordered(ordered), Some(column)) => ordered.change(column, &input),
            (_, None) => unreachable!("sums and multisets have an argument"),
        }
    }
}

/// The rows that a store takes in.
pub(super) struct Selection<'a> {
    slots: &'a [u32],
    weights: &'a [i64],
    selected: Option<BooleanBuffer>,
}

impl Selection<'_> {
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

enum Integers {
    Small(Int64Array),
    Wide(Decimal128Array),
}

/// Integers and decimals by their unscaled values.
fn to_integers(column: &ArrayRef) -> Integers {
    match column.data_type() {
        DataType::Decimal128(..) => Integers::Wide(column.as_primitive().clone()),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => {
            Integers::Wide(cast_to(column, &DataType::Decimal128(*p, *s)).as_primitive().clone())
        }
        DataType::UInt64 => {
            Integers::Wide(cast_to(column, &DataType::Decimal128(20, 0)).as_primitive().clone())
        }
        _ => Integers::Small(cast_to(column, &DataType::Int64).as_primitive::<Int64Type>().clone()),
    }
}

fn to_floats(column: &ArrayRef) -> Float64Array {
    cast_to(column, &DataType::Float64).as_primitive::<Float64Type>().clone()
}

pub(super) fn cast_to(column: &ArrayRef, data_type: &DataType) -> ArrayRef {
    if column.data_type() == data_type {
        return Arc::clone(column);
    }
    cast(column, data_type).expect("numbers cast to a wider type")
}

/// The accumulators of some groups, to be shown.
struct View<'a> {
    stores: &'a [Store],
    group_rows: &'a [i64],
    groups: &'a [u32],
    errors: &'a mut [Option<String>],
}

impl View<'_> {
    fn show(&mut self, output: &Output) -> ArrayRef {
        match output.what {
            What::Count(count) => Arc::new(Int64Array::from_iter_values(
                self.groups.iter().map(|&group| self.count(count, group)),
            )),
            What::SumInteger(sum, count) => {
                self.decimals(output, count, |view, group, _| view.integer_sum(sum, group).sum())
            }
            What::AvgDecimal { sum, count, scale_more } => {
                self.decimals(output, count, |view, group, count| {
                    view.integer_sum(sum, group).average_decimal(count, scale_more)
                })
            }
            What::SumFloat(sum, count) => {
                self.floats(output, count, |view, group, _| view.float_sum(sum, group).sum())
            }
            What::AvgFloat(sum, count) => self.floats(output, count, |view, group, count| {
                Ok(view.float_sum(sum, group).average(count))
            }),
            What::AvgInteger(sum, count) => self.floats(output, count, |view, group, count| {
                Ok(view.integer_sum(sum, group).average_f64(count))
            }),
            What::Min(store) => self.ordered(store).extremes(self.groups, false),
            What::Max(store) => self.ordered(store).extremes(self.groups, true),
        }
    }

    fn decimals(
        &mut self,
        output: &Output,
        count: CountOf,
        value: impl Fn(&Self, u32, i64) -> Result<i128, OutOfRange>,
    ) -> ArrayRef {
        let DataType::Decimal128(_, scale) = output.data_type else {
            unreachable!("sums of integers are decimals")
        };
        let values: Decimal128Array = self.values(output, count, value).into_iter().collect();
        Arc::new(
            values
                .with_precision_and_scale(SUM_PRECISION, scale)
                .expect("the scale of a decimal is at most its precision"),
        )
    }

    fn floats(
        &mut self,
        output: &Output,
        count: CountOf,
        value: impl Fn(&Self, u32, i64) -> Result<f64, OutOfRange>,
    ) -> ArrayRef {
        Arc::new(Float64Array::from(self.values(output, count, value)))
    }

    /// NULL for groups without a value, and for those in error.
    fn values<T>(
        &mut self,
        output: &Output,
        count: CountOf,
        value: impl Fn(&Self, u32, i64) -> Result<T, OutOfRange>,
    ) -> Vec<Option<T>> {
        let mut values = Vec::with_capacity(self.groups.len());
        for (i, &group) in self.groups.iter().enumerate() {
            let count = self.count(count, group);
            if count <= 0 {
                values.push(None);
                continue;
            }
            match value(self, group, count) {
                Ok(value) => values.push(Some(value)),
                Err(OutOfRange) => {
                    values.push(None);
                    self.errors[i].get_or_insert_with(|| output.overflow.clone());
                }
            }
        }
        values
    }

    fn count(&self, count: CountOf, group: u32) -> i64 {
        match count {
            CountOf::GroupRows => self.group_rows[group as usize],
            CountOf::Store(store) => match &self.stores[store].state {
                State::Count(counts) => counts[group as usize],
                _ => unreachable!("a count is found in a count"),
            },
            CountOf::Distinct(store) => self.ordered(store).distinct().count(group),
        }
    }

    fn integer_sum(&self, sum: SumOf, group: u32) -> ExactIntegerSum {
        let sums = match sum {
            SumOf::Store(store) => match &self.stores[store].state {
                State::Integers(sums) => sums,
                _ => unreachable!("a sum of integers is found in one"),
            },
            SumOf::Distinct(store) => self.ordered(store).distinct().integers(),
        };
        sums.get(group)
    }

    fn float_sum(&self, sum: SumOf, group: u32) -> &ExactFloatSum {
        let sums = match sum {
            SumOf::Store(store) => match &self.stores[store].state {
                State::Floats(sums) => sums,
                _ => unreachable!("a sum of floats is found in one"),
            },
            SumOf::Distinct(store) => self.ordered(store).distinct().floats(),
        };
        sums.get(group)
    }

    fn ordered(&self, store: usize) -> &Ordered {
        match &self.stores[store].state {
            State::Ordered(ordered) => ordered,
            _ => unreachable!("an ordered store is one"),
        }
    }
}

impl Distinct {
    fn integers(&self) -> &IntegerSums {
        self.integer_sums().expect("distinct sums of integers are kept")
    }

    fn floats(&self) -> &FloatSums {
        self.float_sums().expect("distinct sums of floats are kept")
    }
}

/// The unscaled value of decimals, as `to_integers` sees them.
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
