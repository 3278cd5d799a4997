//! The keyspace: all rows of all relations and views that have a key.
//!
//! Owns: `SCAN`, `KEYS`, `DBSIZE` and what is asked about single keys.
//!
//! A scan walks views by name and rows by key. A key that is there from a scan's beginning to its
//! end is given exactly once, whatever changes meanwhile.

use evert_view::{Name, Snapshot};

use super::commands::Answer;
use super::cursors::{Cursors, Place};
use super::glob;
use super::hash::{exists, syntax, too_large};
use super::key;
use super::layout::Layout;
use super::reader::{Miss, Reader};
use super::reply::{Out, REPLY_BYTES_MAX};
use super::request::{Request, integer};

/// Keys that one `SCAN` looks at if it does not say, and at most.
const COUNT: usize = 10;
const COUNT_MAX: usize = 5_000;

pub(super) fn exists_all(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let mut count = 0;
    for key in request.from(1) {
        count += i64::from(exists(reader, key)?);
    }
    out.integer(count);
    Ok(())
}

pub(super) fn type_of(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    out.simple(if exists(reader, request.get(1))? { "hash" } else { "none" });
    Ok(())
}

/// `TTL`, `PTTL` and their like: a row has no end that is known before.
pub(super) fn ttl(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    out.integer(if exists(reader, request.get(1))? { -1 } else { -2 });
    Ok(())
}

pub(super) fn object(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let what = request.get(1);
    if request.len() != 3 {
        return Err(syntax());
    }
    if !exists(reader, request.get(2))? {
        out.null();
    } else if what.eq_ignore_ascii_case(b"ENCODING") {
        out.bulk(b"listpack");
    } else if what.eq_ignore_ascii_case(b"REFCOUNT") {
        out.integer(1);
    } else if what.eq_ignore_ascii_case(b"IDLETIME") || what.eq_ignore_ascii_case(b"FREQ") {
        out.integer(0);
    } else {
        return Err(syntax());
    }
    Ok(())
}

pub(super) fn dbsize(reader: &mut Reader, _: Request<'_>, out: &mut Out) -> Answer {
    if !reader.is_ready() {
        return Err(Miss::NotReady);
    }
    out.integer(reader.keyed().iter().map(|(_, snapshot)| snapshot.len()).sum::<usize>() as i64);
    Ok(())
}

/// What a `SCAN` asks for.
struct Scan<'a> {
    pattern: Option<&'a [u8]>,
    count: usize,
    /// Of keys of another type there are none.
    hashes: bool,
}

impl<'a> Scan<'a> {
    fn read(request: Request<'a>) -> Result<Self, Miss> {
        let mut scan = Self { pattern: None, count: COUNT, hashes: true };
        let mut options = request.from(2);
        while let Some(option) = options.next() {
            let value = options.next().ok_or_else(syntax)?;
            if option.eq_ignore_ascii_case(b"MATCH") {
                scan.pattern = Some(value);
            } else if option.eq_ignore_ascii_case(b"COUNT") {
                let count = integer(value).filter(|count| *count > 0).ok_or_else(syntax)?;
                scan.count = usize::try_from(count).unwrap_or(COUNT_MAX).min(COUNT_MAX);
            } else if option.eq_ignore_ascii_case(b"TYPE") {
                scan.hashes = value.eq_ignore_ascii_case(b"hash");
            } else {
                return Err(syntax());
            }
        }
        Ok(scan)
    }
}

pub(super) fn scan(
    cursors: &Cursors,
    reader: &mut Reader,
    request: Request<'_>,
    out: &mut Out,
) -> Answer {
    let scan = Scan::read(request)?;
    let invalid = || Miss::Error("ERR invalid cursor".to_owned());
    let begin = match integer(request.get(1)).ok_or_else(invalid)? {
        0 => None,
        cursor => {
            let place = u64::try_from(cursor).ok().and_then(|cursor| cursors.place(cursor));
            let forgotten = || {
                let what = "was given too long ago, or by another server: begin again with 0";
                Miss::Error(format!("ERR invalid cursor: {cursor} {what}"))
            };
            Some(place.ok_or_else(forgotten)?)
        }
    };
    if !reader.is_ready() {
        return Err(Miss::NotReady);
    }
    check_named(reader, scan.pattern)?;
    let mut keys = Vec::new();
    let mut next = None;
    if scan.hashes {
        let rows = reader.keyed();
        next = walk(
            &rows,
            begin,
            scan.count,
            |layout, snapshot, after, count| {
                take(layout, snapshot, after, count, scan.pattern, &mut keys)
            },
            scan.pattern,
        );
    }
    let cursor = next.map_or(0, |place| cursors.keep(place));
    out.array(2);
    out.bulk(cursor.to_string().as_bytes());
    out.array(keys.len());
    keys.iter().for_each(|key| out.bulk(key));
    Ok(())
}

/// A pattern that names a view is not answered before the view has rows to tell of.
pub(super) fn check_named(reader: &mut Reader, pattern: Option<&[u8]>) -> Result<(), Miss> {
    let (literal, _) = glob::literal_prefix(pattern.unwrap_or_default());
    let named = key::unescaped(&literal, b':').and_then(|_| key::name(key::split(&literal).0));
    match named.filter(|name| reader.is_to_come(name)) {
        Some(name) => Err(Miss::Error(format!("LOADING \"{name}\" is being built"))),
        None => Ok(()),
    }
}

/// Looks at up to `count` keys from a place on, view by view; gives the place to go on from.
fn walk(
    rows: &[(Name, Snapshot)],
    begin: Option<Place>,
    count: usize,
    mut take: impl FnMut(&Layout, &Snapshot, Option<&[u8]>, usize) -> (usize, Option<Vec<u8>>),
    pattern: Option<&[u8]>,
) -> Option<Place> {
    let mut left = count;
    let first =
        begin.as_ref().map_or(0, |place| rows.partition_point(|(name, _)| *name < place.name));
    for (name, snapshot) in &rows[first..] {
        let Some(layout) = Layout::new(name.clone(), snapshot) else { continue };
        if pattern.is_some_and(|pattern| !may_match(pattern, layout.prefix())) {
            continue;
        }
        if left == 0 {
            return Some(Place { name: name.clone(), after: None });
        }
        let after = begin.as_ref().filter(|place| place.name == *name);
        let after = after.and_then(|place| place.after.as_deref());
        let (looked, last) = take(&layout, snapshot, after, left);
        left -= looked.min(left);
        if let (0, Some(last)) = (left, last) {
            return Some(Place { name: name.clone(), after: Some(last) });
        }
    }
    None
}

/// Adds the keys of up to `count` rows that match; gives how many were looked at, and the last.
fn take(
    layout: &Layout,
    snapshot: &Snapshot,
    after: Option<&[u8]>,
    count: usize,
    pattern: Option<&[u8]>,
    keys: &mut Vec<Vec<u8>>,
) -> (usize, Option<Vec<u8>>) {
    // A pattern without wildcards is looked up.
    if let Some((exact, true)) = pattern.map(glob::literal_prefix) {
        let rest = &exact[layout.prefix().len()..];
        if layout.find(snapshot, rest, &mut Vec::new()).is_some() {
            keys.push(exact);
        }
        return (1, None);
    }
    let found = snapshot.rows_after(after, count);
    for row in &found {
        let mut key = Vec::new();
        layout.write_key(row.rows, row.row, &mut key);
        if pattern.is_none_or(|pattern| glob::matches(pattern, &key)) {
            keys.push(key);
        }
    }
    (found.len(), found.last().map(|row| row.key.to_vec()))
}

/// Whether a pattern may match a text that begins like this.
pub(super) fn may_match(pattern: &[u8], prefix: &[u8]) -> bool {
    let (literal, whole) = glob::literal_prefix(pattern);
    literal.starts_with(prefix) || (!whole && prefix.starts_with(&literal))
}

/// All keys that match, as one reply. Takes as long as it takes: not for a thread that serves
/// others.
pub(super) fn keys(rows: &[(Name, Snapshot)], pattern: &[u8], out: &mut Out) -> Result<(), Miss> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for (name, snapshot) in rows {
        let Some(layout) = Layout::new(name.clone(), snapshot) else { continue };
        if !may_match(pattern, layout.prefix()) {
            continue;
        }
        if glob::literal_prefix(pattern).1 {
            take(&layout, snapshot, None, 1, Some(pattern), &mut found);
            continue;
        }
        for batch in snapshot.scan(Some(layout.key())) {
            for row in 0..batch.num_rows() {
                let mut key = Vec::new();
                layout.write_projected_key(&batch, row, &mut key);
                if glob::matches(pattern, &key) {
                    bytes += key.len() + 16;
                    found.push(key);
                }
                if bytes > REPLY_BYTES_MAX {
                    return Err(too_large());
                }
            }
        }
    }
    out.array(found.len());
    found.iter().for_each(|key| out.bulk(key));
    Ok(())
}

/// Any key; null if there are none.
pub(super) fn random_key(reader: &mut Reader, _: Request<'_>, out: &mut Out) -> Answer {
    if !reader.is_ready() {
        return Err(Miss::NotReady);
    }
    for (name, snapshot) in reader.keyed() {
        let Some(layout) = Layout::new(name, &snapshot) else { continue };
        if let Some(row) = snapshot.rows_after(None, 1).first() {
            let mut key = Vec::new();
            layout.write_key(row.rows, row.row, &mut key);
            out.bulk(&key);
            return Ok(());
        }
    }
    out.null();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_choose_views() {
        assert!(may_match(b"*", b"v:"));
        assert!(may_match(b"v:*", b"v:"));
        assert!(may_match(b"v:a*", b"v:"));
        assert!(may_match(b"v*", b"view:"));
        assert!(may_match(b"v:a", b"v:"));
        assert!(!may_match(b"w:*", b"v:"));
        assert!(!may_match(b"v", b"v:"), "a key has a colon");
        assert!(!may_match(b"v:*", b"view:"));
    }
}
