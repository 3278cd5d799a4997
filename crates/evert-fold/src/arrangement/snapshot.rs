//! Snapshots: the rows of an arrangement at one moment.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use evert_model::Delta;

use super::run::LiveRun;
use crate::consolidate::consolidate;
use crate::keys::KeyCodec;
use crate::rows::{same_values, take_rows};

/// Rows of a scan's batches.
const SCAN_ROWS: usize = 8192;

/// The rows at one moment. Cheap to clone; the writer goes on without it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    schema: SchemaRef,
    runs: Vec<LiveRun>,
    len: usize,
    key: Option<Key>,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) columns: Vec<usize>,
    pub(super) codec: Arc<KeyCodec>,
}

impl Snapshot {
    pub(super) fn new<'a>(
        schema: &SchemaRef,
        runs: impl Iterator<Item = &'a LiveRun>,
        len: usize,
        key: Option<Key>,
    ) -> Self {
        let schema = Arc::clone(schema);
        Self { inner: Arc::new(Inner { schema, runs: runs.cloned().collect(), len, key }) }
    }

    /// What the rows look like.
    pub fn schema(&self) -> &SchemaRef {
        &self.inner.schema
    }

    /// Rows, multiplicities counted.
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns of the key, if the arrangement has one.
    pub fn key(&self) -> Option<&[usize]> {
        self.inner.key.as_ref().map(|key| key.columns.as_slice())
    }

    pub(super) fn runs(&self) -> &[LiveRun] {
        &self.inner.runs
    }

    pub(super) fn codec(&self) -> Option<&KeyCodec> {
        self.inner.key.as_ref().map(|key| key.codec.as_ref())
    }

    /// The rows as batches of up to a few thousand; multiplicities are expanded. `projection`
    /// names columns in the order wanted. The order of rows means nothing.
    ///
    /// # Panics
    /// If the projection names a column that does not exist.
    pub fn scan(
        &self,
        projection: Option<&[usize]>,
    ) -> Box<dyn Iterator<Item = RecordBatch> + Send> {
        Box::new(self.deltas(projection).flat_map(|delta| expanded(&delta)))
    }

    /// The rows as deltas: (row, multiplicity).
    pub fn as_deltas(&self) -> Box<dyn Iterator<Item = Delta> + Send> {
        Box::new(self.deltas(None))
    }

    fn deltas(&self, projection: Option<&[usize]>) -> impl Iterator<Item = Delta> + Send + 'static {
        let projection = projection.map(<[usize]>::to_vec);
        let inner = Arc::clone(&self.inner);
        let slices = (0..inner.runs.len()).flat_map({
            let inner = Arc::clone(&inner);
            move |run| {
                let rows = inner.runs[run].rows();
                (0..rows).step_by(SCAN_ROWS).map(move |at| (run, at, SCAN_ROWS.min(rows - at)))
            }
        });
        let deltas = slices.map(move |(run, start, len)| {
            inner.runs[run].live_delta(start, len, projection.as_deref())
        });
        deltas.filter(|delta| !delta.is_empty())
    }

    /// The row whose key equals row `row` of `key` (columns in key order). `None` if there is
    /// none, the arrangement has no key, or the values do not cast to the key's types.
    pub fn get(&self, key: &RecordBatch, row: usize) -> Option<RecordBatch> {
        let Key { columns, codec } = self.inner.key.as_ref()?;
        if key.num_columns() != columns.len() || row >= key.num_rows() {
            return None;
        }
        let values = (0..columns.len()).map(|i| {
            let wanted = self.inner.schema.field(columns[i]).data_type();
            exact_cast(&key.column(i).slice(row, 1), wanted)
        });
        let values = values.collect::<Option<Vec<_>>>()?;
        let encoded = codec.encode_normalised(&values, 1);
        let bytes = encoded.get(0);
        self.inner.runs.iter().find_map(|live| {
            let at = live.run.keys.as_ref()?.search(bytes)?;
            live.is_live(at).then(|| live.run.rows.slice(at, 1))
        })
    }

    /// What turns the rows of `before` into these, consolidated. Runs that both hold cost nothing.
    ///
    /// # Panics
    /// If the rows have other columns.
    pub fn changes_since(&self, before: &Self) -> Vec<Delta> {
        let (old, new) = (&before.inner.runs, &self.inner.runs);
        let without = |runs: &[LiveRun], others: &[LiveRun]| -> Vec<Delta> {
            let apart = runs.iter().filter(|run| !others.iter().any(|other| other.is_same(run)));
            apart.map(LiveRun::live_rows_all).filter(|delta| !delta.is_empty()).collect()
        };
        let gone = without(old, new).into_iter().map(|delta| {
            let weights = delta.weights.unary(|weight| -weight);
            Delta::new(delta.rows, weights)
        });
        let changes: Vec<Delta> = gone.chain(without(new, old)).collect();
        if changes.is_empty() {
            return changes;
        }
        let codec = KeyCodec::of_schema(&self.inner.schema).expect("it has been arranged");
        consolidate(changes, &codec, &self.inner.schema)
    }

    /// Makes the index over these columns where it is not there yet: then [`Snapshot::find`] is
    /// quick. It lasts as long as the rows, so that little is left to do for a later snapshot.
    ///
    /// # Panics
    /// If a column does not exist.
    pub fn index(&self, columns: &[usize]) {
        for live in &self.inner.runs {
            live.index(columns);
        }
    }

    /// Rows among which are all whose `columns` equal row `row` of `values`, multiplicities
    /// expanded; perhaps a few others. `None` if the values are not of the columns' types.
    ///
    /// # Panics
    /// If a column or the row does not exist.
    pub fn find(
        &self,
        columns: &[usize],
        values: &RecordBatch,
        row: usize,
    ) -> Option<Vec<RecordBatch>> {
        let schema = &self.inner.schema;
        let wanted = columns.iter().map(|&column| schema.field(column).data_type());
        let given = values.columns().iter().map(|value| value.data_type());
        if !wanted.clone().eq(given) {
            return None;
        }
        let codec = KeyCodec::new(wanted).ok()?;
        let one: Vec<_> = values.columns().iter().map(|value| value.slice(row, 1)).collect();
        let key = codec.encode_normalised(&one, 1);
        let mut found = Vec::new();
        for live in &self.inner.runs {
            let rows = live.index(columns);
            let rows = rows.rows(key.get(0)).filter(|row| live.is_live(*row));
            let rows: Vec<u32> = rows.map(|row| row as u32).collect();
            if rows.is_empty() {
                continue;
            }
            let weights = rows.iter().map(|row| live.run.weight(*row as usize)).collect();
            let taken = take_rows(&live.run.rows, &UInt32Array::from(rows));
            found.extend(expanded(&Delta::new(taken, weights)));
        }
        Some(found)
    }

    /// Order-independent digest of the rows: two snapshots with equal rows have equal digests.
    pub fn digest(&self) -> u128 {
        let codec = KeyCodec::of_schema(&self.inner.schema).expect("it has been arranged");
        let mut digest = 0_u128;
        for delta in self.as_deltas() {
            let rows = codec.encode(delta.rows.columns(), delta.len());
            for (row, &weight) in delta.weights.values().iter().enumerate() {
                let hash = row_hash(rows.get(row));
                digest = digest.wrapping_add(hash.wrapping_mul(weight as u128));
            }
        }
        digest
    }

    /// The rows whose bytes are least come first: the same rows give the same batch.
    pub fn sorted(&self) -> RecordBatch {
        let batches: Vec<_> = self.scan(None).collect();
        let all = arrow::compute::concat_batches(&self.inner.schema, &batches)
            .expect("batches of one schema");
        let codec = KeyCodec::of_schema(&self.inner.schema).expect("it has been arranged");
        let keys = codec.encode(all.columns(), all.num_rows());
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        order.sort_unstable_by(|&a, &b| keys.get(a as usize).cmp(keys.get(b as usize)));
        take_rows(&all, &UInt32Array::from(order))
    }
}

/// The value in another type, if it is the same value there: 1.5 is no integer.
fn exact_cast(value: &ArrayRef, wanted: &DataType) -> Option<ArrayRef> {
    if value.data_type() == wanted {
        return Some(Arc::clone(value));
    }
    let there = cast(value, wanted).ok()?;
    let back = cast(&there, value.data_type()).ok()?;
    same_values(&back, value).value(0).then_some(there)
}

/// Each row as often as its weight says, in batches of bounded size.
fn expanded(delta: &Delta) -> Vec<RecordBatch> {
    let weights = delta.weights.values();
    assert!(weights.iter().all(|&weight| weight > 0), "a row is there at least once");
    if weights.iter().all(|&weight| weight == 1) {
        return vec![delta.rows.clone()];
    }
    let mut batches = Vec::new();
    let mut indices: Vec<u32> = Vec::new();
    let take = |indices: &mut Vec<u32>| {
        take_rows(&delta.rows, &UInt32Array::from(std::mem::take(indices)))
    };
    for (row, &weight) in weights.iter().enumerate() {
        for _ in 0..weight {
            indices.push(row as u32);
            if indices.len() == SCAN_ROWS {
                batches.push(take(&mut indices));
            }
        }
    }
    if !indices.is_empty() {
        batches.push(take(&mut indices));
    }
    batches
}

/// A hash of 128 bits that is the same on every machine and in every run.
pub(super) fn row_hash(bytes: &[u8]) -> u128 {
    const MULTIPLIERS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F];
    let mut state = [bytes.len() as u64 ^ 0x2545_F491_4F6C_DD1D, 0x1656_67B1_9E37_79F9];
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        state[0] = folded(state[0] ^ word, MULTIPLIERS[0]);
        state[1] = folded(state[1].wrapping_add(word), MULTIPLIERS[1]) ^ state[0].rotate_left(23);
    }
    let low = folded(state[0] ^ state[1].rotate_left(32), MULTIPLIERS[1]);
    let high = folded(state[1] ^ state[0].rotate_left(17), MULTIPLIERS[0]);
    u128::from(high) << 64 | u128::from(low)
}

fn folded(a: u64, b: u64) -> u64 {
    // A factor of zero would forget the other.
    let product = u128::from(a | 1) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64) ^ a
}
