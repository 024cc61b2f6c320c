//! `staunch upstreams`: the servers behind, as a table.

use std::fmt::Write;

use serde::Deserialize;

use super::certs::client::{admin_of, ask, complaint};
use super::{Exit, say};
use crate::upstream::report::{Report, ServerReport};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ask the staunch with this admin address, such as http://127.0.0.1:9180 [default: the one in
    /// /etc/staunch/staunch.toml]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What the admin address answers.
#[derive(Deserialize)]
struct Document {
    upstreams: Vec<Report>,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    match show(&args) {
        Ok(text) => say(text, Exit::Ok),
        Err(why) => {
            eprintln!("staunch upstreams: {why}");
            Exit::Failed
        }
    }
}

fn show(args: &Args) -> Result<String, String> {
    let answer = ask(&admin_of(args.admin.clone()), "/api/upstreams", None)
        .map_err(|why| format!("{why}; is staunch running?"))?;
    if !answer.status.is_success() {
        return Err(complaint(&answer));
    }
    if args.json {
        return Ok(format!("{:#}\n", answer.body));
    }
    let document = Document::deserialize(&answer.body)
        .map_err(|error| format!("the answer is from another version: {error}"))?;
    Ok(table(&document.upstreams))
}

const HEADS: [&str; 11] = [
    "UPSTREAM", "SERVER", "STATE", "WEIGHT", "ACTIVE", "OPEN", "QUEUED", "REQUESTS", "FAILED",
    "EJECTED", "LATENCY",
];

/// One line a server, and below it what is wrong.
fn table(upstreams: &[Report]) -> String {
    if upstreams.iter().all(|upstream| upstream.servers.is_empty()) {
        return "there are no upstreams\n".to_owned();
    }
    let mut rows = vec![(HEADS.map(str::to_owned), None)];
    for upstream in upstreams {
        for server in &upstream.servers {
            rows.push((cells(upstream, server), server.detail.as_deref()));
        }
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|(cells, _)| cells[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; HEADS.len()] = std::array::from_fn(width);
    let mut text = String::new();
    for (cells, detail) in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            // Words to the left, numbers to the right.
            let _ = match column {
                0..=2 => write!(line, "{cell:width$}  "),
                _ => write!(line, "{cell:>width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
        if let Some(detail) = detail {
            let _ = writeln!(text, "  last check: {detail}");
        }
    }
    text
}

fn cells(upstream: &Report, server: &ServerReport) -> [String; HEADS.len()] {
    let backup = if server.backup { " (backup)" } else { "" };
    [
        upstream.name.clone(),
        server.url.clone(),
        format!("{}{backup}", server.standing),
        server.weight.to_string(),
        server.in_flight.to_string(),
        server.connections.to_string(),
        server.queued.to_string(),
        server.requests.to_string(),
        server.failures.to_string(),
        server.ejections.to_string(),
        format!("{:.1} ms", server.latency_ms),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_server_and_says_what_is_wrong() {
        let server = ServerReport {
            url: "http://10.0.0.5:9000".to_owned(),
            standing: "down".to_owned(),
            detail: Some("the status is 500".to_owned()),
            weight: 3,
            backup: true,
            addresses: Vec::new(),
            in_flight: 1,
            connections: 2,
            queued: 0,
            requests: 12,
            failures: 4,
            ejections: 1,
            latency_ms: 1.25,
            certificate_not_after: None,
        };
        let upstreams = [Report {
            name: "api".to_owned(),
            servers: vec![server],
        }];
        let text = table(&upstreams);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("UPSTREAM  SERVER"));
        assert!(lines[1].contains("down (backup)"));
        assert_eq!(lines[2], "  last check: the status is 500");
        assert_eq!(table(&[]), "there are no upstreams\n");
    }
}
