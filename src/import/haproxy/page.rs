//! Responses that are kept in files: `errorfile`, `errorfiles`, `http-request return … file`.

use std::collections::BTreeMap;
use std::fs;

use super::Import;
use super::parse::{Line, Section};
use super::rule::answer;
use crate::http::kept::Kept;
use crate::import::{Loss, quoted};

/// What is said by the status of errors, as TOML.
pub(super) type Pages = BTreeMap<u16, String>;

/// A body that is written into the configuration has so many bytes at most.
const LARGEST: usize = 16 * 1024;

impl Import {
    /// The pages that a section has for errors; `defaults`: those of its defaults too.
    pub(super) fn pages(&mut self, section: &Section, defaults: bool) -> Pages {
        let mut pages = match section.defaults.as_deref() {
            Some(wider) if defaults => self.pages(wider, true),
            _ => Pages::new(),
        };
        for line in &section.lines {
            match line.word(0) {
                "errorfile" => self.page(line, &mut pages),
                "errorloc" | "errorloc302" | "errorloc303" => self.elsewhere(line, &mut pages),
                "errorfiles" => {
                    let wanted = &line.words[2.min(line.words.len())..];
                    let lists = self
                        .error_lists
                        .get(line.word(1))
                        .cloned()
                        .unwrap_or_default();
                    self.seen(line);
                    for page in &lists {
                        if wanted.is_empty() || wanted.iter().any(|code| code == page.word(1)) {
                            self.page(page, &mut pages);
                        }
                    }
                }
                _ => {}
            }
        }
        pages
    }

    /// `errorloc`: clients are sent elsewhere.
    fn elsewhere(&mut self, line: &Line, pages: &mut Pages) {
        let Ok(status) = line.word(1).parse::<u16>() else {
            return;
        };
        let to = line.word(2);
        let begins = ["/", "http://", "https://"];
        if to.starts_with("//") || !begins.iter().any(|begin| to.starts_with(begin)) {
            let advice = "leads to no URL, as it has neither a scheme nor a slash in front";
            return self.tell(line, Loss::Real, advice);
        }
        self.seen(line);
        let other = match line.word(0) {
            "errorloc303" => ", status = 303",
            _ => "",
        };
        pages.insert(status, format!("{{ redirect = {}{other} }}", quoted(to)));
    }

    /// What is said to clients that ask too often.
    pub(super) fn page_of_quota(&mut self, rule: &Line, lines: &[String]) {
        let of = |key: &str| lines.iter().find(|line| line.starts_with(key)).cloned();
        let Some(body) = of("body = ") else {
            let advice = "is answered with the status alone, without what it says besides; see \
                          error_pages";
            return self.tell(rule, Loss::Slight, advice);
        };
        let parts: Vec<_> = [Some(body), of("content_type = ")]
            .into_iter()
            .flatten()
            .collect();
        let said = format!("{{ {} }}", parts.join(", "));
        let before = self.pages.insert(429, said.clone());
        if before.is_some_and(|before| before != said) {
            let advice = "all that ask too often are told the same here; see error_pages";
            self.tell(rule, Loss::Slight, advice);
        }
    }

    fn page(&mut self, line: &Line, pages: &mut Pages) {
        let Ok(status) = line.word(1).parse::<u16>() else {
            return;
        };
        if line.word(2) == "/dev/null" {
            pages.remove(&status);
            let advice = "nothing is said to such a client in HAProxy; here it gets a line of text";
            return self.tell(line, Loss::Slight, advice);
        }
        let path = self.absolute(line.word(2));
        if status < 400 {
            let advice = "is no error here: write what is said with this status as the body of its \
                          route; see respond";
            return self.tell(line, Loss::Real, advice);
        }
        match text(&path) {
            Some(text) => {
                let said = Kept::read(text.as_bytes()).status;
                if said.is_some_and(|said| said != status) {
                    let advice = format!("is answered with {status} here, whatever the file says");
                    self.tell(line, Loss::Slight, advice);
                }
                let lost = fields(&text);
                match lost.is_empty() {
                    true => self.seen(line),
                    false => {
                        let advice = format!(
                            "the body of the file is sent, without the fields of its head: {}; see \
                             response_headers",
                            lost.join(", ")
                        );
                        self.tell(line, Loss::Slight, advice);
                    }
                }
                pages.insert(status, quoted(&path));
            }
            None => {
                let advice = format!(
                    "{path} cannot be read: where there is such a page, name it in error_pages"
                );
                self.tell(line, Loss::Slight, advice);
            }
        }
    }

    /// What a backend without servers answers all of its requests with: its own page for 503, with the
    /// status that the file says.
    pub(super) fn page_of_nobody(&mut self, section: &Section) -> Option<Vec<String>> {
        let pages = section.all("errorfile");
        let line = pages.filter(|line| line.word(1) == "503").last()?;
        let path = self.absolute(line.word(2));
        let text = text(&path)?;
        if Kept::read(text.as_bytes()).body.len() > LARGEST {
            return None;
        }
        let advice = format!("{path} is written as a body, as it is now");
        self.tell(line, Loss::Slight, advice);
        Some(answer(line, &text, "503"))
    }

    /// The text of the file that a `return` takes its body from. `None`: it is told.
    pub(super) fn returned(&mut self, rule: &Line) -> Option<String> {
        let word = ["file", "errorfile"]
            .into_iter()
            .find(|word| rule.has(word))?;
        let path = self.absolute(rule.after(word)?);
        let fits = |text: &String| Kept::read(text.as_bytes()).body.len() <= LARGEST;
        let found = text(&path).filter(fits);
        // What is in a file may change; what is written here does not.
        if found.is_some() {
            let advice = format!("{path} is written as a body, as it is now");
            self.tell(rule, Loss::Slight, advice);
        }
        found
    }
}

/// As `error_pages`.
pub(super) fn table(pages: &Pages) -> String {
    let each = pages
        .iter()
        .map(|(status, said)| format!("{status} = {said}"));
    format!("{{ {} }}", each.collect::<Vec<_>>().join(", "))
}

/// Fields in the head of such a file that are no matter of course.
fn fields(text: &str) -> Vec<&str> {
    const USUAL: [&str; 6] = [
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "server",
    ];
    let lines = match Kept::read(text.as_bytes()).has_head {
        true => text.lines().skip(1).take_while(|line| !line.is_empty()),
        false => return Vec::new(),
    };
    let names = lines.filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let unusual = names.filter(|name| !USUAL.iter().any(|one| one.eq_ignore_ascii_case(name)));
    unusual.collect()
}

/// The text of such a file.
fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}
