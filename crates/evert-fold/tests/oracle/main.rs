//! Random plans over random facts, against an independent, naive answer: the plan computed from
//! the multiset of all rows. The same facts are fed in several cuts, with retractions, and what
//! is published must be the same to the byte.

mod big;
mod general;
mod naive;
mod ordered;
mod plans;
mod spread;
mod values;

use std::collections::BTreeMap;

use arrow::array::Int64Array;
use evert_fold::{Arrangement, Dataflow, Plan, RowError, StateSink};
use evert_model::{Delta, LogTime};
use fastrand::Rng;

use plans::Generated;
use values::{Row, batch, rows_of};

/// A fact: which input, the row, its weight.
type Fact = (usize, Row, i64);

#[test]
fn random_plans_agree_with_the_naive_answer_in_every_cut() {
    let base: u64 = std::env::var("EVERT_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let count: u64 = std::env::var("EVERT_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(600);
    println!("seeds {base}..{}", base + count);
    for seed in base..base + count {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} (EVERT_SEED={seed} EVERT_SEEDS=1 runs it alone)");
    }
}

fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let generated = plans::generate(&mut rng);
    let facts = facts(&mut rng, &generated);
    if std::env::var("EVERT_SHOW").is_ok() {
        eprintln!("{:#?}", generated.naive);
    }
    let expected = expected(&generated, &facts);
    let mut first: Option<Published> = None;
    for cut in 0..=RESTARTING {
        let published = fold(&generated, &facts, &mut rng, cut);
        let (rows, errors) = (&published.rows, &published.errors);
        assert_eq!(rows, &expected.rows, "cut {cut} of {:#?}", generated.naive);
        let errors: i64 = errors.values().sum();
        assert_eq!(errors, expected.errors, "errors, cut {cut} of {:#?}", generated.naive);
        match &first {
            None => first = Some(published),
            Some(first) => assert_eq!(first, &published, "cut {cut} shows"),
        }
    }
}

/// Inserts, and retractions of rows that are there.
fn facts(rng: &mut Rng, generated: &Generated) -> Vec<Fact> {
    let mut there: Vec<Vec<Row>> = vec![Vec::new(); generated.inputs];
    let mut facts = Vec::new();
    let retract_percent = rng.u8(0..60);
    for _ in 0..rng.usize(0..150) {
        let input = rng.usize(0..generated.inputs);
        let rows = &mut there[input];
        if !rows.is_empty() && rng.u8(0..100) < retract_percent {
            let row = rows.swap_remove(rng.usize(0..rows.len()));
            facts.push((input, row, -1));
        } else if rows.len() < 25 {
            let row = if rng.u8(0..10) == 0 && !rows.is_empty() {
                rows[rng.usize(0..rows.len())].clone()
            } else {
                values::random_row(rng)
            };
            rows.push(row.clone());
            facts.push((input, row, 1));
        }
    }
    facts
}

struct Expected {
    rows: Vec<Row>,
    errors: i64,
}

fn expected(generated: &Generated, facts: &[Fact]) -> Expected {
    let mut inputs: Vec<Vec<Row>> = vec![Vec::new(); generated.inputs];
    for (input, row, weight) in facts {
        if *weight > 0 {
            inputs[*input].push(row.clone());
        } else {
            let at = inputs[*input].iter().position(|other| other == row).expect("it is there");
            inputs[*input].swap_remove(at);
        }
    }
    let (mut rows, errors) = naive::answer(&generated.naive, &inputs);
    rows.sort();
    Expected { rows, errors }
}

#[derive(Debug, PartialEq)]
struct Published {
    rows: Vec<Row>,
    digest: u128,
    sorted: arrow::array::RecordBatch,
    errors: BTreeMap<(String, String), i64>,
}

/// The cut in which the plan is now and then saved and begun anew from what was saved.
const RESTARTING: usize = 4;

/// Every entry saved so far.
#[derive(Default)]
struct Saved(BTreeMap<Vec<u8>, Vec<u8>>);

impl StateSink for Saved {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.to_vec(), value.to_vec());
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
}

impl Saved {
    fn restored(&self, plan: &Plan) -> Dataflow {
        let mut dataflow = Dataflow::new(plan.clone()).expect("the plan is valid");
        assert!(dataflow.track(), "it was tracked before");
        for (key, value) in &self.0 {
            dataflow.load(key, value).expect("it was saved by the same plan");
        }
        dataflow.loaded().expect("it was saved by the same plan");
        dataflow
    }
}

/// Folds the facts: cut 0 in one tick, 1 fact by fact, the others at random.
fn fold(generated: &Generated, facts: &[Fact], rng: &mut Rng, cut: usize) -> Published {
    let plan: Plan = generated.plan.clone();
    let schema = plan.output_schema().expect("the plan is valid");
    let mut dataflow = Dataflow::new(plan.clone()).expect("the plan is valid");
    let can_restart = cut == RESTARTING && dataflow.track();
    let mut saved = Saved::default();
    let mut arrangement = match &plan.key {
        Some(key) => Arrangement::keyed(schema.clone(), key.clone()),
        None => Arrangement::bag(schema),
    };
    let mut errors: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut rest = facts;
    let mut ticks = 0;
    while !rest.is_empty() || ticks == 0 {
        let len = match cut {
            0 => rest.len(),
            1 => rest.len().min(1),
            _ => rng.usize(0..=rest.len().min(40)),
        };
        let (tick, later) = rest.split_at(len);
        rest = later;
        ticks += 1;
        if can_restart && rng.u8(0..3) == 0 {
            dataflow.save(&mut saved);
            if rng.bool() {
                dataflow = saved.restored(&plan);
            }
        }
        let output = dataflow.tick(LogTime::default(), &inputs(generated, tick, rng));
        assert_consolidated(&output.changes);
        arrangement.apply(&output.changes);
        for RowError { reason, row, weight } in output.errors {
            *errors.entry((reason, row)).or_default() += weight;
        }
    }
    assert!(
        dataflow.tick(LogTime::default(), &[]).changes.is_empty(),
        "an empty tick changes nothing"
    );
    errors.retain(|_, weight| *weight != 0);
    let snapshot = arrangement.snapshot();
    let mut rows: Vec<Row> = snapshot.scan(None).flat_map(|batch| rows_of(&batch)).collect();
    assert_eq!(rows.len(), snapshot.len());
    rows.sort();
    Published { rows, digest: snapshot.digest(), sorted: snapshot.sorted(), errors }
}

/// The tick's facts by input, in batches of random sizes.
fn inputs(generated: &Generated, facts: &[Fact], rng: &mut Rng) -> Vec<Vec<Delta>> {
    (0..generated.inputs)
        .map(|input| {
            let mut facts: Vec<&Fact> = facts.iter().filter(|fact| fact.0 == input).collect();
            let mut deltas = Vec::new();
            while !facts.is_empty() {
                let rest = facts.split_off(rng.usize(1..=facts.len()));
                let rows = facts.iter().map(|fact| fact.1.clone()).collect::<Vec<_>>();
                let weights = Int64Array::from_iter_values(facts.iter().map(|fact| fact.2));
                deltas.push(Delta::new(batch(&rows), weights));
                facts = rest;
            }
            deltas
        })
        .collect()
}

fn assert_consolidated(changes: &[Delta]) {
    let mut signs: BTreeMap<Row, i64> = BTreeMap::new();
    for delta in changes {
        for (row, &weight) in rows_of(&delta.rows).into_iter().zip(delta.weights.values()) {
            assert_ne!(weight, 0);
            let sign = signs.entry(row).or_insert(weight.signum());
            assert_eq!(*sign, weight.signum(), "a row is both inserted and retracted");
        }
    }
}
