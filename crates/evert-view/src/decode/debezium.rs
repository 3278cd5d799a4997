//! Debezium's change envelope in JSON, as `evert-cdc` writes it.
//!
//! `op` is `r` (read by the initial copy), `c`, `u`, `d` or `t` (truncate); `before` and `after`
//! are row images. The members `source` and `ts_ms` are not columns.
//! Source: Debezium's connector documentation, "Change event values".

use evert_model::Record;

use super::row::for_each_member;
use super::{Decoder, utf8};
use crate::catalog::RelationKind;

/// The members that matter, as written.
#[derive(Default)]
struct Envelope<'a> {
    op: Option<&'a str>,
    before: Option<&'a str>,
    after: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    fn read(value: &'a str) -> Result<Self, String> {
        let mut envelope = Self::default();
        for_each_member(value, |name, raw| {
            match name {
                "op" => envelope.op = Some(raw),
                "before" => envelope.before = Some(raw).filter(|raw| *raw != "null"),
                "after" => envelope.after = Some(raw).filter(|raw| *raw != "null"),
                _ => {}
            }
            Ok(())
        })?;
        Ok(envelope)
    }
}

pub(super) fn push(decoder: &mut Decoder, record: &Record<'_>) -> Result<(), String> {
    let Some(value) = record.value else {
        // Debezium follows a deletion with a tombstone for compaction; the deletion was enough.
        return Ok(());
    };
    let envelope = Envelope::read(utf8(value)?)?;
    let op = envelope.op.ok_or("the envelope has no \"op\"")?;
    let needed = |image: Option<&_>, name| {
        image.is_some().then_some(()).ok_or(format!("op {op} has no \"{name}\" image"))
    };
    match op {
        "\"t\"" => {
            decoder.truncate();
            return Ok(());
        }
        "\"r\"" | "\"c\"" => needed(envelope.after.as_ref(), "after")?,
        "\"u\"" => needed(envelope.after.as_ref(), "after")?,
        "\"d\"" => needed(envelope.before.as_ref(), "before")?,
        other => return Err(format!("the envelope's op {other} is not known")),
    }
    match decoder.kind {
        RelationKind::Table => push_table(decoder, &envelope),
        RelationKind::Bag => push_bag(decoder, op, &envelope),
        RelationKind::Stream => {
            let after = envelope.after.ok_or("a stream takes inserts only")?;
            let row = decoder.reader.read(after)?;
            decoder.put(&row);
            Ok(())
        }
    }
}

fn push_table(decoder: &mut Decoder, envelope: &Envelope<'_>) -> Result<(), String> {
    let before = envelope.before.map(|before| decoder.reader.read_key(before)).transpose()?;
    let Some(after) = envelope.after else {
        // The caller made sure that one of the images is there.
        decoder.delete(&before.unwrap_or_default());
        return Ok(());
    };
    let key = decoder.reader.read_key(after)?;
    let old_key = before.filter(|before| *before != key);
    let row = decoder.reader.read(after);
    if let Some(old_key) = old_key {
        decoder.delete(&old_key);
    }
    match row {
        Ok(row) => {
            decoder.put(&row);
            Ok(())
        }
        Err(why) => {
            decoder.delete(&key);
            Err(why)
        }
    }
}

fn push_bag(decoder: &mut Decoder, op: &str, envelope: &Envelope<'_>) -> Result<(), String> {
    if op == "\"u\"" && envelope.before.is_none() {
        return Err("an update without a \"before\" image: the table has no key".into());
    }
    let before = envelope.before.map(|before| decoder.reader.read(before)).transpose()?;
    let after = envelope.after.map(|after| decoder.reader.read(after)).transpose()?;
    if let Some(before) = before {
        decoder.retract(&before);
    }
    if let Some(after) = after {
        decoder.put(&after);
    }
    Ok(())
}
