//! What answers look like: JSON or text, with headers that keep browsers from doing more with them than the page does; what
//! is refused is told in a sentence (problem details, RFC 9457).

use std::convert::Infallible;

use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::control::Unanswered;

/// A body: whole, or a stream of events.
pub(super) type Body = Either<Full<Bytes>, http_body_util::channel::Channel<Bytes, Infallible>>;
/// An answer.
pub(super) type Answer = Response<Body>;

/// Why something is not answered as asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Complaint {
    pub status: StatusCode,
    /// A sentence.
    pub detail: String,
    /// Of many lines or commands: which one it is about, from 1.
    pub at: Option<u32>,
    /// The methods that there are.
    pub allow: Option<&'static str>,
}

impl Complaint {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), at: None, allow: None }
    }

    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }
}

impl From<Unanswered> for Complaint {
    fn from(_: Unanswered) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "lvsd is ending, or has too much to answer: ask again")
    }
}

/// RFC 9457 §3.1.
#[derive(Serialize)]
struct Problem<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u32>,
}

impl From<Complaint> for Answer {
    fn from(complaint: Complaint) -> Self {
        let Complaint { status, detail, at, allow } = complaint;
        let title = status.canonical_reason().unwrap_or("refused");
        let problem = Problem { title, status: status.as_u16(), detail: &detail, at };
        let text = serde_json::to_vec(&problem).unwrap_or_default();
        let mut answer = whole("application/problem+json", text);
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => _ = headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            StatusCode::SERVICE_UNAVAILABLE => _ = headers.insert(RETRY_AFTER, HeaderValue::from_static("1")),
            _ => {}
        }
        if let Some(allow) = allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}

/// A document of JSON.
pub(super) fn json(document: &impl Serialize) -> Answer {
    match serde_json::to_vec(document) {
        Ok(text) => whole("application/json", text),
        Err(error) => Complaint::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into(),
    }
}

/// A whole body of this type.
pub(super) fn whole(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    dressed(content_type, Either::Left(Full::new(body.into())))
}

/// With the headers that every answer has.
pub(super) fn dressed(content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    answer
}

/// The page, with a number in its style and script that the policy asks for: what else may have come into it does not run
/// (CSP level 3, §7.1).
pub(super) fn page(text: &str) -> Result<Answer, Complaint> {
    let random =
        || crate::seed::random().map_err(|denied| Complaint::new(StatusCode::SERVICE_UNAVAILABLE, denied.to_string()));
    let nonce = format!("{:016x}{:016x}", random()?, random()?);
    let tag = |tag: &str| format!("<{tag} nonce=\"{nonce}\">");
    let text = text.replacen("<style>", &tag("style"), 1).replacen("<script>", &tag("script"), 1);
    let mut answer = whole("text/html; charset=utf-8", text);
    let policy =
        format!("{POLICY}; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'");
    let policy = HeaderValue::try_from(policy).expect("it is ASCII");
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(answer)
}

/// Nothing is loaded or run, and nobody may frame it.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
