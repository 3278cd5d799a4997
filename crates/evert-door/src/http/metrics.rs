//! `/metrics`, in Prometheus's text format 0.0.4.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use evert_view::{PastFolds, ViewState};

use super::door::Server;
use super::observed::Observed;
use super::process;

pub(super) async fn metrics(State(server): Server) -> impl IntoResponse {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], render(server.as_ref()))
}

/// A page of samples, written family by family.
struct Page(String);

impl Page {
    /// Begins a family: all samples of one name.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{open}{label}=\"{}\"", escaped(text)));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{close} {value}\n"));
    }

    /// A family of one sample.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a string takes everything");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn render(server: &dyn Observed) -> String {
    let mut page = Page(String::new());
    let end = server.log_end().get();
    page.single("evert_log_end_position", "gauge", "The last durable commit.", end);
    let position = server.position().get();
    page.single("evert_position", "gauge", "What the live views have reached.", position);
    let ready = u8::from(server.replay_state() == ViewState::Live);
    page.single("evert_ready", "gauge", "1 once the views were replayed after the start.", ready);
    topics(&mut page, server);
    views(&mut page, server);
    let help = "Queries that got the rows of another that was the same, at the same position.";
    let coalesced = server.queries_coalesced();
    page.single("evert_queries_coalesced_total", "counter", help, coalesced);
    past_folds(&mut page, server.past_folds());
    if let Some(bytes) = process::resident_bytes() {
        let help = "Resident memory.";
        page.single("process_resident_memory_bytes", "gauge", help, bytes);
    }
    if let Some(seconds) = process::cpu_seconds() {
        let help = "User and system CPU time.";
        page.single("process_cpu_seconds_total", "counter", help, seconds);
    }
    page.0
}

fn topics(page: &mut Page, server: &dyn Observed) {
    let topics = server.topics();
    let families = [
        ("evert_partition_log_start_offset", "The first offset that is still there."),
        ("evert_partition_high_watermark", "The offset after the last durable record."),
    ];
    for (index, (name, help)) in families.into_iter().enumerate() {
        page.family(name, "gauge", help);
        for topic in &topics {
            for facts in &topic.partitions {
                let partition = facts.partition.get().to_string();
                let labels = [("topic", &*topic.name), ("partition", &*partition)];
                let offset = [facts.log_start, facts.high_watermark][index];
                page.sample(name, &labels, offset.get());
            }
        }
    }
}

fn past_folds(page: &mut Page, folds: PastFolds) {
    let name = "evert_past_folds_total";
    page.family(name, "counter", "Reads of the past that had to fold it, by where that began.");
    page.sample(name, &[("from", "checkpoint")], folds.from_checkpoint);
    page.sample(name, &[("from", "beginning")], folds.from_beginning);
}

fn views(page: &mut Page, server: &dyn Observed) {
    let views: Vec<_> =
        server.views().into_iter().map(|view| (view.name.to_string(), view)).collect();
    let mut each = |name: &str, help: &str, value: &dyn Fn(&evert_view::ViewStatus) -> String| {
        page.family(name, "gauge", help);
        for (view, status) in &views {
            page.sample(name, &[("view", view)], value(status));
        }
    };
    each("evert_view_position", "What the view has reached.", &|view| {
        view.position.get().to_string()
    });
    each("evert_view_lag_records", "Records not folded yet.", &|view| view.lag_records.to_string());
    each("evert_view_lag_ms", "How far the view lies back, in milliseconds.", &|view| {
        view.lag_ms.to_string()
    });
    each("evert_view_rows", "The view's rows.", &|view| view.rows.to_string());
    each("evert_view_memory_bytes", "The view's state and rows in memory.", &|view| {
        view.memory_bytes.to_string()
    });
    page.family("evert_view_state", "gauge", "1 for the state that the view is in.");
    for (name, status) in &views {
        let states = [
            ("rebuilding", matches!(status.state, ViewState::Rebuilding { .. })),
            ("live", status.state == ViewState::Live),
            ("behind", status.state == ViewState::Behind),
            ("paused", status.state == ViewState::Paused),
            ("retrying", matches!(status.state, ViewState::Retrying(_))),
            ("failed", matches!(status.state, ViewState::Failed(_))),
        ];
        for (state, is) in states {
            page.sample("evert_view_state", &[("view", name), ("state", state)], u8::from(is));
        }
    }
}
