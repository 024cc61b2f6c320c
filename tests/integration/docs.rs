//! The book keeps its word: links lead somewhere, commands and keys exist, and the reference is that
//! of the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use staunch::config;

use crate::support::{BINARY, Origin, Staunch, TestCa, eventually, require, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Every page: the book, and what lies beside it.
fn pages() -> BTreeMap<PathBuf, String> {
    let root = Path::new(ROOT);
    let mut paths = vec!["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .into_iter()
        .map(|name| root.join(name))
        .collect::<Vec<_>>();
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        paths.push(entry.unwrap().path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Lines outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        if line.trim_start().starts_with("```") {
            code = !code;
            return false;
        }
        !code
    })
}

/// Blocks of code in a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut found, mut block): (Vec<String>, Option<String>) = (Vec::new(), None);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut block) {
            (Some(name), None) => {
                block = (name == language)
                    .then(String::new)
                    .or_else(|| Some("\0".into()))
            }
            (Some(_), Some(_)) => found.extend(block.take().filter(|text| !text.starts_with('\0'))),
            (None, Some(block)) => writeln!(block, "{line}").unwrap(),
            (None, None) => {}
        }
    }
    found
}

/// The anchors of a page, as they are made of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let keep = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            title
                .chars()
                .filter(keep)
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

/// What `[text](target)` leads to.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            found.extend(rest.find(')').map(|end| rest[..end].to_owned()));
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let mut count = 0;
    for (page, text) in &pages {
        for link in links(text) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let shown = format!("{}: {link}", page.display());
            let target =
                fs::canonicalize(&target).unwrap_or_else(|_| panic!("{shown}: is not there"));
            if anchor.is_empty() {
                continue;
            }
            let text = fs::read_to_string(&target).unwrap();
            assert!(
                anchors(&text).contains(anchor),
                "{shown}: there is no such heading"
            );
        }
    }
    assert!(count > 30, "{count} links");
}

#[test]
fn every_page_is_in_the_index() {
    let index = fs::read_to_string(Path::new(ROOT).join("docs/README.md")).unwrap();
    let links = links(&index);
    for page in pages()
        .keys()
        .filter(|page| page.starts_with(Path::new(ROOT).join("docs")))
    {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(
            name == "README.md" || links.iter().any(|link| link == name),
            "{name}"
        );
    }
}

#[test]
fn commands_of_the_book_exist() {
    let builder = Staunch::build();
    let mut helps: BTreeMap<Vec<String>, String> = BTreeMap::new();
    let mut count = 0;
    for (page, text) in pages() {
        for line in blocks(&text, "console")
            .iter()
            .flat_map(|block| block.lines())
        {
            let Some(line) = line.trim_start().strip_prefix("$ ") else {
                continue;
            };
            let words: Vec<_> = line.split_whitespace().collect();
            let Some(begin) = words
                .iter()
                .position(|word| word.ends_with("staunch") && !word.contains("./"))
            else {
                continue;
            };
            // `sudo -u staunch staunch check`, `systemctl start staunch`
            let rest: Vec<_> = words[begin + 1..]
                .iter()
                .skip_while(|word| **word == "staunch")
                .collect();
            let is_command =
                |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
            let sub: Vec<String> = rest
                .iter()
                .take_while(|word| is_command(word))
                .take(if rest.first().is_some_and(|word| **word == "import") {
                    2
                } else {
                    1
                })
                .map(|word| (**word).to_owned())
                .collect();
            let programs = ["sudo", "-u", "staunch"];
            if sub.is_empty() || words[..begin].iter().any(|word| !programs.contains(word)) {
                continue;
            }
            count += 1;
            let help = helps
                .entry(sub.clone())
                .or_insert_with(|| run(builder.command().args(&sub).arg("--help")).ok());
            let flags = rest.iter().filter(|word| word.starts_with("--"));
            for flag in flags.map(|flag| flag.split('=').next().unwrap()) {
                assert!(
                    help.contains(flag),
                    "{}: {line}: there is no {flag}",
                    page.display()
                );
            }
        }
    }
    assert!(count > 8, "{count} commands");
}

#[test]
fn keys_of_the_book_exist() {
    let mut count = 0;
    for (page, text) in pages() {
        for block in blocks(&text, "toml") {
            count += 1;
            let Err(report) = config::parse(&block, Path::new("staunch.toml")) else {
                continue;
            };
            // A part of a file may lack what it needs, but says nothing that is not understood.
            let report = report.to_string();
            for wrong in [
                "unknown key",
                "unknown section",
                "expected",
                "is out of range",
            ] {
                assert!(!report.contains(wrong), "{}:\n{report}", page.display());
            }
        }
    }
    assert!(count > 8, "{count} blocks");
}

/// `docs/configuration.md`, as the readers of the configuration say it.
fn reference() -> String {
    let mut text = "# Configuration, key by key\n\n\
        Made from the program itself by `scripts/docs`; a test sees that it is up to date. \
        `config/staunch.toml` has the same in one file, with examples.\n\n\
        Durations are strings (`\"250ms\"`, `\"10s\"`, `\"1h30m\"`, `\"90d\"`), and so are sizes \
        (`\"64KiB\"`, `\"1MB\"`, `\"0\"`). Relative paths are below the folder of the file. An unknown key \
        is an error, with its line and the nearest known key.\n"
        .to_owned();
    let docs = config::reference();
    let mut sections: Vec<&str> = Vec::new();
    for doc in &docs {
        if !sections.contains(&doc.section) {
            sections.push(doc.section);
        }
    }
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    for section in sections {
        match section {
            "" => text.push_str("\n## At the top\n"),
            section => write!(text, "\n## {section}\n").unwrap(),
        }
        text.push_str(
            "\n| key | what can be written | default | meaning |\n| --- | --- | --- | --- |\n",
        );
        let mut said = BTreeSet::new();
        for doc in docs.iter().filter(|doc| doc.section == section) {
            if !said.insert(doc.key) {
                continue;
            }
            let default = match doc.default.as_deref() {
                Some("required") => "required".to_owned(),
                Some(default) => format!("`{}`", cell(default)),
                None => String::new(),
            };
            let (form, meaning) = (cell(&doc.form), cell(doc.meaning));
            writeln!(text, "| `{}` | {form} | {default} | {meaning} |", doc.key).unwrap();
        }
    }
    text
}

#[test]
fn the_reference_is_that_of_the_program() {
    let path = Path::new(ROOT).join("docs/configuration.md");
    let text = reference();
    if std::env::var_os("STAUNCH_WRITE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/configuration.md is not up to date: run scripts/docs"
    );
}

#[test]
fn the_reference_has_every_key_of_the_example() {
    let example = fs::read_to_string(Path::new(ROOT).join("config/staunch.toml")).unwrap();
    let known: BTreeSet<_> = (config::reference().iter()).map(|doc| doc.key).collect();
    let is_key = |key: &&str| {
        let word = |byte| matches!(byte, b'a'..=b'z' | b'_');
        !key.is_empty() && key.bytes().all(word)
    };
    let keys: BTreeSet<_> = (example.lines())
        .filter_map(|line| line.trim_start_matches('#').split_once(" = "))
        .map(|(key, _)| key.trim())
        .filter(is_key)
        .collect();
    assert!(keys.len() > 150, "{keys:?}");
    let missing: Vec<_> = keys.difference(&known).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The steps of the runbook, done literally but for who does them, where, and with what ports.
#[test]
fn a_certificate_is_renewed_by_hand_as_the_runbook_says() {
    const NAME: &str = "example.com";
    let page = fs::read_to_string(Path::new(ROOT).join("docs/runbook.md")).unwrap();
    let section = page.split("## Renewing by hand\n").nth(1).unwrap();
    let steps = blocks(section.split("\n## ").next().unwrap(), "console");
    let [ask, look, place, see] = &steps[..] else {
        panic!("{steps:#?}");
    };

    let origin = Origin::echo();
    let builder = Staunch::build();
    let ca = TestCa::new().intermediate();
    let overdue = ca.leaf(&[NAME]).days(-80, 9).issue();
    let folder = builder.path("certificates");
    fs::create_dir(&folder).unwrap();
    let at = |name: &str| builder.path(name).display().to_string();
    let (root, issuer, key) = (at("root.pem"), at("issuer.pem"), at("issuer.key"));
    let (certificate, private) = ca.signing();
    fs::write(&root, &ca.root().pem).unwrap();
    fs::write(&issuer, certificate).unwrap();
    fs::write(&key, private).unwrap();
    let place_of = folder.join(NAME).display().to_string();
    let proxy = builder
        .leaf(&overdue)
        .folder(&folder)
        .site(NAME, &origin)
        .start();
    assert_eq!(proxy.tls(NAME).leaf(), overdue.fingerprint);

    let follow = |step: &str| {
        let commands: String = (step.lines())
            .map(|line| format!("{}\n", line.trim_start().strip_prefix("$ ").unwrap()))
            .collect();
        let commands = commands
            .replace("sudo ", "")
            .replace("/etc/staunch/certificates/example.com", &place_of)
            .replace("chgrp staunch ", "chgrp \"$(id -gn)\" ")
            .replace(
                "openssl verify ",
                &format!("openssl verify -CAfile {root} "),
            )
            .replace(
                "staunch certs",
                &format!("{BINARY} certs --admin http://{}", proxy.admin()),
            )
            .replace(
                "staunch probe example.com",
                &format!(
                    "{BINARY} probe {} --name {NAME} --roots {root}",
                    proxy.https()
                ),
            );
        let script = format!("set -eu -o pipefail\nmkdir -p {place_of}\ncd {place_of}\n{commands}");
        run(Command::new(require("bash")).args(["-c", &script])).ok()
    };
    follow(ask);
    // What the authority does.
    let issue = format!(
        "openssl x509 -req -in request.new -CA {issuer} -CAkey {key} -set_serial 77 -days 90 \
         -copy_extensions copy -out leaf && cat leaf {issuer} >fullchain.new && rm leaf"
    );
    follow(&format!("$ {issue}"));
    let seen = follow(look);
    assert!(seen.contains("fullchain.new: OK"), "{seen}");
    let sums: Vec<_> = seen.lines().filter(|line| line.ends_with("  -")).collect();
    assert!(sums.len() == 2 && sums[0] == sums[1], "{seen}");
    follow(place);
    eventually("it is served", || {
        (proxy.tls(NAME).leaf() != overdue.fingerprint).then_some(())
    });
    let seen = follow(see);
    assert!(seen.contains("www.example.com"), "{seen}");
}
