use std::collections::VecDeque;

use palisade_wire::envoy::envoy::config::core::v3::Node;
use palisade_wire::envoy::envoy::service::discovery::v3::DiscoveryRequest;
use tonic::Code;
use tonic::codegen::{Body as HttpBody, Bytes};

use super::*;

/// A body in pieces.
struct Pieces(VecDeque<Vec<u8>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(http_body::Frame::data(piece.into()))))
    }
}

fn messages(pieces: impl IntoIterator<Item = Vec<u8>>) -> Messages<DiscoveryRequest> {
    Messages::new(Body::new(Pieces(pieces.into_iter().collect())))
}

fn request(id: &str) -> DiscoveryRequest {
    let node = Node { id: id.to_owned(), ..Node::default() };
    DiscoveryRequest { node: Some(node), ..DiscoveryRequest::default() }
}

fn bytes_of(message: &DiscoveryRequest) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &bytes].concat()
}

#[tokio::test]
async fn messages_are_the_same_however_their_bytes_are_split() {
    let sent = [request("one"), DiscoveryRequest::default(), request("three")];
    let bytes: Vec<u8> = sent.iter().flat_map(bytes_of).collect();
    for size in [1, 3, 7, bytes.len()] {
        let mut messages = messages(bytes.chunks(size).map(<[u8]>::to_vec));
        for message in &sent {
            assert_eq!(messages.next().await.unwrap().as_ref(), Some(message));
        }
        assert_eq!(messages.next().await.unwrap(), None);
    }
}

/// An Envoy describes itself in its first message only.
#[tokio::test]
async fn the_memory_of_a_large_message_is_not_kept() {
    let mut messages = messages([bytes_of(&request(&"x".repeat(100_000))), bytes_of(&request("small"))]);
    messages.next().await.unwrap().unwrap();
    assert_eq!(messages.pending.capacity(), 0);
    assert_eq!(messages.next().await.unwrap(), Some(request("small")));
}

#[tokio::test]
async fn what_is_no_message_ends_the_stream() {
    let code = async |bytes: &[u8]| messages([bytes.to_vec()]).next().await.unwrap_err().code();
    assert_eq!(code(&[1, 0, 0, 0, 0]).await, Code::Unimplemented);
    assert_eq!(code(&[0, 0, 0x10, 0, 1]).await, Code::OutOfRange);
    assert_eq!(code(&[0, 0, 0, 0, 1, 0xff]).await, Code::InvalidArgument);
    assert_eq!(code(&[0, 0, 0, 0, 9, 1]).await, Code::Internal);
    assert_eq!(code(&[0, 0]).await, Code::Internal);
}

#[tokio::test]
async fn answers_go_out_as_frames_of_their_own_and_end_with_a_status() {
    let answers =
        [Ok(request("one")), Ok(request("two")), Err(Status::permission_denied("gone")), Ok(request("never"))];
    let mut outbound = Outbound(Some(Box::pin(futures_util::stream::iter(answers)) as Answers<_>));
    let mut frames = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut outbound).poll_frame(cx)).await {
        frames.push(frame.unwrap());
    }
    let trailers = frames.pop().unwrap().into_trailers().unwrap();
    assert_eq!(trailers.get("grpc-status").unwrap(), "7");
    assert_eq!(trailers.get("grpc-message").unwrap(), "gone");
    let sent: Vec<_> = frames.into_iter().map(|frame| frame.into_data().unwrap()).collect();
    assert_eq!(sent, [bytes_of(&request("one")), bytes_of(&request("two"))]);
    let mut outbound = Outbound::<DiscoveryRequest>(Some(Box::pin(futures_util::stream::empty())));
    let frame = std::future::poll_fn(|cx| Pin::new(&mut outbound).poll_frame(cx)).await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap().get("grpc-status").unwrap(), "0");
}
