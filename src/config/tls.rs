//! What can be configured of TLS: `[tls]`, `[[tls.listener]]`, `[site.tls]` and
//! `[site.client_certificates]`.
//!
//! Each of the first three says something of versions, cipher suites and groups, and leaves the
//! rest to what is wider: a site to the listener that it is asked for at, a listener to `[tls]`,
//! and that to the policy, which is Mozilla's. [`TlsChoice::over`] puts them above each other, and
//! [`TlsChoice::settle`] makes one [`TlsPolicy`] of them.

mod read;
mod words;

use std::net::SocketAddr;
use std::path::PathBuf;

pub(super) use read::{RawSiteTls, RawTls, check, client_certificates, site, tls};

/// The version of Mozilla's guidelines for TLS on servers that the policies are taken from.
pub const GUIDELINES: &str = "5.8";

/// `[tls]`: what holds for every listener and site that says nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Versions, suites and groups.
    pub choice: TlsChoice,
    /// Whether session tickets are issued and taken.
    pub tickets: bool,
    /// Files that hold ticket keys, the newest first; none: keys of this process alone.
    pub ticket_keys: Vec<PathBuf>,
    /// Whether the JA4 fingerprint of each client is taken.
    pub ja4: bool,
    /// Of which certificates staples are fetched.
    pub ocsp: OcspFetch,
    /// Listeners with settings of their own.
    pub listeners: Vec<(SocketAddr, TlsChoice)>,
}

/// As of a file that says nothing.
impl Default for Tls {
    fn default() -> Self {
        Self {
            choice: TlsChoice::default(),
            tickets: true,
            ticket_keys: Vec::new(),
            ja4: false,
            ocsp: OcspFetch::default(),
            listeners: Vec::new(),
        }
    }
}

impl Tls {
    /// What a listener goes by, for names that no site with settings of its own answers to.
    pub fn at(&self, listener: SocketAddr) -> TlsChoice {
        match self.listeners.iter().find(|(at, _)| *at == listener) {
            Some((_, choice)) => choice.over(&self.choice),
            None => self.choice.clone(),
        }
    }
}

/// Whose responders are asked for staples (RFC 6960).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OcspFetch {
    /// Nobody's.
    Off,
    /// Those of certificates that this system trusts: what they name as their responder was
    /// written by an authority that is believed.
    #[default]
    Trusted,
    /// Any that a certificate names.
    All,
}

/// What a site says of TLS: nothing, mostly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SiteTls {
    /// `[site.tls]`
    pub choice: TlsChoice,
    /// `[site.client_certificates]`
    pub client: Option<ClientCertificates>,
}

impl SiteTls {
    /// Whether it says nothing, so that a connection under any policy will do.
    pub fn is_default(&self) -> bool {
        self.client.is_none() && self.choice == TlsChoice::default()
    }
}

/// What one section says of versions, suites and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsChoice {
    /// A policy by name.
    pub policy: Option<PolicyName>,
    /// Versions, instead of the policy's.
    pub versions: Option<Vec<TlsVersion>>,
    /// Cipher suites, instead of the policy's.
    pub cipher_suites: Option<Vec<CipherSuite>>,
    /// Groups, instead of the policy's.
    pub groups: Option<Vec<Group>>,
}

impl TlsChoice {
    /// What this says, and where it is silent, what `wider` says. A policy by name puts aside all
    /// that is said more widely; and of suites that are, those stay whose version is on.
    pub fn over(&self, wider: &Self) -> Self {
        if self.policy.is_some() {
            return self.clone();
        }
        let inherited = || {
            let mut suites = wider.cipher_suites.clone()?;
            if let Some(versions) = &self.versions {
                suites.retain(|suite| versions.contains(&suite.version()));
            }
            Some(suites)
        };
        Self {
            policy: wider.policy,
            versions: self.versions.clone().or_else(|| wider.versions.clone()),
            cipher_suites: self.cipher_suites.clone().or_else(inherited),
            groups: self.groups.clone().or_else(|| wider.groups.clone()),
        }
    }

    /// What that comes to, with the policy's word for all that nobody spoke of. Without a list of
    /// suites there are those of the versions that are on.
    pub fn settle(&self) -> TlsPolicy {
        let named = self.policy.unwrap_or_default();
        let versions = (self.versions.clone()).unwrap_or_else(|| named.versions().to_vec());
        let all = || CipherSuite::RECOMMENDED.iter().copied();
        let cipher_suites = (self.cipher_suites.clone()).unwrap_or_else(|| {
            all()
                .filter(|suite| versions.contains(&suite.version()))
                .collect()
        });
        TlsPolicy {
            versions,
            cipher_suites,
            groups: (self.groups.clone()).unwrap_or_else(|| Group::RECOMMENDED.to_vec()),
        }
    }
}

/// One complete set of settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// At least one.
    pub versions: Vec<TlsVersion>,
    /// At least one of each version, and of no other. The client's order decides.
    pub cipher_suites: Vec<CipherSuite>,
    /// At least one that each version can use, the preferred first.
    pub groups: Vec<Group>,
}

/// One of Mozilla's recommendations ([`GUIDELINES`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyName {
    /// TLS 1.3 only.
    Modern,
    /// TLS 1.2 and 1.3, with forward secrecy and authenticated encryption only.
    #[default]
    Intermediate,
}

impl PolicyName {
    const fn versions(self) -> &'static [TlsVersion] {
        match self {
            Self::Modern => &[TlsVersion::Tls13],
            Self::Intermediate => &[TlsVersion::Tls13, TlsVersion::Tls12],
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

/// Things that have a name by IANA and other names elsewhere.
macro_rules! registered {
    (
        $(#[$doc:meta])* $type:ident,
        $($variant:ident = $name:literal $(| $alias:literal)*,)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl $type {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name, as IANA has it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Recognises its name, or the one that other servers' configurations have for it, in
            /// any case.
            pub(super) fn of(text: &str) -> Option<Self> {
                let is = |name: &str| text.eq_ignore_ascii_case(name);
                $(if is($name) $(|| is($alias))* { return Some(Self::$variant); })*
                None
            }
        }
    };
}

registered! {
    /// A cipher suite.
    CipherSuite,
    Aes128GcmSha256 = "TLS_AES_128_GCM_SHA256",
    Aes256GcmSha384 = "TLS_AES_256_GCM_SHA384",
    ChaCha20Poly1305Sha256 = "TLS_CHACHA20_POLY1305_SHA256",
    EcdheEcdsaAes128GcmSha256 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
        | "ECDHE-ECDSA-AES128-GCM-SHA256",
    EcdheRsaAes128GcmSha256 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
        | "ECDHE-RSA-AES128-GCM-SHA256",
    EcdheEcdsaAes256GcmSha384 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
        | "ECDHE-ECDSA-AES256-GCM-SHA384",
    EcdheRsaAes256GcmSha384 = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
        | "ECDHE-RSA-AES256-GCM-SHA384",
    EcdheEcdsaChaCha20Poly1305 = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
        | "ECDHE-ECDSA-CHACHA20-POLY1305",
    EcdheRsaChaCha20Poly1305 = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
        | "ECDHE-RSA-CHACHA20-POLY1305",
}

impl CipherSuite {
    /// What Mozilla recommends, in that order: everything there is.
    const RECOMMENDED: &[Self] = Self::ALL;

    /// The version that it belongs to.
    pub const fn version(self) -> TlsVersion {
        match self {
            Self::Aes128GcmSha256 | Self::Aes256GcmSha384 | Self::ChaCha20Poly1305Sha256 => {
                TlsVersion::Tls13
            }
            _ => TlsVersion::Tls12,
        }
    }
}

registered! {
    /// A group for the key exchange.
    Group,
    X25519MlKem768 = "X25519MLKEM768",
    Secp256r1MlKem768 = "SecP256r1MLKEM768",
    X25519 = "x25519",
    Secp256r1 = "secp256r1" | "prime256v1" | "P-256",
    Secp384r1 = "secp384r1" | "P-384",
    MlKem768 = "MLKEM768",
    MlKem1024 = "MLKEM1024",
}

impl Group {
    /// What Mozilla recommends, in that order: the post-quantum hybrid first.
    const RECOMMENDED: &[Self] = &[
        Self::X25519MlKem768,
        Self::X25519,
        Self::Secp256r1,
        Self::Secp384r1,
    ];

    /// Whether TLS 1.2 can use it (RFC 8422, section 5.1.1).
    const fn in_tls12(self) -> bool {
        matches!(self, Self::X25519 | Self::Secp256r1 | Self::Secp384r1)
    }
}

/// `[site.client_certificates]`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificates {
    /// Whether there must be one.
    pub mode: ClientMode,
    /// Files with the authorities that are believed.
    pub ca: Vec<PathBuf>,
    /// Files with revocation lists; none: nothing is looked up.
    pub crl: Vec<PathBuf>,
    /// Whether a revocation list that is past its `nextUpdate` is gone by all the same.
    pub accept_expired_crl: bool,
    /// What the upstream is told.
    pub headers: Vec<ClientHeader>,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientMode {
    /// A handshake without a good one fails.
    Required,
    /// One that is shown must be good.
    Optional,
    /// Whatever is shown is passed on, with a word on whether it is good.
    Request,
}

/// A field by which an upstream learns of the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientHeader {
    /// `Client-Cert` (RFC 9440, section 2.2).
    Certificate,
    /// `Client-Cert-Chain` (RFC 9440, section 2.3).
    Chain,
    /// `X-Client-Cert-Subject`: its subject (RFC 4514).
    Subject,
    /// `X-Client-Cert-SAN`: its alternative names.
    San,
    /// `X-Client-Cert-Fingerprint`: its SHA-256.
    Fingerprint,
    /// `X-Client-Cert-PEM`: its PEM, percent-encoded.
    Pem,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_intermediate_with_the_post_quantum_hybrid_first() {
        let policy = TlsChoice::default().settle();
        assert_eq!(policy.versions, [TlsVersion::Tls13, TlsVersion::Tls12]);
        assert_eq!(policy.cipher_suites, CipherSuite::ALL);
        assert_eq!(policy.groups.first(), Some(&Group::X25519MlKem768));
    }

    #[test]
    fn modern_has_the_suites_of_tls_1_3_only() {
        let choice = TlsChoice {
            policy: Some(PolicyName::Modern),
            ..TlsChoice::default()
        };
        let policy = choice.settle();
        assert_eq!(policy.versions, [TlsVersion::Tls13]);
        let is_new = |suite: &CipherSuite| suite.version() == TlsVersion::Tls13;
        assert!(policy.cipher_suites.iter().all(is_new));
    }

    #[test]
    fn what_is_narrower_wins_and_a_policy_by_name_wipes_the_slate() {
        let wide = TlsChoice {
            policy: Some(PolicyName::Modern),
            groups: Some(vec![Group::Secp384r1]),
            ..TlsChoice::default()
        };
        let versions = TlsChoice {
            versions: Some(vec![TlsVersion::Tls12]),
            ..TlsChoice::default()
        };
        let both = versions.over(&wide).settle();
        assert_eq!(both.versions, [TlsVersion::Tls12]);
        assert_eq!(both.groups, [Group::Secp384r1]);
        let named = TlsChoice {
            policy: Some(PolicyName::Intermediate),
            ..TlsChoice::default()
        };
        assert_eq!(named.over(&wide).settle(), TlsChoice::default().settle());
    }
}
