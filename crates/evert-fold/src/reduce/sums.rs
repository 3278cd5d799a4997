//! Sums by group: columns over slots.

use std::collections::BTreeMap;

use super::values::{Integers, Selection, floats};
use crate::exact::{ExactFloatSum, ExactIntegerSum, ExactMoments, add_with_carry};
use crate::state::StateError;
use crate::state::entry::{Reader, Writer};
use arrow::array::ArrayRef;

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

    pub(super) fn change(&mut self, column: &ArrayRef, input: &Selection<'_>) {
        match Integers::of(column) {
            Integers::Small(values) => {
                let values = values.values();
                input.for_each(|row, slot, weight| self.add(slot, values[row].into(), weight));
            }
            Integers::Wide(values) => {
                let values = values.values();
                input.for_each(|row, slot, weight| self.add(slot, values[row], weight));
            }
        }
    }

    pub(super) fn get(&self, slot: u32) -> ExactIntegerSum {
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

    pub(super) fn write(&self, slot: u32, out: &mut Writer) {
        out.integer(self.low[slot as usize]);
        out.integer(self.high.get(&slot).copied().unwrap_or(0));
    }

    pub(super) fn read(&mut self, slot: u32, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.low[slot as usize] = from.integer()?;
        let high = from.integer()?;
        if high != 0 {
            self.high.insert(slot, high);
        }
        Ok(())
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

    pub(super) fn change(&mut self, column: &ArrayRef, input: &Selection<'_>) {
        let values = floats(column);
        let values = values.values();
        input.for_each(|row, slot, weight| self.add(slot, values[row], weight));
    }

    pub(super) fn get(&self, slot: u32) -> &ExactFloatSum {
        &self.sums[slot as usize]
    }

    pub(super) fn clear(&mut self, slot: u32) {
        let old = std::mem::take(&mut self.sums[slot as usize]);
        self.heap_bytes -= old.heap_bytes();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<ExactFloatSum>() + self.heap_bytes
    }

    pub(super) fn write(&self, slot: u32, out: &mut Writer) {
        self.sums[slot as usize].write(out);
    }

    pub(super) fn read(&mut self, slot: u32, from: &mut Reader<'_>) -> Result<(), StateError> {
        let sum = ExactFloatSum::read(from)?;
        self.heap_bytes += sum.heap_bytes();
        self.sums[slot as usize] = sum;
        Ok(())
    }
}

/// Exact sums of values and their squares by group.
#[derive(Debug, Default)]
pub(super) struct MomentSums {
    moments: Vec<ExactMoments>,
    heap_bytes: usize,
}

impl MomentSums {
    pub(super) fn resize(&mut self, end: usize) {
        self.moments.resize(end, ExactMoments::default());
    }

    pub(super) fn add_integer(&mut self, slot: u32, value: i128, weight: i64) {
        self.with(slot, |moments| moments.add_integer(value, weight));
    }

    pub(super) fn add_float(&mut self, slot: u32, value: f64, weight: i64) {
        self.with(slot, |moments| moments.add_float(value, weight));
    }

    pub(super) fn change(&mut self, column: &ArrayRef, input: &Selection<'_>) {
        if column.data_type().is_floating() {
            let values = floats(column);
            let values = values.values();
            input.for_each(|row, slot, weight| self.add_float(slot, values[row], weight));
            return;
        }
        match Integers::of(column) {
            Integers::Small(values) => {
                let values = values.values();
                input.for_each(|row, slot, w| self.add_integer(slot, values[row].into(), w));
            }
            Integers::Wide(values) => {
                let values = values.values();
                input.for_each(|row, slot, w| self.add_integer(slot, values[row], w));
            }
        }
    }

    pub(super) fn get(&self, slot: u32) -> &ExactMoments {
        &self.moments[slot as usize]
    }

    pub(super) fn clear(&mut self, slot: u32) {
        self.with(slot, |moments| *moments = ExactMoments::default());
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.moments.capacity() * size_of::<ExactMoments>() + self.heap_bytes
    }

    pub(super) fn write(&self, slot: u32, out: &mut Writer) {
        self.moments[slot as usize].write(out);
    }

    pub(super) fn read(&mut self, slot: u32, from: &mut Reader<'_>) -> Result<(), StateError> {
        let read = ExactMoments::read(from)?;
        self.with(slot, |moments| *moments = read);
        Ok(())
    }

    fn with(&mut self, slot: u32, change: impl FnOnce(&mut ExactMoments)) {
        let moments = &mut self.moments[slot as usize];
        self.heap_bytes -= moments.heap_bytes();
        change(moments);
        self.heap_bytes += moments.heap_bytes();
    }
}

/// How many values of each group are false, and how many true.
#[derive(Debug, Default)]
pub(super) struct BooleanCounts(Vec<[i64; 2]>);

impl BooleanCounts {
    pub(super) fn resize(&mut self, end: usize) {
        self.0.resize(end, [0; 2]);
    }

    pub(super) fn change(&mut self, column: &ArrayRef, input: &Selection<'_>) {
        use arrow::array::AsArray;
        let values = column.as_boolean().values();
        input.for_each(|row, slot, weight| {
            self.0[slot as usize][usize::from(values.value(row))] += weight;
        });
    }

    /// Whether all values are true, or any: NULL over none.
    pub(super) fn all(&self, slot: u32) -> Option<bool> {
        let [falses, trues] = self.0[slot as usize];
        (falses + trues > 0).then_some(falses == 0)
    }

    pub(super) fn any(&self, slot: u32) -> Option<bool> {
        let [falses, trues] = self.0[slot as usize];
        (falses + trues > 0).then_some(trues > 0)
    }

    pub(super) fn clear(&mut self, slot: u32) {
        self.0[slot as usize] = [0; 2];
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.capacity() * size_of::<[i64; 2]>()
    }

    pub(super) fn write(&self, slot: u32, out: &mut Writer) {
        self.0[slot as usize].iter().for_each(|&count| out.integer(count.into()));
    }

    pub(super) fn read(&mut self, slot: u32, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.0[slot as usize] = [from.count()?, from.count()?];
        Ok(())
    }
}
