//! One index on disk: opened, changed, committed.
//!
//! Owns: the directory, what a commit says about itself, and the order of deletions and additions.
//! Not here: where changes come from and when to commit (`outlet`).
//!
//! Invariants
//! - A commit holds documents and the position they are of: both or neither survive a crash.
//! - What is of another definition, or damaged, is deleted and begun anew.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evert_model::{Delta, Position};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tantivy::collector::Count;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::query::TermQuery;
use tantivy::schema::IndexRecordOption;
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, TantivyError, Term};

use crate::analyzer;
use crate::document::{DocumentWriter, document, row_hash};
use crate::known::Known;
use crate::mapping::Mapping;

/// Segments of a size that are merged into one.
const MERGED: usize = 8;

/// Deleted documents of a segment, as a share, from which on it is merged by itself.
const MERGED_DELETED: f32 = 0.3;

/// The writer of an index: one thread that indexes, one that merges.
///
/// # Errors
/// When the index has a writer already, or its directory cannot be written.
pub(crate) fn writer(index: &Index, heap_bytes: usize) -> Result<IndexWriter, TantivyError> {
    let options = IndexWriterOptions::builder()
        .num_worker_threads(1)
        .num_merge_threads(1)
        .memory_budget_per_thread(heap_bytes)
        .build();
    let writer: IndexWriter = index.writer_with_options(options)?;
    let mut policy = LogMergePolicy::default();
    policy.set_min_num_segments(MERGED);
    policy.set_del_docs_ratio_before_merge(MERGED_DELETED);
    writer.set_merge_policy(Box::new(policy));
    Ok(writer)
}

/// What a commit says about itself.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Payload {
    /// The definition that it is of.
    id: String,
    /// Everything up to here is in it; nothing while its first rows are still coming.
    position: Option<u64>,
    mapping: Value,
}

/// An open index.
pub(crate) struct Store {
    dir: PathBuf,
    id: String,
    pub(crate) mapping: Arc<Mapping>,
    writer: IndexWriter,
    reader: IndexReader,
    documents: DocumentWriter,
    position: Option<Position>,
    /// Changes since the last commit.
    pending: usize,
    /// How many of each row there are, of rows without a key that changed since the last commit.
    copies: HashMap<u128, u64>,
    /// The rows without a key that it holds, and some that it held; only while it has been written
    /// from the first row on.
    known: Option<Known>,
}

impl Store {
    /// Opens what is stored in `dir`; begins empty when there is nothing, or nothing of use.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn open(
        dir: &Path,
        id: &str,
        mapping: Mapping,
        heap_bytes: usize,
    ) -> Result<Self, TantivyError> {
        let payload = Payload { id: id.to_owned(), position: None, mapping: mapping.fingerprint() };
        let (index, position) = match existing(dir, &mapping, &payload) {
            Some((index, position)) => (index, Some(position)),
            None => {
                remove(dir)?;
                std::fs::create_dir_all(dir)?;
                (Index::create_in_dir(dir, mapping.schema.clone())?, None)
            }
        };
        let known = position.is_none().then(Known::new);
        analyzer::register(index.tokenizers());
        let writer = writer(&index, heap_bytes)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self {
            dir: dir.to_path_buf(),
            id: id.to_owned(),
            documents: DocumentWriter::new(&mapping),
            mapping: Arc::new(mapping),
            writer,
            reader,
            position,
            pending: 0,
            copies: HashMap::new(),
            known,
        })
    }

    /// Everything up to here is committed.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// What was committed last.
    pub(crate) fn searcher(&self) -> Searcher {
        self.reader.searcher()
    }

    /// Whether its directory is still there.
    pub(crate) fn is_there(&self) -> bool {
        self.dir.join("meta.json").exists()
    }

    /// Takes changes in: what is retracted, then what is inserted.
    ///
    /// # Errors
    /// When the index cannot be read or written.
    pub(crate) fn apply(&mut self, deltas: &[Delta]) -> Result<(), TantivyError> {
        let (mut id, mut source) = (String::new(), String::new());
        for delta in deltas {
            for row in 0..delta.len() {
                let weight = delta.weights.value(row);
                if weight == 0 {
                    continue;
                }
                self.pending += 1;
                if weight > 0 || self.mapping.row.is_some() {
                    self.documents.source(&delta.rows, row, &mut source);
                }
                if self.documents.key(&delta.rows, row, &mut id).is_none() {
                    self.apply_keyless(delta, row, weight, &source)?;
                } else if weight > 0 {
                    let document = document(&self.mapping, &delta.rows, row, &id, &source);
                    self.writer.add_document(document)?;
                } else {
                    self.writer.delete_term(Term::from_field_text(self.mapping.id, &id));
                }
            }
        }
        Ok(())
    }

    /// Adds or removes copies of a row that has no key.
    fn apply_keyless(
        &mut self,
        delta: &Delta,
        row: usize,
        weight: i64,
        source: &str,
    ) -> Result<(), TantivyError> {
        let field = self.mapping.row.expect("rows without a key have a hash");
        let hash = row_hash(source);
        let text = format!("{hash:032x}");
        let is_new = || self.known.as_ref().is_some_and(|known| !known.may_hold(hash));
        let mut count = match self.copies.get(&hash) {
            Some(count) => *count,
            // To look a term up in every segment takes longer than all else.
            None if is_new() => 0,
            None => {
                let (term, searcher) =
                    (Term::from_field_text(field, &text), self.reader.searcher());
                // Most rows are the only ones of their kind, which the terms alone tell.
                match searcher.doc_freq(&term)? {
                    0 => 0,
                    _ => {
                        let query = TermQuery::new(term, IndexRecordOption::Basic);
                        searcher.search(&query, &Count)? as u64
                    }
                }
            }
        };
        for _ in 0..weight.unsigned_abs() {
            if weight > 0 {
                let id = format!("{text}-{count}");
                let mut document = document(&self.mapping, &delta.rows, row, &id, source);
                document.add_text(field, &text);
                self.writer.add_document(document)?;
                count += 1;
            } else {
                count = count.saturating_sub(1);
                let id = format!("{text}-{count}");
                self.writer.delete_term(Term::from_field_text(self.mapping.id, &id));
            }
        }
        self.copies.insert(hash, count);
        if let Some(known) = &mut self.known {
            known.put(hash);
        }
        Ok(())
    }

    /// Makes all changes so far durable, as of a position, and visible.
    ///
    /// # Errors
    /// When the index cannot be written: what was committed before is still there.
    pub(crate) fn commit(&mut self, position: Option<Position>) -> Result<(), TantivyError> {
        let payload = Payload {
            id: self.id.clone(),
            position: position.map(Position::get),
            mapping: self.mapping.fingerprint(),
        };
        let payload = serde_json::to_string(&payload)
            .map_err(|error| TantivyError::InternalError(error.to_string()))?;
        let mut commit = self.writer.prepare_commit()?;
        commit.set_payload(&payload);
        commit.commit()?;
        self.reader.reload()?;
        self.position = position;
        self.pending = 0;
        self.copies.clear();
        Ok(())
    }

    /// Forgets all documents, to begin anew.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub(crate) fn clear(&mut self) -> Result<(), TantivyError> {
        self.writer.delete_all_documents()?;
        self.known = Some(Known::new());
        self.commit(None)
    }
}

/// The index in a directory, if it is whole, of this definition, and of a position.
fn existing(dir: &Path, mapping: &Mapping, expected: &Payload) -> Option<(Index, Position)> {
    if !dir.join("meta.json").exists() {
        return None;
    }
    // Files that were damaged may make the library panic.
    let opened = catch_unwind(AssertUnwindSafe(|| open_whole(dir, mapping, expected)));
    let why = match opened {
        Ok(Ok(Some(found))) => return Some(found),
        Ok(Ok(None)) => "it is of another definition, or was not finished".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "its files make no sense".to_owned(),
    };
    tracing::warn!(dir = %dir.display(), %why, "search: an index is built anew");
    None
}

fn open_whole(
    dir: &Path,
    mapping: &Mapping,
    expected: &Payload,
) -> Result<Option<(Index, Position)>, TantivyError> {
    let index = Index::open_in_dir(dir)?;
    let payload = index.load_metas()?.payload.unwrap_or_default();
    let Ok(found) = serde_json::from_str::<Payload>(&payload) else { return Ok(None) };
    let same = found.id == expected.id && found.mapping == expected.mapping;
    if !same || index.schema() != mapping.schema {
        return Ok(None);
    }
    let damaged = index.validate_checksum()?;
    if let Some(file) = damaged.iter().next() {
        let reason = format!("{} is damaged", file.display());
        return Err(TantivyError::InternalError(reason));
    }
    Ok(found.position.map(|position| (index, Position::new(position))))
}

/// Deletes an index's directory.
pub(crate) fn remove(dir: &Path) -> std::io::Result<()> {
    // A merge may go on for a while after its index was closed. It finds nothing to write into
    // under another name, so that what is deleted stays empty.
    let mut gone = dir.as_os_str().to_owned();
    gone.push(".gone");
    delete(Path::new(&gone))?;
    match std::fs::rename(dir, &gone) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    }
    delete(Path::new(&gone))
}

fn delete(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        // Not a directory: it is in an index's way all the same.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            std::fs::remove_file(path)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
    use evert_model::{Column, ColumnType, RowSchema};

    use super::*;
    use crate::mapping::IndexOptions;

    const HEAP: usize = 15 << 20;

    fn mapping(key: Vec<usize>) -> Mapping {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        let columns = vec![column("id", ColumnType::Text), column("n", ColumnType::Int64)];
        let rows = RowSchema { columns, key };
        let options = IndexOptions::plan(&serde_json::json!({}), &rows).unwrap();
        Mapping::new(&options, &rows).unwrap()
    }

    fn delta(mapping: &Mapping, rows: &[(&str, i64, i64)]) -> Delta {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
        ];
        let weights = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
        Delta::new(RecordBatch::try_new(mapping.rows.to_arrow(), columns).unwrap(), weights)
    }

    fn open(dir: &Path, id: &str) -> Store {
        Store::open(dir, id, mapping(vec![0]), HEAP).unwrap()
    }

    #[test]
    fn rows_and_their_position_survive_together() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("index");
        let mut store = open(&dir, "a");
        assert_eq!(store.position(), None);
        let changes = delta(&store.mapping, &[("x", 1, 1), ("y", 2, 1)]);
        store.apply(&[changes]).unwrap();
        store.commit(Some(Position::new(7))).unwrap();
        // A change of a row is its old one out and its new one in.
        let out = delta(&store.mapping, &[("x", 1, -1)]);
        let into = delta(&store.mapping, &[("x", 3, 1)]);
        store.apply(&[out, into]).unwrap();
        // Not committed: a crash.
        drop(store);
        let mut store = open(&dir, "a");
        assert_eq!((store.position(), store.searcher().num_docs()), (Some(Position::new(7)), 2));
        let out = delta(&store.mapping, &[("x", 1, -1), ("y", 2, -1)]);
        let into = delta(&store.mapping, &[("x", 3, 1)]);
        store.apply(&[out, into]).unwrap();
        store.commit(Some(Position::new(9))).unwrap();
        assert_eq!(store.searcher().num_docs(), 1);
        drop(store);
        assert_eq!(open(&dir, "a").position(), Some(Position::new(9)));
        assert_eq!(open(&dir, "another").position(), None);
    }

    #[test]
    fn what_is_damaged_or_unfinished_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("index");
        let build = || {
            let mut store = open(&dir, "a");
            let changes = delta(&store.mapping, &[("x", 1, 1)]);
            store.apply(&[changes]).unwrap();
            store.commit(Some(Position::new(7))).unwrap();
        };
        build();
        for extension in ["store", "idx", "fast", "json"] {
            let files = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path());
            let of = |file: &PathBuf| file.extension().is_some_and(|it| it == extension);
            let Some(file) = files.filter(of).find(|file| !file.ends_with(".managed.json")) else {
                panic!("no file .{extension}");
            };
            let mut content = std::fs::read(&file).unwrap();
            let middle = content.len() / 2;
            content[middle] ^= 0x55;
            std::fs::write(&file, &content).unwrap();
            assert_eq!(open(&dir, "a").position(), None, "{}", file.display());
            remove(&dir).unwrap();
            build();
        }
        let mut store = open(&dir, "a");
        store.commit(None).unwrap();
        drop(store);
        assert_eq!(open(&dir, "a").position(), None);
    }

    #[test]
    fn a_directory_can_be_removed_while_a_merge_writes_into_it() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("index");
        for _ in 0..50 {
            std::fs::create_dir_all(&dir).unwrap();
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let (dir, done) = (&dir, &done);
                scope.spawn(move || {
                    for n in 0.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        drop(std::fs::write(dir.join(format!("{n}")), "x"));
                    }
                });
                std::thread::sleep(std::time::Duration::from_millis(2));
                let removed = remove(dir);
                done.store(true, Ordering::Relaxed);
                removed.unwrap();
            });
            assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn equal_rows_without_a_key_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("i"), "a", mapping(vec![]), HEAP).unwrap();
        let mut apply = |rows: &[(&str, i64, i64)]| {
            let changes = delta(&store.mapping, rows);
            store.apply(&[changes]).unwrap();
            store.commit(Some(Position::new(1))).unwrap();
            store.searcher().num_docs()
        };
        assert_eq!(apply(&[("x", 1, 2), ("x", 1, 1), ("y", 1, 1)]), 4);
        assert_eq!(apply(&[("x", 1, -1), ("y", 1, -1)]), 2);
        assert_eq!(apply(&[("x", 1, -2), ("x", 1, 1)]), 1);
    }
}
