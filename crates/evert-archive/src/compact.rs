//! Small files merged into larger ones.
//!
//! Owns: which files ([`choose`], a pure function), and the merging.
//!
//! Invariants
//! - Rows stay the same, in the order of the log; the table's position stays where it is.

use std::collections::BTreeMap;

use iceberg::spec::{Datum, Literal, PrimitiveLiteral};

use crate::commit::Change;
use crate::datafile;
use crate::days::Day;
use crate::error::Result;
use crate::manifest::LiveFile;
use crate::table::Table;

/// So many small files of a day are worth merging.
const FILES_MIN: usize = 8;
/// So many are merged at a time.
const FILES_MAX: usize = 64;

/// A file as far as merging cares.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    url: String,
    day: Day,
    bytes: u64,
    /// Of its first row.
    position: i64,
}

/// The files to merge next, oldest first: neighbours of one day, small, and together no larger
/// than a file should be.
fn choose(mut files: Vec<Candidate>, file_size_bytes: u64) -> Option<Vec<Candidate>> {
    files.retain(|file| file.bytes < file_size_bytes / 2);
    files.sort_by(|a, b| (a.position, &a.url).cmp(&(b.position, &b.url)));
    let mut by_day: BTreeMap<Day, Vec<Candidate>> = BTreeMap::new();
    for file in files {
        by_day.entry(file.day).or_default().push(file);
    }
    let groups = by_day.into_values().filter_map(|files| {
        let mut bytes = 0;
        let fits = files.into_iter().take(FILES_MAX).take_while(|file| {
            bytes += file.bytes;
            bytes <= file_size_bytes
        });
        let group: Vec<_> = fits.collect();
        (group.len() >= FILES_MIN).then_some(group)
    });
    groups.max_by_key(Vec::len)
}

/// Merges some files of a table, if some are worth it; says whether it has.
pub(crate) async fn compact(table: &mut Table, file_size_bytes: u64, now_ms: i64) -> Result<bool> {
    let field = table.shape().iceberg.field_id_by_name("evert_position").unwrap_or_default();
    let candidates = table.files().iter().map(|live| candidate(live, field)).collect();
    let Some(chosen) = choose(candidates, file_size_bytes) else { return Ok(false) };
    let mut batches = Vec::new();
    for file in &chosen {
        let reader = datafile::read(&file.url, table.read_file(&file.url).await?)?;
        batches.push((file.url.clone(), reader));
    }
    let day = chosen[0].day;
    let url = table.new_file_url(day);
    let shape = table.shape().clone();
    let rows = batches.into_iter().flat_map(|(url, reader)| {
        reader.map(move |batch| batch.map_err(|error| crate::ArchiveError::damaged(&url, error)))
    });
    let rows = rows.map(|batch| shape.convert(&batch?));
    let (bytes, file) = datafile::make(&shape, rows, &url, day, table.spec().spec_id()).await?;
    table.store().put(table.name_of(&url)?, bytes).await?;
    let merged = chosen.into_iter().map(|file| file.url).collect();
    let change = Change { added: vec![file], merged, schema: None };
    let mark = table.mark().clone();
    table.commit(change, mark, now_ms).await?;
    Ok(true)
}

fn candidate(live: &LiveFile, position_field: i32) -> Candidate {
    let first = live.file.lower_bounds().get(&position_field).map(Datum::literal);
    let position = match first {
        Some(PrimitiveLiteral::Long(position)) => *position,
        _ => 0,
    };
    let day = match live.file.partition().fields() {
        [Some(Literal::Primitive(PrimitiveLiteral::Int(day)))] => Some(*day),
        _ => None,
    };
    Candidate {
        url: live.file.file_path().to_owned(),
        day,
        bytes: live.file.file_size_in_bytes(),
        position,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(day: Day, count: i64, bytes: u64) -> Vec<Candidate> {
        let file = |position| Candidate { url: format!("{position}"), day, bytes, position };
        (0..count).map(file).collect()
    }

    fn positions(chosen: Option<Vec<Candidate>>) -> Vec<i64> {
        chosen.into_iter().flatten().map(|file| file.position).collect()
    }

    #[test]
    fn enough_small_neighbours_of_one_day() {
        assert_eq!(choose(files(Some(1), 7, 10), 100), None, "too few");
        let chosen = choose([files(Some(1), 7, 10), files(Some(2), 8, 10)].concat(), 100);
        assert_eq!(chosen.as_ref().map(|files| files[0].day), Some(Some(2)));
        assert_eq!(choose(files(None, 20, 50), 100), None, "large enough as they are");
        let mut shuffled = files(Some(1), 20, 10);
        shuffled.reverse();
        assert_eq!(positions(choose(shuffled, 100)), (0..10).collect::<Vec<_>>(), "oldest first");
    }
}
