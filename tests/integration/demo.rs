//! What a newcomer sees first.

use std::process::Command;

use crate::support::{Ran, Staunch, eventually, run, until};

/// The demo, running in a folder of its own, with all defaults; what it printed is what is used.
fn demo() -> Staunch {
    let builder = Staunch::build();
    let mut command = builder.command();
    command.arg("demo");
    let demo = builder.spawn(command);
    let ready = printed(&demo, "/metrics");
    until("the demo is ready", || {
        assert!(demo.is_running());
        paste(&demo, &format!("{ready} --silent --fail"))
            .status
            .success()
    });
    demo
}

/// The first command that it prints with this in it.
fn printed(demo: &Staunch, part: &str) -> String {
    eventually(&format!("the demo prints a command with {part}"), || {
        assert!(demo.is_running());
        let printed = demo.stdout();
        let mut commands = printed.lines().filter(|line| line.starts_with("  "));
        let command = commands.find(|line| line.contains(part))?;
        Some(command.trim().to_owned())
    })
}

/// Does what a user does with it, in another terminal.
fn paste(demo: &Staunch, command: &str) -> Ran {
    run(Command::new("sh")
        .args(["-c", command])
        .env("CURL_HOME", "/nonexistent")
        .env("no_proxy", "*")
        .current_dir(demo.config().path("")))
}

#[test]
fn every_line_that_the_demo_prints_works_when_pasted() {
    let demo = demo();
    let ask = printed(&demo, "--cacert");
    let ask = format!("{ask} --silent --show-error --fail");
    let pasted = paste(&demo, &ask);
    assert!(!pasted.ok().is_empty());
    assert!(demo.config().path("certs").is_dir());

    let inventory = format!("{} --json", printed(&demo, " certs "));
    let served = || {
        let inventory = crate::support::json(paste(&demo, &inventory).ok().as_bytes());
        inventory["certificates"][0]["fingerprint_sha256"].clone()
    };
    let first = served();
    let upstreams = paste(&demo, &printed(&demo, " upstreams "));
    assert!(upstreams.ok().contains(" up "));
    paste(&demo, &printed(&demo, "--renew")).ok();
    until("the renewed certificate is served", || served() != first);
    let second = served();
    paste(&demo, &ask).ok();

    paste(&demo, &printed(&demo, "garbage")).ok();
    until("the inventory tells that it is broken", || {
        let inventory = crate::support::json(paste(&demo, &inventory).ok().as_bytes());
        inventory["certificates"][0]["disk"]["state"] == "rejected"
    });
    paste(&demo, &ask).ok();
    paste(&demo, &printed(&demo, "--renew")).ok();
    until("it is mended", || served() != second);

    demo.term();
    assert_eq!(demo.wait_exit().code(), Some(0));
}
