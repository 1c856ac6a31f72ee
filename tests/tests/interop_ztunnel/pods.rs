//! Two pods on a cable of their own, handed to ztunnel as Istio's CNI agent does it: each namespace as a descriptor on a socket.

use std::fs::File;
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_tests::poll;
use rustix::cmsg_space;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, accept, bind, listen, recv, sendmsg, socket_with,
};

use crate::namespace::{Pod, command};

const PATIENCE: Duration = Duration::from_secs(30);
const WEB_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const DB_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DB_PORT: u16 = 8_080;
const SOCKS_PORT: u16 = 15_080;
const WORD: [u8; 4] = *b"ping";

/// `web` and `db`, each with an address of its own; `db` has an application that sends back what it gets.
pub(crate) struct Pods {
    web: Pod,
    db: Pod,
}

impl Pods {
    pub(crate) fn new() -> Result<Self> {
        let (web, db) = (Pod::new()?, Pod::new()?);
        command("ip", &["link", "add", "web", "type", "veth", "peer", "name", "db"])?;
        for (pod, name, address) in [(&web, "web", WEB_ADDRESS), (&db, "db", DB_ADDRESS)] {
            command("ip", &["link", "set", name, "netns", &pod.holder()])?;
            pod.run(|| {
                command("ip", &["addr", "add", &format!("{address}/24"), "dev", name])?;
                command("ip", &["link", "set", name, "up"])
            })??;
        }
        let listener = db.run(|| TcpListener::bind((DB_ADDRESS, DB_PORT)))??;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut word = WORD;
                // Who hangs up early is missed by the other end.
                let _ = stream.read_exact(&mut word).and_then(|()| stream.write_all(&word));
            }
        });
        Ok(Self { web, db })
    }

    /// Waits for ztunnel on `path`, and gives it both pods. What is returned keeps the conversation open.
    pub(crate) fn hand_over(&self, cni: &Cni) -> Result<OwnedFd> {
        let connection = accept(&cni.0)?;
        set_socket_timeout(&connection, Timeout::Recv, Some(PATIENCE))?;
        ensure!(message(&connection)? == [0x08, 0x01], "ZdsHello of version 1");
        for (pod, name) in [(&self.web, "web"), (&self.db, "db")] {
            let info = [field(1, name.as_bytes()), field(2, b"shop"), field(3, name.as_bytes())].concat();
            let add = [field(1, name.as_bytes()), field(2, &info)].concat();
            answered(&connection, &field(1, &add), Some(&pod.namespace))?;
        }
        answered(&connection, &field(3, b""), None)?;
        Ok(connection)
    }

    /// Waits until ztunnel takes what web sends.
    pub(crate) fn until_served(&self) {
        poll("a request from web to db", || self.request());
    }

    /// One connection from web to db, by ztunnel's mTLS.
    pub(crate) fn request(&self) -> Result<()> {
        let mut stream = self.web.run(|| TcpStream::connect(("127.0.0.1", SOCKS_PORT)))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (address, port) = (DB_ADDRESS.octets(), DB_PORT.to_be_bytes());
        // SOCKS 5 (RFC 1928): no authentication; CONNECT to an IPv4 address.
        stream.write_all(&[&[5, 1, 0, 5, 1, 0, 1], &address[..], &port[..]].concat())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        ensure!(answer[..4] == [5, 0, 5, 0], "{answer:?}");
        stream.write_all(&WORD)?;
        let mut word = [0; WORD.len()];
        stream.read_exact(&mut word).context("no answer of db")?;
        ensure!(word == WORD, "{word:?}");
        Ok(())
    }
}

/// Where ztunnel expects the CNI agent.
pub(crate) struct Cni(OwnedFd);

impl Cni {
    pub(crate) fn listen(path: &Path) -> Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, 1)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(socket))
    }
}

fn message(connection: &OwnedFd) -> Result<Vec<u8>> {
    let mut buffer = [0; 1_024];
    let (length, _) = recv(connection, &mut buffer[..], RecvFlags::empty())?;
    Ok(buffer[..length].to_vec())
}

/// Sends a WorkloadRequest and waits for its Ack without an error.
fn answered(connection: &OwnedFd, request: &[u8], namespace: Option<&File>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = namespace.map(|file| [file.as_fd()]);
    if let Some(descriptors) = &descriptors {
        ensure!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "no room for the descriptor");
    }
    sendmsg(connection, &[IoSlice::new(request)], &mut control, SendFlags::empty())?;
    let answer = message(connection)?;
    ensure!(answer == [0x0a, 0x00], "ztunnel refuses: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// A short text or message in protobuf's encoding.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap_or(u8::MAX)], value].concat()
}
