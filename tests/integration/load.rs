//! Load, from the tools that people use for it.

use std::process::Command;

use crate::support::{HOST, Nginx, Site, Staunch, TestCa, require, run};

fn in_front_of(nginx: &Nginx) -> Staunch {
    Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], &nginx.url()))
        .start()
}

#[test]
fn h2load_has_every_request_answered() {
    let nginx = Nginx::start();
    let proxy = in_front_of(&nginx);
    let url = format!("https://{HOST}:{}/hello", proxy.https().port());
    let here = format!("--connect-to={}", proxy.https());
    for arguments in [
        &[
            "--requests=2000",
            "--clients=10",
            "--max-concurrent-streams=10",
        ][..],
        &["--requests=1000", "--clients=10", "--h1"],
    ] {
        let said = run(Command::new(require("h2load"))
            .args(arguments)
            .args([&here, &url]));
        let said = said.ok();
        assert!(said.contains(" 0 failed, 0 errored, 0 timeout"), "{said}");
        assert!(said.contains(" 0 3xx, 0 4xx, 0 5xx"), "{said}");
    }
}

#[test]
fn wrk_has_every_request_answered() {
    let nginx = Nginx::start();
    let proxy = in_front_of(&nginx);
    let said = run(Command::new(require("wrk"))
        .args(["--threads=1", "--connections=32", "--duration=2s"])
        .args(["--header", &format!("Host: {HOST}")])
        .arg(format!("https://{}/hello", proxy.https())));
    let said = said.ok();
    assert!(said.contains("Requests/sec"), "{said}");
    assert!(!said.contains("Socket errors"), "{said}");
    assert!(!said.contains("Non-2xx"), "{said}");
}
