//! A certificate authority, and what it issues.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, RsaKeySize, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// A key's algorithm and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    P256,
    P384,
    Rsa2048,
    Ed25519,
}

impl KeyKind {
    fn generate(self) -> KeyPair {
        match self {
            Self::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
            Self::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
            Self::Rsa2048 => KeyPair::from_pem(rsa()).unwrap(),
        }
    }
}

/// Made once: finding the primes takes long where nothing is optimised.
fn rsa() -> &'static str {
    static PEM: OnceLock<String> = OnceLock::new();
    PEM.get_or_init(|| {
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
            .unwrap()
            .serialize_pem()
    })
}

/// An authority: a root, or an intermediate below one.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    root: Arc<Root>,
    /// What a leaf must bring along, its issuer first.
    intermediates: String,
    pem: String,
}

/// What clients trust.
#[derive(Debug)]
pub struct Root {
    pub pem: String,
    pub der: CertificateDer<'static>,
}

impl TestCa {
    /// A root of its own, with a name of its own: of two that share one, openssl takes the one it
    /// knows, and sees a bad signature.
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let key = KeyKind::P256.generate();
        let params = authority(&format!("staunch test root {number}"));
        let certificate = params.self_signed(&key).unwrap();
        let root = Root {
            pem: certificate.pem(),
            der: certificate.der().clone(),
        };
        Self {
            issuer: Issuer::new(params, key),
            pem: root.pem.clone(),
            root: Arc::new(root),
            intermediates: String::new(),
        }
    }

    /// An intermediate below this one.
    pub fn intermediate(&self) -> Self {
        let key = KeyKind::P256.generate();
        let params = authority("staunch test intermediate");
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            root: Arc::clone(&self.root),
            intermediates: certificate.pem() + &self.intermediates,
            pem: certificate.pem(),
        }
    }

    /// The root, for trust stores.
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// A leaf to be made to order.
    pub fn leaf<'a>(&'a self, names: &[&str]) -> Order<'a> {
        Order {
            ca: self,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            key: KeyKind::P256,
            days: (-1, 89),
            extensions: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        }
    }

    /// Its own certificate and key, for programs that sign with them; PEM.
    pub fn signing(&self) -> (String, String) {
        (self.pem.clone(), self.issuer.key().serialize_pem())
    }

    /// A leaf as most tests want it: valid, P-256.
    pub fn issue(&self, name: &str) -> Leaf {
        self.leaf(&[name]).issue()
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial());
    params.not_before = in_days(-400);
    params.not_after = in_days(3000);
    params
}

/// Never the same twice, as rcgen's own, derived from the key, would be for the shared RSA key.
fn serial() -> SerialNumber {
    static NEXT: AtomicU64 = AtomicU64::new(0x5eed_0001);
    SerialNumber::from(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn in_days(days: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(days)
}

/// A leaf that is not yet made.
pub struct Order<'a> {
    ca: &'a TestCa,
    names: Vec<String>,
    key: KeyKind,
    days: (i64, i64),
    extensions: Vec<CustomExtension>,
    usage: ExtendedKeyUsagePurpose,
}

impl Order<'_> {
    /// With a key of this kind.
    pub const fn key(mut self, kind: KeyKind) -> Self {
        self.key = kind;
        self
    }

    /// Valid from and to so many days from now.
    pub const fn days(mut self, from: i64, to: i64) -> Self {
        self.days = (from, to);
        self
    }

    /// Whose OCSP responder is there (RFC 5280, section 4.2.2.1).
    pub fn responder(mut self, url: &str) -> Self {
        const OCSP: [u8; 10] = [6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1];
        let tlv = |tag, parts: &[&[u8]]| {
            let content = parts.concat();
            let head = [tag, u8::try_from(content.len()).unwrap()];
            assert!(content.len() < 0x80);
            [&head[..], &content].concat()
        };
        let description = tlv(0x30, &[&OCSP, &tlv(0x86, &[url.as_bytes()])]);
        let access = tlv(0x30, &[&description]);
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
        let extension = CustomExtension::from_oid_content(&oid, access);
        self.extensions.push(extension);
        self
    }

    /// Not to be believed without a staple (RFC 7633).
    pub fn must_staple(mut self) -> Self {
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 24];
        let features = vec![0x30, 3, 2, 1, 5];
        let extension = CustomExtension::from_oid_content(&oid, features);
        self.extensions.push(extension);
        self
    }

    /// One that may sign for its issuer what that says of certificates.
    pub fn signs_status(mut self) -> Self {
        self.usage = ExtendedKeyUsagePurpose::OcspSigning;
        self
    }

    /// Valid until yesterday.
    pub const fn expired(self) -> Self {
        self.days(-91, -1)
    }

    /// Makes it.
    pub fn issue(self) -> Leaf {
        let key = self.key.generate();
        let mut params = CertificateParams::new(self.names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(serial());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.usage];
        params.custom_extensions = self.extensions;
        params.not_before = in_days(self.days.0);
        params.not_after = in_days(self.days.1);
        let certificate = params.signed_by(&key, &self.ca.issuer).unwrap();
        Leaf {
            chain: certificate.pem() + &self.ca.intermediates,
            key: key.serialize_pem(),
            fingerprint: fingerprint(certificate.der()),
            root: Arc::clone(&self.ca.root),
        }
    }
}

/// A certificate, its chain and its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Leaf first, then intermediates; PEM.
    pub chain: String,
    /// PKCS#8; PEM.
    pub key: String,
    /// As the inventory spells it.
    pub fingerprint: String,
    pub root: Arc<Root>,
}

/// SHA-256 in lower-case hexadecimal.
pub fn fingerprint(der: &CertificateDer<'_>) -> String {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let hash = suite.common.hash_provider.hash(der);
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
