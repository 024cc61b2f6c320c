//! Large bodies, streamed both ways with back-pressure.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Connection, Gate, HOST, Origin, Staunch, continually, until};

/// Much more than the program may hold.
const SIZE: u64 = 256 << 20;
/// What it may hold more than before: buffers, and whatever else it does in the meantime.
const MOST: u64 = 64 << 20;
/// What sockets on the way hold: the kernel lets their buffers grow.
const KERNEL: u64 = 64 << 20;

fn upload(mut client: Connection, sent: &AtomicU64) -> Connection {
    let fields = format!("Content-Length: {SIZE}\r\n");
    client.ask("POST", HOST, "/body", &fields).unwrap();
    let block = vec![b'a'; 1 << 20];
    while sent.load(Ordering::Relaxed) < SIZE {
        client.send(&block).unwrap();
        sent.fetch_add(block.len() as u64, Ordering::Relaxed);
    }
    client
}

/// The allocator asks the kernel for pages of 2 MiB, of which the first byte used makes all
/// resident: that would be counted, and is not what a body takes.
fn in_small_pages(origin: &Origin) -> Staunch {
    Staunch::serving(origin)
        .env("MIMALLOC_ALLOW_THP", "0")
        .start()
}

#[track_caller]
fn assert_bounded(before: u64, most: u64) {
    let grown = most.saturating_sub(before) >> 10;
    println!("memory grew by {grown} KiB, from {} KiB", before >> 10);
    assert!(grown << 10 < MOST, "memory grew by {grown} KiB");
}

/// Until it has not grown for a while; what it is then.
fn standstill(count: impl Fn() -> u64) -> u64 {
    let mut last = 0;
    let mut same = 0;
    until("nothing moves any more", || {
        let now = count();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        now > 0 && same > 50
    });
    last
}

#[test]
fn an_upload_waits_for_an_origin_that_does_not_read() {
    let gate = Gate::new();
    let origin = Origin::plan("origin")
        .route("/body", {
            let gate = gate.clone();
            move |exchange| {
                gate.pass();
                let length = exchange.discard()?;
                exchange.respond(200, "", length.to_string().as_bytes())
            }
        })
        .start();
    let proxy = in_small_pages(&origin);
    proxy.get("/warm").expect(200);
    let before = proxy.memory();
    let sent = Arc::new(AtomicU64::new(0));
    let client = proxy.connect();
    let uploader = thread::spawn({
        let sent = Arc::clone(&sent);
        move || upload(client, &sent)
    });
    let held = standstill(|| sent.load(Ordering::Relaxed));
    assert!(held < KERNEL, "{held} bytes were taken from the client");
    let mut most = proxy.memory();
    gate.open();
    while !uploader.is_finished() {
        most = most.max(proxy.memory());
    }
    let mut client = uploader.join().unwrap();
    assert_eq!(client.read("POST").expect(200).text(), SIZE.to_string());
    assert_bounded(before, most);
}

#[test]
fn a_download_waits_for_a_client_that_does_not_read() {
    let sent = Arc::new(AtomicU64::new(0));
    let origin = Origin::plan("origin")
        .route("/body", {
            let sent = Arc::clone(&sent);
            move |exchange| {
                exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))?;
                let block = vec![b'a'; 1 << 20];
                while sent.load(Ordering::Relaxed) < SIZE {
                    exchange.send(&block)?;
                    sent.fetch_add(block.len() as u64, Ordering::Relaxed);
                }
                Ok(())
            }
        })
        .start();
    let proxy = in_small_pages(&origin);
    proxy.get("/warm").expect(200);
    let before = proxy.memory();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/body", "").unwrap();
    let held = standstill(|| sent.load(Ordering::Relaxed));
    assert!(held < KERNEL, "{held} bytes were taken from the origin");
    let incoming = client.incoming();
    incoming.response_head().unwrap();
    let mut most = proxy.memory();
    let mut received = 0;
    while received < SIZE {
        let part = SIZE.min(received + (1 << 20)) - received;
        incoming.stream(part, |_| ()).unwrap();
        received += part;
        most = most.max(proxy.memory());
    }
    assert_bounded(before, most);
}

#[test]
fn a_large_chunked_upload_arrives_whole() {
    const CHUNKS: usize = 64;
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            let length = exchange.discard()?;
            exchange.respond(200, "", length.to_string().as_bytes())
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask("POST", HOST, "/", "Transfer-Encoding: chunked\r\n")
        .unwrap();
    let chunk = ["100000\r\n", &"a".repeat(1 << 20), "\r\n"].concat();
    for _ in 0..CHUNKS {
        client.send(&chunk).unwrap();
    }
    client.send("0\r\n\r\n").unwrap();
    let expected = (CHUNKS << 20).to_string();
    assert_eq!(client.read("POST").expect(200).text(), expected);
}

#[test]
fn bodies_pass_both_ways_at_once() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            // Answers each piece before the next one comes.
            let mut total = 0;
            while total < 15 {
                let some = exchange.read_some()?;
                total += some.len();
                exchange.send(format!("{:x}\r\n", some.len()))?;
                exchange.send(some)?;
                exchange.send("\r\n")?;
            }
            exchange.send("0\r\n\r\n")
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask("POST", HOST, "/", "Content-Length: 15\r\n")
        .unwrap();
    client.send("first").unwrap();
    assert_eq!(client.incoming().response_head().unwrap().status, 200);
    let mut got = Vec::new();
    let incoming = client.incoming();
    while got.len() < b"5\r\nfirst\r\n".len() {
        got.extend(incoming.exactly(1).unwrap());
    }
    assert_eq!(got, b"5\r\nfirst\r\n");
    client.send("second and").unwrap();
    let rest = client
        .incoming()
        .exactly(b"a\r\nsecond and\r\n0\r\n\r\n".len());
    assert_eq!(rest.unwrap(), b"a\r\nsecond and\r\n0\r\n\r\n");
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.respond(403, "Connection: close\r\n", b"no")?;
            exchange.close();
            Ok(())
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask("POST", HOST, "/", "Content-Length: 10000000\r\n")
        .unwrap();
    client.send(vec![b'a'; 100_000]).unwrap();
    assert_eq!(client.read("POST").expect(403).text(), "no");
}

#[test]
fn curl_shows_an_answer_that_comes_before_the_end_of_its_upload() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.respond(413, "Connection: close\r\n", b"too much")?;
            exchange.close();
            Ok(())
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let file = proxy.config().path("body");
    std::fs::File::create(&file)
        .unwrap()
        .set_len(32 << 20)
        .unwrap();
    let file = file.display().to_string();
    for version in ["--http1.1", "--http2"] {
        let arguments = [
            version,
            "--upload-file",
            &file,
            "--write-out",
            " %{http_code}",
        ];
        let shown = proxy.curl(HOST, "/", &arguments).ok();
        assert_eq!(shown, "too much 413", "{version}");
    }
}

#[test]
fn curl_uploads_and_downloads_over_both_versions() {
    const LENGTH: usize = 32 << 20;
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            let (body, _) = exchange.body()?;
            exchange.respond(200, "", &body)
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let file = proxy.config().path("body");
    let mut body = vec![0; LENGTH];
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    random.read_exact(&mut body[..1 << 20]).unwrap();
    std::fs::File::create(&file)
        .unwrap()
        .write_all(&body)
        .unwrap();
    for version in ["--http1.1", "--http2"] {
        let back = proxy.config().path("back");
        let (data, out) = (format!("@{}", file.display()), back.display().to_string());
        proxy
            .curl(
                HOST,
                "/",
                &[version, "--data-binary", &data, "--output", &out],
            )
            .ok();
        assert!(std::fs::read(&back).unwrap() == body, "{version}");
    }
}

#[test]
fn a_client_that_downloads_slowly_does_not_hold_up_another() {
    let origin = Origin::plan("origin")
        .route("/large", |exchange| {
            exchange.respond(200, "", &vec![b'a'; 64 << 20])
        })
        .start();
    let proxy = Staunch::serving(&origin).set("workers.threads", 1).start();
    let mut slow = proxy.connect();
    slow.ask("GET", HOST, "/large", "").unwrap();
    let mut other = proxy.connect();
    continually("others are served", Duration::from_millis(500), || {
        other.get(HOST, "/").status == 200
    });
}
