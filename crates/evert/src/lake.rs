//! Archives, as the SQL engine and the HTTP door want to see them.

use std::path::PathBuf;

use evert_archive::Archives;
use evert_door::http::{Lake, LakeTable};
use evert_env::Env;
use evert_sql::{ArchiveRows, ArchiveSource};
use evert_view::{Name, Views};

/// The archives of a server's relations.
pub(crate) fn archives(env: Env, views: &Views, root: PathBuf) -> Archives {
    let (log, views) = (views.log().clone(), views.clone());
    Archives::new(env, log, root, move |name| views.catalog().relations.get(name).cloned())
}

/// What reads archives.
pub(crate) struct Readers(pub(crate) Archives);

impl ArchiveSource for Readers {
    fn archive(&self, name: &Name) -> Option<ArchiveRows> {
        let table = self.0.table(name)?;
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
        self.0.names().into_iter().map(|name| (name.schema, name.name)).collect()
    }

    fn table(&self, namespace: &str, name: &str) -> Option<LakeTable> {
        let table = self.0.table(&Name::new(namespace, name))?;
        Some(LakeTable {
            metadata_url: table.metadata_url,
            metadata: serde_json::to_value(&*table.metadata).ok()?,
            position: table.position,
        })
    }
}
