//! What is installed beside the program: it fits what the program is.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::{env, fs, thread};

use staunch::config;

use crate::support::{Origin, Ran, Staunch, TestCa, require, run, until};
use crate::upgrade::Line;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// Words that can be names of metrics.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("staunch_") || word.starts_with("process_"))
        .collect()
}

/// The labels of each metric, as `names.rs` says above it.
fn labels() -> BTreeMap<String, BTreeSet<String>> {
    let names = read("src/metrics/names.rs");
    let mut all = BTreeMap::new();
    let mut said = BTreeSet::new();
    for line in names.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("/// Labels: ") {
            let list = doc.split('.').next().unwrap();
            said = list.split(", ").map(str::to_owned).collect();
        } else if line.starts_with("/// No labels") {
            said.clear();
        } else if let Some(name) = metrics_in(line).first()
            && line.contains(&format!("\"{name}\""))
        {
            all.entry((*name).to_owned())
                .or_insert_with(|| said.clone());
        }
    }
    all
}

/// What is written in a query: between `by (`, `on (` or `ignoring (` and `)`, and before `=` and
/// its like between braces.
fn labels_in(query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for opening in ["by (", "on (", "ignoring ("] {
        for part in query.split(opening).skip(1) {
            let list = part.split(')').next().unwrap();
            found.extend(list.split(',').map(|it| it.trim().to_owned()));
        }
    }
    for part in query.split('{').skip(1) {
        let list = part.split('}').next().unwrap();
        let pairs = list.split("\",").chain(list.split("\", "));
        found.extend(pairs.filter_map(|it| Some(it.trim().split(['=', '!']).next()?.to_owned())));
    }
    found.retain(|label| !label.is_empty());
    found
}

#[test]
fn queries_ask_for_metrics_and_labels_that_there_are() {
    let known = labels();
    assert!(known.len() > 60, "{}", known.len());
    // Those of Prometheus itself.
    let always = ["job", "instance", "le"];
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("packaging/grafana/staunch.json")).unwrap();
    let mut queries: Vec<String> = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    assert!(queries.len() > 30, "{queries:#?}");
    let rules = read("packaging/alerts.rules.yml");
    queries.extend(rules.split("expr:").skip(1).map(|rule| {
        let rest = rule.split("labels:").next().unwrap();
        rest.split("for:").next().unwrap().to_owned()
    }));
    for query in &queries {
        let mut there: BTreeSet<&str> = always.into();
        let metrics = metrics_in(query);
        assert!(!metrics.is_empty(), "{query}");
        for metric in metrics {
            let base = metric.trim_end_matches("_bucket");
            let labels = known.get(base);
            let labels = labels.unwrap_or_else(|| panic!("there is no {base}: {query}"));
            there.extend(labels.iter().map(String::as_str));
        }
        for label in labels_in(query) {
            assert!(there.contains(label.as_str()), "{label}: {query}");
        }
    }
}

#[test]
fn the_rules_speak_when_they_should_and_link_to_the_runbook() {
    let folder = Path::new(ROOT).join("packaging");
    for (verb, file) in [("check", "alerts.rules.yml"), ("test", "alerts.test.yml")] {
        run(Command::new(require("promtool"))
            .args([verb, "rules", file])
            .current_dir(&folder))
        .ok();
    }
    let rules = read("packaging/alerts.rules.yml");
    let tests = read("packaging/alerts.test.yml");
    let runbook = read("docs/runbook.md");
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        assert!(tests.contains(&format!("alertname: {name}")), "{name}");
        let link = rule.split("runbook_url: ").nth(1);
        let link = link.unwrap_or_else(|| panic!("{name} links to nothing"));
        let link = link.lines().next().unwrap().trim_matches('"');
        let anchor = link.strip_prefix("docs/runbook.md#").unwrap();
        let mut titles = runbook.lines().filter_map(|line| line.strip_prefix("## "));
        let anchor_of = |title: &str| title.to_lowercase().replace(' ', "-");
        // Every condition has its section: a test of the alerts sees to that.
        let anchored =
            anchor == "{{ $labels.condition }}" || titles.any(|title| anchor_of(title) == anchor);
        assert!(anchored, "{name}: {link}");
    }
}

#[test]
fn the_configuration_for_kubernetes_is_one() {
    let text = read("packaging/kubernetes/staunch.yaml");
    let block = text.split("staunch.toml: |\n").nth(1).unwrap();
    let block: String = (block.lines())
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| format!("{}\n", line.trim_start()))
        .collect();
    let config = config::parse(&block, Path::new("staunch.toml"));
    let config = config.unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(config.sites.len(), 1, "{block}");
    // The volume itself belongs to root, and only its owner may close a folder to others.
    let state = config.state_dir.parent().unwrap().to_str().unwrap();
    assert!(text.contains(&format!("{{ name: state, mountPath: {state} }}")));
    // The kubelet must not end it before it has drained.
    let drain = config.drain.notice + config.drain.deadline;
    let grace = text
        .split("terminationGracePeriodSeconds: ")
        .nth(1)
        .unwrap();
    let grace: u64 = grace.lines().next().unwrap().parse().unwrap();
    assert!(grace > drain.as_secs(), "{grace} s, and {drain:?} to drain");
}

/// What the policy "restricted" of Kubernetes wants, and probes that a certificate cannot fail.
#[test]
fn pods_are_restricted_and_probed_where_something_answers() {
    let text = read("packaging/kubernetes/staunch.yaml");
    for line in [
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "drop: [\"ALL\"]",
        "type: RuntimeDefault",
        "automountServiceAccountToken: false",
    ] {
        assert!(text.contains(line), "{line}");
    }
    let (folder, _) = text.split_once("folder = \"/certificates\"").unwrap();
    assert!(folder.contains("[[certificate]]"));
    assert!(text.contains("mountPath: /certificates/"));
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    assert!(lines.all(|line| !line.contains("subPath:")), "that pins");

    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue("localhost"))
        .site("localhost", &Origin::echo())
        .start();
    let all = text + &read("packaging/kubernetes/servicemonitor.yaml");
    let paths = all.split("path: /").skip(1);
    let mut seen = BTreeSet::new();
    for path in paths {
        let path = path.split([',', ' ', '\n']).next().unwrap();
        proxy.admin_get(&format!("/{path}")).expect(200);
        seen.insert(path.to_owned());
    }
    assert_eq!(Vec::from_iter(seen), ["healthz", "metrics", "readyz"]);
}

#[test]
fn each_command_has_a_manual_page_and_each_shell_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Staunch::build();
    let staunch = || builder.command();
    let pages = folder.path().join("made/for/them");
    run(staunch().arg("man").arg("--folder").arg(&pages)).ok();
    let help = run(staunch().arg("--help")).ok();
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let commands: Vec<_> = (commands.lines())
        .take_while(|line| !line.is_empty())
        // What is said of them may go on, further in.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() > 8, "{commands:?}");
    let first = run(staunch().arg("man")).ok();
    assert!(first.contains(".TH staunch 1"), "{first}");
    assert!(first.contains("Exit status"), "{first}");
    for shell in ["bash", "zsh", "fish"] {
        let script = run(staunch().args(["completions", shell])).ok();
        for command in &commands {
            let page = pages.join(format!("staunch-{command}.1"));
            assert!(page.is_file(), "{} is missing", page.display());
            assert!(script.contains(*command), "{shell} does not know {command}");
        }
    }
}

#[test]
fn bash_completes_a_command() {
    let script = "source <(\"$0\" completions bash); COMP_WORDS=(staunch che); COMP_CWORD=1; \
                  _staunch staunch che staunch; echo \"${COMPREPLY[@]}\"";
    let program = Staunch::build().command().get_program().to_owned();
    let completed = run(Command::new(require("bash"))
        .args(["-c", script])
        .arg(program))
    .ok();
    assert_eq!(completed.trim(), "check");
}

#[test]
fn the_configuration_of_the_package_takes_nothing_from_a_server_that_runs() {
    let path = Path::new(ROOT).join("packaging/debian/staunch.toml");
    // As `run` reads it, which refuses one that would serve nothing.
    let config = config::load(&path).unwrap_or_else(|report| panic!("{report}"));
    let text = fs::read_to_string(&path).unwrap();
    // There is no certificate yet.
    assert!(config.listen.https.is_empty());
    let addresses = config.listen.https.iter().chain(&config.listen.http);
    for address in addresses {
        assert!(
            address.ip().is_loopback() && address.port() > 1024,
            "{address}"
        );
    }
    // What is commented out is right as well.
    let all: String = (text.lines())
        .filter_map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with(' ') => None,
            Some(rest) if rest.starts_with("[[") || rest.contains(" = ") => Some(rest),
            Some(_) => None,
            None => Some(line),
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let all = all.replacen("folder = \"/etc/letsencrypt/live\"\n", "", 1);
    let config = config::parse(&all, Path::new("staunch.toml"));
    let config = config.unwrap_or_else(|report| panic!("{report}\n{all}"));
    assert_eq!(config.sites.len(), 2, "{all}");
}

#[test]
fn the_scripts_of_the_package_are_shell_and_restart_nothing() {
    for script in [
        "debian/postinst",
        "debian/postrm",
        "debian/hand-over",
        "needrestart/staunch.service",
    ] {
        let path = Path::new(ROOT).join("packaging").join(script);
        run(Command::new(require("sh")).arg("-n").arg(&path)).ok();
        let text = fs::read_to_string(&path).unwrap();
        let mut commands = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        assert!(
            commands.all(|line| !line.contains("systemctl restart")
                && !line.contains("deb-systemd-invoke restart")),
            "{script}"
        );
    }
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("start = false, restart-after-upgrade = false"));
}

#[test]
fn zsh_and_fish_take_their_completions() {
    let program = Staunch::build().command().get_program().to_owned();
    for (shell, script, expected) in [
        (
            "zsh",
            "zsh -n <(\"$0\" completions zsh) && echo taken",
            "taken",
        ),
        (
            "fish",
            "fish --no-config -c '$argv[1] completions fish | source; complete -C \"staunch che\"' \"$0\"",
            "check\t",
        ),
    ] {
        require(shell);
        let ran = run(Command::new(require("bash"))
            .args(["-c", script])
            .arg(&program))
        .ok();
        assert!(ran.starts_with(expected), "{shell}: {ran}");
    }
}

/// What `systemctl` is to `packaging/debian/hand-over`: the properties of the unit are files, and a
/// signal goes to its main process.
const SYSTEMCTL: &str = r#"#!/bin/sh
case "$1" in
show) cat "$STAND_IN/${2#--property=}" ;;
kill) kill -USR2 "$(cat "$STAND_IN/MainPID")" ;;
*) exit 3 ;;
esac
"#;

/// Writes down what the service manager is told, as it would show it.
fn service_manager(socket: UnixDatagram, folder: &Path) {
    let put = |property: &str, value: &str| {
        let beside = folder.join(format!(".{property}"));
        fs::write(&beside, value).unwrap();
        fs::rename(beside, folder.join(property)).unwrap();
    };
    let mut said = [0; 4096];
    while let Ok(length) = socket.recv(&mut said) {
        for line in String::from_utf8_lossy(&said[..length]).lines() {
            match line.split_once('=') {
                Some(("MAINPID", process)) => put("MainPID", process),
                Some(("STATUS", text)) => put("StatusText", text),
                Some(("X_END", _)) => return,
                _ => {}
            }
        }
    }
}

#[test]
fn an_upgrade_of_the_package_hands_over_or_says_why_not() {
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("systemctl"), SYSTEMCTL).unwrap();
    fs::set_permissions(at("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    let address = at("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    let manager = {
        let folder = folder.path().to_owned();
        thread::spawn(move || service_manager(socket, &folder))
    };
    let line = Line::start(builder.env("NOTIFY_SOCKET", address.to_str().unwrap()));
    let first = line.staunch.pid().as_raw_nonzero().to_string();
    fs::write(at("MainPID"), &first).unwrap();
    let status = || fs::read_to_string(at("StatusText")).unwrap_or_default();
    until("it serves", || status() == "serving");

    let path = env::var("PATH").unwrap();
    let path = format!("{}:{path}", folder.path().display());
    let hand_over = || -> Ran {
        run(
            Command::new(Path::new(ROOT).join("packaging/debian/hand-over"))
                .env("PATH", &path)
                .env("STAND_IN", folder.path()),
        )
    };
    line.replace_with_script("#!/bin/sh\nexit 7\n");
    // The second time too, although the first has left the same words.
    for _ in 0..2 {
        let ran = hand_over();
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(ran.stderr.contains("exit status: 7"), "{}", ran.stderr);
        assert!(status().starts_with("serving; no upgrade at "));
        assert_eq!(fs::read_to_string(at("MainPID")).unwrap(), first);
    }
    line.mend();
    let said = hand_over().ok();
    let second = fs::read_to_string(at("MainPID")).unwrap();
    assert_ne!(second, first);
    assert!(said.contains(&format!("process {second} serves")), "{said}");
    assert_eq!(status(), "serving");
    let end = UnixDatagram::unbound().unwrap();
    end.send_to(b"X_END=1", &address).unwrap();
    manager.join().unwrap();
}

#[test]
fn the_image_is_built_by_the_compiler_that_there_is_a_profile_for() {
    let compiler = read(".cargo/release.rustc");
    let version = compiler.split(' ').nth(1).unwrap();
    let image = read("packaging/docker/Dockerfile");
    assert!(
        image.contains(&format!("FROM rust:{version}-")),
        "{compiler}"
    );
}

/// What is not sent to the builder cannot be copied by it.
#[test]
fn the_image_is_built_from_what_is_sent_to_the_builder() {
    let ignore = read("packaging/docker/Dockerfile.dockerignore");
    let mut lines = ignore.lines();
    assert_eq!(lines.next(), Some("*"));
    let sent: BTreeSet<_> = lines.map(|line| line.strip_prefix('!').unwrap()).collect();
    let image = read("packaging/docker/Dockerfile");
    let copies = image.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copies = copies.filter(|line| !line.starts_with("--from"));
    let mut copied = BTreeSet::new();
    for line in copies {
        let mut words: Vec<_> = line.split(' ').collect();
        words.pop();
        copied.extend(words);
    }
    assert_eq!(sent, copied);
    for path in copied {
        assert!(Path::new(ROOT).join(path).exists(), "{path}");
    }
}

#[test]
fn only_optimised_code_and_the_right_compiler_get_the_profile() {
    let passed = |version: &str, arguments: &[&str], generate: Option<&str>| {
        let mut wrapper = Command::new(Path::new(ROOT).join(".cargo/rustc"));
        wrapper.arg(Path::new(ROOT).join("tests/fixtures/compiler"));
        wrapper.args(arguments).env("COMPILER", version);
        wrapper.env_remove("STAUNCH_PROFILE");
        wrapper.envs(generate.map(|to| ("STAUNCH_PROFILE", to)));
        let said = wrapper.output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    let theirs = read(".cargo/release.rustc").trim_end().to_owned();
    let optimised = ["--crate-name", "a", "-C", "opt-level=3", "-v"];
    let profile = format!("-Cprofile-use={ROOT}/.cargo/release.profdata");
    let with = passed(&theirs, &optimised, None);
    assert!(
        with.starts_with("--crate-name a -C opt-level=3 -v "),
        "{with}"
    );
    assert!(with.contains(&profile), "{with}");
    assert_eq!(passed("rustc 1.0.0", &optimised, None), optimised.join(" "));
    let plain = ["--crate-name", "a", "-C", "debuginfo=2"];
    assert_eq!(passed(&theirs, &plain, None), plain.join(" "));
    assert_eq!(passed(&theirs, &plain, Some("/raw")), plain.join(" "));
    let counting = passed(&theirs, &optimised, Some("/raw"));
    assert!(counting.ends_with(" -Cprofile-generate=/raw"), "{counting}");
}
