//! Search: full-text indexes folded from the log.
