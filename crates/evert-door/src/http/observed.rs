//! What the door shows of the server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use evert_log::{Log, Topic};
use evert_model::{Offset, PartitionId, Position, PositionToken};
use evert_view::{
    CatalogError, Cut, Name, PastError, PastFolds, PinError, SubscribeFrom, Subscription,
    ViewState, ViewStatus, Views,
};
use thiserror::Error;

use crate::pg;

/// A server as its HTTP door sees it. No method blocks.
#[async_trait]
pub trait Observed: Send + Sync {
    /// The position that the live views have reached.
    fn position(&self) -> Position;
    /// The last durable commit.
    fn log_end(&self) -> Position;
    /// Whether the replay after the start has reached the log's end at the start.
    fn replay_state(&self) -> ViewState;
    /// Every view.
    fn views(&self) -> Vec<ViewStatus>;
    /// Every topic, internal ones among them.
    fn topics(&self) -> Vec<TopicFacts>;
    /// Queries so far that got the rows of another that was the same.
    fn queries_coalesced(&self) -> u64;
    /// How often a read of the past had to fold it.
    fn past_folds(&self) -> PastFolds;
    /// The tables of the archives, if there can be any.
    fn lake(&self) -> Option<&dyn Lake> {
        None
    }
    /// Begins to follow a relation or view.
    async fn subscribe(&self, name: Name, from: SubscribeFrom) -> Result<Subscription, PastError>;
    /// Waits until the live views have reached what the token names; gives that position.
    async fn reach(&self, token: &PositionToken, timeout: Duration)
    -> Result<Position, ReachError>;
    /// A relation or view at or after a position.
    async fn pin(
        &self,
        name: &Name,
        at_least: Position,
        timeout: Duration,
    ) -> Result<Arc<Cut>, PinError>;
    /// A session for one request.
    fn session(&self) -> Box<dyn pg::Session>;
}

/// Why a position was not reached.
#[derive(Debug, Error)]
pub enum ReachError {
    /// There is no such source, topic or partition, or it took too long to learn of the record.
    #[error(transparent)]
    Token(#[from] CatalogError),
    /// The views did not get there.
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl ReachError {
    /// The status of an answer that says so.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            // The only thing that can be invalid about a known token is its time.
            Self::Token(CatalogError::Invalid(_)) | Self::Pin(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Token(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Waits as [`Observed::reach`] does.
    ///
    /// # Errors
    /// When the token names nothing, or the views do not get there in time.
    pub async fn or_reached(
        views: &Views,
        token: &PositionToken,
        timeout: Duration,
    ) -> Result<Position, Self> {
        let begun = std::time::Instant::now();
        let position = views.resolve(token, timeout).await?;
        views.pin(&[], position, timeout.saturating_sub(begun.elapsed())).await?;
        Ok(position)
    }
}

/// Archives as Iceberg's REST catalog shows them. No method blocks.
pub trait Lake: Send + Sync {
    /// Every table, opened or not: its namespace and name.
    fn tables(&self) -> Vec<(String, String)>;
    /// A table as it is now.
    ///
    /// # Errors
    /// If there is none of the name, or it was not opened yet.
    fn table(&self, namespace: &str, name: &str) -> Result<LakeTable, NoLakeTable>;
}

/// Why a table cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLakeTable {
    /// There is none of the name.
    Unknown,
    /// It is not open: the server has just started, or its place cannot be reached.
    NotOpen {
        /// The archive's state in `evert.views`.
        state: String,
    },
}

/// A table of a lake.
#[derive(Clone, Debug)]
pub struct LakeTable {
    /// The URL of its newest metadata file.
    pub metadata_url: String,
    /// What the file says.
    pub metadata: serde_json::Value,
    /// Every fact up to here is in it.
    pub position: Position,
}

/// Every topic of a log, and what its partitions hold.
pub fn topics_of(log: &Log) -> Vec<TopicFacts> {
    let facts = |topic: &Topic| {
        let partitions = (0..topic.partitions).map(PartitionId::new);
        let partitions = partitions.filter_map(|partition| {
            // A topic that was deleted meanwhile has no ends.
            let ends = log.partition_ends(topic.id, partition).ok()?;
            let (log_start, high_watermark) = (ends.log_start, ends.high_watermark);
            Some(PartitionFacts { partition, log_start, high_watermark })
        });
        TopicFacts { name: topic.name.clone(), partitions: partitions.collect() }
    };
    log.topics().iter().map(|topic| facts(topic)).collect()
}

/// A topic and what its partitions hold.
#[derive(Clone, Debug)]
pub struct TopicFacts {
    /// The topic's name.
    pub name: String,
    /// Its partitions in order.
    pub partitions: Vec<PartitionFacts>,
}

/// What a partition holds: the offsets `log_start..high_watermark`.
#[derive(Clone, Copy, Debug)]
pub struct PartitionFacts {
    /// The partition in its topic.
    pub partition: PartitionId,
    /// The first offset that is still there.
    pub log_start: Offset,
    /// Everything below is durable and visible.
    pub high_watermark: Offset,
}
