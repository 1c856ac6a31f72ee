//! Reading the files that a user names: a file, a directory of `*.yaml` and `*.yml`, or `-` for standard input.
//! Kubernetes mounts a ConfigMap as symbolic links beside hidden directories that hold the same files: links to files
//! are followed, hidden names are not read.

use std::os::unix::fs::FileTypeExt as _;
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use crate::{Diagnostic, MAX_TEXT_BYTES, MAX_TOTAL_BYTES, SourceText, catalogue::reading};

/// How deep directories are read.
const MAX_DIRECTORY_DEPTH: usize = 32;

/// Why a path could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read `{path}`")]
    Io {
        /// The path.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not UTF-8.
    #[error("`{path}` is not UTF-8: byte {offset}, line {line}")]
    NotUtf8 {
        /// The path.
        path: String,
        /// The offset of the first byte that is not UTF-8, counted from 0.
        offset: usize,
        /// Its line, counted from 1.
        line: u32,
        /// Its column in characters, counted from 1.
        column: u32,
    },
    /// The file, or all files together, are too large.
    #[error("`{path}` is too large: more than {limit} bytes")]
    TooLarge {
        /// The path.
        path: String,
        /// The limit that was passed.
        limit: usize,
    },
    /// A pipe, a socket or a device: it may never end.
    #[error("`{path}` is neither a file nor a directory")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// Directories are nested deeper than is read.
    #[error("`{path}` is nested deeper than {limit} directories")]
    TooDeep {
        /// The path.
        path: String,
        /// The limit that was passed.
        limit: usize,
    },
}

impl ReadError {
    /// The finding to which one unreadable file comes; `None` for what is not about the bytes of one file.
    fn finding(&self) -> Option<Diagnostic> {
        let (what, path, line, column, message) = match self {
            Self::NotUtf8 { path, offset, line, column } => {
                (&reading::NOT_UTF8, path, *line, *column, format!("byte {offset} of the file is not UTF-8"))
            }
            Self::TooLarge { path, limit: MAX_TEXT_BYTES } => {
                (&reading::TOO_LARGE, path, 1, 1, format!("more than {MAX_TEXT_BYTES} bytes"))
            }
            Self::TooLarge { path, .. } => {
                (&reading::TOO_LARGE, path, 1, 1, format!("all texts together have more than {MAX_TOTAL_BYTES} bytes"))
            }
            Self::Io { .. } | Self::NotAFile { .. } | Self::TooDeep { .. } => return None,
        };
        Some(Diagnostic {
            code: what.code,
            severity: what.severity,
            file: Arc::from(path.as_str()),
            line,
            column,
            field: String::new(),
            message,
            fix: what.fix.to_owned(),
        })
    }
}

/// What several paths gave.
#[derive(Debug, Default)]
pub struct Texts {
    /// The files that are texts.
    pub texts: Vec<SourceText>,
    /// The others, one finding each: such a file counts as one refused document.
    pub refused: Vec<Diagnostic>,
}

/// Reads as [`read_paths`] does, but a file that is no UTF-8 or too large is a finding, and the others are still read: an
/// author wants to know everything at once.
///
/// # Errors
///
/// The first path that cannot be opened or read at all.
pub fn read_each(paths: &[PathBuf]) -> Result<Texts, ReadError> {
    let mut reader = Reader { texts: Vec::new(), refused: Some(Vec::new()), bytes: 0 };
    reader.paths(paths)?;
    Ok(Texts { texts: reader.texts, refused: reader.refused.unwrap_or_default() })
}

/// Reads files, directories (recursively, sorted by name, hidden names left out) and standard input (`-`).
///
/// A named file is read whatever its name; an empty directory gives nothing; links to directories inside a
/// directory are not followed.
///
/// # Errors
///
/// The first path that cannot be read; see [`ReadError`].
pub fn read_paths(paths: &[PathBuf]) -> Result<Vec<SourceText>, ReadError> {
    let mut reader = Reader { texts: Vec::new(), refused: None, bytes: 0 };
    reader.paths(paths)?;
    Ok(reader.texts)
}

struct Reader {
    texts: Vec<SourceText>,
    /// Where files that are no text are collected; without it the first ends the reading.
    refused: Option<Vec<Diagnostic>>,
    bytes: usize,
}

impl Reader {
    fn paths(&mut self, paths: &[PathBuf]) -> Result<(), ReadError> {
        for path in paths {
            if path.as_os_str() == "-" {
                self.add("-".to_owned(), io::stdin().lock())?;
                continue;
            }
            let kind = metadata(path)?;
            if kind.is_dir() {
                self.directory(path, 0)?;
            } else if kind.is_file() || is_own_pipe(path, &kind) {
                self.file(path)?;
            } else {
                return Err(ReadError::NotAFile { path: name(path) });
            }
        }
        Ok(())
    }

    fn directory(&mut self, directory: &Path, depth: usize) -> Result<(), ReadError> {
        if depth >= MAX_DIRECTORY_DEPTH {
            return Err(ReadError::TooDeep { path: name(directory), limit: MAX_DIRECTORY_DEPTH });
        }
        let failed = |source| ReadError::Io { path: name(directory), source };
        let entries: Result<Vec<_>, io::Error> = fs::read_dir(directory).map_err(failed)?.collect();
        let mut entries = entries.map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(|source| ReadError::Io { path: name(&path), source })?;
            if kind.is_dir() {
                self.directory(&path, depth + 1)?;
            } else if is_yaml(&path) && (kind.is_file() || (kind.is_symlink() && metadata(&path)?.is_file())) {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), ReadError> {
        let file = fs::File::open(path).map_err(|source| ReadError::Io { path: name(path), source })?;
        self.add(name(path), file)
    }

    fn add(&mut self, path: String, from: impl Read) -> Result<(), ReadError> {
        let Err(error) = self.text(path, from) else { return Ok(()) };
        match (&mut self.refused, error.finding()) {
            (Some(refused), Some(finding)) => refused.push(finding),
            _ => return Err(error),
        }
        Ok(())
    }

    fn text(&mut self, path: String, from: impl Read) -> Result<(), ReadError> {
        let limit = MAX_TEXT_BYTES.min(MAX_TOTAL_BYTES.saturating_sub(self.bytes));
        let mut bytes = Vec::new();
        let wanted = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        if let Err(source) = from.take(wanted).read_to_end(&mut bytes) {
            return Err(ReadError::Io { path, source });
        }
        if bytes.len() > limit {
            return Err(ReadError::TooLarge { path, limit });
        }
        self.bytes += bytes.len();
        let text = String::from_utf8(bytes).map_err(|error| not_utf8(&path, &error))?;
        self.texts.push(SourceText { file: Arc::from(path), first_line: 1, text: Arc::from(text) });
        Ok(())
    }
}

fn metadata(path: &Path) -> Result<fs::Metadata, ReadError> {
    fs::metadata(path).map_err(|source| ReadError::Io { path: name(path), source })
}

fn not_utf8(path: &str, error: &std::string::FromUtf8Error) -> ReadError {
    let offset = error.utf8_error().valid_up_to();
    let before = error.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    // Up to the offset it is UTF-8: every byte that continues no character begins one.
    let own = error.as_bytes().iter().take(offset).rev().take_while(|byte| **byte != b'\n');
    let column = number(own.filter(|byte| **byte & 0xc0 != 0x80).count());
    ReadError::NotUtf8 { path: path.to_owned(), offset, line: number(before), column }
}

/// A pipe that the shell has opened for this process (`-f <(command)`): its writer is there, or it ends.
fn is_own_pipe(path: &Path, metadata: &fs::Metadata) -> bool {
    let opened = ["/dev/fd", "/dev/stdin", "/proc/self/fd"].iter().any(|own| path.starts_with(own));
    opened && metadata.file_type().is_fifo()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
