//! What clients meet: a resolver over what is held, and handshakes with it.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::ResolvesServerCert;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig};
use rustls::{ServerConnection, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::cert::inventory::{Change, Held, Inventory, Settings};
use crate::cert::rank::Candidate;
use crate::cert::select::Resolver;
use crate::cert::source::{Files, Source};
use crate::cert::{Disk, DiskState, Verified};
use crate::clock::Clock;

/// See above.
pub(crate) struct Front {
    pub(crate) clock: Clock,
    pub(crate) inventory: Arc<ArcSwap<Inventory>>,
    pub(crate) resolver: Arc<Resolver>,
}

impl Front {
    /// Nothing is held.
    pub(crate) fn new(clock: Clock) -> Self {
        let inventory = Arc::<ArcSwap<Inventory>>::default();
        Self {
            resolver: Arc::new(Resolver::new(Arc::clone(&inventory), clock.clone())),
            inventory,
            clock,
        }
    }

    /// Holds these and nothing else, each from a source of its own.
    pub(crate) fn hold(&self, label: &str, all: &[&Arc<Verified>]) {
        let changes = (0..).zip(all).map(|(slot, certificate)| {
            let source = Source {
                label: label.into(),
                shown: [label.into()].into(),
                files: Files {
                    chain: label.into(),
                    key: None,
                },
                ocsp: None,
                folder: None,
                order: slot as usize,
                accept_worse: false,
                keep: true,
                routine: false,
            };
            let candidate = Candidate {
                certificate: Arc::clone(certificate),
                slot,
                order: slot,
                on_disk: true,
                held_back: false,
            };
            let disk = Disk {
                state: DiskState::Same,
                reason: None,
                detail: None,
                file: None,
                since: self.clock.now(),
                half: false,
            };
            let held = Held {
                source: Arc::new(source),
                candidates: vec![candidate],
                disk,
            };
            let held = Some(Arc::new(held));
            Change { slot, held }
        });
        let next = Inventory::default().with(changes, 0..8, &Settings::default());
        self.inventory.store(Arc::new(next));
    }

    /// The leaf that a client is shown that asks for this name; an error is the handshake's.
    pub(crate) fn shake_hands(&self, name: &str) -> Result<CertificateDer<'static>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.resolver) as Arc<dyn ResolvesServerCert>);
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_no_client_auth();
        client.enable_sni = name.parse::<std::net::IpAddr>().is_err();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &*wire).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &*wire).unwrap();
            client.process_new_packets()?;
        }
        client.writer().flush().unwrap();
        drop(server.reader().read(&mut [0; 1]));
        let chain = client.peer_certificates().unwrap();
        Ok(chain[0].clone().into_owned())
    }
}

#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = algorithms.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
