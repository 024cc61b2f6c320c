//! HAProxy's log formats, as staunch writes variables.

use crate::import::quoted;

/// A value with variables, or the first that is not known here.
pub(super) fn template(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut left = text;
    while let Some(at) = left.find('%') {
        out.push_str(&escape(&left[..at]));
        let behind = &left[at + 1..];
        left = match behind.chars().next() {
            Some('%') => {
                out.push('%');
                &behind[1..]
            }
            // Values are quoted in logs, not in fields.
            Some('{') => {
                let known = behind.split_once('}').filter(|(flags, _)| *flags == "{+Q");
                let (_, sample) = known.ok_or_else(|| format!("%{behind}"))?;
                let end = closing(sample).ok_or_else(|| format!("%{behind}"))?;
                let inner = sample.get(1..end).unwrap_or_default();
                let value = variable(inner).ok_or_else(|| format!("%[{inner}]"))?;
                out.push_str(&value);
                &sample[end + 1..]
            }
            Some('[') => {
                let end = closing(behind).ok_or_else(|| format!("%{behind}"))?;
                let sample = &behind[1..end];
                out.push_str(&variable(sample).ok_or_else(|| format!("%[{sample}]"))?);
                &behind[end + 1..]
            }
            _ => {
                let end = behind
                    .find(|c: char| !c.is_ascii_alphabetic())
                    .unwrap_or(behind.len());
                let name = &behind[..end];
                let word = match name {
                    "ci" => "{client_address}",
                    "cp" => "{client_port}",
                    "HM" => "{method}",
                    "HP" => "{path}",
                    "HU" => "{uri}",
                    "HQ" => "{query}",
                    "ID" => "{request_id}",
                    "sslv" => "{tls_version}",
                    "sslc" => "{tls_cipher}",
                    // A sign by itself, as in a percent-encoded path.
                    "" => {
                        out.push('%');
                        left = behind;
                        continue;
                    }
                    _ => return Err(format!("%{name}")),
                };
                out.push_str(word);
                &behind[end..]
            }
        };
    }
    out.push_str(&escape(left));
    Ok(out)
}

/// Where the bracket that a text begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

fn variable(sample: &str) -> Option<String> {
    let word = match sample {
        "src" => "client_address",
        "src_port" => "client_port",
        "dst_port" => "local_port",
        "path" => "path",
        "query" => "query",
        "url" | "pathq" | "capture.req.uri" => "uri",
        "method" => "method",
        "ssl_fc,iif(https,http)" => "scheme",
        "ssl_fc_sni" => "sni",
        "base" => return Some("{host}{path}".to_owned()),
        // As it is called there.
        "ssl_fc_protocol" => return Some("TLSv{tls_version}".to_owned()),
        "ssl_fc_cipher" => "tls_cipher",
        "ssl_c_s_dn" => "client_subject",
        "ssl_c_s_dn(cn)" | "ssl_c_s_dn(CN)" => "client_common_name",
        "ssl_c_i_dn" => "client_issuer",
        "ssl_c_der,base64" => "client_certificate",
        "ssl_c_serial,hex" => "client_serial",
        // Others are not let in.
        "ssl_c_verify" | "ssl_c_err" => return Some("0".to_owned()),
        "unique-id" | "uuid" | "uuid()" => "request_id",
        "hdr(host)" | "req.hdr(host)" | "hdr(Host)" | "req.hdr(Host)" => "host",
        _ => {
            if let Some(host) = host_of(sample) {
                return Some(host);
            }
            let (kind, name) = sample.strip_suffix(')')?.split_once('(')?;
            let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&b);
            if kind != "str" && !name.bytes().all(is_letter) {
                return None;
            }
            return match kind {
                "str" => Some(escape(name)),
                "hdr" | "req.hdr" | "req.fhdr" => Some(format!("{{header:{name}}}")),
                "req.cook" | "cook" => Some(format!("{{cookie:{name}}}")),
                "url_param" | "urlp" => Some(format!("{{query:{name}}}")),
                _ => None,
            };
        }
    };
    Some(format!("{{{word}}}"))
}

/// What is asked for, by whatever way to it.
fn host_of(sample: &str) -> Option<String> {
    let sample = sample.to_ascii_lowercase();
    let (of, converters) = sample.split_once(',')?;
    let of = of
        .trim_start_matches("req.")
        .trim_start_matches("fhdr")
        .trim_start_matches("hdr");
    let known = ["lower", "host_only", "field(1,:)"];
    let mut left = converters;
    while !left.is_empty() {
        let converter = known.iter().find(|name| left.starts_with(**name))?;
        left = left[converter.len()..].trim_start_matches(',');
    }
    (of == "(host)").then(|| "{host}".to_owned())
}

fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// `key = "value"`
pub(super) fn line(key: &str, value: &str) -> String {
    format!("{key} = {}", quoted(value))
}

/// HAProxy's time, in milliseconds unless told otherwise, as a deadline.
pub(super) fn deadline(text: &str) -> Option<String> {
    const DAY: u64 = 86_400_000;
    let time = milliseconds(text).filter(|time| *time > 0)?.min(DAY);
    Some(match time % 1000 {
        0 => format!("{}s", time / 1000),
        _ => format!("{time}ms"),
    })
}

/// HAProxy's time.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "us" => return number.parse::<u64>().ok().map(|time| time.div_ceil(1000)),
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_written_as_here_or_told() {
        for (text, expected) in [
            ("plain", "plain"),
            (
                "https://%[hdr(host)]%[capture.req.uri]",
                "https://{host}{uri}",
            ),
            ("%[src]:%cp", "{client_address}:{client_port}"),
            ("100%%", "100%"),
            ("/a%20b", "/a%20b"),
            ("{x}", "{{x}}"),
            ("%[req.hdr(X-A)]", "{header:X-A}"),
        ] {
            assert_eq!(template(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(template("%{+Q}[src]").as_deref(), Ok("{client_address}"));
        for (text, unknown) in [
            ("%[var(txn.x)]", "%[var(txn.x)]"),
            ("%{+Q}[ssl_c_sha1,hex]", "%[ssl_c_sha1,hex]"),
            ("%s", "%s"),
        ] {
            assert_eq!(template(text), Err(unknown.to_owned()));
        }
        assert_eq!(deadline("5000").as_deref(), Some("5s"));
        assert_eq!(deadline("1h").as_deref(), Some("3600s"));
        assert_eq!(deadline("x"), None);
    }
}
