//! Which call fails, and how.

use std::io;

use rustix::io::Errno;

/// A kind of call, to count and to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Any call that touches the disk.
    Any,
    /// A call that changes something or makes it durable: a cut of the power between two of
    /// these is the same wherever it falls.
    Change,
    /// `sync_data`.
    SyncData,
    /// `sync_dir`.
    SyncDir,
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The power fails while the call is under way. What the call wrote is as unsynced as what
    /// was written before it.
    PowerOff,
    /// The call fails with EIO. A write may have been done in part; a sync that fails loses,
    /// like Linux's, some of the pages it was to write, and the next sync will not miss them.
    IoError,
    /// The call fails with ENOSPC. A write may have been done in part.
    NoSpace,
}

/// What a call is, as it reports itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Look,
    Change,
    /// A change that takes space.
    Grow,
    SyncData,
    SyncDir,
}

impl Kind {
    fn is(self, call: Call) -> bool {
        match call {
            Call::Any => true,
            Call::Change => self != Self::Look,
            Call::SyncData => self == Self::SyncData,
            Call::SyncDir => self == Self::SyncDir,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Fate {
    is_off: bool,
    is_full: bool,
    scheduled: Vec<Scheduled>,
    counts: [u64; 4],
}

#[derive(Debug)]
struct Scheduled {
    call: Call,
    calls_left: u64,
    mishap: Mishap,
}

const CALLS: [Call; 4] = [Call::Any, Call::Change, Call::SyncData, Call::SyncDir];

impl Fate {
    pub(super) fn schedule(&mut self, call: Call, nth: u64, mishap: Mishap) {
        self.scheduled.push(Scheduled { call, calls_left: nth, mishap });
    }

    pub(super) fn clear(&mut self) {
        self.scheduled.clear();
    }

    pub(super) fn scheduled(&self) -> usize {
        self.scheduled.len()
    }

    pub(super) fn count(&self, call: Call) -> u64 {
        self.counts[call as usize]
    }

    pub(super) fn power_off(&mut self) {
        self.is_off = true;
    }

    pub(super) fn power_on(&mut self) {
        self.is_off = false;
        self.is_full = false;
        self.clear();
    }

    pub(super) fn is_off(&self) -> bool {
        self.is_off
    }

    pub(super) fn set_disk_full(&mut self, full: bool) {
        self.is_full = full;
    }

    /// What happens to this call. With the power off already, it is an error.
    pub(super) fn decide(&mut self, kind: Kind) -> io::Result<Option<Mishap>> {
        if self.is_off {
            return Err(power_is_off());
        }
        for call in CALLS {
            self.counts[call as usize] += u64::from(kind.is(call));
        }
        // Of two mishaps due at one call the second waits for the next call.
        for scheduled in &mut self.scheduled {
            let one = u64::from(kind.is(scheduled.call));
            scheduled.calls_left = scheduled.calls_left.saturating_sub(one);
        }
        let due = self.scheduled.iter().position(|scheduled| scheduled.calls_left == 0);
        let mishap = due.map(|index| self.scheduled.swap_remove(index).mishap);
        self.is_off |= mishap == Some(Mishap::PowerOff);
        Ok(mishap.or((self.is_full && kind == Kind::Grow).then_some(Mishap::NoSpace)))
    }
}

impl Mishap {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::PowerOff => power_is_off(),
            Self::IoError => Errno::IO.into(),
            Self::NoSpace => Errno::NOSPC.into(),
        }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}
