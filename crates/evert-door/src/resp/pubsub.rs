//! `SUBSCRIBE` and its like: what a connection listens to.

use super::client::Client;
use super::feeds::Kind;
use super::reply::Out;
use super::request::Request;

/// Channels and patterns of one connection.
const SUBSCRIPTIONS_MAX: usize = 100_000;
/// The longest channel or pattern.
const CHANNEL_BYTES_MAX: usize = 16 << 10;

pub(super) fn subscribe(client: &mut Client, request: Request<'_>, out: &mut Out) {
    listen(client, Kind::Channel, request, out);
}

pub(super) fn psubscribe(client: &mut Client, request: Request<'_>, out: &mut Out) {
    listen(client, Kind::Pattern, request, out);
}

pub(super) fn unsubscribe(client: &mut Client, request: Request<'_>, out: &mut Out) {
    leave(client, Kind::Channel, request, out);
}

pub(super) fn punsubscribe(client: &mut Client, request: Request<'_>, out: &mut Out) {
    leave(client, Kind::Pattern, request, out);
}

fn listen(client: &mut Client, kind: Kind, request: Request<'_>, out: &mut Out) {
    client.outbox.speak(out.protocol);
    for channel in request.from(1) {
        if channel.len() > CHANNEL_BYTES_MAX || client.subscriptions() >= SUBSCRIPTIONS_MAX {
            out.error("ERR too many subscriptions, or too long a channel");
            return;
        }
        let (own, what): (_, &[u8]) = match kind {
            Kind::Channel => (&mut client.channels, b"subscribe"),
            Kind::Pattern => (&mut client.patterns, b"psubscribe"),
        };
        if own.insert(channel.to_vec()) {
            client.shared.feeds.subscribe(kind, channel, &client.outbox);
        }
        confirm(what, Some(channel), client.subscriptions(), out);
    }
}

fn leave(client: &mut Client, kind: Kind, request: Request<'_>, out: &mut Out) {
    let what: &[u8] = match kind {
        Kind::Channel => b"unsubscribe",
        Kind::Pattern => b"punsubscribe",
    };
    let own = match kind {
        Kind::Channel => &client.channels,
        Kind::Pattern => &client.patterns,
    };
    let leaving: Vec<Vec<u8>> = match request.len() {
        1 => own.iter().cloned().collect(),
        _ => request.from(1).map(<[u8]>::to_vec).collect(),
    };
    if leaving.is_empty() {
        confirm(what, None, client.subscriptions(), out);
    }
    for channel in leaving {
        let own = match kind {
            Kind::Channel => &mut client.channels,
            Kind::Pattern => &mut client.patterns,
        };
        if own.remove(&channel) {
            client.shared.feeds.unsubscribe(kind, &channel, &client.outbox);
        }
        confirm(what, Some(&channel), client.subscriptions(), out);
    }
}

fn confirm(what: &[u8], channel: Option<&[u8]>, count: usize, out: &mut Out) {
    out.push(3);
    out.bulk(what);
    match channel {
        Some(channel) => out.bulk(channel),
        None => out.null(),
    }
    out.integer(count as i64);
}

/// `PUBSUB CHANNELS [pattern]`, `NUMSUB [channel ...]`, `NUMPAT`.
pub(super) fn pubsub(client: &mut Client, request: Request<'_>, out: &mut Out) {
    let feeds = &client.shared.feeds;
    let what = request.get(1).to_ascii_uppercase();
    match (what.as_slice(), request.len()) {
        (b"CHANNELS", 2 | 3) => {
            let pattern = (request.len() == 3).then(|| request.get(2));
            let channels = feeds.channels(pattern);
            out.array(channels.len());
            channels.iter().for_each(|channel| out.bulk(channel));
        }
        (b"NUMSUB", _) => {
            out.array((request.len() - 2) * 2);
            for channel in request.from(2) {
                out.bulk(channel);
                out.integer(feeds.listeners(channel) as i64);
            }
        }
        (b"NUMPAT", 2) => out.integer(feeds.patterns() as i64),
        _ => out.error("ERR unknown subcommand: CHANNELS, NUMSUB and NUMPAT are known"),
    }
}
