//! SUBSCRIBE: a relation's or view's changes as rows.
//!
//! Each row carries the position of its change, its weight (+1 in, -1 out) and the columns. A row
//! of progress says that everything up to its position has been sent.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use evert_model::RowSchema;
use evert_view::{Changes, SubscribeFrom, Subscription};
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::Session;
use crate::command::Subscribe;
use crate::copy::CopyForm;
use crate::guard::{FOREVER, Guard};
use crate::names::unknown_relation;
use crate::{Response, SqlError, translate};

/// The columns of SUBSCRIBE's rows.
pub(super) fn schema(columns: &RowSchema, progress: bool) -> SchemaRef {
    let mut fields = vec![
        Arc::new(Field::new("evert_position", DataType::Int64, false)),
        Arc::new(Field::new("evert_weight", DataType::Int64, true)),
    ];
    if progress {
        fields.push(Arc::new(Field::new("evert_progressed", DataType::Boolean, false)));
    }
    let nullable = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_nullable(true));
    fields.extend(columns.to_arrow().fields().iter().map(nullable));
    Arc::new(Schema::new(fields))
}

/// A subscription's rows, in batches.
struct Rows {
    subscription: Subscription,
    schema: SchemaRef,
    progress: bool,
}

impl Rows {
    async fn next(&mut self) -> Option<Result<Vec<RecordBatch>, SqlError>> {
        loop {
            let changes = match self.subscription.next().await? {
                Ok(changes) => changes,
                Err(error) => return Some(Err(translate::past(&error))),
            };
            let batches = match self.batches(&changes) {
                Ok(batches) => batches,
                Err(error) => return Some(Err(translate::planning(&error.into(), ""))),
            };
            if !batches.is_empty() {
                return Some(Ok(batches));
            }
        }
    }

    fn batches(&self, changes: &Changes) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
        let position = changes.position.get() as i64;
        let head = |count: usize, weights: ArrayRef, progressed: bool| {
            let mut columns: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from_value(position, count)), weights];
            if self.progress {
                columns.push(Arc::new(BooleanArray::from(vec![progressed; count])));
            }
            columns
        };
        let mut batches = Vec::new();
        for delta in &changes.deltas {
            let mut columns = head(delta.len(), Arc::new(delta.weights.clone()), false);
            columns.extend(delta.rows.columns().iter().cloned());
            batches.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        if self.progress && changes.complete {
            let mut columns = head(1, new_null_array(&DataType::Int64, 1), true);
            let rest = &self.schema.fields()[columns.len()..];
            columns.extend(rest.iter().map(|field| new_null_array(field.data_type(), 1)));
            batches.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        Ok(batches)
    }
}

impl Session {
    /// The schema of a subscription's rows.
    pub(super) fn subscribe_schema(&self, subscribe: &Subscribe) -> Result<SchemaRef, SqlError> {
        let catalog = self.engine.views.catalog();
        let view = catalog.views.get(&subscribe.name).map(|view| &view.schema);
        let relation = || catalog.relation(&subscribe.name).map(|relation| &relation.schema);
        let columns = view.or_else(relation);
        let columns = columns.ok_or_else(|| unknown_relation(&subscribe.name, &catalog))?;
        Ok(schema(columns, subscribe.progress))
    }

    /// The rows of SUBSCRIBE, as they come. They end with an error, at UP TO, or when cancelled;
    /// `statement_timeout` is not for them.
    pub(super) async fn subscribe(
        &mut self,
        subscribe: &Subscribe,
    ) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch, SqlError>>), SqlError> {
        self.subscribe_schema(subscribe)?;
        let guard = self.guard();
        let at_least = self.at_least(&guard).await?;
        let after = match &subscribe.after {
            Some(as_of) => Some(self.moment(as_of, &guard).await?),
            None => None,
        };
        let upto = match &subscribe.upto {
            Some(token) => Some(self.resolve(token, &guard).await?),
            None => None,
        };
        let engine = Arc::clone(&self.engine);
        let names = std::slice::from_ref(&subscribe.name);
        if after.is_none() {
            // A session reads its own writes here too.
            guard.run(engine.pin(names, at_least, guard.left())).await?;
        }
        let from = SubscribeFrom { snapshot: subscribe.snapshot, after, upto };
        let begin = async {
            let begun = engine.views.subscribe(&subscribe.name, from).await;
            begun.map_err(|error| translate::past(&error))
        };
        let subscription = guard.run(begin).await?;
        self.last = subscription.position();
        let schema = schema(subscription.schema(), subscribe.progress);
        let rows = Rows { subscription, schema: Arc::clone(&schema), progress: subscribe.progress };
        let guard = Guard::new(FOREVER, &self.cancel);
        let batches = stream::unfold(Some((rows, guard)), |state| async move {
            let (mut rows, guard) = state?;
            let next = guard.run(async { rows.next().await.transpose() }).await;
            match next {
                Ok(None) => None,
                Ok(Some(batches)) => Some((Ok(batches), Some((rows, guard)))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let batches = batches.flat_map(|batches| match batches {
            Ok(batches) => stream::iter(batches.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        });
        Ok((schema, batches.boxed()))
    }

    pub(super) async fn copy_changes(
        &mut self,
        subscribe: &Subscribe,
    ) -> Result<Response, SqlError> {
        let (schema, batches) = self.subscribe(subscribe).await?;
        let endless = subscribe.upto.is_none();
        let form = CopyForm::default();
        Ok(Response::CopyOut { schema, batches, form, file: None, endless })
    }
}
