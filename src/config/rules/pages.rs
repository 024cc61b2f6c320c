//! `error_pages`: what is said in place of the built-in bodies of errors.

use std::path::PathBuf;
use std::sync::Arc;

use toml::de::DeValue;

use super::{ErrorPage, Instead};
use crate::config::default;
use crate::config::diagnostic::{Diagnostic, quoted};
use crate::config::read::{At, FromToml, Value};

/// By status.
pub(super) struct Pages(pub(super) Vec<ErrorPage>);

impl FromToml for Pages {
    const FORM: &'static str =
        "a table of files such as { 404 = \"404.html\", 5xx = { body = \"sorry\" } }";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        let mut pages = Vec::new();
        for (name, node) in value.entries(Self::FORM)? {
            let inner = value.with(node);
            let instead = match node.get_ref() {
                DeValue::Table(_) => instead(&inner),
                _ => PathBuf::from_toml(inner).map(Instead::File),
            };
            let Some((from, to)) = statuses(&name.value) else {
                value.cx.report(
                    Diagnostic::error(
                        name.span,
                        format!("`{}`: {} is no error", value.name, quoted(&name.value)),
                    )
                    .help("write a status from 400 to 599, or `4xx` or `5xx`"),
                );
                continue;
            };
            pages.extend(instead.map(|instead| ErrorPage { from, to, instead }));
        }
        // What is for one status goes before what is for all of its kind.
        pages.sort_by_key(|page| page.to - page.from);
        Some(Self(pages))
    }
}

/// `{ body = "…", content_type = "…" }` or `{ redirect = "…", status = 302 }`.
fn instead(value: &Value<'_>) -> Option<Instead> {
    let (mut body, mut kind, mut to, mut status) = (None, None, None, None);
    for (name, node) in value.entries(Pages::FORM)? {
        let inner = value.with(node);
        match &*name.value {
            "body" => body = Arc::<str>::from_toml(inner),
            "content_type" => kind = At::<Arc<str>>::from_toml(inner),
            "redirect" => to = At::<Arc<str>>::from_toml(inner),
            "status" => status = At::<u32>::from_toml(inner),
            _ => value.cx.report(
                Diagnostic::error(
                    name.span,
                    format!("`{}`: unknown key {}", value.name, quoted(&name.value)),
                )
                .help("write `body` and `content_type`, or `redirect` and `status`"),
            ),
        }
    }
    let wrong = |span, message: &str, help: &str| {
        let message = format!("`{}`: {message}", value.name);
        value.cx.report(Diagnostic::error(span, message).help(help));
    };
    match (body, to) {
        (Some(body), None) if status.is_none() => {
            let content_type = match kind {
                Some(At { value, span }) => {
                    if let Err(complaint) = super::owned::value(&value) {
                        wrong(span, &complaint.message, &complaint.help);
                    }
                    value
                }
                None => default::CONTENT_TYPE.into(),
            };
            Some(Instead::Text { body, content_type })
        }
        (None, Some(At { value: to, span })) if kind.is_none() => {
            if !is_location(&to) {
                wrong(
                    span,
                    "is neither a URL nor a path",
                    "write it as in `\"https://status.example.com/\"` or `\"/sorry\"`",
                );
            }
            let status = match status {
                None => 302,
                Some(At { value, span }) => {
                    if !matches!(value, 301..=303 | 307 | 308) {
                        let message = format!("{value} is no redirect");
                        wrong(span, &message, "write 301, 302, 303, 307 or 308");
                    }
                    u16::try_from(value).unwrap_or(302)
                }
            };
            Some(Instead::Redirect { to, status })
        }
        _ => {
            wrong(
                value.span(),
                "has to have either `body` or `redirect`",
                "write `{ body = \"…\", content_type = \"…\" }` or `{ redirect = \"…\", status = 302 }`",
            );
            None
        }
    }
}

/// Whether a client can be sent there.
fn is_location(text: &str) -> bool {
    let begins = ["https://", "http://", "/"];
    begins.iter().any(|begin| text.starts_with(begin))
        && !text.starts_with("//")
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn statuses(text: &str) -> Option<(u16, u16)> {
    match text {
        "4xx" => Some((400, 499)),
        "5xx" => Some((500, 599)),
        _ => {
            let status = text.parse().ok().filter(|_| text.len() == 3)?;
            (400..=599).contains(&status).then_some((status, status))
        }
    }
}
