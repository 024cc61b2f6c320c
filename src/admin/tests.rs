//! The admin address, asked over a socket.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::cert::{
    Disk, DiskState, Fingerprint, KeyType, Name, Origin, ReportedCertificate, Stage,
};
use crate::clock::Timestamp;

/// One certificate that is well, and a source that never gave one.
pub(super) fn reports() -> Vec<Report> {
    let now = Timestamp::from_unix(1_717_545_600);
    let well = Report {
        source: ["/etc/a.pem".into()].into(),
        certificate: Some(ReportedCertificate {
            names: [Name::Wildcard("a.test".into())].into(),
            serial: "01".into(),
            fingerprint_sha256: Fingerprint([7; 32]),
            issuer: "Test CA".into(),
            key_type: KeyType::EcdsaP256,
            not_before: now,
            not_after: now.plus(90 * 86_400),
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
            since: now,
            half: false,
        },
        is_folder: false,
        routine: false,
    };
    let never = Report {
        source: ["/etc/b.pem".into(), "/etc/b.key".into()].into(),
        certificate: None,
        serving: false,
        origin: Origin::Disk,
        disk: Disk {
            state: DiskState::Rejected,
            reason: Some(Reason::KeyMismatch),
            detail: Some("the key is another's".into()),
            file: None,
            since: now,
            half: false,
        },
        is_folder: false,
        routine: false,
    };
    vec![well, never]
}

/// A server on a port of its own, and the ends that a test holds.
struct Admin {
    address: SocketAddr,
    readiness: watch::Sender<Readiness>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
    reloads: Arc<Reloads>,
}

/// What became of reloads, and how far they may go.
#[derive(Default)]
struct Reloads {
    done: AtomicUsize,
    started: Notify,
    go: Notify,
}

impl Admin {
    async fn start() -> Self {
        Self::within(DEADLINES).await
    }

    async fn within(deadlines: Deadlines) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reason = "certificates are being read".into();
        let (readiness, receiver) = watch::channel(Readiness::Starting { reason });
        let reloads = Arc::new(Reloads::default());
        reloads.go.notify_one();
        let registry = Registry::new();
        let inventory: Inventory = Arc::new(reports);
        certificates::describe(&registry, Arc::clone(&inventory));
        let state = State {
            registry,
            readiness: receiver,
            inventory,
            alerts: Box::new(|| json!({ "firing": [], "resolved": [] })),
            reload: {
                let reloads = Arc::clone(&reloads);
                Box::new(move || Box::pin(reload(Arc::clone(&reloads))))
            },
            accept: Box::new(|acceptance| Box::pin(std::future::ready(accept(&acceptance)))),
            more: vec![Route::get("/more", "more", |call| async move {
                Reply::text(http::StatusCode::OK, call.query.unwrap_or_default())
            })],
        };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve_within(deadlines, listener, Arc::new(state), async {
            let _ = stopped.await;
        }));
        Self {
            address,
            readiness,
            stop: Some(stop),
            served,
            reloads,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and reads to the end of the connection.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is no answer's fault.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// Status, head and body.
    async fn ask(&self, method: Method, path: &str, body: &str) -> (u16, String, String) {
        let (address, length) = (self.address, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = self.raw(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head[9..12].parse().unwrap(),
            head.to_lowercase(),
            body.into(),
        )
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask(Method::GET, path, "").await;
        (status, body)
    }

    async fn json(&self, method: Method, path: &str, body: &str) -> (u16, Value) {
        let (status, _, body) = self.ask(method, path, body).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

/// Succeeds the first time, and fails from then on.
async fn reload(reloads: Arc<Reloads>) -> ReloadOutcome {
    reloads.started.notify_one();
    reloads.go.notified().await;
    reloads.go.notify_one();
    let ok = reloads.done.fetch_add(1, SeqCst) == 0;
    let words = |yes: bool, text: &str| if yes { vec![text.into()] } else { vec![] };
    ReloadOutcome {
        ok,
        changed: words(ok, "site b.test is new"),
        refused: words(!ok, "line 3: unknown key"),
    }
}

fn accept(acceptance: &Acceptance) -> AcceptOutcome {
    match acceptance.source.as_str() {
        "/etc/a.pem" => AcceptOutcome::Accepted {
            detail: acceptance.because.clone(),
        },
        "/etc/b.pem" => AcceptOutcome::Unservable {
            reason: Reason::KeyMismatch,
            detail: "the key is another's".into(),
        },
        "/etc/c.pem" => AcceptOutcome::Nothing {
            detail: "what is on disk is served".into(),
        },
        _ => AcceptOutcome::Unknown,
    }
}

#[tokio::test]
async fn readiness_follows_the_phase_and_health_does_not() {
    let admin = Admin::start().await;
    let ready = || admin.json(Method::GET, "/readyz", "");
    let reason = "certificates are being read";
    let starting = json!({ "status": "starting", "reason": reason });
    assert_eq!(ready().await, (503, starting));
    admin.readiness.send(Readiness::Ready).unwrap();
    assert_eq!(ready().await, (200, json!({ "status": "ready" })));
    let reason = "told to stop".into();
    admin
        .readiness
        .send(Readiness::Draining { reason })
        .unwrap();
    assert_eq!(ready().await.0, 503);
    assert_eq!(admin.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn metrics_inventory_and_alerts_are_shown() {
    let admin = Admin::start().await;
    let (status, head, body) = admin.ask(Method::GET, "/metrics", "").await;
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(body.contains("staunch_certificate_stale{"), "{body}");
    let (status, body) = admin.json(Method::GET, "/api/certificates", "").await;
    assert_eq!(status, 200);
    assert_eq!(body["certificates"][0]["names"], json!(["*.a.test"]));
    assert_eq!(body["certificates"][0]["stage"], "fresh");
    assert_eq!(body["certificates"][1]["disk"]["reason"], "key_mismatch");
    let none = json!({ "firing": [], "resolved": [] });
    assert_eq!(
        admin.json(Method::GET, "/api/alerts", "").await,
        (200, none)
    );
}

#[tokio::test]
async fn the_index_lists_what_there_is() {
    let admin = Admin::start().await;
    let (status, index) = admin.get("/").await;
    assert_eq!(status, 200);
    for path in ["/healthz", "/api/reload", "/api/accept", "/more"] {
        assert!(index.contains(path), "{index}");
    }
    assert_eq!(admin.get("/more?a=b").await, (200, "a=b".into()));
}

#[tokio::test]
async fn head_has_no_body_and_wrong_methods_are_told_the_right_ones() {
    let admin = Admin::start().await;
    let (status, head, body) = admin.ask(Method::HEAD, "/healthz", "").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-length: 16"), "{head}");
    for (method, path, allow) in [
        (Method::POST, "/metrics", "allow: get, head"),
        (Method::GET, "/api/reload", "allow: post"),
        (Method::DELETE, "/", "allow: get, head"),
    ] {
        let (status, head, _) = admin.ask(method, path, "").await;
        assert_eq!(status, 405, "{path}");
        assert!(head.contains(allow), "{head}");
    }
    let (status, error) = admin.json(Method::GET, "/healthz/", "").await;
    assert_eq!((status, &error["error"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn a_reload_answers_with_what_it_did() {
    let admin = Admin::start().await;
    let (status, body) = admin.json(Method::POST, "/api/reload", "").await;
    assert_eq!(status, 200);
    assert_eq!(body["changed"], json!(["site b.test is new"]));
    let (status, body) = admin.json(Method::POST, "/api/reload", "").await;
    assert_eq!(status, 422);
    assert_eq!(body["ok"], json!(false));
    assert_eq!(body["refused"], json!(["line 3: unknown key"]));
}

#[tokio::test]
async fn a_reload_goes_on_without_the_client() {
    let admin = Admin::start().await;
    admin.reloads.go.notified().await;
    let mut stream = admin.connect().await;
    let request = format!(
        "POST /api/reload HTTP/1.1\r\nHost: {}\r\n\r\n",
        admin.address
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    admin.reloads.started.notified().await;
    drop(stream);
    // A few turns for the server to see that the client has gone.
    for _ in 0..3 {
        assert_eq!(admin.get("/healthz").await.0, 200);
    }
    admin.reloads.go.notify_one();
    let done = async {
        while admin.reloads.done.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(Duration::from_secs(10), done).await.unwrap();
}

#[tokio::test]
async fn what_is_held_back_is_accepted_with_a_reason_only() {
    let admin = Admin::start().await;
    let body = |source: &str, because: &str| json!({ "source": source, "because": because });
    for (body, status, error) in [
        (body("/etc/a.pem", "I know"), 200, Value::Null),
        (body("/etc/a.pem", " "), 400, json!("malformed")),
        (json!({ "source": "/etc/a.pem" }), 400, json!("malformed")),
        (body("/etc/b.pem", "I know"), 422, json!("key_mismatch")),
        (
            body("/etc/c.pem", "I know"),
            409,
            json!("nothing_held_back"),
        ),
        (body("/etc/d.pem", "I know"), 404, json!("unknown_source")),
    ] {
        let answer = admin
            .json(Method::POST, "/api/accept", &body.to_string())
            .await;
        assert_eq!((answer.0, &answer.1["error"]), (status, &error), "{body}");
    }
}

#[tokio::test]
async fn a_web_page_cannot_reload() {
    let admin = Admin::start().await;
    let request = format!(
        "POST /api/reload HTTP/1.1\r\nHost: {}\r\nOrigin: http://evil.test\r\n\
         Connection: close\r\n\r\n",
        admin.address
    );
    assert!(admin.raw(&request).await.starts_with("HTTP/1.1 403 "));
    assert_eq!(admin.reloads.done.load(SeqCst), 0);
}

#[tokio::test]
async fn a_body_and_a_head_are_bounded() {
    let admin = Admin::start().await;
    let (status, _) = admin
        .json(Method::POST, "/api/accept", &"x".repeat(70_000))
        .await;
    assert_eq!(status, 413);
    let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(100_000));
    assert!(admin.raw(&long).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_client_that_stalls_is_cut_off() {
    let short = Duration::from_millis(50);
    let admin = Admin::within(Deadlines {
        head: short,
        body: short,
        ..DEADLINES
    })
    .await;
    let accept = "POST /api/accept HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{";
    for (request, answer) in [
        ("", ""),
        ("GET / HTTP/1.1\r\nHo", ""),
        (accept, "HTTP/1.1 408 "),
    ] {
        let answered = time::timeout(Duration::from_secs(10), admin.raw(request)).await;
        let answered = answered.unwrap();
        assert!(answered.starts_with(answer), "{request:?}: {answered:?}");
        assert!(!answered.contains(" 200 "), "{request:?}: {answered:?}");
    }
}

#[tokio::test]
async fn many_idle_clients_do_not_shut_a_probe_out() {
    let admin = Admin::start().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS + 10 {
        idle.push(admin.connect().await);
    }
    let probe = time::timeout(Duration::from_secs(5), admin.get("/healthz"));
    assert_eq!(probe.await.unwrap().0, 200);
    // The oldest made room.
    let mut byte = [0];
    let closed = idle[0].read(&mut byte);
    let closed = time::timeout(Duration::from_secs(5), closed).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test]
async fn it_stops_when_told_to() {
    let mut admin = Admin::start().await;
    let kept = admin.connect().await;
    assert_eq!(admin.get("/healthz").await.0, 200);
    drop(admin.stop.take());
    let stopped = time::timeout(Duration::from_secs(10), &mut admin.served);
    stopped.await.unwrap().unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err());
    drop(kept);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let (near, far) = tokio::io::duplex(16);
    let mut near = Patience::new(near, Duration::from_millis(20));
    near.write_all(&[0; 16]).await.unwrap();
    let stalled = near.write_all(&[0; 16]).await;
    assert_eq!(stalled.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    drop(far);
}
