//! How far a source may be confirmed.
//!
//! Invariant: what is confirmed to the source is durable in the log, always. Postgres throws away
//! what is confirmed, so a confirmation ahead of the log loses facts for good at the next crash.

use evert_model::Lsn;

/// The ends of what was appended and of what is durable.
#[derive(Debug)]
pub(crate) struct Progress {
    appended: Lsn,
    durable: Lsn,
    /// Planted by a test that has to notice: confirm what was only appended.
    #[cfg(test)]
    confirms_early: bool,
}

impl Progress {
    /// Everything up to `durable` is in the log.
    pub(crate) fn new(durable: Lsn) -> Self {
        Self {
            appended: durable,
            durable,
            #[cfg(test)]
            confirms_early: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn confirm_early(mut self, planted: bool) -> Self {
        self.confirms_early = planted;
        self
    }

    /// The end of the last commit that was queued.
    pub(crate) fn appended(&self) -> Lsn {
        self.appended
    }

    /// A commit up to `end` was queued, behind all before it.
    pub(crate) fn append(&mut self, end: Lsn) {
        self.appended = self.appended.max(end);
    }

    /// The commit up to `end` is durable, and so are all before it.
    pub(crate) fn settle(&mut self, end: Lsn) {
        assert!(end <= self.appended, "only what was appended becomes durable");
        self.durable = self.durable.max(end);
    }

    /// What the source may throw away.
    pub(crate) fn confirmable(&self) -> Lsn {
        #[cfg(test)]
        if self.confirms_early {
            return self.appended;
        }
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_durable_is_confirmable() {
        let mut progress = Progress::new(Lsn::new(10));
        progress.append(Lsn::new(20));
        progress.append(Lsn::new(30));
        assert_eq!(progress.confirmable(), Lsn::new(10));
        progress.settle(Lsn::new(20));
        assert_eq!(progress.confirmable(), Lsn::new(20));
        progress.settle(Lsn::new(30));
        assert_eq!(progress.confirmable(), Lsn::new(30));
    }
}
