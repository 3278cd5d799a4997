//! How far each source has come: a fold of the topic `__evert_sources`.
//!
//! A source writes its state in the same commit as its facts, so that the two never disagree.

use std::collections::HashMap;
use std::sync::Arc;

use evert_log::{CommitPart, NewPart};
use evert_model::{BatchBuilder, Compression, Lsn, PartitionId, Position, TimestampMs, TopicId};
use serde::{Deserialize, Serialize};

/// How far a source has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceState {
    /// The source's name.
    pub source: String,
    /// Everything committed at the source up to here is in the log.
    pub lsn: Lsn,
    /// Whatever else the source's crate keeps.
    #[serde(default)]
    pub detail: serde_json::Value,
}

/// The state of every source as of a cut.
#[derive(Clone)]
pub(crate) struct SourceStates {
    topic: TopicId,
    states: Arc<HashMap<String, (SourceState, Position)>>,
}

impl SourceStates {
    pub(crate) fn new(topic: TopicId) -> Self {
        Self { topic, states: Arc::default() }
    }

    pub(crate) fn get(&self, source: &str) -> Option<&(SourceState, Position)> {
        self.states.get(source)
    }

    /// Every source's state, by name.
    pub(crate) fn all(&self) -> Vec<(SourceState, u64)> {
        let mut states: Vec<_> =
            self.states.values().map(|(state, position)| (state.clone(), position.get())).collect();
        states.sort_by(|a, b| a.0.source.cmp(&b.0.source));
        states
    }

    /// Takes over what [`SourceStates::all`] gave.
    pub(crate) fn set(&mut self, states: &[(SourceState, u64)]) {
        let states = states.iter().map(|(state, position)| {
            (state.source.clone(), (state.clone(), Position::new(*position)))
        });
        self.states = Arc::new(states.collect());
    }

    pub(crate) fn push(&mut self, part: &CommitPart, position: Position) {
        if part.topic != self.topic {
            return;
        }
        let Ok(payload) = part.batch.payload(PAYLOAD_BYTES_MAX) else { return };
        for record in part.batch.records(&payload).flatten() {
            let state = record.value.and_then(|value| serde_json::from_slice(value).ok());
            let Some(state) = state else {
                let offset = record.offset;
                tracing::warn!(%offset, "a record of __evert_sources cannot be read");
                continue;
            };
            let state: SourceState = state;
            Arc::make_mut(&mut self.states).insert(state.source.clone(), (state, position));
        }
    }

    /// The record of `state`, to be put into the commit of the facts it speaks of.
    pub(crate) fn part(&self, state: &SourceState) -> NewPart {
        let value = serde_json::to_vec(state).expect("a state is plain data");
        let mut batch = BatchBuilder::new(Compression::None);
        let none = TimestampMs::new(-1);
        batch.push(none, Some(state.source.as_bytes()), Some(&value), &[]);
        NewPart { topic: self.topic, partition: PartitionId::new(0), batch: batch.build() }
    }
}

const PAYLOAD_BYTES_MAX: usize = 16 << 20;
