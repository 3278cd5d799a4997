//! Outboxes: messages for a subscriber, until its connection takes them.
//!
//! Invariant: a subscriber that does not read holds up nobody, and at most a bounded number of
//! bytes: past it the connection is cut.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;

use super::reply::{Out, Protocol};

/// Messages for one subscriber.
pub(super) struct Outbox {
    /// The connection's number.
    pub(super) id: u64,
    bytes: Mutex<BytesMut>,
    bytes_max: usize,
    is_v3: AtomicBool,
    overflown: AtomicBool,
    ready: Notify,
    cut: Notify,
}

impl Outbox {
    pub(super) fn new(id: u64, bytes_max: usize) -> Self {
        Self {
            id,
            bytes: Mutex::default(),
            bytes_max,
            is_v3: AtomicBool::new(false),
            overflown: AtomicBool::new(false),
            ready: Notify::new(),
            cut: Notify::new(),
        }
    }

    /// How messages are to be written from now on.
    pub(super) fn speak(&self, protocol: Protocol) {
        self.is_v3.store(protocol == Protocol::V3, Ordering::Relaxed);
    }

    /// Adds a message: `["message", channel, payload]`, or with the pattern that let it through.
    pub(super) fn add(&self, pattern: Option<&[u8]>, channel: &[u8], payload: &[u8]) {
        let v3 = self.is_v3.load(Ordering::Relaxed);
        let mut out = Out::new(if v3 { Protocol::V3 } else { Protocol::V2 });
        match pattern {
            None => {
                out.push(3);
                out.bulk(b"message");
            }
            Some(pattern) => {
                out.push(4);
                out.bulk(b"pmessage");
                out.bulk(pattern);
            }
        }
        out.bulk(channel);
        out.bulk(payload);
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() + out.bytes.len() > self.bytes_max {
            *bytes = BytesMut::new();
            drop(bytes);
            self.overflown.store(true, Ordering::Release);
            self.cut.notify_one();
            return;
        }
        bytes.extend_from_slice(&out.bytes);
        drop(bytes);
        self.ready.notify_one();
    }

    /// Resolves when there are messages.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Moves what has gathered behind what is in `out`.
    pub(super) fn take(&self, out: &mut BytesMut) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if out.is_empty() {
            std::mem::swap(out, &mut bytes);
        } else {
            out.extend_from_slice(&bytes);
        }
        bytes.clear();
    }

    /// Resolves when the subscriber has fallen too far behind.
    pub(super) async fn overflown(&self) {
        while !self.overflown.load(Ordering::Acquire) {
            self.cut.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_gathered_up_to_a_bound() {
        let outbox = Outbox::new(1, 100);
        outbox.add(None, b"c", b"hset");
        outbox.speak(Protocol::V3);
        outbox.add(Some(b"*"), b"c", b"del");
        outbox.ready().await;
        let mut out = BytesMut::new();
        outbox.take(&mut out);
        let expected = "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\nhset\r\n\
                        >4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$3\r\ndel\r\n";
        assert_eq!(out, expected);
        for _ in 0..3 {
            outbox.add(None, b"c", b"hset");
        }
        outbox.overflown().await;
    }
}
