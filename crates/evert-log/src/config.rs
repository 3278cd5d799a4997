//! How a log is run: sizes and who does the background work.

/// How a log is run.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The size that journal files are preallocated to.
    pub journal_file_bytes: u64,
    /// The largest segment, whatever a topic's `segment.bytes` allows.
    pub segment_bytes_max: u64,
    /// How much of the newest data is kept in memory. Appends wait while as much is still to
    /// be written behind the journal.
    pub tail_bytes_max: usize,
    /// The largest batch, whatever a topic's `max.message.bytes` allows.
    pub batch_bytes_max: usize,
    /// A checkpoint is due after this many journal bytes.
    pub checkpoint_bytes: u64,
    /// A large commit up to this size stays in memory.
    pub large_memory_bytes: usize,
    /// Who runs the background work.
    pub threads: Threads,
    /// Faults planted on purpose, to show that the tests catch them. Nothing but tests sets them.
    #[doc(hidden)]
    pub planted: Planted,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            journal_file_bytes: 64 << 20,
            segment_bytes_max: 1 << 30,
            tail_bytes_max: 256 << 20,
            batch_bytes_max: 64 << 20,
            checkpoint_bytes: 192 << 20,
            large_memory_bytes: 4 << 20,
            threads: Threads::Real,
            planted: Planted::default(),
        }
    }
}

impl LogConfig {
    pub(crate) fn acks_before_sync(&self) -> bool {
        self.planted.ack_before_sync
    }

    pub(crate) fn cuts_at_first_bad_frame(&self) -> bool {
        self.planted.cut_at_first_bad_frame
    }
}

/// Who runs the log's background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Threads of the log's own.
    Real,
    /// Whoever calls [`Log::pump`](crate::Log::pump). Nothing becomes durable otherwise, except
    /// in calls that must wait for it (such as `create_topic`), which pump by themselves.
    Manual,
}

/// Faults planted on purpose.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// Acknowledges a group before the journal is synced.
    pub ack_before_sync: bool,
    /// Recovery cuts at the first bad frame, whatever later marks say.
    pub cut_at_first_bad_frame: bool,
}
