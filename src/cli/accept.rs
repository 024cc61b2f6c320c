//! `staunch accept`: use what is on disk although it was held back.

use http::StatusCode;
use serde_json::json;

use super::Exit;
use super::certs::client::{Answer, DEFAULT_ADMIN, ask, complaint};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source, as `staunch certs` and the log call it: the path of its chain
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Ask the staunch with this admin address
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,

    /// Why, for the ledger
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
    let body = json!({ "source": source, "because": because });
    match ask(&admin, "/api/accept", Some(&body)) {
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
        StatusCode::OK => {
            println!("{source}: {said}");
            Exit::Ok
        }
        // Nothing is held back: what was asked for is so already.
        StatusCode::CONFLICT => {
            println!("{source}: nothing to accept: {said}");
            Exit::Ok
        }
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
                admin,
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
