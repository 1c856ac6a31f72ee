//! Upstreams that never come to the point.

use palisade_policies::AppProtocol;
use tokio::io::AsyncWriteExt;

use crate::app::{App, read_request};
use crate::client::plain;
use crate::world::{Cast, OPEN, World, inbound_to};

/// Answers every request with interim responses of that size, that many of them, then with 200.
async fn hinting(size: usize, times: usize) -> App {
    App::of(move |mut tcp| async move {
        let mut buf = Vec::new();
        let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "a".repeat(size));
        while read_request(&mut tcp, &mut buf).await?.is_some() {
            for _ in 0..times {
                tcp.write_all(hint.as_bytes()).await?;
            }
            tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await?;
        }
        Ok(())
    })
    .await
}

async fn hints_and_status(app: &App) -> (usize, u16) {
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for hints in 0.. {
        let answer = client.answer().await;
        if answer.status != 103 {
            return (hints, answer.status);
        }
    }
    unreachable!("0.. has no end")
}

#[tokio::test]
async fn interim_responses_have_an_end() {
    assert_eq!(hints_and_status(&hinting(10, 100).await).await, (100, 200));
    assert_eq!(hints_and_status(&hinting(10, 1_000_000).await).await, (100, 502));
}

/// More than fits between the two sockets: it arrives whole, although it is held back while the client is slow.
#[tokio::test]
async fn interim_responses_wait_for_their_reader() {
    assert_eq!(hints_and_status(&hinting(100_000, 100).await).await, (100, 200));
}
