//! Topic settings, under Kafka's names.
//!
//! Owns: which settings there are, their defaults, which values are legal, and the typed form
//! that the log acts on. Names are mapped here and nowhere else.

use std::collections::BTreeMap;

use crate::TopicError;

/// One setting as DescribeConfigs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name, or one that begins with `evert.`.
    pub name: &'static str,
    /// The value in force.
    pub value: String,
    /// Whether the topic leaves it at its default.
    pub is_default: bool,
    /// Whether it cannot be set.
    pub read_only: bool,
    /// What it means.
    pub doc: &'static str,
}

/// The settings that the log itself acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) compacted: bool,
    pub(crate) buffered: bool,
    pub(crate) append_time: bool,
    pub(crate) message_bytes_max: usize,
    pub(crate) segment_bytes: u64,
}

struct Setting {
    name: &'static str,
    default: &'static str,
    legal: Legal,
    doc: &'static str,
}

enum Legal {
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// A ratio from 0 to 1.
    Ratio,
    /// One of these.
    One(&'static [&'static str]),
    /// A list of these, separated by commas.
    List(&'static [&'static str]),
    /// Anything.
    Text,
    /// Only its default, for this reason.
    Fixed(&'static str),
}
use Legal::{Fixed, List, Number, One, Ratio, Text};

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const BOOL: Legal = One(&["true", "false"]);

const fn setting(
    name: &'static str,
    default: &'static str,
    legal: Legal,
    doc: &'static str,
) -> Setting {
    Setting { name, default, legal, doc }
}

/// By name.
#[rustfmt::skip]
static SETTINGS: &[Setting] = &[
    setting("cleanup.policy", "delete", List(&["delete", "compact"]), "How old records are forgotten: delete by time and size, compact by key, or both."),
    setting("compression.type", "producer", Fixed("batches are kept as they are received"), "The codec of stored batches; producer keeps what was received."),
    setting("delete.retention.ms", "86400000", Number(0, LONG), "How long a tombstone is kept on a compacted topic, in milliseconds."),
    setting("evert.durability", "synced", One(&["synced", "buffered"]), "When an append is acknowledged: once synced to disk, or once accepted. Reads see synced records only, either way."),
    setting("evert.retention.hold.max.bytes", "-1", Number(-1, LONG), "How many bytes retention keeps for the slowest view before it proceeds without it; -1 is no limit."),
    setting("file.delete.delay.ms", "60000", Number(0, LONG), "How long a file is kept after it is no longer needed, in milliseconds."),
    setting("flush.messages", "9223372036854775807", Number(1, LONG), "Accepted for compatibility: every append is synced unless evert.durability says otherwise."),
    setting("flush.ms", "9223372036854775807", Number(0, LONG), "Accepted for compatibility: every append is synced unless evert.durability says otherwise."),
    setting("follower.replication.throttled.replicas", "", Text, "Accepted for compatibility: one machine has no followers."),
    setting("index.interval.bytes", "4096", Number(0, INT), "Accepted for compatibility: an index entry is made every 4096 bytes."),
    setting("leader.replication.throttled.replicas", "", Text, "Accepted for compatibility: one machine has no followers."),
    setting("max.compaction.lag.ms", "9223372036854775807", Number(1, LONG), "The longest a record may stay uncompacted, in milliseconds."),
    setting("max.message.bytes", "1048588", Number(0, INT), "The largest batch, in bytes as it is stored."),
    setting("message.format.version", "3.0-IV1", Text, "Accepted for compatibility: the format is v2."),
    setting("message.timestamp.after.max.ms", "9223372036854775807", Number(0, LONG), "Accepted for compatibility: timestamps ahead of the log are kept."),
    setting("message.timestamp.before.max.ms", "9223372036854775807", Number(0, LONG), "Accepted for compatibility: timestamps behind the log are kept."),
    setting("message.timestamp.difference.max.ms", "9223372036854775807", Number(0, LONG), "Accepted for compatibility: any timestamp is kept."),
    setting("message.timestamp.type", "CreateTime", One(&["CreateTime", "LogAppendTime"]), "Whether a record's timestamp is its producer's or the log's."),
    setting("min.cleanable.dirty.ratio", "0.5", Ratio, "The part of a compacted topic that may be uncompacted."),
    setting("min.compaction.lag.ms", "0", Number(0, LONG), "The shortest a record stays uncompacted, in milliseconds."),
    setting("min.insync.replicas", "1", Number(1, INT), "Accepted for compatibility: one machine is its only replica."),
    setting("preallocate", "false", BOOL, "Accepted for compatibility: the journal is preallocated, segments are not."),
    setting("remote.storage.enable", "false", Fixed("there is no remote storage"), "Whether sealed segments are tiered."),
    setting("retention.bytes", "-1", Number(-1, LONG), "How many bytes a partition keeps; -1 keeps everything."),
    setting("retention.ms", "-1", Number(-1, LONG), "How long records are kept, in milliseconds; -1 keeps everything."),
    setting("segment.bytes", "1073741824", Number(14, INT), "The size at which a new segment is begun, in bytes."),
    setting("segment.index.bytes", "10485760", Number(4, INT), "Accepted for compatibility: indexes grow as needed."),
    setting("segment.jitter.ms", "0", Number(0, LONG), "Accepted for compatibility: segments are not rolled by time."),
    setting("segment.ms", "604800000", Number(1, LONG), "Accepted for compatibility: segments are not rolled by time."),
    setting("unclean.leader.election.enable", "false", BOOL, "Accepted for compatibility: there is nothing to elect."),
];

/// Checks explicit settings and gives their typed form.
pub(crate) fn resolve(config: &BTreeMap<String, String>) -> Result<Settings, TopicError> {
    for (key, value) in config {
        check(key, value).map_err(|why| TopicError::IllegalConfig {
            key: key.clone(),
            value: value.clone(),
            why,
        })?;
    }
    let of = |name: &str| value_of(config, name);
    let number = |name: &str| of(name).trim().parse::<i64>().expect("the value was checked");
    Ok(Settings {
        compacted: of("cleanup.policy").split(',').any(|policy| policy.trim() == "compact"),
        buffered: of("evert.durability") == "buffered",
        append_time: of("message.timestamp.type") == "LogAppendTime",
        message_bytes_max: number("max.message.bytes") as usize,
        segment_bytes: number("segment.bytes") as u64,
    })
}

/// Every setting, as `config` leaves it.
pub(crate) fn describe(config: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    SETTINGS
        .iter()
        .map(|setting| ConfigEntry {
            name: setting.name,
            value: value_of(config, setting.name).to_owned(),
            is_default: !config.contains_key(setting.name),
            read_only: matches!(setting.legal, Fixed(_)),
            doc: setting.doc,
        })
        .collect()
}

fn value_of<'a>(config: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    let default = || find(name).expect("only settings of the table are asked for").default;
    config.get(name).map_or_else(default, String::as_str)
}

fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn check(name: &str, value: &str) -> Result<(), String> {
    let setting = find(name).ok_or("there is no such setting")?;
    match setting.legal {
        Number(min, max) => match value.trim().parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(()),
            Ok(_) => Err(format!("it lies outside {min}..{max}")),
            Err(_) => Err("it is not a whole number".into()),
        },
        Ratio => match value.trim().parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
            _ => Err("it is not a number from 0 to 1".into()),
        },
        One(names) if names.contains(&value) => Ok(()),
        List(names) if value.split(',').all(|part| names.contains(&part.trim())) => Ok(()),
        One(names) => Err(format!("it is none of {}", names.join(", "))),
        List(names) => Err(format!("it is no list of {}", names.join(", "))),
        Text => Ok(()),
        Fixed(_) if value == setting.default => Ok(()),
        Fixed(why) => Err(format!("only {} is served: {why}", setting.default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_default_is_legal_and_described() {
        let all: BTreeMap<String, String> =
            SETTINGS.iter().map(|s| (s.name.to_owned(), s.default.to_owned())).collect();
        assert_eq!(all.len(), SETTINGS.len());
        assert_eq!(resolve(&all).unwrap(), resolve(&BTreeMap::new()).unwrap());
        assert!(SETTINGS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(describe(&BTreeMap::new()).iter().all(|entry| entry.is_default));
    }

    #[test]
    fn values_that_debezium_and_connect_send_are_accepted() {
        let sent = config(&[
            ("retention.ms", "9223372036854775807"),
            ("cleanup.policy", "compact,delete"),
            ("message.timestamp.type", "LogAppendTime"),
        ]);
        let settings = resolve(&sent).unwrap();
        assert!(settings.compacted && settings.append_time && !settings.buffered);
        assert!(!describe(&sent).iter().find(|e| e.name == "retention.ms").unwrap().is_default);
    }

    #[test]
    fn a_wrong_setting_says_why() {
        for (key, value, expected) in [
            ("retention.hours", "1", "there is no such setting"),
            ("retention.ms", "soon", "it is not a whole number"),
            ("retention.ms", "-2", "it lies outside -1..9223372036854775807"),
            ("cleanup.policy", "compact,burn", "it is no list of delete, compact"),
            (
                "compression.type",
                "zstd",
                "only producer is served: batches are kept as they are received",
            ),
            ("min.cleanable.dirty.ratio", "2", "it is not a number from 0 to 1"),
            ("evert.durability", "never", "it is none of synced, buffered"),
        ] {
            match resolve(&config(&[(key, value)])) {
                Err(TopicError::IllegalConfig { why, .. }) => assert_eq!(why, expected),
                other => panic!("{key}={value}: {other:?}"),
            }
        }
    }
}
