//! `[traces]`: where spans of requests are sent.

use std::sync::Arc;

use super::Traces;
use super::default;
use super::read::Table;
use super::sink::secret;
use super::value::{CallUrl, FieldName};

const TOKEN: (&str, &str) = (
    "File with what is sent as `Authorization: Bearer`, or in the field of `token_header`.",
    "Environment variable with the same.",
);

/// Reads it; `None` where it is not there.
pub(super) fn traces(t: &mut Table<'_>) -> Option<Traces> {
    let endpoint: Option<CallUrl> = t.optional(
        "endpoint",
        "Where spans of sampled requests are sent by OTLP over HTTP: a collector such as \
         `http://127.0.0.1:4318`. `/v1/traces` is added where there is no path. Without it there \
         are none.",
    );
    let service: Arc<str> = t.or(
        "service",
        default::TRACES_SERVICE.into(),
        "The name of this service in them.",
    );
    t.refuse(
        "token",
        "a secret does not belong in this file",
        "put it into a file of its own and name that with `token_file`",
    );
    let token = secret(t, "token", "token_file", "token_env", TOKEN);
    let header: Option<FieldName> = t.optional(
        "token_header",
        "Field in which the token is sent as it is, in place of `Authorization`.",
    );
    Some(Traces {
        endpoint: endpoint?.0,
        service,
        token,
        header: header.map(|name| name.0),
    })
}
