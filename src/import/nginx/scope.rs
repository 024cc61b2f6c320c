//! What encloses a directive, and what has been looked at.
//!
//! Whoever reads a directive marks it. What nobody has marked in the end is told of, so that nothing
//! is dropped in silence, not even what is not known.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use super::Directive;

/// The directives that something was made of, or that were told of.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Rc<RefCell<HashSet<usize>>>);

impl Seen {
    /// This one, not what is in its braces.
    pub(super) fn mark(&self, directive: &Directive) {
        self.0.borrow_mut().insert(directive.id);
    }

    /// With all that is in its braces.
    pub(super) fn mark_all(&self, directive: &Directive) {
        self.mark(directive);
        directive
            .inside()
            .iter()
            .for_each(|inner| self.mark_all(inner));
    }

    pub(super) fn has(&self, directive: &Directive) -> bool {
        self.0.borrow().contains(&directive.id)
    }
}

/// The levels that hold for a directive, innermost first.
#[derive(Clone, Debug)]
pub(super) struct Scope<'d> {
    levels: Vec<&'d [Directive]>,
    seen: Seen,
}

impl<'d> Scope<'d> {
    pub(super) fn new(level: &'d [Directive], seen: &Seen) -> Self {
        Self {
            levels: vec![level],
            seen: seen.clone(),
        }
    }

    /// The one of a block inside.
    pub(super) fn inside(&self, level: &'d [Directive]) -> Self {
        let levels = std::iter::once(level).chain(self.levels.iter().copied());
        Self {
            levels: levels.collect(),
            seen: self.seen.clone(),
        }
    }

    /// The innermost level alone.
    pub(super) fn own(&self) -> Self {
        Self {
            levels: self.levels[..1].to_vec(),
            seen: self.seen.clone(),
        }
    }

    /// The directives of the outermost level.
    pub(super) fn outermost(&self) -> &'d [Directive] {
        self.levels.last().copied().unwrap_or_default()
    }

    /// Marks a directive with all that is in its braces.
    pub(super) fn mark_all(&self, directive: &Directive) {
        self.seen.mark_all(directive);
    }

    /// The directives of the innermost level.
    pub(super) fn here(&self) -> &'d [Directive] {
        self.levels[0]
    }

    /// Those of some names on the nearest level that has any: an inner list replaces an outer one.
    pub(super) fn any_of(&self, names: &[&str]) -> Vec<&'d Directive> {
        let of = |level: &&'d [Directive]| {
            let found = level.iter().filter(|d| names.contains(&d.name.as_str()));
            Some(found.collect::<Vec<_>>()).filter(|found| !found.is_empty())
        };
        let found = self.levels.iter().find_map(of).unwrap_or_default();
        found.iter().for_each(|directive| self.seen.mark(directive));
        found
    }

    /// All of a name on the nearest level that has any.
    pub(super) fn all(&self, name: &str) -> Vec<&'d Directive> {
        self.any_of(&[name])
    }

    /// The nearest of a name.
    pub(super) fn nearest(&self, name: &str) -> Option<&'d Directive> {
        self.all(name).pop()
    }

    /// Whether the nearest of a name says `on`.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.nearest(name)
            .is_some_and(|found| found.first() == "on")
    }
}
