//! The server: log, views, sources and doors, wired together.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use evert_archive::Archives;
use evert_door::{http, kafka, pg, resp};
use evert_env::Env;
use evert_log::{Log, LogConfig};
use evert_sink::Sinks;
use evert_sql::{Engine, EngineConfig, SqlPlanner};
use evert_view::{CheckpointConfig, OutletFactory, OutletKind, Views, ViewsConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::adapter::{PgBackend, Shown, Sources};
use crate::lake::{self, Readers};
use crate::output;
use crate::searching::searching;
use crate::settings::Settings;

/// How long open connections may go on after the server was told to stop.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// The least time between two checkpoints of the views.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// How often a running server makes sure that its log has not stopped.
const LOG_CHECKED_EVERY: Duration = Duration::from_millis(250);

/// Where the open doors are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) kafka: Option<SocketAddr>,
    pub(crate) sql: Option<SocketAddr>,
    pub(crate) keyvalue: Option<SocketAddr>,
    pub(crate) http: Option<SocketAddr>,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doors = [
            ("kafka", self.kafka),
            ("sql", self.sql),
            ("keyvalue", self.keyvalue),
            ("http", self.http),
        ];
        for (index, (name, address)) in doors.into_iter().enumerate() {
            f.write_str(if index > 0 { " " } else { "" })?;
            match address {
                Some(address) => write!(f, "{name}={address}")?,
                None => write!(f, "{name}=off")?,
            }
        }
        Ok(())
    }
}

/// Says what serves each kind of view that is kept outside the fold, and starts those there are.
async fn serve_outlets(
    views: &Views,
    archives: &Archives,
    search: Arc<dyn OutletFactory>,
) -> Result<()> {
    let sinks: Arc<dyn OutletFactory> = Arc::new(Sinks::new(views.log().id()));
    let archives: Arc<dyn OutletFactory> = Arc::new(archives.clone());
    let kinds =
        [(OutletKind::Search, search), (OutletKind::Sink, sinks), (OutletKind::Archive, archives)];
    let views = views.clone();
    let serve = move || views.serve_outlets(kinds);
    tokio::task::spawn_blocking(serve).await?.context("cannot start what is kept outside")
}

/// A running server.
pub(crate) struct Server {
    pub(crate) views: Views,
    pub(crate) addresses: Addresses,
    sources: evert_cdc::Sources,
    stop: watch::Sender<bool>,
    doors: JoinSet<()>,
}

impl Server {
    /// Opens the log, starts the views and opens the doors.
    ///
    /// # Errors
    /// When the data directory is locked or damaged, or an address is taken.
    pub(crate) async fn start(settings: &Settings) -> Result<Self> {
        let memory = settings.memory_bytes()?;
        let env = Env::real();
        let dir = settings.data_dir()?.to_path_buf();
        let log = open_log(env.clone(), &dir, memory).await?;
        if let Err(error) = evert_env::spill::begin(&dir, memory) {
            tracing::warn!(%error, "state cannot spill: memory is not bounded");
        }
        let views = {
            let (env, log) = (env.clone(), log.clone());
            let checkpoints = CheckpointConfig::new(dir.join("views"), CHECKPOINT_EVERY);
            let config = ViewsConfig { checkpoints: Some(checkpoints), ..ViewsConfig::default() };
            let planner = Arc::new(SqlPlanner::new());
            let open = move || Views::open_with(env, log, planner, config);
            tokio::task::spawn_blocking(open).await?.context("cannot open the catalog")?
        };
        let sources = evert_cdc::Sources::new(log.clone(), views.clone());
        sources.start_all();
        let archives = lake::archives(env.clone(), &views, settings.archives_dir()?);
        let (search, searching) = searching(&dir, &views);
        serve_outlets(&views, &archives, search).await?;
        let config = EngineConfig {
            query_memory_bytes: usize::try_from(memory / 4)?,
            files_dir: settings.files_dir.clone(),
            ..EngineConfig::default()
        };
        let control = Arc::new(Sources::new(sources.clone()));
        let engine = Engine::new(log.clone(), views.clone(), control, config);
        let readers = || Readers { archives: archives.clone(), views: views.clone() };
        engine.serve_archives(Arc::new(readers()));
        engine.serve_search(Arc::new(searching.clone()));

        let (stop, stopped) = watch::channel(false);
        let mut doors = JoinSet::new();
        let mut addresses = Addresses { kafka: None, sql: None, keyvalue: None, http: None };
        if let Some(address) = settings.kafka() {
            let config = kafka::KafkaConfig {
                advertised: settings.kafka_advertised()?,
                ..kafka::KafkaConfig::default()
            };
            let door =
                kafka::KafkaDoor::bind(address, log.clone(), Arc::new(views.clone()), config)
                    .await
                    .with_context(|| format!("cannot open the Kafka door at {address}"))?;
            addresses.kafka = Some(door.local_addr()?);
            doors.spawn(door.serve(stopped.clone()));
        }
        if let Some(address) = settings.sql() {
            let backend = Arc::new(PgBackend::new(engine.clone()));
            let door = pg::PgDoor::bind(address, backend, pg::PgConfig::default())
                .await
                .with_context(|| format!("cannot open the SQL door at {address}"))?;
            addresses.sql = Some(door.local_addr()?);
            doors.spawn(door.serve(stopped.clone()));
        }
        if let Some(address) = settings.keyvalue() {
            let door = resp::RespDoor::bind(address, views.clone(), resp::RespConfig::default())
                .await
                .with_context(|| format!("cannot open the key-value door at {address}"))?;
            addresses.keyvalue = Some(door.local_addr()?);
            doors.spawn(door.serve(stopped.clone()));
        }
        if let Some(address) = settings.http() {
            let door =
                http::HttpDoor::bind(address, Shown::new(views.clone(), engine.clone(), readers()))
                    .await
                    .with_context(|| format!("cannot open the HTTP door at {address}"))?
                    .with_search(Arc::new(searching));
            addresses.http = Some(door.local_addr()?);
            doors.spawn(door.serve(stopped.clone()));
        }
        Ok(Self { views, addresses, sources, stop, doors })
    }

    /// Stops accepting, lets what is under way finish, and closes the log.
    ///
    /// # Errors
    /// When a part ended in a panic.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.send_replace(true);
        let finish = async { while self.doors.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH_WITHIN, finish).await.is_err() {
            tracing::warn!("connections were still open after {FINISH_WITHIN:?}: cut");
            self.doors.abort_all();
        }
        self.sources.stop().await;
        let views = self.views;
        tokio::task::spawn_blocking(move || {
            views.close();
            views.log().close();
        })
        .await?;
        Ok(())
    }
}

async fn open_log(env: Env, dir: &Path, memory: u64) -> Result<Log> {
    let config = LogConfig { tail_bytes_max: usize::try_from(memory / 8)?, ..LogConfig::default() };
    let path = dir.to_path_buf();
    tokio::task::spawn_blocking(move || Log::open(env, path, config))
        .await?
        .with_context(|| format!("cannot open the log in {}", dir.display()))
}

/// Runs `evert serve` until SIGTERM or SIGINT.
///
/// # Errors
/// When the server cannot start.
pub(crate) async fn run(settings: Settings) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::start(&settings.with_file()?).await?;
    // A server goes on without anybody who reads what it says.
    drop(output::print(&format!("evert ready {}\n", server.addresses)));
    let mut why = None;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
        stopped = log_stopped(&server) => why = Some(stopped),
    }
    server.stop().await?;
    match why {
        None => Ok(()),
        Some(why) => bail!("the log can acknowledge nothing any more: {why}; start again"),
    }
}

/// Resolves when the log has stopped for good, to why.
async fn log_stopped(server: &Server) -> String {
    loop {
        if let Some(why) = server.views.log().stopped() {
            tracing::error!(%why, "the log has stopped");
            return why;
        }
        tokio::time::sleep(LOG_CHECKED_EVERY).await;
    }
}
