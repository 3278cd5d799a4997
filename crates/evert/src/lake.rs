//! Archives, as the SQL engine and the HTTP door want to see them.

use std::path::PathBuf;

use evert_archive::Archives;
use evert_door::http::{Lake, LakeTable, NoLakeTable};
use evert_env::Env;
use evert_sql::{ArchiveRows, ArchiveSource};
use evert_view::{Name, OutletKind, Views};

/// The archives of a server's relations.
pub(crate) fn archives(env: Env, views: &Views, root: PathBuf) -> Archives {
    let (log, views) = (views.log().clone(), views.clone());
    Archives::new(env, log, root, move |name| views.catalog().relations.get(name).cloned())
}

/// What reads archives.
pub(crate) struct Readers {
    pub(crate) archives: Archives,
    /// Says which archives there are, opened or not.
    pub(crate) views: Views,
}

impl ArchiveSource for Readers {
    fn archive(&self, name: &Name) -> Option<ArchiveRows> {
        let table = self.archives.table(name)?;
        let files = table.files.iter().map(|file| (file.url.clone(), file.bytes));
        Some(ArchiveRows {
            position: table.position,
            files: files.collect(),
            objects: table.objects.clone(),
        })
    }
}

impl Lake for Readers {
    fn tables(&self) -> Vec<(String, String)> {
        let catalog = self.views.catalog();
        let archives = catalog.outlets.values().filter(|def| def.kind == OutletKind::Archive);
        archives.map(|def| (def.name.schema.clone(), def.name.name.clone())).collect()
    }

    fn table(&self, namespace: &str, name: &str) -> Result<LakeTable, NoLakeTable> {
        let name = Name::new(namespace, name);
        let catalog = self.views.catalog();
        if catalog.outlets.get(&name).is_none_or(|def| def.kind != OutletKind::Archive) {
            return Err(NoLakeTable::Unknown);
        }
        let Some(table) = self.archives.table(&name) else {
            let status = self.views.status().into_iter().find(|status| status.name == name);
            let state = status.map_or_else(String::new, |status| status.state.to_string());
            return Err(NoLakeTable::NotOpen { state });
        };
        let metadata = serde_json::to_value(&*table.metadata);
        Ok(LakeTable {
            metadata_url: table.metadata_url,
            metadata: metadata
                .map_err(|error| NoLakeTable::NotOpen { state: error.to_string() })?,
            position: table.position,
        })
    }
}
