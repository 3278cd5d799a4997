//! What is saved by difference and loaded again goes on as if nothing had happened: tables, bags
//! and keyed views under random changes, saved and loaded at random moments.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringViewArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use evert_fold::{Arrangement, BagInput, Snapshot, StateError, StateSink, Upsert, UpsertBatch};
use evert_model::Delta;

/// Entries as a store holds them. In one save no key comes twice.
#[derive(Default)]
struct Store {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    saving: HashSet<Vec<u8>>,
}

impl StateSink for Store {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        assert!(self.saving.insert(key.to_vec()), "a key is saved twice");
        self.entries.insert(key.to_vec(), value.to_vec());
    }

    fn delete(&mut self, key: &[u8]) {
        assert!(self.saving.insert(key.to_vec()), "a key is saved twice");
        self.entries.remove(key);
    }
}

/// Something with rows and entries.
trait Saved {
    fn fresh() -> Self;
    fn change(&mut self, rng: &mut fastrand::Rng);
    fn save(&mut self, sink: &mut dyn StateSink);
    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError>;
    fn loaded(&mut self) -> Result<(), StateError>;
    fn snapshot(&self) -> Snapshot;
}

fn schema() -> SchemaRef {
    let field = |name: &str, ty| Field::new(name, ty, true);
    Arc::new(Schema::new(vec![
        field("note", DataType::Utf8View),
        field("id", DataType::Int64),
        field("x", DataType::Float64),
    ]))
}

fn rows(rng: &mut fastrand::Rng, len: usize) -> RecordBatch {
    let text: StringViewArray = (0..len)
        .map(|_| rng.bool().then(|| "a long enough note ".repeat(rng.usize(0..4))))
        .collect();
    let ids: Int64Array = (0..len).map(|_| Some(rng.i64(0..30))).collect();
    let floats = [Some(0.0), Some(-0.0), Some(1.5), Some(f64::NAN), None];
    let x: Float64Array = (0..len).map(|_| floats[rng.usize(0..floats.len())]).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(text), Arc::new(ids), Arc::new(x)];
    RecordBatch::try_new(schema(), columns).expect("columns of the schema")
}

impl Saved for Upsert {
    fn fresh() -> Self {
        let mut table = Upsert::new(schema(), vec![1]);
        table.track();
        table
    }

    fn change(&mut self, rng: &mut fastrand::Rng) {
        if rng.u8(0..40) == 0 {
            self.truncate();
            return;
        }
        let len = rng.usize(0..12);
        let live: BooleanArray = (0..len).map(|_| Some(rng.u8(0..3) > 0)).collect();
        self.apply(&[UpsertBatch { rows: rows(rng, len), live }]);
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        Upsert::save(self, sink);
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        Upsert::load(self, key, value)
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        Upsert::loaded(self)
    }

    fn snapshot(&self) -> Snapshot {
        Upsert::snapshot(self)
    }
}

impl Saved for BagInput {
    fn fresh() -> Self {
        let mut bag = BagInput::new(schema());
        bag.track();
        bag
    }

    fn change(&mut self, rng: &mut fastrand::Rng) {
        match rng.u8(0..60) {
            0 => drop(self.truncate()),
            // Retractions are seldom at first, so that chunks are met too.
            1..8 => {
                let held: Vec<_> = self.snapshot().as_deltas().collect();
                let Some(delta) = held.first() else { return };
                let weights = delta.weights.values().iter().map(|_| i64::from(rng.bool()) - 1);
                let weights = Int64Array::from_iter_values(weights);
                self.apply(&Delta::new(delta.rows.clone(), weights));
            }
            _ => {
                let len = rng.usize(1..6);
                let weights = Int64Array::from_iter_values((0..len).map(|_| rng.i64(1..3)));
                self.apply(&Delta::new(rows(rng, len), weights));
            }
        }
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        BagInput::save(self, sink);
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        BagInput::load(self, key, value)
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        BagInput::loaded(self)
    }

    fn snapshot(&self) -> Snapshot {
        BagInput::snapshot(self)
    }
}

/// Keyed by a float as well, whose bytes do not tell -0.0 from 0.0.
impl Saved for Arrangement {
    fn fresh() -> Self {
        let mut view = Arrangement::keyed(schema(), vec![2, 1]);
        view.track();
        view
    }

    fn change(&mut self, rng: &mut fastrand::Rng) {
        // The changes of an upsert are those of a keyed view.
        let mut table = Upsert::new(schema(), vec![2, 1]);
        for delta in self.snapshot().as_deltas() {
            let live = BooleanArray::from(vec![true; delta.len()]);
            table.apply(&[UpsertBatch { rows: delta.rows, live }]);
        }
        let len = rng.usize(0..12);
        let live: BooleanArray = (0..len).map(|_| Some(rng.u8(0..3) > 0)).collect();
        let change = table.apply(&[UpsertBatch { rows: rows(rng, len), live }]);
        self.apply(&[change]);
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        Arrangement::save(self, sink);
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        Arrangement::load(self, key, value)
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        Arrangement::loaded(self)
    }

    fn snapshot(&self) -> Snapshot {
        Arrangement::snapshot(self)
    }
}

fn saves_and_loads<T: Saved>() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut live, mut store) = (T::fresh(), Store::default());
        for step in 0..200 {
            live.change(&mut rng);
            if rng.u8(0..4) == 0 {
                store.saving.clear();
                live.save(&mut store);
                let mut other = T::fresh();
                let mut entries: Vec<_> = store.entries.iter().collect();
                if rng.bool() {
                    rng.shuffle(&mut entries);
                }
                for (key, value) in entries {
                    other.load(key, value).expect("a saved entry");
                }
                other.loaded().expect("saved state");
                let (expected, found) = (live.snapshot(), other.snapshot());
                assert_eq!(found.sorted(), expected.sorted(), "seed {seed} step {step}");
                assert_eq!(found.len(), expected.len());
                assert_eq!(found.digest(), expected.digest());
                if rng.bool() {
                    live = other;
                }
            }
        }
    }
}

#[test]
fn a_table_goes_on_from_what_was_saved() {
    saves_and_loads::<Upsert>();
}

#[test]
fn a_bag_goes_on_from_what_was_saved() {
    saves_and_loads::<BagInput>();
}

#[test]
fn a_keyed_view_goes_on_from_what_was_saved() {
    saves_and_loads::<Arrangement>();
}

#[test]
fn a_save_gives_only_what_has_changed() {
    let mut table = Upsert::fresh();
    let row = |ids: &[i64]| UpsertBatch {
        rows: RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(StringViewArray::from(vec!["x"; ids.len()])) as ArrayRef,
                Arc::new(Int64Array::from(ids.to_vec())),
                Arc::new(Float64Array::from(vec![ids.len() as f64; ids.len()])),
            ],
        )
        .unwrap(),
        live: BooleanArray::from(vec![true; ids.len()]),
    };
    table.apply(&[row(&(0..1000).collect::<Vec<_>>())]);
    let mut store = Store::default();
    table.save(&mut store);
    assert_eq!(store.saving.len(), 1000);
    store.saving.clear();
    table.apply(&[row(&[1, 2])]);
    table.save(&mut store);
    assert_eq!(store.saving.len(), 2);
    store.saving.clear();
    table.save(&mut store);
    assert_eq!(store.saving.len(), 0);
}

#[test]
fn entries_of_something_else_are_refused() {
    let mut store = Store::default();
    let mut table = Upsert::fresh();
    let live = BooleanArray::from(vec![true; 3]);
    table.apply(&[UpsertBatch { rows: rows(&mut fastrand::Rng::with_seed(1), 3), live }]);
    table.save(&mut store);
    let (key, value) = store.entries.iter().next().unwrap();
    let mut other = Upsert::fresh();
    // Another key than the row's, and the same key twice.
    other.load(key, value).expect("a saved entry");
    other.load(key, value).expect("a saved entry");
    assert!(other.loaded().is_err());
    let mut bag = BagInput::fresh();
    assert!(bag.load(&[7, 7], value).is_err());
    assert!(bag.load(&[0, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 2, 3]).is_err());
    assert!(bag.load(&[1, 2], &0_i64.to_le_bytes()).is_err());
}
