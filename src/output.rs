//! Data goes to stdout through one door: a reader that went away (`| head`) is a quiet end, never a panic.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

/// Writes `text` to stdout. False means that nobody reads any more.
pub(crate) fn print(text: &str) -> Result<bool> {
    let mut output = io::stdout().lock();
    still_read(output.write_all(text.as_bytes()).and_then(|()| output.flush()))
}

/// What became of a write to stdout: false means that nobody reads any more.
pub(crate) fn still_read(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::still_read;

    #[test]
    fn only_a_closed_pipe_is_quiet() {
        assert!(still_read(Ok(())).unwrap());
        assert!(!still_read(Err(Error::from(ErrorKind::BrokenPipe))).unwrap());
        assert!(still_read(Err(Error::from(ErrorKind::StorageFull))).is_err());
    }
}
