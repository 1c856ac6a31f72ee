use super::*;

fn read(text: &str) -> Result<RequestHead, HeadError> {
    let mut head = RequestHead::default();
    head.read(text.as_bytes()).map(|()| head)
}

fn refused(text: &str) -> (u16, &'static str) {
    let error = read(text).unwrap_err();
    (error.status, error.reason)
}

#[test]
fn an_ordinary_request() {
    let head = read("POST /a?b HTTP/1.1\r\nHost: cart:80\r\nContent-Length: 12\r\nX-A: 1\r\nx-a: 2\r\n\r\n").unwrap();
    assert_eq!((head.method(), head.target(), head.host()), ("POST", &b"/a?b"[..], Some(&b"cart:80"[..])));
    assert_eq!((head.framing, head.keep_alive, head.http10), (Framing::Length(12), true, false));
    assert_eq!(head.values("X-A").collect::<Vec<_>>(), [b"1", b"2"]);
    assert!(!is_idempotent(head.method()));
}

#[test]
fn smuggling_is_refused_never_repaired() {
    for (fields, reason) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", "length-and-transfer-encoding"),
        ("Content-Length: 1\r\nContent-Length: 1", "duplicate-content-length"),
        ("Content-Length: 1, 1", "content-length"),
        ("Content-Length: +1", "content-length"),
        ("Content-Length: 99999999999999999999", "content-length"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "duplicate-transfer-encoding"),
        ("Host: other", "duplicate-host"),
        ("X: a\r\n b", "head-malformed"),
        ("X : a", "head-malformed"),
        ("X: a\0b", "head-malformed"),
        ("X: a\nY: b", "bare-line-end"),
        ("X: a\rb", "bare-line-end"),
    ] {
        assert_eq!(refused(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n")), (400, reason), "{fields:?}");
    }
    assert_eq!(
        refused("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        (501, "transfer-encoding")
    );
    assert_eq!(
        refused("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, "transfer-encoding-in-1.0")
    );
}

#[test]
fn hosts_and_methods() {
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), (400, "missing-host"));
    for host in ["a b", "user@h", "h/x", "a,b", "h\\x"] {
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), (400, "ambiguous-host"), "{host}");
    }
    assert!(read("UNSUBSCRIBE / HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());
    for method in ["get", "FOO", "Get", "M-SEARCH"] {
        assert_eq!(refused(&format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n")), (400, "method"));
    }
    assert_eq!(refused("GET / HTTP/2.0\r\nHost: h\r\n\r\n").0, 505);
    assert!(read("GET / HTTP/1.0\r\n\r\n").is_ok_and(|head| head.http10 && !head.keep_alive));
    assert_eq!(refused("PUT / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n"), (417, "expectation"));
}

#[test]
fn connection_options_strip_what_they_name_but_never_framing() {
    let head = read(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Hop, content-length, host\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n",
    )
    .unwrap();
    assert!(!head.keep_alive);
    assert_eq!(head.values("x-hop").count(), 0);
    assert_eq!(head.values("content-length").count(), 1);
    assert_eq!(head.host(), Some(&b"h"[..]));
}

#[test]
fn upgrades_asked_for_and_those_ignored() {
    let upgrade = |fields: &str| {
        let head = read(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n")).unwrap();
        head.upgrade.clone().map(|range| String::from_utf8_lossy(head.at(&range)).into_owned())
    };
    assert_eq!(upgrade("Connection: keep-alive, Upgrade\r\nUpgrade: websocket").as_deref(), Some("websocket"));
    assert_eq!(upgrade("Upgrade: websocket"), None);
    assert_eq!(upgrade("Connection: Upgrade\r\nUpgrade: spdy/3.1").as_deref(), Some("spdy/3.1"));
    for value in ["h2c", "H2C", "h2c-14", "HTTP/2.0", "TLS/1.2", "websocket, h2c", "websocket,", "a b", "a/", "/a", ""]
    {
        assert_eq!(upgrade(&format!("Connection: Upgrade\r\nUpgrade: {value}")), None, "{value}");
    }
    assert_eq!(upgrade("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c"), None);
}

#[test]
fn beginnings_of_requests() {
    for bytes in ["", "\r\n", "G", "GET", "GET ", " \r\nGET /", "MSEARC", "MSEARCH *"] {
        assert!(may_begin_request(bytes.as_bytes()), "{bytes:?}");
    }
    for bytes in ["g", "GETS", "GE ", "PING\r\n", "M-", "1", "HELLO"] {
        assert!(!may_begin_request(bytes.as_bytes()), "{bytes:?}");
    }
}

#[test]
fn too_many_fields() {
    let fields: String = (0..=MAX_FIELDS).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")), (431, "too-many-fields"));
}

#[test]
fn the_end_of_a_head_is_found_at_every_split() {
    let text = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
    let end = text.len() - 4;
    for searched in 0..end {
        assert_eq!(head_end(&text[..], searched), Some(end), "{searched}");
        assert_eq!(head_end(&text[..searched], 0), None);
    }
    assert_eq!(leading_blank(b"\r\n\r\nGET"), 4);
    assert_eq!(leading_blank(b"\nGET"), 0);
}
