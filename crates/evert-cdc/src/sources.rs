//! All sources of a server: made, dropped, started, stopped and reported.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use evert_log::Log;
use evert_model::Position;
use evert_view::{CatalogError, Views};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::address::{Address, quote_identifier, quote_literal};
use crate::definition::Definition;
use crate::destination::{Destination, Server};
use crate::error::{LinkError, SourceError};
use crate::inspect;
use crate::slot::{self, NewSlot};
use crate::status::{SourceStatus, StatusCell};
use crate::worker::{self, Source};

/// What CREATE SOURCE says.
#[derive(Clone)]
pub struct NewSource {
    /// The source's name, which is also the schema of its relations.
    pub name: String,
    /// The connection string, password included.
    pub url: String,
    /// The publication; `evert_` and the source's name if there is none. Made if it is missing.
    pub publication: Option<String>,
    /// The replication slot; `evert_` and the source's name if there is none.
    pub slot: Option<String>,
    /// The tables as the other server reads their names; none stands for all of the publication,
    /// or for all there are if there is no such publication.
    pub tables: Vec<String>,
}

impl std::fmt::Debug for NewSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connection string may hold a password.
        f.debug_struct("NewSource")
            .field("name", &self.name)
            .field("publication", &self.publication)
            .field("slot", &self.slot)
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

/// The sources of a server. Cheap to clone. Its methods need a multi-threaded Tokio runtime.
#[derive(Clone)]
pub struct Sources(Arc<Inner>);

struct Inner {
    views: Views,
    destination: Arc<dyn Destination>,
    running: Mutex<BTreeMap<String, Running>>,
    /// One statement about sources at a time.
    statement: tokio::sync::Mutex<()>,
}

struct Running {
    status: StatusCell,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Sources {
    /// No source runs before [`Sources::start_all`].
    pub fn new(log: Log, views: Views) -> Self {
        let destination = Arc::new(Server { log, views: views.clone() });
        Self(Arc::new(Inner {
            views,
            destination,
            running: Mutex::default(),
            statement: tokio::sync::Mutex::default(),
        }))
    }

    /// Resumes every source of the catalog.
    pub fn start_all(&self) {
        for (name, source) in &self.0.views.catalog().sources {
            match Definition::of(source) {
                Ok(definition) => self.start(name, definition, None),
                Err(error) => tracing::error!(source = name, %error, "cannot be started"),
            }
        }
    }

    /// Checks the other server, registers the source and its relations, makes publication and
    /// slot, and starts the copy, which goes on after this returns. Gives notices.
    ///
    /// # Errors
    /// Says what is wrong and, by [`SourceError::hint`], the statement that would fix it. Nothing
    /// is left behind then.
    pub async fn create(&self, new: NewSource) -> Result<Vec<String>, SourceError> {
        let _one = self.0.statement.lock().await;
        check_name(&new.name)?;
        if self.0.views.catalog().sources.contains_key(&new.name) {
            return Err(SourceError::Exists(new.name));
        }
        let url = Address::parse(&new.url)?;
        let client = url.connect("evert").await?;
        let (mut definition, notices) =
            define(&client, url, &new, self.0.destination.end()).await?;
        self.check_relations(&new.name, &definition)?;
        definition.publication_is_ours =
            inspect::ensure_publication(&client, &definition.publication, &definition.tables)
                .await?;
        match self.register(&new.name, &definition).await {
            Ok(slot) => {
                self.start(&new.name, definition, Some(slot));
                Ok(notices)
            }
            Err(error) => {
                self.unregister(&new.name, &definition, &client).await;
                Err(error)
            }
        }
    }

    /// Drops a source with its relations, its slot and the publication that was made for it, and
    /// with `cascade` the views that read the relations. Topics stay. Gives notices.
    ///
    /// # Errors
    /// When there is none, or views read its relations: the source then runs on. If the other
    /// server cannot be reached the source is dropped all the same, and a notice says what is left
    /// to do there.
    pub async fn drop(&self, name: &str, cascade: bool) -> Result<Vec<String>, SourceError> {
        let _one = self.0.statement.lock().await;
        let catalog = self.0.views.catalog();
        let Some(source) = catalog.sources.get(name) else {
            return Err(SourceError::Unknown(name.to_owned()));
        };
        let definition = Definition::of(source)?;
        let running = self.0.running.lock().expect("no holder panics").remove(name);
        if let Some(running) = running {
            running.halt().await;
        }
        let views = self.0.views.clone();
        let source = name.to_owned();
        let dropped = worker::blocking(move || views.drop_source(&source, cascade)).await;
        if let Err(error) = dropped.map_err(|_| SourceError::Stopping)? {
            self.start(name, definition, None);
            return Err(error.into());
        }
        let mut notices = Vec::new();
        if let Err(error) = clean_up(&definition).await {
            notices.push(format!(
                "the source's server could not be cleaned up ({error}): run there SELECT \
                 pg_drop_replication_slot({}), or it keeps its write-ahead log for ever",
                quote_literal(&definition.slot)
            ));
        }
        Ok(notices)
    }

    /// Every source as it stands, by name.
    pub fn status(&self) -> Vec<SourceStatus> {
        let running = self.0.running.lock().expect("no holder panics");
        running.values().map(|running| running.status.get()).collect()
    }

    /// Stops all sources. What they have appended and not confirmed comes again at the next
    /// start, and is recognised.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.0.running.lock().expect("no holder panics"));
        for (_, running) in running {
            running.halt().await;
        }
    }

    fn start(&self, name: &str, definition: Definition, slot: Option<NewSlot>) {
        let status = StatusCell::new(name, &definition);
        let (stop, stopped) = watch::channel(false);
        let source = Source {
            name: name.to_owned(),
            definition,
            destination: Arc::clone(&self.0.destination),
            status: status.clone(),
            #[cfg(test)]
            confirms_early: false,
        };
        let task = tokio::spawn(worker::run(source, slot, stopped));
        let mut running = self.0.running.lock().expect("no holder panics");
        running.insert(name.to_owned(), Running { status, stop, task });
    }

    /// Refuses tables whose relations would collide with others or among themselves.
    fn check_relations(&self, source: &str, definition: &Definition) -> Result<(), SourceError> {
        let catalog = self.0.views.catalog();
        let mut topics = Vec::new();
        for table in &definition.tables {
            let name = table.relation(source);
            if definition.tables.iter().filter(|other| other.name == table.name).count() > 1 {
                return Err(SourceError::invalid(format!(
                    "several tables would become relation \"{name}\": name one of them by TABLES"
                )));
            }
            if catalog.relations.contains_key(&name) || catalog.views.contains_key(&name) {
                return Err(SourceError::Catalog(CatalogError::Exists(name)));
            }
            let topic = table.topic(source);
            if topics.contains(&topic) {
                return Err(SourceError::invalid(format!(
                    "several tables would be kept in topic \"{topic}\""
                )));
            }
            topics.push(topic);
        }
        Ok(())
    }

    /// Puts the source into the catalog, then makes its relations and its slot: after a crash in
    /// between, the next start makes what is missing.
    async fn register(&self, name: &str, definition: &Definition) -> Result<NewSlot, SourceError> {
        let views = self.0.views.clone();
        let destination = Arc::clone(&self.0.destination);
        let (source, def) = (name.to_owned(), definition.clone());
        let registered = worker::blocking(move || {
            views.create_source(def.to_source(&source))?;
            for table in &def.tables {
                destination.ensure_topic(&source, table)?;
            }
            Ok::<_, SourceError>(())
        });
        registered.await.map_err(|_| SourceError::Stopping)??;
        slot::create(definition).await
    }

    /// Takes back what `register` has done. What fails here is only reported: the statement has
    /// failed already.
    async fn unregister(&self, name: &str, definition: &Definition, client: &Client) {
        if let Err(error) = clean_up_with(client, definition).await {
            tracing::warn!(source = name, %error, "could not be taken back at the source");
        }
        let views = self.0.views.clone();
        let source = name.to_owned();
        let undone =
            worker::blocking(move || match views.catalog().sources.contains_key(&source) {
                true => views.drop_source(&source, true).map(|_| ()),
                false => Ok(()),
            });
        if let Ok(Err(error)) = undone.await {
            tracing::warn!(source = name, %error, "could not be taken back in the catalog");
        }
    }
}

/// Checks the other server and says what a source made there now would be. The publication is
/// not made yet.
pub(crate) async fn define(
    client: &Client,
    url: Address,
    new: &NewSource,
    born: Position,
) -> Result<(Definition, Vec<String>), SourceError> {
    let default_name = default_name(&new.name);
    let publication = new.publication.clone().unwrap_or_else(|| default_name.clone());
    let slot = new.slot.clone().unwrap_or(default_name);
    inspect::check_server(client).await?;
    inspect::check_slot_is_free(client, &slot).await?;
    let mut notices = Vec::new();
    let mut tables = Vec::new();
    for found in inspect::tables(client, &new.tables, new.publication.as_deref()).await? {
        notices.extend(found.notices);
        tables.push(found.table);
    }
    let definition = Definition {
        born,
        url,
        publication,
        publication_is_ours: false,
        slot,
        tables,
        warnings: notices.clone(),
    };
    Ok((definition, notices))
}

impl Running {
    async fn halt(self) {
        // The task may have ended by itself, which is as good.
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

async fn clean_up(definition: &Definition) -> Result<(), SourceError> {
    let client = definition.url.connect("evert").await?;
    clean_up_with(&client, definition).await?;
    Ok(())
}

/// Drops the slot, and the publication if it was made for the source.
async fn clean_up_with(client: &Client, definition: &Definition) -> Result<(), LinkError> {
    slot::drop_slot(client, &definition.slot).await?;
    if definition.publication_is_ours {
        let publication = quote_identifier(&definition.publication);
        client.batch_execute(&format!("DROP PUBLICATION IF EXISTS {publication}")).await?;
    }
    Ok(())
}

/// `evert_` and the name, as a slot may be called.
fn default_name(source: &str) -> String {
    let legal = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '_',
    };
    // Postgres cuts names after 63 bytes.
    format!("evert_{source}").chars().map(legal).take(63).collect()
}

fn check_name(name: &str) -> Result<(), SourceError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.len() > 63 || !name.chars().all(legal) {
        return Err(SourceError::invalid(format!(
            "\"{name}\" is not a source's name: up to 63 letters, digits and _"
        )));
    }
    if ["public", "evert", "information_schema", "pg_catalog"].contains(&name) {
        return Err(SourceError::invalid(format!("\"{name}\" is the name of a schema")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sources() {
        assert_eq!(default_name("Shop"), "evert_shop");
        assert_eq!(default_name(&"x".repeat(80)).len(), 63);
        assert!(check_name("shop_1").is_ok());
        for bad in ["", "a.b", "public", "evert", "a b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_new_source_does_not_show_its_password() {
        let new = NewSource {
            name: "shop".into(),
            url: "postgres://u:s3cret@h/d".into(),
            publication: None,
            slot: None,
            tables: vec![],
        };
        assert!(!format!("{new:?}").contains("s3cret"));
    }
}
