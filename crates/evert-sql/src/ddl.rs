//! CREATE and DROP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evert_model::{Column, Position};
use evert_view::{
    Catalog, CatalogError, Difference, Format, IndexDef, Lengths, Name, NewRelation, RelationKind,
    ViewOptions,
};

use crate::command::{AddColumn, Alter, CreateIndex, CreateRelation, CreateView, Drop, DropKind};
use crate::engine::Inner;
use crate::error::{
    DUPLICATE_COLUMN, DUPLICATE_TABLE, INTERNAL_ERROR, NOT_NULL_VIOLATION, UNDEFINED_COLUMN,
    UNDEFINED_OBJECT, UNDEFINED_TABLE, WRONG_OBJECT_TYPE,
};
use crate::names::unknown_relation;
use crate::{SourceControl, SqlError, outlets, translate, view};

/// What a statement of this kind did: where the catalog changed, and what to tell.
#[derive(Default)]
pub(crate) struct Changed {
    pub(crate) position: Option<Position>,
    pub(crate) notices: Vec<String>,
}

pub(crate) async fn create_relation(
    engine: &Arc<Inner>,
    create: &CreateRelation,
) -> Result<Changed, SqlError> {
    let mut changed = Changed { notices: create.notices.clone(), ..Changed::default() };
    if exists(engine, &create.name, create.if_not_exists, &mut changed)? {
        return Ok(changed);
    }
    let new = NewRelation {
        name: create.name.clone(),
        kind: create.kind,
        schema: create.schema.clone(),
        topic: create.topic.clone(),
        partitions: create.partitions,
        topic_config: create.topic_config.clone(),
        format: Format::Json,
        conflict_is_error: create.conflict_is_error,
        lengths: create.lengths.clone(),
        defaults: create.defaults.clone(),
        source: None,
    };
    let own_topic = new.topic.is_none().then(|| engine.log.topic(&create.name.to_string()));
    let found = own_topic.flatten().map(|topic| (engine.records_in(&topic), topic));
    let position = blocking(engine, move |engine| engine.views.create_relation(new)).await?;
    changed.position = Some(position);
    if let Some((count @ 1.., topic)) = found {
        let name = &create.name;
        let topic = &topic.name;
        let message = format!("topic \"{topic}\" was there: \"{name}\" reads its {count} records");
        changed.notices.push(message);
    }
    Ok(changed)
}

pub(crate) async fn create_view(
    engine: &Arc<Inner>,
    create: &CreateView,
    options: ViewOptions,
    text: &str,
) -> Result<Changed, SqlError> {
    let mut changed = Changed::default();
    if create.replace && engine.views.catalog().contains(&create.name) {
        return replace_view(engine, create, &options, text).await;
    }
    if exists(engine, &create.name, create.if_not_exists, &mut changed)? {
        return Ok(changed);
    }
    // Planned here too, where the text is the client's and errors can say where in it.
    view::plan_body(&create.body, text, &engine.views.catalog())?;
    let (name, sql) = (create.name.clone(), create.sql.clone());
    let create = move |engine: &Inner| engine.views.create_view_with(name, sql, options);
    let position = blocking(engine, create).await?;
    changed.position = Some(position);
    Ok(changed)
}

pub(crate) async fn alter(engine: &Arc<Inner>, alter: &Alter) -> Result<Changed, SqlError> {
    let mut changed = Changed { notices: alter.notices.clone(), ..Changed::default() };
    let kind = match alter.kind {
        RelationKind::Stream => DropKind::Stream,
        _ => DropKind::Table,
    };
    if let Err(error) = check_kind(engine, kind, &alter.name, "ALTER") {
        if alter.if_exists && error.sqlstate == UNDEFINED_TABLE {
            changed.notices.push(format!("relation \"{}\" does not exist, skipping", alter.name));
            return Ok(changed);
        }
        return Err(error);
    }
    let catalog = engine.views.catalog();
    let mut columns: Vec<Column> = Vec::new();
    let mut lengths = Lengths::new();
    for AddColumn { column, length, if_not_exists } in &alter.columns {
        let (name, to) = (&column.name, &alter.name);
        let there = catalog.schema_of(to).is_some_and(|schema| schema.index_of(name).is_some());
        if there || columns.iter().any(|other| other.name == *name) {
            let message = format!("column \"{name}\" of relation \"{to}\" already exists");
            if !if_not_exists {
                return Err(SqlError::new(DUPLICATE_COLUMN, message));
            }
            changed.notices.push(message + ", skipping");
            continue;
        }
        if !column.nullable {
            let message = format!("column \"{name}\" of relation \"{to}\" contains null values");
            return Err(SqlError::new(NOT_NULL_VIOLATION, message)
                .hint("A column that is added is NULL in the rows that are there."));
        }
        columns.push(column.clone());
        lengths.extend(length.map(|length| (name.clone(), length)));
    }
    if columns.is_empty() {
        return Ok(changed);
    }
    let name = alter.name.clone();
    let position = while_wanted(engine, move |engine, given_up| {
        engine.views.add_columns(&name, &columns, &lengths, given_up)
    });
    changed.position = Some(position.await?);
    Ok(changed)
}

pub(crate) async fn create_index(
    engine: &Arc<Inner>,
    create: &CreateIndex,
) -> Result<Changed, SqlError> {
    let catalog = engine.views.catalog();
    let mut changed = Changed::default();
    if catalog.indexes.contains_key(&create.name) {
        let message = format!("relation \"{}\" already exists", create.name);
        if create.if_not_exists {
            changed.notices = vec![message + ", skipping"];
            return Ok(changed);
        }
        return Err(SqlError::new(DUPLICATE_TABLE, message));
    }
    let Some(schema) = catalog.schema_of(&create.on) else {
        return Err(unknown_relation(&create.on, &catalog));
    };
    for name in &create.columns {
        if !schema.columns.iter().any(|column| column.name == *name) {
            let message = format!("column \"{name}\" does not exist");
            return Err(SqlError::new(UNDEFINED_COLUMN, message));
        }
    }
    let (name, on, columns) = (create.name.clone(), create.on.clone(), create.columns.clone());
    let index = IndexDef { name, on, columns };
    let position = blocking(engine, move |engine| engine.views.create_index(index)).await?;
    changed.position = Some(position);
    Ok(changed)
}

async fn drop_index(
    engine: &Arc<Inner>,
    name: &Name,
    if_exists: bool,
    changed: &mut Changed,
) -> Result<(), SqlError> {
    if !engine.views.catalog().indexes.contains_key(name) {
        let message = format!("index \"{name}\" does not exist");
        if if_exists {
            changed.notices.push(message + ", skipping");
            return Ok(());
        }
        return Err(SqlError::new(UNDEFINED_OBJECT, message));
    }
    let name = name.clone();
    let position = blocking(engine, move |engine| engine.views.drop_index(&name)).await?;
    changed.position = Some(position);
    Ok(())
}

async fn replace_view(
    engine: &Arc<Inner>,
    create: &CreateView,
    options: &ViewOptions,
    text: &str,
) -> Result<Changed, SqlError> {
    check_kind(engine, DropKind::View, &create.name, "DROP")?;
    check_options(&engine.views.catalog(), &create.name, options)?;
    view::plan_body(&create.body, text, &engine.views.catalog())?;
    let (name, sql) = (create.name.clone(), create.sql.clone());
    let position = while_wanted(engine, move |engine, given_up| {
        engine.views.replace_view(&name, &sql, given_up)
    });
    Ok(Changed { position: Some(position.await?), ..Changed::default() })
}

/// A view that is replaced keeps its options: a statement may repeat them.
fn check_options(catalog: &Catalog, name: &Name, wanted: &ViewOptions) -> Result<(), SqlError> {
    let Some(view) = catalog.views.get(name) else { return Ok(()) };
    let (turned_on, moved) = (
        wanted.changes && !view.options.changes,
        wanted.start.is_some() && wanted.start != view.options.start,
    );
    if !turned_on && !moved {
        return Ok(());
    }
    let what = if turned_on { "changes = 'on'" } else { "START AT" };
    Err(SqlError::unsupported(format!("{what} for a view that is there already"))
        .hint("DROP the view, then CREATE it with the option."))
}

/// What CREATE OR REPLACE would change.
pub(crate) async fn dry_run(
    engine: &Arc<Inner>,
    create: &CreateView,
    text: &str,
) -> Result<(Position, Vec<Difference>), SqlError> {
    check_kind(engine, DropKind::View, &create.name, "DROP")?;
    view::plan_body(&create.body, text, &engine.views.catalog())?;
    let (name, sql) = (create.name.clone(), create.sql.clone());
    while_wanted(engine, move |engine, given_up| engine.views.dry_run(&name, &sql, given_up)).await
}

pub(crate) async fn rebuild(engine: &Arc<Inner>, names: &[Name]) -> Result<Changed, SqlError> {
    let names = names.to_vec();
    let position =
        while_wanted(engine, move |engine, given_up| engine.views.rebuild_views(&names, given_up));
    Ok(Changed { position: Some(position.await?), ..Changed::default() })
}

pub(crate) async fn pause(engine: &Arc<Inner>, name: &Name) -> Result<Changed, SqlError> {
    let paused = name.clone();
    let position = blocking(engine, move |engine| engine.views.pause_view(&paused)).await?;
    let catalog = engine.views.catalog();
    let outlet = catalog.outlets.get(name).map(|outlet| outlet.describe());
    let what = outlet.unwrap_or_else(|| format!("view \"{name}\""));
    let notices = vec![format!("{what} is paused at position {position}")];
    Ok(Changed { position: None, notices })
}

pub(crate) async fn resume(engine: &Arc<Inner>, name: &Name) -> Result<Changed, SqlError> {
    let name = name.clone();
    let position = blocking(engine, move |engine| engine.views.resume_view(&name)).await?;
    Ok(Changed { position: Some(position), ..Changed::default() })
}

/// As [`blocking`], for work that may take long: it is told when nobody waits for it any more.
pub(crate) async fn while_wanted<T: Send + 'static>(
    engine: &Arc<Inner>,
    work: impl FnOnce(&Inner, &AtomicBool) -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, SqlError> {
    struct GiveUp(Arc<AtomicBool>);
    impl std::ops::Drop for GiveUp {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let given_up = Arc::new(AtomicBool::new(false));
    let _give_up = GiveUp(Arc::clone(&given_up));
    blocking(engine, move |engine| work(engine, &given_up)).await
}

/// Whether a relation or view of the name is there: a notice or an error then.
fn exists(
    engine: &Inner,
    name: &Name,
    allowed: bool,
    changed: &mut Changed,
) -> Result<bool, SqlError> {
    let catalog = engine.views.catalog();
    if !catalog.contains(name) && !catalog.outlets.contains_key(name) {
        return Ok(false);
    }
    let message = format!("relation \"{name}\" already exists");
    if allowed {
        changed.notices = vec![message + ", skipping"];
        return Ok(true);
    }
    Err(SqlError::new(DUPLICATE_TABLE, message))
}

pub(crate) async fn drop(engine: &Arc<Inner>, drop: &Drop) -> Result<Changed, SqlError> {
    let mut changed = Changed::default();
    for name in &drop.names {
        if drop.kind == DropKind::Source {
            let control = engine.sources.as_ref();
            let notices =
                SourceControl::drop(control, &name.name, drop.if_exists, drop.cascade).await?;
            changed.notices.extend(notices);
            changed.position = Some(engine.log.end());
            continue;
        }
        if drop.kind == DropKind::Index {
            drop_index(engine, name, drop.if_exists, &mut changed).await?;
            continue;
        }
        if let Err(error) = check_kind(engine, drop.kind, name, "DROP") {
            if drop.if_exists && matches!(error.sqlstate, UNDEFINED_TABLE | UNDEFINED_OBJECT) {
                changed.notices.push(format!("{}, skipping", error.message));
                continue;
            }
            return Err(error);
        }
        let topic = engine.views.catalog().relations.get(name).map(|r| r.topic.clone());
        let (name, cascade) = (name.clone(), drop.cascade);
        let position = blocking(engine, move |engine| engine.views.drop(&name, cascade)).await?;
        changed.position = Some(position);
        let left = topic.as_ref().filter(|_| !drop.with_topic);
        let left = left.and_then(|topic| engine.log.topic(topic));
        if let Some(left) = left.filter(|topic| engine.records_in(topic) > 0) {
            let topic = &left.name;
            let message = format!("topic \"{topic}\" keeps its records: WITH TOPIC deletes it too");
            changed.notices.push(message);
        }
        if let Some(topic) = topic.filter(|_| drop.with_topic) {
            let delete = move |engine: &Inner| Ok(engine.log.delete_topic(&topic)?);
            changed.position = Some(blocking(engine, delete).await?);
        }
    }
    Ok(changed)
}

fn check_kind(engine: &Inner, kind: DropKind, name: &Name, verb: &str) -> Result<(), SqlError> {
    if let DropKind::Outlet(kind) = kind {
        return outlets::check(engine, kind, name);
    }
    let catalog = engine.views.catalog();
    if let Some(def) = catalog.outlets.get(name) {
        let (words, right) = (kind.words().to_lowercase(), def.kind.noun().to_uppercase());
        return Err(SqlError::new(WRONG_OBJECT_TYPE, format!("\"{name}\" is not a {words}"))
            .hint(format!("Use DROP {right}.")));
    }
    let found = match catalog.relation(name) {
        Some(relation) if relation.kind == RelationKind::Stream => DropKind::Stream,
        Some(_) => DropKind::Table,
        None if catalog.views.contains_key(name) => DropKind::View,
        None => return Err(unknown_relation(name, &catalog)),
    };
    if found == kind {
        return Ok(());
    }
    let (words, right) = (kind.words().to_lowercase(), found.words());
    Err(SqlError::new(WRONG_OBJECT_TYPE, format!("\"{name}\" is not a {words}"))
        .hint(format!("Use {verb} {right}.")))
}

/// Runs what waits for the disk on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    engine: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, SqlError> {
    let engine = Arc::clone(engine);
    match tokio::task::spawn_blocking(move || work(&engine)).await {
        Ok(result) => result.map_err(|error| translate::catalog(&error)),
        Err(error) => Err(SqlError::new(INTERNAL_ERROR, format!("{error}"))),
    }
}
