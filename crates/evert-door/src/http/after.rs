//! `Evert-After`: answers that wait for a position.
//!
//! The header is a position: a number, `topic/partition@offset` or `source:LSN`. The request goes
//! on once the live views have reached it. `Evert-Timeout` says for how many milliseconds it may
//! wait.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use evert_model::{Position, PositionToken};
use serde_json::json;
use tokio::time::Instant;

use super::door::Server;

pub(super) const POSITION: HeaderName = HeaderName::from_static("evert-position");
const AFTER: HeaderName = HeaderName::from_static("evert-after");
const TIMEOUT: HeaderName = HeaderName::from_static("evert-timeout");

/// How long a request waits if it does not say, and at most.
const WAIT: Duration = Duration::from_secs(10);
const WAIT_MS_MAX: u64 = 600_000;

/// What a request was told to wait for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// What it reads is at or after this.
    pub(super) at_least: Position,
    /// Until when it waits.
    pub(super) deadline: Instant,
}

impl Asked {
    /// How long it may still wait.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Waits if the request says so.
pub(super) async fn reached(State(server): Server, mut request: Request, next: Next) -> Response {
    let wish = match wish(request.headers()) {
        Ok(wish) => wish,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    let (token, timeout) = wish;
    let deadline = Instant::now() + timeout;
    let at_least = match token {
        None => Position::ZERO,
        Some(token) => match server.reach(&token, timeout).await {
            Ok(position) => position,
            Err(error) => return refuse(error.status(), &error.to_string()),
        },
    };
    request.extensions_mut().insert(Asked { at_least, deadline });
    next.run(request).await
}

/// Adds the position that the answer is at or after, where it does not tell its own.
pub(super) async fn with_position(State(server): Server, request: Request, next: Next) -> Response {
    // Taken before the answer is made: what it shows can only be newer.
    let position = server.position().get();
    let mut response = next.run(request).await;
    response.headers_mut().entry(POSITION).or_insert_with(|| HeaderValue::from(position));
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    match headers.get(name).map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(format!("{name} is not text")),
    }
}

/// `Evert-After`, as it is written.
pub(super) fn after(headers: &HeaderMap) -> Result<Option<&str>, String> {
    text(headers, &AFTER)
}

/// `Evert-Timeout`: how long a request may wait.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Duration, String> {
    match text(headers, &TIMEOUT)? {
        None => Ok(WAIT),
        Some(ms) => match ms.trim().parse::<u64>() {
            Ok(ms) if ms <= WAIT_MS_MAX => Ok(Duration::from_millis(ms)),
            _ => Err(format!("Evert-Timeout is up to {WAIT_MS_MAX} milliseconds")),
        },
    }
}

fn wish(headers: &HeaderMap) -> Result<(Option<PositionToken>, Duration), String> {
    let token = match after(headers)? {
        None => None,
        Some(token) => {
            Some(token.parse::<PositionToken>().map_err(|error| format!("Evert-After: {error}"))?)
        }
    };
    Ok((token, timeout(headers)?))
}

/// An error as every route of this door tells it.
pub(super) fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes() {
        let headers = |pairs: &[(&HeaderName, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(k, v)| ((*k).clone(), HeaderValue::from_static(v))).collect()
        };
        assert_eq!(wish(&headers(&[])), Ok((None, WAIT)));
        let token = "shop:0/16B3748".parse().expect("a token");
        let found = wish(&headers(&[(&AFTER, "shop:0/16B3748"), (&TIMEOUT, "250")]));
        assert_eq!(found, Ok((Some(token), Duration::from_millis(250))));
        assert!(wish(&headers(&[(&AFTER, "soon")])).is_err());
        assert!(wish(&headers(&[(&TIMEOUT, "600001")])).is_err());
    }
}
