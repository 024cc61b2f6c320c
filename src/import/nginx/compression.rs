//! Compression: of nginx itself, and of the modules for Brotli and Zstandard.

use std::collections::BTreeSet;

use super::scope::Scope;
use super::{Import, unit};
use crate::import::site::Rules;
use crate::import::{array, quoted};

/// The coding, its module's prefix, and the level above which it is at work more than usual, as it is
/// below the first.
const CODINGS: [(&str, &str, [u32; 2]); 3] = [
    ("zstd", "zstd", [3, 9]),
    ("br", "brotli", [4, 7]),
    ("gzip", "gzip", [3, 7]),
];

/// What nginx compresses where nothing is said, in bytes.
const MINIMUM: u64 = 20;

impl Import {
    /// How responses are compressed, where they are.
    pub(super) fn compression(&mut self, scope: &Scope<'_>, rules: &mut Rules) {
        let on = |(_, module, _): &&(&str, &str, [u32; 2])| scope.is_on(module);
        let codings: Vec<_> = CODINGS.iter().filter(on).collect();
        if codings.is_empty() {
            return;
        }
        // nginx always compresses this one.
        let mut types = BTreeSet::from(["text/html".to_owned()]);
        let (mut minimum, mut effort) = (MINIMUM, "low");
        for (_, module, [medium, high]) in &codings {
            for listed in scope.all(&format!("{module}_types")) {
                types.extend(listed.args.iter().map(|kind| kind.to_ascii_lowercase()));
            }
            if let Some(length) = scope.nearest(&format!("{module}_min_length")) {
                match unit::bytes(length.first()) {
                    Some(bytes) => minimum = minimum.max(bytes),
                    None => self.lost(length, "is not a size; see compression_minimum"),
                }
            }
            let level = scope.nearest(&format!("{module}_comp_level"));
            let level = level.and_then(|level| level.first().parse::<u32>().ok());
            effort = match level {
                Some(level) if level >= *high => "high",
                Some(level) if level >= *medium && effort == "low" => "medium",
                _ => effort,
            };
        }
        let types: Vec<_> = match types.contains("*") {
            true => vec!["*/*".to_owned()],
            false => types.into_iter().collect(),
        };
        rules.insert(
            "compression",
            array(codings.iter().map(|(coding, ..)| coding)),
        );
        rules.insert("compression_types", array(types));
        rules.insert("compression_minimum", quoted(&unit::size(minimum)));
        rules.insert("compression_effort", quoted(effort));
    }
}
