//! The demo's certificate authority and its certificates.
//!
//! The authority is made once and kept, so that trusting it is done once. It can only ever vouch
//! for this machine (RFC 5280, section 4.2.1.10, name constraints): whoever puts it into a browser
//! and loses its key has lost nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::parse_x509_certificate;

use crate::cert::Fingerprint;
use crate::clock::Timestamp;

const DAY: i64 = 86_400;
const AUTHORITY_LIFETIME: i64 = 3_652 * DAY;
const LIFETIME: i64 = 90 * DAY;
/// Certificates begin a little in the past: clocks differ.
const SKEW: i64 = 3_600;

const HOST: &str = "localhost";

/// Owner only, for keys.
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Where everything is, below one folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The authority's certificate, for `curl --cacert`.
    pub fn authority(&self) -> PathBuf {
        self.0.join("demo-ca.pem")
    }

    fn authority_key(&self) -> PathBuf {
        self.0.join("demo-ca.key")
    }

    /// The certificate and its chain.
    pub fn chain(&self) -> PathBuf {
        self.0.join("demo/fullchain.pem")
    }

    /// Its private key.
    pub fn key(&self) -> PathBuf {
        self.0.join("demo/privkey.pem")
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join("demo/staunch.toml")
    }

    /// The state directory, as the configuration names it.
    pub const STATE: &str = "../state";
}

/// What could not be done, and to which file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error(
        "{}: there is no demo certificate authority that can be used here; \
         `staunch demo` makes one",
        .0.display()
    )]
    NoAuthority(PathBuf),
}

/// A certificate authority for this machine.
pub struct Authority {
    /// Its certificate, PEM.
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The one in `folder`; a new one where there is none, or none with a certificate's lifetime
    /// left.
    pub fn load_or_make(folder: &Folder, now: Timestamp) -> Result<Self, Error> {
        match Self::load(folder, now) {
            Err(Error::NoAuthority(_)) => Self::make(folder, now),
            other => other,
        }
    }

    /// The one in `folder`.
    pub fn load(folder: &Folder, now: Timestamp) -> Result<Self, Error> {
        let path = folder.authority();
        let (Some(certificate), Some(key)) = (read(&path)?, read(&folder.authority_key())?) else {
            return Err(Error::NoAuthority(path));
        };
        Self::from_pem(certificate, &key, now).ok_or(Error::NoAuthority(path))
    }

    /// `None` when the two do not belong together, or it ends before what it would issue.
    fn from_pem(certificate: String, key: &str, now: Timestamp) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
        let key = KeyPair::from_pem(key).ok()?;
        let (_, parsed) = parse_x509_certificate(&der).ok()?;
        let usable = parsed.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&key)
            && parsed.validity().not_after.timestamp() >= now.plus(LIFETIME).unix();
        // The issuer's name and key identifier are the same each time: they need not be read.
        usable.then(|| Self {
            certificate,
            issuer: Issuer::new(authority_params(now), key),
        })
    }

    fn make(folder: &Folder, now: Timestamp) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(now);
        let certificate = params.self_signed(&key)?.pem();
        write(&folder.authority_key(), &key.serialize_pem(), PRIVATE)?;
        write(&folder.authority(), &certificate, PUBLIC)?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Issues a new certificate with a new key, and puts both into place, one after the other, as
    /// ACME clients do. Returns the certificate's fingerprint.
    pub fn issue(&self, folder: &Folder, now: Timestamp) -> Result<Fingerprint, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let leaf = leaf_params(now)?.signed_by(&key, &self.issuer)?;
        // With the authority's own, so that the chain has all its links also for those who do not
        // have that at hand.
        let chain = leaf.pem() + &self.certificate;
        write(&folder.chain(), &chain, PUBLIC)?;
        write(&folder.key(), &key.serialize_pem(), PRIVATE)?;
        Ok(fingerprint(leaf.der()))
    }
}

fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("staunch demo CA");
    (params.not_before, params.not_after) = period(now, AUTHORITY_LIFETIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName(HOST.to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(
                Ipv6Addr::LOCALHOST.octets(),
                128,
            )),
        ],
        excluded_subtrees: Vec::new(),
    });
    params
}

fn leaf_params(now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(HOST);
    (params.not_before, params.not_after) = period(now, LIFETIME);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![
        SanType::DnsName(HOST.try_into()?),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    Ok(params)
}

fn name(common: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn period(now: Timestamp, lifetime: i64) -> (OffsetDateTime, OffsetDateTime) {
    let at = |moment: Timestamp| {
        OffsetDateTime::from_unix_timestamp(moment.unix()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    (at(now.plus(-SKEW)), at(now.plus(lifetime)))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut bytes = [0; 32];
    if let Some(suite) = suite.tls13() {
        bytes.copy_from_slice(suite.common.hash_provider.hash(certificate).as_ref());
    }
    Fingerprint(bytes)
}

/// `None` when there is no such file.
fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File {
            path: path.to_path_buf(),
            source,
        }),
    }
}

/// Writes a file whole or not at all, its folder included: beside it first, then renamed.
pub fn write(path: &Path, content: &str, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::File {
        path: path.to_path_buf(),
        source,
    };
    fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("."))).map_err(failed)?;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let written = create(&beside, mode)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&beside);
        failed(source)
    })
}

/// Never an existing file, whose mode would be another's choice.
fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn temporary() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_path_buf());
        (dir, folder)
    }

    /// Makes or loads the authority, and returns its certificate as it is on disk.
    fn authority_at(folder: &Folder, now: Timestamp) -> String {
        Authority::load_or_make(folder, now).unwrap();
        fs::read_to_string(folder.authority()).unwrap()
    }

    #[test]
    fn an_authority_is_made_once_and_kept() {
        let (_dir, folder) = temporary();
        assert!(matches!(
            Authority::load(&folder, NOW),
            Err(Error::NoAuthority(_))
        ));
        let made = authority_at(&folder, NOW);
        assert_eq!(made, authority_at(&folder, NOW.plus(3_000 * DAY)));
        // One that would end before what it issues is of no use any more.
        assert_ne!(made, authority_at(&folder, NOW.plus(3_600 * DAY)));
    }

    #[test]
    fn an_authority_that_cannot_be_used_is_replaced() {
        let (_dir, folder) = temporary();
        let (_other_dir, other) = temporary();
        let made = authority_at(&folder, NOW);
        authority_at(&other, NOW);
        fs::copy(other.authority_key(), folder.authority_key()).unwrap();
        assert_ne!(made, authority_at(&folder, NOW));
        fs::write(folder.authority(), "garbage").unwrap();
        assert_ne!(authority_at(&folder, NOW), "garbage");
    }

    #[test]
    fn keys_are_for_the_owner_only() {
        let (_dir, folder) = temporary();
        let authority = Authority::load_or_make(&folder, NOW).unwrap();
        authority.issue(&folder, NOW).unwrap();
        for path in [folder.authority_key(), folder.key()] {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, PRIVATE, "{}", path.display());
        }
    }

    #[test]
    fn each_certificate_is_new() {
        let (_dir, folder) = temporary();
        let authority = Authority::load_or_make(&folder, NOW).unwrap();
        let first = authority.issue(&folder, NOW).unwrap();
        let second = authority.issue(&folder, NOW).unwrap();
        assert_ne!(first, second);
        let pem = fs::read(folder.chain()).unwrap();
        assert_eq!(
            fingerprint(&CertificateDer::from_pem_slice(&pem).unwrap()),
            second
        );
    }

    /// An independent witness: OpenSSL, where it is installed.
    #[test]
    fn openssl_verifies_what_is_made_for_the_names_of_this_machine() {
        let (_dir, folder) = temporary();
        let authority = Authority::load_or_make(&folder, NOW).unwrap();
        authority.issue(&folder, NOW).unwrap();
        for name in [
            ["-verify_hostname", "localhost"],
            ["-verify_ip", "127.0.0.1"],
            ["-verify_ip", "::1"],
        ] {
            let output = Command::new("openssl")
                .args(["verify", "-x509_strict", "-purpose", "sslserver"])
                .args(["-attime", &NOW.unix().to_string()])
                .args(name)
                .arg("-CAfile")
                .args([folder.authority(), folder.chain()])
                .output();
            let Ok(output) = output else { return };
            assert!(output.status.success(), "{name:?}: {output:?}");
        }
    }
}
