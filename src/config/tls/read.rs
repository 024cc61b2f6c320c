//! The sections on TLS, key by key; and what must hold between them.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::diagnostic::{Diagnostic, Span};
use super::super::read::{At, Context, Table};
use super::words::{ExpiredCrl, Files};
use super::{
    ClientCertificates, ClientHeader, ClientMode, OcspFetch, PolicyName, SiteTls, Tls, TlsChoice,
    TlsVersion,
};

/// `[tls]`, as it was read.
#[derive(Debug, Default)]
pub(in crate::config) struct RawTls {
    /// All of it; the listeners are still to be seen in context.
    pub(in crate::config) value: Tls,
    place: Span,
    listeners: Vec<RawListenerTls>,
}

/// One `[[tls.listener]]`, as it was read.
#[derive(Debug)]
pub(in crate::config) struct RawListenerTls {
    address: At<SocketAddr>,
    choice: TlsChoice,
    place: Span,
}

/// What a site says of TLS, and where.
#[derive(Debug)]
pub(in crate::config) struct RawSiteTls {
    pub(in crate::config) value: SiteTls,
    place: Span,
}

/// What other servers' configurations have and this has not, and what to do about it.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "renegotiation",
        "there is no renegotiation: it let others speak in a client's name (RFC 5746), and TLS \
         1.3 has none",
        "take it out",
    ),
    (
        "compression",
        "there is no compression in TLS: it gave secrets away (RFC 7525, section 3.3)",
        "take it out; upstreams can compress what is no secret",
    ),
    (
        "dhparam",
        "there is no Diffie-Hellman over finite fields (RFC 9325)",
        "take it out; `groups` names what keys are agreed on with",
    ),
    (
        "early_data",
        "there is no early data: whoever recorded it could send it again (RFC 8446, section 8)",
        "take it out",
    ),
    (
        "ciphers",
        "is called `cipher_suites` here",
        "write `cipher_suites = [\"…\"]`, or leave it to the policy",
    ),
    (
        "ciphersuites",
        "is called `cipher_suites` here",
        "write `cipher_suites = [\"…\"]`, or leave it to the policy",
    ),
    (
        "protocols",
        "is called `versions` here",
        "write `versions = [\"1.2\", \"1.3\"]`",
    ),
    (
        "min_version",
        "is called `versions` here",
        "write `versions = [\"1.2\", \"1.3\"]`",
    ),
    (
        "curves",
        "is called `groups` here",
        "write `groups = [\"X25519MLKEM768\", \"x25519\", \"secp256r1\"]`",
    ),
    (
        "session_cache",
        "there is no session cache: sessions are in tickets, which the clients keep",
        "take it out; `tickets = false` turns resumption off",
    ),
    (
        "session_timeout",
        "tickets are good for as long as the key that encrypted them is held",
        "take it out",
    ),
    (
        "prefer_server_ciphers",
        "the client's order decides: all suites here are good, and it knows which is fast for it",
        "take it out",
    ),
];

/// Reads `[tls]`.
pub(in crate::config) fn tls(t: &mut Table<'_>) -> RawTls {
    let policy = t.or_described(
        "policy",
        || None,
        "\"intermediate\"",
        "Versions, cipher suites and groups as Mozilla recommends them for servers (version 5.8): \
         `intermediate` is TLS 1.2 and 1.3, `modern` is TLS 1.3 only.",
    );
    let choice = choice(t, policy);
    let tickets = t.or(
        "tickets",
        true,
        "Whether clients get tickets to resume their sessions with.",
    );
    let keys: Option<At<Files>> = t.optional(
        "ticket_keys",
        "Files with the keys of tickets, for servers that resume each other's sessions; of \
         several, the first is the newest and encrypts. Each is of 48 or 80 bytes, as nginx has \
         them, or of lines of base64, as HAProxy has them, of which the last but one encrypts. \
         Without it: keys of this process alone, that rotate by themselves.",
    );
    if let (Some(keys), false) = (&keys, tickets) {
        t.cx.report(
            Diagnostic::warning(keys.span.clone(), "`tls.ticket_keys` without tickets")
                .help("take one of `ticket_keys` and `tickets = false` out"),
        );
    }
    let ja4 = t.or(
        "ja4",
        false,
        "Whether the JA4 fingerprint of each client's greeting is taken, which tells kinds of \
         clients apart, for the access log and as `{ja4}`.",
    );
    let ocsp = t.or(
        "ocsp",
        OcspFetch::default(),
        "Of which certificates that name a responder an OCSP staple is fetched from it, kept in \
         `state_dir` and refreshed: of those that this system trusts, of all, or of none. One in a \
         file is used first.",
    );
    let listeners = t.each("listener", "tls.listener", |t, _| listener(t));
    RawTls {
        value: Tls {
            choice,
            tickets,
            ticket_keys: keys.map(|keys| keys.value.0).unwrap_or_default(),
            ja4,
            ocsp,
            listeners: (listeners.iter())
                .map(|listener| (listener.address.value, listener.choice.clone()))
                .collect(),
        },
        place: place(t),
        listeners,
    }
}

fn listener(t: &mut Table<'_>) -> Option<RawListenerTls> {
    let address = t.required(
        "address",
        "An address of `listen.https` that has settings of its own.",
    );
    let choice = narrower(t);
    Some(RawListenerTls {
        address: address?,
        choice,
        place: place(t),
    })
}

/// Reads what a `[[site]]` says of TLS.
pub(in crate::config) fn site(t: &mut Table<'_>) -> RawSiteTls {
    let (choice, place) = t.section("tls", "site.tls", |t| (narrower(t), place(t)));
    let given = t.has("client_certificates");
    let client = t.section("client_certificates", "site.client_certificates", |t| {
        client_certificates(t, given)
    });
    RawSiteTls {
        value: SiteTls { choice, client },
        place,
    }
}

fn narrower(t: &mut Table<'_>) -> TlsChoice {
    let policy: Option<PolicyName> = t.optional(
        "policy",
        "As in `[tls]`. With it, nothing of what is said more widely applies.",
    );
    choice(t, policy)
}

fn choice(t: &mut Table<'_>, policy: Option<PolicyName>) -> TlsChoice {
    let versions = list(
        t,
        "versions",
        "Versions of TLS, instead of the policy's: `[\"1.2\", \"1.3\"]`.",
    );
    let cipher_suites = list(
        t,
        "cipher_suites",
        "Cipher suites, instead of the policy's; by IANA's names or OpenSSL's.",
    );
    let groups = list(
        t,
        "groups",
        "Groups that keys are agreed on with, the preferred first, instead of the policy's.",
    );
    for &(key, why, help) in ELSEWHERE {
        t.refuse(key, why, help);
    }
    TlsChoice {
        policy,
        versions,
        cipher_suites,
        groups,
    }
}

/// A list that must have something in it, without what is there twice.
fn list<T>(t: &mut Table<'_>, key: &'static str, meaning: &'static str) -> Option<Vec<T>>
where
    Vec<T>: super::super::read::FromToml,
    T: PartialEq,
{
    let At { value, span } = t.optional::<At<Vec<T>>>(key, meaning)?;
    if value.is_empty() {
        t.cx.report(
            Diagnostic::error(
                span,
                format!("`{key}` is empty: no handshake could succeed"),
            )
            .help("name one or more, or leave it to the policy"),
        );
        return None;
    }
    let mut unique = Vec::with_capacity(value.len());
    for item in value {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    Some(unique)
}

/// Reads a `client_certificates`; `given`: there is one.
pub(in crate::config) fn client_certificates(
    t: &mut Table<'_>,
    given: bool,
) -> Option<ClientCertificates> {
    let mode: Option<At<ClientMode>> = t.optional(
        "mode",
        "`required`: a handshake without a good certificate fails; `optional`: one that is shown \
         must be good; `request`: whatever is shown is passed on, with a word on whether it is \
         good.",
    );
    let ca: Option<Files> = t.optional("ca", "PEM files with the authorities that are believed.");
    let crl: Option<At<Files>> = t.optional(
        "crl",
        "Files with revocation lists, PEM or DER. With any, every authority of a client's chain \
         needs one.",
    );
    let expired = t.or(
        "on_expired_crl",
        ExpiredCrl::Refuse,
        "What becomes of clients whose authority's revocation list is past its `nextUpdate`.",
    );
    let headers = t.or(
        "headers",
        vec![
            ClientHeader::Certificate,
            ClientHeader::Subject,
            ClientHeader::San,
            ClientHeader::Fingerprint,
        ],
        "What the upstream is told of the certificate: `Client-Cert` and `Client-Cert-Chain` (RFC \
         9440), `X-Client-Cert-Subject`, `-SAN`, `-Fingerprint` (SHA-256) and `-PEM` \
         (percent-encoded). What clients send of that name is always removed.",
    );
    if !given {
        return None;
    }
    if !t.has("mode") {
        t.cx.report_missing(
            Diagnostic::error(t.span.clone(), format!("{} has no `mode`", t.label))
                .help("write `mode = \"required\"`, `\"optional\"` or `\"request\"`"),
        );
    }
    let mode = mode?;
    let has_ca = ca.as_ref().is_some_and(|ca| !ca.0.is_empty());
    // A `ca` that could not be read has been reported.
    if !has_ca && (ca.is_some() || !t.has("ca")) {
        if mode.value != ClientMode::Request {
            t.cx.report_missing(
                Diagnostic::error(t.span.clone(), format!("{} has no `ca`", t.label))
                    .help("write `ca = \"/path/to/authorities.pem\"`: whom to believe"),
            );
        } else if let Some(crl) = &crl {
            t.cx.report(
                Diagnostic::error(crl.span.clone(), "revocation lists without authorities")
                    .help("write `ca = …` beside it, or take it out"),
            );
        }
    }
    let files = |files: Option<Files>| files.map(|files| files.0).unwrap_or_default();
    let crl: Vec<PathBuf> = files(crl.map(|crl| crl.value));
    Some(ClientCertificates {
        mode: mode.value,
        ca: files(ca),
        crl,
        accept_expired_crl: expired == ExpiredCrl::Accept,
        headers,
    })
}

/// Where to show a fault of a section's lists together.
fn place(t: &Table<'_>) -> Span {
    ["cipher_suites", "groups", "versions", "policy"]
        .iter()
        .find_map(|key| t.place(key))
        .unwrap_or_else(|| t.span.clone())
}

/// Sees all of it together, with the addresses that terminate TLS.
pub(in crate::config) fn check<'a>(
    tls: &RawTls,
    https: &[At<SocketAddr>],
    sites: impl IntoIterator<Item = &'a RawSiteTls>,
    cx: &Context<'_>,
) {
    let wide = &tls.value.choice;
    judge(wide, &tls.place, cx);
    let mut seen: Vec<SocketAddr> = Vec::new();
    for listener in &tls.listeners {
        let At { value, span } = &listener.address;
        if !https.iter().any(|address| address.value == *value) {
            cx.report(
                Diagnostic::error(span.clone(), format!("nothing listens on `{value}`"))
                    .help("write an address of `listen.https`"),
            );
        }
        if seen.contains(value) {
            cx.report(
                Diagnostic::error(span.clone(), format!("`{value}` is there twice"))
                    .help("write one `[[tls.listener]]` for each address"),
            );
        }
        seen.push(*value);
        judge(&listener.choice.over(wide), &listener.place, cx);
    }
    for site in sites {
        if site.value.choice == TlsChoice::default() {
            continue;
        }
        judge(&site.value.choice.over(wide), &site.place, cx);
        for listener in &tls.listeners {
            let wide = listener.choice.over(wide);
            judge(&site.value.choice.over(&wide), &site.place, cx);
        }
    }
}

/// Says what could not work of settings that have come together.
fn judge(choice: &TlsChoice, place: &Span, cx: &Context<'_>) {
    let policy = choice.settle();
    let fault = |message: String, help: &str| {
        cx.report(Diagnostic::error(place.clone(), message).help(help));
    };
    for suite in &policy.cipher_suites {
        if !policy.versions.contains(&suite.version()) {
            let version = suite.version().name();
            fault(
                format!("`{}` is of TLS {version}, which is off here", suite.name()),
                "take it out of `cipher_suites`, or write the version into `versions`",
            );
        }
    }
    for version in &policy.versions {
        let has_suite = |suite: &super::CipherSuite| suite.version() == *version;
        if !policy.cipher_suites.iter().any(has_suite) {
            fault(
                format!(
                    "no cipher suite of TLS {}, which is on here",
                    version.name()
                ),
                "add one to `cipher_suites`, or take the version out of `versions`",
            );
        }
    }
    let tls12 = policy.versions.contains(&TlsVersion::Tls12);
    if tls12 && !policy.groups.iter().any(|group| group.in_tls12()) {
        fault(
            "no group that TLS 1.2 can use, which is on here".to_owned(),
            "add `\"x25519\"` or `\"secp256r1\"` to `groups`, or write `versions = [\"1.3\"]`",
        );
    }
}
