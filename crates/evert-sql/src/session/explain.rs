//! EXPLAIN: how a SELECT is read, or how a view is kept.

use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use evert_fold::OperatorState;
use evert_view::{Catalog, Name, PlannedView, RelationKind};
use futures::TryStreamExt;
use serde_json::json;

use super::read::Reading;
use super::{Session, show};
use crate::command::{Explain, ExplainTarget};
use crate::error::WRONG_OBJECT_TYPE;
use crate::names::unknown_relation;
use crate::query::plan;
use crate::statement::Parsed;
use crate::view::explain::{as_json, as_text, is_append_only, operators};
use crate::view::{plan_body, plan_text};
use crate::{Response, SqlError};

impl Session {
    pub(super) fn explain(&self, parsed: &Parsed, explain: &Explain) -> Result<Response, SqlError> {
        let catalog = self.engine.views.catalog();
        match &explain.target {
            ExplainTarget::Query(query) => {
                let planned = plan(&self.state, query, &parsed.text, &self.scope(), &[])?;
                let (text, lookups) = (planned.display(), planned.lookups());
                if explain.json {
                    let lines: Vec<_> = text.lines().collect();
                    let shown = json!([{ "Plan": { "Lines": lines, "Lookups": lookups } }]);
                    return show::explain([format!("{shown:#}")]);
                }
                show::explain(text.lines().map(str::to_owned).chain(lookups))
            }
            ExplainTarget::View(name) => {
                let Some(view) = catalog.views.get(name) else {
                    return Err(not_a_view(name, &catalog));
                };
                let planned = plan_text(&view.sql, &catalog)?;
                let held = self.engine.views.state_of(name);
                show_view(&planned, &catalog, &held, explain.json)
            }
            ExplainTarget::Create(create) => {
                let planned = plan_body(&create.body, &parsed.text, &catalog)?;
                show_view(&planned, &catalog, &[], explain.json)
            }
        }
    }
}

impl Session {
    /// EXPLAIN ANALYZE: the plan, how many rows it gave, and how long planning and running took.
    pub(super) async fn explain_analyze(
        &mut self,
        parsed: &Parsed,
        explain: &Explain,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        let ExplainTarget::Query(query) = &explain.target else {
            return Err(SqlError::unsupported("EXPLAIN ANALYZE of anything but a SELECT"));
        };
        let began = Instant::now();
        let planned = plan(&self.state, query, &parsed.text, &self.scope(), &[])?;
        let planning = began.elapsed();
        let began = Instant::now();
        let mut count = 0_usize;
        if let Response::Rows { mut batches, .. } =
            self.select(parsed, query, params, Reading::default()).await?
        {
            while let Some(batch) = batches.try_next().await? {
                count += batch.num_rows();
            }
        }
        let running = began.elapsed();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let (planning, running) = (milliseconds(planning), milliseconds(running));
        let (text, lookups) = (planned.display(), planned.lookups());
        if explain.json {
            let lines: Vec<_> = text.lines().collect();
            let shown = json!([{
                "Plan": { "Lines": lines, "Lookups": lookups, "Actual Rows": count },
                "Planning Time": planning,
                "Execution Time": running,
            }]);
            return show::explain([format!("{shown:#}")]);
        }
        let measured = [
            format!("Actual Rows: {count}"),
            format!("Planning Time: {planning:.3} ms"),
            format!("Execution Time: {running:.3} ms"),
        ];
        show::explain(text.lines().map(str::to_owned).chain(lookups).chain(measured))
    }
}

fn not_a_view(name: &Name, catalog: &Catalog) -> SqlError {
    if catalog.relation(name).is_none() {
        return unknown_relation(name, catalog);
    }
    SqlError::new(WRONG_OBJECT_TYPE, format!("\"{name}\" is not a materialized view"))
        .hint("Use EXPLAIN SELECT to see how it is read.")
}

/// `held` is what the operators of a view that runs hold, as last measured.
fn show_view(
    planned: &PlannedView,
    catalog: &Catalog,
    held: &[OperatorState],
    json: bool,
) -> Result<Response, SqlError> {
    let inputs = inputs(planned, catalog)?;
    let operators = operators(&planned.plan, &inputs, |node| {
        let held = held.iter().find(|held| held.node == node)?;
        Some((held.rows as u64, held.bytes as u64))
    });
    if json {
        return show::explain([format!("{:#}", as_json(&operators, planned.plan.output))]);
    }
    let mut lines = as_text(&operators, planned.plan.output);
    let key = planned.schema.key.iter().map(|key| planned.schema.columns[*key].name.as_str());
    let key: Vec<_> = key.collect();
    if !key.is_empty() {
        lines.push(format!("Key: {}", key.join(", ")));
    }
    show::explain(lines)
}

/// The names of a view's inputs, and whether rows are only ever added to each.
fn inputs(planned: &PlannedView, catalog: &Catalog) -> Result<Vec<(String, bool)>, SqlError> {
    let input = |name: &Name| Ok((name.to_string(), only_grows(name, catalog)?));
    planned.inputs.iter().map(input).collect()
}

/// Whether rows are only ever added to a relation or view.
pub(crate) fn only_grows(name: &Name, catalog: &Catalog) -> Result<bool, SqlError> {
    if let Some(relation) = catalog.relation(name) {
        return Ok(relation.kind == RelationKind::Stream);
    }
    let Some(view) = catalog.views.get(name) else { return Ok(false) };
    let planned = plan_text(&view.sql, catalog)?;
    Ok(is_append_only(&planned.plan, &inputs(&planned, catalog)?))
}
