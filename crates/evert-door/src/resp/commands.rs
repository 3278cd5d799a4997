//! Commands: what there is, and what runs it.
//!
//! The table is what `COMMAND` tells clients about; its order is that of the names.

use super::client::Client;
use super::reader::{Miss, Reader};
use super::reply::Out;
use super::request::Request;
use super::{admin, hash, json, keyspace, pubsub};

/// Whether a command that reads has been answered.
pub(super) type Answer = Result<(), Miss>;

type Read = fn(&mut Reader, Request<'_>, &mut Out) -> Answer;

/// What runs a command.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// It reads rows.
    Read(Read),
    Scan,
    /// It may take long: it runs on a thread of its own.
    Keys,
    /// It is about the connection or the server.
    Client(fn(&mut Client, Request<'_>, &mut Out)),
    /// It waits for a position, and reads are after it from then on.
    After,
    /// It waits for a position.
    Wait,
    Multi,
    Exec,
    Discard,
    Quit,
    Reset,
}

/// A command, in the words of Redis's own table.
pub(super) struct Command {
    /// In lower case.
    pub(super) name: &'static str,
    /// How many words it has, with its name; at least so many if negative.
    pub(super) arity: i64,
    /// Which words are keys: the first, the last (-1: the last word), and the step.
    pub(super) keys: (usize, i64, usize),
    pub(super) flags: &'static [&'static str],
    pub(super) group: &'static str,
    pub(super) summary: &'static str,
    pub(super) run: Run,
}

const NO_KEYS: (usize, i64, usize) = (0, 0, 0);
const ONE_KEY: (usize, i64, usize) = (1, 1, 1);
const FAST: &[&str] = &["readonly", "fast"];
const SLOW: &[&str] = &["readonly"];
const ADMIN: &[&str] = &["loading", "stale", "fast"];
const LISTEN: &[&str] = &["pubsub", "noscript", "loading", "stale"];

const fn command(
    name: &'static str,
    arity: i64,
    keys: (usize, i64, usize),
    flags: &'static [&'static str],
    about: (&'static str, &'static str),
    run: Run,
) -> Command {
    Command { name, arity, keys, flags, group: about.0, summary: about.1, run }
}

/// Every command, by name.
pub(super) const COMMANDS: &[Command] = &[
    command(
        "auth",
        -2,
        NO_KEYS,
        ADMIN,
        ("connection", "Authenticates the connection"),
        Run::Client(admin::auth),
    ),
    command(
        "client",
        -2,
        NO_KEYS,
        ADMIN,
        ("connection", "Tells about connections and names them"),
        Run::Client(admin::client),
    ),
    command(
        "command",
        -1,
        NO_KEYS,
        ADMIN,
        ("server", "Tells about commands"),
        Run::Client(admin::command),
    ),
    command("config", -2, NO_KEYS, ADMIN, ("server", "Tells settings"), Run::Client(admin::config)),
    command(
        "dbsize",
        1,
        NO_KEYS,
        SLOW,
        ("server", "Counts the rows that have a key"),
        Run::Read(keyspace::dbsize),
    ),
    command(
        "discard",
        1,
        NO_KEYS,
        ADMIN,
        ("transactions", "Forgets the commands since MULTI"),
        Run::Discard,
    ),
    command(
        "echo",
        2,
        NO_KEYS,
        ADMIN,
        ("connection", "Returns the given text"),
        Run::Client(admin::echo),
    ),
    command(
        "evert.after",
        -2,
        NO_KEYS,
        ADMIN,
        ("evert", "Waits for a position; reads are at or after it from then on"),
        Run::After,
    ),
    command(
        "evert.position",
        1,
        NO_KEYS,
        ADMIN,
        ("evert", "Returns the position of the last read"),
        Run::Client(admin::position),
    ),
    command("evert.wait", -2, NO_KEYS, ADMIN, ("evert", "Waits for a position"), Run::Wait),
    command(
        "exec",
        1,
        NO_KEYS,
        ADMIN,
        ("transactions", "Runs the commands since MULTI at one position"),
        Run::Exec,
    ),
    command(
        "exists",
        -2,
        (1, -1, 1),
        FAST,
        ("generic", "Counts those of the keys that have a row"),
        Run::Read(keyspace::exists_all),
    ),
    command(
        "expiretime",
        2,
        ONE_KEY,
        FAST,
        ("generic", "Returns -1 for a row, -2 for none"),
        Run::Read(keyspace::ttl),
    ),
    command("get", 2, ONE_KEY, FAST, ("string", "Refuses: rows are hashes"), Run::Read(hash::get)),
    command(
        "hello",
        -1,
        NO_KEYS,
        ADMIN,
        ("connection", "Chooses the protocol's version"),
        Run::Client(admin::hello),
    ),
    command(
        "hexists",
        3,
        ONE_KEY,
        FAST,
        ("hash", "Tells whether a row has a value in a column"),
        Run::Read(hash::hexists),
    ),
    command(
        "hget",
        3,
        ONE_KEY,
        FAST,
        ("hash", "Returns the value of a column"),
        Run::Read(hash::hget),
    ),
    command(
        "hgetall",
        2,
        ONE_KEY,
        SLOW,
        ("hash", "Returns a row: its columns and their values"),
        Run::Read(hash::hgetall),
    ),
    command(
        "hkeys",
        2,
        ONE_KEY,
        SLOW,
        ("hash", "Returns the columns that have a value"),
        Run::Read(hash::hkeys),
    ),
    command(
        "hlen",
        2,
        ONE_KEY,
        FAST,
        ("hash", "Counts the columns that have a value"),
        Run::Read(hash::hlen),
    ),
    command(
        "hmget",
        -3,
        ONE_KEY,
        FAST,
        ("hash", "Returns the values of columns"),
        Run::Read(hash::hmget),
    ),
    command(
        "hscan",
        -3,
        ONE_KEY,
        SLOW,
        ("hash", "Returns the columns that match, and their values"),
        Run::Read(hash::hscan),
    ),
    command(
        "hstrlen",
        3,
        ONE_KEY,
        FAST,
        ("hash", "Returns the length of a column's value"),
        Run::Read(hash::hstrlen),
    ),
    command(
        "hvals",
        2,
        ONE_KEY,
        SLOW,
        ("hash", "Returns the values of a row"),
        Run::Read(hash::hvals),
    ),
    command(
        "info",
        -1,
        NO_KEYS,
        ADMIN,
        ("server", "Tells about the server"),
        Run::Client(admin::info),
    ),
    command(
        "json.get",
        -2,
        ONE_KEY,
        SLOW,
        ("json", "Returns a row as JSON, whole or by paths"),
        Run::Read(json::get),
    ),
    command("keys", 2, NO_KEYS, SLOW, ("generic", "Returns all keys that match"), Run::Keys),
    command(
        "lolwut",
        -1,
        NO_KEYS,
        ADMIN,
        ("server", "Returns the server's name and version"),
        Run::Client(admin::lolwut),
    ),
    command(
        "mget",
        -2,
        (1, -1, 1),
        FAST,
        ("string", "Returns null for each key: rows are hashes"),
        Run::Read(hash::mget),
    ),
    command("multi", 1, NO_KEYS, ADMIN, ("transactions", "Begins to gather commands"), Run::Multi),
    command(
        "object",
        -2,
        (2, 2, 1),
        SLOW,
        ("generic", "Tells about a key"),
        Run::Read(keyspace::object),
    ),
    command(
        "pexpiretime",
        2,
        ONE_KEY,
        FAST,
        ("generic", "Returns -1 for a row, -2 for none"),
        Run::Read(keyspace::ttl),
    ),
    command(
        "ping",
        -1,
        NO_KEYS,
        ADMIN,
        ("connection", "Answers PONG, or the given text"),
        Run::Client(admin::ping),
    ),
    command(
        "psubscribe",
        -2,
        NO_KEYS,
        LISTEN,
        ("pubsub", "Listens to the channels that match"),
        Run::Client(pubsub::psubscribe),
    ),
    command(
        "pttl",
        2,
        ONE_KEY,
        FAST,
        ("generic", "Returns -1 for a row, -2 for none"),
        Run::Read(keyspace::ttl),
    ),
    command(
        "pubsub",
        -2,
        NO_KEYS,
        LISTEN,
        ("pubsub", "Tells who listens to what"),
        Run::Client(pubsub::pubsub),
    ),
    command(
        "punsubscribe",
        -1,
        NO_KEYS,
        LISTEN,
        ("pubsub", "Listens to patterns no longer"),
        Run::Client(pubsub::punsubscribe),
    ),
    command("quit", -1, NO_KEYS, ADMIN, ("connection", "Ends the connection"), Run::Quit),
    command(
        "randomkey",
        1,
        NO_KEYS,
        SLOW,
        ("generic", "Returns one of the keys"),
        Run::Read(keyspace::random_key),
    ),
    command("reset", 1, NO_KEYS, ADMIN, ("connection", "Makes the connection as new"), Run::Reset),
    command(
        "scan",
        -2,
        NO_KEYS,
        SLOW,
        ("generic", "Returns some keys, and where to go on"),
        Run::Scan,
    ),
    command(
        "select",
        2,
        NO_KEYS,
        ADMIN,
        ("connection", "Chooses the database: there is 0"),
        Run::Client(admin::select),
    ),
    command(
        "strlen",
        2,
        ONE_KEY,
        FAST,
        ("string", "Refuses: rows are hashes"),
        Run::Read(hash::strlen),
    ),
    command(
        "subscribe",
        -2,
        NO_KEYS,
        LISTEN,
        ("pubsub", "Listens to channels"),
        Run::Client(pubsub::subscribe),
    ),
    command(
        "time",
        1,
        NO_KEYS,
        ADMIN,
        ("server", "Returns the server's clock"),
        Run::Client(admin::time),
    ),
    command(
        "touch",
        -2,
        (1, -1, 1),
        FAST,
        ("generic", "Counts those of the keys that have a row"),
        Run::Read(keyspace::exists_all),
    ),
    command(
        "ttl",
        2,
        ONE_KEY,
        FAST,
        ("generic", "Returns -1 for a row, -2 for none"),
        Run::Read(keyspace::ttl),
    ),
    command(
        "type",
        2,
        ONE_KEY,
        FAST,
        ("generic", "Returns hash for a row, none for none"),
        Run::Read(keyspace::type_of),
    ),
    command(
        "unsubscribe",
        -1,
        NO_KEYS,
        LISTEN,
        ("pubsub", "Listens to channels no longer"),
        Run::Client(pubsub::unsubscribe),
    ),
    command(
        "unwatch",
        1,
        NO_KEYS,
        ADMIN,
        ("transactions", "Does nothing: keys are not watched"),
        Run::Client(admin::unwatch),
    ),
];

/// Redis's commands that change something.
const WRITES: &[&str] = &[
    "append",
    "bitfield",
    "bitop",
    "blmove",
    "blmpop",
    "blpop",
    "brpop",
    "brpoplpush",
    "bzmpop",
    "bzpopmax",
    "bzpopmin",
    "copy",
    "decr",
    "decrby",
    "del",
    "eval",
    "evalsha",
    "expire",
    "expireat",
    "fcall",
    "flushall",
    "flushdb",
    "geoadd",
    "georadius",
    "getdel",
    "getex",
    "getset",
    "hdel",
    "hexpire",
    "hgetdel",
    "hgetex",
    "hincrby",
    "hincrbyfloat",
    "hmset",
    "hpersist",
    "hset",
    "hsetex",
    "hsetnx",
    "incr",
    "incrby",
    "incrbyfloat",
    "json.arrappend",
    "json.clear",
    "json.del",
    "json.merge",
    "json.mset",
    "json.numincrby",
    "json.set",
    "linsert",
    "lmove",
    "lmpop",
    "lpop",
    "lpush",
    "lpushx",
    "lrem",
    "lset",
    "ltrim",
    "migrate",
    "move",
    "mset",
    "msetnx",
    "persist",
    "pexpire",
    "pexpireat",
    "pfadd",
    "pfmerge",
    "psetex",
    "publish",
    "rename",
    "renamenx",
    "restore",
    "rpop",
    "rpoplpush",
    "rpush",
    "rpushx",
    "sadd",
    "sdiffstore",
    "set",
    "setbit",
    "setex",
    "setnx",
    "setrange",
    "sinterstore",
    "smove",
    "sort",
    "spop",
    "spublish",
    "srem",
    "sunionstore",
    "swapdb",
    "unlink",
    "xack",
    "xadd",
    "xautoclaim",
    "xclaim",
    "xdel",
    "xgroup",
    "xreadgroup",
    "xsetid",
    "xtrim",
    "zadd",
    "zdiffstore",
    "zincrby",
    "zinterstore",
    "zmpop",
    "zpopmax",
    "zpopmin",
    "zrangestore",
    "zrem",
    "zremrangebylex",
    "zremrangebyrank",
    "zremrangebyscore",
    "zunionstore",
];

/// The longest name of a command.
const NAME_BYTES_MAX: usize = 32;

/// What a request's first word names.
pub(super) enum Named {
    Command(&'static Command),
    Write,
    Unknown,
}

/// What a name names, in any case.
pub(super) fn named(name: &[u8]) -> Named {
    let mut lower = [0; NAME_BYTES_MAX];
    let Some(lower) = lower.get_mut(..name.len()) else { return Named::Unknown };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let lower = &*lower;
    match COMMANDS.binary_search_by(|command| command.name.as_bytes().cmp(lower)) {
        Ok(found) => Named::Command(&COMMANDS[found]),
        Err(_) if WRITES.binary_search_by(|write| write.as_bytes().cmp(lower)).is_ok() => {
            Named::Write
        }
        Err(_) => Named::Unknown,
    }
}

impl Command {
    /// Whether a request has as many words as it must.
    pub(super) fn fits(&self, words: usize) -> bool {
        let words = words as i64;
        if self.arity < 0 { words >= -self.arity } else { words == self.arity }
    }

    /// The keys of a request.
    pub(super) fn keys_of<'a>(&self, request: Request<'a>) -> Vec<&'a [u8]> {
        let (first, last, step) = self.keys;
        if first == 0 {
            return Vec::new();
        }
        let end = if last < 0 { request.len() } else { last as usize + 1 };
        (first..end.min(request.len())).step_by(step).map(|at| request.get(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
        assert!(WRITES.is_sorted_by(|a, b| a < b));
        for command in COMMANDS {
            let name = command.name.to_uppercase();
            let found = named(name.as_bytes());
            assert!(matches!(found, Named::Command(found) if found.name == command.name), "{name}");
        }
        assert!(matches!(named(b"hSet"), Named::Write));
        assert!(matches!(named(b"gett"), Named::Unknown));
        assert!(matches!(named(&[b'a'; 1000]), Named::Unknown));
    }
}
