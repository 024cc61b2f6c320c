//! Clients that ask all the time while something else happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Connection, H2, HOST, Staunch, Tls, block_on, until};

/// Between two requests of one client: enough to be in the middle of things at any moment, and to
/// leave other tests their share of the machine.
const PACE: Duration = Duration::from_millis(2);

/// Four clients, each of its own kind, asking [`HOST`] without a pause.
pub struct Traffic {
    requests: Arc<AtomicUsize>,
    stops: Vec<Sender<()>>,
    clients: Vec<JoinHandle<Report>>,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Report {
    pub requests: usize,
    pub handshakes: usize,
    /// What did not go as it should.
    pub failures: Vec<String>,
    /// Certificates that were served.
    pub leaves: BTreeSet<String>,
}

impl Traffic {
    /// Starts asking. The handshakes must verify: a key that is not the certificate's is a failure.
    pub fn start(proxy: &Staunch) -> Self {
        let tls = proxy.tls(HOST);
        let kinds = [kept_http1, new_http1, kept_http2, new_http2];
        let mut traffic = Self {
            requests: Arc::default(),
            stops: Vec::new(),
            clients: Vec::new(),
        };
        for kind in kinds {
            let (stop, stopped) = mpsc::channel();
            let tls = tls.clone();
            let requests = Arc::clone(&traffic.requests);
            traffic.stops.push(stop);
            traffic.clients.push(thread::spawn(move || {
                let mut report = Report::default();
                let mut go_on = || {
                    requests.fetch_add(1, Ordering::Relaxed);
                    stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout)
                };
                kind(&tls, &mut report, &mut go_on);
                report
            }));
        }
        traffic
    }

    /// Waits until so many more requests were made.
    #[track_caller]
    pub fn go_on_for(&self, requests: usize) {
        let now = self.requests.load(Ordering::Relaxed);
        until("more requests are made", || {
            self.requests.load(Ordering::Relaxed) >= now + requests
        });
    }

    /// Stops, and says what was seen.
    pub fn stop(self) -> Report {
        drop(self.stops);
        let mut sum = Report::default();
        for client in self.clients {
            let report = client.join().unwrap();
            assert!(report.requests > 0, "a client had no request answered");
            sum.requests += report.requests;
            sum.handshakes += report.handshakes;
            sum.failures.extend(report.failures);
            sum.leaves.extend(report.leaves);
        }
        sum
    }
}

impl Report {
    /// Fails if anything did.
    #[track_caller]
    pub fn assert_flawless(&self) {
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed: {:#?}",
            self.failures.len(),
            self.requests,
            &self.failures[..self.failures.len().min(10)]
        );
    }

    fn fail(&mut self, what: &str, error: impl std::fmt::Debug) {
        self.failures.push(format!("{what}: {error:?}"));
    }

    fn connected(&mut self, leaf: impl Into<String>) {
        self.handshakes += 1;
        self.leaves.insert(leaf.into());
    }

    /// Asks once; whether the connection can be used again.
    fn get(&mut self, what: &str, client: &mut Connection) -> bool {
        self.requests += 1;
        match client.try_get(HOST, "/") {
            Ok(response) if response.status == 200 => true,
            Ok(response) => {
                self.fail(what, response);
                false
            }
            Err(error) => {
                self.fail(what, error);
                false
            }
        }
    }
}

type GoOn<'a> = &'a mut dyn FnMut() -> bool;

fn kept_http1(tls: &Tls, report: &mut Report, go_on: GoOn<'_>) {
    let mut kept = None;
    while go_on() {
        let mut client = match kept.take() {
            Some(client) => client,
            None => match tls.try_connect() {
                Ok(client) => {
                    report.connected(client.leaf());
                    client
                }
                Err(error) => {
                    report.fail("kept HTTP/1.1: connect", error);
                    continue;
                }
            },
        };
        if report.get("kept HTTP/1.1", &mut client) {
            kept = Some(client);
        }
    }
    if report.handshakes > 1 {
        report.fail("kept HTTP/1.1", "the connection was not kept");
    }
}

fn new_http1(tls: &Tls, report: &mut Report, go_on: GoOn<'_>) {
    while go_on() {
        match tls.try_connect() {
            Ok(mut client) => {
                report.connected(client.leaf());
                report.get("new HTTP/1.1", &mut client);
            }
            Err(error) => report.fail("new HTTP/1.1: connect", error),
        }
    }
}

fn kept_http2(tls: &Tls, report: &mut Report, go_on: GoOn<'_>) {
    block_on_as_long_as_it_takes(async {
        let client = match H2::connect(tls).await {
            Ok(client) => client,
            Err(error) => return report.fail("kept HTTP/2: connect", error),
        };
        report.connected(client.leaf());
        while go_on() {
            ask_http2(report, "kept HTTP/2", &client).await;
        }
    });
}

fn new_http2(tls: &Tls, report: &mut Report, go_on: GoOn<'_>) {
    while go_on() {
        block_on(async {
            match H2::connect(tls).await {
                Ok(client) => {
                    report.connected(client.leaf());
                    ask_http2(report, "new HTTP/2", &client).await;
                }
                Err(error) => report.fail("new HTTP/2: connect", error),
            }
        });
    }
}

async fn ask_http2(report: &mut Report, what: &str, client: &H2) {
    report.requests += 1;
    match client.get(HOST, "/").await {
        Ok(response) if response.status == 200 => {}
        Ok(response) => report.fail(what, response),
        Err(error) => report.fail(what, error),
    }
}

fn block_on_as_long_as_it_takes<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
