//! What is published: upserts, bags fed from outside, arrangements, and the snapshots of all of
//! them, against plain maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringViewArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use evert_fold::{Arrangement, BagInput, Snapshot, Upsert, UpsertBatch, key_bytes};
use evert_model::Delta;
use fastrand::Rng;

/// (key text, key number, value): the key is the first two.
type Fact = (String, i64, Option<i64>);
type Model = BTreeMap<(String, i64), Option<i64>>;
type Bag = BTreeMap<Fact, i64>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Utf8View, false),
        Field::new("b", DataType::Int64, false),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn batch(facts: &[Fact]) -> RecordBatch {
    let texts = StringViewArray::from_iter_values(facts.iter().map(|fact| &fact.0));
    let numbers = Int64Array::from_iter_values(facts.iter().map(|fact| fact.1));
    let values: Int64Array = facts.iter().map(|fact| fact.2).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(texts), Arc::new(numbers), Arc::new(values)];
    RecordBatch::try_new(schema(), columns).expect("the columns fit")
}

fn facts_of(batch: &RecordBatch) -> Vec<Fact> {
    let texts = batch.column(0).as_string_view();
    let numbers = batch.column(1).as_primitive::<Int64Type>();
    let values = batch.column(2).as_primitive::<Int64Type>();
    let value = |row| values.is_valid(row).then(|| values.value(row));
    let rows = 0..batch.num_rows();
    rows.map(|row| (texts.value(row).to_owned(), numbers.value(row), value(row))).collect()
}

fn changes_of(delta: &Delta) -> Bag {
    let mut bag = Bag::new();
    for (fact, &weight) in facts_of(&delta.rows).into_iter().zip(delta.weights.values()) {
        assert!(bag.insert(fact, weight).is_none_or(|other| other.signum() == weight.signum()));
    }
    bag
}

fn bag_of(snapshot: &Snapshot) -> Bag {
    let mut bag = Bag::new();
    for delta in snapshot.as_deltas() {
        for (fact, weight) in facts_of(&delta.rows).into_iter().zip(delta.weights.values()) {
            *bag.entry(fact).or_default() += weight;
        }
    }
    let mut scanned = Bag::new();
    for fact in snapshot.scan(None).flat_map(|batch| facts_of(&batch)) {
        *scanned.entry(fact).or_default() += 1;
    }
    assert_eq!(bag, scanned, "a scan and the deltas tell the same");
    assert_eq!(bag.values().sum::<i64>(), snapshot.len() as i64);
    bag
}

fn random_key(rng: &mut Rng, keys: i64) -> (String, i64) {
    let number = rng.i64(0..keys);
    let text = if number % 3 == 0 { "k" } else { "a key that is longer than sixteen bytes" };
    (format!("{text}{}", number % 7), number / 7)
}

/// Each row of the model is found by its key, and no other.
fn assert_gets(snapshot: &Snapshot, model: &Model, rng: &mut Rng, keys: i64) {
    for _ in 0..30 {
        let key = random_key(rng, keys);
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec![key.0.as_str()]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![key.1 as i32]));
        let probe = RecordBatch::try_from_iter([("a", texts), ("b", numbers)]).expect("fits");
        let got = snapshot.get(&probe, 0).map(|row| facts_of(&row));
        let expected = model.get(&key).map(|value| vec![(key.0.clone(), key.1, *value)]);
        assert_eq!(got, expected);
    }
}

/// Pages of rows, one after the other, are all rows in the order of their keys, and each is
/// found by its key's bytes.
fn assert_pages(snapshot: &Snapshot, model: &Model, page: usize) {
    let mut facts = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = snapshot.rows_after(after.as_deref(), page);
        let Some(last) = rows.last() else { break };
        after = Some(last.key.to_vec());
        for found in &rows {
            let fact = facts_of(&found.rows.slice(found.row, 1)).remove(0);
            let mut key = Vec::new();
            key_bytes::push_bytes(fact.0.as_bytes(), &mut key);
            key_bytes::push_i64(fact.1, &mut key);
            assert_eq!(key, found.key);
            let again = snapshot.row(&key).expect("it is there");
            assert_eq!(facts_of(&again.rows.slice(again.row, 1)), std::slice::from_ref(&fact));
            facts.push(fact);
        }
    }
    let expected: Vec<Fact> = model.iter().map(|((a, b), v)| (a.clone(), *b, *v)).collect();
    assert_eq!(facts, expected);
    let mut nobody = Vec::new();
    key_bytes::push_bytes(b"nobody", &mut nobody);
    key_bytes::push_i64(0, &mut nobody);
    assert!(snapshot.row(&nobody).is_none());
}

#[test]
fn upserts_agree_with_a_map_and_old_snapshots_stay() {
    for seed in 0..24 {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let keys = [5, 200, 9000][seed as usize % 3];
        let mut upsert = Upsert::new(schema(), vec![0, 1]);
        let mut model = Model::new();
        let mut pinned: Vec<(Snapshot, Model)> = Vec::new();
        for tick in 0..60 {
            let before = model.clone();
            let batches: Vec<UpsertBatch> =
                (0..rng.usize(0..3)).map(|_| upserts(&mut rng, keys, &mut model)).collect();
            let delta = if rng.u8(0..40) == 0 {
                model = before.clone();
                let delta = upsert.truncate();
                model.clear();
                delta
            } else {
                upsert.apply(&batches)
            };
            assert_eq!(changes_of(&delta), difference(&before, &model), "tick {tick}");
            if tick % 7 == 0 {
                pinned.push((upsert.snapshot(), model.clone()));
            }
        }
        pinned.push((upsert.snapshot(), model.clone()));
        for (snapshot, model) in &pinned {
            let expected: Bag = model.iter().map(|((a, b), v)| ((a.clone(), *b, *v), 1)).collect();
            assert_eq!(bag_of(snapshot), expected);
            assert_gets(snapshot, model, &mut rng, keys);
            assert_pages(snapshot, model, 1 + rng.usize(0..700));
        }
        // The digest knows rows, not runs.
        let mut once = Upsert::new(schema(), vec![0, 1]);
        let facts: Vec<Fact> = model.into_iter().map(|((a, b), v)| (a, b, v)).collect();
        let live = BooleanArray::from(vec![true; facts.len()]);
        once.apply(&[UpsertBatch { rows: batch(&facts), live }]);
        assert_eq!(once.snapshot().digest(), upsert.snapshot().digest());
        assert_eq!(once.snapshot().sorted(), upsert.snapshot().sorted());
        if facts.len() > 1 {
            let live = BooleanArray::from(vec![false]);
            once.apply(&[UpsertBatch { rows: batch(&facts[..1]), live }]);
            assert_ne!(once.snapshot().digest(), upsert.snapshot().digest());
        }
    }
}

fn upserts(rng: &mut Rng, keys: i64, model: &mut Model) -> UpsertBatch {
    let (mut facts, mut live) = (Vec::new(), Vec::new());
    for _ in 0..rng.usize(0..1 + keys.min(1500) as usize) {
        let key = random_key(rng, keys);
        let value = rng.bool().then(|| rng.i64(0..3));
        if rng.u8(0..4) == 0 {
            model.remove(&key);
            live.push(false);
        } else {
            model.insert(key.clone(), value);
            live.push(true);
        }
        facts.push((key.0, key.1, value));
    }
    UpsertBatch { rows: batch(&facts), live: BooleanArray::from(live) }
}

fn difference(before: &Model, after: &Model) -> Bag {
    let mut bag = Bag::new();
    for (rows, sign) in [(before, -1), (after, 1)] {
        for ((a, b), v) in rows {
            *bag.entry((a.clone(), *b, *v)).or_default() += sign;
        }
    }
    bag.retain(|_, weight| *weight != 0);
    bag
}

#[test]
fn a_bag_from_outside_reports_what_is_not_there() {
    for seed in 0..30 {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let keys = [3, 50, 2000][seed as usize % 3];
        let mut input = BagInput::new(schema());
        let mut arranged = Arrangement::bag(schema());
        let mut model = Bag::new();
        let mut pinned = Vec::new();
        for _ in 0..40 {
            let (mut facts, mut weights, mut absent) = (Vec::new(), Vec::new(), 0);
            let retract_percent = rng.u8(0..70);
            for _ in 0..rng.usize(0..200) {
                let key = random_key(&mut rng, keys);
                let fact = (key.0, key.1, Some(rng.i64(0..2)));
                let there = model.entry(fact.clone()).or_default();
                let weight =
                    if rng.u8(0..100) < retract_percent { -rng.i64(1..3) } else { rng.i64(1..4) };
                if *there + weight >= 0 {
                    *there += weight;
                } else {
                    absent += 1;
                }
                facts.push(fact);
                weights.push(weight);
            }
            let (change, errors) = input.apply(&Delta::new(batch(&facts), weights.into()));
            assert_eq!(errors.len(), absent);
            arranged.apply(&[change]);
            model.retain(|_, count| *count != 0);
            assert_eq!(bag_of(&input.snapshot()), model);
            assert_eq!(input.snapshot().digest(), arranged.snapshot().digest());
            pinned.push((arranged.snapshot(), model.clone()));
        }
        for (snapshot, model) in pinned {
            assert_eq!(bag_of(&snapshot), model);
        }
        let gone = input.truncate();
        arranged.apply(&[gone]);
        assert!(input.snapshot().is_empty() && arranged.is_empty());
        assert_eq!(arranged.snapshot().digest(), 0);
    }
}

#[test]
fn many_equal_rows_are_no_burden() {
    let mut bag = Arrangement::bag(schema());
    let fact = ("same".to_owned(), 1, None);
    let rows = batch(&vec![fact.clone(); 8000]);
    for _ in 0..25 {
        bag.apply(&[Delta::inserts(rows.clone())]);
    }
    // Quadratic work would take minutes.
    for _ in 0..200 {
        let weights = Int64Array::from(vec![-1; 100]);
        bag.apply(&[Delta::new(rows.slice(0, 100), weights)]);
    }
    assert_eq!(bag.len(), 25 * 8000 - 200 * 100);
    assert_eq!(bag_of(&bag.snapshot()), Bag::from([(fact, bag.len() as i64)]));
}

#[test]
fn large_runs_merge_and_forget_the_dead() {
    let mut upsert = Upsert::new(schema(), vec![0, 1]);
    let mut memory_max = 0;
    for round in 0..40 {
        for part in 0..10 {
            let facts: Vec<Fact> = (0..2000)
                .map(|i| (format!("key {}", i % 10), part * 2000 + i, Some(round)))
                .collect();
            let live = BooleanArray::from(vec![true; facts.len()]);
            upsert.apply(&[UpsertBatch { rows: batch(&facts), live }]);
        }
        if round == 4 {
            memory_max = 3 * upsert.memory_bytes();
        }
    }
    assert_eq!(upsert.snapshot().len(), 20_000);
    let newest = bag_of(&upsert.snapshot());
    assert!(newest.keys().all(|fact| fact.2 == Some(39)) && newest.len() == 20_000);
    let memory = upsert.memory_bytes();
    assert!(memory < memory_max, "{memory} bytes after 40 rounds, {memory_max} allowed");
}

#[test]
fn float_keys_compare_as_in_postgres() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("f", DataType::Float64, false),
        Field::new("v", DataType::Int64, true),
    ]));
    let rows = |floats: Vec<f64>, values: Vec<i64>| {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Float64Array::from(floats)), Arc::new(Int64Array::from(values))];
        RecordBatch::try_new(schema.clone(), columns).expect("fits")
    };
    let mut upsert = Upsert::new(schema.clone(), vec![0]);
    let nan = f64::from_bits(f64::NAN.to_bits() | 1 << 63 | 5);
    let batch = rows(vec![0.0, f64::NAN, -0.0, nan], vec![1, 2, 3, 4]);
    upsert.apply(&[UpsertBatch { rows: batch, live: BooleanArray::from(vec![true; 4]) }]);
    let snapshot = upsert.snapshot();
    assert_eq!(snapshot.len(), 2);
    let key: ArrayRef = Arc::new(Float64Array::from(vec![0.0, nan]));
    let key = RecordBatch::try_from_iter([("f", key)]).expect("fits");
    let zero = snapshot.get(&key, 0).expect("it is there");
    assert!(zero.column(0).as_primitive::<Float64Type>().value(0).is_sign_negative());
    let nan = snapshot.get(&key, 1).expect("it is there");
    assert_eq!(nan.column(1).as_primitive::<Int64Type>().value(0), 4);
}

#[test]
fn a_key_of_another_type_is_found_by_its_value_only() {
    let mut keyed = Arrangement::keyed(schema(), vec![1]);
    keyed.apply(&[Delta::inserts(batch(&[("a".to_owned(), 1, Some(5))]))]);
    let snapshot = keyed.snapshot();
    let found = |column: ArrayRef| {
        let key = RecordBatch::try_from_iter([("b", column)]).expect("fits");
        snapshot.get(&key, 0).is_some()
    };
    assert!(found(Arc::new(Int32Array::from(vec![1]))));
    assert!(found(Arc::new(Float64Array::from(vec![1.0]))));
    assert!(found(Arc::new(StringViewArray::from(vec!["1"]))));
    assert!(!found(Arc::new(Float64Array::from(vec![1.5]))));
    assert!(!found(Arc::new(StringViewArray::from(vec!["one"]))));
    assert!(!found(Arc::new(Int64Array::from(vec![None::<i64>]))));
}

#[test]
fn projections_keep_the_count_of_rows() {
    let mut bag = Arrangement::bag(schema());
    let facts: Vec<Fact> = (0..20_000).map(|i| ("x".to_owned(), i, None)).collect();
    let weights = Int64Array::from_iter_values((0..20_000).map(|i| 1 + i % 2));
    bag.apply(&[Delta::new(batch(&facts), weights)]);
    let snapshot = bag.snapshot();
    assert_eq!(snapshot.len(), 30_000);
    bag.apply(&[Delta::new(batch(&facts[..1]), Int64Array::from(vec![-1]))]);
    assert_eq!(snapshot.len(), 30_000);
    for projection in [vec![], vec![2], vec![1, 0]] {
        let rows: usize = snapshot.scan(Some(&projection)).map(|batch| batch.num_rows()).sum();
        assert_eq!(rows, 30_000);
        let widths = snapshot.scan(Some(&projection)).map(|batch| batch.num_columns());
        assert!(widths.into_iter().all(|width| width == projection.len()));
    }
}

#[test]
#[should_panic(expected = "a row is retracted that is not there")]
fn a_bag_of_negative_rows_is_refused() {
    let mut bag = Arrangement::bag(schema());
    let rows = batch(&[("a".to_owned(), 1, None)]);
    bag.apply(&[Delta::new(rows, Int64Array::from(vec![-1]))]);
}

#[test]
#[should_panic(expected = "has 2 rows")]
fn a_key_with_two_rows_is_refused() {
    let mut keyed = Arrangement::keyed(schema(), vec![0, 1]);
    let row = |v| Delta::inserts(batch(&[("a".to_owned(), 1, Some(v))]));
    keyed.apply(&[row(1)]);
    keyed.apply(&[row(2)]);
}

#[test]
fn rows_are_found_by_any_columns() {
    let mut rng = Rng::with_seed(11);
    for keyed in [true, false] {
        let mut rows = match keyed {
            true => Arrangement::keyed(schema(), vec![0, 1]),
            false => Arrangement::bag(schema()),
        };
        let mut model = Bag::new();
        for _ in 0..200 {
            let facts: Vec<Fact> = (0..rng.usize(1..40))
                .map(|_| (format!("k{}", rng.u32(..30)), rng.i64(..20), Some(rng.i64(..5))))
                .collect();
            // What is there under the key goes, then the new row comes; a bag only grows.
            let mut change = Bag::new();
            for fact in facts {
                if keyed {
                    let old = model.keys().find(|old| (&old.0, old.1) == (&fact.0, fact.1));
                    if let Some(old) = old.cloned() {
                        model.remove(&old);
                        *change.entry(old).or_default() -= 1;
                    }
                }
                *model.entry(fact.clone()).or_default() += 1;
                *change.entry(fact).or_default() += 1;
            }
            change.retain(|_, weight| *weight != 0);
            let (changed, weights): (Vec<_>, Vec<_>) = change.into_iter().unzip();
            rows.apply(&[Delta::new(batch(&changed), Int64Array::from(weights))]);

            let snapshot = rows.snapshot();
            let wanted = (format!("k{}", rng.u32(..30)), Some(rng.i64(..5)));
            let one = batch(&[(wanted.0.clone(), 0, wanted.1)]);
            let values = one.project(&[2, 0]).expect("two columns");
            let found = snapshot.find(&[2, 0], &values, 0).expect("the types fit");
            let mut found: Vec<Fact> = found.iter().flat_map(facts_of).collect();
            found.retain(|fact| (&fact.0, fact.2) == (&wanted.0, wanted.1));
            found.sort();
            let is_wanted = |fact: &Fact| (&fact.0, fact.2) == (&wanted.0, wanted.1);
            let expected = model.iter().filter(|(fact, _)| is_wanted(fact));
            let expected: Vec<Fact> =
                expected.flat_map(|(fact, count)| vec![fact.clone(); *count as usize]).collect();
            assert_eq!(found, expected);
        }
        let wrong = batch(&[("k".into(), 0, None)]).project(&[0]).expect("one column");
        assert!(rows.snapshot().find(&[1], &wrong, 0).is_none(), "a text is no number");
    }
}
