//! Who may ask: users and passwords, and servers that are asked about each request.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use http::Method;

use crate::support::Connection;
use crate::support::h2::request;
use crate::support::{
    Builder, Gate, H2, HOST, Origin, Ran, Response, Site, Staunch, TestCa, block_on, curl, require,
    run, until,
};

/// One site at [`HOST`] with these lines.
fn with(origin: &Origin, lines: &str) -> Builder {
    Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], &origin.url()).also(lines))
}

/// `basic_auth` with this file.
fn basic(file: &Path) -> String {
    format!("[site.basic_auth]\nfile = {file:?}\nrealm = 'The \"realm\"'\n")
}

/// A file with users, in a folder that goes with the first value.
fn users(content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, content).unwrap();
    (folder, file)
}

/// `htpasswd -nb` with further arguments.
fn htpasswd(scheme: &str, name: &str, password: &str) -> String {
    let mut command = Command::new(require("htpasswd"));
    let line = run(command.args(["-nb", scheme, name, password])).ok();
    format!("{}\n", line.trim())
}

/// What curl makes of a path: the status, then the body.
fn visit(proxy: &Staunch, path: &str, arguments: &[&str]) -> Ran {
    let port = proxy.https().port();
    let resolve = format!("{HOST}:{port}:127.0.0.1");
    let url = format!("https://{HOST}:{port}{path}");
    let fixed = ["-k", "--resolve", &resolve, "-w", "\n%{http_code}", &url];
    curl(&[&fixed[..], arguments].concat())
}

#[track_caller]
fn status(proxy: &Staunch, path: &str, arguments: &[&str]) -> u16 {
    let all = visit(proxy, path, arguments).ok();
    all.lines().last().unwrap().parse().unwrap()
}

#[track_caller]
fn get(client: &mut Connection, target: &str, fields: &str) -> Response {
    client.ask("GET", HOST, target, fields).unwrap();
    client.read("GET")
}

const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";

#[test]
fn users_of_every_program_are_let_in_by_curl() {
    let openssl =
        |flag: &str| run(Command::new("openssl").args(["passwd", flag, "pass word"])).ok();
    let (_folder, file) = users(
        &[
            htpasswd("-B", "bcrypt", "pass word"),
            htpasswd("-m", "apr1", "pass word"),
            format!("md5:{}", openssl("-1")),
            format!("sha256:{}", openssl("-5")),
            format!("sha512:{}", openssl("-6")),
            htpasswd("-B", "jürgen", "pässwörd:x"),
            htpasswd("-s", "sha1", "pass word"),
            htpasswd("-p", "plain", "pass word"),
        ]
        .concat(),
    );
    let origin = Origin::echo();
    let builder = with(&origin, &basic(&file));
    let check = builder.run("check", &[]);
    assert_eq!(check.status.code(), Some(2), "{}", check.output());
    for words in ["line 7 is not used", "line 8", "htpasswd -B"] {
        assert!(check.output().contains(words), "{}", check.output());
    }
    let log = builder.path("access.log");
    let proxy = builder.set("log.access.to", format!("{log:?}")).start();
    for version in ["--http1.1", "--http2"] {
        for name in ["bcrypt", "apr1", "md5", "sha256", "sha512"] {
            let right = format!("{name}:pass word");
            assert_eq!(status(&proxy, "/", &[version, "-u", &right]), 200, "{name}");
            let wrong = format!("{name}:password");
            assert_eq!(status(&proxy, "/", &[version, "-u", &wrong]), 401, "{name}");
        }
        let all = visit(&proxy, "/", &[version, "-u", "jürgen:pässwörd:x"]).ok();
        assert!(all.ends_with("200"), "{all}");
        for none in [
            "sha1:pass word",
            "plain:pass word",
            "nobody:pass word",
            ":",
            "bcrypt:",
        ] {
            assert_eq!(status(&proxy, "/", &[version, "-u", none]), 401, "{none}");
        }
        assert_eq!(status(&proxy, "/", &[version]), 401);
    }
    let count = |outcome| proxy.count("staunch_basic_auth_total", &[("outcome", outcome)]);
    assert!(count("accepted") >= 6.0 && count("remembered") >= 1.0);
    assert_eq!((count("refused"), count("anonymous")), (20.0, 2.0));
    assert_eq!(proxy.count("staunch_basic_auth_users", &[]), 6.0);
    until("it is logged", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("\"user\":\"sha512\""))
    });
    // Nothing that was typed or stored is told to anybody.
    let said = proxy.log() + &fs::read_to_string(&log).unwrap();
    for secret in ["pass word", "$apr1$", "$2y$", "cGFzcyB3b3Jk"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[test]
fn who_is_not_let_in_is_told_how_and_learns_nothing_else() {
    let (_folder, file) = users(&htpasswd("-B", "alice", "secret"));
    let origin = Origin::echo();
    let routes = "[[site.route]]\npath = '/open/'\nbasic_auth = false\n\
        [[site.route]]\npath = '/drop/'\n\
        request_headers.set = { 'X-Who' = '{user}' }\n\
        [site.route.basic_auth]\nfile = 'FILE'\npass = false\nexcept = ['192.0.2.0/24']\n\
        [[site.route]]\nexact = '/here'\nrespond = 200\nbody = 'here'\n";
    let routes = routes.replace("FILE", file.to_str().unwrap());
    let proxy = with(&origin, &(basic(&file) + &routes))
        .set("listen.forwarded_from", "['127.0.0.1']")
        .start();
    let mut client = proxy.connect();
    for target in ["/", "/here", "/drop/x"] {
        let response = client.get(HOST, target).expect(401);
        let realm = if target == "/drop/x" {
            "Restricted"
        } else {
            "The \\\"realm\\\""
        };
        let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
        assert_eq!(response.field("www-authenticate"), Some(&*challenge));
    }
    assert!(origin.requests().is_empty());
    client.get(HOST, "/open/").expect(200);
    get(&mut client, "/", ALICE).expect(200);
    assert_eq!(
        origin.last().field("authorization"),
        "Basic YWxpY2U6c2VjcmV0"
    );
    assert_eq!(get(&mut client, "/here", ALICE).expect(200).text(), "here");
    get(&mut client, "/drop/", ALICE).expect(200);
    let request = origin.last();
    assert_eq!(request.field("x-who"), "alice");
    assert!(request.all("authorization").is_empty());
    // Who is not asked is nobody, whatever it sends.
    let fields = format!("X-Forwarded-For: 192.0.2.7\r\n{ALICE}");
    get(&mut client, "/drop/", &fields).expect(200);
    let request = origin.last();
    assert!(request.all("x-who").is_empty() && request.all("authorization").is_empty());
    // Two of them: an upstream might look at the other one.
    get(&mut client, "/", &format!("{ALICE}{ALICE}")).expect(401);
}

#[test]
fn a_site_without_a_route_says_so_only_to_its_users() {
    let (_folder, file) = users(&htpasswd("-B", "alice", "secret"));
    let site = basic(&file) + "[[site.route]]\npath = '/here/'\nrespond = 200\n";
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::without_upstream(&[HOST]).also(&site))
        .start();
    let mut client = proxy.connect();
    client.get(HOST, "/nowhere").expect(401);
    get(&mut client, "/nowhere", ALICE).expect(404);
}

#[test]
fn a_body_is_not_asked_for_before_its_sender_is_let_in() {
    let (_folder, file) = users(&htpasswd("-B", "alice", "secret"));
    let origin = Origin::echo();
    let proxy = with(&origin, &basic(&file)).start();
    let mut client = proxy.connect();
    let expects = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    client.ask("POST", HOST, "/", expects).unwrap();
    let response = client.read("POST").expect(401);
    assert!(response.interim.is_empty());
    let mut client = proxy.connect();
    client
        .ask("POST", HOST, "/", &format!("{expects}{ALICE}"))
        .unwrap();
    client.send("12345").unwrap();
    client.read("POST").expect(200);
    // The same over HTTP/2, where the body may be on its way already.
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let body = bytes::Bytes::from_static(&[b'x'; 40_000]);
        let refused = client
            .request(request(Method::POST, HOST, "/"), body.clone(), None)
            .await;
        assert_eq!(refused.unwrap().status, 401);
        let mut right = request(Method::POST, HOST, "/");
        let value = ALICE.trim_end().strip_prefix("Authorization: ").unwrap();
        right
            .headers_mut()
            .insert("authorization", value.parse().unwrap());
        assert_eq!(client.request(right, body, None).await.unwrap().status, 200);
    });
}

#[test]
fn users_come_and_go_with_their_file_and_stay_where_it_is_broken() {
    let (_folder, file) = users(&htpasswd("-B", "alice", "secret"));
    let origin = Origin::echo();
    let proxy = with(&origin, &basic(&file)).start();
    let mut client = proxy.connect();
    let mut is = |fields: &str| get(&mut client, "/", fields).status;
    let bob = "Authorization: Basic Ym9iOmI=\r\n";
    assert_eq!((is(ALICE), is(ALICE), is(bob)), (200, 200, 401));
    fs::write(
        &file,
        htpasswd("-m", "alice", "other") + &htpasswd("-m", "bob", "b"),
    )
    .unwrap();
    until("bob is let in", || is(bob) == 200);
    assert_eq!(
        is(ALICE),
        401,
        "a password that was changed is not remembered"
    );
    let fault = |n: f64| {
        until("the file's state is told", || {
            proxy.count("staunch_basic_auth_file_fault", &[]) == n
        });
    };
    fault(0.0);
    fs::write(&file, [0, 1, 2, 255]).unwrap();
    fault(1.0);
    until("somebody is told", || {
        let alerts = proxy.admin_get("/api/alerts").expect(200).text();
        alerts.contains("users_file_unusable")
    });
    assert_eq!(is(bob), 200);
    proxy.wait_log("line 1 is not used");
    fs::remove_file(&file).unwrap();
    proxy.wait_log("there is no such file");
    assert_eq!(is(bob), 200);
    // Replaced as a whole, as Kubernetes and careful people do.
    let new = file.with_extension("new");
    fs::write(&new, htpasswd("-5", "alice", "secret")).unwrap();
    fs::rename(&new, &file).unwrap();
    until("alice is let in", || is(ALICE) == 200);
    assert_eq!(is(bob), 401);
    fault(0.0);
    // Whoever takes out the last one means it.
    fs::write(&file, "").unwrap();
    until("nobody is let in", || is(ALICE) == 401);
}

#[test]
fn without_a_file_nobody_is_let_in_and_the_rest_is_served() {
    let (folder, file) = users("");
    fs::remove_file(&file).unwrap();
    let origin = Origin::echo();
    let open = "[[site.route]]\npath = '/open/'\nbasic_auth = false\n";
    let proxy = with(&origin, &(basic(&file) + open)).start();
    let mut client = proxy.connect();
    client.get(HOST, "/open/").expect(200);
    client.get(HOST, "/").expect(401);
    let response = get(&mut client, "/", ALICE).expect(503);
    assert_eq!(response.field("retry-after"), Some("1"));
    fs::write(
        folder.path().join("users"),
        htpasswd("-B", "alice", "secret"),
    )
    .unwrap();
    until("alice is let in", || {
        get(&mut client, "/", ALICE).status == 200
    });
}

#[test]
fn those_who_guess_wait_while_others_are_served() {
    let (_folder, file) = users(&htpasswd("-B", "alice", "secret"));
    // Each try takes a processor a while.
    let dear = run(Command::new(require("htpasswd")).args(["-nbBC", "10", "bob", "b"])).ok();
    fs::write(&file, htpasswd("-B", "alice", "secret") + dear.trim()).unwrap();
    let origin = Origin::echo();
    let proxy = with(&origin, &basic(&file)).start();
    let mut client = proxy.connect();
    get(&mut client, "/", ALICE).expect(200);
    block_on(async {
        let guesses = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let one = |n: usize| {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(format!("bob:{n}"));
            let mut guess = request(Method::GET, HOST, "/");
            let value = format!("Basic {text}").parse().unwrap();
            guess.headers_mut().insert("authorization", value);
            guesses.request(guess, bytes::Bytes::new(), None)
        };
        let all = futures_util::future::join_all((0..100).map(one));
        let (all, served) = tokio::join!(
            all,
            tokio::task::spawn_blocking(move || {
                let begin = Instant::now();
                for _ in 0..20 {
                    get(&mut client, "/", ALICE).expect(200);
                }
                begin.elapsed()
            })
        );
        let of = |status: u16| {
            let answers = all
                .iter()
                .filter(|one| one.as_ref().unwrap().status == status);
            answers.count()
        };
        assert_eq!(of(503) + of(401), 100);
        assert!(of(503) >= 20, "one client takes no more than 64 places");
        let busy = all.iter().flatten().find(|one| one.status == 503).unwrap();
        assert!(busy.headers.contains_key("retry-after"));
        let took = served.unwrap();
        assert!(took.as_secs() < 20, "{took:?}");
    });
    assert!(proxy.count("staunch_limits_hit_total", &[("limit", "passwords")]) >= 20.0);
}

/// A server that lets in whoever has the cookie `in=yes`, and says to others what they ask it to.
fn authority() -> Origin {
    Origin::plan("auth")
        .route("/auth", |exchange| {
            let cookie = exchange.request.all("cookie").join("; ");
            let told = cookie.split("say=").nth(1).and_then(|rest| rest.get(..3));
            match (cookie.contains("in=yes"), told) {
                (true, _) => exchange.respond(
                    202,
                    "X-User: zoe\r\nX-Groups: a\r\nX-Groups: b\r\nSet-Cookie: s=1\r\n\
                     Set-Cookie: t=2\r\nX-Private: p\r\n",
                    b"welcome",
                ),
                (false, Some("cut")) => {
                    exchange.send("HTTP/1.1 200")?;
                    exchange.close();
                    Ok(())
                }
                (false, Some("bad")) => exchange.send("garbage\r\n\r\n"),
                (false, Some(status)) => {
                    let fields = "Location: /login\r\nSet-Cookie: gone=\r\n\
                                  WWW-Authenticate: Bearer\r\n";
                    exchange.respond(status.parse().unwrap(), fields, b"no entry")
                }
                (false, None) => exchange.respond(401, "WWW-Authenticate: Bearer\r\n", b"who?"),
            }
        })
        .start()
}

fn forward(authority: &str, also: &str) -> String {
    format!(
        "[site.forward_auth]\nupstream = '{authority}'\npath = '/auth?of=site'\n\
         copy = ['X-User', 'X-Groups']\nuser = 'X-User'\n{also}\n"
    )
}

#[test]
fn another_server_is_asked_about_each_request() {
    let (origin, authority) = (Origin::echo(), authority());
    let told = "set = { X-Real-IP = '{client_address}', X-Line = '{method} {uri}' }";
    let lines = forward(&authority.url(), told)
        + "[site.request_headers]\nset = { 'X-Remote' = '{user} of {header:x-groups}' }\n";
    let proxy = with(&origin, &lines).start();
    let fields = [
        "Cookie: in=yes",
        "X-User: mallory",
        "x_user: mallory",
        "X-Original-URL: https://evil/",
        "X-Forwarded-Uri: /evil",
        "X-Forwarded-Method: EVIL",
        "X-Real-IP: 203.0.113.9",
        "Authorization: Bearer t",
        "Range: bytes=0-1",
        "If-None-Match: \"x\"",
        "Content-Length: 4",
    ];
    let mut client = proxy.connect();
    client
        .ask("PUT", HOST, "/a?b=c", &(fields.join("\r\n") + "\r\n"))
        .unwrap();
    client.send("body").unwrap();
    let response = client.read("PUT").expect(200);
    assert_eq!(response.all("set-cookie"), ["s=1", "t=2"]);
    assert!(response.field("x-private").is_none());
    let asked = authority.last();
    assert_eq!((&*asked.method, &*asked.target), ("GET", "/auth?of=site"));
    for (name, value) in [
        ("host", HOST),
        ("cookie", "in=yes"),
        ("authorization", "Bearer t"),
        ("x-original-url", &format!("https://{HOST}/a?b=c")),
        ("x-original-method", "PUT"),
        ("x-forwarded-method", "PUT"),
        ("x-forwarded-uri", "/a?b=c"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", HOST),
        ("x-real-ip", "127.0.0.1"),
        ("x-line", "PUT /a?b=c"),
    ] {
        assert_eq!(asked.all(name), [value], "{name}");
    }
    for none in [
        "x-user",
        "x_user",
        "content-length",
        "range",
        "if-none-match",
    ] {
        assert!(asked.all(none).is_empty(), "{none}");
    }
    let request = origin.last();
    assert_eq!((&*request.method, &*request.target), ("PUT", "/a?b=c"));
    assert_eq!(request.all("x-user"), ["zoe"]);
    assert_eq!(request.all("x-groups"), ["a", "b"]);
    assert!(request.all("x_user").is_empty());
    assert_eq!(request.field("x-remote"), "zoe of a, b");
    assert_eq!(request.field("range"), "bytes=0-1");
    // One connection is enough for many questions.
    for _ in 0..5 {
        get(&mut client, "/", "Cookie: in=yes\r\n").expect(200);
    }
    assert!(authority.connections() <= 2, "{}", authority.connections());
}

#[test]
fn what_it_says_to_the_client_is_passed_on_and_nothing_else_lets_in() {
    let (origin, authority) = (Origin::echo(), authority());
    let proxy = with(&origin, &forward(&authority.url(), "")).start();
    for version in ["--http1.1", "--http2"] {
        for say in ["401", "403", "429", "302", "307"] {
            let cookie = format!("say={say}");
            let all = visit(&proxy, "/", &[version, "-i", "-b", &cookie]).ok();
            assert!(all.ends_with(&format!("no entry\n{say}")), "{all}");
            let lower = all.to_lowercase();
            for field in [
                "location: /login",
                "set-cookie: gone=",
                "www-authenticate: bearer",
            ] {
                assert!(lower.contains(field), "{field}: {all}");
            }
            let head = visit(&proxy, "/", &[version, "-I", "-b", &cookie]).ok();
            assert!(head.ends_with(say) && !head.contains("no entry"), "{head}");
            assert_eq!(
                status(&proxy, "/", &[version, "-d", "x=y", "-b", &cookie]).to_string(),
                say
            );
        }
        for say in ["500", "503", "404", "304", "100", "bad", "cut"] {
            let cookie = format!("say={say}");
            assert_eq!(status(&proxy, "/", &[version, "-b", &cookie]), 502, "{say}");
        }
    }
    assert!(origin.requests().is_empty());
    let count = |outcome| proxy.count("staunch_forward_auth_total", &[("outcome", outcome)]);
    assert_eq!((count("accepted"), count("failed")), (0.0, 14.0));
}

#[test]
fn a_client_that_is_not_known_is_sent_to_where_it_can_sign_in() {
    let (origin, authority) = (Origin::echo(), authority());
    let lines = forward(
        &authority.url(),
        "sign_in = '/oauth2/start?rd={escaped_url}'",
    ) + "[[site.route]]\npath = '/oauth2/'\nforward_auth = false\n";
    let proxy = with(&origin, &lines).start();
    let mut client = proxy.connect();
    let response = get(&mut client, "/a?b=c&d", "Cookie: say=401\r\n").expect(302);
    let expected = format!("/oauth2/start?rd=https%3A%2F%2F{HOST}%2Fa%3Fb%3Dc%26d");
    assert_eq!(response.field("location"), Some(&*expected));
    assert_eq!(response.field("set-cookie"), Some("gone="));
    get(&mut client, "/", "Cookie: say=403\r\n").expect(403);
    // Nobody is asked there; and still nobody is believed.
    get(
        &mut client,
        "/oauth2/start",
        "X-User: mallory\r\nX_Groups: a\r\n",
    )
    .expect(200);
    let request = origin.last();
    assert!(request.all("x-user").is_empty() && request.all("x_groups").is_empty());
}

#[test]
fn a_client_that_is_not_known_is_sent_where_the_answer_says() {
    let (origin, authority) = (Origin::echo(), authority());
    let lines = forward(&authority.url(), "sign_in = 'location'");
    let proxy = with(&origin, &lines).start();
    let mut client = proxy.connect();
    let response = get(&mut client, "/a", "Cookie: say=401\r\n").expect(302);
    assert_eq!(response.field("location"), Some("/login"));
    assert_eq!(response.field("set-cookie"), Some("gone="));
    // One that names no place is passed on.
    let response = get(&mut client, "/a", "").expect(401);
    assert_eq!(response.field("www-authenticate"), Some("Bearer"));
    assert!(origin.requests().is_empty());
}

#[test]
fn a_server_that_fails_lets_nobody_in() {
    let origin = Origin::echo();
    let proxy = with(
        &origin,
        &forward("http://127.0.0.1:1", "except = ['192.0.2.0/24']"),
    )
    .set("listen.forwarded_from", "['127.0.0.1']")
    .start();
    let mut client = proxy.connect();
    get(&mut client, "/", "Cookie: in=yes\r\n").expect(502);
    assert!(origin.requests().is_empty());
    get(
        &mut client,
        "/",
        "X-Forwarded-For: 192.0.2.1\r\nX-User: me\r\n",
    )
    .expect(200);
    assert!(origin.last().all("x-user").is_empty());

    let gate = Gate::new();
    let slow = Origin::plan("slow").gated("/auth", &gate).start();
    let proxy = with(&origin, &forward(&slow.url(), "timeout = '200ms'")).start();
    let before = origin.requests().len();
    proxy.connect().get(HOST, "/").expect(504);
    assert_eq!(origin.requests().len(), before);
    gate.open();
    until("it answers", || {
        proxy.connect().get(HOST, "/").status == 200
    });
}

#[test]
fn a_site_that_asks_itself_is_found_out() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let mut builder = Staunch::build().leaf(&ca.issue(HOST)).trusting(&ca);
    let itself = format!("https://localhost:{}", builder.https().port());
    let lines = "[site.forward_auth]\nupstream = 'self'\npath = '/auth'\n";
    builder.add_site(Site::new(&[HOST], &origin.url()).also(lines));
    let proxy = builder
        .upstream("self", &[&itself])
        .set("upstream.self.tls.name", format!("'{HOST}'"))
        .start();
    proxy.connect().get(HOST, "/").expect(502);
    proxy.wait_log("leads back to a site that asks it");
    assert!(origin.requests().is_empty());
}

#[test]
fn both_may_be_asked_for_and_both_must_be_content() {
    let (_folder, file) = users(&htpasswd("-B", "alice", "secret"));
    let (origin, authority) = (Origin::echo(), authority());
    let lines = basic(&file) + &forward(&authority.url(), "");
    let proxy = with(&origin, &lines).start();
    let mut client = proxy.connect();
    get(&mut client, "/", "Cookie: in=yes\r\n").expect(401);
    assert!(authority.requests().is_empty());
    get(&mut client, "/", ALICE).expect(401);
    get(&mut client, "/", &format!("{ALICE}Cookie: in=yes\r\n")).expect(200);
}

#[test]
fn what_cannot_be_is_told_with_what_to_do() {
    let origin = Origin::echo();
    for (lines, words) in [
        ("basic_auth = true", "`false`, or a table"),
        ("[site.basic_auth]\nrealm = 'x'", "`file`"),
        (
            "[site.basic_auth]\nfile = 'x'\nrealm = 'ü'",
            "plain letters",
        ),
        ("[site.forward_auth]\npath = '/x'", "`upstream`"),
        (
            "[site.forward_auth]\nupstream = 'nobody'\npath = '/x'",
            "no upstream",
        ),
        (
            "[site.forward_auth]\nupstream = 'http://a:1'\npath = 'x'",
            "is not a path",
        ),
        (
            "[site.forward_auth]\nupstream = 'tcp://a:1'\npath = '/x'",
            "tcp://",
        ),
        (
            "[site.forward_auth]\nupstream = 'http://a:1'\npath = '/x'\ncopy = ['Host']",
            "whom a request is for",
        ),
        (
            "[site.forward_auth]\nupstream = 'http://a:1'\npath = '/x'\nset = { Host = 'x' }",
            "`Host`",
        ),
        (
            "[site.forward_auth]\nupstream = 'http://a:1'\npath = '/x'\nset = { X-A = '{nothing}' }",
            "nothing",
        ),
        (
            "[site.forward_auth]\nupstream = 'http://a:1'\npath = '/x'\ncopy = ['Content-Length']",
            "where a message ends",
        ),
        (
            "[site.forward_auth]\nupstream = 'http://a:1'\npath = '/x'\nsign_in = '//evil'",
            "sign_in",
        ),
    ] {
        let ran = with(&origin, &format!("{lines}\n")).run("check", &[]);
        assert_eq!(ran.status.code(), Some(1), "{lines}: {}", ran.output());
        assert!(ran.output().contains(words), "{lines}: {}", ran.output());
    }
}
