//! A connection's life: opening, messages, end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::backend::SqlError;
use super::client::Client;
use super::door::{Shared, told};
use super::frontend::{Frame, FrameError, Message, Opening};
use super::portal::Failure;
use super::reply::{self, Severity};
use super::startup::Startup;
use super::wire::{Wire, WireError};

/// How often a client may ask for encryption before it starts: once for each kind.
const ENCRYPTION_REQUESTS_MAX: usize = 2;

/// Serves a connection until it ends.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    mut wire: Wire,
    mut stopping: watch::Receiver<bool>,
) {
    let started = timeout(shared.config.startup_time_max, open(shared, &mut wire)).await;
    let startup = match started {
        Ok(Ok(Some(startup))) => startup,
        // Too slow, gone, or a cancel request: there is nobody to tell.
        Err(_) | Ok(Ok(None)) => return wire.close().await,
        Ok(Err(error)) => return end(&mut wire, error).await,
    };
    if let Err(error) = converse(shared, &mut wire, startup, &mut stopping).await {
        end(&mut wire, error).await;
    }
}

/// How a connection ends before its client wants it to.
enum End {
    Wire(WireError),
    Sql(SqlError),
}

impl<E: Into<WireError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Wire(error.into())
    }
}

async fn end(wire: &mut Wire, end: End) {
    let error = match end {
        End::Sql(error) => error,
        End::Wire(WireError::Frame(error)) => {
            tracing::debug!(%error, "sql: a client broke the protocol");
            SqlError::new(error.sqlstate(), error.to_string())
        }
        End::Wire(error @ WireError::OutOfMemory) => SqlError::new("53200", error.to_string()),
        End::Wire(error @ WireError::Unfinished) => SqlError::new("08P01", error.to_string()),
        End::Wire(error @ (WireError::Io(_) | WireError::Stalled)) => {
            tracing::debug!(%error, "sql: a client is gone");
            return;
        }
    };
    wire.farewell(&error).await;
}

/// Takes the packets before a session. `None` when there is no session to come.
async fn open(shared: &Shared, wire: &mut Wire) -> Result<Option<Startup>, End> {
    let mut encryption_requests = 0;
    loop {
        match wire.opening().await? {
            None => return Ok(None),
            Some(Opening::Ssl | Opening::GssEncryption) => {
                encryption_requests += 1;
                if encryption_requests > ENCRYPTION_REQUESTS_MAX {
                    return Err(FrameError::BadStartup.into());
                }
                wire.out.extend_from_slice(&[reply::REFUSED]);
                wire.flush().await?;
            }
            Some(Opening::Cancel { process, secret }) => {
                shared.registry.cancel(process, secret);
                return Ok(None);
            }
            Some(Opening::Startup { minor, parameters }) => {
                let startup = Startup::new(parameters).map_err(End::Sql)?;
                if minor > 0 || !startup.unknown_options.is_empty() {
                    let refused: Vec<_> =
                        startup.unknown_options.iter().map(String::as_str).collect();
                    reply::negotiate_version(&mut wire.out, &refused);
                }
                return Ok(Some(startup));
            }
        }
    }
}

/// The session: greets, then answers messages until the client leaves.
async fn converse(
    shared: &Arc<Shared>,
    wire: &mut Wire,
    startup: Startup,
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), End> {
    let mut session = shared.backend.session(&startup.user, &startup.database);
    startup.apply(session.as_mut()).await;
    let registered = shared.registry.register(session.cancel_handle());
    let config = shared.config.clone();
    let mut client = Client::new(session, registered.cancel.clone(), config, stopping.clone());
    reply::authentication_ok(&mut wire.out);
    client.report_settings(wire);
    reply::backend_key(&mut wire.out, registered.process, registered.secret);
    client.ready(wire);

    let mut skip_to_sync = false;
    loop {
        let frame = tokio::select! {
            biased;
            () = told(stopping) => {
                let message = "terminating connection due to administrator command";
                return Err(End::Sql(SqlError::new("57P01", message)));
            }
            frame = wire.frame() => frame?,
            () = idled(client.idle_max()) => {
                let message = "terminating connection due to idle-in-transaction timeout";
                return Err(End::Sql(SqlError::new("25P03", message)));
            }
        };
        let Some(frame) = frame else { return Ok(()) };
        if frame.is_sync() {
            skip_to_sync = false;
        } else if skip_to_sync && frame.kind != b'X' {
            continue;
        }
        let extended = frame.is_extended();
        match answer(wire, &mut client, frame).await {
            Ok(true) => {}
            Ok(false) => {
                wire.close().await;
                return Ok(());
            }
            Err(Failure::Wire(error)) => return Err(error.into()),
            Err(Failure::Sql(error)) => {
                reply::error(&mut wire.out, Severity::Error, &error);
                if error.sqlstate == "XX000" {
                    tracing::error!(%error, "sql: an internal error");
                }
                client.failed();
                skip_to_sync = extended;
                if !extended {
                    client.ready(wire);
                }
            }
        }
        wire.release();
    }
}

/// Resolves once a client was idle for as long as it may be.
async fn idled(max: Option<Duration>) {
    match max {
        Some(max) => sleep(max).await,
        None => std::future::pending().await,
    }
}

/// Answers one message; `false` when the client says goodbye.
async fn answer(wire: &mut Wire, client: &mut Client, frame: Frame) -> Result<bool, Failure> {
    let message = match Message::read(frame) {
        Ok(message) => message,
        Err(error) if error.is_fatal() => return Err(WireError::from(error).into()),
        Err(error) => return Err(SqlError::new(error.sqlstate(), error.to_string()).into()),
    };
    let (ends_series, goodbye) = match message {
        Message::Query(_) | Message::Sync | Message::FunctionCall => (true, false),
        Message::Terminate => (false, true),
        _ => (false, false),
    };
    client.handle(wire, message).await?;
    if ends_series {
        client.ready(wire);
    }
    Ok(!goodbye)
}
