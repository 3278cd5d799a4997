//! The runs of an arrangement, as their writer sees them.
//!
//! Runs of about the same size are merged, so that a row is rewritten a logarithmic number of
//! times and a reader meets a logarithmic number of runs.
//!
//! Large merges are made by another thread, if there is one, and put in place by and by (`moving`).
//!
//! Invariant: the place of a numbered row is where it is alive.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};

use super::moving::{MOVED_ROWS_MIN, Merged, Moved, Moving};
use super::run::{KeyBytes, LiveRun, Run};
use crate::rows::batch_of;

/// So many runs of about one size become one.
const FANOUT: usize = 8;
/// Runs smaller than this count as one size.
const SMALL_ROWS: usize = 2048;

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) run: u32,
    pub(crate) row: u32,
}

/// The place of a number that no row has.
pub(crate) const NOWHERE: Place = Place { run: u32::MAX, row: u32::MAX };

/// The runs, each in a slot that it keeps.
#[derive(Debug)]
pub(crate) struct Runs {
    schema: SchemaRef,
    slots: Vec<Option<LiveRun>>,
    /// By row number.
    places: Vec<Place>,
    free_ids: Vec<u32>,
    /// Larger runs are not merged.
    rows_max: usize,
    run_bytes: usize,
    /// A merge beside the ticks.
    moving: Option<Moving>,
}

impl Runs {
    pub(crate) fn new(schema: SchemaRef, rows_max: usize) -> Self {
        Self {
            schema,
            slots: Vec::new(),
            places: Vec::new(),
            free_ids: Vec::new(),
            rows_max,
            run_bytes: 0,
            moving: None,
        }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn get(&self, slot: u32) -> &LiveRun {
        self.slots[slot as usize].as_ref().expect("the slot is in use")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LiveRun> {
        self.slots.iter().flatten()
    }

    /// A number for a new row.
    pub(crate) fn new_id(&mut self, place: Place) -> u32 {
        match self.free_ids.pop() {
            Some(id) => {
                self.places[id as usize] = place;
                id
            }
            None => {
                self.places.push(place);
                u32::try_from(self.places.len() - 1).expect("fewer than 2^32 rows of state")
            }
        }
    }

    pub(crate) fn free_id(&mut self, id: u32) {
        self.places[id as usize] = NOWHERE;
        self.free_ids.push(id);
    }

    pub(crate) fn place(&self, id: u32) -> Place {
        self.places[id as usize]
    }

    pub(crate) fn set_place(&mut self, id: u32, place: Place) {
        self.places[id as usize] = place;
    }

    pub(crate) fn kill(&mut self, place: Place) {
        let run = self.slots[place.run as usize].as_mut().expect("the slot is in use");
        run.kill(place.row as usize);
    }

    /// Brings a row to life that was dead from the beginning.
    pub(super) fn revive(&mut self, place: Place) {
        let run = self.slots[place.run as usize].as_mut().expect("the slot is in use");
        run.revive(place.row as usize);
    }

    /// Adds a run, tells its rows' places, and gives its slot.
    pub(crate) fn push(&mut self, run: LiveRun) -> u32 {
        let slot = self.put(run);
        let run = self.slots[slot].as_ref().expect("it was put there");
        for (row, &id) in run.run.ids.iter().enumerate() {
            self.places[id as usize] = Place { run: slot as u32, row: row as u32 };
        }
        slot as u32
    }

    /// Adds a run whose rows are elsewhere as yet, and gives its slot.
    pub(super) fn push_dead(&mut self, run: Run) -> u32 {
        self.put(LiveRun::dead(run)) as u32
    }

    fn put(&mut self, run: LiveRun) -> usize {
        self.run_bytes += run.memory_bytes();
        match self.slots.iter().position(Option::is_none) {
            Some(free) => {
                self.slots[free] = Some(run);
                free
            }
            None => {
                self.slots.push(Some(run));
                self.slots.len() - 1
            }
        }
    }

    /// Numbers the rows of all runs, which had no numbers so far, and gives the runs.
    pub(crate) fn number_rows(&mut self) -> Vec<u32> {
        let mut numbered = Vec::new();
        for slot in 0..self.slots.len() {
            let Some(run) = &self.slots[slot] else { continue };
            let rows = run.rows();
            let place = |row: usize| Place { run: slot as u32, row: row as u32 };
            let ids = (0..rows).map(|row| self.new_id(place(row))).collect();
            let run = self.get(slot as u32).with_ids(ids);
            self.run_bytes += rows * size_of::<u32>();
            self.slots[slot] = Some(run);
            numbered.push(slot as u32);
        }
        numbered
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(Arc::clone(&self.schema), self.rows_max);
    }

    /// The rows at `places`, column by column.
    pub(crate) fn gather(&self, places: &[Place]) -> Vec<ArrayRef> {
        let mut used = vec![usize::MAX; self.slots.len()];
        let mut runs = Vec::new();
        let indices: Vec<_> = places
            .iter()
            .map(|place| {
                let at = &mut used[place.run as usize];
                if *at == usize::MAX {
                    *at = runs.len();
                    runs.push(self.get(place.run));
                }
                (*at, place.row as usize)
            })
            .collect();
        gather_rows(&self.schema, &runs, &indices)
    }

    /// Merges what the policy says, after a tick of `rows` rows.
    pub(crate) fn merge(&mut self, rows: usize) {
        if let Some(moving) = self.moving.take() {
            match self.step(moving, rows) {
                Moved::GoesOn(moving) => self.moving = Some(moving),
                Moved::Done => {}
                Moved::Lost(slots) => self.merge_slots(&slots),
            }
        }
        while let Some(chosen) = self.choose() {
            if self.is_large(&chosen) {
                self.moving = Moving::start(self, chosen.clone());
                if self.moving.is_some() {
                    continue;
                }
            }
            self.merge_slots(&chosen);
        }
    }

    /// Whether a merge takes so long that it is better made beside the ticks. Rows without numbers
    /// have no place that could tell whether they are still alive.
    fn is_large(&self, slots: &[u32]) -> bool {
        let runs = || slots.iter().map(|&slot| self.get(slot));
        runs().map(LiveRun::live_rows).sum::<usize>() >= MOVED_ROWS_MIN
            && runs().all(|live| live.run.ids.len() == live.rows())
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.run_bytes
            + self.places.capacity() * size_of::<Place>()
            + self.free_ids.capacity() * size_of::<u32>()
    }

    /// A run that is mostly dead, or many runs of one size. One large merge is made at a time.
    fn choose(&self) -> Option<Vec<u32>> {
        let may_be_chosen = |slots: &[u32]| self.moving.is_none() || !self.is_large(slots);
        let mut levels: Vec<Vec<u32>> = Vec::new();
        for (slot, run) in self.slots.iter().enumerate() {
            let (slot, Some(run)) = (slot as u32, run) else { continue };
            if self.moving.as_ref().is_some_and(|moving| moving.holds(slot)) {
                continue;
            }
            let live = run.live_rows();
            let is_thin = live == 0 || (run.rows() > SMALL_ROWS && live * 2 < run.rows());
            if is_thin && may_be_chosen(&[slot]) {
                return Some(vec![slot]);
            }
            if live >= self.rows_max {
                continue;
            }
            let level = level(live);
            levels.resize_with(levels.len().max(level + 1), Vec::new);
            levels[level].push(slot);
        }
        levels.into_iter().find(|slots| slots.len() >= FANOUT && may_be_chosen(slots))
    }

    fn merge_slots(&mut self, chosen: &[u32]) {
        let runs: Vec<LiveRun> = chosen
            .iter()
            .map(|&slot| self.slots[slot as usize].take().expect("it was chosen"))
            .collect();
        self.run_bytes -= runs.iter().map(LiveRun::memory_bytes).sum::<usize>();
        if let Some(merged) = merge_runs(&self.schema, &runs) {
            self.push(LiveRun::new(merged));
        }
    }
}

fn level(rows: usize) -> usize {
    match rows / SMALL_ROWS {
        0 => 0,
        n => 1 + n.ilog(FANOUT) as usize,
    }
}

/// As `merge_runs`, with the places that the rows come from: `slots` are those of the runs.
pub(super) fn merge_with_origins(
    schema: &SchemaRef,
    runs: &[LiveRun],
    slots: &[u32],
) -> Option<Merged> {
    let indices = merged_order(runs);
    let run = merge_in_order(schema, runs, &indices)?;
    let origins = indices.iter().map(|&(r, row)| Place { run: slots[r], row: row as u32 });
    Some(Merged { run, origins: origins.collect() })
}

/// The live rows of several runs in one, in key order if they have keys.
fn merge_runs(schema: &SchemaRef, runs: &[LiveRun]) -> Option<Run> {
    merge_in_order(schema, runs, &merged_order(runs))
}

fn merged_order(runs: &[LiveRun]) -> Vec<(usize, usize)> {
    if is_keyed(runs) { sorted_rows(runs) } else { live_rows(runs) }
}

fn is_keyed(runs: &[LiveRun]) -> bool {
    runs.iter().all(|live| live.run.keys.is_some())
}

fn merge_in_order(schema: &SchemaRef, runs: &[LiveRun], indices: &[(usize, usize)]) -> Option<Run> {
    if indices.is_empty() {
        return None;
    }
    let refs: Vec<_> = runs.iter().collect();
    let columns = gather_rows(schema, &refs, indices).into_iter().map(compacted).collect();
    let has_weights = runs.iter().any(|live| live.run.weights.is_some());
    let weights = has_weights
        .then(|| indices.iter().map(|&(r, row)| Some(runs[r].run.weight(row))).collect());
    let keys =
        is_keyed(runs).then(|| KeyBytes::collect(indices.iter().map(|&(r, row)| runs[r].key(row))));
    let numbered = runs.iter().all(|live| live.run.ids.len() == live.rows());
    let ids = if numbered {
        indices.iter().map(|&(r, row)| runs[r].run.ids[row]).collect()
    } else {
        Vec::new()
    };
    Some(Run { rows: batch_of(schema, columns, indices.len()), weights, keys, ids })
}

fn live_rows(runs: &[LiveRun]) -> Vec<(usize, usize)> {
    let some_alive = runs.iter().enumerate().filter(|(_, live)| live.live_rows() > 0);
    let rows = some_alive.flat_map(|(r, live)| {
        (0..live.rows()).filter(|&row| live.is_live(row)).map(move |row| (r, row))
    });
    rows.collect()
}

fn sorted_rows(runs: &[LiveRun]) -> Vec<(usize, usize)> {
    let mut rows: Vec<_> = live_rows(runs)
        .into_iter()
        .map(|(r, row)| (prefix(runs[r].key(row)), r as u32, row as u32))
        .collect();
    // The standard sort finds the runs that are there and merges them.
    rows.sort_by(|a, b| {
        a.0.cmp(&b.0).then_with(|| {
            let (a, b) =
                (runs[a.1 as usize].key(a.2 as usize), runs[b.1 as usize].key(b.2 as usize));
            a.cmp(b)
        })
    });
    rows.into_iter().map(|(_, r, row)| (r as usize, row as usize)).collect()
}

/// The first 16 bytes of a key, ordered as the key is.
pub(super) fn prefix(key: &[u8]) -> u128 {
    match key.first_chunk::<16>() {
        Some(head) => u128::from_be_bytes(*head),
        None => {
            let mut head = [0; 16];
            head[..key.len()].copy_from_slice(key);
            u128::from_be_bytes(head)
        }
    }
}

fn gather_rows(schema: &SchemaRef, runs: &[&LiveRun], indices: &[(usize, usize)]) -> Vec<ArrayRef> {
    let columns = schema.fields().iter().enumerate().map(|(column, field)| {
        if runs.is_empty() {
            return arrow::array::new_empty_array(field.data_type());
        }
        let arrays: Vec<_> =
            runs.iter().map(|live| live.run.rows.column(column).as_ref()).collect();
        interleave(&arrays, indices).expect("indices lie in the runs")
    });
    columns.collect()
}

/// Strings without the bytes that no row refers to any more.
pub(super) fn compacted(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => {
            let array = column.as_string_view();
            let held: usize = array.data_buffers().iter().map(|buffer| buffer.capacity()).sum();
            if held > 2 * array.total_buffer_bytes_used() + 1024 || array.data_buffers().len() > 8 {
                return Arc::new(array.gc());
            }
            column
        }
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        DataType::List(item) if *item.data_type() == DataType::Utf8View => {
            let lists = column.as_list::<i32>();
            let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
            let values = compacted(Arc::clone(lists.values()));
            Arc::new(ListArray::new(Arc::clone(item), offsets, values, nulls))
        }
        _ => column,
    }
}

/// Weights as a run keeps them.
pub(super) fn run_weights(weights: &Int64Array) -> Option<Int64Array> {
    weights.values().iter().any(|&weight| weight != 1).then(|| weights.clone())
}
