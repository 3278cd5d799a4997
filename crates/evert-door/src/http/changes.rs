//! `GET /api/views/{name}/changes`: a view's changes as server-sent events.
//!
//! An event `changes` holds a JSON array of rows, each with its position and weight. The last
//! event of a position carries it as its id: everything up to there has been sent, and a client
//! that comes back with it as `Last-Event-ID` goes on after it, without gap or repeat. What came
//! since the last id is to be applied together with it. An event `progress` only moves the
//! position on. (WHATWG HTML, section "Server-sent events")

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Scalar};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{and, filter, filter_record_batch};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use evert_model::{Delta, Position, PositionToken};
use evert_view::{
    Changes, Name, PastError, PinError, RowWriter, Snapshot, SubscribeFrom, Subscription,
};
use futures::stream;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::door::Server;
use super::observed::{Observed, ReachError};
use super::query;
use crate::resp::Layout;

/// How long a record or an LSN that is not there yet is waited for.
const PLACE_WITHIN: Duration = Duration::from_secs(10);
/// How long a view may take to be there whose key is asked for.
const KEY_WITHIN: Duration = Duration::from_secs(10);
/// Rows of one event.
const EVENT_ROWS: usize = 1000;
/// How often a position at which nothing of the view has changed is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How long a connection stays silent.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What a client wants to be told.
#[derive(Default)]
struct Wish {
    snapshot: bool,
    after: Option<PositionToken>,
    upto: Option<PositionToken>,
    key: Option<String>,
}

impl Wish {
    /// What may follow the question mark: `snapshot=true`, begin with all rows there are;
    /// `after=41`, `after=payments/0@17` or `after=shop:0/16B3748`, begin after this position;
    /// `upto`, end there; `key=k`, the row of this key only.
    fn read(text: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        for (key, value) in query::pairs(text) {
            let bad = || format!("{key}={value} is not understood");
            let token = || {
                let token = value.parse::<PositionToken>();
                token.map(Some).map_err(|error| format!("{key}: {error}"))
            };
            match key.as_str() {
                "snapshot" => wish.snapshot = value.parse().map_err(|_| bad())?,
                "after" => wish.after = token()?,
                "upto" => wish.upto = token()?,
                "key" => wish.key = Some(value),
                _ => {
                    return Err(format!(
                        "\"{key}\" is not known: use snapshot, after, upto and key"
                    ));
                }
            }
        }
        Ok(wish)
    }
}

/// The position that a client names. What is not a number may be about to come.
async fn position_of(
    server: &dyn Observed,
    token: Option<PositionToken>,
) -> Result<Option<Position>, ReachError> {
    match token {
        None => Ok(None),
        Some(PositionToken::Position(position)) => Ok(Some(position)),
        Some(token) => server.reach(&token, PLACE_WITHIN).await.map(Some),
    }
}

pub(super) async fn changes(
    State(server): Server,
    Extension(stopping): Extension<watch::Receiver<bool>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let mut wish = match Wish::read(query.as_deref().unwrap_or_default()) {
        Ok(wish) => wish,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    if let Some(id) = headers.get("last-event-id") {
        let Some(id) = id.to_str().ok().and_then(|id| id.parse().ok()) else {
            return refuse(StatusCode::BAD_REQUEST, "Last-Event-ID is not a position");
        };
        // Whoever comes back has the rows already.
        wish = Wish { snapshot: false, after: Some(id), ..wish };
    }
    let mut from = SubscribeFrom { snapshot: wish.snapshot, ..SubscribeFrom::default() };
    for (place, token) in [(&mut from.after, wish.after), (&mut from.upto, wish.upto)] {
        match position_of(server.as_ref(), token).await {
            Ok(position) => *place = position,
            Err(error) => return refuse(error.status(), &error.to_string()),
        }
    }
    let name = named(&name);
    let only = match wish.key {
        None => None,
        Some(key) => match server.pin(&name, Position::ZERO, KEY_WITHIN).await {
            Err(error) => {
                let error = PastError::Pin(error);
                return refuse(status(&error), &error.to_string());
            }
            Ok(cut) => match cut.snapshots.get(&name).map(|rows| OnlyKey::new(&name, rows, &key)) {
                Some(Ok(only)) => Some(only),
                Some(Err(error)) => return refuse(StatusCode::BAD_REQUEST, &error),
                None => return refuse(StatusCode::BAD_REQUEST, &no_key(&name)),
            },
        },
    };
    match server.subscribe(name, from).await {
        Ok(subscription) => events(Events::new(subscription, only, stopping)),
        Err(error) => refuse(status(&error), &error.to_string()),
    }
}

fn no_key(name: &Name) -> String {
    format!("\"{name}\" has no key")
}

/// The key whose row is followed, and no other's.
struct OnlyKey {
    /// The key's columns and their values, each an array of one; `None`: no row can have the key.
    values: Option<Vec<(usize, ArrayRef)>>,
}

impl OnlyKey {
    fn new(name: &Name, rows: &Snapshot, key: &str) -> Result<Self, String> {
        let layout = Layout::new(name.clone(), rows).ok_or_else(|| no_key(name))?;
        let values = layout.values_of(key.as_bytes());
        let values = values.map(|values| layout.key().iter().copied().zip(values).collect());
        Ok(Self { values })
    }

    /// The changes of the key's row among `delta`, if there are any.
    fn among(&self, delta: &Delta) -> Option<Delta> {
        let mut wanted: Option<BooleanArray> = None;
        for (column, value) in self.values.as_ref()? {
            let value = Scalar::new(Arc::clone(value));
            let equal = not_distinct(delta.rows.column(*column), &value).ok()?;
            wanted = Some(match wanted {
                None => equal,
                Some(wanted) => and(&wanted, &equal).ok()?,
            });
        }
        let Some(wanted) = wanted else {
            // A key of no columns: there is one row at most.
            return Some(delta.clone());
        };
        if wanted.true_count() == 0 {
            return None;
        }
        let rows = filter_record_batch(&delta.rows, &wanted).ok()?;
        let weights = filter(&delta.weights, &wanted).ok()?;
        Some(Delta::new(rows, weights.as_primitive().clone()))
    }
}

/// `schema.name`, or a name in schema `public`.
pub(super) fn named(name: &str) -> Name {
    match name.split_once('.') {
        Some((schema, name)) => Name::new(schema, name),
        None => Name::public(name),
    }
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

fn status(error: &PastError) -> StatusCode {
    match error {
        PastError::Pin(PinError::Unknown(_)) => StatusCode::NOT_FOUND,
        PastError::Future { .. } | PastError::BeforeBeginning => StatusCode::BAD_REQUEST,
        PastError::Forgotten { .. } => StatusCode::GONE,
        PastError::Replaced(_) => StatusCode::CONFLICT,
        PastError::Pin(_) => StatusCode::SERVICE_UNAVAILABLE,
        PastError::Read(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn events(events: Events) -> Response {
    let pieces = stream::unfold(events, |mut events| async move {
        let piece = events.next().await?;
        Some((Ok::<_, Infallible>(piece), events))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(pieces)).into_response()
}

/// A subscription being told as events.
struct Events {
    subscription: Subscription,
    only: Option<OnlyKey>,
    writer: RowWriter,
    stopping: watch::Receiver<bool>,
    /// When something was sent last.
    sent: Instant,
    /// A position that has been reached and not been told.
    untold: Option<Position>,
    /// Rows were sent that no id has followed yet.
    open: bool,
    greeted: bool,
    ended: bool,
}

impl Events {
    fn new(
        subscription: Subscription,
        only: Option<OnlyKey>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let columns: Vec<_> = (0..subscription.schema().columns.len()).collect();
        Self {
            writer: RowWriter::new(subscription.schema(), &columns),
            subscription,
            only,
            stopping,
            sent: Instant::now(),
            untold: None,
            open: false,
            greeted: false,
            ended: false,
        }
    }

    /// The next bytes for the client; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            // The head of the answer goes out with the first bytes.
            self.greeted = true;
            return Some(Bytes::from_static(b": evert\n\n"));
        }
        while !self.ended {
            let pause = if self.untold.is_some() { PROGRESS_EVERY } else { SILENCE_MAX };
            let due = self.sent + pause;
            let mut stopping = self.stopping.clone();
            let next = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return None,
                next = timeout_at(due, self.subscription.next()) => next,
            };
            let text = match next {
                Err(_) => Some(self.untold.take().map_or_else(|| ":\n\n".to_owned(), progress)),
                Ok(Some(Ok(changes))) => self.told(&changes),
                Ok(Some(Err(error))) => {
                    self.ended = true;
                    let error = json!({ "error": error.to_string() });
                    Some(format!("event: error\ndata: {error}\n\n"))
                }
                Ok(None) => {
                    self.ended = true;
                    self.untold.take().map(progress)
                }
            };
            if let Some(text) = text {
                self.sent = Instant::now();
                return Some(text.into());
            }
        }
        None
    }

    fn told(&mut self, changes: &Changes) -> Option<String> {
        let deltas: Cow<'_, [Delta]> = match &self.only {
            None => Cow::Borrowed(&changes.deltas),
            Some(only) => changes.deltas.iter().filter_map(|delta| only.among(delta)).collect(),
        };
        let mut left: usize = deltas.iter().map(Delta::len).sum();
        if left > 0 {
            self.untold = None;
            self.open = !changes.complete;
            let mut text = String::new();
            for delta in deltas.iter() {
                for first in (0..delta.len()).step_by(EVENT_ROWS) {
                    let rows = first..delta.len().min(first + EVENT_ROWS);
                    left -= rows.len();
                    self.event(changes, delta, rows, left == 0, &mut text);
                }
            }
            return Some(text);
        }
        self.untold = changes.complete.then_some(changes.position);
        let due = self.open || self.sent.elapsed() >= PROGRESS_EVERY;
        if !due {
            return None;
        }
        self.open = false;
        self.untold.take().map(progress)
    }

    /// One event of some rows; the last of a position has its id.
    fn event(
        &self,
        changes: &Changes,
        delta: &Delta,
        rows: std::ops::Range<usize>,
        last: bool,
        out: &mut String,
    ) {
        out.push_str("event: changes\ndata: [");
        let begin = rows.start;
        for row in rows {
            if row > begin {
                out.push(',');
            }
            let (position, weight) = (changes.position.get(), delta.weights.value(row));
            let first = format!("\"evert_position\":{position},\"evert_weight\":{weight}");
            self.writer.write_after(&first, &delta.rows, row, out);
        }
        out.push_str("]\n");
        if last && changes.complete {
            id(changes.position, out);
        }
        out.push('\n');
    }
}

fn progress(position: Position) -> String {
    let mut text = format!("event: progress\ndata: {{\"evert_position\":{position}}}\n");
    id(position, &mut text);
    text.push('\n');
    text
}

fn id(position: Position, out: &mut String) {
    writeln!(out, "id: {position}").expect("a string takes everything");
}
