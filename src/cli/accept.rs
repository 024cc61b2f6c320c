//! `staunch accept`: use what is on disk although it was held back.

use std::path;

use http::StatusCode;
use serde_json::json;

use super::certs::client::{Answer, admin_of, ask, complaint};
use super::{Exit, say};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file that holds the chain, as `staunch certs` and the log name it
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Ask the staunch with this admin address, such as http://127.0.0.1:9180 [default: the one in
    /// /etc/staunch/staunch.toml]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,

    /// Your reason, which is recorded in the ledger
    #[arg(long, value_name = "TEXT")]
    because: String,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let Args {
        source,
        admin,
        because,
    } = args;
    // A source is known by its whole path.
    let source = path::absolute(&source).map_or(source, |path| path.display().to_string());
    let body = json!({ "source": source, "because": because });
    match ask(&admin_of(admin), "/api/accept", Some(&body)) {
        Ok(answer) => conclude(&source, &answer),
        Err(why) => {
            eprintln!("staunch accept: {why}; is staunch running?");
            Exit::Failed
        }
    }
}

fn conclude(source: &str, answer: &Answer) -> Exit {
    let said = complaint(answer);
    match answer.status {
        StatusCode::OK => say(format_args!("{source}: {said}\n"), Exit::Ok),
        // Nothing is held back: what was asked for is so already.
        StatusCode::CONFLICT => say(
            format_args!("{source}: nothing to accept: {said}\n"),
            Exit::Ok,
        ),
        StatusCode::UNPROCESSABLE_ENTITY => {
            eprintln!("staunch accept: {source} cannot be served at all: {said}");
            Exit::Bad
        }
        _ => {
            eprintln!("staunch accept: {said}");
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::certs::client::tests::answer_once;
    use super::*;

    #[test]
    fn each_answer_has_its_exit_status() {
        let cases = [
            ("200 OK", r#"{"ok":true,"detail":"done"}"#, Exit::Ok),
            (
                "409 Conflict",
                r#"{"error":"nothing_held_back","detail":"x"}"#,
                Exit::Ok,
            ),
            (
                "422 Unprocessable Content",
                r#"{"error":"no_key","detail":"x"}"#,
                Exit::Bad,
            ),
            (
                "404 Not Found",
                r#"{"error":"unknown_source","detail":"x"}"#,
                Exit::Failed,
            ),
            ("200 OK", "not JSON", Exit::Failed),
        ];
        for (status, body, expected) in cases {
            let (admin, served) = answer_once(status, body);
            let args = Args {
                source: "/a.pem".to_owned(),
                admin: Some(admin),
                because: "so".to_owned(),
            };
            assert_eq!(run(args), expected, "{status}");
            let request = served.join().unwrap();
            assert!(request.starts_with("POST /api/accept"));
            assert!(
                request.ends_with(r#"{"because":"so","source":"/a.pem"}"#),
                "{request}"
            );
        }
    }
}
