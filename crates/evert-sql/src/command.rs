//! Commands: what a parsed statement asks for.

use std::collections::BTreeMap;

use evert_model::{Column, PositionToken, RowSchema};
use evert_view::{Defaults, Lengths, Name, OutletKind, RelationKind, TextLength};
use sqlparser::ast::{Delete, Expr, Insert, Query, Update};

use crate::NewSource;
use crate::copy::Options;
use crate::schemas::{CreateSchema, DropSchema};

/// A statement, understood.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Empty,
    Query(Box<Query>),
    QueryAsOf {
        query: Box<Query>,
        as_of: AsOf,
    },
    Subscribe(Box<Subscribe>),
    Copy(Box<Copy>),
    Declare(Declare),
    Fetch(Fetch),
    /// CLOSE; `None` is ALL.
    CloseCursor(Option<String>),
    Explain(Explain),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    CreateRelation(CreateRelation),
    Alter(Alter),
    CreateView(CreateView),
    CreateSource(NewSource),
    CreateIndex(CreateIndex),
    CreateOutlet(CreateOutlet),
    Drop(Drop),
    CreateSchema(CreateSchema),
    DropSchema(DropSchema),
    Begin {
        read_only: bool,
    },
    Commit,
    Rollback,
    Savepoint(String),
    ReleaseSavepoint(String),
    RollbackTo(String),
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    SetTransaction {
        read_only: Option<bool>,
    },
    ResetAll,
    Show(String),
    ShowPosition,
    WaitForPosition {
        token: PositionToken,
        timeout_ms: Option<u64>,
    },
    RefreshView(Name),
    VerifyView(Name),
    RebuildViews(Vec<Name>),
    PauseView(Name),
    ResumeView(Name),
    DiscardAll,
    /// Accepted, since clients send it when they put a connection back, and without effect.
    Nothing {
        tag: &'static str,
    },
}

/// CREATE TABLE or CREATE STREAM.
#[derive(Clone, Debug)]
pub(crate) struct CreateRelation {
    pub(crate) name: Name,
    pub(crate) kind: RelationKind,
    pub(crate) if_not_exists: bool,
    pub(crate) schema: RowSchema,
    pub(crate) topic: Option<String>,
    pub(crate) partitions: i32,
    pub(crate) topic_config: BTreeMap<String, String>,
    pub(crate) conflict_is_error: bool,
    pub(crate) lengths: Lengths,
    pub(crate) defaults: Defaults,
    /// What the user should know about the columns.
    pub(crate) notices: Vec<String>,
}

/// ALTER TABLE or ALTER STREAM.
#[derive(Clone, Debug)]
pub(crate) struct Alter {
    pub(crate) kind: RelationKind,
    pub(crate) name: Name,
    pub(crate) if_exists: bool,
    pub(crate) columns: Vec<AddColumn>,
    /// What the user should know about the columns.
    pub(crate) notices: Vec<String>,
}

/// ADD COLUMN.
#[derive(Clone, Debug)]
pub(crate) struct AddColumn {
    pub(crate) column: Column,
    pub(crate) length: Option<TextLength>,
    pub(crate) if_not_exists: bool,
}

/// CREATE MATERIALIZED VIEW.
#[derive(Clone, Debug)]
pub(crate) struct CreateView {
    pub(crate) name: Name,
    pub(crate) if_not_exists: bool,
    /// OR REPLACE.
    pub(crate) replace: bool,
    /// DRY RUN: tell what replacing would change.
    pub(crate) dry_run: bool,
    pub(crate) body: ViewBody,
    /// The SELECT, or the fold's definition, as it was written.
    pub(crate) sql: String,
    pub(crate) options: CreateViewOptions,
}

/// What a view's rows are.
#[derive(Clone, Debug)]
pub(crate) enum ViewBody {
    Select(Box<Query>),
    Fold(Box<FoldDefinition>),
}

/// A custom fold.
#[derive(Clone, Debug)]
pub(crate) struct FoldDefinition {
    /// The view's columns, the key's among them.
    pub(crate) columns: Vec<Column>,
    /// The rows that are folded.
    pub(crate) input: Box<Query>,
    /// Columns of the rows, whose values make a group; without any, all rows are one.
    pub(crate) key: Vec<String>,
    /// The order in which a group's rows are folded.
    pub(crate) order: Vec<FoldOrder>,
    /// The code.
    pub(crate) source: String,
    /// The character of the text at which the code begins, if it stands there as it is.
    pub(crate) starts_at: Option<usize>,
    /// The character at which the code's quotation begins.
    pub(crate) at: Option<usize>,
    /// The definition as it is kept.
    pub(crate) sql: String,
}

/// A column of a fold's order.
#[derive(Clone, Debug)]
pub(crate) struct FoldOrder {
    pub(crate) column: String,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// What CREATE MATERIALIZED VIEW says beside the SELECT.
#[derive(Clone, Debug, Default)]
pub(crate) struct CreateViewOptions {
    /// Its changes go to a topic.
    pub(crate) changes: bool,
    /// Of streams it reads what came later.
    pub(crate) start: Option<AsOf>,
}

/// CREATE INDEX.
#[derive(Clone, Debug)]
pub(crate) struct CreateIndex {
    pub(crate) name: Name,
    pub(crate) on: Name,
    pub(crate) columns: Vec<String>,
    pub(crate) if_not_exists: bool,
}

/// CREATE SEARCH INDEX, ARCHIVE or SINK.
#[derive(Clone, Debug)]
pub(crate) struct CreateOutlet {
    pub(crate) name: Name,
    pub(crate) kind: OutletKind,
    pub(crate) on: Name,
    /// See [`evert_view::OutletDef::options`].
    pub(crate) options: serde_json::Value,
    pub(crate) if_not_exists: bool,
}

/// EXPLAIN.
#[derive(Clone, Debug)]
pub(crate) struct Explain {
    pub(crate) target: ExplainTarget,
    /// FORMAT JSON.
    pub(crate) json: bool,
    /// ANALYZE: it is run, too.
    pub(crate) analyze: bool,
}

/// What is explained.
#[derive(Clone, Debug)]
pub(crate) enum ExplainTarget {
    Query(Box<Query>),
    /// A view that is there.
    View(Name),
    /// One that might be created.
    Create(Box<CreateView>),
}

/// What DROP names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropKind {
    Table,
    Stream,
    View,
    Source,
    Index,
    Outlet(OutletKind),
}

/// DROP.
#[derive(Clone, Debug)]
pub(crate) struct Drop {
    pub(crate) kind: DropKind,
    pub(crate) names: Vec<Name>,
    pub(crate) if_exists: bool,
    pub(crate) cascade: bool,
    /// DROP TABLE ... WITH TOPIC.
    pub(crate) with_topic: bool,
}

impl DropKind {
    /// The words after DROP.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Table => "TABLE",
            Self::Stream => "STREAM",
            Self::View => "MATERIALIZED VIEW",
            Self::Source => "SOURCE",
            Self::Index => "INDEX",
            Self::Outlet(OutletKind::Search) => "SEARCH INDEX",
            Self::Outlet(OutletKind::Archive) => "ARCHIVE",
            Self::Outlet(OutletKind::Sink) => "SINK",
        }
    }
}

/// A moment of the log.
#[derive(Clone, Debug)]
pub(crate) enum AsOf {
    Position(PositionToken),
    /// A constant expression that is a timestamp.
    Time(Box<Expr>),
}

/// SUBSCRIBE.
#[derive(Clone, Debug)]
pub(crate) struct Subscribe {
    pub(crate) name: Name,
    /// It begins with the rows there are.
    pub(crate) snapshot: bool,
    /// Rows tell how far it has come.
    pub(crate) progress: bool,
    pub(crate) after: Option<AsOf>,
    pub(crate) upto: Option<PositionToken>,
}

/// COPY.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) what: CopyWhat,
    pub(crate) end: CopyEnd,
    pub(crate) options: Options,
}

/// What COPY reads or fills.
#[derive(Clone, Debug)]
pub(crate) enum CopyWhat {
    /// Rows go into a relation: all its columns, if none are listed.
    From {
        relation: Name,
        columns: Vec<String>,
    },
    To(CopyRead),
}

/// Where the rows of COPY TO come from.
#[derive(Clone, Debug)]
pub(crate) enum CopyRead {
    Relation {
        name: Name,
        columns: Vec<String>,
    },
    /// A query or SUBSCRIBE.
    Statement(Box<Command>),
}

/// The other side of COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyEnd {
    /// STDIN or STDOUT.
    Client,
    /// A file of the server.
    File(String),
}

/// DECLARE.
#[derive(Clone, Debug)]
pub(crate) struct Declare {
    pub(crate) name: String,
    /// It outlives its transaction.
    pub(crate) hold: bool,
    /// A query or SUBSCRIBE.
    pub(crate) command: Box<Command>,
}

/// FETCH, and MOVE, which shows no rows.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) name: String,
    /// `None` is ALL.
    pub(crate) count: Option<u64>,
    /// How long to wait for changes.
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) discard: bool,
}
