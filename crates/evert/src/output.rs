//! Standard output, whose reader may leave before the end (`evert consume orders | head`).
//!
//! Invariants
//! - A closed output ends a command in good order and quietly; it never panics.

use std::fmt;
use std::io::{self, ErrorKind, Stdout, Write};

use anyhow::Result;

/// Nobody reads the output any more.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for Closed {}

/// Standard output; its errors tell a reader that has left from other broken pipes.
pub(crate) struct Output(Stdout);

impl Output {
    pub(crate) fn new() -> Self {
        Self(io::stdout())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(told)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(told)
    }
}

fn told(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, Closed),
        _ => error,
    }
}

/// Prints a text.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut output = Output::new();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

/// Whether a command ended because nobody reads its output.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause.is_some_and(|cause| cause.is::<Closed>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_output_s_own_end_is_quiet() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_closed(&anyhow::Error::from(told(broken())).context("printing")));
        assert!(!is_closed(&anyhow::Error::from(broken())));
    }
}
