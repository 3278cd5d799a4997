//! Accumulators: for each aggregate a column over groups.
//!
//! Aggregates over the same argument and filter share what they can: sum and avg one sum, min,
//! max and every DISTINCT one multiset.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};

use super::general::General;
use super::ordered::Ordered;
use super::show::{CountOf, Output, SumOf, View, What};
use super::sums::{BooleanCounts, FloatSums, IntegerSums, MomentSums};
use super::values::{Selection, scale_of};
use crate::plan::{Aggregate, AggregateFunction, FoldError, GeneralAggregate};
use crate::sets::ValueSink;
use crate::state::StateError;
use crate::state::entry::{Reader, Writer, malformed};

/// The accumulators of all groups.
#[derive(Debug)]
pub(super) struct Accumulators {
    stores: Vec<Store>,
    outputs: Vec<Output>,
}

/// One state over the rows that pass a filter and have an argument.
#[derive(Debug)]
pub(super) struct Store {
    argument: Option<usize>,
    filter: Option<usize>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Count(Vec<i64>),
    Integers(IntegerSums),
    Floats(FloatSums),
    Moments(MomentSums),
    Booleans(BooleanCounts),
    Ordered(Box<Ordered>),
    General(Box<General>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Count,
    Sum,
    Moments,
    Booleans,
    Ordered,
    General,
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
        use AggregateFunction::{Avg, BoolAnd, BoolOr, Count, General, Max, Min, Spread, Sum};
        let argument = aggregate.argument.map(|column| input.field(column).data_type());
        let data_type = aggregate.function.output_type(argument)?;
        let what = match (&aggregate.function, argument) {
            (Count, _) => What::Count(self.count(input, aggregate)?),
            (Min, _) => What::Min(self.store(input, aggregate, Kind::Ordered)?),
            (Max, _) => What::Max(self.store(input, aggregate, Kind::Ordered)?),
            (BoolAnd, _) => What::BoolAnd(self.store(input, aggregate, Kind::Booleans)?),
            (BoolOr, _) => What::BoolOr(self.store(input, aggregate, Kind::Booleans)?),
            (General(general), _) => What::General(self.general(input, aggregate, general)?),
            (_, None) => {
                let name = aggregate.function.name();
                return Err(FoldError::InvalidPlan(format!("{name} has an argument")));
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
                match &data_type {
                    DataType::Decimal128(_, scale) => {
                        let scale_more = (scale - scale_of(argument)).unsigned_abs().into();
                        What::AvgDecimal { sum, count, scale_more }
                    }
                    _ if argument.is_floating() => What::AvgFloat(sum, count),
                    _ => What::AvgInteger(sum, count),
                }
            }
            (Spread(spread), Some(argument)) => {
                let moments = self.moments(input, aggregate)?;
                let count = self.count(input, aggregate)?;
                What::Spread { spread: *spread, moments, count, scale: scale_of(argument) }
            }
        };
        let overflow = format!("{} is out of range for {data_type}", aggregate.function.name());
        Ok(Output { what, data_type, overflow })
    }

    fn count(&mut self, input: &SchemaRef, aggregate: &Aggregate) -> Result<CountOf, FoldError> {
        let of = match aggregate {
            Aggregate { argument: None, filter: None, .. } => return Ok(CountOf::GroupRows),
            Aggregate { distinct: true, argument: Some(_), .. } => {
                CountOf::Distinct(self.store(input, aggregate, Kind::Ordered)?)
            }
            _ => CountOf::Store(self.store(input, aggregate, Kind::Count)?),
        };
        Ok(of)
    }

    fn sum(&mut self, input: &SchemaRef, aggregate: &Aggregate) -> Result<SumOf, FoldError> {
        if !aggregate.distinct {
            return Ok(SumOf::Store(self.store(input, aggregate, Kind::Sum)?));
        }
        let store = self.store(input, aggregate, Kind::Ordered)?;
        self.ordered(store).keep_distinct_sums();
        Ok(SumOf::Distinct(store))
    }

    fn moments(&mut self, input: &SchemaRef, aggregate: &Aggregate) -> Result<SumOf, FoldError> {
        if !aggregate.distinct {
            return Ok(SumOf::Store(self.store(input, aggregate, Kind::Moments)?));
        }
        let store = self.store(input, aggregate, Kind::Ordered)?;
        self.ordered(store).keep_distinct_moments();
        Ok(SumOf::Distinct(store))
    }

    fn ordered(&mut self, store: usize) -> &mut Ordered {
        match &mut self.stores[store].state {
            State::Ordered(ordered) => ordered,
            _ => unreachable!("an ordered store is one"),
        }
    }

    /// General aggregates share nothing.
    fn general(
        &mut self,
        input: &SchemaRef,
        aggregate: &Aggregate,
        general: &GeneralAggregate,
    ) -> Result<usize, FoldError> {
        let general = General::new(input, general, aggregate.distinct)?;
        let state = State::General(Box::new(general));
        self.stores.push(Store { argument: None, filter: aggregate.filter, state });
        Ok(self.stores.len() - 1)
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
            (Kind::Moments, Some(_)) => State::Moments(MomentSums::default()),
            (Kind::Booleans, Some(_)) => State::Booleans(BooleanCounts::default()),
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
                State::Moments(sums) => sums.resize(end),
                State::Booleans(counts) => counts.resize(end),
                State::Ordered(ordered) => ordered.resize(end),
                State::General(general) => general.resize(end),
            }
        }
    }

    pub(super) fn clear(&mut self, slot: u32) {
        for store in &mut self.stores {
            match &mut store.state {
                State::Count(counts) => counts[slot as usize] = 0,
                State::Integers(sums) => sums.clear(slot),
                State::Floats(sums) => sums.clear(slot),
                State::Moments(sums) => sums.clear(slot),
                State::Booleans(counts) => counts.clear(slot),
                State::Ordered(ordered) => ordered.clear(slot),
                State::General(general) => general.clear(slot),
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let bytes = self.stores.iter().map(|store| match &store.state {
            State::Count(counts) => counts.capacity() * size_of::<i64>(),
            State::Integers(sums) => sums.memory_bytes(),
            State::Floats(sums) => sums.memory_bytes(),
            State::Moments(sums) => sums.memory_bytes(),
            State::Booleans(counts) => counts.memory_bytes(),
            State::Ordered(ordered) => ordered.memory_bytes(),
            State::General(general) => general.memory_bytes(),
        });
        bytes.sum()
    }

    /// Adds rows to the groups in `slots`, one a row. `ids` are the groups' numbers by slot.
    pub(super) fn change(
        &mut self,
        rows: &RecordBatch,
        slots: &[u32],
        weights: &[i64],
        ids: &[u64],
    ) {
        let all = Selection::all(slots, weights, ids);
        for store in &mut self.stores {
            store.change(rows, &all);
        }
    }

    /// The aggregates of `groups`; where one does not fit, the reason goes to `errors`.
    pub(super) fn show(
        &mut self,
        group_rows: &[i64],
        groups: &[u32],
        errors: &mut [Option<String>],
    ) -> Vec<ArrayRef> {
        for store in &mut self.stores {
            if let State::General(general) = &mut store.state {
                general.refresh(groups);
            }
        }
        let mut view = View { stores: &self.stores, group_rows, groups, errors };
        self.outputs.iter().map(|output| view.show(output)).collect()
    }

    /// Whether there are multisets, whose values are saved apart from their groups.
    pub(super) fn hold_values(&self) -> bool {
        let holds = |store: &Store| matches!(store.state, State::Ordered(_) | State::General(_));
        self.stores.iter().any(holds)
    }

    pub(super) fn track(&mut self) {
        for store in &mut self.stores {
            match &mut store.state {
                State::Ordered(ordered) => ordered.track(),
                State::General(general) => general.track(),
                _ => {}
            }
        }
    }

    /// What a group has but for the values of its multisets.
    pub(super) fn write(&self, slot: u32, out: &mut Writer) {
        for store in &self.stores {
            match &store.state {
                State::Count(counts) => out.integer(counts[slot as usize].into()),
                State::Integers(sums) => sums.write(slot, out),
                State::Floats(sums) => sums.write(slot, out),
                State::Moments(sums) => sums.write(slot, out),
                State::Booleans(counts) => counts.write(slot, out),
                State::Ordered(_) | State::General(_) => {}
            }
        }
    }

    pub(super) fn read(&mut self, slot: u32, from: &mut Reader<'_>) -> Result<(), StateError> {
        for store in &mut self.stores {
            match &mut store.state {
                State::Count(counts) => counts[slot as usize] = from.count()?,
                State::Integers(sums) => sums.read(slot, from)?,
                State::Floats(sums) => sums.read(slot, from)?,
                State::Moments(sums) => sums.read(slot, from)?,
                State::Booleans(counts) => counts.read(slot, from)?,
                State::Ordered(_) | State::General(_) => {}
            }
        }
        Ok(())
    }

    /// Gives the values that have changed, store by store.
    pub(super) fn save_values(
        &mut self,
        (ids, next): (&[u64], u64),
        mut sink: impl FnMut(u16, u64, &[u8], i64),
    ) {
        for (number, store) in self.stores.iter_mut().enumerate() {
            let number = u16::try_from(number).expect("a view has fewer than 2^16 aggregates");
            let sink: &mut ValueSink<'_> = &mut |id, value, count| sink(number, id, value, count);
            match &mut store.state {
                State::Ordered(ordered) => ordered.save(ids, next, sink),
                State::General(general) => general.save(ids, next, sink),
                _ => {}
            }
        }
    }

    /// Every saved value has been taken; the next group gets the number `next`.
    pub(super) fn loaded(&mut self, next: u64) {
        for store in &mut self.stores {
            match &mut store.state {
                State::Ordered(ordered) => ordered.loaded(next),
                State::General(general) => general.loaded(next),
                _ => {}
            }
        }
    }

    /// Takes one saved value.
    pub(super) fn load_value(
        &mut self,
        store: u16,
        slot: u32,
        value: &[u8],
        count: i64,
    ) -> Result<(), StateError> {
        match self.stores.get_mut(usize::from(store)).map(|store| &mut store.state) {
            Some(State::Ordered(ordered)) => ordered.load(slot, value, count),
            Some(State::General(general)) => {
                general.load(slot, value, count);
                Ok(())
            }
            _ => Err(malformed()),
        }
    }
}

impl State {
    fn kind(&self) -> Kind {
        match self {
            Self::Count(_) => Kind::Count,
            Self::Integers(_) | Self::Floats(_) => Kind::Sum,
            Self::Moments(_) => Kind::Moments,
            Self::Booleans(_) => Kind::Booleans,
            Self::Ordered(_) => Kind::Ordered,
            Self::General(_) => Kind::General,
        }
    }
}

impl Store {
    fn change(&mut self, rows: &RecordBatch, all: &Selection<'_>) {
        let argument = self.argument.map(|column| rows.column(column));
        let input = all.of(self.filter.map(|column| rows.column(column)), argument);
        match (&mut self.state, argument) {
            (State::Count(counts), _) => {
                input.for_each(|_, slot, weight| counts[slot as usize] += weight);
            }
            (State::General(general), _) => general.change(rows, &input),
            (State::Integers(sums), Some(column)) => sums.change(column, &input),
            (State::Floats(sums), Some(column)) => sums.change(column, &input),
            (State::Moments(sums), Some(column)) => sums.change(column, &input),
            (State::Booleans(counts), Some(column)) => counts.change(column, &input),
            (State::Ordered(ordered), Some(column)) => ordered.change(column, &input),
            (_, None) => unreachable!("sums and multisets have an argument"),
        }
    }
}
