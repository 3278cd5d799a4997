//! The library alone: documents written to an index of the same schema, for benchmarks.
//!
//! Owns: what indexing and searching cost by themselves.
//! Not here: following the log (`outlet`), what a real index stores about itself (`index`).

use std::collections::HashSet;
use std::path::Path;

use arrow::array::RecordBatch;
use evert_model::RowSchema;
use evert_view::PlanError;
use serde_json::Value;
use tantivy::collector::{Count, TopDocs};
use tantivy::query::QueryParser;
use tantivy::{Index, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

use crate::analyzer;
use crate::document::{DocumentWriter, document};
use crate::index::writer;
use crate::mapping::{IndexOptions, Mapping};

/// Documents that are ready to be written, each with the term of what it replaces, if anything.
pub struct BareDocuments(Vec<(Option<Term>, TantivyDocument)>);

/// An index that is written by hand.
pub struct BareIndex {
    mapping: Mapping,
    index: Index,
    writer: IndexWriter,
    /// The ids of all documents that were made.
    known: HashSet<String>,
}

impl BareIndex {
    /// An empty index in `dir`, with the schema, heap and merges that a search index over such
    /// rows has.
    ///
    /// # Errors
    /// When the options do not fit the rows, or the directory cannot be written.
    pub fn create(
        dir: &Path,
        options: &Value,
        rows: &RowSchema,
        heap_bytes: usize,
    ) -> Result<Self, TantivyError> {
        let unfit = |error: PlanError| TantivyError::InvalidArgument(error.message);
        let options = IndexOptions::plan(options, rows).map_err(unfit)?;
        let other = || TantivyError::InvalidArgument("the options are of other rows".into());
        let mapping = Mapping::new(&options, rows).ok_or_else(other)?;
        std::fs::create_dir_all(dir)?;
        let index = Index::create_in_dir(dir, mapping.schema.clone())?;
        analyzer::register(index.tokenizers());
        let writer = writer(&index, heap_bytes)?;
        Ok(Self { mapping, index, writer, known: HashSet::new() })
    }

    /// Makes documents of rows, which have a key.
    pub fn documents(&mut self, rows: &RecordBatch) -> BareDocuments {
        let writer = DocumentWriter::new(&self.mapping);
        let (mut id, mut source) = (String::new(), String::new());
        let documents = (0..rows.num_rows()).map(|row| {
            writer.source(rows, row, &mut source);
            // Without a key the id stays empty, and each row would replace the one before it.
            writer.key(rows, row, &mut id).expect("rows of a benchmark have a key");
            let is_known = !self.known.insert(id.clone());
            let term = is_known.then(|| Term::from_field_text(self.mapping.id, &id));
            (term, document(&self.mapping, rows, row, &id, &source))
        });
        BareDocuments(documents.collect())
    }

    /// Writes documents, each in place of the one before it.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn put(&mut self, documents: BareDocuments) -> Result<(), TantivyError> {
        for (term, document) in documents.0 {
            if let Some(term) = term {
                self.writer.delete_term(term);
            }
            self.writer.add_document(document)?;
        }
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn commit(&mut self) -> Result<(), TantivyError> {
        self.writer.commit()?;
        Ok(())
    }

    /// What searches what is committed now.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn searcher(&self) -> Result<BareSearcher<'_>, TantivyError> {
        let reader = self.index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(BareSearcher { index: self, reader })
    }
}

/// Searches a bare index.
pub struct BareSearcher<'a> {
    index: &'a BareIndex,
    reader: tantivy::IndexReader,
}

impl BareSearcher<'_> {
    /// Searches for `query` in one column, as the library's own parser reads it; gives how many
    /// documents there are, and the sources of the best `limit`.
    ///
    /// # Errors
    /// When there is no such column, the query cannot be read, or a file cannot.
    pub fn search(
        &self,
        column: &str,
        query: &str,
        limit: usize,
    ) -> Result<(usize, Vec<String>), TantivyError> {
        let mapping = &self.index.mapping;
        let field = mapping.fields.iter().find(|field| field.name == column);
        let unknown = || TantivyError::InvalidArgument(format!("no column {column}"));
        let field = field.ok_or_else(unknown)?.field;
        let query = QueryParser::for_index(&self.index.index, vec![field]).parse_query(query)?;
        let searcher = self.reader.searcher();
        let (count, best) =
            searcher.search(&query, &(Count, TopDocs::with_limit(limit).order_by_score()))?;
        let sources = best.into_iter().map(|(_, address)| {
            let document: TantivyDocument = searcher.doc(address)?;
            let source = document.get_first(mapping.source);
            let text = source.and_then(|value| tantivy::schema::Value::as_str(&value));
            Ok(text.unwrap_or_default().to_owned())
        });
        Ok((count, sources.collect::<Result<_, TantivyError>>()?))
    }
}
