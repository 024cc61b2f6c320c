//! What the tests of this part share: certificates in words, without bytes, and a server that
//! behaves as badly as it is told to.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::condition::{Code, Condition};
use super::message::{Alert, Notification, Occasion};
use crate::cert::{
    Disk, DiskState, Facts, Fingerprint, KeyType, Name, Origin, Report, ReportedCertificate, Stage,
    Validity,
};
use crate::clock::Timestamp;
use crate::config::{Alerts, Severity};

/// Midnight of this day since 1970.
pub(crate) fn day(n: i64) -> Timestamp {
    Timestamp::from_unix(n * 86_400)
}

/// The thresholds of a default configuration, and no sinks.
pub(crate) fn alerts() -> Alerts {
    Alerts {
        go_back: false,
        overdue: 0.25,
        expiring: 0.10,
        repeat: Duration::from_secs(6 * 3600),
        probe: Vec::new(),
        runbook: None,
        sinks: Vec::new(),
    }
}

/// The facts of a good certificate for `www.example.com`.
pub(crate) fn facts(not_before: Timestamp, not_after: Timestamp) -> Facts {
    Facts {
        names: [Name::Dns("www.example.com".into())].into(),
        serial: "01".into(),
        fingerprint: Fingerprint([1; 32]),
        issuer: "R3".into(),
        key_type: KeyType::EcdsaP256,
        validity: Validity {
            not_before,
            not_after,
        },
        chain_length: 2,
        chain_not_after: not_after,
        chain_complete: true,
        trusted: true,
        server_usage: true,
        weaknesses: Vec::new(),
        must_staple: false,
        ocsp_responder: None,
        path: std::path::Path::new("/a.pem").into(),
        chain_shortcoming: None,
        first_to_expire: "www.example.com".into(),
        notes: Vec::new(),
    }
}

/// The report of a good certificate that is served for this name.
pub(crate) fn report(
    source: &str,
    name: &str,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Report {
    let mut fingerprint = [0; 32];
    for (byte, value) in fingerprint.iter_mut().zip(source.bytes().rev()) {
        *byte = value;
    }
    Report {
        source: [source.to_owned()].into(),
        certificate: Some(ReportedCertificate {
            names: [Name::Dns(name.into())].into(),
            serial: "01".into(),
            fingerprint_sha256: Fingerprint(fingerprint),
            issuer: "R3".into(),
            key_type: KeyType::EcdsaP256,
            not_before,
            not_after,
            stage: Stage::Fresh,
            trusted: true,
            chain_complete: true,
            chain_length: 2,
            revoked: None,
            must_staple: false,
            staple: None,
        }),
        serving: true,
        origin: Origin::Disk,
        disk: Disk {
            state: DiskState::Same,
            reason: None,
            detail: None,
            file: None,
            since: not_before,
            half: false,
        },
        is_folder: false,
        routine: false,
    }
}

/// How a [`Listener`] answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// With this head (status and headers, without the final empty line) and body.
    Says(&'static str, &'static str),
    /// Not at all.
    Hangs,
    /// With something that is not HTTP.
    Garbage,
    /// With a body without end.
    Endless,
}

/// That an HTTP server took it.
pub(crate) const FINE: Manner = Manner::Says("200 OK", "ok");

/// An HTTP server on a port of its own that answers each request in the manner it has at the time,
/// and passes on what it was asked.
pub(crate) struct Listener {
    /// Its base URL, without a final slash.
    pub(crate) url: String,
    manner: tokio::sync::watch::Sender<Manner>,
    asked: tokio::sync::mpsc::UnboundedReceiver<Asked>,
    task: tokio::task::JoinHandle<()>,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: serde_json::Value,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (manner, receiver) = tokio::sync::watch::channel(manner);
        let (tell, asked) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, receiver.clone(), tell.clone()));
            }
        });
        Self {
            url,
            manner,
            asked,
            task,
        }
    }

    /// From now on it answers like this. Those it left hanging stay so.
    pub(crate) fn becomes(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// The next request; fails the test when none comes.
    pub(crate) async fn asked(&mut self) -> Asked {
        let next = tokio::time::timeout(Duration::from_secs(20), self.asked.recv()).await;
        next.expect("no request came").unwrap()
    }

    /// A request that came already.
    pub(crate) fn asked_already(&mut self) -> Option<Asked> {
        self.asked.try_recv().ok()
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    manner: tokio::sync::watch::Receiver<Manner>,
    tell: tokio::sync::mpsc::UnboundedSender<Asked>,
) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let body = serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null);
    // Copied, so that nothing borrowed is held while hanging.
    let how = manner.borrow().clone();
    let _ = tell.send(Asked { head, body });
    let _ = match how {
        Manner::Says(head, body) => {
            let length = body.len();
            let text = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).await
        }
        Manner::Hangs => std::future::pending().await,
        Manner::Garbage => stream.write_all(b"\x16\x03\x01 what? \r\n\r\n").await,
        Manner::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 500 Oh\r\n\r\n").await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            Ok(())
        }
    };
    let _ = stream.shutdown().await;
}

/// An alert of this severity that has just fired.
pub(crate) fn told(subject: &str, severity: Severity) -> Notification {
    let condition = Condition::new(Code::Expired, subject, severity, "It expired.", "Renew it.");
    Notification {
        occasion: Occasion::Fired,
        alert: Alert::of(&condition, severity, day(20_000)),
    }
}

/// Waits until this is so; fails the test when it does not come to be.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it did not come to be"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
