//! Clients: what one connection has said so far, and what its next command gets.
//!
//! Owns: transactions, what is refused and why.
//! Not here: the socket (`connection`), single commands (`hash`, `keyspace`, `admin`, ...).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evert_model::{Position, PositionToken};
use evert_view::{Name, RelationKind};

use super::commands::{Command, Named, Run, named};
use super::door::Shared;
use super::feeds::{Channels, Kind};
use super::hash::too_large;
use super::key;
use super::keyspace;
use super::outbox::Outbox;
use super::reader::{After, Miss, Reader, pin_error};
use super::registry::Entry;
use super::reply::{Out, Protocol, REPLY_BYTES_MAX};
use super::request::{OwnedRequest, Request, integer};

/// What the commands of a transaction may hold, in bytes.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// How long `EVERT.AFTER` and `EVERT.WAIT` wait if they do not say.
const WAIT: Duration = Duration::from_secs(10);

/// What is to be done after a command was looked at.
pub(super) enum Step {
    /// It is answered.
    Done,
    /// It is answered, and the connection is to be closed.
    Close,
    /// It is to be given to [`Client::answer_later`].
    Later,
}

/// One connection's side of the conversation.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry>,
    pub(super) reader: Reader,
    pub(super) outbox: Arc<Outbox>,
    pub(super) channels: Channels,
    pub(super) patterns: Channels,
    /// The commands since MULTI.
    queue: Option<Queue>,
}

#[derive(Default)]
struct Queue {
    requests: Vec<OwnedRequest>,
    bytes: usize,
    /// One of them was refused.
    broken: bool,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, entry: Arc<Entry>) -> Self {
        let outbox = Outbox::new(entry.id, shared.config.outbox_bytes_max);
        Self {
            reader: Reader::new(shared.views.clone()),
            outbox: Arc::new(outbox),
            shared,
            entry,
            channels: Channels::new(),
            patterns: Channels::new(),
            queue: None,
        }
    }

    /// How many channels and patterns it listens to.
    pub(super) fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// Answers a command, if that can be done at once.
    pub(super) fn answer(&mut self, request: Request<'_>, out: &mut Out) -> Step {
        let command = match named(request.get(0)) {
            Named::Command(command) if command.fits(request.len()) => command,
            refused => {
                self.break_queue();
                out.error(&self.refusal(&refused, request));
                return Step::Done;
            }
        };
        if self.queue.is_some()
            && !matches!(command.run, Run::Exec | Run::Discard | Run::Quit | Run::Reset)
        {
            self.enqueue(command, request, out);
            return Step::Done;
        }
        // A client of version 2 could not tell answers from messages.
        if out.protocol == Protocol::V2 && self.subscriptions() > 0 && !may_listen(command) {
            let name = command.name;
            out.error(&format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT \
                 / RESET are allowed in this context"
            ));
            return Step::Done;
        }
        self.run(command, request, out)
    }

    fn run(&mut self, command: &Command, request: Request<'_>, out: &mut Out) -> Step {
        match command.run {
            Run::Read(_) | Run::Scan => return self.read(command, request, out),
            Run::Client(run) => run(self, request, out),
            Run::Keys | Run::After | Run::Wait => return Step::Later,
            Run::Multi if self.queue.is_some() => out.error("ERR MULTI calls can not be nested"),
            Run::Multi => {
                self.queue = Some(Queue::default());
                out.ok();
            }
            Run::Discard => match self.queue.take() {
                Some(_) => out.ok(),
                None => out.error("ERR DISCARD without MULTI"),
            },
            Run::Exec => return self.exec(out),
            Run::Quit => {
                out.ok();
                return Step::Close;
            }
            Run::Reset => {
                self.queue = None;
                self.unsubscribe_all();
                self.reader.set_after(After::Anything, Duration::ZERO);
                self.entry.set_name(String::new());
                out.protocol = Protocol::V2;
                self.outbox.speak(out.protocol);
                out.simple("RESET");
            }
        }
        Step::Done
    }

    /// A command that reads rows.
    fn read(&mut self, command: &Command, request: Request<'_>, out: &mut Out) -> Step {
        let start = out.bytes.len();
        let answer = match command.run {
            Run::Scan => keyspace::scan(&self.shared.cursors, &mut self.reader, request, out),
            Run::Read(read) => read(&mut self.reader, request, out),
            _ => Ok(()),
        };
        let Err(miss) = answer else { return Step::Done };
        out.bytes.truncate(start);
        match miss {
            Miss::NotReady => return Step::Later,
            Miss::Unknown(name) => out.error(&unknown(&name)),
            Miss::Error(error) => out.error(&error),
        }
        Step::Done
    }

    /// Answers a command that has to wait for something.
    pub(super) async fn answer_later(&mut self, request: Request<'_>, out: &mut Out) {
        let Named::Command(command) = named(request.get(0)) else { return };
        match command.run {
            Run::After | Run::Wait => self.wait_for(command, request, out).await,
            Run::Keys => self.keys(request.get(1), out).await,
            _ => self.read_later(command, request, out).await,
        }
    }

    /// Waits until what the command reads is there, and reads it.
    async fn read_later(&mut self, command: &Command, request: Request<'_>, out: &mut Out) {
        let keys = match &self.queue {
            Some(queue) => {
                let requests = queue.requests.iter().map(OwnedRequest::request);
                requests.flat_map(keys_of).map(<[u8]>::to_vec).collect()
            }
            None => command.keys_of(request).into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>(),
        };
        let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
        match self.reader.wait(&keys).await {
            Err(error) => {
                self.queue = None;
                out.error(&error);
            }
            Ok(()) => {
                if let Step::Later = self.run(command, request, out) {
                    self.queue = None;
                    out.error("LOADING a view is being replaced: try again");
                }
            }
        }
        self.reader.unpin();
    }

    async fn keys(&mut self, pattern: &[u8], out: &mut Out) {
        if !self.reader.is_ready()
            && let Err(error) = self.reader.wait(&[]).await
        {
            return out.error(&error);
        }
        if let Err(Miss::Error(error)) = keyspace::check_named(&mut self.reader, Some(pattern)) {
            self.reader.unpin();
            return out.error(&error);
        }
        let rows = self.reader.keyed();
        self.reader.unpin();
        let (pattern, protocol) = (pattern.to_vec(), out.protocol);
        let found = tokio::task::spawn_blocking(move || {
            let mut found = Out::new(protocol);
            keyspace::keys(&rows, &pattern, &mut found).map(|()| found.bytes)
        });
        match found.await {
            Ok(Ok(found)) => out.raw(&found),
            Ok(Err(Miss::Error(error))) => out.error(&error),
            Ok(Err(_)) | Err(_) => out.error("ERR the keys could not be read"),
        }
    }

    /// `EVERT.AFTER token [TIMEOUT ms]` and `EVERT.WAIT token [TIMEOUT ms]`.
    async fn wait_for(&mut self, command: &Command, request: Request<'_>, out: &mut Out) {
        let sticky = matches!(command.run, Run::After);
        let (token, timeout) = match wait_arguments(request) {
            Ok(arguments) => arguments,
            Err(error) => return out.error(&error),
        };
        if sticky && token == PositionToken::Position(Position::ZERO) {
            self.reader.set_after(After::Anything, Duration::ZERO);
            return out.ok();
        }
        let begun = std::time::Instant::now();
        let position = match self.shared.views.resolve(&token, timeout).await {
            Ok(position) => position,
            Err(error) => {
                // A place that is not there yet is waited for by every read; one that cannot be
                // is refused, and what held before holds.
                if sticky && may_come(&error) {
                    self.reader.set_after(After::Unresolved(token), timeout);
                }
                return out.error(&resolve_error(&error));
            }
        };
        if sticky {
            self.reader.set_after(After::Position(position), timeout);
        }
        let left = timeout.saturating_sub(begun.elapsed());
        self.reader.release();
        match self.shared.views.pin(&[], position, left).await {
            Ok(_) if sticky => out.ok(),
            Ok(cut) => out.integer(cut.position.get() as i64),
            Err(error) => out.error(&pin_error(&error)),
        }
    }

    fn enqueue(&mut self, command: &Command, request: Request<'_>, out: &mut Out) {
        let refusal = match command.run {
            Run::Multi => Some("ERR MULTI calls can not be nested".to_owned()),
            Run::Keys | Run::After | Run::Wait => {
                Some(format!("ERR {} is not allowed in a transaction", command.name))
            }
            Run::Client(_) if command.group == "pubsub" => {
                Some(format!("ERR {} is not allowed in a transaction", command.name))
            }
            _ => None,
        };
        let Some(queue) = &mut self.queue else { return };
        let owned = request.to_owned();
        queue.bytes += owned.memory_bytes();
        let refusal = refusal.or_else(|| {
            (queue.bytes > QUEUE_BYTES_MAX).then(|| "ERR the transaction is too large".to_owned())
        });
        match refusal {
            Some(refusal) => {
                self.break_queue();
                out.error(&refusal);
            }
            None => {
                queue.requests.push(owned);
                out.simple("QUEUED");
            }
        }
    }

    fn break_queue(&mut self) {
        if let Some(queue) = &mut self.queue {
            *queue = Queue { broken: true, ..Queue::default() };
        }
    }

    /// Runs the commands since MULTI, all from one cut.
    fn exec(&mut self, out: &mut Out) -> Step {
        let Some(queue) = self.queue.take() else {
            out.error("ERR EXEC without MULTI");
            return Step::Done;
        };
        if queue.broken {
            out.error("EXECABORT Transaction discarded because of previous errors.");
            return Step::Done;
        }
        let start = out.bytes.len();
        out.array(queue.requests.len());
        for queued in &queue.requests {
            let request = queued.request();
            let Named::Command(command) = named(request.get(0)) else { continue };
            if let Step::Later = self.run(command, request, out) {
                out.bytes.truncate(start);
                self.queue = Some(queue);
                return Step::Later;
            }
            if out.bytes.len() - start > REPLY_BYTES_MAX {
                out.bytes.truncate(start);
                if let Miss::Error(error) = too_large() {
                    out.error(&error);
                }
                return Step::Done;
            }
        }
        Step::Done
    }

    /// Why a request is not a command.
    fn refusal(&self, named: &Named, request: Request<'_>) -> String {
        match named {
            Named::Command(command) => {
                format!("ERR wrong number of arguments for '{}' command", command.name)
            }
            Named::Write => self.read_only(request),
            Named::Unknown => {
                /// What is repeated of what was said.
                const SHOWN: usize = 64;
                let shown = |bytes: &[u8]| {
                    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned()
                };
                let arguments: Vec<_> =
                    request.from(1).take(8).map(|word| format!("'{}' ", shown(word))).collect();
                let (name, arguments) = (shown(request.get(0)), arguments.concat());
                format!("ERR unknown command '{name}', with args beginning with: {arguments}")
            }
        }
    }

    /// Says where facts go instead.
    fn read_only(&self, request: Request<'_>) -> String {
        let catalog = self.shared.views.catalog();
        let name = key::name(key::split(request.get(1)).0);
        let name = name.filter(|name| catalog.contains(name));
        let Some(name) = name else {
            return "READONLY rows are read here: facts go into the log, by INSERT through the SQL \
                    door or by producing to a topic through the Kafka door, and every view follows"
                .to_owned();
        };
        if let Some(relation) = catalog.relations.get(&name) {
            if let Some(source) = &relation.source {
                return format!("READONLY \"{name}\" follows source \"{source}\": write it there");
            }
            let change = match relation.kind {
                RelationKind::Stream => "INSERT",
                RelationKind::Table | RelationKind::Bag => "INSERT, UPDATE or DELETE",
            };
            let topic = &relation.topic;
            return format!(
                "READONLY rows are read here: {change} \"{name}\" through the SQL door, or \
                 produce to topic \"{topic}\" through the Kafka door"
            );
        }
        let closure = catalog.closure(std::slice::from_ref(&name));
        let topics: BTreeSet<_> = closure
            .iter()
            .filter_map(|name| catalog.relations.get(name))
            .map(|relation| format!("\"{}\"", relation.topic))
            .collect();
        let topics = topics.into_iter().collect::<Vec<_>>().join(", ");
        format!("READONLY view \"{name}\" is folded from the log: facts go to topic {topics}")
    }

    pub(super) fn unsubscribe_all(&mut self) {
        for channel in std::mem::take(&mut self.channels) {
            self.shared.feeds.unsubscribe(Kind::Channel, &channel, &self.outbox);
        }
        for pattern in std::mem::take(&mut self.patterns) {
            self.shared.feeds.unsubscribe(Kind::Pattern, &pattern, &self.outbox);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.unsubscribe_all();
    }
}

fn may_listen(command: &Command) -> bool {
    let listens = command.group == "pubsub" && command.name != "pubsub";
    listens || matches!(command.name, "ping" | "quit" | "reset")
}

fn keys_of(request: Request<'_>) -> Vec<&[u8]> {
    match named(request.get(0)) {
        Named::Command(command) => command.keys_of(request),
        _ => Vec::new(),
    }
}

fn unknown(name: &Name) -> String {
    format!("ERR there is no relation or view \"{name}\": keys are view:key")
}

fn wait_arguments(request: Request<'_>) -> Result<(PositionToken, Duration), String> {
    let text = String::from_utf8_lossy(request.get(1));
    let token = text.parse().map_err(|error| format!("ERR {error}"))?;
    let timeout = match request.len() {
        2 => WAIT,
        4 if request.get(2).eq_ignore_ascii_case(b"TIMEOUT") => {
            let ms = integer(request.get(3)).and_then(|ms| u64::try_from(ms).ok());
            // A year is enough, and keeps deadlines from overflowing.
            let ms = ms.filter(|ms| *ms <= 365 * 86_400_000);
            Duration::from_millis(ms.ok_or("ERR TIMEOUT is a number of milliseconds")?)
        }
        _ => return Err("ERR syntax error: EVERT.AFTER position [TIMEOUT milliseconds]".into()),
    };
    Ok((token, timeout))
}

/// Whether the place that a token names may come yet: it was only waited for too long.
fn may_come(error: &evert_view::CatalogError) -> bool {
    // The only thing that can be invalid about a known token is its time.
    matches!(error, evert_view::CatalogError::Invalid(_))
}

pub(super) fn resolve_error(error: &evert_view::CatalogError) -> String {
    match error {
        evert_view::CatalogError::Invalid(why) => format!("TIMEOUT {why}"),
        evert_view::CatalogError::Unknown(name) => format!("ERR there is no source \"{name}\""),
        other => format!("ERR {other}"),
    }
}
