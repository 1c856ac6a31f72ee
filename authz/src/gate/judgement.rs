//! A question to the gate and its answer.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::edits::Edits;
use crate::evaluation::Evaluation;
use crate::permit::{Approval, Denial, Permit};
use crate::provider::{CheckRequest, Response, ResponseEdits};
use crate::request::{Known, Request};

/// One question to the gate.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The request as it came. Claims given here were verified by somebody else: the gate then looks at no token.
    pub request: Request<'a>,
    /// Normalised path with query, where tokens are looked for (as `request.http.raw_target`).
    pub target: Option<&'a str>,
    /// An owned copy of the same request; called only when a provider is asked.
    pub check: &'a (dyn Fn() -> CheckRequest + Sync),
    /// What is known of the request: [`Known::ALL`] where a decision is enforced.
    pub known: Known,
}

impl<'a> Ask<'a> {
    /// A question about a request of which everything is known.
    #[must_use]
    pub fn new(request: Request<'a>, check: &'a (dyn Fn() -> CheckRequest + Sync)) -> Self {
        let target = request.http.and_then(|http| http.raw_target);
        Self { request, target, check, known: Known::ALL }
    }
}

/// The gate's answer.
#[derive(Debug)]
#[must_use = "a judgement must be obeyed and recorded"]
pub enum Judgement {
    /// Forward the request, edited, by spending the permit.
    Forward {
        /// Leave to forward.
        permit: Permit,
        /// What changes in the request on its way to the workload.
        edits: Edits,
        /// What changes in the response on its way to the caller.
        response_headers: ResponseEdits,
        /// What an open request keeps to be judged again.
        standing: Standing,
    },
    /// Refuse it.
    Refuse {
        /// To be recorded. Its outcome is undecided where attributes were unknown and would decide.
        denial: Denial,
        /// For the caller.
        response: Response,
        /// The changes that the request had gone through: with them the record says what policy saw.
        edits: Edits,
        /// What the request's token says, where one was verified before the refusal.
        claims: Option<Arc<Value>>,
    },
}

impl Judgement {
    /// What was decided and why.
    #[must_use]
    pub fn evaluation(&self) -> &Evaluation {
        match self {
            Self::Forward { permit, .. } => permit.evaluation(),
            Self::Refuse { denial, .. } => denial.evaluation(),
        }
    }

    pub(super) fn refused(denial: Denial, response: Response) -> Self {
        Self::Refuse { denial, response, edits: Edits::default(), claims: None }
    }
}

/// What was settled about an open request once and for all: providers and token are not asked again.
#[derive(Clone, Default)]
pub struct Standing {
    pub(super) approval: Option<Approval>,
    pub(super) claims: Option<Arc<Value>>,
    pub(super) edits: Option<Arc<Edits>>,
    /// All dynamic metadata, the request's own included.
    pub(super) metadata: Option<Arc<Value>>,
}

impl Standing {
    /// The provider that approved, if one was asked.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.approval.as_ref().map(Approval::provider)
    }

    /// The claims of the verified token, if there was one.
    #[must_use]
    pub fn claims(&self) -> Option<&Arc<Value>> {
        self.claims.as_ref()
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing")
            .field("provider", &self.provider())
            .field("claims", &self.claims.is_some())
            .field("edits", &self.edits)
            .finish()
    }
}
