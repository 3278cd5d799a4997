//! A recursion run from the beginning.

use std::sync::Arc;

use arrow::array::Int64Array;
use evert_model::Delta;

use super::errors::Errors;
use super::held::HeldRows;
use super::{Rounds, check_rows, row_count};
use crate::dataflow::Dataflow;

/// Round by round from the base, as the standard says: a round is what the step makes of the last
/// one, less what was found before if rows are distinct. Gives all rows found.
pub(super) fn run_anew(
    flow: &mut Dataflow,
    inputs: &[HeldRows],
    distinct: bool,
    rounds: &mut Rounds<'_>,
) -> Result<HeldRows, String> {
    let empty = || {
        let schema = Arc::clone(inputs[0].schema());
        HeldRows::new(schema, distinct).expect("the schema was valid before")
    };
    let (mut given, mut stepped) = (empty(), empty());
    stepped.apply(&[inputs[0].contents()]);
    let mut round = stepped.select(|_, count| if distinct { 1 } else { count });
    stepped = empty();
    let mut feed: Vec<Vec<Delta>> = inputs.iter().map(|held| vec![held.contents()]).collect();
    feed[0].clear();
    let mut rows = 0;
    // Errors of the round that the step holds; each round counts its own.
    let mut current = Errors::default();
    let mut all = Errors::default();
    while !round.is_empty() {
        given.apply(std::slice::from_ref(&round));
        rows = row_count(std::slice::from_ref(&round)).saturating_add(rows);
        rounds.begin()?;
        check_rows(rows)?;
        feed[0].push(round.clone());
        stepped.apply(&rounds.step(flow, &feed)?);
        current.count(std::mem::take(rounds.errors));
        all.add(&current);
        feed = vec![vec![negated(&round)]];
        round = match distinct {
            true => stepped.select(|row, _| i64::from(!given.contains(row))),
            false => stepped.contents(),
        };
    }
    rounds.errors.extend(all.into_rows());
    Ok(given)
}

fn negated(delta: &Delta) -> Delta {
    let weights = delta.weights.values().iter().map(|weight| -weight);
    Delta::new(delta.rows.clone(), Int64Array::from_iter_values(weights))
}
