//! Opening a log: from the checkpoint, and from what the journal holds after it.
//!
//! What is kept of the journal goes through order and segments, is synced there and recorded in
//! a new checkpoint before anything is served; appends go on in a new journal file. Until that
//! checkpoint is durable nothing that recovery needs has changed, so that it can be cut off at
//! any point and begun again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use evert_env::{Env, Files};
use evert_model::{LogTime, Position};
use tokio::sync::watch;
use uuid::Uuid;

use crate::behind::{Behind, PartitionLog, STEP_BYTES_MAX};
use crate::checkpoint::{self, Checkpoint, PartitionInfo};
use crate::clock::LogClock;
use crate::core::{Core, Pending, slots_of};
use crate::entry::{Body, Slot, Span};
use crate::inner::{Inner, JournalState};
use crate::journal::{self, Copy, Group, Journal, JournalCommit, Payload, Place};
use crate::order::OrderWriter;
use crate::segment::{Cursor, Segment, SegmentInfo, SegmentName, segment_path};
use crate::topic::{CATALOG_NUMBER, Fact, catalog_topic};
use crate::{LogConfig, LogId, OpenError};

const READ_BYTES: usize = 1 << 20;

/// Opens the log in `dir`, or makes one.
pub(crate) fn open(env: Env, dir: PathBuf, config: LogConfig) -> Result<Inner, OpenError> {
    let files = Arc::clone(&env.files);
    make_dirs(&*files, &dir)?;
    let exclusive = lock(&*files, &dir)?;
    let from = match Checkpoint::load(&*files, &dir)? {
        Some(checkpoint) => checkpoint,
        None => first_checkpoint(&env, &dir)?,
    };
    let inner = restore(env, dir, config, &from, exclusive)?;
    replay_journal(&inner, from.journal)?;
    begin_anew(&inner, from.journal)?;
    Ok(inner)
}

fn make_dirs(files: &dyn Files, dir: &Path) -> Result<(), OpenError> {
    for name in ["journal", "order", "segments"] {
        let path = dir.join(name);
        files.create_dir_all(&path).map_err(OpenError::io(&path))?;
    }
    files.sync_dir(dir).map_err(OpenError::io(dir))?;
    // Which of the directories above are new is not known: a start that was cut off may have
    // made them. Those that belong to someone else cannot have been.
    for above in dir.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
        match files.sync_dir(above) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            outcome => outcome.map_err(OpenError::io(above))?,
        }
    }
    Ok(())
}

fn lock(files: &dyn Files, dir: &Path) -> Result<Box<dyn Send + Sync>, OpenError> {
    let path = dir.join("lock");
    files.lock(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::Locked(dir.to_path_buf()),
        _ => OpenError::io(&path)(error),
    })
}

/// The checkpoint of an empty log. Nothing else is written before it, so that without one
/// there can be no files either.
fn first_checkpoint(env: &Env, dir: &Path) -> Result<Checkpoint, OpenError> {
    for name in ["journal", "order", "segments"] {
        let path = dir.join(name);
        if !env.files.list(&path).map_err(OpenError::io(&path))?.is_empty() {
            let path = checkpoint::path(dir);
            return Err(OpenError::damaged(&path, 0, "the checkpoint is missing"));
        }
    }
    let checkpoint = Checkpoint {
        id: LogId(random_uuid(env)),
        position: Position::ZERO,
        log_time: LogTime::new(0),
        journal: Place { generation: 1, byte: 0 },
        order: Vec::new(),
        created: Vec::new(),
        partitions: Vec::new(),
    };
    checkpoint.store(&*env.files, dir).map_err(OpenError::io(&checkpoint::path(dir)))?;
    Ok(checkpoint)
}

pub(crate) fn random_uuid(env: &Env) -> Uuid {
    let mut bytes = [0; 16];
    env.random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The log as it was at the checkpoint.
fn restore(
    env: Env,
    dir: PathBuf,
    config: LogConfig,
    from: &Checkpoint,
    exclusive: Box<dyn Send + Sync>,
) -> Result<Inner, OpenError> {
    let files = Arc::clone(&env.files);
    let order = OrderWriter::open(
        Arc::clone(&files),
        dir.join("order"),
        from.order.clone(),
        from.position,
    )?;
    let clock = LogClock::start(&*env.clock, from.log_time);
    let mut core = Core::new(clock, from.position, from.log_time, catalog_topic());
    let mut behind = Behind::new(order, from);
    // The catalog is the topic of the lowest number, so it is folded before it is asked.
    let mut partitions: Vec<&PartitionInfo> = from.partitions.iter().collect();
    partitions.sort_by_key(|info| info.slot);
    for info in partitions {
        restore_partition(&*files, &dir, &config, info, &mut core, &mut behind)?;
        if info.slot.topic == CATALOG_NUMBER {
            fold_catalog(&mut core, from)?;
        }
    }
    core.gone.clear();
    let journal = journal(&files, &dir, &config, Place { generation: 0, byte: 0 }, Vec::new());
    let last = env.clock.monotonic();
    Ok(Inner {
        id: from.id,
        order: behind.order.index(),
        core: Mutex::new(core),
        journal: Mutex::new(JournalState { journal, last }),
        behind: Mutex::new(behind),
        catalog: Mutex::new(()),
        journal_work: Condvar::new(),
        behind_work: Condvar::new(),
        room: Condvar::new(),
        end: watch::Sender::new(from.position),
        exclusive: Mutex::new(Some(exclusive)),
        env,
        dir,
        config,
    })
}

fn journal(
    files: &Arc<dyn Files>,
    dir: &Path,
    config: &LogConfig,
    start: Place,
    spares: Vec<u64>,
) -> Journal {
    let dir = dir.join("journal");
    Journal::new(Arc::clone(files), dir, config.journal_file_bytes, start.generation, spares)
}

fn restore_partition(
    files: &dyn Files,
    dir: &Path,
    config: &LogConfig,
    info: &PartitionInfo,
    core: &mut Core,
    behind: &mut Behind,
) -> Result<(), OpenError> {
    // Deleted topics are gone from checkpoints, so the catalog knows this one.
    let Some(topic) = core.topic(info.slot.topic) else {
        let path = checkpoint::path(dir);
        return Err(OpenError::damaged(
            &path,
            0,
            "a partition of a topic that is not in the catalog",
        ));
    };
    let segment_bytes = topic.settings.segment_bytes.min(config.segment_bytes_max);
    let mut segments = Vec::new();
    for segment in &info.segments {
        let path =
            segment_path(&dir.join("segments"), info.topic, info.slot.partition, segment.name);
        let segment = Segment::open(files, path, *segment)?;
        // The last one may be appended to.
        if segments.len() + 1 < info.segments.len() {
            segment.seal(true);
        }
        segments.push(Arc::new(segment));
    }
    let Some(partition) = core.partition_mut(info.slot) else {
        let path = checkpoint::path(dir);
        return Err(OpenError::damaged(&path, 0, "a partition that its topic does not have"));
    };
    partition.log_start = info.log_start;
    partition.next = info.next;
    partition.high_watermark = info.next;
    partition.producers = info.producers.clone();
    partition.segments = segments.clone();
    behind.partitions.insert(info.slot, PartitionLog::restored(info, segments, segment_bytes));
    Ok(())
}

/// Folds the catalog's records into topics.
fn fold_catalog(core: &mut Core, from: &Checkpoint) -> Result<(), OpenError> {
    let slot = Slot { topic: CATALOG_NUMBER, partition: 0 };
    let segments = core.partition(slot).map(|p| p.segments.clone()).unwrap_or_default();
    for segment in segments {
        let mut cursor = Cursor { byte: 0, offset: segment.base };
        loop {
            let batches = segment.read(&mut cursor, READ_BYTES)?;
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                let unreadable = "a record of the topic catalog cannot be read";
                let facts = Fact::decode(&batch)
                    .ok_or_else(|| OpenError::damaged(segment.path(), cursor.byte, unreadable))?;
                for fact in facts {
                    let position = created_at(&fact, from);
                    core.apply_fact(fact, position);
                }
            }
        }
    }
    core.next_producer = core.producers_below;
    Ok(())
}

fn created_at(fact: &Fact, from: &Checkpoint) -> Position {
    let Fact::Created { number, .. } = fact else { return Position::ZERO };
    let found = from.created.iter().find(|(known, _)| known == number);
    found.map_or(Position::ZERO, |(_, position)| *position)
}

/// Takes what the journal holds after the checkpoint, a group at a time.
fn replay_journal(inner: &Inner, start: Place) -> Result<(), OpenError> {
    let dir = inner.dir.join("journal");
    let cut_always = inner.config.cuts_at_first_bad_frame();
    journal::scan(&*inner.env.files, &dir, start, cut_always, |group| {
        let (end, at) = (group.end, journal::file_path(&dir, group.end.generation));
        let impossible = |what| OpenError::Damaged { path: at.clone(), byte: end.byte, what };
        let pending = restore_group(inner, group, &impossible)?;
        let bytes: usize = pending.iter().map(|pending| pending.commit.bytes()).sum();
        let mut core = inner.lock();
        core.unwritten_bytes += bytes;
        if !core.publish(pending, bytes, end) {
            return Err(impossible("a record of the topic catalog cannot be read"));
        }
        let much = core.unwritten_bytes >= STEP_BYTES_MAX;
        drop(core);
        if much { write_behind(inner) } else { Ok(()) }
    })?;
    write_behind(inner)
}

fn write_behind(inner: &Inner) -> Result<(), OpenError> {
    let mut behind = inner.behind.lock().expect("no holder panics");
    while behind.step(inner).map_err(OpenError::io(&inner.dir))? {}
    Ok(())
}

fn restore_group(
    inner: &Inner,
    group: Group,
    impossible: &dyn Fn(&'static str) -> OpenError,
) -> Result<Vec<Pending>, OpenError> {
    let mut pending = Vec::new();
    for commit in group.commits {
        let entry = &commit.entry;
        let mut core = inner.lock();
        if entry.position <= core.assigned {
            return Err(impossible("a commit whose position was given out before"));
        }
        core.assigned = entry.position;
        if let Body::Data(spans) = &entry.body {
            restore_offsets(&mut core, spans, &commit).map_err(impossible)?;
        }
        drop(core);
        let segments = match (&entry.body, &commit.payload) {
            (Body::Data(spans), Payload::Copies(copies)) => {
                open_copies(inner, spans, copies, entry.position)?
            }
            _ => Vec::new(),
        };
        pending.push(Pending { commit, segments });
    }
    Ok(pending)
}

/// Counts a commit's offsets and sequences as they were given out.
fn restore_offsets(
    core: &mut Core,
    spans: &[Span],
    commit: &JournalCommit,
) -> Result<(), &'static str> {
    for span in spans {
        // A deleted topic's partitions count no more.
        let Some(partition) = core.partition_mut(span.slot) else { continue };
        if partition.next != span.first {
            return Err("a commit at offsets that do not follow");
        }
        partition.next = span.end();
    }
    let Payload::Inline(batches) = &commit.payload else { return Ok(()) };
    let mut placed = 0;
    for (slot, batch) in slots_of(spans, batches) {
        placed += 1;
        if let Some(partition) = core.partition_mut(slot) {
            let (position, time) = (commit.entry.position, commit.entry.log_time);
            partition.producers.take(batch.header(), position, time);
        }
    }
    match placed == batches.len() {
        true => Ok(()),
        false => Err("a commit whose batches are not where it says"),
    }
}

fn open_copies(
    inner: &Inner,
    spans: &[Span],
    copies: &[Copy],
    position: Position,
) -> Result<Vec<Arc<Segment>>, OpenError> {
    let mut segments = Vec::new();
    for (span, copy) in spans.iter().zip(copies) {
        let name = SegmentName::Copy(copy.number);
        let info = SegmentInfo {
            name,
            base: span.first,
            end: span.end(),
            bytes: copy.bytes,
            first_position: position,
            max_timestamp: copy.max_timestamp,
        };
        // A topic takes no commits once its deletion is ordered, so this one is there.
        let Some(topic) = inner.lock().topic(span.slot.topic).map(|state| state.topic.id) else {
            let what = "a large commit to a topic that is not in the catalog";
            return Err(OpenError::damaged(&inner.dir, 0, what));
        };
        let path = segment_path(&inner.dir.join("segments"), topic, span.slot.partition, name);
        segments.push(Arc::new(Segment::open(&*inner.env.files, path, info)?));
    }
    Ok(segments)
}

/// Makes what was recovered durable in order and segments, removes what belongs to nothing and
/// lets appends go on in a new journal file.
fn begin_anew(inner: &Inner, scanned_from: Place) -> Result<(), OpenError> {
    let files = &inner.env.files;
    let journal_dir = inner.dir.join("journal");
    let found: Vec<u64> = files
        .list(&journal_dir)
        .map_err(OpenError::io(&journal_dir))?
        .iter()
        .filter_map(|path| journal::generation_of(path))
        .collect();
    let newest = found.iter().copied().max().unwrap_or(0).max(scanned_from.generation);
    let start = Place { generation: newest + 1, byte: 0 };
    let mut behind = inner.behind.lock().expect("no holder panics");
    behind.checkpoint(inner, Some(start)).map_err(OpenError::io(&inner.dir))?;
    remove_strays(&**files, &inner.dir.join("segments"), |path| behind.owns(path))?;
    remove_strays(&**files, &inner.dir.join("order"), |path| behind.order.owns(path))?;
    let mut journal = journal(files, &inner.dir, &inner.config, start, found);
    journal.recycle(start).map_err(OpenError::io(&journal_dir))?;
    inner.journal.lock().expect("no holder panics").journal = journal;
    let mut core = inner.lock();
    core.next_producer = core.producers_below;
    core.clock = LogClock::start(&*inner.env.clock, core.end_time);
    behind.opened_at = Some(core.log_now(&*inner.env.clock));
    let end = core.end;
    drop(core);
    inner.end.send_replace(end);
    Ok(())
}

fn remove_strays(
    files: &dyn Files,
    dir: &Path,
    owned: impl Fn(&Path) -> bool,
) -> Result<(), OpenError> {
    for path in files.list(dir).map_err(OpenError::io(dir))? {
        // Whether names come with their directory is the world's affair.
        let path = dir.join(path);
        if !owned(&path) {
            files.remove(&path).map_err(OpenError::io(&path))?;
        }
    }
    Ok(())
}
