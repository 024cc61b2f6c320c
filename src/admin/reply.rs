//! Answers.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

/// An answer of the admin address.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    content_type: HeaderValue,
    allow: Option<HeaderValue>,
    body: Bytes,
}

impl Reply {
    /// JSON.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        // It fails only on a map whose keys are no strings.
        let (status, mut body) = match serde_json::to_vec(value) {
            Ok(body) => (status, body),
            Err(error) => {
                tracing::error!(%error, "an answer of the admin address is not serializable");
                (StatusCode::INTERNAL_SERVER_ERROR, b"{}".to_vec())
            }
        };
        body.push(b'\n');
        Self::new(status, "application/json", body)
    }

    /// Plain text.
    pub fn text(status: StatusCode, text: String) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into())
    }

    /// An error: a code for programs, and a sentence for people.
    pub fn error(status: StatusCode, code: &str, detail: &str) -> Self {
        Self::json(status, &json!({ "error": code, "detail": detail }))
    }

    /// Prometheus' text exposition format.
    pub(super) fn metrics(text: String) -> Self {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Self::new(StatusCode::OK, content_type, text.into())
    }

    /// 405, with the methods that there are.
    pub(super) fn not_allowed(methods: &'static str) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let detail = format!("here it is {methods}");
        Self {
            allow: Some(HeaderValue::from_static(methods)),
            ..Self::error(status, "method_not_allowed", &detail)
        }
    }

    fn new(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type: HeaderValue::from_static(content_type),
            allow: None,
            body: body.into(),
        }
    }
}

impl From<Reply> for Response<Full<Bytes>> {
    fn from(reply: Reply) -> Self {
        let mut response = Self::new(Full::new(reply.body));
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, reply.content_type);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(allow) = reply.allow {
            headers.insert(ALLOW, allow);
        }
        response
    }
}
