//! What an outlet may use while it is open.

use std::sync::Arc;

use evert_model::{Position, RowSchema};
use tokio::sync::watch;

use super::board::Board;
use super::{OutletDef, OutletError};
use crate::subscribe::{SubscribeFrom, Subscription};
use crate::{Name, Views};

/// What an outlet may use, and where it reports. Cheap to clone.
#[derive(Clone)]
pub struct OutletContext {
    views: Views,
    def: Arc<OutletDef>,
    schema: Arc<RowSchema>,
    stop: watch::Receiver<bool>,
    board: Arc<Board>,
}

impl OutletContext {
    pub(crate) fn new(
        views: Views,
        def: Arc<OutletDef>,
        schema: Arc<RowSchema>,
        stop: watch::Receiver<bool>,
        board: Arc<Board>,
    ) -> Self {
        Self { views, def, schema, stop, board }
    }

    /// All relations and views.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// The outlet's definition.
    pub fn def(&self) -> &OutletDef {
        &self.def
    }

    /// The name of the relation or view whose rows it holds.
    pub fn on(&self) -> &Name {
        &self.def.on
    }

    /// The columns of those rows, as they were when the outlet was opened.
    pub fn schema(&self) -> &RowSchema {
        &self.schema
    }

    /// Completes when the outlet is to stop following.
    pub async fn stopping(&self) {
        // Without a sender nobody is left who could say otherwise.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// Whether the outlet is to stop following.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// All changes after `after`; or, if nothing is stored yet, all rows of now, and the changes
    /// after that.
    ///
    /// # Errors
    /// When they cannot be read, now or ever.
    pub async fn changes(&self, after: Option<Position>) -> Result<Subscription, OutletError> {
        let from = SubscribeFrom { snapshot: after.is_none(), after, upto: None };
        Ok(self.views.subscribe(&self.def.on, from).await?)
    }

    /// Says that everything up to a position can be read by the outlet's readers, and how many
    /// rows that is. Lag, SHOW VIEWS and whoever waits for a position go by it.
    pub fn report(&self, position: Position, rows: u64) {
        self.board.report(position, rows);
    }

    /// Says how much of the rows at the beginning is stored, 0 to 99, until the first position
    /// can be reported.
    pub fn report_progress(&self, percent: u8) {
        self.board.report_progress(percent);
    }
}
