//! Whether anybody still wants what a thread works on.
//!
//! Whoever hands a thread work that may take long, and may be given up meanwhile, says by which flag
//! ([`works_unless`]); what can stop halfway asks ([`is_unwanted`]).

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    static UNWANTED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// While it lives, this thread works for whoever holds its flag.
#[derive(Debug)]
pub struct WorksUnless {
    before: Option<Arc<AtomicBool>>,
}

impl Drop for WorksUnless {
    fn drop(&mut self) {
        UNWANTED.set(self.before.take());
    }
}

/// From here on what this thread works on is unwanted once the flag is set. Until the guard is
/// dropped.
#[must_use]
pub fn works_unless(unwanted: &Arc<AtomicBool>) -> WorksUnless {
    WorksUnless { before: UNWANTED.replace(Some(Arc::clone(unwanted))) }
}

/// Whether what this thread works on is wanted no more.
pub fn is_unwanted() -> bool {
    let is_set = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
    // A thread that ends has no flag any more.
    let answer = UNWANTED.try_with(|flag| flag.borrow().as_ref().is_some_and(is_set));
    answer.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_flag_says_so() {
        let [outer, inner] = [true, false].map(|set| Arc::new(AtomicBool::new(set)));
        assert!(!is_unwanted());
        let _outer = works_unless(&outer);
        assert!(is_unwanted());
        let guard = works_unless(&inner);
        assert!(!is_unwanted());
        inner.store(true, Ordering::Relaxed);
        assert!(is_unwanted());
        drop(guard);
        outer.store(false, Ordering::Relaxed);
        assert!(!is_unwanted());
    }
}
