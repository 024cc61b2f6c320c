//! `staunch certs`: the inventory as a table, and the ledger.

pub(super) mod client;
mod table;

use std::env;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{DEFAULT_CONFIG, Exit, say};
use crate::cert::keeper::{self, Wanted};
use crate::cert::ledger;
use crate::cert::load::Roots;
use crate::clock::Clock;
use crate::config;
use client::{admin_of, ask, complaint};
use table::{Row, Style};

/// Where the ledger is unless the environment says otherwise, as in the configuration.
const STATE_DIR: &str = "/var/lib/staunch";

/// What is said before the faults of a configuration.
const FAULTY: &str = "the configuration cannot be used";

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read this configuration and its certificates, instead of asking a running staunch
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,

    /// Ask the staunch with this admin address, such as http://127.0.0.1:9180 [default: the one in
    /// /etc/staunch/staunch.toml]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    /// Show what happened to certificates, from the ledger in the state directory
    #[arg(long, conflicts_with = "admin")]
    history: bool,

    /// The state directory, if it is not the configured one
    #[arg(long, value_name = "DIR", requires = "history")]
    state_dir: Option<PathBuf>,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let done = if args.history {
        history(&args)
    } else {
        inventory(&args)
    };
    match done {
        Ok(text) => say(text, Exit::Ok),
        Err(why) => {
            eprintln!("staunch certs: {}", why.trim_end());
            Exit::Failed
        }
    }
}

fn inventory(args: &Args) -> Result<String, String> {
    let document = match &args.config {
        Some(path) => read(path)?,
        None => fetch(&admin_of(args.admin.clone()))?,
    };
    if args.json {
        return Ok(format!("{document:#}\n"));
    }
    let rows = document["certificates"].as_array();
    let rows = rows.ok_or("the answer has no \"certificates\"")?;
    let rows: Vec<Row> = rows
        .iter()
        .map(Row::deserialize)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the answer is from another version: {error}"))?;
    Ok(table::inventory(rows, Clock::system().now(), style()))
}

/// The inventory of a running staunch.
fn fetch(admin: &str) -> Result<Value, String> {
    let answer = ask(admin, "/api/certificates", None).map_err(|why| {
        format!("{why}; is staunch running? `staunch certs --config FILE` reads the files instead")
    })?;
    if !answer.status.is_success() {
        return Err(complaint(&answer));
    }
    Ok(answer.body)
}

/// The inventory that a staunch with this configuration would begin with.
fn read(path: &Path) -> Result<Value, String> {
    let config = config::load(path).map_err(|report| format!("{FAULTY}\n{report}"))?;
    let clock = Clock::system();
    let roots = Arc::new(Roots::system());
    let inventory = keeper::survey(Wanted::of(&config), &config.state_dir, clock.clone(), roots);
    Ok(json!({ "certificates": inventory.report(clock.now()) }))
}

fn history(args: &Args) -> Result<String, String> {
    let dir = match (&args.state_dir, &args.config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(path)) => {
            config::load(path)
                .map_err(|report| format!("{FAULTY}\n{report}"))?
                .state_dir
        }
        // As for the admin address: a configuration with a fault says nothing of what runs.
        (None, None) => match config::load(Path::new(DEFAULT_CONFIG)) {
            Ok(config) => config.state_dir,
            Err(_) => {
                env::var_os("STATE_DIRECTORY").map_or_else(|| STATE_DIR.into(), PathBuf::from)
            }
        },
    };
    let entries = ledger::read(&dir).map_err(|error| {
        let dir = dir.display();
        format!("no ledger can be read in {dir}: {error}; name its folder with --state-dir")
    })?;
    if args.json {
        return Ok(format!("{:#}\n", json!({ "history": entries })));
    }
    Ok(table::history(&entries, style()))
}

/// Colours only on a terminal, and never with `NO_COLOR` (no-color.org).
fn style() -> Style {
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = locale
        .into_iter()
        .filter_map(env::var_os)
        .find(|value| !value.is_empty());
    let unicode = locale.is_some_and(|locale| {
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    Style {
        colours: stdout().is_terminal() && !no_colour,
        unicode,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Command::parse_from(line).args
    }

    #[test]
    fn a_running_staunch_is_asked() {
        let (address, _served) = client::tests::answer_once("200 OK", r#"{"certificates":[]}"#);
        let args = args(&["certs", "--admin", &address]);
        assert_eq!(inventory(&args).unwrap(), "no certificates are known\n");
        let (address, _served) = client::tests::answer_once("200 OK", r#"{"certificates":[]}"#);
        let args = self::args(&["certs", "--json", "--admin", &address]);
        let document: Value = serde_json::from_str(&inventory(&args).unwrap()).unwrap();
        assert_eq!(document, json!({"certificates": []}));
    }

    #[test]
    fn files_are_read_when_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let issued = crate::cert::testing::Leaf::new(&["a.test"]).self_signed();
        fs::write(dir.path().join("a.pem"), issued.chain + &issued.key).unwrap();
        let config = dir.path().join("staunch.toml");
        let text = "[[certificate]]\nchain = \"a.pem\"\n[[site]]\nnames = [\"a.test\"]\n\
                    upstream = \"http://127.0.0.1:1\"\n";
        fs::write(&config, text).unwrap();
        let args = args(&["certs", "--config", &config.to_string_lossy()]);
        let text = inventory(&args).unwrap();
        assert!(text.contains("a.test"), "{text}");
    }

    #[test]
    fn the_ledger_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_string_lossy().into_owned();
        let args = args(&["certs", "--history", "--state-dir", &path]);
        assert!(history(&args).unwrap_err().contains("--state-dir"));
        let line = r#"{"time":"2026-06-01T00:00:00Z","event":"loaded","source":"/a.pem"}"#;
        fs::write(dir.path().join("ledger.jsonl"), format!("{line}\n")).unwrap();
        let text = history(&args).unwrap();
        assert_eq!(text, "2026-06-01T00:00:00Z  loaded     /a.pem\n");
    }
}
