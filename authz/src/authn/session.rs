//! One request on its way through the requirement tree of Envoy's `jwt_authn`. A verified token changes the request
//! at once (it is removed, headers are added), and the next provider sees the changed one: with several providers
//! that decides, so it is kept.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::place::{Found, Place};
use super::provider::Provider;
use super::status::Status;
use super::token::Token;
use super::{TokenRequest, output, query};
use crate::Edits;
use crate::jwks::KeySource;

/// More tokens for one provider are refused: each may cost a signature.
const MAX_TOKENS: usize = 16;

/// A token taken apart, or why it cannot be.
type Parsed = Result<Rc<Token>, Status>;

pub(super) struct Session<'a> {
    request: &'a TokenRequest<'a>,
    keys: &'a dyn KeySource,
    now: u64,
    pub(super) edits: Edits,
    pub(super) claims: Option<Arc<Value>>,
    /// Providers often share a place: each text is taken apart once.
    parsed: Vec<(Vec<u8>, Parsed)>,
}

impl<'a> Session<'a> {
    /// Headers that only rules may write are taken away before anything is looked at, tokens included.
    pub(super) fn new(
        request: &'a TokenRequest<'a>,
        keys: &'a dyn KeySource,
        now: u64,
        outputs: impl Iterator<Item = &'a str>,
    ) -> Self {
        let mut edits = Edits::default();
        outputs.for_each(|header| edits.remove_header(header));
        Self { request, keys, now, edits, claims: None, parsed: Vec::new() }
    }

    /// `ANY(P1, .., Pn, ALL(ANY(P1, allow missing), ..))`; with one provider `ANY(P, allow missing)`. Left to right,
    /// and the first success ends it.
    pub(super) fn require(&mut self, providers: &[Provider]) -> Status {
        let mut complaint = Status::Missed;
        for provider in providers {
            match self.provider(provider) {
                Status::Ok => return Status::Ok,
                status => complaint = complaint.and_then(status),
            }
        }
        if complaint == Status::Missed {
            return Status::Ok;
        }
        if providers.len() < 2 {
            return complaint;
        }
        for provider in providers {
            match self.provider(provider) {
                Status::Ok | Status::Missed => {}
                status => return complaint.and_then(status),
            }
        }
        Status::Ok
    }

    /// All tokens of one provider have to be good: otherwise the application might use the bad one.
    fn provider(&mut self, provider: &Provider) -> Status {
        // What the provider wrote when it was tried before, and failed at a later token, goes away again.
        provider.outputs().for_each(|header| self.edits.remove_header(header));
        let target = self.edits.target.as_deref().or(self.request.target);
        let found = provider.extract(&self.edits.over(self.request.headers), target);
        if found.is_empty() {
            return Status::Missed;
        }
        if found.len() > MAX_TOKENS {
            return Status::MultipleTokens;
        }
        for found in found.into_iter().rev() {
            if let Err(status) = self.token(provider, &found) {
                return status;
            }
        }
        Status::Ok
    }

    fn token(&mut self, provider: &Provider, found: &Found<'_>) -> Result<(), Status> {
        let token = self.parse(&found.token)?;
        provider.verify(&token, self.keys, self.now)?;
        if let Some(header) = provider.payload_header.as_ref().filter(|_| output::is_header_value(&token.payload_text))
        {
            self.edits.append.push((header.clone(), token.payload_text.clone()));
        }
        for (header, claim) in &provider.claim_headers {
            if let Some(value) = output::header_value(&token.claims, claim) {
                self.edits.append.push((header.clone(), value));
            }
        }
        if !provider.rule.forward_original_token {
            self.take_out(&found.place);
        }
        self.claims = Some(output::claims(&token.claims, &provider.split_claims));
        Ok(())
    }

    fn take_out(&mut self, place: &Place<'_>) {
        match place {
            Place::Header(name) => self.edits.remove_header(name),
            Place::Param(name) => {
                if let Some(target) = self.edits.target.as_deref().or(self.request.target) {
                    self.edits.target = Some(query::without(target, name));
                }
            }
            Place::Cookie => {}
        }
    }

    fn parse(&mut self, text: &[u8]) -> Parsed {
        if let Some((_, known)) = self.parsed.iter().find(|(known, _)| known == text) {
            return known.clone();
        }
        let token = Token::parse(text).map(Rc::new);
        self.parsed.push((text.to_vec(), token.clone()));
        token
    }
}

/// Whether tokens are not looked at: in a CORS preflight, and in a CONNECT without a path, since Istio asks for tokens
/// by the rule that a path begins with `/`. A path that is only not known exempts from nothing.
pub(super) fn is_exempt(request: &TokenRequest<'_>) -> bool {
    let without_path = request.method == Some("CONNECT") && request.target.is_none();
    without_path || is_cors_preflight(request)
}

/// Whether the browser only asks for permission: Envoy leaves such a request alone, as it carries no credentials.
fn is_cors_preflight(request: &TokenRequest<'_>) -> bool {
    let filled = |name: &str| {
        let mut filled = false;
        request.headers.for_each(name, &mut |value| filled |= !value.is_empty());
        filled
    };
    request.method == Some("OPTIONS") && filled("origin") && filled("access-control-request-method")
}
