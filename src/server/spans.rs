//! Sends spans of requests to a collector of traces: OTLP over HTTP, in JSON.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Uri};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::Server;
use crate::alert::http::{Client, HttpError};
use crate::alert::sink::error::SecretError;
use crate::alert::sink::secret;
use crate::config::Traces;
use crate::metrics::{SpanOutcome, Spans};
use crate::telemetry::Throttle;
use crate::telemetry::spans::{Inbox, request};

/// Spans that are sent together.
const MOST: usize = 512;
/// How long they are gathered.
const GATHER: Duration = Duration::from_secs(2);
/// How long a collector may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long is waited before each further try. Meanwhile the queue fills.
const PAUSES: [u64; 4] = [1, 2, 4, 8];
/// How long the last ones may take, when staunch ends.
const LAST: Duration = Duration::from_secs(3);

/// The task that sends.
pub struct Sending {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sending {
    /// Sends what is left, and ends.
    pub async fn end(self) {
        let _ = self.end.send(());
        let _ = timeout(LAST, self.task).await;
    }
}

/// Begins to send what workers have put into the queue. Once for each server.
pub fn start(server: &Arc<Server>) -> Option<Sending> {
    let inbox = server.inbox.lock();
    let inbox = inbox.unwrap_or_else(PoisonError::into_inner).take()?;
    let (end, ended) = oneshot::channel();
    let mut exporter = Exporter {
        server: Arc::clone(server),
        client: Client::new(),
        counts: Spans::new(&server.registry),
        throttle: Throttle::new(1, Duration::from_secs(60)),
        inbox,
        batch: Vec::new(),
    };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = exporter.run() => {}
            _ = ended => exporter.last().await,
        }
    });
    Some(Sending { end, task })
}

struct Exporter {
    server: Arc<Server>,
    client: Client,
    counts: Spans,
    throttle: Throttle,
    inbox: Inbox,
    /// Taken from there, and not sent yet.
    batch: Vec<String>,
}

/// Why spans did not arrive.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("there is no answer after {}s", ANSWER.as_secs())]
    Timeout,
}

impl Exporter {
    async fn run(&mut self) {
        loop {
            self.inbox.queue.recv_many(&mut self.batch, MOST).await;
            let gathering = async {
                while self.batch.len() < MOST {
                    let room = MOST - self.batch.len();
                    self.inbox.queue.recv_many(&mut self.batch, room).await;
                }
            };
            let _ = timeout(GATHER, gathering).await;
            self.deliver(&self.batch, &PAUSES).await;
            self.batch.clear();
        }
    }

    /// Sends what is left, with one try.
    async fn last(mut self) {
        let mut spans = std::mem::take(&mut self.batch);
        while let Ok(span) = self.inbox.queue.try_recv() {
            spans.push(span);
        }
        for spans in spans.chunks(MOST) {
            self.deliver(spans, &[]).await;
        }
    }

    async fn deliver(&self, spans: &[String], pauses: &[u64]) {
        let count = spans.len() as u64;
        self.counts.add(SpanOutcome::Dropped, self.inbox.dropped());
        let mut pauses = pauses.iter();
        loop {
            // As it is configured now.
            let Some(traces) = self.server.config().traces.clone() else {
                return self.counts.add(SpanOutcome::Dropped, count);
            };
            let failure = match self.send(&traces, spans).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.counts.add(SpanOutcome::Sent, count - rejected);
                    return self.counts.add(SpanOutcome::Rejected, rejected);
                }
                Err(failure) => failure,
            };
            if let Some(suppressed) = self.throttle.allow() {
                warn!(error = %failure, suppressed, "spans could not be sent; see traces.endpoint \
                     and whether the collector listens there for OTLP over HTTP");
            }
            if matches!(&failure, Failure::Http(error) if error.is_permanent()) {
                return self.counts.add(SpanOutcome::Rejected, count);
            }
            match pauses.next() {
                Some(pause) => sleep(Duration::from_secs(*pause)).await,
                None => return self.counts.add(SpanOutcome::Dropped, count),
            }
        }
    }

    /// Sends them once; how many the collector did not want.
    async fn send(&self, traces: &Traces, spans: &[String]) -> Result<u64, Failure> {
        let body = request(&traces.service, env!("CARGO_PKG_VERSION"), spans);
        let mut request = Request::post(&*address(&traces.endpoint))
            .header(CONTENT_TYPE, "application/json")
            .body(Bytes::from(body))
            .map_err(|_| HttpError::Url("it is malformed"))?;
        if let Some(token) = &traces.token {
            let token = secret::read(token).await?;
            let (name, text) = match &traces.header {
                Some(name) => (HeaderName::from_bytes(name.as_bytes()).ok(), token),
                None => (Some(AUTHORIZATION), format!("Bearer {token}")),
            };
            let value = HeaderValue::from_str(&text).ok();
            let (Some(name), Some(mut value)) = (name, value) else {
                let what = "its token holds characters that no field may";
                return Err(HttpError::Url(what).into());
            };
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        match timeout(ANSWER, self.client.send(request)).await {
            Ok(answer) => Ok(rejected(&answer?)),
            Err(_) => Err(Failure::Timeout),
        }
    }
}

/// Where spans go: the path that the specification has, unless another is written.
fn address(endpoint: &str) -> String {
    let has_path = |uri: Uri| uri.path_and_query().is_some_and(|path| path != "/");
    match endpoint.parse().is_ok_and(has_path) {
        true => endpoint.to_owned(),
        false => format!("{}/v1/traces", endpoint.trim_end_matches('/')),
    }
}

/// How many the collector says that it did not take (`ExportTracePartialSuccess`). Sixty-four bits
/// are text there, though not everybody writes them so.
fn rejected(answer: &[u8]) -> u64 {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let count = &answer["partialSuccess"]["rejectedSpans"];
    let text = count.as_str().and_then(|count| count.parse().ok());
    text.or_else(|| count.as_u64()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_specification_is_added_where_there_is_none() {
        for (endpoint, expected) in [
            ("http://c.test:4318", "http://c.test:4318/v1/traces"),
            ("http://c.test:4318/", "http://c.test:4318/v1/traces"),
            ("https://c.test/otlp/x", "https://c.test/otlp/x"),
        ] {
            assert_eq!(address(endpoint), expected);
        }
    }

    #[test]
    fn what_a_collector_did_not_take_is_counted() {
        for (answer, expected) in [
            ("{}", 0),
            ("", 0),
            ("{\"partialSuccess\":{\"rejectedSpans\":\"3\"}}", 3),
            ("{\"partialSuccess\":{\"rejectedSpans\":4}}", 4),
        ] {
            assert_eq!(rejected(answer.as_bytes()), expected, "{answer}");
        }
    }
}
