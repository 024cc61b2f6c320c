//! Each sink against a real listener, well behaved and not.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustls::RootCertStore;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::alert::testing::{FINE, Listener, Manner, day, told, until};
use crate::config::{Secret, Severity, WebhookFormat};

fn now() -> Timestamp {
    day(20_000)
}

fn webhook(url: &str, format: WebhookFormat, token: Option<Secret>) -> Sink {
    let url = url.into();
    Sink::new(&SinkKind::Webhook { url, format, token }, &Client::new())
}

async fn send(sink: &Sink) -> Result<(), SinkError> {
    sink.send(&told("/etc/ssl/a.pem", Severity::Critical), now())
        .await
}

/// What the sink says of a listener with these manners.
async fn failure(manner: Manner) -> SinkError {
    let listener = Listener::start(manner).await;
    send(&webhook(&listener.url, WebhookFormat::Json, None))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_webhook_gets_the_object_of_the_interface() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let mut listener = Listener::start(FINE).await;
    let url = format!("{}/alerts?to=us", listener.url);
    send(&webhook(
        &url,
        WebhookFormat::Json,
        Some(Secret::File(token)),
    ))
    .await
    .unwrap();
    let asked = listener.asked().await;
    let head = asked.head.to_ascii_lowercase();
    assert!(
        head.starts_with("post /alerts?to=us http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!(
        "host: {}\r\n",
        listener.url.replace("http://", "")
    )));
    assert!(head.contains("authorization: bearer hunter2\r\n"));
    assert!(head.contains("content-type: application/json\r\n"));
    let fields: Vec<&str> = asked
        .body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for field in [
        "condition",
        "severity",
        "status",
        "subject",
        "since",
        "summary",
        "next_step",
        "runbook",
        "drill",
        "labels",
    ] {
        assert!(fields.contains(&field), "no {field} in {fields:?}");
    }
    assert_eq!(asked.body["condition"], "expired");
    assert_eq!(asked.body["status"], "firing");
    assert_eq!(asked.body["drill"], false);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_told_without_its_path() {
    let mut elsewhere = Listener::start(FINE).await;
    let to = format!("301 Moved\r\nlocation: {}/login?SECRET", elsewhere.url);
    let error = failure(Manner::Says(to.leak(), "")).await;
    assert!(error.is_permanent());
    let words = error.to_string();
    assert!(words.contains("redirects are not followed"), "{words}");
    assert!(
        words.contains(&elsewhere.url) && !words.contains("SECRET"),
        "{words}"
    );
    assert!(elsewhere.asked_already().is_none());
}

#[tokio::test]
async fn garbage_failures_and_endless_bodies_are_failures_in_words() {
    let garbage = failure(Manner::Garbage).await;
    assert!(
        garbage.to_string().contains("no usable answer"),
        "{garbage}"
    );
    assert!(!garbage.is_permanent());
    let endless = failure(Manner::Endless).await.to_string();
    assert!(endless.contains("500") && endless.len() < 1000, "{endless}");
    let busy = failure(Manner::Says("503 Busy", "later\x1b[2J")).await;
    assert!(!busy.is_permanent());
    assert!(
        busy.to_string()
            .ends_with("503 Service Unavailable: later\\u{1b}[2J"),
        "{busy}"
    );
    assert!(failure(Manner::Says("404 Gone", "")).await.is_permanent());
    assert!(!failure(Manner::Says("429 Slowly", "")).await.is_permanent());
    let nobody = send(&webhook("http://127.0.0.1:1/", WebhookFormat::Json, None)).await;
    assert!(
        nobody
            .unwrap_err()
            .to_string()
            .contains("no connection to http://127.0.0.1:1")
    );
}

#[tokio::test]
async fn over_tls_only_the_trusted_are_told() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(tcp).await {
                let mut tls = BufReader::new(tls);
                let _ = tls.write_all(b"HTTP/1.1 204 Fine\r\n\r\n").await;
                let _ = tls.shutdown().await;
            }
        }
    });
    let kind = SinkKind::Heartbeat {
        url: url.into(),
        every: Duration::from_secs(60),
    };
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let trusting = Sink::new(&kind, &Client::with_roots(roots).unwrap());
    trusting.sustain(&[], now()).await.unwrap();
    let strict = Sink::new(&kind, &Client::with_roots(RootCertStore::empty()).unwrap());
    let error = strict.sustain(&[], now()).await.unwrap_err();
    assert!(
        error.to_string().contains("no TLS with https://localhost"),
        "{error}"
    );
}

/// A server for mail, as far as one is needed, with its answer to `RCPT`. Returns its port and what it is given.
async fn mail_server(
    to_recipients: &'static str,
) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, given) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut mail = String::new();
                let mut in_data = false;
                stream.write_all(b"220 mail.test\r\n").await.unwrap();
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    mail += &line;
                    let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
                    let answer = match (in_data, &*verb) {
                        (true, _) if line == ".\r\n" => {
                            in_data = false;
                            tell.send(std::mem::take(&mut mail)).unwrap();
                            "250 taken\r\n"
                        }
                        (true, _) => continue,
                        (false, "DATA") => {
                            in_data = true;
                            "354 go on\r\n"
                        }
                        (false, "RCPT") => to_recipients,
                        (false, "QUIT") => "221 bye\r\n",
                        _ => "250 fine\r\n",
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (port, given)
}

fn email(server: String) -> Sink {
    let kind = SinkKind::Email {
        server: server.into(),
        from: "staunch <staunch@example.com>".into(),
        to: vec![
            "ops@example.com".into(),
            "Night Shift <night@example.com>".into(),
        ],
        username: None,
        password: None,
    };
    Sink::new(&kind, &Client::new())
}

#[tokio::test]
async fn a_mail_says_what_a_person_needs() {
    let (port, mut given) = mail_server("250 fine\r\n").await;
    send(&email(format!("smtp://127.0.0.1:{port}")))
        .await
        .unwrap();
    let mail = given.recv().await.unwrap();
    for line in [
        "RCPT TO:<ops@example.com>",
        "RCPT TO:<night@example.com>",
        "Subject: [CRITICAL] certificate EXPIRED: /etc/ssl/a.pem",
        "Auto-Submitted: auto-generated",
        "It expired.",
        "What to do: Renew it.",
        "since: 2024-10-04T00:00:00Z",
    ] {
        assert!(
            mail.contains(&format!("{line}\r\n")),
            "no {line:?} in\n{mail}"
        );
    }
}

#[tokio::test]
async fn a_mail_that_is_refused_is_refused_for_good_and_the_servers_words_are_told() {
    let refused = async |answer| {
        let (port, _given) = mail_server(answer).await;
        let sent = send(&email(format!("smtp://127.0.0.1:{port}"))).await;
        sent.unwrap_err()
    };
    let error = refused("550 nobody of that name\r\n").await;
    assert!(error.to_string().contains("nobody of that name"), "{error}");
    assert!(error.is_permanent() && !error.blames_what_was_sent());
    assert!(refused("552 too large\r\n").await.blames_what_was_sent());
    assert!(!refused("452 full\r\n").await.blames_what_was_sent());
    let nowhere = send(&email("pigeon://loft".into())).await.unwrap_err();
    assert!(nowhere.to_string().contains("smtp://host:port"));
    assert!(!nowhere.blames_what_was_sent());
}

#[tokio::test]
async fn a_password_does_not_go_out_in_the_clear() {
    // Leads to this machine, and does not look like it.
    let (port, mut given) = mail_server("250 fine\r\n").await;
    let kind = SinkKind::Email {
        server: format!("smtp://0.0.0.0:{port}").into(),
        from: "a@example.com".into(),
        to: vec!["b@example.com".into()],
        username: Some("u".into()),
        password: Some(Secret::Environment("PATH".into())),
    };
    let error = send(&Sink::new(&kind, &Client::new()))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("STARTTLS"), "{error}");
    assert!(given.try_recv().is_err());
}

fn command(argv: &[&str]) -> Sink {
    let argv = argv.iter().map(|it| (*it).into()).collect();
    Sink::new(&SinkKind::Command { argv }, &Client::new())
}

#[tokio::test]
async fn a_command_gets_the_alert_on_its_standard_input_and_no_shell() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("it is $(here)");
    let out = out.to_str().unwrap();
    send(&command(&["tee", out])).await.unwrap();
    let alert: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out).unwrap()).unwrap();
    assert_eq!(alert["subject"], "/etc/ssl/a.pem");
}

#[tokio::test]
async fn a_command_that_fails_says_why_within_bounds() {
    let script = "echo no such pager >&2; head -c 100000 /dev/zero | tr '\\0' x; exit 3";
    let error = send(&command(&["/bin/sh", "-c", script]))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("exit status: 3: no such pager"), "{error}");
    assert!(error.len() < 4096);
    let nothing = send(&command(&["/no/such/program"]))
        .await
        .unwrap_err()
        .to_string();
    assert!(nothing.contains("did not start"), "{nothing}");
    // One that does not read its input, and one that says much, are none the worse for it.
    send(&command(&["true"])).await.unwrap();
    send(&command(&["/bin/sh", "-c", "head -c 1000000 /dev/zero"]))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    let sink = command(&["/bin/sh", "-c", &script]);
    let gone = {
        let attempt = send(&sink);
        tokio::pin!(attempt);
        let written = async {
            until(|| std::fs::read_to_string(&pid).is_ok_and(|it| it.ends_with('\n'))).await;
        };
        tokio::select! {
            _ = &mut attempt => panic!("it should hang"),
            () = written => {}
        }
        std::fs::read_to_string(&pid).unwrap().trim().to_owned()
    };
    let stat = format!("/proc/{gone}/stat");
    // Gone, or dead and not yet waited for by whoever inherited it.
    until(|| std::fs::read_to_string(&stat).map_or(true, |it| it.contains(") Z "))).await;
}

/// A real Alertmanager on a port of its own, ended when dropped.
struct RealAlertmanager {
    child: tokio::process::Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl RealAlertmanager {
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("alertmanager.yml");
        std::fs::write(
            &config,
            "route: {receiver: none}\nreceivers: [{name: none}]\n",
        )
        .unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = tokio::process::Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.path().display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let url = format!("http://127.0.0.1:{port}");
        Some(Self {
            child,
            url,
            _folder: folder,
        })
    }

    /// The names of the alerts it has, once it answers.
    async fn alerts(&mut self) -> Vec<String> {
        let url = format!("{}/api/v2/alerts", self.url);
        loop {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "Alertmanager ended"
            );
            let request = http::Request::get(&url).body(bytes::Bytes::new()).unwrap();
            if let Ok(answer) = Client::new().send(request).await {
                let alerts: serde_json::Value = serde_json::from_slice(&answer).unwrap();
                let alerts = alerts.as_array().unwrap().iter();
                return alerts
                    .map(|it| it["labels"]["subject"].as_str().unwrap().into())
                    .collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_real_alertmanager_takes_an_alert_and_its_resolution() {
    let Some(mut real) = RealAlertmanager::start().await else {
        eprintln!(
            "skipped: prometheus-alertmanager (Debian's package of that name) is not in PATH"
        );
        return;
    };
    let path = Path::new("/etc/ssl/é \"quoted\".pem");
    let clock = crate::clock::Clock::system();
    let kind = SinkKind::Alertmanager {
        url: format!("{}/", real.url).into(),
        token: None,
    };
    let sink = Sink::new(&kind, &Client::new());
    assert_eq!(
        timeout(Duration::from_secs(30), real.alerts())
            .await
            .unwrap(),
        [""; 0]
    );
    let mut one = told(path.to_str().unwrap(), Severity::Critical);
    sink.send(&one, clock.now()).await.unwrap();
    assert_eq!(real.alerts().await, [path.to_str().unwrap()]);
    sink.sustain(std::slice::from_ref(&one.alert), clock.now())
        .await
        .unwrap();
    assert_eq!(real.alerts().await.len(), 1, "the same alert, not another");
    one.alert = one.alert.resolved(clock.now().plus(-1));
    sink.send(&one, clock.now()).await.unwrap();
    assert_eq!(real.alerts().await, [""; 0]);
}
