//! The inventory and the ledger, for eyes.

use std::fmt::Write;

use serde::Deserialize;

use crate::cert::ledger::Entry;
use crate::cert::{Disk, DiskState, Origin, Stage};
use crate::clock::Timestamp;

/// Characters of a bar.
const BAR: i64 = 16;

/// Characters of the widest columns, beyond which they are cut.
const NAMES: usize = 44;
const ISSUER: usize = 24;

/// One entry of the inventory, as the admin address has it: only what is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    #[serde(default)]
    source: Vec<String>,
    #[serde(flatten)]
    certificate: Option<Certificate>,
    serving: bool,
    origin: Origin,
    disk: Disk,
}

#[derive(Debug, Deserialize)]
struct Certificate {
    names: Vec<String>,
    issuer: String,
    key_type: String,
    not_before: Timestamp,
    not_after: Timestamp,
    stage: Stage,
    #[serde(default)]
    staple: Option<Staple>,
}

#[derive(Debug, Deserialize)]
struct Staple {
    status: String,
    next_update: Option<Timestamp>,
    detail: Option<String>,
}

/// How to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) colours: bool,
    /// The terminal can show more than ASCII.
    pub(super) unicode: bool,
}

#[derive(Clone, Copy)]
enum Colour {
    Plain,
    Faint,
    Green,
    Yellow,
    Red,
}

/// The inventory as a table, what needs attention soonest first.
pub(super) fn inventory(mut rows: Vec<Row>, now: Timestamp, style: Style) -> String {
    if rows.is_empty() {
        return "no certificates are known\n".to_owned();
    }
    rows.sort_by(|one, other| one.urgency().cmp(&other.urgency()));
    let lines: Vec<_> = rows.iter().map(|row| row.cells(now, style)).collect();
    let heads = ["NAMES", "ISSUER", "KEY", "LEFT", "", "STAGE", "FROM"];
    let widths: Vec<usize> = (0..heads.len())
        .map(|n| {
            let cells = lines.iter().map(|cells| cells[n].0.chars().count());
            cells.chain([heads[n].len()]).max().unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    let head = heads.map(|head| (head.to_owned(), Colour::Faint));
    line(&mut text, &head, &widths, style);
    for (cells, row) in lines.iter().zip(&rows) {
        line(&mut text, cells, &widths, style);
        row.explain(&mut text, style);
    }
    text
}

/// The ledger, the oldest first.
pub(super) fn history(entries: &[Entry], style: Style) -> String {
    let mut text = String::new();
    for entry in entries {
        let colour = match entry.event.as_str() {
            "rejected" | "held-back" => Colour::Red,
            "accepted" | "removed" => Colour::Yellow,
            "swapped" | "recovered" => Colour::Green,
            _ => Colour::Plain,
        };
        let event = paint(&format!("{:<9}", entry.event), colour, style);
        let source = printable(&entry.source);
        put(&mut text, format_args!("{}  {event}  {source}", entry.time));
        if let Some(fingerprint) = &entry.fingerprint {
            let short: String = fingerprint.chars().take(16).collect();
            put(&mut text, format_args!("  {}", printable(&short)));
        }
        if let Some(until) = entry.not_after {
            put(&mut text, format_args!("  until {until}"));
        }
        if let Some(reason) = entry.reason {
            put(&mut text, format_args!("  {reason}"));
        }
        text.push('\n');
        if let Some(detail) = &entry.detail {
            let detail = paint(&printable(detail), Colour::Faint, style);
            put(&mut text, format_args!("    {detail}\n"));
        }
    }
    text
}

impl Staple {
    fn said(&self) -> String {
        let mut said = format!("OCSP staple: {}", printable(&self.status));
        if let Some(at) = self.next_update {
            put(&mut said, format_args!(", until {at}"));
        }
        if let Some(detail) = &self.detail {
            put(&mut said, format_args!("; {}", printable(detail)));
        }
        said
    }

    fn colour(&self) -> Colour {
        match (self.status.as_str(), &self.detail) {
            ("good", None) => Colour::Faint,
            ("good", Some(_)) => Colour::Yellow,
            _ => Colour::Red,
        }
    }
}

impl Row {
    /// Smaller is more urgent: nothing held, then by expiry.
    fn urgency(&self) -> (bool, Option<Timestamp>, &[String]) {
        let until = self.certificate.as_ref().map(|held| held.not_after);
        (until.is_some(), until, &self.source)
    }

    fn cells(&self, now: Timestamp, style: Style) -> [(String, Colour); 7] {
        let from = (self.origin(), self.colour_of_origin());
        let Some(certificate) = &self.certificate else {
            let source = self.source.first().map_or("?", String::as_str);
            let none = || (String::new(), Colour::Plain);
            let name = cut(&printable(source), NAMES, style);
            return [
                (name, Colour::Red),
                none(),
                none(),
                none(),
                none(),
                ("none held".to_owned(), Colour::Red),
                from,
            ];
        };
        let colour = match certificate.stage {
            Stage::Fresh => Colour::Green,
            Stage::Due => Colour::Plain,
            Stage::Overdue | Stage::NotYetValid => Colour::Yellow,
            Stage::Expiring | Stage::Expired => Colour::Red,
        };
        [
            (certificate.names(style), Colour::Plain),
            (
                cut(&printable(&certificate.issuer), ISSUER, style),
                Colour::Plain,
            ),
            (printable(&certificate.key_type), Colour::Plain),
            (certificate.left(now), colour),
            (certificate.bar(now, style), colour),
            (certificate.stage().to_owned(), colour),
            from,
        ]
    }

    fn origin(&self) -> String {
        let origin = match self.origin {
            Origin::Disk => "disk",
            Origin::LastGood => "last good",
        };
        let serving = if self.serving { "" } else { ", not in use" };
        match (&self.certificate, self.disk.state) {
            (None, _) => String::new(),
            (_, DiskState::Same) => format!("{origin}{serving}"),
            (_, DiskState::Rejected) => format!("{origin}{serving}; disk rejected"),
            (_, DiskState::HeldBack) => format!("{origin}{serving}; disk held back"),
            (_, DiskState::Missing) => format!("{origin}{serving}; disk missing"),
            (_, DiskState::Pinned) => format!("{origin}{serving}; pinned"),
        }
    }

    const fn colour_of_origin(&self) -> Colour {
        match (self.disk.state, self.serving) {
            (DiskState::Same, true) => Colour::Plain,
            (DiskState::Same, false) => Colour::Faint,
            (DiskState::HeldBack | DiskState::Pinned, _) => Colour::Yellow,
            (DiskState::Rejected | DiskState::Missing, _) => Colour::Red,
        }
    }

    /// What there is to staple, and what is wrong with what is on disk, below the line.
    fn explain(&self, text: &mut String, style: Style) {
        let staple = self.certificate.as_ref().and_then(|it| it.staple.as_ref());
        if let Some(staple) = staple {
            let said = paint(&staple.said(), staple.colour(), style);
            put(text, format_args!("    {said}\n"));
        }
        let Some(detail) = &self.disk.detail else {
            return;
        };
        let source = self.disk.file.as_ref().or_else(|| self.source.first());
        let source = source.map_or("?", String::as_str);
        let reason = self.disk.reason.map_or("pinned", |reason| reason.code());
        let since = self.disk.since;
        let said = format!(
            "{}: {reason} since {since}: {}",
            printable(source),
            printable(detail)
        );
        put(
            text,
            format_args!("    {}\n", paint(&said, Colour::Faint, style)),
        );
    }
}

impl Certificate {
    fn names(&self, style: Style) -> String {
        let all = self.names.iter().map(|name| printable(name));
        let joined = all.collect::<Vec<_>>().join(", ");
        if joined.chars().count() <= NAMES {
            return joined;
        }
        let first = self
            .names
            .first()
            .map_or_else(String::new, |name| printable(name));
        match self.names.len() - 1 {
            0 => cut(&first, NAMES, style),
            more => format!("{} +{more}", cut(&first, NAMES - 8, style)),
        }
    }

    /// Days, or hours and minutes when it matters.
    fn left(&self, now: Timestamp) -> String {
        let seconds = self.not_after.since(now);
        let (sign, seconds) = match seconds {
            // Nothing is left, and there is no minute less than that.
            i64::MIN..=-60 => ("-", -seconds),
            -59..0 => ("", 0),
            _ => ("", seconds),
        };
        match seconds {
            0..3600 => format!("{sign}{} min", seconds / 60),
            3600..172_800 => format!("{sign}{} h", seconds / 3600),
            _ => format!("{sign}{} d", seconds / 86_400),
        }
    }

    /// What is left of its lifetime.
    fn bar(&self, now: Timestamp, style: Style) -> String {
        let lifetime = self.not_after.since(self.not_before).max(1);
        let left = self.not_after.since(now).clamp(0, lifetime);
        let full = usize::try_from(i128::from(left) * i128::from(BAR) / i128::from(lifetime));
        let full = full.unwrap_or_default();
        let empty = usize::try_from(BAR).unwrap_or_default() - full;
        let (on, off) = if style.unicode {
            ("█", "░")
        } else {
            ("#", ".")
        };
        format!("{}{}", on.repeat(full), off.repeat(empty))
    }

    const fn stage(&self) -> &'static str {
        match self.stage {
            Stage::Fresh => "fresh",
            Stage::Due => "due",
            Stage::Overdue => "overdue",
            Stage::Expiring => "expiring",
            Stage::Expired => "expired",
            Stage::NotYetValid => "not yet valid",
        }
    }
}

fn line(text: &mut String, cells: &[(String, Colour)], widths: &[usize], style: Style) {
    let mut written = String::new();
    for (n, ((cell, colour), width)) in cells.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width - cell.chars().count());
        let cell = paint(cell, *colour, style);
        let gap = if n == 0 { "" } else { "  " };
        put(&mut written, format_args!("{gap}{cell}{padding}"));
    }
    put(text, format_args!("{}\n", written.trim_end()));
}

fn paint(text: &str, colour: Colour, style: Style) -> String {
    let code = match colour {
        _ if !style.colours || text.is_empty() => return text.to_owned(),
        Colour::Plain => return text.to_owned(),
        Colour::Faint => "2",
        Colour::Green => "32",
        Colour::Yellow => "33",
        Colour::Red => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Text that came from elsewhere, without anything a terminal would obey.
fn printable(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

fn cut(text: &str, width: usize, style: Style) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let ellipsis = if style.unicode { "…" } else { "~" };
    let kept: String = text.chars().take(width - 1).collect();
    format!("{kept}{ellipsis}")
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _infallible = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-06-01T00:00:00Z";
    const PLAIN: Style = Style {
        colours: false,
        unicode: false,
    };

    fn row(name: &str, not_after: &str, disk: &str) -> serde_json::Value {
        serde_json::json!({
            "source": [format!("/etc/{name}.pem")],
            "names": [name, format!("www.{name}")],
            "serial": "01", "fingerprint_sha256": "00", "issuer": "R11", "key_type": "ECDSA P-256",
            "not_before": "2026-05-01T00:00:00Z", "not_after": not_after, "stage": "fresh",
            "serving": true, "origin": "disk",
            "disk": {"state": disk, "since": NOW, "reason": "key_mismatch", "detail": "two\u{1b}keys"},
        })
    }

    fn shown(rows: &[serde_json::Value], style: Style) -> String {
        let rows = rows
            .iter()
            .map(|row| serde_json::from_value(row.clone()).unwrap());
        inventory(rows.collect(), Timestamp::parse(NOW).unwrap(), style)
    }

    #[test]
    fn the_table_is_read_at_a_glance_the_soonest_first() {
        let mut late = row("late.test", "2026-07-02T00:00:00Z", "same");
        late["disk"] = serde_json::json!({"state": "same", "since": NOW});
        let soon = row("soon.test", "2026-06-02T00:00:00Z", "rejected");
        let none = serde_json::json!({
            "source": ["/etc/none.pem"], "serving": false, "origin": "disk",
            "disk": {"state": "missing", "since": NOW, "reason": "missing", "detail": "no file"},
        });
        let text = shown(&[late, soon, none], PLAIN);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("NAMES"));
        assert!(lines[1].contains("/etc/none.pem") && lines[1].contains("none held"));
        assert!(lines[2].contains("missing since 2026-06-01T00:00:00Z: no file"));
        assert!(
            lines[3].starts_with("soon.test, www.soon.test  R11"),
            "{text}"
        );
        assert!(lines[3].contains("24 h") && lines[3].ends_with("disk; disk rejected"));
        assert!(
            lines[4].contains("key_mismatch") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert!(lines[5].contains("31 d  ########........  fresh"), "{text}");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn colours_only_when_wanted_and_many_names_are_counted() {
        let mut one = row("a.test", "2026-07-02T00:00:00Z", "same");
        let names: Vec<_> = (0..30).map(|n| format!("name{n}.test")).collect();
        one["names"] = names.into();
        let style = Style {
            colours: true,
            unicode: true,
        };
        let text = shown(&[one], style);
        assert!(
            text.contains("name0.test +29") && text.contains("\u{1b}[32m") && text.contains('█')
        );
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(shown(&[], PLAIN), "no certificates are known\n");
    }
}
