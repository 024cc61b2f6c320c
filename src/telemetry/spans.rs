//! Spans of requests, as OpenTelemetry knows them: what a collector shows beside those of the
//! servers behind.
//!
//! A worker writes a span down in the form in which it is sent (OTLP 1.x, JSON) and puts it into a
//! bounded queue. It never waits: what has no room is dropped, and counted by whoever owns the
//! queue. Sending is the control plane's work.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;

/// Spans that wait to be sent: some megabytes at most.
const QUEUE: usize = 8192;

/// The longest text in a span, in bytes.
const LONGEST: usize = 1024;

/// Where spans are put. Clones put them into the same queue.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: mpsc::Sender<String>,
    dropped: Arc<AtomicU64>,
}

/// The other end of the queue.
#[derive(Debug)]
pub struct Inbox {
    /// Spans, each a JSON object.
    pub queue: mpsc::Receiver<String>,
    dropped: Arc<AtomicU64>,
}

/// A queue.
pub fn queue() -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let outbox = Outbox {
        queue: sender,
        dropped: Arc::clone(&dropped),
    };
    let inbox = Inbox {
        queue: receiver,
        dropped,
    };
    (outbox, inbox)
}

impl Outbox {
    /// Puts a span into the queue, if there is room.
    pub fn put(&self, span: &Span<'_>) {
        match self.queue.try_reserve() {
            Ok(room) => room.send(span.json()),
            Err(_) => _ = self.dropped.fetch_add(1, Relaxed),
        }
    }
}

impl Inbox {
    /// How many had no room since this was asked last.
    pub fn dropped(&self) -> u64 {
        self.dropped.swap(0, Relaxed)
    }
}

/// What one request was, by OpenTelemetry's conventions for servers of HTTP. Without the query: it
/// may hold secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span<'a> {
    /// 32 hexadecimal digits.
    pub trace: &'a [u8],
    /// 16 hexadecimal digits.
    pub id: &'a [u8],
    /// Of the span that this is part of; empty: of none.
    pub parent: &'a [u8],
    /// Since 1970.
    pub begin: Duration,
    /// How long it took.
    pub took: Duration,
    /// As it was sent.
    pub method: &'a [u8],
    /// Whether that is one of those that everybody knows.
    pub is_known: bool,
    /// `https` or `http`.
    pub scheme: &'a str,
    /// Without the query.
    pub path: &'a [u8],
    /// What the client asked for.
    pub host: &'a [u8],
    /// Who asked.
    pub client: &'a str,
    /// `HTTP/1.1`, …
    pub protocol: &'a str,
    /// The client's word on itself.
    pub user_agent: Option<&'a [u8]>,
    /// What was answered.
    pub status: u16,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's.
    pub sent: u64,
    /// The TLS version.
    pub tls: Option<&'a str>,
    /// Of the site.
    pub site: Option<&'a str>,
    /// The server behind.
    pub server: Option<&'a str>,
    /// Why it failed.
    pub error: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Value<'a> {
    StringValue(&'a str),
    /// The mapping of Protocol Buffers to JSON writes 64 bits as text.
    IntValue(String),
}

impl Span<'_> {
    /// As OTLP has it.
    fn json(&self) -> String {
        let mut out = String::with_capacity(1024);
        let text = |bytes| String::from_utf8_lossy(bytes);
        let (trace, id, parent) = (text(self.trace), text(self.id), text(self.parent));
        let (method, other) = match self.is_known {
            true => (text(self.method), None),
            false => ("_OTHER".into(), Some(text(self.method))),
        };
        let (begin, end) = (self.begin.as_nanos(), (self.begin + self.took).as_nanos());
        // Writing to a String cannot fail. Kind 2 is a server's.
        let _ = write!(
            out,
            r#"{{"traceId":"{trace}","spanId":"{id}","parentSpanId":"{parent}","name":"{}","kind":2,"startTimeUnixNano":"{begin}","endTimeUnixNano":"{end}","attributes":["#,
            if self.is_known { &*method } else { "HTTP" },
        );
        let mut first = true;
        let mut attribute = |key: &str, value: Value<'_>| {
            let value = match value {
                Value::StringValue(text) => Value::StringValue(cut(text)),
                number => number,
            };
            if let Ok(value) = serde_json::to_string(&value) {
                let comma = if std::mem::take(&mut first) { "" } else { "," };
                let _ = write!(out, r#"{comma}{{"key":"{key}","value":{value}}}"#);
            }
        };
        let number = |number: u64| Value::IntValue(number.to_string());
        attribute("http.request.method", Value::StringValue(&method));
        if let Some(other) = &other {
            attribute("http.request.method_original", Value::StringValue(other));
        }
        attribute("http.response.status_code", number(self.status.into()));
        attribute("http.request.body.size", number(self.received));
        attribute("http.response.body.size", number(self.sent));
        let (host, path) = (text(self.host), text(self.path));
        let agent = self.user_agent.map(text);
        let version = self.protocol.strip_prefix("HTTP/");
        let version = version.map(|version| version.strip_suffix(".0").unwrap_or(version));
        let failed = match (self.error, self.status) {
            (Some(error), _) => Some(error.to_owned()),
            (None, status @ 500..) => Some(status.to_string()),
            _ => None,
        };
        for (key, value) in [
            ("url.scheme", Some(self.scheme)),
            ("url.path", Some(&*path)),
            ("server.address", Some(&*host)),
            ("client.address", Some(self.client)),
            ("network.protocol.name", version.map(|_| "http")),
            ("network.protocol.version", version),
            ("user_agent.original", agent.as_deref()),
            ("tls.protocol.version", self.tls),
            ("error.type", failed.as_deref()),
            ("staunch.site", self.site),
            ("staunch.upstream.server", self.server),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                attribute(key, Value::StringValue(value));
            }
        }
        out.push_str(r#"],"status":{"#);
        // Code 2 is an error; what a client did wrong is none of a server's.
        if self.status >= 500 {
            out.push_str(r#""code":2"#);
        }
        out.push_str("}}");
        out
    }
}

/// The beginning of a text.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Spans as they are sent together: `ExportTraceServiceRequest`.
pub fn request(service: &str, version: &str, spans: &[String]) -> String {
    let length: usize = spans.iter().map(|span| span.len() + 1).sum();
    let mut out = String::with_capacity(length + 512);
    let service = serde_json::Value::from(service);
    let _ = write!(
        out,
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":{service}}}}}]}},"scopeSpans":[{{"scope":{{"name":"staunch","version":"{version}"}},"spans":["#
    );
    for (at, span) in spans.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(span);
    }
    out.push_str("]}]}]}");
    out
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn span<'a>() -> Span<'a> {
        Span {
            trace: b"4bf92f3577b34da6a3ce929d0e0e4736",
            id: b"00f067aa0ba902b7",
            begin: Duration::from_nanos(1_700_000_000_000_000_001),
            took: Duration::from_nanos(5),
            method: b"GET",
            is_known: true,
            scheme: "https",
            path: b"/a\"\x01\xff",
            host: b"a.test",
            client: "192.0.2.1",
            protocol: "HTTP/2.0",
            status: 200,
            ..Span::default()
        }
    }

    fn attribute<'v>(span: &'v Value, key: &str) -> &'v Value {
        let all = span["attributes"].as_array().unwrap();
        let found = all.iter().find(|attribute| attribute["key"] == key);
        found.map_or(&Value::Null, |found| &found["value"])
    }

    #[test]
    fn a_span_is_json_whatever_a_client_sent() {
        let long = "x".repeat(5000);
        let written = Span {
            user_agent: Some(long.as_bytes()),
            ..span()
        };
        let json: Value = serde_json::from_str(&written.json()).unwrap();
        assert_eq!(json["startTimeUnixNano"], "1700000000000000001");
        assert_eq!(json["endTimeUnixNano"], "1700000000000000006");
        assert_eq!(
            attribute(&json, "url.path")["stringValue"],
            "/a\"\u{1}\u{fffd}"
        );
        assert_eq!(
            attribute(&json, "network.protocol.version")["stringValue"],
            "2"
        );
        assert_eq!(
            attribute(&json, "http.response.status_code")["intValue"],
            "200"
        );
        let agent = attribute(&json, "user_agent.original")["stringValue"].as_str();
        assert_eq!(agent.unwrap().len(), LONGEST);
        assert_eq!(json["status"], serde_json::json!({}));
        assert!(attribute(&json, "error.type").is_null());
    }

    #[test]
    fn a_failure_of_ours_is_an_error_and_an_unknown_method_is_not_a_name() {
        let failed = Span {
            method: b"FROB",
            is_known: false,
            status: 502,
            ..span()
        };
        let json: Value = serde_json::from_str(&failed.json()).unwrap();
        assert_eq!(json["status"]["code"], 2);
        assert_eq!(json["name"], "HTTP");
        assert_eq!(
            attribute(&json, "http.request.method")["stringValue"],
            "_OTHER"
        );
        assert_eq!(attribute(&json, "error.type")["stringValue"], "502");
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let (outbox, mut inbox) = queue();
        for _ in 0..QUEUE + 3 {
            outbox.put(&span());
        }
        assert_eq!((inbox.dropped(), inbox.dropped()), (3, 0));
        let spans = [
            inbox.queue.try_recv().unwrap(),
            inbox.queue.try_recv().unwrap(),
        ];
        let all: Value = serde_json::from_str(&request("a \"b\"", "1", &spans)).unwrap();
        let scope = &all["resourceSpans"][0]["scopeSpans"][0];
        assert_eq!(scope["spans"].as_array().unwrap().len(), 2);
    }
}
