//! Pairs of a delta's rows and rows held by the other side, tried and given batch by batch.

use arrow::array::{Int64Array, UInt32Array};
use evert_model::Delta;

use super::bound::Bound;
use super::shape::Shape;
use super::side::{Keyed, Side};
use super::tally::Tally;
use crate::dataflow::RowError;
use crate::project::{Projection, filter_delta};
use crate::rows::{batch_of, take_rows};

/// Batches have at most this many rows.
pub(super) const OUTPUT_ROWS: usize = 16 * 1024;

/// A delta, and the side that it meets.
#[derive(Clone, Copy)]
pub(super) struct Met<'a> {
    pub(super) keyed: &'a Keyed<'a>,
    pub(super) other: &'a Side,
    pub(super) own_is_left: bool,
}

/// The pairs of one delta.
pub(super) struct Pairs<'a> {
    keyed: &'a Keyed<'a>,
    other: &'a Side,
    own_is_left: bool,
    bound: &'a mut Bound,
    shape: &'a Shape,
    filter: Option<&'a Projection>,
    /// Matches of each row of the delta.
    own_counts: Option<Vec<i64>>,
    /// Matches of each held row.
    other_counts: Option<Tally>,
    /// Pairs that have not been tried yet: the delta's rows, and the held ones.
    own_rows: Vec<u32>,
    other_rows: Vec<u32>,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(
        met: Met<'a>,
        shape: &'a Shape,
        filter: Option<&'a Projection>,
        other_counts: Option<Tally>,
        bound: &'a mut Bound,
    ) -> Self {
        let Met { keyed, other, own_is_left } = met;
        Self {
            keyed,
            other,
            own_is_left,
            bound,
            shape,
            own_counts: filter.map(|_| vec![0; keyed.delta.len()]),
            filter,
            other_counts,
            own_rows: Vec::new(),
            other_rows: Vec::new(),
        }
    }

    pub(super) fn push(
        &mut self,
        own: usize,
        other: u32,
        out: &mut Vec<Delta>,
        errors: &mut Vec<RowError>,
    ) {
        if self.bound.is_passed() {
            return;
        }
        self.own_rows.push(own as u32);
        self.other_rows.push(other);
        if self.own_rows.len() == OUTPUT_ROWS {
            self.flush(out, errors);
        }
    }

    /// Gives the matches counted.
    pub(super) fn finish(
        mut self,
        out: &mut Vec<Delta>,
        errors: &mut Vec<RowError>,
    ) -> (Option<Vec<i64>>, Option<Tally>) {
        if !self.own_rows.is_empty() {
            self.flush(out, errors);
        }
        (self.own_counts, self.other_counts)
    }

    fn flush(&mut self, out: &mut Vec<Delta>, errors: &mut Vec<RowError>) {
        let (own, other) =
            (std::mem::take(&mut self.own_rows), std::mem::take(&mut self.other_rows));
        let pairs = self.batch(&own, &other);
        let Some(filter) = self.filter else {
            self.bound.add(&pairs);
            out.push(pairs);
            return;
        };
        let mask = filter.mask(&pairs, errors);
        let own_counts = self.own_counts.as_mut().expect("a filter makes counts differ by row");
        let weights = self.keyed.delta.weights.values();
        for pair in mask.values().set_indices() {
            own_counts[own[pair] as usize] += self.other.weight(other[pair]);
            if let Some(counts) = &mut self.other_counts {
                counts.add(other[pair], weights[own[pair] as usize]);
            }
        }
        if self.shape.pairs && mask.true_count() > 0 {
            let pairs = filter_delta(&pairs, &mask);
            self.bound.add(&pairs);
            out.push(pairs);
        }
    }

    fn batch(&self, own: &[u32], other: &[u32]) -> Delta {
        let delta = self.keyed.delta;
        let weights = delta.weights.values();
        let weights = own
            .iter()
            .zip(other)
            .map(|(&own, &other)| weights[own as usize] * self.other.weight(other));
        let weights = Int64Array::from_iter_values(weights);
        let indices = UInt32Array::from(own.to_vec());
        let mut columns = take_rows(&delta.rows, &indices).columns().to_vec();
        let mut others = self.other.decode(other);
        if self.own_is_left {
            columns.append(&mut others);
        } else {
            others.append(&mut columns);
            columns = others;
        }
        Delta::new(batch_of(&self.shape.pair_schema, columns, weights.len()), weights)
    }
}
