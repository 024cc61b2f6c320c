//! How the names of TLS are read; and what is said of those that belong to the past.
//!
//! What is refused here is what the TLS library has left out, and for a reason. Somebody who asks
//! for it by name has it from another server's configuration: each refusal says what to write.

use std::path::PathBuf;

use super::super::diagnostic::{Complaint, quoted};
use super::super::read::{FromToml, Show, Value};
use super::super::value::ListForm;
use super::{CipherSuite, ClientHeader, ClientMode, Group, OcspFetch, PolicyName, TlsVersion};
use toml::de::DeValue;

/// Reads a name by a function that says what is wrong with it.
macro_rules! named {
    ($($type:ty, $form:literal, $list:literal, $read:expr;)*) => {$(
        impl FromToml for $type {
            const FORM: &'static str = $form;

            fn from_toml(value: Value<'_>) -> Option<Self> {
                let text = value.text(Self::FORM)?;
                let read: fn(&str, &Value<'_>) -> Result<Self, Complaint> = $read;
                read(text, &value).map_err(|complaint| value.complain(complaint)).ok()
            }
        }

        impl ListForm for $type {
            const LIST: &'static str = $list;
        }
    )*};
}

named! {
    PolicyName, "\"intermediate\" or \"modern\"", "an array of policies", policy;
    TlsVersion, "\"1.2\" or \"1.3\"", "an array of versions such as [\"1.2\", \"1.3\"]",
        |text, _| version(text);
    CipherSuite, "the name of a cipher suite such as \"TLS_AES_128_GCM_SHA256\"",
        "an array of cipher suites such as [\"TLS_AES_128_GCM_SHA256\"]", cipher_suite;
    Group, "the name of a group such as \"X25519MLKEM768\"",
        "an array of groups such as [\"X25519MLKEM768\", \"x25519\"]", group;
    ClientMode, "\"required\", \"optional\" or \"request\"", "an array of modes",
        |text, value| word(text, value, &[
            ("required", ClientMode::Required),
            ("optional", ClientMode::Optional),
            ("request", ClientMode::Request),
        ]);
    ExpiredCrl, "\"refuse\" or \"accept\"", "an array of words",
        |text, value| word(text, value, &[
            ("refuse", ExpiredCrl::Refuse),
            ("accept", ExpiredCrl::Accept),
        ]);
    OcspFetch, "\"trusted\", \"all\" or \"off\"", "an array of words",
        |text, value| word(text, value, &OCSP);
    ClientHeader, "\"client-cert\", \"client-cert-chain\", \"subject\", \"san\", \
        \"fingerprint\" or \"pem\"",
        "an array of \"client-cert\", \"client-cert-chain\", \"subject\", \"san\", \
         \"fingerprint\" and \"pem\"",
        |text, value| word(text, value, &HEADERS);
}

const OCSP: [(&str, OcspFetch); 3] = [
    ("trusted", OcspFetch::Trusted),
    ("all", OcspFetch::All),
    ("off", OcspFetch::Off),
];

impl Show for OcspFetch {
    fn show(&self) -> String {
        let word = OCSP.iter().find(|(_, it)| it == self);
        format!("\"{}\"", word.map_or("", |(word, _)| word))
    }
}

const HEADERS: [(&str, ClientHeader); 6] = [
    ("client-cert", ClientHeader::Certificate),
    ("client-cert-chain", ClientHeader::Chain),
    ("subject", ClientHeader::Subject),
    ("san", ClientHeader::San),
    ("fingerprint", ClientHeader::Fingerprint),
    ("pem", ClientHeader::Pem),
];

impl Show for ClientHeader {
    fn show(&self) -> String {
        let word = HEADERS.iter().find(|(_, header)| header == self);
        format!("\"{}\"", word.map_or("", |(word, _)| word))
    }
}

impl Show for PolicyName {
    fn show(&self) -> String {
        match self {
            Self::Modern => "\"modern\"".to_owned(),
            Self::Intermediate => "\"intermediate\"".to_owned(),
        }
    }
}

/// What to do with a revocation list that is past its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiredCrl {
    Refuse,
    Accept,
}

impl Show for ExpiredCrl {
    fn show(&self) -> String {
        match self {
            Self::Refuse => "\"refuse\"".to_owned(),
            Self::Accept => "\"accept\"".to_owned(),
        }
    }
}

/// One file or several.
pub(super) struct Files(pub(super) Vec<PathBuf>);

impl FromToml for Files {
    const FORM: &'static str = "a path in quotes, or an array of paths";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        match value.node.get_ref() {
            DeValue::String(_) => PathBuf::from_toml(value).map(|path| Self(vec![path])),
            DeValue::Array(_) => Vec::from_toml(value).map(Self),
            _ => {
                value.wrong_type(Self::FORM);
                None
            }
        }
    }
}

fn word<T: Copy>(text: &str, value: &Value<'_>, words: &[(&str, T)]) -> Result<T, Complaint> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let help = match value.cx.nearest(text, words.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => {
                let all: Vec<_> = words
                    .iter()
                    .map(|(word, _)| format!("`\"{word}\"`"))
                    .collect();
                format!("write one of {}", all.join(", "))
            }
        };
        Complaint::new(format!("{} is none of what it can be", quoted(text)), help)
    })
}

fn policy(text: &str, value: &Value<'_>) -> Result<PolicyName, Complaint> {
    match text {
        "old" => Err(Complaint::new(
            "there is no policy `old`: TLS 1.0 and 1.1, and suites without authenticated \
             encryption, do not exist here",
            "write `\"intermediate\"`, which every client since 2014 can use",
        )),
        _ => word(
            text,
            value,
            &[
                ("modern", PolicyName::Modern),
                ("intermediate", PolicyName::Intermediate),
            ],
        ),
    }
}

fn version(text: &str) -> Result<TlsVersion, Complaint> {
    let lower = text.to_ascii_lowercase();
    let bare = lower
        .strip_prefix("tlsv")
        .or_else(|| lower.strip_prefix("tls"))
        .unwrap_or(&lower)
        .trim();
    match bare {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        "1" | "1.0" | "1.1" => Err(Complaint::new(
            "TLS 1.0 and 1.1 do not exist here: they are deprecated (RFC 8996) and no longer safe",
            "take it out; `versions = [\"1.2\", \"1.3\"]` is for every client that can still be \
             kept safe",
        )),
        _ if lower.starts_with("ssl") => Err(Complaint::new(
            "SSL does not exist here: it is broken (RFC 6176, RFC 7568)",
            "take it out; write `versions = [\"1.2\", \"1.3\"]`",
        )),
        _ => Err(Complaint::new(
            "is no version of TLS",
            "write `\"1.2\"` or `\"1.3\"`",
        )),
    }
}

fn cipher_suite(text: &str, value: &Value<'_>) -> Result<CipherSuite, Complaint> {
    if let Some(suite) = CipherSuite::of(text) {
        return Ok(suite);
    }
    let upper = text.to_ascii_uppercase().replace('_', "-");
    let has = |part: &str| upper.contains(part);
    let name = quoted(text);
    let (why, help) = if has(":") || has(",") || has(" ") {
        (
            "is a list in one string".to_owned(),
            "write each suite in quotes of its own: `[\"…\", \"…\"]`".to_owned(),
        )
    } else if has("!")
        || has("@")
        || has("+")
        || ["HIGH", "MEDIUM", "ALL", "DEFAULT"].contains(&&*upper)
    {
        (
            format!("{name} is a word of OpenSSL's, not a suite"),
            "name the suites; or leave `cipher_suites` out, and the policy has them".to_owned(),
        )
    } else if has("NULL")
        || has("EXP")
        || has("ANON")
        || has("RC4")
        || has("RC2")
        || has("MD5")
        || has("DES")
    {
        (
            format!("{name} does not exist here: it is broken (RFC 7465, RFC 9325)"),
            "take it out".to_owned(),
        )
    } else if (has("DHE-") && !has("ECDHE-")) || has("-DH-") || upper.starts_with("DH-") {
        (
            format!("{name} does not exist here: no Diffie-Hellman over finite fields (RFC 9325)"),
            "write the suite with `ECDHE` in its place; every client that has the one has the \
             other"
                .to_owned(),
        )
    } else if has("CCM") || has("ARIA") || has("CAMELLIA") || has("SM4") || has("PSK") {
        (
            format!("{name} does not exist here"),
            "write one with `AES_128_GCM`, `AES_256_GCM` or `CHACHA20_POLY1305`".to_owned(),
        )
    } else if !has("GCM")
        && !has("POLY1305")
        && (has("CBC") || upper.ends_with("-SHA") || has("-SHA2") || has("-SHA3"))
    {
        (
            format!("{name} does not exist here: CBC has no authenticated encryption (RFC 9325)"),
            "write the suite with `GCM` or `CHACHA20_POLY1305`".to_owned(),
        )
    } else if has("RSA-WITH") || upper.starts_with("AES") || has("ECDH-") {
        (
            format!("{name} does not exist here: it has no forward secrecy (RFC 9325)"),
            "write the suite with `ECDHE`".to_owned(),
        )
    } else {
        let names = CipherSuite::ALL.iter().map(|suite| suite.name());
        let help = match value.cx.nearest(text, names) {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => all(CipherSuite::ALL.iter().map(|suite| suite.name())),
        };
        (format!("{name} is no cipher suite"), help)
    };
    Err(Complaint::new(why, help))
}

fn group(text: &str, value: &Value<'_>) -> Result<Group, Complaint> {
    if let Some(group) = Group::of(text) {
        return Ok(group);
    }
    let upper = text.to_ascii_uppercase();
    let name = quoted(text);
    let (why, help) = if upper.contains(':') || upper.contains(',') {
        (
            "is a list in one string".to_owned(),
            "write each group in quotes of its own: `[\"…\", \"…\"]`".to_owned(),
        )
    } else if upper.starts_with("FFDHE") || upper.starts_with("DH") {
        (
            format!("{name} does not exist here: no Diffie-Hellman over finite fields (RFC 9325)"),
            "write `\"x25519\"` or `\"secp256r1\"`".to_owned(),
        )
    } else if upper.contains("KYBER") {
        (
            format!("{name} does not exist here: it was a draft"),
            "write `\"X25519MLKEM768\"`, what became of it".to_owned(),
        )
    } else if ["SECP521R1", "P-521", "X448", "AUTO"].contains(&&*upper)
        || upper.starts_with("BRAINPOOL")
        || upper.starts_with("SECT")
        || upper == "SECP256K1"
    {
        (
            format!("{name} does not exist here"),
            all(Group::ALL.iter().map(|group| group.name())),
        )
    } else {
        let names = Group::ALL.iter().map(|group| group.name());
        let help = match value.cx.nearest(text, names) {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => all(Group::ALL.iter().map(|group| group.name())),
        };
        (format!("{name} is no group"), help)
    };
    Err(Complaint::new(why, help))
}

fn all<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    format!("there are: {}", names.join(", "))
}
