//! Text that means harm, or nothing.

use proptest::prelude::*;

use super::*;

#[test]
fn no_secret_is_shown() {
    for text in [
        "[[alerts.sink]]\ntype = 'webhook'\ntoken = 'hunter2'",
        "[[alerts.sink]]\ntype = 'webhook'\ntoken = 'hunter2",
        "[[alerts.sink]]\ntype = 'email'\n\"password\"='hunter2'",
        "alerts.sink = [{ type = 'webhook', bogus = 1, token = '''hunter2''' }]",
        "[[alerts.sink]]\ntype = 'webhook'\nrouting_key = 'hunter2'",
        "[[site]]\nnames = ['a.b']\nupstream = 'http://me:hunter2@x'",
        "[[site]]\nnames = ['a.b']\nupstream = 'http://me:hunter2@x/y'",
        "[[alerts.sink]]\ntype = 'webhook'\nurl = 'https://hunter2@x/y'",
        "[[alerts.sink]]\ntype = 'email'\nserver = 'smtp://hunter2@x'",
    ] {
        let said = refused(text);
        assert!(!said.contains("hunter2"), "{text}\n{said}");
    }
}

#[test]
fn what_is_shown_is_bounded_and_on_one_line() {
    let many = format!("[listen]\nhttps = [{}]\n", "1, ".repeat(10_000));
    let said = refused(&many);
    assert!(
        said.len() < 100_000 && said.contains("9900 more of the like"),
        "{said}"
    );
    assert!(said.lines().all(|line| line.len() < 500));
    let said = refused("\"\\u001b[2J\\n\" = 1");
    assert!(!said.contains('\u{1b}'), "{said}");
    let said = refused("\tünknown\t=\t1");
    assert!(said.contains(":1:2:"), "{said}");
}

#[test]
fn what_is_too_large_is_not_read() {
    let said = refused(&"#".repeat(LARGEST + 1));
    assert!(said.contains("is larger than"), "{said}");
}

/// Each of these once cost time or memory out of proportion to its size, or might.
#[test]
fn a_file_that_is_all_faults_costs_no_more_than_its_size() {
    let keys = |count: usize| -> String { (0..count).map(|n| format!("k{n}=1\n")).collect() };
    let names = |count: usize| -> String {
        (0..count)
            .map(|n| {
                format!(
                    "[[site]]\nnames=['a{n}.b']\nupstream='u{n}'\n[upstream.v{n}]\nservers=[]\n"
                )
            })
            .collect()
    };
    let long = "x".repeat(400_000);
    for text in [
        keys(90_000),
        names(3_000),
        format!("[upstream.{long}]\n{}", keys(40_000)),
        "token=x ".repeat(100_000),
        "http://a@b ".repeat(90_000),
        format!("a = {}", "[".repeat(500_000)),
        format!("{} = 1", ["a"; 400_000].join(".")),
        "[[site]]\n".repeat(100_000),
        "=\n".repeat(400_000),
        format!("{long} = 1"),
        format!("[timeouts]\nidle = \"{}\"", "1h".repeat(400_000)),
    ] {
        let said = refused(&text);
        assert!(said.len() < 200_000, "{} bytes", said.len());
    }
}

/// Whatever the text: no panic, places within it, and something to show.
fn hostile(text: &str) -> Result<(), TestCaseError> {
    let report = match parse(text) {
        Ok(config) => config.warnings,
        Err(report) => {
            prop_assert!(!report.is_empty());
            report
        }
    };
    for diagnostic in report.diagnostics() {
        let span = diagnostic.span.clone().unwrap_or(0..0);
        prop_assert!(text.get(span).is_some(), "{:?}", diagnostic);
        prop_assert!(!diagnostic.message.is_empty());
    }
    let _ = report.to_string();
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_text_is_survived(text in "\\PC*") {
        hostile(&text)?;
    }

    #[test]
    fn arbitrary_lines_are_survived(
        lines in proptest::collection::vec(
            "(\\[{0,2}(listen|site|site\\.route|upstream\\.a|alerts\\.sink|log)\\]{0,2}|\
             (type|names|upstream|https|path|servers|url|idle|token)( = |\\.)\
             ('[a-z:/.*@]{0,9}'|\\[('[a-z:/*]{0,5}',?){0,3}\\]|[0-9.a-z-]{1,4}|\\{ ?a ?= ?1 ?\\}))",
            0..12,
        )
    ) {
        hostile(&lines.join("\n"))?;
    }

    #[test]
    fn mutated_examples_are_survived(
        which in 0_usize..3,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0_u8..4), 1..8),
    ) {
        let text = [
            include_str!("../../../config/staunch.toml"),
            include_str!("../../../config/load-balancer.toml"),
            COMPLETE,
        ][which];
        let mut chars: Vec<char> = text.chars().collect();
        for (at, c, kind) in edits {
            if chars.is_empty() {
                break;
            }
            let at = at.index(chars.len());
            match kind {
                0 => chars[at] = c,
                1 => chars.insert(at, c),
                2 => { chars.remove(at); }
                _ => chars.truncate(at),
            }
        }
        hostile(&chars.into_iter().collect::<String>())?;
    }
}
