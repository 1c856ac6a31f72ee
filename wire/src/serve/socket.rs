//! A Unix listening socket that appears whole, with its mode, and goes away with its owner.
//!
//! A process that was killed leaves its socket file behind; a live one must never lose its own.
//! So the file that stands in the way is removed only after a connection to it was refused, and
//! the new one is moved over it, never unlinked first: no moment exists without a socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

use super::accept::Accept;

const BACKLOG: i32 = 4_096;
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Why a Unix socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers on it.
    #[error("`{}` is served by another process", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket stands there; it is left alone.
    #[error("`{}` exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// Longer than the 107 bytes the kernel takes, or without a file name.
    #[error("`{}` is not usable as a socket path", .0.display())]
    Path(PathBuf),
    /// The file system or the socket layer refused.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A bound, listening Unix socket. Dropping it removes its file, unless the path has meanwhile
/// been taken over by another socket.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl UnixSocket {
    /// Binds `path` with exactly `mode` (for example `0o600`), replacing a dead socket.
    ///
    /// Must be called within a tokio runtime. The directory must exist.
    ///
    /// # Errors
    /// [`SocketError`]; nothing has changed then.
    pub fn bind(path: impl Into<PathBuf>, mode: u32) -> Result<Self, SocketError> {
        let path = path.into();
        refuse_occupied(&path)?;
        let temporary = temporary_name(&path)?;
        let bound = listen(&temporary, mode).and_then(|listener| {
            let metadata = fs::symlink_metadata(&temporary)?;
            fs::rename(&temporary, &path)?;
            Ok((listener, (metadata.dev(), metadata.ino())))
        });
        match bound {
            Ok((listener, inode)) => Ok(Self { listener, path, inode }),
            Err(source) => {
                // Whatever was made under the temporary name is ours alone.
                drop(fs::remove_file(&temporary));
                Err(SocketError::Io { action: "bind", path, source })
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket file is left behind");
        }
    }
}

impl Accept for UnixSocket {
    type Connection = UnixStream;

    async fn accept(&mut self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

fn refuse_occupied(path: &Path) -> Result<(), SocketError> {
    let failed = |action, source| SocketError::Io { action, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    // Not blocking: a full queue answers "again", and somebody alive is behind it.
    match try_connect(path) {
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::InUse(path.to_owned())),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        Err(error) => Err(failed("test", error.into())),
    }
}

fn try_connect(path: &Path) -> Result<(), Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

fn temporary_name(path: &Path) -> Result<PathBuf, SocketError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unusable = || SocketError::Path(path.to_owned());
    path.file_name().ok_or_else(unusable)?;
    // Short, because the temporary path has to fit in a socket address too.
    let name = format!(".{:x}.{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = path.with_file_name(name);
    for candidate in [path, &temporary] {
        SocketAddrUnix::new(candidate).map_err(|_| unusable())?;
    }
    Ok(temporary)
}

fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Linux gives the file the mode of the unbound socket less the umask, so it is never wider
    // than asked, and chmod then makes it exact.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &address)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn trap_35_mode_is_exact_and_the_file_goes_with_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o666] {
            let path = dir.path().join("a.sock");
            let socket = UnixSocket::bind(&path, mode).unwrap();
            assert_eq!(mode_of(&path), mode);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary name left");
            drop(socket);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn trap_35_a_dead_socket_is_replaced_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        // A std listener leaves its file behind when dropped, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = UnixSocket::bind(&path, 0o600).unwrap();
        assert!(matches!(UnixSocket::bind(&path, 0o600), Err(SocketError::InUse(_))));
        assert!(StdUnixStream::connect(&path).is_ok(), "the live one still answers");
        drop(socket);
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(UnixSocket::bind(&path, 0o600), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"data");
        let missing = dir.path().join("no/such/a.sock");
        assert!(matches!(UnixSocket::bind(missing, 0o600), Err(SocketError::Io { .. })));
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(UnixSocket::bind(long, 0o600), Err(SocketError::Path(_))));
    }

    #[tokio::test]
    async fn a_successor_keeps_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let first = UnixSocket::bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let second = UnixSocket::bind(&path, 0o600).unwrap();
        drop(first);
        assert!(StdUnixStream::connect(second.path()).is_ok());
    }
}
