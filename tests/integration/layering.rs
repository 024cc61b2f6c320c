//! The house holds to its own rules: which module may use which, and what a file may look like.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Lines that one file may have: what can still be read in one go.
const MAX_LINES: usize = 800;

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty());
    files.sort();
    files
}

fn relative(path: &Path) -> String {
    path.strip_prefix(ROOT).unwrap().display().to_string()
}

/// Lines with their numbers, comments and what follows them left out.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| {
        let code = match line.find("//") {
            // Not the one of a URL.
            Some(begin) if !line[..begin].ends_with(':') => &line[..begin],
            _ => line,
        };
        (at + 1, code)
    })
}

/// The group a file belongs to: `cert` for `src/cert.rs` and for `src/cert/load.rs`.
fn group(path: &Path) -> String {
    let path = path.strip_prefix(Path::new(ROOT).join("src")).unwrap();
    let first = path.components().next().unwrap();
    let first = first.as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Names that follow `crate::` in a line: one, or those of `crate::{a, b::c}`.
fn used(line: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        // `macro_crate::` is another word, `$crate::` is the same.
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                names.extend(list.split(',').map(|item| first_word(item.trim())));
            }
            None => names.push(first_word(rest)),
        }
    }
    names
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn a_module_uses_only_modules_further_down() {
    let lib = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).unwrap();
    let order: BTreeMap<_, _> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .enumerate()
        .map(|(at, name)| (name, at))
        .collect();
    assert!(order.len() > 5, "{order:?}");
    let mut upward = Vec::new();
    for file in rust_files("src") {
        let group = group(&file);
        // The root of the crate, and the program over it, stand above all.
        let Some(own) = order.get(group.as_str()) else {
            assert!(["lib", "main"].contains(&group.as_str()), "{group}");
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in code(&text) {
            for name in used(line) {
                if order.get(name).is_some_and(|other| other < own) {
                    upward.push(format!("{}:{number}: {}", relative(&file), line.trim()));
                }
            }
        }
    }
    assert!(upward.is_empty(), "upward:\n{}", upward.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = ["src", "tests"]
        .iter()
        .flat_map(|folder| rust_files(folder))
        .map(|file| (fs::read_to_string(&file).unwrap().lines().count(), file))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:#?}");
}

#[test]
fn a_module_stands_beside_its_folder() {
    for folder in ["src", "tests"] {
        for file in rust_files(folder) {
            assert!(!file.ends_with("mod.rs"), "{}", file.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for folder in ["src", "tests"] {
        for file in rust_files(folder) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("//!"), "{}", file.display());
        }
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    // Put together here, so that this file does not find itself.
    let words = ["todo!", "unimplemented!", "dbg!"].map(|word| format!("{word}("));
    let marks = ["TODO", "FIXME", "XXX"].map(|mark| format!(" {mark}"));
    let mut found = Vec::new();
    for file in ["src", "tests"]
        .iter()
        .flat_map(|folder| rust_files(folder))
    {
        if file.ends_with("layering.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            if words.iter().chain(&marks).any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {line}", relative(&file), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_test_waits_for_a_fixed_time() {
    let mut found = Vec::new();
    for file in rust_files("tests") {
        // The one place that may, between two looks at a condition; and this one, which says so.
        if file.ends_with("support/wait.rs") || file.ends_with("layering.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in code(&text) {
            if line.contains("sleep(") {
                found.push(format!("{}:{number}: {}", relative(&file), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
