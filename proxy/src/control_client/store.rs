//! The last good snapshot on disk, so that a proxy that restarts while the control plane is down decides as before.
//!
//! One file: a line with name and format version, a line with the SHA-256 of all that follows, the workload, the time, and
//! the snapshot as it came over the wire. Written beside, synced, renamed: a crash leaves the old one or the new one. It is
//! policy, not a secret, but whoever could write it would decide for this proxy; so it is 0600, and not read otherwise.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use palisade_wire::control;
use prost::Message;
use thiserror::Error;

use super::session::from_wire;
use super::{ClientError, RawSnapshot};

const FILE: &str = "snapshot";
const TEMPORARY: &str = "snapshot.new";
const MAGIC: &str = "palisade-snapshot ";
const FORMAT: u32 = 1;
/// Beyond what the control plane may send.
const LARGEST: u64 = 160 * 1024 * 1024;

/// The place of one workload's last good snapshot.
#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
    node: String,
}

/// A snapshot from disk.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) snapshot: RawSnapshot,
    /// When it was saved, in seconds since 1970.
    pub(super) saved: u64,
}

/// Why there is none.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error("`{}` is of format {found}, newer than {known}", file.display())]
    Newer { file: PathBuf, found: u32, known: u32 },
    #[error("`{}` cannot be used: {reason}", file.display())]
    Unusable { file: PathBuf, reason: String },
}

impl Store {
    /// Makes the directory where it is missing.
    pub(super) fn open(dir: &Path, node: String) -> Result<Self, ClientError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| ClientError::StateDir { dir: dir.to_owned(), source })?;
        Ok(Self { dir: dir.to_owned(), node })
    }

    /// The kept snapshot; `None` where none was ever kept.
    pub(super) fn load(&self) -> Result<Option<Kept>, LoadError> {
        let file = self.dir.join(FILE);
        let unusable = |reason: String| LoadError::Unusable { file: file.clone(), reason };
        let bytes = match read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(error.to_string())),
        };
        match parse(&bytes, &self.node) {
            Ok(kept) => Ok(Some(kept)),
            Err(Flaw::Newer(found)) => Err(LoadError::Newer { file, found, known: FORMAT }),
            Err(Flaw::Broken(reason)) => Err(unusable(reason.to_owned())),
        }
    }

    /// Replaces the kept snapshot.
    pub(super) fn save(&self, snapshot: &RawSnapshot, now: u64) -> io::Result<()> {
        let temporary = self.dir.join(TEMPORARY);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&render(snapshot, &self.node, now))?;
        file.sync_all()?;
        fs::rename(&temporary, self.dir.join(FILE))?;
        File::open(&self.dir)?.sync_all()
    }
}

enum Flaw {
    Newer(u32),
    Broken(&'static str),
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("mode is {:o}, others may have written it", meta.mode() & 0o777)));
    }
    if meta.len() > LARGEST {
        return Err(io::Error::other("larger than any snapshot"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn render(snapshot: &RawSnapshot, node: &str, now: u64) -> Vec<u8> {
    let mut body = format!("{node}\n{now}\n").into_bytes();
    let document = |text: &palisade_policies::SourceText| control::Document {
        file: text.file.to_string(),
        first_line: text.first_line,
        text: text.text.to_string(),
    };
    let message = control::Snapshot {
        revision: snapshot.revision.clone(),
        documents: snapshot.documents.iter().map(document).collect(),
        mesh: snapshot.mesh.as_ref().map(document),
    };
    body.extend(message.encode_to_vec());
    let mut out = format!("{MAGIC}{FORMAT}\n{}\n", checksum(&body)).into_bytes();
    out.extend(body);
    out
}

fn parse(bytes: &[u8], node: &str) -> Result<Kept, Flaw> {
    let broken = Flaw::Broken;
    let (first, rest) = line(bytes).ok_or(broken("no header"))?;
    let version = first.strip_prefix(MAGIC).ok_or(broken("not a snapshot"))?;
    match version.parse::<u32>() {
        Ok(FORMAT) => {}
        Ok(newer) if newer > FORMAT => return Err(Flaw::Newer(newer)),
        _ => return Err(broken("no format version")),
    }
    let (sum, body) = line(rest).ok_or(broken("no checksum"))?;
    if sum != checksum(body) {
        return Err(broken("checksum does not match"));
    }
    let (owner, rest) = line(body).ok_or(broken("no workload"))?;
    if owner != node {
        return Err(broken("of another workload"));
    }
    let (saved, rest) = line(rest).ok_or(broken("no time"))?;
    let saved = saved.parse().map_err(|_| broken("no time"))?;
    let message = control::Snapshot::decode(rest).map_err(|_| broken("not readable"))?;
    let snapshot = from_wire(message);
    if !snapshot.is_intact() {
        return Err(broken("content is not that of its revision"));
    }
    Ok(Kept { snapshot, saved })
}

/// The first line of `bytes`, and what follows it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(1024).position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((str::from_utf8(line).ok()?, rest.get(1..)?))
}

fn checksum(bytes: &[u8]) -> String {
    let sum = digest(&SHA256, bytes);
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
