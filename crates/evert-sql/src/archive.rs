//! Archives in SQL: the Parquet files of an archive's newest snapshot as a table.
//!
//! Owns: how their rows are read, and the trait through which the server says which files there
//! are.
//! Not here: writing them (`evert-archive`).

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result, ToDFSchema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use evert_model::{Position, RowSchema};
use evert_view::{Catalog, Name, OutletKind, facts_schema};
use object_store::ObjectStore;

use crate::SqlError;
use crate::error::OBJECT_NOT_READY;

/// Which files the archives have.
pub trait ArchiveSource: Send + Sync {
    /// An archive as it is now; `None` if it was not opened yet.
    fn archive(&self, name: &Name) -> Option<ArchiveRows>;
}

/// What an archive holds.
#[derive(Clone)]
pub struct ArchiveRows {
    /// Every fact up to here.
    pub position: Position,
    /// The URLs of its Parquet files and their lengths.
    pub files: Vec<(String, u64)>,
    /// What reads a bucket's objects; `None`: they are files of this machine.
    pub objects: Option<Arc<dyn ObjectStore>>,
}

impl fmt::Debug for ArchiveRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveRows").field("position", &self.position).finish_non_exhaustive()
    }
}

/// The columns of an archive, if there is one of the name.
pub(crate) fn schema(catalog: &Catalog, name: &Name) -> Option<RowSchema> {
    let def = catalog.outlets.get(name).filter(|def| def.kind == OutletKind::Archive)?;
    catalog.schema_of(&def.on).map(facts_schema)
}

pub(crate) fn not_ready(name: &Name) -> SqlError {
    SqlError::new(OBJECT_NOT_READY, format!("archive \"{name}\" cannot be read yet"))
        .hint("SHOW VIEWS tells its state.")
}

/// Reads the files' rows. Filters only say which parts of the files need not be read.
pub(crate) fn scan(
    session: &dyn Session,
    rows: &ArchiveRows,
    schema: &SchemaRef,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some((first, _)) = rows.files.first() else {
        let schema = match projection {
            Some(projection) => Arc::new(schema.project(projection)?),
            None => Arc::clone(schema),
        };
        return Ok(Arc::new(EmptyExec::new(schema)));
    };
    let store = match &rows.objects {
        None => ObjectStoreUrl::local_filesystem(),
        Some(objects) => {
            let url = ObjectStoreUrl::parse(bucket_of(first)?)?;
            session.runtime_env().register_object_store(url.as_ref(), Arc::clone(objects));
            url
        }
    };
    let files =
        rows.files.iter().map(|(url, bytes)| Ok(PartitionedFile::new(path_of(url)?, *bytes)));
    let mut source = ParquetSource::new(Arc::clone(schema));
    if let Some(filter) = conjunction(filters.iter().cloned()) {
        let columns = Arc::clone(schema).to_dfschema()?;
        source = source.with_predicate(session.create_physical_expr(filter, &columns)?);
    }
    let config = FileScanConfigBuilder::new(store, Arc::new(source))
        .with_file_group(FileGroup::new(files.collect::<Result<_>>()?))
        .with_projection_indices(projection.cloned())?
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

fn bucket_of(url: &str) -> Result<&str> {
    let rest = url.strip_prefix("s3://").and_then(|rest| rest.find('/'));
    let end = rest.ok_or_else(|| odd(url))?;
    Ok(&url[.."s3://".len() + end])
}

fn path_of(url: &str) -> Result<&str> {
    if let Some(path) = url.strip_prefix("file://") {
        return Ok(path);
    }
    Ok(&url[bucket_of(url)?.len()..])
}

fn odd(url: &str) -> DataFusionError {
    DataFusionError::Execution(format!("{url} is no place of an archive's file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_store_and_a_path() {
        assert_eq!(path_of("file:///a/b.parquet").expect("a file"), "/a/b.parquet");
        assert_eq!(bucket_of("s3://lake/a/b").expect("an object"), "s3://lake");
        assert_eq!(path_of("s3://lake/a/b").expect("an object"), "/a/b");
        assert!(path_of("http://x/y").is_err() && bucket_of("s3://lake").is_err());
    }
}
