//! HTTP/2 towards clients (RFC 9113).

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::support::h2::{read, request};
use crate::support::{Gate, H2, HOST, Origin, Staunch, block_on, until};

#[test]
fn a_request_is_answered() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let response = client.get(HOST, "/a?b=c").await.unwrap();
        assert_eq!(response.status, 200);
        let echo = crate::support::json(&response.body);
        assert_eq!(echo["target"], "/a?b=c");
        assert!(!response.headers.contains_key("connection"));
    });
    let request = origin.last();
    assert_eq!(request.field("host"), HOST);
    assert_eq!(request.field("x-forwarded-proto"), "https");
    assert_eq!(request.field("x-forwarded-for"), "127.0.0.1");
}

#[test]
fn a_body_of_known_length_keeps_its_length() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut request = request(Method::POST, HOST, "/");
        request.headers_mut().insert("content-length", 5.into());
        let body = Bytes::from_static(b"hello");
        let response = client.request(request, body, None).await.unwrap();
        assert_eq!(crate::support::json(&response.body)["body"], "hello");
    });
    assert_eq!(origin.last().field("content-length"), "5");
}

#[test]
fn trailers_pass_both_ways() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            let (body, trailers) = exchange.body()?;
            assert_eq!(body, b"hello");
            assert_eq!(trailers, [("x-there".into(), "1".into())]);
            exchange.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Back\r\n\r\n\
                 3\r\nbye\r\n0\r\nX-Back: 2\r\n\r\n",
            )
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut request = request(Method::POST, HOST, "/");
        request
            .headers_mut()
            .insert("te", "trailers".parse().unwrap());
        let mut trailers = HeaderMap::new();
        trailers.insert("x-there", 1.into());
        let body = Bytes::from_static(b"hello");
        let response = client.request(request, body, Some(trailers)).await.unwrap();
        assert_eq!(response.body, "bye");
        assert_eq!(response.trailers.unwrap()["x-back"], "2");
    });
}

#[test]
fn a_response_to_head_has_a_length_and_no_body() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let request = request(Method::HEAD, HOST, "/");
        let response = client.request(request, Bytes::new(), None).await.unwrap();
        assert_eq!(response.status, 200);
        assert!(response.headers["content-length"].to_str().unwrap().len() > 1);
        assert!(response.body.is_empty());
        client.get(HOST, "/").await.unwrap();
    });
}

#[test]
fn early_hints_are_passed_on() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
            exchange.echo()
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    // The h2 client keeps interim responses to itself; curl shows them.
    let shown = proxy.curl(HOST, "/", &["--http2", "--include"]).ok();
    assert!(shown.starts_with("HTTP/2 103"), "{shown}");
    assert!(shown.contains("link: </a.css>"), "{shown}");
    assert!(shown.contains("HTTP/2 200"), "{shown}");
}

#[test]
fn many_streams_are_served_at_once() {
    const STREAMS: usize = 50;
    let all = Gate::new();
    let origin = Origin::plan("origin").gated("/", &all).start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut waiting = Vec::new();
        for number in 0..STREAMS {
            let mut ready = client.send.clone().ready().await.unwrap();
            let request = request(Method::GET, HOST, &format!("/{number}"));
            let (response, _) = ready.send_request(request, true).unwrap();
            waiting.push(tokio::spawn(response));
        }
        // None is answered before all are there: they do run at once.
        while origin.requests().len() < STREAMS {
            tokio::task::yield_now().await;
        }
        all.open();
        for response in waiting {
            let response = read(response.await.unwrap().unwrap()).await.unwrap();
            assert_eq!(response.status, 200);
        }
    });
}

#[test]
fn a_stream_that_waits_does_not_hold_up_another() {
    let gate = Gate::new();
    let origin = Origin::plan("origin").gated("/slow", &gate).start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut ready = client.send.clone().ready().await.unwrap();
        let (slow, _) = ready
            .send_request(request(Method::GET, HOST, "/slow"), true)
            .unwrap();
        assert_eq!(client.get(HOST, "/fast").await.unwrap().status, 200);
        gate.open();
        assert_eq!(slow.await.unwrap().status(), 200);
    });
}

#[test]
fn a_large_response_arrives_whole() {
    const SIZE: usize = 8 << 20;
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            let body: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
            exchange.respond(200, "", &body)
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let response = client.get(HOST, "/").await.unwrap();
        assert_eq!(response.body.len(), SIZE);
        let right = |(at, byte): (usize, &u8)| *byte == (at % 251) as u8;
        assert!(response.body.iter().enumerate().all(right));
    });
}

/// Nothing that a client says wakes the proxy in the middle of it.
#[test]
fn large_responses_arrive_whole_at_a_client_that_only_reads() {
    const STREAMS: usize = 8;
    const SIZE: usize = 16 << 20;
    let origin = Origin::plan("origin")
        .route("/", |exchange| exchange.respond(200, "", &vec![b'a'; SIZE]))
        .start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let mut settings = h2::client::Builder::new();
        settings
            .initial_window_size(1 << 30)
            .initial_connection_window_size(1 << 30);
        let client = H2::with(&proxy.tls(HOST), &settings).await.unwrap();
        let responses = (0..STREAMS).map(|_| client.get(HOST, "/"));
        for response in futures_util::future::join_all(responses).await {
            assert_eq!(response.unwrap().body.len(), SIZE);
        }
    });
}

#[test]
fn a_large_request_arrives_whole() {
    const SIZE: usize = 8 << 20;
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            let length = exchange.discard()?;
            exchange.respond(200, "", length.to_string().as_bytes())
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let body = Bytes::from(vec![b'a'; SIZE]);
        let request = request(Method::POST, HOST, "/");
        let response = client.request(request, body, None).await.unwrap();
        assert_eq!(response.body, SIZE.to_string());
    });
    assert_eq!(origin.last().field("transfer-encoding"), "chunked");
}

#[test]
fn many_small_messages_at_once_are_no_flood() {
    const COUNT: usize = 20_000;
    let gate = Gate::new();
    let origin = Origin::plan("origin")
        .route("/", {
            let gate = gate.clone();
            move |exchange| {
                // None of them is read before all were sent.
                gate.pass();
                let (body, _) = exchange.body()?;
                exchange.respond(200, "", body.len().to_string().as_bytes())
            }
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut ready = client.send.clone().ready().await.unwrap();
        let request = request(Method::POST, HOST, "/");
        let (response, mut send) = ready.send_request(request, false).unwrap();
        for number in 0..COUNT {
            let end = number + 1 == COUNT;
            send.send_data(Bytes::from_static(b"message."), end)
                .unwrap();
        }
        gate.open();
        let response = read(response.await.unwrap()).await.unwrap();
        assert_eq!(response.body, (8 * COUNT).to_string());
    });
}

#[test]
fn the_head_is_limited() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("limits.request_head", "\"8KiB\"")
        .start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut long = request(Method::GET, HOST, "/");
        let value = "a".repeat(16 << 10).parse().unwrap();
        long.headers_mut().insert("x-long", value);
        match client.request(long, Bytes::new(), None).await {
            Ok(response) => assert_eq!(response.status, 431),
            Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
        }
    });
    assert!(origin.requests().is_empty());
    proxy.get("/").expect(200);
}

#[test]
fn a_host_that_no_site_answers_to_is_misdirected() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let response = client.get("other.test", "/").await.unwrap();
        assert_eq!(response.status, 421);
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
    });
}

#[test]
fn a_drain_says_goaway_and_lets_the_stream_finish() {
    let gate = Gate::new();
    let origin = Origin::plan("origin")
        .route("/slow", {
            let gate = gate.clone();
            move |exchange| {
                gate.pass();
                exchange.respond(200, "", b"finished")
            }
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut ready = client.send.clone().ready().await.unwrap();
        let (slow, _) = ready
            .send_request(request(Method::GET, HOST, "/slow"), true)
            .unwrap();
        while origin.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        proxy.term();
        // After GOAWAY no more streams can be opened; before, they are served.
        while let Ok(more) = client.get(HOST, "/more").await {
            assert_eq!(more.status, 200);
        }
        gate.open();
        let response = read(slow.await.unwrap()).await.unwrap();
        assert_eq!(response.body, "finished");
        // It ends. That may be while the client still says something, which is then an error to it.
        let _ = client.driver.await.unwrap();
    });
    assert_eq!(proxy.wait_exit().code(), Some(0));
}

#[test]
fn a_client_that_resets_its_stream_lets_the_origin_know() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                exchange.send(["1000\r\n", &"a".repeat(4096), "\r\n"].concat())?;
            }
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut ready = client.send.clone().ready().await.unwrap();
        let (response, _) = ready
            .send_request(request(Method::GET, HOST, "/"), true)
            .unwrap();
        // Dropping a response that is not read to its end resets the stream.
        drop(response.await.unwrap());
        while origin.open() > 0 {
            tokio::task::yield_now().await;
        }
        drop(client);
    });
    until("the origin's connection is closed", || origin.open() == 0);
}
