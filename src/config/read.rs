//! A typed reader of TOML tables that collects faults instead of stopping at the first.
//!
//! Reading a key, declaring that it exists, and documenting it are one and the same call: what is
//! never read is unknown, and [`super::reference()`] is what a reader asked for. So neither the list
//! of known keys nor the documentation can differ from what is understood.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Complaint, Diagnostic, Level, Span, quoted, short};
use super::reference::{self, KeyDoc};
use super::value::Target;
pub(super) use super::value::{At, FromToml, ListForm, Show, Size};

/// How many suggestions are looked for: about as many as are shown.
const SUGGESTIONS: usize = 100;

/// What all readers of one file share.
pub(super) struct Context<'f> {
    /// Relative paths are below this folder.
    pub(super) folder: &'f Path,
    /// Where each line of the text ends.
    line_ends: Vec<usize>,
    /// Where the first fault of the syntax is. What stands before it was read as it is written;
    /// what follows may have been read as something else, and what seems to be missing may not be.
    damaged_from: Option<usize>,
    found: RefCell<Vec<Diagnostic>>,
    /// How many suggestions may still be looked for: each costs, and the file may be all faults.
    suggestions: Cell<usize>,
    /// The quotas that rules name.
    quotas: RefCell<Vec<At<Arc<str>>>>,
    /// Whom rules ask.
    targets: RefCell<Vec<At<Target>>>,
    /// Every key asked for, when that is what is wanted.
    keys: Option<RefCell<Vec<KeyDoc>>>,
}

impl<'f> Context<'f> {
    pub(super) fn new(text: &str, folder: &'f Path, damaged_from: Option<usize>) -> Self {
        Self {
            folder,
            line_ends: text.match_indices('\n').map(|(at, _)| at).collect(),
            damaged_from,
            found: RefCell::default(),
            suggestions: Cell::new(SUGGESTIONS),
            quotas: RefCell::default(),
            targets: RefCell::default(),
            keys: None,
        }
    }

    /// One that notes every key asked for.
    pub(super) fn recording(folder: &'f Path) -> Self {
        Self {
            keys: Some(RefCell::default()),
            ..Self::new("", folder, None)
        }
    }

    /// Remembers that rules name a quota.
    pub(super) fn wants_quota(&self, name: At<Arc<str>>) -> Arc<str> {
        let value = Arc::clone(&name.value);
        self.quotas.borrow_mut().push(name);
        value
    }

    /// The quotas that rules name.
    pub(super) fn wanted_quotas(&self) -> Vec<At<Arc<str>>> {
        self.quotas.take()
    }

    /// Remembers that rules ask a server; the name of the upstream that it is in.
    pub(super) fn wants_target(&self, target: At<Target>) -> Arc<str> {
        let name = match &target.value {
            Target::Named(name) => Arc::clone(name),
            Target::Url(server) => Arc::clone(&server.url),
        };
        self.targets.borrow_mut().push(target);
        name
    }

    /// Whom rules ask.
    pub(super) fn wanted_targets(&self) -> Vec<At<Target>> {
        self.targets.take()
    }

    /// Whether something can be said of the file as a whole.
    pub(super) fn is_whole(&self) -> bool {
        self.damaged_from.is_none()
    }

    /// Whether a fault was found, of which something that is missing may be the consequence.
    pub(super) fn has_errors(&self) -> bool {
        let found = self.found.borrow();
        found.iter().any(|it| it.level == Level::Error)
    }

    /// Notes a fault, unless it may be the consequence of another.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        let sound = match (self.damaged_from, &diagnostic.span) {
            (None, _) => true,
            (Some(from), Some(span)) => span.end <= from && !span.is_empty(),
            (Some(_), None) => false,
        };
        if sound {
            self.found.borrow_mut().push(diagnostic);
        }
    }

    /// Notes that something is not there.
    pub(super) fn report_missing(&self, diagnostic: Diagnostic) {
        if self.is_whole() {
            self.report(diagnostic);
        }
    }

    /// Of `candidates` the one that `text` may be a misspelling of.
    pub(super) fn nearest<'a>(
        &self,
        text: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Option<&'a str> {
        // The distance is quadratic in the length.
        const LONGEST: usize = 100;
        let left = self.suggestions.get().checked_sub(1)?;
        self.suggestions.set(left);
        if text.len() > LONGEST {
            return None;
        }
        let allowed = (text.chars().count() / 3).max(1);
        candidates
            .into_iter()
            .filter(|candidate| candidate.len() <= LONGEST)
            .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
            .filter(|(distance, _)| *distance <= allowed)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, candidate)| candidate)
    }

    /// The line that a span begins on, counted from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        self.line_ends.partition_point(|&end| end < span.start) + 1
    }

    pub(super) fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }

    pub(super) fn into_keys(self) -> Vec<KeyDoc> {
        self.keys.map(RefCell::into_inner).unwrap_or_default()
    }
}

/// A value and whose it is.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    /// Section and key, as in `timeouts.idle`.
    pub(super) name: &'a str,
    /// What can be written, with its bounds.
    pub(super) form: &'a str,
    pub(super) node: &'a Spanned<DeValue<'a>>,
    pub(super) cx: &'a Context<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn span(&self) -> Span {
        self.node.span()
    }

    /// Another value, in the place of this one.
    pub(super) fn with<'b>(self, node: &'b Spanned<DeValue<'b>>) -> Value<'b>
    where
        'a: 'b,
    {
        Value { node, ..self }
    }

    /// The text, where it is one.
    pub(super) fn text(&self, expected: &str) -> Option<&'a str> {
        match self.node.get_ref() {
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong_type(expected);
                None
            }
        }
    }

    /// The keys and values of a table whose keys are the user's own, where it is one.
    pub(super) fn entries(
        &self,
        expected: &str,
    ) -> Option<impl Iterator<Item = (At<Arc<str>>, &'a Spanned<DeValue<'a>>)> + use<'a>> {
        let DeValue::Table(table) = self.node.get_ref() else {
            self.wrong_type(expected);
            return None;
        };
        Some(table.iter().map(|(name, node)| {
            let (value, span) = (name.get_ref().as_ref().into(), name.span());
            (At { value, span }, node)
        }))
    }

    /// Says that this is not what was expected.
    pub(super) fn wrong_type(&self, expected: &str) {
        let (found, help) = match self.node.get_ref() {
            DeValue::String(text) => (format!("the string {}", quoted(text)), None),
            DeValue::Integer(number) => (format!("the number {number}"), Some(number.to_string())),
            DeValue::Float(number) => (format!("the number {number}"), None),
            DeValue::Boolean(value) => (format!("`{value}`"), None),
            DeValue::Datetime(_) => ("a date".to_owned(), None),
            DeValue::Array(_) => ("an array".to_owned(), None),
            DeValue::Table(_) => ("a table".to_owned(), None),
        };
        let message = format!("`{}`: expected {expected}, found {found}", self.name);
        let error = Diagnostic::error(self.span(), message);
        self.cx.report(match help {
            Some(number) if expected == Duration::FORM => {
                error.help(format!("add the unit, in quotes: `\"{number}s\"`"))
            }
            Some(number) if expected == Size::FORM => {
                error.help(format!("put it in quotes: `\"{number}\"`"))
            }
            _ => match self.unquoted(expected) {
                Some(text) => error.help(format!("write it without quotes: `{text}`")),
                None => error,
            },
        });
    }

    /// What stands in quotes and would be what is expected without them.
    fn unquoted(&self, expected: &str) -> Option<&'a str> {
        let DeValue::String(text) = self.node.get_ref() else {
            return None;
        };
        let text: &'a str = text;
        let fits = match text {
            "true" | "false" => expected == bool::FORM,
            number if expected == usize::FORM || expected == NonZeroUsize::FORM => {
                number.parse::<u64>().is_ok()
            }
            share => expected == f64::FORM && share.parse::<f64>().is_ok(),
        };
        fits.then_some(text)
    }

    /// Says what is wrong with the text of this value. The text itself is not repeated: it is
    /// there in the line shown, where secrets are hidden.
    pub(super) fn complain(&self, complaint: Complaint) {
        let message = format!("`{}`: {}", self.name, complaint.message);
        self.cx
            .report(Diagnostic::error(self.span(), message).help(complaint.help));
    }
}

/// One section of the file, or its top.
pub(super) struct Table<'c> {
    pub(super) cx: &'c Context<'c>,
    /// As the reference names it: `site.route`; empty for the top of the file.
    section: &'static str,
    /// As a message names it: `[[site.route]]`.
    pub(super) label: String,
    /// Its header.
    pub(super) span: Span,
    /// `None`: the file does not have it.
    entries: Option<&'c DeTable<'c>>,
    known: Vec<&'static str>,
    /// Keys that do not exist, and of which enough has been said.
    refused: Vec<&'static str>,
    unknown_allowed: bool,
}

impl<'c> Table<'c> {
    /// Reads the top of the file.
    pub(super) fn root<R>(
        cx: &'c Context<'c>,
        entries: &'c DeTable<'c>,
        read: impl FnOnce(&mut Self) -> R,
    ) -> R {
        Self::read(cx, "", String::new(), 0..0, Some(entries), read)
    }

    fn read<R>(
        cx: &'c Context<'c>,
        section: &'static str,
        label: String,
        span: Span,
        entries: Option<&'c DeTable<'c>>,
        read: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let mut table = Self {
            cx,
            section,
            label,
            span,
            entries,
            known: Vec::new(),
            refused: Vec::new(),
            unknown_allowed: false,
        };
        let result = read(&mut table);
        if !table.unknown_allowed {
            table.report_unknown();
        }
        result
    }

    /// A key with a default.
    pub(super) fn or<T: FromToml + Show>(
        &mut self,
        key: &'static str,
        default: T,
        meaning: &'static str,
    ) -> T {
        let shown = default.show();
        self.take(key, meaning, T::FORM, Some(shown))
            .unwrap_or(default)
    }

    /// A key with a default, and with bounds.
    pub(super) fn or_within<T: FromToml + Show + PartialOrd>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
        meaning: &'static str,
    ) -> T {
        let shown = default.show();
        self.take_within(key, range, shown, meaning)
            .unwrap_or(default)
    }

    /// The same, with a default that depends on the machine.
    pub(super) fn or_described_within<T: FromToml + Show + PartialOrd>(
        &mut self,
        key: &'static str,
        default: impl FnOnce() -> T,
        range: RangeInclusive<T>,
        described: &'static str,
        meaning: &'static str,
    ) -> T {
        self.take_within(key, range, described.to_owned(), meaning)
            .unwrap_or_else(default)
    }

    fn take_within<T: FromToml + Show + PartialOrd>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        shown: String,
        meaning: &'static str,
    ) -> Option<T> {
        self.take_bounded(key, range, Some(shown), meaning)
    }

    fn take_bounded<T: FromToml + Show + PartialOrd>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        shown: Option<String>,
        meaning: &'static str,
    ) -> Option<T> {
        let (least, most) = (range.start().show(), range.end().show());
        let form = format!("{}, {least} to {most}", T::FORM);
        let At { value, span } = self.take(key, meaning, &form, shown)?;
        if range.contains(&value) {
            return Some(value);
        }
        let name = self.name(key);
        let message = format!("`{name}`: {} is out of range", value.show());
        self.cx.report(
            Diagnostic::error(span, message).help(format!("write a value from {least} to {most}")),
        );
        None
    }

    /// A key whose default depends on the machine, and is described rather than shown.
    pub(super) fn or_described<T: FromToml>(
        &mut self,
        key: &'static str,
        default: impl FnOnce() -> T,
        described: &'static str,
        meaning: &'static str,
    ) -> T {
        self.take(key, meaning, T::FORM, Some(described.to_owned()))
            .unwrap_or_else(default)
    }

    /// A key that need not be there.
    pub(super) fn optional<T: FromToml>(
        &mut self,
        key: &'static str,
        meaning: &'static str,
    ) -> Option<T> {
        self.take(key, meaning, T::FORM, None)
    }

    /// The same, with bounds.
    pub(super) fn optional_within<T: FromToml + Show + PartialOrd>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        meaning: &'static str,
    ) -> Option<T> {
        self.take_bounded(key, range, None, meaning)
    }

    /// A key that must be there. `None` has been reported.
    pub(super) fn required<T: FromToml>(
        &mut self,
        key: &'static str,
        meaning: &'static str,
    ) -> Option<T> {
        let read = self.take(key, meaning, T::FORM, Some("required".to_owned()));
        if !self.has(key) {
            let message = format!("{} has no `{key}`", self.label);
            self.cx.report_missing(
                Diagnostic::error(self.span.clone(), message)
                    .help(format!("write `{key} = …`: {}", T::FORM)),
            );
        }
        read
    }

    /// Whether the file has the key, well written or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries
            .is_some_and(|entries| entries.contains_key(key))
    }

    /// A key that is there, known, and none of these.
    pub(super) fn beside(&self, keys: &[&str]) -> Option<&'static str> {
        let others = self.known.iter().filter(|key| !keys.contains(key));
        others.copied().find(|key| self.has(key))
    }

    /// Where the value of a key is, well written or not.
    pub(super) fn place(&self, key: &str) -> Option<Span> {
        self.entries?.get(key).map(Spanned::span)
    }

    /// Has a key known without reading it.
    pub(super) fn exists(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// Gives up on this section: what is in it cannot be judged.
    pub(super) fn allow_unknown(&mut self) {
        self.unknown_allowed = true;
    }

    /// A key that does not exist, for a reason worth giving.
    pub(super) fn refuse(&mut self, key: &'static str, message: &str, help: &str) {
        if let Some((found, _)) = self.entries.and_then(|entries| entries.get_key_value(key)) {
            self.refused.push(key);
            let message = format!("`{}`: {message}", self.name(key));
            self.cx
                .report(Diagnostic::error(found.span(), message).help(help));
        }
    }

    /// The table `[key]`. Where the file has none, it is read as if empty.
    pub(super) fn section<R>(
        &mut self,
        key: &'static str,
        section: &'static str,
        read: impl FnOnce(&mut Self) -> R,
    ) -> R {
        self.known.push(key);
        let label = format!("[{section}]");
        let (mut span, mut entries) = (0..0, None);
        if let Some(node) = self.entries.and_then(|entries| entries.get(key)) {
            span = node.span();
            match node.get_ref() {
                DeValue::Table(table) => entries = Some(table),
                DeValue::Array(array) if !array.is_empty() => self.cx.report(
                    Diagnostic::error(span.clone(), format!("`{section}` can be there only once"))
                        .help(format!("write `{label}`, in single brackets")),
                ),
                _ => self.wrong_section(section, node, &label),
            }
        }
        Table::read(self.cx, section, label, span, entries, read)
    }

    /// A key whose value is either simple or a table with more to say.
    pub(super) fn alternative<T: FromToml, R>(
        &mut self,
        key: &'static str,
        section: &'static str,
        meaning: &'static str,
        simple: impl FnOnce(T) -> R,
        read: impl FnOnce(&mut Self) -> Option<R>,
    ) -> Option<R> {
        let node = self.entries.and_then(|entries| entries.get(key));
        let Some(DeValue::Table(table)) = node.map(Spanned::get_ref) else {
            return self.optional(key, meaning).map(simple);
        };
        self.known.push(key);
        self.note(key, meaning, T::FORM, None);
        let (label, span) = (format!("[{section}]"), self.place(key).unwrap_or(0..0));
        Table::read(self.cx, section, label, span, Some(table), read)
    }

    /// Says what is wrong at a place of this section.
    pub(super) fn complain(&self, span: &Span, complaint: Complaint) {
        let message = match self.section {
            "" => complaint.message,
            section => format!("`{section}`: {}", complaint.message),
        };
        self.cx
            .report(Diagnostic::error(span.clone(), message).help(complaint.help));
    }

    /// The tables `[[key]]`, in their order. What `read` gives up is left out.
    pub(super) fn each<R>(
        &mut self,
        key: &'static str,
        section: &'static str,
        mut read: impl FnMut(&mut Self, usize) -> Option<R>,
    ) -> Vec<R> {
        self.known.push(key);
        let label = format!("[[{section}]]");
        let Some(node) = self.entries.and_then(|entries| entries.get(key)) else {
            return Vec::new();
        };
        let array = match node.get_ref() {
            DeValue::Array(array) => array,
            DeValue::Table(_) => {
                let message = format!("`{section}` can be there more than once");
                self.cx
                    .report(Diagnostic::error(node.span(), message).help(format!(
                        "write `{label}`, in double brackets, before what belongs to it"
                    )));
                return Vec::new();
            }
            _ => {
                self.wrong_section(section, node, &label);
                return Vec::new();
            }
        };
        let mut all = Vec::with_capacity(array.len());
        for (index, node) in array.iter().enumerate() {
            match node.get_ref() {
                DeValue::Table(table) => all.extend(Table::read(
                    self.cx,
                    section,
                    label.clone(),
                    node.span(),
                    Some(table),
                    |table| read(table, index),
                )),
                _ => self.wrong_section(section, node, &label),
            }
        }
        all
    }

    /// The tables `[key.NAME]`, by name.
    pub(super) fn named<R>(
        &mut self,
        key: &'static str,
        section: &'static str,
        mut read: impl FnMut(&mut Self, &'c str, Span) -> Option<R>,
    ) -> Vec<R> {
        self.known.push(key);
        let Some(node) = self.entries.and_then(|entries| entries.get(key)) else {
            return Vec::new();
        };
        let DeValue::Table(tables) = node.get_ref() else {
            self.wrong_section(section, node, &format!("[{section}]"));
            return Vec::new();
        };
        let mut all = Vec::with_capacity(tables.len());
        for (name, node) in tables {
            let label = format!("[{key}.{}]", short(name.get_ref()));
            match node.get_ref() {
                DeValue::Table(table) => all.extend(Table::read(
                    self.cx,
                    section,
                    label,
                    node.span(),
                    Some(table),
                    |table| read(table, name.get_ref(), name.span()),
                )),
                _ => self.wrong_section(section, node, &label),
            }
        }
        all
    }

    /// An array that must be there, of values that are each a string, or a table with more to say.
    pub(super) fn mixed<T: FromToml + ListForm>(
        &mut self,
        key: &'static str,
        section: &'static str,
        meaning: &'static str,
        mut read: impl FnMut(&mut Self) -> Option<At<T>>,
    ) -> Option<Vec<At<T>>> {
        let array = self
            .entries
            .and_then(|entries| entries.get(key))
            .and_then(|node| match node.get_ref() {
                DeValue::Array(array) => Some(array),
                _ => None,
            });
        let tables = |node: &&Spanned<DeValue<'_>>| matches!(node.get_ref(), DeValue::Table(_));
        let Some(array) = array.filter(|array| array.iter().any(|node| tables(&node))) else {
            return self.required(key, meaning);
        };
        self.known.push(key);
        self.note(key, meaning, T::LIST, Some("required".to_owned()));
        let (name, cx) = (self.name(key), self.cx);
        let mut all = Vec::with_capacity(array.len());
        for node in array.iter() {
            all.extend(match node.get_ref() {
                DeValue::Table(table) => {
                    let label = format!("`{name}`");
                    Table::read(cx, section, label, node.span(), Some(table), &mut read)
                }
                _ => At::from_toml(Value {
                    name: &name,
                    form: T::LIST,
                    node,
                    cx,
                }),
            });
        }
        Some(all).filter(|all| all.len() == array.len())
    }

    fn wrong_section(&self, section: &str, node: &'c Spanned<DeValue<'c>>, label: &str) {
        let form = format!("a table, written {label}");
        let value = Value {
            name: section,
            form: &form,
            node,
            cx: self.cx,
        };
        value.wrong_type(&form);
    }

    /// Reads a key, and notes that it exists.
    fn take<T: FromToml>(
        &mut self,
        key: &'static str,
        meaning: &'static str,
        form: &str,
        default: Option<String>,
    ) -> Option<T> {
        self.known.push(key);
        self.note(key, meaning, form, default);
        let node = self.entries?.get(key)?;
        let (name, cx) = (self.name(key), self.cx);
        T::from_toml(Value {
            name: &name,
            form,
            node,
            cx,
        })
    }

    /// Notes a key for the reference, where one is wanted.
    fn note(&self, key: &'static str, meaning: &'static str, form: &str, default: Option<String>) {
        let Some(keys) = &self.cx.keys else {
            return;
        };
        let doc = KeyDoc {
            section: self.section,
            key,
            form: form.to_owned(),
            default,
            meaning,
        };
        let mut keys = keys.borrow_mut();
        if !keys.contains(&doc) {
            keys.push(doc);
        }
    }

    fn name(&self, key: &str) -> String {
        match self.section {
            "" => key.to_owned(),
            section => format!("{section}.{key}"),
        }
    }

    fn report_unknown(&self) {
        for (key, _) in self.entries.into_iter().flatten() {
            let (span, key) = (key.span(), key.get_ref());
            if self
                .known
                .iter()
                .chain(&self.refused)
                .any(|known| known == key)
            {
                continue;
            }
            let mut message = format!("unknown key {}", quoted(key));
            if !self.label.is_empty() {
                let _ = write!(message, " in {}", self.label);
            }
            self.cx
                .report(Diagnostic::error(span, message).help(self.suggest(key)));
        }
    }

    /// What may have been meant by a key that is unknown here.
    fn suggest(&self, key: &str) -> String {
        if let Some(near) = self.cx.nearest(key, self.known.iter().copied()) {
            return format!("did you mean `{near}`?");
        }
        let elsewhere = match self.cx.suggestions.get() {
            0 => Vec::new(),
            _ => reference::sections_with(key),
        };
        match elsewhere.first() {
            Some(&"") => {
                format!("`{key}` belongs at the top of the file, before the first line in brackets")
            }
            // One kind of sink has it and another has not.
            Some(section) if *section != self.section => format!("`{key}` belongs in `{section}`"),
            _ => format!("what can be written here: {}", self.known.join(", ")),
        }
    }
}
