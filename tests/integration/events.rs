//! Server-sent events: each is with the client before there is a next one.

use crate::support::h2::request;
use crate::support::{Exchange, Gate, H2, HOST, Origin, Staunch, block_on};

const EVENTS: usize = 20;

/// Sends an event, waits until the test has seen it, and so on.
fn origin(gates: &[Gate]) -> Origin {
    let gates = gates.to_vec();
    let send = move |exchange: &mut Exchange<'_>| {
        exchange.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        )?;
        for (number, gate) in gates.iter().enumerate() {
            let event = format!("data: {number}\n\n");
            exchange.send(format!("{:x}\r\n{event}\r\n", event.len()))?;
            gate.pass();
        }
        exchange.send("0\r\n\r\n")
    };
    Origin::plan("origin").route("/", send).start()
}

fn gates() -> Vec<Gate> {
    (0..EVENTS).map(|_| Gate::new()).collect()
}

#[test]
fn each_event_comes_by_itself_over_http_1_1() {
    let gates = gates();
    let origin = origin(&gates);
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask("GET", HOST, "/", "Accept: text/event-stream\r\n")
        .unwrap();
    client.incoming().response_head().unwrap().expect(200);
    for (number, gate) in gates.iter().enumerate() {
        let event = format!("data: {number}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let came = client.incoming().exactly(chunk.len()).unwrap();
        assert_eq!(String::from_utf8_lossy(&came), chunk);
        gate.open();
    }
    assert_eq!(client.incoming().exactly(5).unwrap(), b"0\r\n\r\n");
}

#[test]
fn each_event_comes_by_itself_over_http_2() {
    let gates = gates();
    let origin = origin(&gates);
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut ready = client.send.clone().ready().await.unwrap();
        let ask = request(http::Method::GET, HOST, "/");
        let (response, _) = ready.send_request(ask, true).unwrap();
        let mut stream = response.await.unwrap().into_body();
        for (number, gate) in gates.iter().enumerate() {
            let data = stream.data().await.unwrap().unwrap();
            assert_eq!(data, format!("data: {number}\n\n"));
            stream.flow_control().release_capacity(data.len()).unwrap();
            gate.open();
        }
        while let Some(data) = stream.data().await {
            assert!(data.unwrap().is_empty());
        }
    });
}
