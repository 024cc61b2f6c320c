//! Certificates for tests: an authority, and leaves made to order.

mod front;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use std::sync::Arc;

use super::load::{File, Input, Roots, load};
use super::{Rejection, Verified};
use crate::clock::Timestamp;

pub(crate) use front::Front;

/// The day on which these tests take place.
pub(crate) const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

/// `NOW` and so many days.
pub(crate) const fn day(n: i64) -> Timestamp {
    NOW.plus(n * 86_400)
}

pub(crate) fn date(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.unix()).unwrap()
}

/// An authority's certificate and what it signs with.
pub(crate) struct Authority {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A root.
    pub(crate) fn root(name: &str) -> Self {
        Self::make(name, None, day(-1000), day(3000))
    }

    /// An intermediate.
    pub(crate) fn under(name: &str, above: &Self) -> Self {
        Self::make(name, Some(above), day(-500), day(1000))
    }

    pub(crate) fn make(name: &str, above: Option<&Self>, from: Timestamp, to: Timestamp) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::with_key(name, above, from, to, key)
    }

    pub(crate) fn with_key(
        name: &str,
        above: Option<&Self>,
        from: Timestamp,
        to: Timestamp,
        key: KeyPair,
    ) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(from);
        params.not_after = date(to);
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }
}

/// A leaf to be made; the fields may be changed before [`issue`](Self::issue).
pub(crate) struct Leaf {
    pub(crate) params: CertificateParams,
    pub(crate) key: KeyPair,
}

/// A leaf and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Leaf {
    /// Valid from 30 days ago for 90 days, with a P-256 key.
    pub(crate) fn new(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        Self { params, key }.valid(day(-30), day(60))
    }

    pub(crate) fn valid(mut self, from: Timestamp, to: Timestamp) -> Self {
        self.params.not_before = date(from);
        self.params.not_after = date(to);
        self
    }

    pub(crate) fn key(mut self, key: KeyPair) -> Self {
        self.key = key;
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }

    /// The leaf alone.
    pub(crate) fn issue(&self, by: &Authority) -> Issued {
        let certificate = self.params.signed_by(&self.key, &by.issuer).unwrap();
        Issued {
            chain: certificate.pem(),
            key: self.key.serialize_pem(),
        }
    }

    pub(crate) fn self_signed(&self) -> Issued {
        Issued {
            chain: self.params.self_signed(&self.key).unwrap().pem(),
            key: self.key.serialize_pem(),
        }
    }
}

impl Issued {
    /// The same with these below the leaf.
    pub(crate) fn and(mut self, above: &Authority) -> Self {
        self.chain.push_str(&above.pem);
        self
    }

    pub(crate) fn load(&self, roots: &Roots) -> Result<Verified, Rejection> {
        pair(&self.chain, &self.key, roots)
    }
}

/// A root, an intermediate under it, and the root as what the system trusts.
pub(crate) struct World {
    pub(crate) root: Authority,
    pub(crate) intermediate: Authority,
    pub(crate) roots: Arc<Roots>,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = Authority::root("Test Root");
        let intermediate = Authority::under("Test Intermediate", &root);
        let roots = Arc::new(Roots::from_ders([root.der.clone()]));
        Self {
            root,
            intermediate,
            roots,
        }
    }

    /// A leaf with its chain.
    pub(crate) fn issue(&self, leaf: &Leaf) -> Issued {
        leaf.issue(&self.intermediate).and(&self.intermediate)
    }

    /// The same, verified.
    pub(crate) fn verified(&self, leaf: &Leaf) -> Verified {
        self.issue(leaf).load(&self.roots).unwrap()
    }
}

pub(crate) fn file(path: &str, bytes: impl AsRef<[u8]>) -> File {
    File {
        path: path.into(),
        bytes: bytes.as_ref().to_vec(),
    }
}

/// Loads a pair at [`NOW`].
pub(crate) fn pair(
    chain: impl AsRef<[u8]>,
    key: impl AsRef<[u8]>,
    roots: &Roots,
) -> Result<Verified, Rejection> {
    let input = Input {
        chain: file("/etc/tls/chain.pem", chain),
        key: Some(file("/etc/tls/key.pem", key)),
        ocsp: None,
    };
    load(&input, roots, NOW)
}

/// Loads a bundle at [`NOW`].
pub(crate) fn bundle(bytes: impl AsRef<[u8]>, roots: &Roots) -> Result<Verified, Rejection> {
    let input = Input {
        chain: file("/etc/tls/bundle.pem", bytes),
        key: None,
        ocsp: None,
    };
    load(&input, roots, NOW)
}

/// A file of `tests/fixtures/certificates`.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/certificates/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

/// The certificate block of a bundle fixture, as text.
pub(crate) fn certificate_of(name: &str) -> String {
    let text = String::from_utf8(fixture(name)).unwrap();
    let end = text.find("-----END CERTIFICATE-----\n").unwrap();
    text[..end + 26].to_owned()
}

/// What follows it: the key.
pub(crate) fn key_of(name: &str) -> String {
    let text = String::from_utf8(fixture(name)).unwrap();
    text[certificate_of(name).len()..].to_owned()
}
