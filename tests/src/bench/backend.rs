//! The application behind the proxies: a thread a connection, one answer made beforehand.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::Result;

/// Starts a backend on loopback that answers every request without a body with 200 and `body_bytes` bytes.
///
/// # Errors
/// When it cannot listen.
pub fn start(body_bytes: usize) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {body_bytes}\r\n\r\n");
    let answer: Arc<[u8]> = [head.as_bytes(), &vec![b'x'; body_bytes]].concat().into();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            // A peer that hangs up ends its thread.
            thread::spawn(move || serve(stream, &answer));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut seen) = (vec![0; 16 * 1024], Vec::new());
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        seen.extend_from_slice(buffer.get(..read).unwrap_or_default());
        while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            seen.drain(..end + 4);
            stream.write_all(answer)?;
        }
    }
}
