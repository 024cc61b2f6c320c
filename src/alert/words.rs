//! Words for people at three in the morning: spans of time, lists, quoting.

use std::fmt::Write as _;

use crate::clock::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A span in the unit a person would use: "12 days", "5 hours", "3 minutes". Rounded down, so that
/// "2 days left" never promises more than there is.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.abs();
    let (count, unit) = match seconds {
        s if s >= 2 * DAY => (s / DAY, "day"),
        s if s >= 2 * HOUR => (s / HOUR, "hour"),
        s if s >= 2 * MINUTE => (s / MINUTE, "minute"),
        s => (s, "second"),
    };
    plural(count, unit)
}

/// For how many seconds from now [`span`] says the same of what is so far ahead, or, where negative,
/// ago.
pub const fn span_holds(ahead: i64) -> i64 {
    let unit = match ahead.unsigned_abs() {
        s if s >= 2 * DAY.unsigned_abs() => DAY,
        s if s >= 2 * HOUR.unsigned_abs() => HOUR,
        s if s >= 2 * MINUTE.unsigned_abs() => MINUTE,
        _ => 1,
    };
    match ahead {
        // It was rounded down, and goes down.
        0.. => ahead % unit + 1,
        // It goes up. The next unit is two of its kind, which is a whole number of this one.
        _ => unit - (-ahead) % unit,
    }
}

/// "1 day", "2 days".
pub fn plural(count: i64, unit: &str) -> String {
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// A share as a percentage without decimals, rounded down: "24 %".
#[allow(clippy::cast_possible_truncation)] // a share of a lifetime, saturating, for display
pub fn percent(share: f64) -> String {
    format!("{} %", (share * 100.0).floor() as i64)
}

/// A moment to the minute, for sentences: "2024-06-05 00:00 UTC".
pub fn moment(at: Timestamp) -> String {
    let full = at.to_string();
    match full.split_once('T') {
        Some((date, time)) if time.len() >= 5 => format!("{date} {} UTC", &time[..5]),
        _ => full,
    }
}

/// "a", "a and b", "a, b and c", "a, b, c and 7 more".
pub fn list<S: AsRef<str>>(items: &[S], at_most: usize) -> String {
    let shown = if items.len() == at_most + 1 {
        items.len()
    } else {
        at_most
    };
    let more = items.len().saturating_sub(shown);
    let mut words: Vec<String> = items
        .iter()
        .take(shown)
        .map(|s| clean(s.as_ref()))
        .collect();
    if more > 0 {
        words.push(format!("{more} more"));
    }
    match words.pop() {
        None => "none".to_owned(),
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} and {last}", words.join(", ")),
    }
}

/// Without control characters, which a file name or an answer from afar may carry into a terminal,
/// a log or a mail header, and of bounded length.
pub fn clean(text: &str) -> String {
    const MOST: usize = 2000;
    let mut out = String::with_capacity(text.len().min(MOST));
    for c in text.chars() {
        if out.len() >= MOST {
            out.push('…');
            break;
        }
        if c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// An argument as one would type it in a shell.
pub fn shell(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", clean(argument).replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_the_unit_a_person_would_use() {
        assert_eq!(span(22 * DAY + 5 * HOUR), "22 days");
        assert_eq!(span(DAY + HOUR), "25 hours");
        assert_eq!(span(90 * MINUTE), "90 minutes");
        assert_eq!(span(1), "1 second");
        assert_eq!(span(-3 * DAY), "3 days");
    }

    #[test]
    fn a_span_holds_until_it_would_be_told_otherwise() {
        for ahead in (-5 * DAY..5 * DAY).step_by(61).chain(-300..300) {
            let holds = span_holds(ahead);
            let told = |later| span(ahead - later);
            assert!(holds > 0, "{ahead}");
            assert_eq!(told(holds - 1), told(0), "{ahead}");
        }
        assert_eq!(span_holds(2 * DAY + 30), 31);
        assert_eq!(span_holds(-2 * DAY - 30), DAY - 30);
    }

    #[test]
    fn a_list_is_bounded_and_never_ends_in_one_more() {
        assert_eq!(list(&["a"], 2), "a");
        assert_eq!(list(&["a", "b", "c"], 2), "a, b and c");
        assert_eq!(list(&["a", "b", "c", "d"], 2), "a, b and 2 more");
        assert_eq!(list::<&str>(&[], 2), "none");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal_or_a_header() {
        assert_eq!(
            clean("a\r\nBcc: x\u{1b}[2J"),
            "a\\u{d}\\u{a}Bcc: x\\u{1b}[2J"
        );
        assert!(clean(&"x".repeat(9000)).chars().count() <= 2001);
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_needs_it() {
        assert_eq!(shell("/etc/ssl/a.pem"), "/etc/ssl/a.pem");
        assert_eq!(
            shell("/etc/my certs/it's.pem"),
            "'/etc/my certs/it'\\''s.pem'"
        );
    }

    #[test]
    fn a_moment_is_told_to_the_minute() {
        assert_eq!(
            moment(Timestamp::from_unix(1_717_545_600)),
            "2024-06-05 00:00 UTC"
        );
    }
}
