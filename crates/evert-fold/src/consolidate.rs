//! Consolidation: equal rows cancel or add up.

use arrow::array::{Int64Array, UInt32Array};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use crate::key_index::{HashIndex, KeyHasher};
use crate::keys::{KeyCodec, KeyRows};
use crate::rows::{batch_of, take_rows};

/// The change of several ticks as that of one: rows that came and went in between are gone. An
/// operator may then do once what it would do for every tick.
pub fn net_change(deltas: Vec<Delta>) -> Vec<Delta> {
    let Some(first) = deltas.first().filter(|_| deltas.len() > 1) else { return deltas };
    let schema = first.rows.schema();
    // Ticks around an added column stay apart.
    if deltas.iter().any(|delta| delta.rows.schema() != schema) {
        return deltas;
    }
    match KeyCodec::of_schema(&schema) {
        Ok(codec) => consolidate(deltas, &codec, &schema),
        Err(_) => deltas,
    }
}

/// Gives deltas that sum to the same change, without a row that is both inserted and retracted.
/// Rows that are only inserted pass as they are.
pub(crate) fn consolidate(deltas: Vec<Delta>, codec: &KeyCodec, schema: &SchemaRef) -> Vec<Delta> {
    let mut deltas: Vec<_> = deltas.into_iter().filter(|delta| !delta.is_empty()).collect();
    let one_sign = |sign: i64| {
        deltas.iter().all(|delta| delta.weights.values().iter().all(|w| w.signum() == sign))
    };
    if one_sign(1) || one_sign(-1) {
        return deltas;
    }
    let keys: Vec<KeyRows> =
        deltas.iter().map(|delta| codec.encode(delta.rows.columns(), delta.len())).collect();
    let distinct = distinct_rows(&deltas, &keys);
    let kept: Vec<_> = distinct.into_iter().filter(|row| row.weight != 0).collect();
    if kept.is_empty() {
        return Vec::new();
    }
    let weights = Int64Array::from_iter_values(kept.iter().map(|row| row.weight));
    if deltas.len() == 1 {
        let delta = deltas.pop().expect("there is one");
        let indices = UInt32Array::from_iter_values(kept.iter().map(|row| row.row));
        return vec![Delta::new(take_rows(&delta.rows, &indices), weights)];
    }
    let indices: Vec<_> = kept.iter().map(|row| (row.delta as usize, row.row as usize)).collect();
    let columns = (0..schema.fields().len())
        .map(|column| {
            let arrays: Vec<_> =
                deltas.iter().map(|delta| delta.rows.column(column).as_ref()).collect();
            interleave(&arrays, &indices).expect("indices lie in the batches")
        })
        .collect();
    vec![Delta::new(batch_of(schema, columns, kept.len()), weights)]
}

struct DistinctRow {
    delta: u32,
    row: u32,
    weight: i64,
}

/// Each distinct row where it was first met, with the sum of its weights.
fn distinct_rows(deltas: &[Delta], keys: &[KeyRows]) -> Vec<DistinctRow> {
    let hasher = KeyHasher::default();
    let mut index = HashIndex::default();
    index.reserve(keys.iter().map(KeyRows::len).sum());
    let mut distinct: Vec<DistinctRow> = Vec::new();
    for (d, delta) in deltas.iter().enumerate() {
        for (row, &weight) in delta.weights.values().iter().enumerate() {
            let key = keys[d].get(row);
            let hash = hasher.hash(key);
            let found = index.find(hash, |slot| {
                let at = &distinct[slot as usize];
                keys[at.delta as usize].get(at.row as usize) == key
            });
            match found {
                Some(slot) => distinct[slot as usize].weight += weight,
                None => {
                    index.insert(hash, distinct.len() as u32);
                    distinct.push(DistinctRow { delta: d as u32, row: row as u32, weight });
                }
            }
        }
    }
    distinct
}
