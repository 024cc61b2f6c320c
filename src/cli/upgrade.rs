//! `staunch upgrade`: a new process of the program on disk takes over from the running one.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::certs::client::{Answer, admin_of, ask_within, complaint};
use super::{Exit, say};

/// For the whole of it: the running staunch bounds it by `upgrade.ready`, whatever that is.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ask the staunch with this admin address, such as http://127.0.0.1:9180 [default: the one in
    /// /etc/staunch/staunch.toml]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    match ask_within(
        DEADLINE,
        &admin_of(args.admin),
        "/api/upgrade",
        Some(&json!({})),
    ) {
        Ok(answer) => conclude(&answer),
        Err(why) => {
            eprintln!("staunch upgrade: {why}; is staunch running?");
            Exit::Failed
        }
    }
}

fn conclude(answer: &Answer) -> Exit {
    if answer.status != StatusCode::OK {
        let said = complaint(answer);
        eprintln!("staunch upgrade: {said}\nNothing changed: the running process goes on.");
        return Exit::Failed;
    }
    let process = &answer.body["process"];
    let version = answer.body["version"].as_str().unwrap_or("unknown");
    say(
        format_args!(
            "version {version} serves as process {process}; the old one finishes what is open\n"
        ),
        Exit::Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::super::certs::client::tests::answer_once;
    use super::*;

    #[test]
    fn each_answer_has_its_exit_status() {
        let cases = [
            (
                "200 OK",
                r#"{"ok":true,"process":7,"version":"1.2.3"}"#,
                Exit::Ok,
            ),
            (
                "422 Unprocessable Content",
                r#"{"error":"upgrade_failed","detail":"x"}"#,
                Exit::Failed,
            ),
            (
                "409 Conflict",
                r#"{"error":"under_way","detail":"x"}"#,
                Exit::Failed,
            ),
        ];
        for (status, body, expected) in cases {
            let (admin, served) = answer_once(status, body);
            assert_eq!(run(Args { admin: Some(admin) }), expected, "{status}");
            assert!(served.join().unwrap().starts_with("POST /api/upgrade"));
        }
    }
}
