//! What is installed beside the program: it fits what the program is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use staunch::config;

use crate::support::{Staunch, require, run};

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

#[test]
fn every_metric_of_the_dashboard_exists() {
    let names = read("src/metrics/names.rs");
    let known = metrics_in(&names);
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("packaging/grafana/staunch.json")).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    assert!(expressions.len() > 30, "{expressions:#?}");
    let text = expressions.join("\n");
    for name in metrics_in(&text) {
        let base = name.trim_end_matches("_bucket");
        assert!(
            known.contains(base),
            "{name} is not in src/metrics/names.rs"
        );
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
    // The kubelet must not end it before it has drained.
    let drain = config.drain.notice + config.drain.deadline;
    let grace = text
        .split("terminationGracePeriodSeconds: ")
        .nth(1)
        .unwrap();
    let grace: u64 = grace.lines().next().unwrap().parse().unwrap();
    assert!(grace > drain.as_secs(), "{grace} s, and {drain:?} to drain");
}

#[test]
fn each_command_has_a_manual_page_and_each_shell_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Staunch::build();
    let staunch = || builder.command();
    run(staunch().arg("man").arg("--folder").arg(folder.path())).ok();
    let help = run(staunch().arg("--help")).ok();
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let commands: Vec<_> = (commands.lines())
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() > 8, "{commands:?}");
    let first = run(staunch().arg("man")).ok();
    assert!(first.contains(".TH staunch 1"), "{first}");
    for shell in ["bash", "zsh", "fish"] {
        let script = run(staunch().args(["completions", shell])).ok();
        for command in &commands {
            let page = folder.path().join(format!("staunch-{command}.1"));
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
