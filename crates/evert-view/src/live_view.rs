//! A view with its state.
//!
//! Owns: one view's fold of one tick, and how it fails.
//! Not here: where its inputs come from (`cohort`, `lane`, `hydrate`).
//!
//! Invariants
//! - A panic in an operator fails this view, and nothing else.
//! - After a failure nothing changes any more.

mod kept;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use evert_fold::{Arrangement, Dataflow, OperatorState, Plan, RowError, Snapshot, TickOutput};
use evert_model::{Delta, LogTime};

use crate::catalog::ViewDef;
use crate::checkpoint::Mark;
use crate::cohort::TickDeltas;
use crate::pace::Pace;
use crate::widen::narrowed;

/// How the reason begins of a custom fold that was stopped by the clock, or because nobody wants the
/// view any more: `evert-script`'s `Failure::TooSlow` and `Failure::Unwanted`.
const GIVEN_UP: &str = "the fold was given up: it ";

/// A view with its state.
pub(crate) struct LiveView {
    pub(crate) def: Arc<ViewDef>,
    dataflow: Dataflow,
    rows: Arrangement,
    /// Whether the first tick was run, which gives an aggregate without groups its row.
    started: bool,
    failed: Option<Arc<str>>,
    /// What its state depends on, for checkpoints.
    definition: String,
    /// `None`: it is not kept.
    mark: Option<Mark>,
    started_saved: bool,
    /// What its folds cost.
    pub(crate) pace: Pace,
}

/// What one tick changed.
#[derive(Default)]
pub(crate) struct Folded {
    pub(crate) changes: Vec<Delta>,
    /// Rows that fell out, or came back.
    pub(crate) errors: Vec<RowError>,
}

impl LiveView {
    pub(crate) fn new(def: Arc<ViewDef>, plan: Plan) -> Result<Self, evert_fold::FoldError> {
        let schema = def.schema.to_arrow();
        let rows = match &plan.key {
            Some(key) => Arrangement::keyed(schema, key.clone()),
            None => Arrangement::bag(schema),
        };
        let definition = kept::definition(&def, &plan);
        let dataflow = Dataflow::new(plan)?;
        Ok(Self::of_parts(def, dataflow, rows, definition))
    }

    fn of_parts(
        def: Arc<ViewDef>,
        dataflow: Dataflow,
        rows: Arrangement,
        definition: String,
    ) -> Self {
        Self {
            def,
            dataflow,
            rows,
            started: false,
            failed: None,
            definition,
            mark: None,
            started_saved: false,
            pace: Pace::new(),
        }
    }

    /// A view that cannot run, kept so that its readers learn why.
    pub(crate) fn broken(def: Arc<ViewDef>, why: &str) -> Self {
        let schema = def.schema.to_arrow();
        let input = evert_fold::Node::Input { index: 0, schema: Arc::clone(&schema) };
        let plan = Plan { nodes: vec![input], output: 0, key: None };
        let dataflow = Dataflow::new(plan).expect("a lone input is a plan");
        let rows = Arrangement::bag(schema);
        let mut view = Self::of_parts(def, dataflow, rows, String::new());
        view.started = true;
        view.fail(why.into());
        view
    }

    /// What a tick holds for this view, in the order of its inputs.
    pub(crate) fn inputs_of(&self, tick: &TickDeltas) -> Vec<Vec<Delta>> {
        let inputs = self.def.inputs.iter().enumerate().map(|(index, input)| {
            let Some(deltas) = tick.get(input) else { return Vec::new() };
            match self.def.widths.get(index) {
                Some(&width) if width > 0 => narrowed(deltas, width),
                _ => deltas.clone(),
            }
        });
        inputs.collect()
    }

    /// Whether a tick that ends at `now` changes nothing here.
    pub(crate) fn is_idle(&self, now: LogTime, inputs: &[Vec<Delta>]) -> bool {
        let due = self.dataflow.due().is_some_and(|due| due <= now);
        self.failed.is_some() || (self.started && !due && inputs.iter().all(Vec::is_empty))
    }

    /// Folds one tick.
    pub(crate) fn fold(&mut self, now: LogTime, inputs: &[Vec<Delta>]) -> Folded {
        if self.is_idle(now, inputs) {
            return Folded::default();
        }
        self.started = true;
        let tick = catch_unwind(AssertUnwindSafe(|| {
            let mut output = self.dataflow.tick(now, inputs);
            output.failed = output.failed.take().or_else(|| given_up(&output.errors));
            if output.failed.is_none() {
                self.rows.apply(&output.changes);
            }
            output
        }));
        match tick {
            Ok(TickOutput { failed: Some(why), .. }) => {
                self.fail(why.into());
                Folded::default()
            }
            Ok(output) => Folded { changes: output.changes, errors: output.errors },
            Err(panic) => {
                self.fail(panic_text(panic.as_ref()).into());
                Folded::default()
            }
        }
    }

    pub(crate) fn fail(&mut self, why: Arc<str>) {
        tracing::error!(view = %self.def.name, %why, "view failed");
        self.failed = Some(why);
    }

    /// The log time at which its rows change without new facts.
    pub(crate) fn due(&self) -> Option<LogTime> {
        if self.failed.is_some() { None } else { self.dataflow.due() }
    }

    /// Why it stopped, if it has.
    pub(crate) fn failure(&self) -> Option<&Arc<str>> {
        self.failed.as_ref()
    }

    /// Its rows as of the last fold.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.rows.snapshot()
    }

    /// What its operators and its published rows hold in memory.
    pub(crate) fn state(&self) -> Vec<OperatorState> {
        let mut state = self.dataflow.state();
        let (rows, bytes) = (self.rows.len(), self.rows.memory_bytes());
        let node = self.dataflow.nodes();
        state.push(OperatorState { node, operator: "published rows", rows, bytes });
        state
    }
}

/// Why a tick counts for nothing: a group in which the clock had a say is no row of the errors
/// view, since a replay might not find it there.
fn given_up(errors: &[RowError]) -> Option<String> {
    errors.iter().filter(|error| error.weight > 0).find_map(|error| {
        let why = error.reason.strip_prefix(GIVEN_UP)?;
        Some(format!(
            "the fold of group {} {why}: mend its code and CREATE OR REPLACE the view, or REBUILD \
             it to try again",
            error.row
        ))
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("internal error: {}", text.unwrap_or("panic without a message"))
}
