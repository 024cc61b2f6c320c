//! nginx's times and sizes, as staunch writes them.

/// In milliseconds: seconds unless told otherwise, and several together as in `1h30m`.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut left = text;
    while !left.is_empty() {
        let end = left
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(left.len());
        let number: u64 = left[..end].parse().ok()?;
        left = &left[end..];
        let end = left
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(left.len());
        let unit = match left[..end].trim() {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        left = &left[end..];
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then_some(total)
}

/// A deadline: not nothing, and at most a day, which is the longest.
pub(super) fn deadline(text: &str) -> Option<String> {
    const DAY: u64 = 86_400_000;
    let time = milliseconds(text).filter(|time| *time > 0)?.min(DAY);
    Some(match time % 1000 {
        0 => format!("{}s", time / 1000),
        _ => format!("{time}ms"),
    })
}

/// In bytes, `k`, `m` or `g`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// As it is written here.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = units
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    match fits {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_as_nginx_does() {
        for (text, expected) in [
            ("60", Some("60s")),
            ("1h30m", Some("5400s")),
            ("250ms", Some("250ms")),
            ("1d", Some("86400s")),
            ("7d", Some("86400s")),
            ("0", None),
            ("", None),
            ("5x", None),
            ("m", None),
        ] {
            assert_eq!(deadline(text).as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("20M", "20MiB"),
            ("512k", "512KiB"),
            ("1000", "1000"),
            ("0", "0"),
        ] {
            assert_eq!(bytes(text).map(size).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(bytes("x"), None);
    }
}
