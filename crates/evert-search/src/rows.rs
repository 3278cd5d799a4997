//! Hits as rows: what SQL's function `search` gives.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use evert_model::{Position, RowSchema};
use evert_view::{Name, RowParser};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::{DocAddress, DocId, Score, SegmentOrdinal, SegmentReader};

use crate::error::EsError;
use crate::query::Translator;
use crate::registry::{Generation, OpenIndex, SearchIndexes};
use crate::search::stored;

/// Rows of one batch.
const BATCH_ROWS: usize = 1024;

/// Every hit and its score.
struct AllHits;

struct SegmentHits {
    segment: SegmentOrdinal,
    hits: Vec<(Score, DocAddress)>,
}

impl Collector for AllHits {
    type Fruit = Vec<(Score, DocAddress)>;
    type Child = SegmentHits;

    fn for_segment(
        &self,
        segment: SegmentOrdinal,
        _: &SegmentReader,
    ) -> tantivy::Result<SegmentHits> {
        Ok(SegmentHits { segment, hits: Vec::new() })
    }

    fn requires_scoring(&self) -> bool {
        true
    }

    fn merge_fruits(&self, children: Vec<Self::Fruit>) -> tantivy::Result<Self::Fruit> {
        let mut hits: Vec<_> = children.into_iter().flatten().collect();
        hits.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        Ok(hits)
    }
}

impl SegmentCollector for SegmentHits {
    type Fruit = Vec<(Score, DocAddress)>;

    fn collect(&mut self, doc: DocId, score: Score) {
        self.hits.push((score, DocAddress::new(self.segment, doc)));
    }

    fn harvest(self) -> Self::Fruit {
        self.hits
    }
}

/// The rows that a text finds, best first.
pub struct FoundRows {
    index: Arc<OpenIndex>,
    generation: Generation,
    hits: std::vec::IntoIter<(Score, DocAddress)>,
    parser: RowParser,
    schema: SchemaRef,
}

/// The relation's columns and the score's: `score`, or `_score` where the relation has such a
/// column.
fn schema_with_score(rows: &RowSchema) -> SchemaRef {
    let columns = rows.to_arrow();
    let name = if rows.index_of("score").is_some() { "_score" } else { "score" };
    let score = Arc::new(Field::new(name, DataType::Float64, false));
    let fields: Vec<_> = columns.fields().iter().cloned().chain([score]).collect();
    Arc::new(Schema::new(fields))
}

impl FoundRows {
    /// The position that the rows are of.
    pub fn position(&self) -> Position {
        self.generation.position
    }

    /// The next rows. Reads from files.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, EsError> {
        let broken = |why: String| EsError::new(500, "search_phase_execution_exception", why);
        let mut scores = Vec::new();
        for (score, address) in self.hits.by_ref().take(BATCH_ROWS) {
            let stored = stored(&self.generation.searcher, &self.index.mapping, address)?;
            self.parser.push(&stored.source).map_err(broken)?;
            scores.push(f64::from(score));
        }
        if scores.is_empty() {
            return Ok(None);
        }
        let rows = self.parser.take();
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.push(Arc::new(Float64Array::from(scores)));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        batch.map(Some).map_err(|error| broken(error.to_string()))
    }
}

impl SearchIndexes {
    /// The columns of what [`SearchIndexes::rows`] gives: the relation's, and the score.
    ///
    /// # Errors
    /// When there is no such index, or it is not open yet.
    pub fn columns(&self, name: &Name) -> Result<SchemaRef, EsError> {
        let catalog = self.views()?.catalog();
        let open = self.index(name);
        let def = catalog.outlets.get(name);
        match (open, def.and_then(|def| catalog.schema_of(&def.on))) {
            (Ok(index), _) => Ok(schema_with_score(&index.mapping.rows)),
            (Err(error), None) => Err(error),
            (Err(error), Some(_)) if error.status == 404 => Err(error),
            (Err(_), Some(rows)) => Ok(schema_with_score(rows)),
        }
    }

    /// The rows that a query string finds in an index that has reached `after`, best first, at
    /// most `limit` of them.
    ///
    /// # Errors
    /// When the text cannot be read, or the index does not come so far in time.
    pub async fn rows(
        &self,
        name: &Name,
        text: String,
        after: Position,
        timeout: Duration,
        limit: Option<usize>,
    ) -> Result<FoundRows, EsError> {
        let (index, generation) = self.generation(name, after, timeout).await?;
        let search = move || {
            let now = chrono::Utc::now().timestamp_micros();
            let query = Translator::new(&index.mapping, now).text(&text)?;
            let mut hits = generation.searcher.search(query.as_ref(), &AllHits)?;
            hits.truncate(limit.unwrap_or(usize::MAX));
            let rows = &index.mapping.rows;
            let (parser, schema) = (RowParser::new(rows), schema_with_score(rows));
            Ok(FoundRows { generation, hits: hits.into_iter(), parser, schema, index })
        };
        self.run(search).await
    }
}
