//! Hashes: a row is a hash, its columns the fields.
//!
//! NULL is a field that is not there.

use super::commands::Answer;
use super::glob;
use super::reader::{Miss, Reader};
use super::reply::{Out, REPLY_BYTES_MAX};
use super::request::{Request, integer};

/// What is said where a type does not fit.
pub(super) const WRONG_TYPE: &str =
    "WRONGTYPE Operation against a key holding the wrong kind of value: a row is a hash";

pub(super) fn hgetall(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let (layout, found) = reader.find(request.get(1))?;
    let Some(found) = found else {
        out.map(0);
        return Ok(());
    };
    out.map(layout.present(found).count());
    for column in layout.present(found) {
        layout.write_label(column, out);
        layout.write_value(column, found, out);
    }
    Ok(())
}

pub(super) fn hget(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let (layout, found) = reader.find(request.get(1))?;
    match found.zip(layout.field(request.get(2))) {
        Some((found, column)) => layout.write_value(column, found, out),
        None => out.null(),
    }
    Ok(())
}

pub(super) fn hmget(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let (layout, found) = reader.find(request.get(1))?;
    let start = out.bytes.len();
    out.array(request.len() - 2);
    for field in request.from(2) {
        match found.zip(layout.field(field)) {
            Some((found, column)) => layout.write_value(column, found, out),
            None => out.null(),
        }
        if out.bytes.len() - start > REPLY_BYTES_MAX {
            return Err(too_large());
        }
    }
    Ok(())
}

pub(super) fn hlen(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let (layout, found) = reader.find(request.get(1))?;
    out.integer(found.map_or(0, |found| layout.present(found).count()) as i64);
    Ok(())
}

pub(super) fn hkeys(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let (layout, found) = reader.find(request.get(1))?;
    let Some(found) = found else {
        out.array(0);
        return Ok(());
    };
    out.array(layout.present(found).count());
    layout.present(found).for_each(|column| layout.write_label(column, out));
    Ok(())
}

pub(super) fn hvals(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let (layout, found) = reader.find(request.get(1))?;
    let Some(found) = found else {
        out.array(0);
        return Ok(());
    };
    out.array(layout.present(found).count());
    layout.present(found).for_each(|column| layout.write_value(column, found, out));
    Ok(())
}

pub(super) fn hexists(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let (layout, found) = reader.find(request.get(1))?;
    let column = layout.field(request.get(2));
    let exists = found
        .zip(column)
        .is_some_and(|(found, column)| layout.present(found).any(|present| present == column));
    out.integer(i64::from(exists));
    Ok(())
}

/// The length of a field's value, in bytes.
pub(super) fn hstrlen(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let (layout, found) = reader.find(request.get(1))?;
    let column = layout.field(request.get(2));
    let length = found.zip(column).map_or(0, |(found, column)| layout.text_bytes(column, found));
    out.integer(length as i64);
    Ok(())
}

/// All fields at once, however few were asked for: a row is small.
pub(super) fn hscan(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let (mut pattern, mut values) = (None, true);
    let mut options = request.from(3);
    while let Some(option) = options.next() {
        if option.eq_ignore_ascii_case(b"NOVALUES") {
            values = false;
            continue;
        }
        let value = options.next().ok_or_else(syntax)?;
        if option.eq_ignore_ascii_case(b"MATCH") {
            pattern = Some(value);
        } else if !option.eq_ignore_ascii_case(b"COUNT") || integer(value).is_none_or(|n| n < 1) {
            return Err(syntax());
        }
    }
    if integer(request.get(2)).is_none_or(|cursor| cursor < 0) {
        return Err(Miss::Error("ERR invalid cursor".to_owned()));
    }
    let (layout, found) = reader.find(request.get(1))?;
    let wanted = |column: &usize| {
        pattern.is_none_or(|pattern| glob::matches(pattern, &layout.fields[*column].name))
    };
    let columns: Vec<_> =
        found.map_or_else(Vec::new, |found| layout.present(found).filter(wanted).collect());
    out.array(2);
    out.bulk(b"0");
    out.array(columns.len() * if values { 2 } else { 1 });
    for (column, found) in columns.into_iter().zip(std::iter::repeat(found)) {
        layout.write_label(column, out);
        if let Some(found) = found.filter(|_| values) {
            layout.write_value(column, found, out);
        }
    }
    Ok(())
}

/// Commands for what is no hash: right for a key that is not there, WRONGTYPE for a row.
pub(super) fn get(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    match exists(reader, request.get(1))? {
        true => out.error(WRONG_TYPE),
        false => out.null(),
    }
    Ok(())
}

pub(super) fn strlen(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    match exists(reader, request.get(1))? {
        true => out.error(WRONG_TYPE),
        false => out.integer(0),
    }
    Ok(())
}

/// A row is no string: null for each, as Redis says of keys of another type.
pub(super) fn mget(_: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    out.array(request.len() - 1);
    request.from(1).for_each(|_| out.null());
    Ok(())
}

/// Whether there is a row of this key. A relation or view that does not exist has none.
pub(super) fn exists(reader: &mut Reader, key: &[u8]) -> Result<bool, Miss> {
    match reader.find(key) {
        Ok((_, found)) => Ok(found.is_some()),
        Err(Miss::Unknown(_)) => Ok(false),
        Err(miss) => Err(miss),
    }
}

pub(super) fn syntax() -> Miss {
    Miss::Error("ERR syntax error".to_owned())
}

pub(super) fn too_large() -> Miss {
    let mib = REPLY_BYTES_MAX >> 20;
    Miss::Error(format!("ERR the reply would be larger than {mib} MiB"))
}
