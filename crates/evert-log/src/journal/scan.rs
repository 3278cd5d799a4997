//! Reading the journal after a stop: what is kept, what is a tail, what is damage.
//!
//! Groups are read from the checkpoint's place on. The first bad frame ends the journal if no
//! group after it claims more: a group's mark says up to where the journal was durable before
//! it, so a bad frame below a later mark is damage to what may have been acknowledged.

use std::path::Path;

use evert_env::{Files, OpenMode};

use super::frame::{Header, Place, largest_mark};
use super::{JournalCommit, file_path};
use crate::OpenError;

/// One good group.
pub(crate) struct Group {
    pub(crate) commits: Vec<JournalCommit>,
    /// Where it ends.
    pub(crate) end: Place,
}

/// Hands every good group from `start` on to `each`. `cut_always` takes every bad frame for a
/// tail: a planted fault.
pub(crate) fn scan(
    files: &dyn Files,
    dir: &Path,
    start: Place,
    cut_always: bool,
    mut each: impl FnMut(Group) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let Some(mut bytes) = read_file(files, dir, start.generation)? else {
        return missing_file(files, dir, start);
    };
    let mut at = start;
    loop {
        at = scan_file(&bytes, dir, at, &mut each)?;
        if cut_always {
            return Ok(());
        }
        let path = file_path(dir, at.generation);
        if largest_mark(&bytes, at).is_some_and(|mark| mark > at) {
            return Err(OpenError::damaged(&path, at.byte, "a journal group below a durable mark"));
        }
        let next = Place { generation: at.generation + 1, byte: 0 };
        let Some(next_bytes) = read_file(files, dir, next.generation)? else { return Ok(()) };
        match Header::read(&next_bytes, next).map(|first| first.mark) {
            Some(mark) if mark == at => {}
            Some(mark) if mark > at => {
                return Err(OpenError::damaged(
                    &path,
                    at.byte,
                    "a journal group below a durable mark",
                ));
            }
            Some(_) => {
                let path = file_path(dir, next.generation);
                return Err(OpenError::damaged(
                    &path,
                    0,
                    "a journal group with an impossible mark",
                ));
            }
            None if largest_mark(&next_bytes, next).is_some() => {
                let path = file_path(dir, next.generation);
                return Err(OpenError::damaged(&path, 0, "a journal group below a durable mark"));
            }
            None => return Ok(()),
        }
        bytes = next_bytes;
        at = next;
    }
}

/// Reads good groups of one file and says where the first bad one begins.
fn scan_file(
    bytes: &[u8],
    dir: &Path,
    start: Place,
    each: &mut impl FnMut(Group) -> Result<(), OpenError>,
) -> Result<Place, OpenError> {
    let mut at = start;
    while let Some(header) = Header::read(bytes, at) {
        let Some(mut payload) = header.payload(bytes) else { break };
        let mut commits = Vec::new();
        while !payload.is_empty() {
            // The CRC is good, so these bytes are as written: another program's, or a fault.
            let Some(commit) = JournalCommit::decode(&mut payload) else {
                let path = file_path(dir, at.generation);
                return Err(OpenError::damaged(
                    &path,
                    at.byte,
                    "a journal group of unknown content",
                ));
            };
            commits.push(commit);
        }
        each(Group { commits, end: header.end() })?;
        at = header.end();
    }
    Ok(at)
}

/// A checkpoint may name a file that was to be written next. One that was written cannot be
/// missing: neither its rest nor a file after it may exist then.
fn missing_file(files: &dyn Files, dir: &Path, start: Place) -> Result<(), OpenError> {
    let path = file_path(dir, start.generation);
    let next = file_path(dir, start.generation + 1);
    if start.byte > 0 || files.exists(&next).map_err(OpenError::io(&next))? {
        return Err(OpenError::damaged(&path, start.byte, "a journal file is missing"));
    }
    Ok(())
}

fn read_file(files: &dyn Files, dir: &Path, generation: u64) -> Result<Option<Vec<u8>>, OpenError> {
    let path = file_path(dir, generation);
    if !files.exists(&path).map_err(OpenError::io(&path))? {
        return Ok(None);
    }
    let file = files.open(&path, OpenMode::Read).map_err(OpenError::io(&path))?;
    let length = file.len().map_err(OpenError::io(&path))?;
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).map_err(OpenError::io(&path))?;
    Ok(Some(bytes))
}
