//! The smallest honest HTTP client: blocking, whatever the test says goes on the wire verbatim.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// Longest silence of a peer.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, read until the peer closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Head as received, without the status line.
    pub head: String,
    /// Body as received (chunked bodies with their framing).
    pub body: String,
}

/// `METHOD path` with `Connection: close` to `address`, `host` as its Host.
///
/// # Errors
/// When the connection is refused, reset, silent for 20 s, or answers something that is not HTTP.
pub fn request(address: SocketAddr, method: &str, path: &str, host: &str) -> Result<Answer> {
    raw(address, &format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
}

/// The sum of the metrics at `address` whose names, with their labels, begin so; 0 if there are none.
///
/// # Errors
/// As [`request`], and when a value is no whole number.
pub fn counted(address: SocketAddr, name: &str) -> Result<u64> {
    let page = request(address, "GET", "/metrics", "localhost")?.body;
    let values = page.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' '));
    values.map(|(name, value)| value.parse::<u64>().with_context(|| format!("{name}: {value}"))).sum()
}

/// Sends `bytes` and reads the answer to the end of the connection.
///
/// # Errors
/// As [`request`].
pub fn raw(address: SocketAddr, bytes: &str) -> Result<Answer> {
    let mut connection = Connection::open(address)?;
    connection.send(bytes.as_bytes())?;
    connection.answer_to_the_end()
}

/// A connection that is kept open.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(address: SocketAddr) -> Result<Self> {
        Self::over(TcpStream::connect(address).context("cannot connect")?)
    }

    /// Connects from a certain address: a caller without a proxy is known by nothing else.
    ///
    /// # Errors
    /// When the address is not this machine's, or nobody listens.
    pub fn open_from(source: IpAddr, address: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(address).await?.into_std()
        })?;
        stream.set_nonblocking(false)?;
        Self::over(stream)
    }

    /// Over a stream that is connected already.
    ///
    /// # Errors
    /// When the socket's options cannot be set.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// One request without a body and its answer; `fields` are more header lines, each with its line end.
    ///
    /// # Errors
    /// As [`request()`].
    pub fn request(&mut self, method: &str, path: &str, host: &str, fields: &str) -> Result<Answer> {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{fields}\r\n").as_bytes())?;
        let (line, head, body) = self.message()?;
        Ok(Answer { status: status(&line)?, head, body })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("cannot send")
    }

    /// Sends bytes and reads as many back.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.send(bytes)?;
        while self.read.len() < bytes.len() {
            self.more()?;
        }
        Ok(self.read.drain(..bytes.len()).collect())
    }

    /// Reads one message with a Content-Length (none means no body): first line, header lines, body.
    ///
    /// # Errors
    /// When the connection ends or is silent before.
    pub fn message(&mut self) -> Result<(String, String, String)> {
        let end = loop {
            match self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end,
                None => self.more()?,
            }
        };
        let head: Vec<u8> = self.read.drain(..end + 4).take(end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let (line, head) = head.split_once("\r\n").unwrap_or((&head, ""));
        let length = head.lines().find_map(|field| {
            let (name, value) = field.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        let length = length.transpose().context("the Content-Length is no number")?.unwrap_or(0);
        while self.read.len() < length {
            self.more()?;
        }
        let body: Vec<u8> = self.read.drain(..length).collect();
        Ok((line.to_owned(), head.to_owned(), String::from_utf8_lossy(&body).into_owned()))
    }

    /// Whether the peer has closed or reset: `Ok` if it has.
    ///
    /// # Errors
    /// While it is open.
    pub fn closed(&mut self) -> Result<(), &'static str> {
        let mut byte = [0];
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(1)));
        let seen = self.stream.read(&mut byte);
        let _ = self.stream.set_read_timeout(Some(PATIENCE));
        match seen {
            Ok(0) => Ok(()),
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
            Ok(_) => Err("it sent something"),
            Err(_) => Err("it is open"),
        }
    }

    fn more(&mut self) -> Result<()> {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer).context("no answer")? {
            0 => bail!("closed without an answer"),
            read => self.read.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
        Ok(())
    }

    fn answer_to_the_end(mut self) -> Result<Answer> {
        self.stream.read_to_end(&mut self.read).context("no answer")?;
        ensure!(!self.read.is_empty(), "closed without an answer");
        let text = String::from_utf8_lossy(&self.read);
        let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
        let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
        Ok(Answer { status: status(line)?, head: head.to_owned(), body: body.to_owned() })
    }
}

fn status(line: &str) -> Result<u16> {
    line.split(' ').nth(1).context("no status")?.parse().context("the status is not a number")
}
