//! Feeds: changes of views, told to those who have subscribed to keys.
//!
//! Owns: one subscription for each view that somebody listens to, who listens to what.
//! Not here: how messages reach their clients (`outbox`, `connection`).
//!
//! A changed row is `hset` on `__keyspace@0__:view:key`, a row that is gone is `del`; and the key
//! is told on `__keyevent@0__:hset` and `:del`. (Redis, "Redis keyspace notifications")
//!
//! Invariants
//! - Whatever changes after a subscription was confirmed is told.
//! - A view that nobody listens to costs nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evert_model::{Delta, Position};
use evert_view::{Changes, Name, PastError, PinError, SubscribeFrom, Views};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::glob;
use super::key;
use super::layout::Layout;
use super::outbox::Outbox;

const KEYSPACE: &[u8] = b"__keyspace@0__:";
const KEYEVENT: &[u8] = b"__keyevent@0__:";
/// Between two looks for views that are new, and before a failed one is tried again.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whom messages go to, and the feeds that bring them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Feeds(Arc<Inner>);

struct Inner {
    views: Views,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channels: HashMap<Vec<u8>, Vec<Arc<Outbox>>>,
    patterns: HashMap<Vec<u8>, Vec<Arc<Outbox>>>,
    /// How many subscriptions need the changes of a view.
    wanted: HashMap<Name, usize>,
    /// How many need those of all views.
    wide: usize,
    running: HashMap<Name, AbortHandle>,
    /// Looks for new views, while all are wanted.
    lookout: Option<AbortHandle>,
}

/// What a channel or pattern is about.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    View(Name),
    All,
    /// Nothing is ever told there.
    Nothing,
}

/// A channel, or a pattern of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Channel,
    Pattern,
}

impl Feeds {
    pub(super) fn new(views: Views, runtime: Handle) -> Self {
        Self(Arc::new(Inner { views, runtime, state: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, what is told there goes to the outbox.
    pub(super) fn subscribe(&self, kind: Kind, channel: &[u8], outbox: &Arc<Outbox>) {
        let mut state = self.lock();
        let listeners = match kind {
            Kind::Channel => state.channels.entry(channel.to_vec()),
            Kind::Pattern => state.patterns.entry(channel.to_vec()),
        };
        listeners.or_default().push(Arc::clone(outbox));
        match subject(kind, channel) {
            Subject::Nothing => {}
            Subject::View(name) => {
                *state.wanted.entry(name.clone()).or_default() += 1;
                self.run(&mut state, &name);
            }
            Subject::All => {
                state.wide += 1;
                self.run_all(&mut state);
                if state.lookout.is_none() {
                    let feeds = self.clone();
                    let lookout = self.0.runtime.spawn(async move { feeds.look_out().await });
                    state.lookout = Some(lookout.abort_handle());
                }
            }
        }
    }

    /// No longer.
    pub(super) fn unsubscribe(&self, kind: Kind, channel: &[u8], outbox: &Outbox) {
        let mut state = self.lock();
        let by_channel = match kind {
            Kind::Channel => &mut state.channels,
            Kind::Pattern => &mut state.patterns,
        };
        if let Some(listeners) = by_channel.get_mut(channel) {
            listeners.retain(|listener| listener.id != outbox.id);
            if listeners.is_empty() {
                by_channel.remove(channel);
            }
        }
        match subject(kind, channel) {
            Subject::Nothing => return,
            Subject::View(name) => {
                if let Some(count) = state.wanted.get_mut(&name) {
                    *count -= 1;
                    if *count == 0 {
                        state.wanted.remove(&name);
                    }
                }
            }
            Subject::All => state.wide -= 1,
        }
        if state.wide > 0 {
            return;
        }
        if let Some(lookout) = state.lookout.take() {
            lookout.abort();
        }
        let State { wanted, running, .. } = &mut *state;
        running.retain(|name, task| {
            let is_wanted = wanted.contains_key(name);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
    }

    /// Channels with listeners that match, in order.
    pub(super) fn channels(&self, pattern: Option<&[u8]>) -> Vec<Vec<u8>> {
        let state = self.lock();
        let matching = state.channels.keys();
        let matching = matching.filter(|c| pattern.is_none_or(|p| glob::matches(p, c)));
        let mut matching: Vec<_> = matching.cloned().collect();
        matching.sort_unstable();
        matching
    }

    /// How many listen to a channel.
    pub(super) fn listeners(&self, channel: &[u8]) -> usize {
        self.lock().channels.get(channel).map_or(0, Vec::len)
    }

    /// How many patterns there are.
    pub(super) fn patterns(&self) -> usize {
        self.lock().patterns.len()
    }

    /// Stops everything.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.running.drain().for_each(|(_, task)| task.abort());
        if let Some(lookout) = state.lookout.take() {
            lookout.abort();
        }
    }

    fn run(&self, state: &mut State, name: &Name) {
        if state.running.contains_key(name) {
            return;
        }
        // What is folded from here on is told, however long the feed takes to begin.
        let (feeds, name, from) = (self.clone(), name.clone(), self.0.views.position());
        let task = self.0.runtime.spawn({
            let name = name.clone();
            async move { feeds.follow(name, from).await }
        });
        state.running.insert(name, task.abort_handle());
    }

    fn run_all(&self, state: &mut State) {
        let catalog = self.0.views.catalog();
        let keyed = |name: &&Name| catalog.schema_of(name).is_some_and(|s| !s.key.is_empty());
        let names = catalog.relations.keys().chain(catalog.views.keys());
        names.filter(keyed).for_each(|name| self.run(state, name));
    }

    async fn look_out(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut state = self.lock();
            if state.wide > 0 {
                self.run_all(&mut state);
            }
        }
    }

    /// Tells a view's changes, for as long as it is wanted.
    async fn follow(&self, name: Name, from: Position) {
        let mut told = Some(from);
        loop {
            match self.tell(&name, &mut told).await {
                Some(PastError::Pin(PinError::Stopping)) => return,
                // One that comes later is told from where it is found.
                Some(PastError::Pin(PinError::Unknown(_))) | None => told = None,
                Some(error) => tracing::debug!(view = %name, %error, "resp: a feed begins anew"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells a view's changes until they end; gives why. Everything up to `told` was told: a view
    /// that has other columns, or was made anew, goes on from there.
    async fn tell(&self, name: &Name, told: &mut Option<Position>) -> Option<PastError> {
        let from = SubscribeFrom { after: *told, ..SubscribeFrom::default() };
        let mut subscription = match self.0.views.subscribe(name, from).await {
            Ok(subscription) => subscription,
            Err(error) => return Some(error),
        };
        let mut layout = None;
        loop {
            match subscription.next().await? {
                Err(error) => {
                    // What cannot be told from there is not tried again.
                    *told = match error {
                        PastError::Replaced(_) | PastError::Pin(_) => Some(subscription.position()),
                        _ => None,
                    };
                    return Some(error);
                }
                Ok(changes) if changes.deltas.is_empty() => {}
                Ok(changes) => {
                    if layout.is_none() {
                        let snapshot = self.0.views.published(name)?;
                        layout = Some(Layout::new(name.clone(), &snapshot)?);
                    }
                    if let Some(layout) = &layout {
                        self.publish(&events(layout, &changes));
                    }
                }
            }
        }
    }

    /// Tells each changed key to those who listen.
    fn publish(&self, events: &HashMap<Vec<u8>, bool>) {
        let state = self.lock();
        let mut channel = Vec::new();
        for (key, &is_there) in events {
            let event: &[u8] = if is_there { b"hset" } else { b"del" };
            for (prefix, name, payload) in
                [(KEYSPACE, key.as_slice(), event), (KEYEVENT, event, key.as_slice())]
            {
                channel.clear();
                channel.extend_from_slice(prefix);
                channel.extend_from_slice(name);
                for outbox in state.channels.get(&channel).into_iter().flatten() {
                    outbox.add(None, &channel, payload);
                }
                for (pattern, listeners) in &state.patterns {
                    if glob::matches(pattern, &channel) {
                        listeners.iter().for_each(|o| o.add(Some(pattern), &channel, payload));
                    }
                }
            }
        }
    }
}

/// The keys that changed, each with whether it has a row now.
fn events(layout: &Layout, changes: &Changes) -> HashMap<Vec<u8>, bool> {
    let mut events = HashMap::new();
    for Delta { rows, weights } in &changes.deltas {
        for (row, &weight) in weights.values().iter().enumerate() {
            let mut key = Vec::new();
            layout.write_key(rows, row, &mut key);
            // A row that takes another's place comes with the retraction of the other.
            *events.entry(key).or_insert(false) |= weight > 0;
        }
    }
    events
}

fn subject(kind: Kind, channel: &[u8]) -> Subject {
    let (literal, whole) = match kind {
        Kind::Channel => (channel.to_vec(), true),
        Kind::Pattern => glob::literal_prefix(channel),
    };
    let view = literal.strip_prefix(KEYSPACE).filter(|rest| whole || has_name(rest));
    if let Some(rest) = view {
        return key::name(key::split(rest).0).map_or(Subject::Nothing, Subject::View);
    }
    let touches =
        |prefix: &[u8]| literal.starts_with(prefix) || (!whole && prefix.starts_with(&literal));
    match touches(KEYSPACE) || touches(KEYEVENT) {
        true => Subject::All,
        false => Subject::Nothing,
    }
}

/// Whether a name is there whole: up to its colon.
fn has_name(key: &[u8]) -> bool {
    key::unescaped(key, b':').is_some()
}

/// The names of channels that a set holds, for confirmations in order.
pub(super) type Channels = BTreeSet<Vec<u8>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_have_subjects() {
        let view = |name: &str| Subject::View(Name::public(name));
        let of = |kind, text: &str| subject(kind, text.as_bytes());
        assert_eq!(of(Kind::Channel, "__keyspace@0__:v:a"), view("v"));
        assert_eq!(of(Kind::Channel, "__keyspace@0__:v:*"), view("v"));
        assert_eq!(of(Kind::Channel, "__keyspace@0__:v"), view("v"));
        assert_eq!(of(Kind::Channel, "__keyevent@0__:hset"), Subject::All);
        assert_eq!(of(Kind::Channel, "news"), Subject::Nothing);
        assert_eq!(of(Kind::Pattern, "__keyspace@0__:v:*"), view("v"));
        assert_eq!(of(Kind::Pattern, "__keyspace@0__:v*"), Subject::All);
        assert_eq!(of(Kind::Pattern, "__keyspace@?__:v:a"), Subject::All);
        assert_eq!(of(Kind::Pattern, "__key*"), Subject::All);
        assert_eq!(of(Kind::Pattern, "*"), Subject::All);
        assert_eq!(of(Kind::Pattern, "news.*"), Subject::Nothing);
        assert_eq!(of(Kind::Pattern, "__keyspace@1__:*"), Subject::Nothing);
    }
}
