//! WITH RECURSIVE: a step's plan run to its fixpoint within each tick.
//!
//! Where each derived row comes from one row of the last round (`step::is_linear`), the step's own
//! state follows all rows found so far, and only what is new goes round again. Distinct rows that
//! lose a derivation are first taken out with all that was derived from them, and what still has
//! a derivation is then brought back: rows that only derive each other do not stay. Any other
//! step is run from the beginning whenever its inputs change.
//!
//! Invariant: a recursion that does not end fails, after a bounded number of rounds or rows.

mod anew;
mod errors;
mod found;
mod held;
mod saved;
mod step;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use evert_model::{Delta, LogTime};

use crate::FoldError;
use crate::consolidate::consolidate;
use crate::dataflow::{Dataflow, RowError};
use crate::keys::KeyCodec;
use crate::plan::Plan;
use crate::project::filter_delta;
use anew::run_anew;
use errors::Errors;
use found::Found;
use held::HeldRows;

/// More rows than this are taken for a recursion without end.
const ROWS_MAX: usize = 10_000_000;
/// Rows that go through the step at once, so that a bound is noticed in time.
const ROUND_ROWS: usize = 64 * 1024;
pub(crate) use saved::OTHERS_MAX;

#[derive(Debug)]
pub(crate) struct Recursion {
    step: Plan,
    rounds_max: usize,
    schema: SchemaRef,
    codec: KeyCodec,
    /// The base, then what else the step reads.
    inputs: Vec<HeldRows>,
    flow: Dataflow,
    /// Of a join in the step, if it is not the usual.
    bytes_max: Option<usize>,
    way: Way,
    /// Time of the last tick.
    now: Option<LogTime>,
    saved_now: Option<LogTime>,
    /// Inputs were loaded, and nothing is computed from them yet.
    is_stale: bool,
    failed: Option<String>,
}

/// How the fixpoint follows its inputs.
#[derive(Debug)]
enum Way {
    /// Distinct rows, found by a linear and monotone step.
    Found(Box<Found>),
    /// All rows, found by a linear step: nothing but the step's own state is needed.
    Linear,
    /// From the beginning each time: the rows and errors given so far.
    Anew { distinct: bool, given: Box<HeldRows>, errors: Errors },
}

impl Recursion {
    pub(crate) fn new(
        schema: &SchemaRef,
        others: &[SchemaRef],
        step: &Plan,
        distinct: bool,
        rounds_max: usize,
    ) -> Result<Self, FoldError> {
        let inputs = std::iter::once(schema).chain(others).cloned();
        let inputs = inputs.map(|schema| HeldRows::new(schema, false));
        Ok(Self {
            rounds_max,
            schema: Arc::clone(schema),
            codec: KeyCodec::of_schema(schema)?,
            inputs: inputs.collect::<Result<_, _>>()?,
            flow: Dataflow::new(step.clone())?,
            bytes_max: None,
            way: Way::of(step, distinct, schema)?,
            step: step.clone(),
            now: None,
            saved_now: None,
            is_stale: false,
            failed: None,
        })
    }

    /// A round that gives more is given up.
    pub(crate) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = Some(bytes_max);
        self.flow.limit(bytes_max);
    }

    /// `inputs` are the base's changes, then those of what else the step reads.
    pub(crate) fn tick(
        &mut self,
        now: LogTime,
        inputs: &[Vec<Delta>],
        errors: &mut Vec<RowError>,
    ) -> Vec<Delta> {
        if self.failed.is_some() {
            return Vec::new();
        }
        let result = self.catch_up().and_then(|()| self.follow(now, inputs, errors));
        result.unwrap_or_else(|why| {
            self.failed = Some(why);
            Vec::new()
        })
    }

    /// Why it cannot go on, if it cannot.
    pub(crate) fn failed(&self) -> Option<&String> {
        self.failed.as_ref()
    }

    pub(crate) fn due(&self) -> Option<LogTime> {
        self.flow.due()
    }

    /// Rows of inputs and of the result.
    pub(crate) fn len(&self) -> usize {
        let result = match &self.way {
            Way::Found(found) => found.len(),
            Way::Linear => 0,
            Way::Anew { given, .. } => given.len(),
        };
        self.inputs.iter().map(HeldRows::len).sum::<usize>() + result
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let result = match &self.way {
            Way::Found(found) => found.memory_bytes(),
            Way::Linear => 0,
            Way::Anew { given, .. } => given.memory_bytes(),
        };
        let inputs: usize = self.inputs.iter().map(HeldRows::memory_bytes).sum();
        inputs + self.flow.memory_bytes() + result
    }

    /// Computes what the loaded inputs gave, which has been given before.
    fn catch_up(&mut self) -> Result<(), String> {
        let (true, Some(now)) = (std::mem::take(&mut self.is_stale), self.now.take()) else {
            return Ok(());
        };
        let inputs: Vec<_> = self.inputs.iter().map(|held| vec![held.contents()]).collect();
        // It came to an end before, if in other rounds.
        let rounds_max = std::mem::replace(&mut self.rounds_max, usize::MAX);
        self.compute(now, &inputs, &mut Vec::new())?;
        self.rounds_max = rounds_max;
        self.now = Some(now);
        Ok(())
    }

    fn follow(
        &mut self,
        now: LogTime,
        inputs: &[Vec<Delta>],
        errors: &mut Vec<RowError>,
    ) -> Result<Vec<Delta>, String> {
        let is_due = self.flow.due().is_some_and(|due| due <= now);
        if self.now.is_some() && !is_due && inputs.iter().all(Vec::is_empty) {
            return Ok(Vec::new());
        }
        for (held, deltas) in self.inputs.iter_mut().zip(inputs) {
            held.apply(deltas);
        }
        let out = self.compute(now, inputs, errors)?;
        self.now = Some(now);
        Ok(out)
    }

    fn compute(
        &mut self,
        now: LogTime,
        inputs: &[Vec<Delta>],
        errors: &mut Vec<RowError>,
    ) -> Result<Vec<Delta>, String> {
        let mut rounds = Rounds { now, errors, count: 0, max: self.rounds_max };
        match &mut self.way {
            Way::Found(found) => {
                let (lost, gained) = by_sign(inputs, &self.inputs);
                follow_found(&mut self.flow, found, &lost, &gained, &mut rounds)
            }
            Way::Linear => {
                let codec = (&self.codec, &self.schema);
                follow_linear(&mut self.flow, codec, inputs, &mut rounds)
            }
            Way::Anew { distinct, given, errors: known } => {
                self.flow = Dataflow::new(self.step.clone()).expect("the plan was valid before");
                if let Some(bytes_max) = self.bytes_max {
                    self.flow.limit(bytes_max);
                }
                let mut met = Vec::new();
                let mut rounds = Rounds { errors: &mut met, ..rounds };
                let rows = run_anew(&mut self.flow, &self.inputs, *distinct, &mut rounds)?;
                known.replace(met, errors);
                let old = given.select(|_, count| -count);
                let changes = consolidate(vec![old, rows.contents()], &self.codec, &self.schema);
                **given = rows;
                Ok(changes)
            }
        }
    }
}

impl Way {
    fn of(step: &Plan, distinct: bool, schema: &SchemaRef) -> Result<Self, FoldError> {
        Ok(match (step::is_linear(step), distinct) {
            (true, false) => Self::Linear,
            (true, true) if step::is_monotone(step) => {
                Self::Found(Box::new(Found::new(Arc::clone(schema))?))
            }
            _ => {
                let given = Box::new(HeldRows::new(Arc::clone(schema), distinct)?);
                Self::Anew { distinct, given, errors: Errors::default() }
            }
        })
    }
}

/// The rounds of one fixpoint.
struct Rounds<'a> {
    now: LogTime,
    errors: &'a mut Vec<RowError>,
    count: usize,
    max: usize,
}

impl Rounds<'_> {
    fn begin(&mut self) -> Result<(), String> {
        self.count += 1;
        if self.count <= self.max {
            return Ok(());
        }
        Err(format!("the recursion has not come to an end after {} rounds", self.max))
    }

    fn step(&mut self, flow: &mut Dataflow, inputs: &[Vec<Delta>]) -> Result<Vec<Delta>, String> {
        let output = flow.tick(self.now, inputs);
        self.errors.extend(output.errors);
        output.failed.map_or(Ok(output.changes), Err)
    }
}

/// What the inputs lose, and what they gain.
fn by_sign(inputs: &[Vec<Delta>], held: &[HeldRows]) -> (Vec<Vec<Delta>>, Vec<Vec<Delta>>) {
    let part = |deltas: &[Delta], sign: i64| -> Vec<Delta> {
        let parts = deltas.iter().map(|delta| {
            let mask = delta.weights.values().iter().map(|w| Some(w.signum() == sign)).collect();
            filter_delta(delta, &mask)
        });
        parts.filter(|delta| !delta.is_empty()).collect()
    };
    let net: Vec<_> = inputs
        .iter()
        .zip(held)
        .map(|(deltas, held)| consolidate(deltas.clone(), held.codec(), held.schema()))
        .collect();
    let parts = |sign| net.iter().map(|deltas| part(deltas, sign)).collect();
    (parts(-1), parts(1))
}

/// The step's inputs with nothing of the last round.
fn without_round(inputs: &[Vec<Delta>]) -> Vec<Vec<Delta>> {
    let others = inputs.iter().skip(1).cloned();
    std::iter::once(Vec::new()).chain(others).collect()
}

fn follow_found(
    flow: &mut Dataflow,
    found: &mut Found,
    lost: &[Vec<Delta>],
    gained: &[Vec<Delta>],
    rounds: &mut Rounds<'_>,
) -> Result<Vec<Delta>, String> {
    let mut out = Vec::new();
    if lost.iter().any(|deltas| !deltas.is_empty()) {
        let mut going = found.lose(&lost[0]);
        going.extend(found.lose(&rounds.step(flow, &without_round(lost))?));
        while !going.is_empty() {
            rounds.begin()?;
            let mut next = Vec::new();
            for part in going.chunks(ROUND_ROWS) {
                let round = [vec![found.delta(part, -1)]];
                next.extend(found.lose(&rounds.step(flow, &round)?));
            }
            out.append(&mut going);
            going = next;
        }
    }
    let mut coming = found.bring_back(out);
    coming.extend(found.gain(&gained[0]));
    coming.extend(found.gain(&rounds.step(flow, &without_round(gained))?));
    rounds.count = 0;
    while !coming.is_empty() {
        rounds.begin()?;
        let mut next = Vec::new();
        for part in coming.chunks(ROUND_ROWS) {
            let round = [vec![found.delta(part, 1)]];
            next.extend(found.gain(&rounds.step(flow, &round)?));
            check_rows(found.len())?;
        }
        coming = next;
    }
    Ok(found.settle())
}

fn follow_linear(
    flow: &mut Dataflow,
    (codec, schema): (&KeyCodec, &SchemaRef),
    inputs: &[Vec<Delta>],
    rounds: &mut Rounds<'_>,
) -> Result<Vec<Delta>, String> {
    let mut out = inputs[0].clone();
    let mut round = rounds.step(flow, inputs)?;
    let mut rows = row_count(&round);
    while !round.is_empty() {
        rounds.begin()?;
        out.extend(round.iter().cloned());
        let mut next = Vec::new();
        for part in round.iter().flat_map(parts) {
            let given = rounds.step(flow, &[vec![part]])?;
            rows = rows.saturating_add(row_count(&given));
            check_rows(rows)?;
            next.extend(given);
        }
        // What one part gives, another may take.
        round = consolidate(next, codec, schema);
    }
    Ok(out)
}

/// A delta in parts that go through the step at once.
fn parts(delta: &Delta) -> impl Iterator<Item = Delta> {
    (0..delta.len()).step_by(ROUND_ROWS).map(|start| {
        let rows = ROUND_ROWS.min(delta.len() - start);
        Delta::new(delta.rows.slice(start, rows), delta.weights.slice(start, rows))
    })
}

/// Rows that come or go, multiplicities counted.
fn row_count(deltas: &[Delta]) -> usize {
    let weights = deltas.iter().flat_map(|delta| delta.weights.values());
    let sum = weights.fold(0_u64, |sum, weight| sum.saturating_add(weight.unsigned_abs()));
    usize::try_from(sum).unwrap_or(usize::MAX)
}

fn check_rows(rows: usize) -> Result<(), String> {
    if rows <= ROWS_MAX {
        return Ok(());
    }
    Err(format!("the recursion has more than {ROWS_MAX} rows"))
}
