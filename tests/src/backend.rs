//! Applications for the tests: an HTTP server that remembers what reached it, and a TCP echo. What never reached the
//! application was really refused; a status alone would be the proxy's word for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

use crate::http::Connection;

/// A request as it reached the application.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Request target.
    pub path: String,
    /// Header lines, as received.
    pub head: String,
}

/// An HTTP application on loopback. Answers 200 with the head that it got; bodies are read by their Content-Length.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Backend {
    /// Starts it; its threads end with the test.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let backend = Self { address: listener.local_addr()?, seen: Arc::default() };
        let serving = backend.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let backend = serving.clone();
                // A peer that hangs up ends its thread.
                thread::spawn(move || backend.serve(stream));
            }
        });
        Ok(backend)
    }

    /// Everything that reached the application so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        let mut connection = Connection::over(stream)?;
        loop {
            let (line, head, _) = connection.message()?;
            let mut words = line.split(' ').map(str::to_owned);
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let seen = Seen { method, path, head };
            let body = format!("{line}\r\n{}", seen.head);
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            connection.send(answer.as_bytes())?;
        }
    }
}

/// Starts a TCP server on loopback that sends back what it gets.
///
/// # Errors
/// When it cannot listen.
pub fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || repeat(stream));
        }
    });
    Ok(address)
}

fn repeat(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(buffer.get(..read).unwrap_or_default())?,
        }
    }
}
