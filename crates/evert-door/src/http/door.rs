//! The door itself: a listening socket and the routes behind it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::watch;

use super::observed::Observed;
use super::search::{self, Search};
use super::{after, api, changes, lake, metrics, rows, sql};

/// How long requests under way may take once the server was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// The largest statement, in bytes.
const STATEMENT_BYTES_MAX: usize = 8 << 20;

/// What the routes share.
pub(super) type Server = State<Arc<dyn Observed>>;

/// An open door: it listens, and serves once [`HttpDoor::serve`] runs.
pub struct HttpDoor {
    listener: TcpListener,
    server: Arc<dyn Observed>,
    search: Option<Arc<dyn Search>>,
}

impl HttpDoor {
    /// Listens on `address`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(
        address: impl ToSocketAddrs,
        server: impl Observed + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, server: Arc::new(server), search: None })
    }

    /// Serves search indexes too.
    #[must_use]
    pub fn with_search(mut self, search: Arc<dyn Search>) -> Self {
        self.search = Some(search);
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves clients until `stopping` turns true (or its sender is gone).
    pub async fn serve(self, stopping: watch::Receiver<bool>) {
        let mut overdue = stopping.clone();
        let serve = axum::serve(self.listener, routes(self.server, self.search, stopping.clone()))
            .with_graceful_shutdown(told(stopping))
            .into_future();
        tokio::select! {
            served = serve => {
                if let Err(error) = served {
                    tracing::error!(%error, "http: the door closed");
                }
            }
            () = async {
                let _ = overdue.wait_for(|stop| *stop).await.map(drop);
                tokio::time::sleep(DRAIN_MAX).await;
            } => tracing::warn!("http: clients did not take their answers in time"),
        }
    }
}

async fn told(mut stopping: watch::Receiver<bool>) {
    // Without a sender nobody is left who could say otherwise.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn routes(
    server: Arc<dyn Observed>,
    search: Option<Arc<dyn Search>>,
    stopping: watch::Receiver<bool>,
) -> Router {
    let found = search.clone().map(search::routes).unwrap_or_default();
    let root = move |headers: HeaderMap| async move {
        match search.filter(|_| search::is_client(&headers)) {
            Some(search) => search::answer_root(search.as_ref(), &headers).await,
            None => api::root().await.into_response(),
        }
    };
    Router::new()
        .route("/", get(root))
        .route("/healthz", get(api::health))
        .route("/readyz", get(api::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/topics", get(api::topics))
        .route("/api/views", get(api::views))
        .route("/api/views/{name}", get(rows::rows))
        .route("/api/views/{name}/changes", get(changes::changes))
        .route("/api/views/{name}/{key}", get(rows::row))
        .route("/api/sql", post(sql::sql).layer(DefaultBodyLimit::max(STATEMENT_BYTES_MAX)))
        .nest("/iceberg", lake::routes())
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .with_state(server.clone())
        .layer(middleware::from_fn_with_state(server.clone(), after::reached))
        // Searches wait for their index, in Elasticsearch's words.
        .merge(found)
        .layer(middleware::from_fn_with_state(server.clone(), after::with_position))
        .layer(Extension(stopping))
}
