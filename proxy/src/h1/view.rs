//! A read head in the form it is decided and forwarded in: one target, one host, sanitised fields.

use std::borrow::Cow;

use palisade_authz::{Headers, normalize};
use palisade_policies::PathNormalization;

use super::request::{HeadError, RequestHead, authority_is_plain};
use crate::headers::XFCC;
use crate::party::Ask;

/// Target and host of a request, settled.
#[derive(Debug)]
pub(crate) struct Settled<'a> {
    head: &'a RequestHead,
    /// Origin-form; none for CONNECT.
    pub(crate) target: Option<Cow<'a, str>>,
    /// The one host decided on and forwarded.
    pub(crate) host: &'a str,
    xfcc: Option<&'a str>,
    scheme: &'a str,
}

const fn bad(reason: &'static str) -> HeadError {
    HeadError { status: 400, reason }
}

impl<'a> Settled<'a> {
    /// Settles the request in `head`. `normalization` is none where the request is only passed on (outbound).
    pub(crate) fn of(
        head: &'a RequestHead,
        normalization: Option<PathNormalization>,
        xfcc: Option<&'a str>,
        scheme: &'a str,
    ) -> Result<Settled<'a>, HeadError> {
        let raw = std::str::from_utf8(head.target()).map_err(|_| bad("target-not-utf8"))?;
        let host = head.host().map(std::str::from_utf8).transpose().map_err(|_| bad("ambiguous-host"))?;
        if head.method() == "CONNECT" {
            return Ok(Settled { head, target: None, host: raw, xfcc, scheme });
        }
        let (origin, host) = match absolute(raw) {
            Some((authority, path)) if authority_is_plain(authority.as_bytes()) && !authority.is_empty() => {
                (path, Some(authority))
            }
            Some(_) => return Err(bad("ambiguous-host")),
            None => (raw, host),
        };
        // HTTP/1.0 knows no Host, but the application would get one: none that policy did not see.
        let host = host.ok_or(bad("missing-host"))?;
        if !origin.starts_with('/') && !origin.is_empty() {
            let status = if origin == "*" { 404 } else { 400 };
            return Err(HeadError { status, reason: "target-form" });
        }
        let origin = if origin.is_empty() { "/" } else { origin };
        let target = match normalization {
            Some(mode) => normalize::path(origin, mode).map_err(|_| bad("path"))?,
            None => Cow::Borrowed(origin),
        };
        Ok(Settled { head, target: Some(target), host, xfcc, scheme })
    }

    /// Our identity element for the application.
    pub(crate) fn xfcc(&self) -> Option<&str> {
        self.xfcc
    }

    /// As the evaluator wants it.
    pub(crate) fn ask(&self) -> Ask<'_> {
        Ask {
            method: self.head.method(),
            target: self.target.as_deref(),
            host: Some(self.host),
            scheme: self.scheme,
            version: if self.head.http10 { "HTTP/1.0" } else { "HTTP/1.1" },
            headers: self,
        }
    }
}

/// Authority and origin-form of an absolute-form target.
fn absolute(raw: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = raw.split_once("://")?;
    if !(scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")) {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest.split_at_checked(end)
}

impl Headers for Settled<'_> {
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        if name == XFCC {
            self.xfcc.map(str::as_bytes).map(f);
        } else if name == "host" {
            f(self.host.as_bytes());
        } else {
            self.head.values(name).for_each(f);
        }
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &[u8])) {
        f("host", self.host.as_bytes());
        self.head.visit(&mut |name, value| {
            if !name.eq_ignore_ascii_case("host") {
                f(name, value);
            }
        });
        if let Some(xfcc) = self.xfcc {
            f(XFCC, xfcc.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(text: &str, check: impl FnOnce(Result<Settled<'_>, HeadError>)) {
        let mut head = RequestHead::default();
        head.read(text.as_bytes()).unwrap();
        check(Settled::of(&head, Some(PathNormalization::Base), Some("By=us"), "http"));
    }

    #[test]
    fn targets_in_every_form() {
        for (line, host, target) in [
            ("GET /x/../%61dmin?q=%61 HTTP/1.1", "h", Some("/admin?q=%61")),
            ("GET http://other:81/a HTTP/1.1", "other:81", Some("/a")),
            ("GET http://other:81/a HTTP/1.0", "other:81", Some("/a")),
            ("GET HTTP://other HTTP/1.1", "other", Some("/")),
            ("CONNECT db:5432 HTTP/1.1", "db:5432", None),
        ] {
            settled(&format!("{line}\r\nHost: h\r\n\r\n"), |s| {
                let s = s.unwrap();
                assert_eq!((s.host, s.target.as_deref()), (host, target), "{line}");
            });
        }
        for (line, status) in [
            ("OPTIONS * HTTP/1.1", 404),
            ("GET admin HTTP/1.1", 400),
            ("GET http://user@h/ HTTP/1.1", 400),
            ("GET ftp://h/ HTTP/1.1", 400),
            ("GET /a%00b HTTP/1.1", 400),
        ] {
            settled(&format!("{line}\r\nHost: h\r\n\r\n"), |s| assert_eq!(s.unwrap_err().status, status, "{line}"));
        }
    }

    #[test]
    fn nobody_gets_a_host_that_was_not_decided_on() {
        for (request, host) in [
            ("GET / HTTP/1.0\r\n\r\n", None),
            ("GET /a://b HTTP/1.0\r\n\r\n", None),
            ("GET http://other/ HTTP/1.0\r\n\r\n", Some("other")),
            ("GET / HTTP/1.0\r\nHost:\r\n\r\n", Some("")),
        ] {
            settled(request, |s| match host {
                Some(host) => assert_eq!(s.unwrap().host, host, "{request}"),
                None => assert_eq!(s.unwrap_err(), bad("missing-host"), "{request}"),
            });
        }
    }

    #[test]
    fn policy_sees_our_identity_element_and_no_forged_one() {
        settled(
            "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Client-Cert: URI=spiffe://forged\r\nA: 1\r\na: 2\r\n\r\n",
            |s| {
                let s = s.unwrap();
                let values = |name: &str| {
                    let mut out = Vec::new();
                    s.for_each(name, &mut |v| out.push(String::from_utf8_lossy(v).into_owned()));
                    let mut visited = Vec::new();
                    s.visit(&mut |other, v| {
                        if other.eq_ignore_ascii_case(name) {
                            visited.push(String::from_utf8_lossy(v).into_owned());
                        }
                    });
                    assert_eq!(visited, out, "{name}");
                    out
                };
                assert_eq!(values("x-forwarded-client-cert"), ["By=us"]);
                assert_eq!(values("a"), ["1", "2"]);
                assert_eq!(values("host"), ["h"]);
            },
        );
    }
}
