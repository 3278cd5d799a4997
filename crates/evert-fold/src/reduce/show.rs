//! What aggregates show: accumulators as columns of results.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;

use super::accumulators::{State, Store};
use super::ordered::Ordered;
use super::sums::BooleanCounts;
use crate::exact::{ExactFloatSum, ExactIntegerSum, ExactMoments, OutOfRange};
use crate::plan::{SUM_PRECISION, Spread};

/// Where a count is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum CountOf {
    GroupRows,
    Store(usize),
    Distinct(usize),
}

/// Where a sum is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum SumOf {
    Store(usize),
    Distinct(usize),
}

#[derive(Debug)]
pub(super) struct Output {
    pub(super) what: What,
    pub(super) data_type: DataType,
    /// The reason if the result does not fit.
    pub(super) overflow: String,
}

#[derive(Debug)]
pub(super) enum What {
    Count(CountOf),
    SumInteger(SumOf, CountOf),
    SumFloat(SumOf, CountOf),
    AvgInteger(SumOf, CountOf),
    AvgDecimal { sum: SumOf, count: CountOf, scale_more: u32 },
    AvgFloat(SumOf, CountOf),
    Spread { spread: Spread, moments: SumOf, count: CountOf, scale: i8 },
    BoolAnd(usize),
    BoolOr(usize),
    Min(usize),
    Max(usize),
    General(usize),
}

/// The accumulators of some groups, to be shown.
pub(super) struct View<'a> {
    pub(super) stores: &'a [Store],
    pub(super) group_rows: &'a [i64],
    pub(super) groups: &'a [u32],
    pub(super) errors: &'a mut [Option<String>],
}

impl View<'_> {
    pub(super) fn show(&mut self, output: &Output) -> ArrayRef {
        match output.what {
            What::Count(count) => Arc::new(Int64Array::from_iter_values(
                self.groups.iter().map(|&group| self.count(count, group)),
            )),
            What::SumInteger(sum, count) => self.decimals(output, count, |view, group, _| {
                view.integer_sum(sum, group).sum().map(Some)
            }),
            What::AvgDecimal { sum, count, scale_more } => {
                self.decimals(output, count, |view, group, count| {
                    view.integer_sum(sum, group).average_decimal(count, scale_more).map(Some)
                })
            }
            What::SumFloat(sum, count) => self
                .floats(output, count, |view, group, _| view.float_sum(sum, group).sum().map(Some)),
            What::AvgFloat(sum, count) => self.floats(output, count, |view, group, count| {
                Ok(Some(view.float_sum(sum, group).average(count)))
            }),
            What::AvgInteger(sum, count) => self.floats(output, count, |view, group, count| {
                Ok(Some(view.integer_sum(sum, group).average_f64(count)))
            }),
            What::Spread { spread, moments, count, scale } => {
                self.floats(output, count, |view, group, count| {
                    view.moments(moments, group).spread(spread, count, scale)
                })
            }
            What::BoolAnd(store) => self.booleans(store, BooleanCounts::all),
            What::BoolOr(store) => self.booleans(store, BooleanCounts::any),
            What::Min(store) => self.ordered(store).extremes(self.groups, false),
            What::Max(store) => self.ordered(store).extremes(self.groups, true),
            What::General(store) => self.general(output, store),
        }
    }

    fn decimals(
        &mut self,
        output: &Output,
        count: CountOf,
        value: impl Fn(&Self, u32, i64) -> Result<Option<i128>, OutOfRange>,
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
        value: impl Fn(&Self, u32, i64) -> Result<Option<f64>, OutOfRange>,
    ) -> ArrayRef {
        Arc::new(Float64Array::from(self.values(output, count, value)))
    }

    /// NULL for groups without a value, and for those in error.
    fn values<T>(
        &mut self,
        output: &Output,
        count: CountOf,
        value: impl Fn(&Self, u32, i64) -> Result<Option<T>, OutOfRange>,
    ) -> Vec<Option<T>> {
        let mut values = Vec::with_capacity(self.groups.len());
        for (i, &group) in self.groups.iter().enumerate() {
            let count = self.count(count, group);
            if count <= 0 {
                values.push(None);
                continue;
            }
            values.push(value(self, group, count).unwrap_or_else(|OutOfRange| {
                self.errors[i].get_or_insert_with(|| output.overflow.clone());
                None
            }));
        }
        values
    }

    fn booleans(
        &self,
        store: usize,
        value: impl Fn(&BooleanCounts, u32) -> Option<bool>,
    ) -> ArrayRef {
        let State::Booleans(counts) = &self.stores[store].state else {
            unreachable!("booleans are counted as such")
        };
        let values = self.groups.iter().map(|&group| value(counts, group));
        Arc::new(values.collect::<BooleanArray>())
    }

    fn general(&mut self, output: &Output, store: usize) -> ArrayRef {
        let State::General(general) = &self.stores[store].state else {
            unreachable!("a general aggregate has a store of its own")
        };
        let null = ScalarValue::try_from(&output.data_type).expect("every type has a NULL");
        let mut values = Vec::with_capacity(self.groups.len());
        for (i, &group) in self.groups.iter().enumerate() {
            values.push(match general.shown(group) {
                Ok(value) => value.clone(),
                Err(reason) => {
                    self.errors[i].get_or_insert_with(|| reason.to_owned());
                    null.clone()
                }
            });
        }
        let values = ScalarValue::iter_to_array(values).expect("an aggregate's results are alike");
        if values.data_type() == &output.data_type {
            return values;
        }
        cast(&values, &output.data_type).expect("an aggregate gives the type that it declares")
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

    fn moments(&self, moments: SumOf, group: u32) -> &ExactMoments {
        let moments = match moments {
            SumOf::Store(store) => match &self.stores[store].state {
                State::Moments(moments) => moments,
                _ => unreachable!("sums of squares are found in one"),
            },
            SumOf::Distinct(store) => self.ordered(store).distinct().moments(),
        };
        moments.get(group)
    }

    fn ordered(&self, store: usize) -> &Ordered {
        match &self.stores[store].state {
            State::Ordered(ordered) => ordered,
            _ => unreachable!("an ordered store is one"),
        }
    }
}
