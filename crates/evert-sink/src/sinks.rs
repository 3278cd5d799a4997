//! The factory: which target a definition means.

use async_trait::async_trait;
use evert_log::LogId;
use evert_model::RowSchema;
use evert_view::{Outlet, OutletDef, OutletError, OutletFactory, PlanError};
use serde_json::Value;

use crate::kafka::KafkaTarget;
use crate::options::Options;
use crate::postgres::PostgresTarget;
use crate::redis::RedisTarget;
use crate::sink::Sink;
use crate::target::Target;

/// What CREATE SINK makes.
pub struct Sinks {
    log_id: LogId,
}

impl Sinks {
    /// Sinks of the facts of one log.
    pub fn new(log_id: LogId) -> Self {
        Self { log_id }
    }
}

#[async_trait]
impl OutletFactory for Sinks {
    fn check(&self, def: &OutletDef, schema: &RowSchema) -> Result<Value, PlanError> {
        let options = Options::read(def)?;
        if schema.key.is_empty() && !matches!(options, Options::Postgres(_)) {
            return Err(PlanError {
                sqlstate: "55000",
                message: format!("\"{}\" has no key to name its rows by", def.on),
                hint: Some("Use a table, or a view whose GROUP BY columns are its key.".into()),
            });
        }
        Ok(def.options.clone())
    }

    async fn open(
        &self,
        def: &OutletDef,
        schema: &RowSchema,
    ) -> Result<Box<dyn Outlet>, OutletError> {
        let target: Box<dyn Target> = match Options::kept(def)? {
            Options::Postgres(options) => {
                Box::new(PostgresTarget::open(&options, def, schema, self.log_id).await?)
            }
            Options::Redis(options) => {
                Box::new(RedisTarget::open(&options, def, schema, self.log_id).await?)
            }
            Options::Kafka(options) => {
                Box::new(KafkaTarget::open(&options, def, schema, self.log_id).await?)
            }
        };
        Ok(Box::new(Sink::new(target, schema.clone())))
    }

    /// The rows stay where they are; what is forgotten is that they are a sink's.
    async fn remove(&self, def: &OutletDef) -> Result<(), OutletError> {
        match Options::kept(def)? {
            Options::Postgres(options) => PostgresTarget::forget(&options, def).await,
            Options::Redis(options) => RedisTarget::forget(&options, def).await,
            Options::Kafka(_) => Ok(()),
        }
    }

    /// The mark stays: by it the rows that are there are known as the sink's own, to be replaced.
    async fn begin_anew(&self, _: &OutletDef) -> Result<(), OutletError> {
        Ok(())
    }
}
