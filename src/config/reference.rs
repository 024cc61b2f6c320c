//! Every key that can be written, for documentation.

use std::num::NonZeroUsize;
use std::path::Path;

use toml::de::DeTable;

use super::read::{Context, Table};
use super::section::{self, Environment};

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// The section it is in, as in `site.route`; empty for the top of the file.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// What can be written, and within which bounds.
    pub form: String,
    /// What applies without it; `required` where it must be there, `None` where it need not.
    pub default: Option<String>,
    /// What it means.
    pub meaning: &'static str,
}

/// A file that has every section there is, so that every reader is asked for its keys.
const EVERY_SECTION: &str = r#"
[[tls.listener]]
[[certificate]]
[defaults.hsts]
[defaults.maintenance]
[defaults.basic_auth]
[defaults.forward_auth]
[[site]]
[site.hsts]
[site.maintenance]
[site.basic_auth]
[site.forward_auth]
[[site.route]]
[site.route.hsts]
[site.route.maintenance]
[site.route.basic_auth]
[site.route.forward_auth]
[[stream]]
[[stream.route]]
[upstream.NAME]
servers = [{}]
[upstream.NAME.health]
[quota.NAME]
[[alerts.sink]]
type = "webhook"
url = ""
[[alerts.sink]]
type = "alertmanager"
[[alerts.sink]]
type = "email"
[[alerts.sink]]
type = "command"
[[alerts.sink]]
type = "heartbeat"
"#;

/// Every key, in the order of the sections.
///
/// It comes from the readers themselves: what is here is what is understood.
pub fn reference() -> Vec<KeyDoc> {
    let (document, _) = DeTable::parse_recoverable(EVERY_SECTION);
    let cx = Context::recording(Path::new(""));
    let environment = Environment {
        state_directory: None,
        threads: NonZeroUsize::MIN,
    };
    Table::root(&cx, document.get_ref(), |t| {
        section::file(t, &environment);
    });
    cx.into_keys()
}

/// The sections that have a key of this name.
pub(super) fn sections_with(key: &str) -> Vec<&'static str> {
    let docs = reference().into_iter();
    docs.filter(|doc| doc.key == key)
        .map(|doc| doc.section)
        .collect()
}
