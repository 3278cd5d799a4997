//! The replication slot: what keeps the source's write-ahead log until it has been taken.

use std::time::Duration;

use evert_model::Lsn;
use pgwire_replication::ReplicationClient;
use tokio_postgres::Client;

use crate::definition::Definition;
use crate::error::{LinkError, SourceError};
use crate::trouble::Trouble;

/// `object_in_use`: somebody streams from the slot.
const OBJECT_IN_USE: &str = "55006";
/// How often a slot that is about to be free is tried again when it is dropped.
const DROP_ATTEMPTS: u32 = 50;
const DROP_PAUSE: Duration = Duration::from_millis(100);

/// A new slot, and the state of the tables at its start. The snapshot can be used for as long as
/// this lives.
pub(crate) struct NewSlot {
    /// The session that exported the snapshot.
    _session: ReplicationClient,
    pub(crate) snapshot: String,
    /// Everything that commits after this comes through the slot.
    pub(crate) start: Lsn,
}

/// Makes the slot.
pub(crate) async fn create(definition: &Definition) -> Result<NewSlot, SourceError> {
    let config = definition.url.replication(&definition.slot, &definition.publication)?;
    let mut session = ReplicationClient::connect_gated(config).await.map_err(LinkError::from)?;
    // The slot's name was checked to be a plain word. The old spelling of the option is understood
    // by every version.
    let command =
        format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput EXPORT_SNAPSHOT", definition.slot);
    let rows = session.simple_query(&command).await.map_err(LinkError::from)?;
    let text = |column: usize| {
        let value = rows.first()?.get(column)?.as_deref()?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    };
    let (Some(start), Some(snapshot)) = (text(1).as_deref().and_then(Lsn::parse), text(2)) else {
        return Err(SourceError::Link(LinkError {
            message: "Postgres made the slot without a start or a snapshot".into(),
            sqlstate: None,
        }));
    };
    Ok(NewSlot { _session: session, snapshot, start })
}

/// Drops the slot if it is there, waiting a little for a session that is just leaving it.
pub(crate) async fn drop_slot(client: &Client, slot: &str) -> Result<(), LinkError> {
    let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
         WHERE slot_name = $1";
    let mut attempts = 0;
    loop {
        let error = match client.query(sql, &[&slot]).await {
            Ok(_) => return Ok(()),
            Err(error) => LinkError::from(error),
        };
        attempts += 1;
        if error.sqlstate.as_deref() != Some(OBJECT_IN_USE) || attempts == DROP_ATTEMPTS {
            return Err(error);
        }
        tokio::time::sleep(DROP_PAUSE).await;
    }
}

/// Refuses a slot from which the stream cannot go on at `resume` without a gap.
pub(crate) async fn check(client: &Client, slot: &str, resume: Lsn) -> Result<(), Trouble> {
    let again = "drop the source and create it again";
    let row = client
        .query_opt(
            "SELECT confirmed_flush_lsn::text, wal_status FROM pg_replication_slots \
             WHERE slot_name = $1",
            &[&slot],
        )
        .await?;
    let Some(row) = row else {
        return Err(Trouble::Failed(format!("slot \"{slot}\" is gone from the source: {again}")));
    };
    if row.get::<_, Option<String>>(1).as_deref() == Some("lost") {
        return Err(Trouble::Failed(format!(
            "the source has recycled WAL that slot \"{slot}\" needs: {again}"
        )));
    }
    // Nothing is ever confirmed before it is durable here. A slot that is ahead has served
    // somebody else, or this log is older than it was.
    let confirmed: Option<String> = row.get(0);
    let confirmed = confirmed.as_deref().and_then(Lsn::parse);
    match confirmed {
        Some(confirmed) if confirmed > resume => Err(Trouble::Failed(format!(
            "slot \"{slot}\" was confirmed up to {}, but the log holds the source up to {} only: \
             {again}",
            confirmed.to_postgres(),
            resume.to_postgres()
        ))),
        _ => Ok(()),
    }
}

/// How much write-ahead log the slot keeps, in bytes.
pub(crate) async fn retained_wal_bytes(client: &Client, slot: &str) -> Option<u64> {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 \
         FROM pg_replication_slots WHERE slot_name = $1";
    let row = client.query_opt(sql, &[&slot]).await.ok()??;
    u64::try_from(row.get::<_, Option<i64>>(0)?).ok()
}
