//! Faults of the text itself, which is no TOML where they are.
//!
//! TOML's parser goes on after a fault, so that several can be told at once. What it finds after
//! a bracket that is not closed, and behind the first fault of a line, are consequences: they
//! would only hide the cause.

use toml::de::Error;

use super::diagnostic::Diagnostic;

/// What is wrong with the text, a fault for each cause.
pub(super) fn faults(text: &str, errors: &[Error]) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    let mut last_line = None;
    let unclosed = errors.iter().any(|error| {
        let message = error.message();
        message.contains("unclosed array") || message.contains("unclosed inline table")
    });
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let before = text.get(..span.start).unwrap_or_default();
        let line = before.bytes().filter(|&byte| byte == b'\n').count();
        if last_line.replace(line) == Some(line) {
            continue;
        }
        let message = error.message();
        let fault = Diagnostic::error(span, message);
        if found.is_empty()
            && let Some(program) = other_program(text)
        {
            let help = format!("`staunch import {program} FILE` converts it");
            let message = format!("this is no TOML: it looks like a configuration of {program}");
            return vec![Diagnostic { message, ..fault }.help(help)];
        }
        if unclosed && message.contains("missing comma between") {
            found.push(fault.help("is the bracket before this one closed? Write `]`, or a comma"));
            break;
        }
        found.push(match help(message) {
            Some(help) => fault.help(help),
            None => fault,
        });
    }
    found
}

/// What to do, where the parser's words do not say it.
fn help(message: &str) -> Option<&'static str> {
    if message.contains("duplicate key") {
        return Some("it is there already, further up: put both together, or take one out");
    }
    message
        .contains("string values must be quoted")
        .then_some("write it in quotes: `\"…\"`")
}

/// The program whose configuration the text looks like.
fn other_program(text: &str) -> Option<&'static str> {
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["server" | "http" | "events", "{"] | ["upstream", _, "{"] => Some("nginx"),
            ["frontend" | "backend" | "listen", name] if !name.starts_with('=') => Some("haproxy"),
            _ => None,
        }
    })
}
