//! Folding: a view over a world's history, in random ticks, with restarts from what it saved.

use arrow::array::RecordBatch;
use evert_fold::{Arrangement, Dataflow};
use evert_model::{Delta, LogTime};
use evert_sql::SqlPlanner;
use evert_view::{Name, PlanError, PlannedView, Planner};

use crate::choices::Choices;
use crate::rows::{Kind, Row, of_batches};
use crate::world::{Present, World, delta};

/// A run of commits that are folded together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick {
    /// The commits up to this one, which is not among them.
    pub(crate) until: usize,
    /// Whether the view's rows are compared after it.
    pub(crate) compared: bool,
}

/// How a history is cut into ticks.
pub(crate) fn cut(world: &World, choices: &mut Choices) -> Vec<Tick> {
    let mut ticks = Vec::new();
    for until in 0..=world.commits.len() {
        let last = until == world.commits.len();
        if last || choices.below(3) > 0 {
            let compared = last || choices.one_in(4);
            ticks.push(Tick { until, compared });
        }
    }
    ticks
}

/// The log's time after so many commits.
pub(crate) fn time_at(world: &World, commits: usize) -> i64 {
    match commits.checked_sub(1) {
        Some(last) => world.commits[last].time,
        None => world.commits.first().map_or(0, |commit| commit.time),
    }
}

/// What a view holds after a tick.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) rows: Vec<Row>,
    /// Rows that could not be evaluated.
    pub(crate) errors: i64,
}

/// A view that can be folded over a world.
pub(crate) struct View {
    planned: PlannedView,
}

impl View {
    pub(crate) fn plan(sql: &str, world: &World) -> Result<Self, PlanError> {
        Ok(Self { planned: SqlPlanner::new().plan_view(sql, &world.catalog())? })
    }

    /// How each column's text is made canonical.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let schema = self.planned.schema.to_arrow();
        schema.fields().iter().map(|field| Kind::of(field.data_type())).collect()
    }

    /// What the view holds after each compared tick.
    pub(crate) fn fold(&self, world: &World, ticks: &[Tick]) -> Vec<Moment> {
        let schema = self.planned.plan.output_schema().expect("a valid plan");
        assert_eq!(schema, self.planned.schema.to_arrow(), "the plan gives what it announces");
        let mut flow = Dataflow::new(self.planned.plan.clone()).expect("a valid plan");
        let mut published = match &self.planned.plan.key {
            Some(key) => Arrangement::keyed(schema, key.clone()),
            None => Arrangement::bag(schema),
        };
        let tables: Vec<usize> =
            self.planned.inputs.iter().map(|name| index(world, name)).collect();
        let pools: Vec<RecordBatch> = world.tables.iter().map(|table| table.batch()).collect();
        let (mut present, mut from, mut errors) = (Present::nothing(world), 0, 0);
        let mut moments = Vec::new();
        for tick in ticks {
            let mut deltas: Vec<Vec<Delta>> = vec![Vec::new(); tables.len()];
            for commit in &world.commits[from..tick.until] {
                let changes = present.apply(world, commit);
                for (deltas, table) in deltas.iter_mut().zip(&tables) {
                    if !changes[*table].is_empty() {
                        deltas.push(delta(&pools[*table], &changes[*table]));
                    }
                }
            }
            from = tick.until;
            let output = flow.tick(LogTime::new(time_at(world, tick.until)), &deltas);
            errors += output.errors.iter().map(|error| error.weight).sum::<i64>();
            published.apply(&output.changes);
            if tick.compared {
                let rows = of_batches(published.snapshot().scan(None));
                moments.push(Moment { rows, errors });
            }
        }
        moments
    }
}

fn index(world: &World, name: &Name) -> usize {
    let found = world.tables.iter().position(|table| Name::public(table.name) == *name);
    found.expect("views read the world's relations")
}
