//! VERIFY of a Postgres target: the rows of a view and of a table, compared by Postgres.

use evert_view::{OutletContext, OutletError, OutletVerdict, SubscribeFrom};

use super::{COPY_BYTES, Copying, PostgresTarget, retry};
use crate::cells::write_copy_line;

impl PostgresTarget {
    pub(super) async fn compare(
        &mut self,
        context: &OutletContext,
    ) -> Result<OutletVerdict, OutletError> {
        let Some(position) = self.position else {
            return Err(OutletError::Retry("the target has no copy of the rows yet".into()));
        };
        let from = SubscribeFrom { snapshot: true, after: Some(position), upto: Some(position) };
        let mut all = context.views().subscribe(context.on(), from).await?;
        self.client.batch_execute("BEGIN").await.map_err(retry)?;
        let mut copying =
            Copying::begin(&self.client, &self.statements.stage).await.map_err(retry)?;
        let mut cell = String::new();
        while let Some(changes) = all.next().await {
            for delta in changes?.deltas {
                for row in 0..delta.len() {
                    let out = &mut copying.buffer;
                    write_copy_line(&self.schema, &delta.rows, row, "\tf", out, &mut cell);
                    copying.flush_if(COPY_BYTES).await.map_err(retry)?;
                }
                copying.rows += delta.len() as u64;
            }
        }
        let rows_expected = copying.rows;
        copying.end().await.map_err(retry)?;
        let verdict = self.differences().await;
        self.client.batch_execute("ROLLBACK").await.map_err(retry)?;
        let (rows_stored, rows_differing, differences) = verdict?;
        Ok(OutletVerdict { position, rows_expected, rows_stored, rows_differing, differences })
    }

    /// Rows of the table, how many differ from those that are staged, and the first of them.
    async fn differences(&self) -> Result<(u64, u64, Vec<String>), OutletError> {
        let with = &self.statements.differences;
        let key = match self.statements.key.is_empty() {
            true => &self.statements.columns,
            false => &self.statements.key,
        };
        let (key, count) = (key.join(", "), &self.statements.count);
        // A row of a key that is other than it ought to be is missing and unexpected: one.
        let union = if self.statements.key.is_empty() { "UNION ALL" } else { "UNION" };
        let sql = format!(
            "{with} SELECT ({count}), (SELECT count(*) FROM (SELECT {key} FROM missing {union} \
             SELECT {key} FROM unexpected) AS both_sides)"
        );
        let row = self.client.query_one(&sql, &[]).await.map_err(retry)?;
        let number = |index: usize| u64::try_from(row.get::<_, i64>(index)).unwrap_or(0);
        let (stored, differing) = (number(0), number(1));
        if differing == 0 {
            return Ok((stored, 0, Vec::new()));
        }
        let sql = format!(
            "{with} SELECT 'missing ' || missing::text FROM missing UNION ALL SELECT 'unexpected ' \
             || unexpected::text FROM unexpected ORDER BY 1 LIMIT {}",
            OutletVerdict::TOLD_MAX
        );
        let rows = self.client.query(&sql, &[]).await.map_err(retry)?;
        Ok((stored, differing, rows.iter().map(|row| row.get(0)).collect()))
    }
}
