//! The corpus: what goes in byte for byte, what must reach the upstream, what must come back.
//!
//! The cases are data, in `tests/corpus/*.case`; its `README.md` describes their format. Each runs
//! on a connection of its own. Where a case says that the connection stays open, one more request
//! follows on it, which must arrive as it was sent and be answered: that is how a message that was
//! read in two ways shows.

mod case;
pub mod frames;
mod origin;
pub mod wire;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::support::{HOST, Site, Staunch, TestCa};
use case::{Case, Step, Then};
use origin::Origin;
use wire::Wire;

/// The table of rules in `docs/http.md` promises nothing that is not there.
#[test]
fn every_rule_in_the_documentation_is_tried_where_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/http.md")).unwrap();
    let sections: Vec<_> = read_all().into_iter().map(|case| case.rfc).collect();
    let tests = [
        "src/proxy/compress/tests.rs",
        "src/proxy/compress/wish.rs",
        "tests/integration/websocket_http2.rs",
    ]
    .map(|file| fs::read_to_string(root.join(file)).unwrap());
    let rows = table.lines().filter(|line| line.starts_with("| 91"));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, section, _, places, _] = cells[..] else {
            panic!("{row}");
        };
        for place in places.split(", ") {
            let tried = match place.trim_matches('`') {
                "corpus" => sections.iter().any(|rfc| rfc == section),
                test => tests
                    .iter()
                    .any(|text| text.contains(&format!("fn {test}("))),
            };
            assert!(tried, "{row}");
        }
        count += 1;
    }
    assert!(count > 40, "there are only {count} rows");
}

/// Follows on a connection that is said to stay open.
const CANARY: &str = "GET /canary HTTP/1.1\r\nHost: example.test\r\n\r\n";
const CANARY_BACK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nDate: {date}\r\n\r\ncanary";

/// What staunch adds to each request for [`HOST`] from this machine.
const ADDED: &str = "X-Forwarded-For: 127.0.0.1\r\n\
    Forwarded: for=127.0.0.1;host=example.test;proto=https\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: example.test\r\n";

#[test]
fn every_case_of_the_corpus_holds() {
    let cases = read_all();
    assert!(cases.len() >= 80, "there are only {} cases", cases.len());
    let origin = Origin::start();
    let upstream = format!("http://{}", origin.address());
    let mut builder = Staunch::build()
        // One worker: it has noticed that the last case's upstream connection closed before it has
        // completed the next case's handshake.
        .set("workers.threads", 1)
        .set("limits.request_head", "\"16KiB\"")
        .set("limits.request_fields", 100)
        .set("limits.request_body", "\"1MiB\"")
        .sites(Site::new(&[HOST], &upstream));
    let mut names = vec![HOST.to_owned(), "other.test".to_owned()];
    for (name, lines) in sites() {
        builder.add_site(Site::new(&[&name], &upstream).also(&lines));
        names.push(name);
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let proxy = builder.leaf(&TestCa::new().leaf(&names).issue()).start();
    let mut failed = Vec::new();
    for case in &cases {
        if let Err(why) = run(case, proxy.https(), &origin) {
            failed.push(format!(
                "{}: {} ({})\n    {why}",
                case.file, case.title, case.rfc
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} cases:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}

/// The files, by name.
fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = (fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "case")
        })
        .collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

fn read_all() -> Vec<Case> {
    let read = |(name, text): &(String, String)| case::read(name, text);
    files().iter().flat_map(read).collect()
}

/// What the files configure for their cases.
fn sites() -> Vec<(String, String)> {
    let site = |(name, text): &(String, String)| case::site(name, text);
    files().iter().filter_map(site).collect()
}

fn run(case: &Case, proxy: SocketAddr, origin: &Origin) -> Result<(), String> {
    origin.begin(case);
    let result = if case.is_h2() {
        frames::run(case, proxy)
    } else {
        talk(case, proxy)
    };
    // What the upstream saw explains more than what the client did not.
    origin.end()?;
    result
}

/// The client's side over HTTP/1.
fn talk(case: &Case, proxy: SocketAddr) -> Result<(), String> {
    let mut wire = Wire::connect(proxy, "http/1.1")?;
    for step in &case.steps {
        match step {
            Step::Client(bytes) => wire.send(bytes)?,
            Step::Back(bytes) => wire.expect(bytes)?,
            _ => {}
        }
    }
    match case.then {
        Then::Open => {
            wire.send(CANARY.as_bytes())?;
            wire.expect(CANARY_BACK.as_bytes())
                .map_err(|why| format!("the next request on the connection: {why}"))
        }
        Then::Closed => wire.expect_end(true),
        Then::Cut => wire.expect_end(false),
    }
}
