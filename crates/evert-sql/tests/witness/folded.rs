//! Folding: a view over a world's history, in random ticks, with restarts from what it saved.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use evert_fold::{Arrangement, Dataflow, StateSink};
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
    pub(crate) then: Then,
}

/// What happens to the view's state after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// What has changed is saved.
    Save,
    /// It is saved, and the view goes on from all that was saved.
    Restart,
}

/// How a history is cut into ticks.
pub(crate) fn cut(world: &World, choices: &mut Choices) -> Vec<Tick> {
    let mut ticks = Vec::new();
    for until in 0..=world.commits.len() {
        let last = until == world.commits.len();
        if last || choices.below(3) > 0 {
            let compared = last || choices.one_in(4);
            let then = choices.weighted(&[(3, Then::Nothing), (1, Then::Save), (1, Then::Restart)]);
            ticks.push(Tick { until, compared, then });
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
        let tables: Vec<usize> =
            self.planned.inputs.iter().map(|name| index(world, name)).collect();
        let pools: Vec<RecordBatch> = world.tables.iter().map(|table| table.batch()).collect();
        let mut life = Life::new(&self.planned);
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
            let output = life.flow.tick(LogTime::new(time_at(world, tick.until)), &deltas);
            assert!(output.failed.is_none(), "the view fails: {:?}", output.failed);
            errors += output.errors.iter().map(|error| error.weight).sum::<i64>();
            life.published.apply(&output.changes);
            if tick.then != Then::Nothing {
                life.save();
            }
            if tick.then == Then::Restart {
                life = life.restart(&self.planned);
            }
            if tick.compared {
                let rows = of_batches(life.published.snapshot().scan(None));
                moments.push(Moment { rows, errors });
            }
        }
        moments
    }
}

/// A view as one process has it, and what would outlive that.
struct Life {
    flow: Dataflow,
    published: Arrangement,
    /// `None`: some operator's state cannot be kept.
    saved: Option<[Saved; 2]>,
}

/// Entries of state, the newest of each key.
#[derive(Default)]
struct Saved(BTreeMap<Vec<u8>, Vec<u8>>);

impl StateSink for Saved {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.to_vec(), value.to_vec());
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
}

impl Life {
    fn new(planned: &PlannedView) -> Self {
        let schema = planned.plan.output_schema().expect("a valid plan");
        assert_eq!(schema, planned.schema.to_arrow(), "the plan gives what it announces");
        let mut flow = Dataflow::new(planned.plan.clone()).expect("a valid plan");
        let mut published = match &planned.plan.key {
            Some(key) => Arrangement::keyed(schema, key.clone()),
            None => Arrangement::bag(schema),
        };
        let saved = flow.track().then(<[Saved; 2]>::default);
        published.track();
        Self { flow, published, saved }
    }

    fn save(&mut self) {
        if let Some([flow, published]) = &mut self.saved {
            self.flow.save(flow);
            self.published.save(published);
        }
    }

    /// The view as a new process has it from what was saved.
    fn restart(self, planned: &PlannedView) -> Self {
        let Some(saved) = self.saved else { return self };
        let mut next = Self::new(planned);
        for (key, value) in &saved[0].0 {
            next.flow.load(key, value).expect("an entry that was saved");
        }
        next.flow.loaded().expect("entries that were saved");
        for (key, value) in &saved[1].0 {
            next.published.load(key, value).expect("an entry that was saved");
        }
        next.published.loaded().expect("entries that were saved");
        next.saved = Some(saved);
        next
    }
}

fn index(world: &World, name: &Name) -> usize {
    let found = world.tables.iter().position(|table| Name::public(table.name) == *name);
    found.expect("views read the world's relations")
}
