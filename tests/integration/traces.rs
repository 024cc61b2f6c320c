//! Spans of requests, as a collector of traces receives them.

use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{Connection, HOST, Origin, Port, Site, Staunch, TestCa, eventually, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What a collector was sent: the fields of each request, and its body.
type Received = Arc<Mutex<Vec<(String, Value)>>>;

/// A collector that answers with this status, unless it is asked twice.
fn collector(first: u16) -> (Origin, Received) {
    let received = Received::default();
    let into = Arc::clone(&received);
    let origin = Origin::plan("collector")
        .route("/v1/traces", move |exchange| {
            let (body, _) = exchange.body()?;
            let shown = String::from_utf8_lossy(&exchange.request.head).into_owned();
            let json = serde_json::from_slice(&body).expect("JSON");
            let mut received = into.lock().unwrap();
            received.push((shown, json));
            let status = if received.len() == 1 { first } else { 200 };
            drop(received);
            exchange.respond(status, "Content-Type: application/json\r\n", b"{}")
        })
        .start();
    (origin, received)
}

/// All spans that arrived.
fn spans(received: &Received) -> Vec<Value> {
    let mut all = Vec::new();
    for (_, body) in received.lock().unwrap().iter() {
        let resource = &body["resourceSpans"][0];
        let name = &resource["resource"]["attributes"][0];
        assert_eq!(name["key"], "service.name");
        assert_eq!(name["value"]["stringValue"], "edge");
        let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
        all.extend(spans.iter().cloned());
    }
    all
}

fn attribute<'v>(span: &'v Value, key: &str) -> &'v str {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|it| it["key"] == key);
    let value = found.map_or(&Value::Null, |it| &it["value"]);
    (value["stringValue"].as_str())
        .or_else(|| value["intValue"].as_str())
        .unwrap_or_default()
}

fn ask(client: &mut Connection, target: &str, fields: &str) -> u16 {
    client.ask("GET", HOST, target, fields).unwrap();
    client.read("GET").status
}

#[test]
fn a_request_is_a_span_between_the_clients_and_the_servers() {
    let (collector, received) = collector(200);
    let origin = Origin::echo();
    let site = Site::new(&[HOST], &origin.url())
        .also("[[site.route]]\npath = '/down/'\nupstream = 'http://127.0.0.1:1'\n")
        .also("[[site.route]]\npath = '/quiet/'\ntrace_context = 'off'\n");
    let builder = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site);
    let token = builder.path("token");
    fs::write(&token, "hunter2\n").unwrap();
    let proxy = builder
        .set("traces.endpoint", format!("{:?}", collector.url()))
        .set("traces.service", "'edge'")
        .set("traces.token_file", format!("{token:?}"))
        .start();
    let mut client = proxy.connect();
    let fields =
        format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=b\r\nUser-Agent: me\r\n");
    assert_eq!(ask(&mut client, "/x?secret=1", &fields), 200);
    let told = origin.last().field("traceparent").to_owned();
    assert_eq!(origin.last().field("tracestate"), "a=b");
    // Not sampled by whoever began it, and not traced at all.
    let fields = format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n");
    assert_eq!(ask(&mut client, "/not-sampled", &fields), 200);
    assert!(origin.last().field("traceparent").ends_with("-00"));
    assert_eq!(ask(&mut client, "/quiet/", ""), 200);
    assert!(origin.last().all("traceparent").is_empty());
    assert_eq!(ask(&mut client, "/down/", ""), 502);

    let all = eventually("both spans arrive", || {
        Some(spans(&received)).filter(|spans| spans.len() >= 2)
    });
    assert_eq!(all.len(), 2, "{all:#?}");
    let find = |path: &str| all.iter().find(|span| attribute(span, "url.path") == path);
    let span = find("/x").unwrap();
    assert_eq!(span["traceId"], TRACE);
    assert_eq!(span["parentSpanId"], PARENT);
    let id = span["spanId"].as_str().unwrap();
    assert_eq!(told, format!("00-{TRACE}-{id}-01"));
    assert!(id != PARENT && id.len() == 16);
    assert_eq!(span["kind"], 2);
    let time = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    assert!(time("startTimeUnixNano") < time("endTimeUnixNano"));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("server.address", HOST),
        ("client.address", "127.0.0.1"),
        ("url.scheme", "https"),
        ("network.protocol.version", "1.1"),
        ("tls.protocol.version", "1.3"),
        ("user_agent.original", "me"),
        ("staunch.upstream.server", &origin.url()),
        ("staunch.site", HOST),
        ("error.type", ""),
    ] {
        assert_eq!(attribute(span, key), value, "{key}");
    }
    assert!(!span.to_string().contains("secret"));
    let failed = find("/down/").unwrap();
    assert_eq!(failed["parentSpanId"], "");
    assert_eq!(failed["status"]["code"], 2);
    assert_eq!(attribute(failed, "error.type"), "upstream_connect");
    let (head, _) = received.lock().unwrap()[0].clone();
    assert!(head.contains("Bearer hunter2"), "{head}");
    assert!(!proxy.log().contains("hunter2"));
    until("they are counted", || {
        proxy.count("staunch_spans_total", &[("outcome", "sent")]) == 2.0
    });
}

#[test]
fn a_collector_that_is_away_holds_up_nobody_and_is_asked_again() {
    let (collector, received) = collector(503);
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("traces.endpoint", format!("{:?}", collector.url()))
        .set("traces.service", "'edge'")
        .start();
    assert_eq!(ask(&mut proxy.connect(), "/", ""), 200);
    until("it is sent again", || {
        proxy.count("staunch_spans_total", &[("outcome", "sent")]) == 1.0
    });
    assert_eq!(received.lock().unwrap().len(), 2);
    proxy.wait_log("spans could not be sent");
}

#[test]
fn the_last_spans_are_sent_at_the_end_and_a_reload_begins_and_ends_it() {
    let (collector, received) = collector(200);
    let origin = Origin::echo();
    let mut proxy = Staunch::serving(&origin).start();
    assert_eq!(ask(&mut proxy.connect(), "/before", ""), 200);
    assert!(origin.last().all("traceparent").is_empty());
    proxy.reconfigure(|builder| {
        builder.change("traces.endpoint", format!("{:?}", collector.url()));
        builder.change("traces.service", "'edge'");
    });
    proxy.reload().expect(200);
    assert_eq!(ask(&mut proxy.connect(), "/after", ""), 200);
    proxy.term();
    assert!(proxy.wait_exit().success());
    let all = spans(&received);
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(attribute(&all[0], "url.path"), "/after");
}

#[test]
fn nobody_there_costs_no_request() {
    let origin = Origin::echo();
    let nobody = Port::free();
    let proxy = Staunch::serving(&origin)
        .set(
            "traces.endpoint",
            format!("\"http://{}\"", nobody.address()),
        )
        .start();
    let mut client = proxy.connect();
    for _ in 0..20 {
        assert_eq!(ask(&mut client, "/", ""), 200);
    }
    proxy.term();
    assert!(proxy.wait_exit().success());
}

#[test]
fn a_reload_that_waits_for_the_disk_holds_up_neither_spans_nor_health() {
    let (collector, received) = collector(200);
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("traces.endpoint", format!("{:?}", collector.url()))
        .set("traces.service", "'edge'")
        .start();
    let _silent = proxy.reload_without_end();
    proxy.get("/").expect(200);
    until("the span arrives", || !spans(&received).is_empty());
    proxy.admin_get("/healthz").expect(200);
}
