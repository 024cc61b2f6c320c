//! `cookies`: what becomes of the cookies that servers set.

use std::sync::Arc;

use super::fields::{Field, Fields};
use crate::config::diagnostic::Complaint;
use crate::config::read::{At, Table};

/// What becomes of `Set-Cookie` (RFC 6265, section 4.1) in responses. What is `None` is left to what
/// is wider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cookies {
    /// They are sent over TLS only.
    pub secure: Option<bool>,
    /// No script sees them.
    pub http_only: Option<bool>,
    /// The value of `SameSite`; empty: it stays as it is.
    pub same_site: Option<Arc<str>>,
    /// Beginnings of `Path` and what stands in their place; the longest first.
    pub paths: Option<Vec<(Arc<str>, Arc<str>)>>,
    /// Values of `Domain` and what stands in their place; an empty one takes it out.
    pub domains: Option<Vec<(Arc<str>, Arc<str>)>>,
}

impl Cookies {
    /// With what is wider where this says nothing.
    #[must_use]
    pub fn over(self, wider: &Self) -> Self {
        Self {
            secure: self.secure.or(wider.secure),
            http_only: self.http_only.or(wider.http_only),
            same_site: self.same_site.or_else(|| wider.same_site.clone()),
            paths: self.paths.or_else(|| wider.paths.clone()),
            domains: self.domains.or_else(|| wider.domains.clone()),
        }
    }
}

pub(super) fn cookies(t: &mut Table<'_>) -> Cookies {
    let secure = t.optional("secure", "Whether all of them get `Secure`.");
    let http_only = t.optional("http_only", "Whether all of them get `HttpOnly`.");
    let same_site = same_site(t);
    let paths: Option<Fields> = t.optional(
        "path",
        "Beginnings of `Path` and what stands in their place, where clients know a server's paths by \
         others: `{ \"/app/\" = \"/\" }`. The longest that fits.",
    );
    let domains: Option<Fields> = t.optional(
        "domain",
        "Values of `Domain` and what stands in their place: `{ \"app.internal\" = \"example.com\" }`; \
         `\"\"` takes it out.",
    );
    Cookies {
        secure,
        http_only,
        same_site,
        paths: paths.map(|paths| pairs(t, paths, "path")),
        domains: domains.map(|domains| pairs(t, domains, "domain")),
    }
}

/// What stands for what; the longest first.
fn pairs(t: &Table<'_>, fields: Fields, key: &str) -> Vec<(Arc<str>, Arc<str>)> {
    let good = |text: &str| {
        text.bytes()
            .all(|b| (b'!'..=b'~').contains(&b) && b != b';')
    };
    let mut pairs: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    for Field { name, value } in fields.0 {
        for at in [&name, &value] {
            if !good(&at.value) {
                t.complain(
                    &at.span,
                    Complaint::new(
                        format!("`{key}`: cannot be in a cookie"),
                        "write it without spaces and semicolons",
                    ),
                );
            }
        }
        pairs.push((name.value, value.value));
    }
    pairs.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
    pairs
}

fn same_site(t: &mut Table<'_>) -> Option<Arc<str>> {
    let word: At<Arc<str>> = t.optional(
        "same_site",
        "The `SameSite` that all of them get: `\"Strict\"`, `\"Lax\"` or `\"None\"`; `\"\"`: what they \
         say themselves.",
    )?;
    match &*word.value {
        "" | "Strict" | "Lax" | "None" => Some(word.value),
        _ => {
            t.complain(
                &word.span,
                Complaint::new(
                    "`same_site`: not one of its values",
                    "write `\"Strict\"`, `\"Lax\"` or `\"None\"`",
                ),
            );
            None
        }
    }
}
