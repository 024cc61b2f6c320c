//! `compression` and what goes with it: which responses are made smaller, and how.

use std::fmt;
use std::sync::Arc;

use super::diagnostic::Complaint;
use super::read::{Size, Table};
use crate::http::field::is_token;
pub use crate::metrics::Coding;

/// What is compressed without a word on it. Not here is what is compressed already, and what is
/// sent piece by piece to be read at once: `text/event-stream`.
const TYPES: &[&str] = &[
    "text/html",
    "text/css",
    "text/plain",
    "text/xml",
    "text/csv",
    "text/markdown",
    "text/calendar",
    "text/vtt",
    "text/javascript",
    "application/javascript",
    "application/x-javascript",
    "application/json",
    "application/ld+json",
    "application/geo+json",
    "application/problem+json",
    "application/manifest+json",
    "application/vnd.api+json",
    "application/graphql-response+json",
    "application/x-ndjson",
    "application/xml",
    "application/xhtml+xml",
    "application/rss+xml",
    "application/atom+xml",
    "application/problem+xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "application/yaml",
    "font/ttf",
    "font/otf",
    "image/svg+xml",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

/// Smaller bodies fit into one packet as they are.
const MINIMUM: u64 = 1024;

/// How responses are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// With which codings; the first is preferred where a client likes several as much.
    pub codings: Vec<Coding>,
    /// Responses of these types.
    pub types: Vec<MediaRange>,
    /// Bodies of this many bytes or more, where that is known.
    pub minimum: u64,
    /// How much work is put into it.
    pub effort: Effort,
}

/// How much work is put into compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Effort {
    /// Little.
    Low,
    /// What is worth it for responses that are made anew each time.
    #[default]
    Medium,
    /// Much, for links that are worth more than the processor.
    High,
}

/// A media type, or all of a kind: `text/html`, `text/*`, `*/*`. In lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MediaRange(Box<str>);

impl fmt::Display for MediaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl MediaRange {
    /// Whether a media type, without parameters, is one of these. What is read piece by piece as it
    /// comes is one only where it is named.
    pub fn covers(&self, media_type: &[u8]) -> bool {
        let Some(kind) = self.0.strip_suffix('*') else {
            return self.0.as_bytes().eq_ignore_ascii_case(media_type);
        };
        if is_stream(media_type) {
            return false;
        }
        kind == "*/"
            || (media_type.get(..kind.len()))
                .is_some_and(|start| start.eq_ignore_ascii_case(kind.as_bytes()))
    }
}

/// Server-sent events, and gRPC, which has a compression of its own.
fn is_stream(media_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    media_type.eq_ignore_ascii_case(b"text/event-stream")
        || (media_type.get(..GRPC.len())).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// Reads a media range (RFC 9110, section 12.5.1), without parameters.
pub(super) fn media_range(text: &str) -> Result<MediaRange, Complaint> {
    let is_token = |text: &str| is_token(text.as_bytes());
    let well_formed = match text.split_once('/') {
        Some(("*", "*")) => true,
        Some((kind, "*")) => is_token(kind) && !kind.contains('*'),
        Some((kind, subtype)) => is_token(kind) && is_token(subtype) && !text.contains('*'),
        None => false,
    };
    match well_formed {
        true => Ok(MediaRange(text.to_ascii_lowercase().into())),
        false => Err(Complaint::new(
            "is not a media type",
            "write a type and a subtype, as in `\"text/html\"` or `\"text/*\"`",
        )),
    }
}

/// What one table says of it; what is `None` is left to what is wider, then to the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompressionRules {
    codings: Option<Vec<Coding>>,
    types: Option<Vec<MediaRange>>,
    minimum: Option<u64>,
    effort: Option<Effort>,
}

impl CompressionRules {
    /// What this says, and where it is silent, what `wider` says.
    pub(super) fn over(self, wider: &Self) -> Self {
        Self {
            codings: self.codings.or_else(|| wider.codings.clone()),
            types: self.types.or_else(|| wider.types.clone()),
            minimum: self.minimum.or(wider.minimum),
            effort: self.effort.or(wider.effort),
        }
    }

    /// Whether it says with which codings, if only that there are none.
    pub(super) const fn names_codings(&self) -> bool {
        self.codings.is_some()
    }

    /// Whether it says how, and not with which codings.
    pub(super) const fn is_vague(&self) -> bool {
        let terms = self.types.is_some() || self.minimum.is_some() || self.effort.is_some();
        terms && self.codings.is_none()
    }

    /// What holds; `None` where nothing is to be compressed.
    pub fn finish(&self) -> Option<Arc<Compression>> {
        let mut codings = Vec::new();
        for coding in self.codings.as_deref().unwrap_or_default() {
            if !codings.contains(coding) {
                codings.push(*coding);
            }
        }
        (!codings.is_empty()).then(|| {
            let ordinary = || {
                TYPES
                    .iter()
                    .map(|name| MediaRange((*name).into()))
                    .collect()
            };
            Arc::new(Compression {
                codings,
                types: self.types.clone().unwrap_or_else(ordinary),
                minimum: self.minimum.unwrap_or(MINIMUM),
                effort: self.effort.unwrap_or_default(),
            })
        })
    }
}

/// Reads the keys.
pub(super) fn compression(t: &mut Table<'_>) -> CompressionRules {
    let size = |size: Size| size.0;
    CompressionRules {
        codings: t.optional(
            "compression",
            "Content codings that responses are compressed with, the preferred one first; without \
             any, or `[]`: none are.",
        ),
        types: t.optional(
            "compression_types",
            "Types of responses that are compressed. Without: text, scripts, JSON, XML, SVG, \
             WebAssembly, and fonts that are not compressed already.",
        ),
        minimum: t
            .optional(
                "compression_minimum",
                "The size from which responses are compressed, if it is known in advance; 1KiB by \
                 default.",
            )
            .map(size),
        effort: t.optional(
            "compression_effort",
            "How much work is put into it; `\"medium\"` by default.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_ranges_cover_what_they_say() {
        for (range, media_type, expected) in [
            ("text/html", "Text/HTML", true),
            ("text/html", "text/htm", false),
            ("text/*", "text/css", true),
            ("text/*", "text", false),
            ("text/*", "application/text", false),
            ("*/*", "image/png", true),
            ("text/*", "text/event-stream", false),
            ("*/*", "application/grpc+proto", false),
            ("text/event-stream", "text/event-stream", true),
        ] {
            let covers = media_range(range).unwrap().covers(media_type.as_bytes());
            assert_eq!(covers, expected, "{range} {media_type}");
        }
        for text in [
            "",
            "text",
            "text/",
            "/html",
            "*/html",
            "t*/x",
            "text/html; q=1",
            "a/*b",
        ] {
            assert!(media_range(text).is_err(), "{text}");
        }
    }
}
