//! How a follower begins: from the checkpoint, or before the log's first commit.

use std::sync::Arc;
use std::time::Instant;

use evert_fold::Plan;
use evert_log::{Log, ReadError};
use evert_model::Position;

use crate::catalog::{Catalog, Relation, ViewDef};
use crate::checkpoint::{CheckpointConfig, Checkpoints, Restored, Store, StoreError, restore};
use crate::cohort::Cohort;
use crate::follower::Follower;
use crate::reader::Reader;
use crate::sources::SourceStates;

/// A view with its plan.
type PlannedDef = (Arc<ViewDef>, Plan);

impl Follower {
    /// Puts the cohort together: from the checkpoint, or before the log's first commit.
    pub(crate) fn begin(&mut self) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let sources = || SourceStates::new(shared.sources_topic);
        let store = self.start.config.checkpoints.as_ref().and_then(|config| {
            let fitting = fitting_store(config, &shared.log);
            fitting.inspect_err(|error| tracing::warn!(%error, "no checkpoints are kept")).ok()
        });
        let mut catalog = Catalog::clone(&self.start.catalog);
        let paused = catalog.paused_closure();
        catalog.views.retain(|name, _| !paused.contains(name));
        let planner = self.start.planner.as_ref();
        let (started, moment) = (Instant::now(), store.as_ref().and_then(Store::moment));
        let restored = moment.and_then(|moment| restore(&moment, &catalog, planner, sources()));
        let rest = match restored {
            Some(Restored { cohort, names, entries, relations, views }) => {
                let (position, members) = (cohort.position(), names.len());
                let elapsed = started.elapsed();
                let message = "views restored from the checkpoint";
                tracing::info!(%position, members, entries, ?elapsed, "{message}");
                self.reader = Reader::new(&shared.log, cohort.position())
                    .map_err(|error| error.to_string())?;
                shared.set_restored(cohort.position(), names);
                self.cohort = cohort;
                (relations, views)
            }
            None => {
                self.cohort = Cohort::of_catalog(&catalog, planner, sources());
                if store.is_some() {
                    self.cohort.track();
                }
                // Aggregates without groups have a row before the first commit already.
                self.cohort.fold();
                (Vec::new(), Vec::new())
            }
        };
        if let (Some(store), Some(config)) = (store, &self.start.config.checkpoints) {
            let moments = Arc::clone(&shared.moments);
            let checkpoints = Checkpoints::new(store, moments, shared.log.id(), config.every);
            self.checkpoints = Some(checkpoints.map_err(|error| error.to_string())?);
        }
        shared.history.begin(self.cohort.position());
        // Newcomers catch up to what is published.
        self.publish();
        let catalog = Arc::clone(&self.start.catalog);
        self.rest_paused(&catalog, &catalog.paused_closure());
        self.add_rest(rest).map_err(|error| error.to_string())
    }

    /// Brings in what was not in the checkpoint.
    fn add_rest(
        &mut self,
        (relations, views): (Vec<Arc<Relation>>, Vec<PlannedDef>),
    ) -> Result<(), ReadError> {
        for relation in relations {
            let topic = self.shared.log.topic_by_id(relation.topic_id);
            let created = topic.map_or(Position::ZERO, |topic| topic.created_at);
            self.add_relation(relation, created)?;
        }
        self.waiting.extend(views);
        self.start_waiting();
        Ok(())
    }
}

/// The store of checkpoints; what it holds is discarded if it is not of this log.
fn fitting_store(config: &CheckpointConfig, log: &Log) -> Result<Store, StoreError> {
    let store = Store::open_or_discard(config)?;
    match store.manifest().and_then(|manifest| manifest.misfit(log.id(), log.end())) {
        None => Ok(store),
        Some(why) => {
            tracing::warn!(%why, "the checkpoint is discarded");
            drop(store);
            Store::anew(config)
        }
    }
}
