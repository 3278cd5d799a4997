//! The engine: what all sessions share.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use evert_log::{Log, Topic};
use evert_model::{PartitionId, Position};
use evert_view::{Cut, Name, Views};

use crate::context::state;
use crate::flights::Flights;
use crate::functions::SessionFacts;
use crate::schemas::Schemas;
use crate::search::{SearchFunction, SearchSlot, SearchSource};
use crate::statement::Statements;
use crate::{ArchiveSource, Session, SourceControl, SqlError, translate};

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What all queries together may hold in memory.
    pub query_memory_bytes: usize,
    /// The default of `statement_timeout`; zero is none.
    pub statement_timeout: Duration,
    /// The directory whose files COPY may name; without one, none.
    pub files_dir: Option<PathBuf>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            query_memory_bytes: 512 << 20,
            statement_timeout: Duration::from_secs(60),
            files_dir: None,
        }
    }
}

/// Makes sessions. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) log: Log,
    pub(crate) views: Views,
    pub(crate) sources: Arc<dyn SourceControl>,
    pub(crate) config: EngineConfig,
    pub(crate) statements: Statements,
    /// Writers that read first hold it alone, from the read to the durable commit; writers that
    /// only append share it. Facts that come by other doors do not ask.
    pub(crate) dml: tokio::sync::RwLock<()>,
    pub(crate) flights: Arc<Flights>,
    /// The last position that a session was told of as committed.
    pub(crate) committed: AtomicU64,
    pub(crate) archives: OnceLock<Arc<dyn ArchiveSource>>,
    pub(crate) schemas: Schemas,
    search: SearchSlot,
    /// What sessions start with.
    state: SessionState,
}

impl Engine {
    /// An engine over a log and its views.
    pub fn new(
        log: Log,
        views: Views,
        sources: Arc<dyn SourceControl>,
        config: EngineConfig,
    ) -> Self {
        let pool = GreedyMemoryPool::new(config.query_memory_bytes);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .build_arc()
            .expect("a runtime of memory only can always be made");
        let facts = SessionFacts::default();
        let mut state = state(runtime, &facts);
        crate::context::register_catalog(&mut state, &views);
        let search = SearchSlot::default();
        state.register_udtf("search", Arc::new(SearchFunction(Arc::clone(&search))));
        Self(Arc::new(Inner {
            log,
            views,
            sources,
            config,
            statements: Statements::default(),
            dml: tokio::sync::RwLock::new(()),
            flights: Arc::default(),
            committed: AtomicU64::default(),
            archives: OnceLock::new(),
            schemas: Schemas::default(),
            search,
            state,
        }))
    }

    /// A session for a client. Any user and database will do.
    pub fn session(&self, user: &str, database: &str) -> Session {
        Session::new(Arc::clone(&self.0), user, database)
    }
}

impl Engine {
    /// Says where archives are read from. The first call counts.
    pub fn serve_archives(&self, archives: Arc<dyn ArchiveSource>) {
        // A second call would be a mistake of the program's that harms nobody.
        drop(self.0.archives.set(archives));
    }

    /// Says where the search indexes are that `search` in FROM reads. Once.
    pub fn serve_search(&self, source: Arc<dyn SearchSource>) {
        // Whoever was first stays.
        let _ = self.0.search.set(source);
    }

    /// How many queries got the rows of another that was the same, at the same position.
    pub fn queries_coalesced(&self) -> u64 {
        self.0.flights.joined()
    }
}

impl Inner {
    /// A session's planner state.
    pub(crate) fn state(&self, facts: &SessionFacts) -> SessionState {
        let mut state = self.state.clone();
        crate::context::register_facts(&mut state, facts);
        state
    }

    /// Records that a topic holds.
    pub(crate) fn records_in(&self, topic: &Topic) -> i64 {
        let partitions = (0..topic.partitions).map(PartitionId::new);
        let ends = partitions.filter_map(|at| self.log.partition_ends(topic.id, at).ok());
        ends.map(|ends| ends.high_watermark.get() - ends.log_start.get()).sum()
    }

    /// One cut of all of `names`, at or after a position.
    pub(crate) async fn pin(
        &self,
        names: &[Name],
        at_least: Position,
        timeout: Duration,
    ) -> Result<Arc<Cut>, SqlError> {
        self.views.pin(names, at_least, timeout).await.map_err(|error| translate::pin(&error))
    }
}
