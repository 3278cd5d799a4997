//! Commands about the connection and the server.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::client::Client;
use super::commands::{COMMANDS, Command, Named, named};
use super::glob;
use super::reply::{Out, Protocol};
use super::request::{REQUEST_BYTES_MAX, Request};
use crate::http::process;

/// The version of Redis whose commands these are, for clients that ask.
const REDIS_VERSION: &str = "7.2.0";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The longest name of a connection.
const NAME_BYTES_MAX: usize = 1024;

pub(super) fn ping(client: &mut Client, request: Request<'_>, out: &mut Out) {
    match request.len() {
        // A listener of version 2 gets a message like all others.
        1 | 2 if out.protocol == Protocol::V2 && client.subscriptions() > 0 => {
            out.array(2);
            out.bulk(b"pong");
            out.bulk(request.get(1));
        }
        1 => out.simple("PONG"),
        2 => out.bulk(request.get(1)),
        _ => out.error("ERR wrong number of arguments for 'ping' command"),
    }
}

pub(super) fn echo(_: &mut Client, request: Request<'_>, out: &mut Out) {
    out.bulk(request.get(1));
}

pub(super) fn select(_: &mut Client, request: Request<'_>, out: &mut Out) {
    match request.get(1) {
        b"0" => out.ok(),
        _ => out.error("ERR DB index is out of range: there is 0"),
    }
}

pub(super) fn unwatch(_: &mut Client, _: Request<'_>, out: &mut Out) {
    out.ok();
}

pub(super) fn lolwut(_: &mut Client, _: Request<'_>, out: &mut Out) {
    out.verbatim(&format!("Evert ver. {VERSION}\n"));
}

pub(super) fn time(_: &mut Client, _: Request<'_>, out: &mut Out) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    out.array(2);
    out.bulk(now.as_secs().to_string().as_bytes());
    out.bulk(now.subsec_micros().to_string().as_bytes());
}

pub(super) fn position(client: &mut Client, _: Request<'_>, out: &mut Out) {
    out.integer(client.reader.position().get() as i64);
}

/// A door on loopback trusts its clients, as a Redis without a password does.
pub(super) fn auth(_: &mut Client, request: Request<'_>, out: &mut Out) {
    match (request.len(), request.get(1)) {
        (3, b"default") => out.ok(),
        (3, _) => out.error(WRONG_PASS),
        (2, _) => out.error(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        ),
        _ => out.error("ERR syntax error"),
    }
}

const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// `HELLO [2|3 [AUTH user password] [SETNAME name]]`
pub(super) fn hello(client: &mut Client, request: Request<'_>, out: &mut Out) {
    let protocol = match (request.len(), request.get(1)) {
        (1, _) => out.protocol,
        (_, b"2") => Protocol::V2,
        (_, b"3") => Protocol::V3,
        _ => return out.error("NOPROTO unsupported protocol version"),
    };
    let mut options = request.from(2);
    let mut name = None;
    while let Some(option) = options.next() {
        if option.eq_ignore_ascii_case(b"AUTH") {
            match (options.next(), options.next()) {
                (Some(b"default"), Some(_)) => {}
                (Some(_), Some(_)) => return out.error(WRONG_PASS),
                _ => return out.error("ERR Syntax error in HELLO option 'auth'"),
            }
        } else if option.eq_ignore_ascii_case(b"SETNAME") {
            match options.next().and_then(plain) {
                Some(given) => name = Some(given),
                None => return out.error(BAD_NAME),
            }
        } else {
            let option = String::from_utf8_lossy(option).into_owned();
            return out.error(&format!("ERR Syntax error in HELLO option '{option}'"));
        }
    }
    if let Some(name) = name {
        client.entry.set_name(name);
    }
    out.protocol = protocol;
    client.outbox.speak(protocol);
    out.map(8);
    let texts = [("server", "redis"), ("version", REDIS_VERSION), ("evert_version", VERSION)];
    for (key, value) in texts {
        out.bulk(key.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"proto");
    out.integer(if protocol == Protocol::V3 { 3 } else { 2 });
    out.bulk(b"id");
    out.integer(client.entry.id as i64);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        out.bulk(key.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"modules");
    out.array(0);
}

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// A text without blanks and control characters.
fn plain(text: &[u8]) -> Option<String> {
    let plain =
        text.len() <= NAME_BYTES_MAX && text.iter().all(|byte| (b'!'..=b'~').contains(byte));
    plain.then(|| String::from_utf8_lossy(text).into_owned())
}

pub(super) fn client(client: &mut Client, request: Request<'_>, out: &mut Out) {
    let what = request.get(1).to_ascii_uppercase();
    match (what.as_slice(), request.len()) {
        (b"ID", 2) => out.integer(client.entry.id as i64),
        (b"GETNAME", 2) => match client.entry.name() {
            name if name.is_empty() => out.null(),
            name => out.bulk(name.as_bytes()),
        },
        (b"SETNAME", 3) => match plain(request.get(2)) {
            Some(name) => {
                client.entry.set_name(name);
                out.ok();
            }
            None => out.error(BAD_NAME),
        },
        (b"SETINFO", 4) => match plain(request.get(3)) {
            Some(value) if request.get(2).eq_ignore_ascii_case(b"LIB-NAME") => {
                client.entry.set_library(value);
                out.ok();
            }
            Some(value) if request.get(2).eq_ignore_ascii_case(b"LIB-VER") => {
                client.entry.set_library_version(value);
                out.ok();
            }
            _ => out.error("ERR lib-name and lib-ver take a text without blanks"),
        },
        (b"INFO", 2) => out.verbatim(&client.entry.line()),
        (b"LIST", _) => {
            let lines = client.shared.registry.list();
            out.verbatim(&lines.iter().map(|entry| entry.line()).collect::<String>());
        }
        (b"NO-EVICT" | b"NO-TOUCH", 3) => out.ok(),
        (b"GETREDIR", 2) => out.integer(-1),
        (b"TRACKING", 3) if request.get(2).eq_ignore_ascii_case(b"OFF") => out.ok(),
        _ => out.error(&unknown_subcommand("CLIENT", request.get(1))),
    }
}

fn unknown_subcommand(command: &str, given: &[u8]) -> String {
    let given = String::from_utf8_lossy(&given[..given.len().min(64)]).into_owned();
    format!("ERR unknown subcommand or wrong number of arguments for '{command} {given}'")
}

/// Settings that clients ask for; there are none to change.
const SETTINGS: &[(&str, &str)] = &[
    ("appendonly", "no"),
    ("databases", "1"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", "KEgh"),
    ("save", ""),
    ("timeout", "0"),
];

pub(super) fn config(_: &mut Client, request: Request<'_>, out: &mut Out) {
    let what = request.get(1).to_ascii_uppercase();
    match what.as_slice() {
        b"GET" if request.len() > 2 => {
            let asked = |name: &str| {
                let mut patterns = request.from(2);
                patterns.any(|p| glob::matches(&p.to_ascii_lowercase(), name.as_bytes()))
            };
            let bulk_max = REQUEST_BYTES_MAX.to_string();
            let all = SETTINGS.iter().copied().chain([("proto-max-bulk-len", bulk_max.as_str())]);
            let found: Vec<_> = all.filter(|(name, _)| asked(name)).collect();
            out.map(found.len());
            for (name, value) in found {
                out.bulk(name.as_bytes());
                out.bulk(value.as_bytes());
            }
        }
        // Frameworks ask for notifications before they listen: they are always on.
        b"SET"
            if request.len() == 4
                && request.get(2).eq_ignore_ascii_case(b"notify-keyspace-events") =>
        {
            out.ok();
        }
        b"SET" => out.error("ERR settings are those of evert serve: they cannot be set here"),
        b"RESETSTAT" => out.ok(),
        _ => out.error(&unknown_subcommand("CONFIG", request.get(1))),
    }
}

pub(super) fn command(_: &mut Client, request: Request<'_>, out: &mut Out) {
    let what = request.get(1).to_ascii_uppercase();
    match (what.as_slice(), request.len()) {
        (_, 1) => {
            out.array(COMMANDS.len());
            COMMANDS.iter().for_each(|command| describe(command, out));
        }
        (b"COUNT", 2) => out.integer(COMMANDS.len() as i64),
        (b"LIST", 2) => {
            out.array(COMMANDS.len());
            COMMANDS.iter().for_each(|command| out.bulk(command.name.as_bytes()));
        }
        (b"INFO", 2) => {
            out.array(COMMANDS.len());
            COMMANDS.iter().for_each(|command| describe(command, out));
        }
        (b"INFO", _) => {
            out.array(request.len() - 2);
            for name in request.from(2) {
                match named(name) {
                    Named::Command(command) => describe(command, out),
                    _ => out.null_array(),
                }
            }
        }
        (b"DOCS", _) => {
            let all = request.len() == 2;
            let asked = |command: &&Command| {
                all || request.from(2).any(|n| n.eq_ignore_ascii_case(command.name.as_bytes()))
            };
            let found: Vec<_> = COMMANDS.iter().filter(asked).collect();
            out.map(found.len());
            found.iter().for_each(|command| document(command, out));
        }
        (b"GETKEYS", 3..) => match named(request.get(2)) {
            Named::Command(command) if command.keys.0 > 0 && command.fits(request.len() - 2) => {
                let owned = request.to_owned();
                let words: Vec<_> = owned.request().from(2).collect();
                let (first, last, step) = command.keys;
                let end = if last < 0 { words.len() } else { last as usize + 1 };
                let keys: Vec<_> = (first..end.min(words.len())).step_by(step).collect();
                out.array(keys.len());
                keys.into_iter().for_each(|at| out.bulk(words[at]));
            }
            _ => out.error("ERR The command has no key arguments"),
        },
        _ => out.error(&unknown_subcommand("COMMAND", request.get(1))),
    }
}

/// Name, arity, flags, keys, and the lists that are empty here.
fn describe(command: &Command, out: &mut Out) {
    out.array(10);
    out.bulk(command.name.as_bytes());
    out.integer(command.arity);
    out.set(command.flags.len());
    command.flags.iter().for_each(|flag| out.simple(flag));
    let (first, last, step) = command.keys;
    out.integer(first as i64);
    out.integer(last);
    out.integer(step as i64);
    out.set(1);
    out.simple(&format!("@{}", command.group));
    for _ in 0..3 {
        out.array(0);
    }
}

fn document(command: &Command, out: &mut Out) {
    out.bulk(command.name.as_bytes());
    let facts = [("summary", command.summary), ("since", VERSION), ("group", command.group)];
    out.map(facts.len());
    for (name, value) in facts {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    }
}

pub(super) fn info(client: &mut Client, request: Request<'_>, out: &mut Out) {
    type Section = fn(&mut Client, &mut String) -> std::fmt::Result;
    let sections: [(&str, Section); 7] = [
        ("Server", server),
        ("Clients", clients),
        ("Memory", memory),
        ("Stats", stats),
        ("Replication", |_, text| writeln!(text, "role:master\r\nconnected_slaves:0\r")),
        ("Keyspace", keyspace),
        ("Evert", evert),
    ];
    let mut text = String::new();
    for (name, section) in sections {
        let mut asked = request.from(1).peekable();
        let wanted = asked.peek().is_none()
            || asked.any(|asked| {
                let all = [&b"all"[..], b"everything", b"default", name.as_bytes()];
                all.iter().any(|known| asked.eq_ignore_ascii_case(known))
            });
        if wanted {
            text.push_str(if text.is_empty() { "" } else { "\r\n" });
            text.extend(["# ", name, "\r\n"]);
            section(client, &mut text).expect("a string takes everything");
        }
    }
    out.verbatim(&text);
}

fn server(client: &mut Client, text: &mut String) -> std::fmt::Result {
    let (_, _, _, uptime) = client.shared.registry.figures();
    write!(text, "redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\n")?;
    write!(text, "evert_version:{VERSION}\r\nprocess_id:{}\r\n", std::process::id())?;
    write!(text, "tcp_port:{}\r\nuptime_in_seconds:{uptime}\r\n", client.shared.port)?;
    // Clients wait for a server that loads. A view that does says so by itself.
    write!(text, "loading:0\r\n")
}

fn clients(client: &mut Client, text: &mut String) -> std::fmt::Result {
    let (connected, ..) = client.shared.registry.figures();
    let max = client.shared.config.connections_max;
    write!(text, "connected_clients:{connected}\r\nmaxclients:{max}\r\n")
}

fn memory(_: &mut Client, text: &mut String) -> std::fmt::Result {
    let bytes = process::resident_bytes().unwrap_or(0);
    write!(text, "used_memory:{bytes}\r\nused_memory_rss:{bytes}\r\nmaxmemory:0\r\n")
}

fn stats(client: &mut Client, text: &mut String) -> std::fmt::Result {
    let (_, received, commands, _) = client.shared.registry.figures();
    write!(
        text,
        "total_connections_received:{received}\r\ntotal_commands_processed:{commands}\r\n"
    )?;
    let feeds = &client.shared.feeds;
    write!(text, "pubsub_channels:{}\r\n", feeds.channels(None).len())?;
    write!(text, "pubsub_patterns:{}\r\n", feeds.patterns())
}

fn keyspace(client: &mut Client, text: &mut String) -> std::fmt::Result {
    let keys: usize = client.reader.keyed().iter().map(|(_, snapshot)| snapshot.len()).sum();
    match keys {
        0 => Ok(()),
        _ => write!(text, "db0:keys={keys},expires=0,avg_ttl=0\r\n"),
    }
}

fn evert(client: &mut Client, text: &mut String) -> std::fmt::Result {
    let views = &client.shared.views;
    write!(text, "position:{}\r\nlog_end:{}\r\n", views.position(), views.log().end())?;
    for status in views.status() {
        let state = status.state.to_string().replace(['\r', '\n'], " ");
        let (name, position, rows) = (status.name, status.position, status.rows);
        write!(text, "view_{name}:state={state},position={position},rows={rows}\r\n")?;
    }
    Ok(())
}
