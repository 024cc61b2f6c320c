//! Durations and sizes as people write them.

use std::time::Duration;

use super::diagnostic::Complaint;

/// Units of time, largest first.
const TIME: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of size, largest first; those that [`show_size`] uses come before their like.
const SIZE: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

/// Reads `"250ms"`, `"10s"`, `"1h30m"`: whole numbers, each with its unit, the larger first.
pub(super) fn duration(text: &str) -> Result<Duration, Complaint> {
    let wrong = || {
        Complaint::new(
            "is not a duration",
            match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
                true => format!("add the unit: `\"{text}s\"`, or d, h, m, ms"),
                false => {
                    "write whole numbers with units d, h, m, s, ms, as in `\"250ms\"`, `\"10s\"`, \
                     `\"1h30m\"`"
                        .to_owned()
                }
            },
        )
    };
    let mut milliseconds = 0_u64;
    let mut rest = text;
    let mut units = TIME.iter();
    while !rest.is_empty() || milliseconds == 0 {
        let (number, tail) = digits(rest);
        let letters = tail.len() - tail.trim_start_matches(char::is_alphabetic).len();
        let (unit, tail) = tail.split_at(letters);
        // The iterator is not rewound: "1m1h" and "1s1s" are slips of the pen.
        let Some((_, scale)) = units.find(|(name, _)| *name == unit) else {
            return Err(wrong());
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        milliseconds = number
            .checked_mul(*scale)
            .and_then(|part| milliseconds.checked_add(part))
            .ok_or_else(|| Complaint::new("is too long a duration", "write a shorter one"))?;
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    Ok(Duration::from_millis(milliseconds))
}

/// Reads `"64KiB"`, `"1MB"`, `"0"`: a whole number of bytes, in binary or decimal units.
pub(super) fn size(text: &str) -> Result<u64, Complaint> {
    let (number, unit) = digits(text);
    let unit = unit.trim_start();
    let known = SIZE
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let (Ok(number), Some((_, scale))) = (number.parse::<u64>(), known) else {
        let ambiguous = SIZE
            .iter()
            .find(|(name, _)| unit.len() == 1 && name.starts_with(&unit.to_ascii_uppercase()));
        return Err(Complaint::new(
            "is not a size",
            match ambiguous {
                Some((name, _)) if !number.is_empty() => format!("write `\"{number}{name}\"`"),
                _ => "write a whole number with B, KiB, MiB, GiB or KB, MB, GB, as in `\"64KiB\"`"
                    .to_owned(),
            },
        ));
    };
    number
        .checked_mul(*scale)
        .ok_or_else(|| Complaint::new("is too large a size", "write a smaller one"))
}

/// Writes a duration the way it is read, to the millisecond.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    // "75s" and "90m" are easier to read than "1m15s" and "1h30m"; "5000m" is not.
    const READABLE: u64 = 120;
    let single = TIME.iter().find(|(_, scale)| rest.is_multiple_of(*scale));
    if let Some((name, scale)) = single
        && rest / scale <= READABLE
    {
        return format!("{}{name}", rest / scale);
    }
    let mut shown = String::new();
    for (name, scale) in TIME {
        if rest >= scale {
            shown.push_str(&format!("{}{name}", rest / scale));
            rest %= scale;
        }
    }
    shown
}

/// Writes a size the way it is read.
pub(super) fn show_size(size: u64) -> String {
    match SIZE
        .iter()
        .find(|(_, scale)| size >= *scale && size.is_multiple_of(*scale))
    {
        Some((name, scale)) if *scale > 1 => format!("{}{name}", size / scale),
        _ => size.to_string(),
    }
}

/// The digits that `text` begins with, and the rest.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_alike() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("6h", 21_600_000),
            ("90d", 7_776_000_000),
            ("75s", 75_000),
            ("90m", 5_400_000),
            ("3h30m", 12_600_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
        ] {
            let duration = duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(show_duration(duration), text);
        }
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0ms"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_help() {
        for text in [
            "", " ", "s", "10", "10 s", "1.5h", "-1s", "1m1h", "1s1s", "10S", "1h30", "10sec", "∞",
            "٣s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("10").unwrap_err().help.contains("\"10s\""));
        assert!(duration("99999999999999999999d").is_err());
        assert!(duration("9999999999999999d").is_err());
    }

    #[test]
    fn sizes_are_read_and_written_alike() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("1MiB", 1_048_576),
            ("3TiB", 3 << 40),
            ("0", 0),
            ("1000", 1000),
            ("12345", 12_345),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(show_size(65_536), "64KiB");
        assert_eq!(show_size(1_000_000), "1MB");
        assert_eq!(show_size(0), "0");
        assert_eq!(show_size(12_345), "12345");
        assert_eq!(size("5 MB"), Ok(5_000_000));
        assert_eq!(size("5kb"), Ok(5_000));
        assert_eq!(size("7B"), Ok(7));
    }

    #[test]
    fn what_is_no_size_is_refused_with_help() {
        for text in ["", "KiB", "64K", "1.5MiB", "-1", "64 KiB B", "1PiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size("64k").unwrap_err().help, "write `\"64KiB\"`");
        assert!(size("99999999999TiB").is_err());
    }
}
