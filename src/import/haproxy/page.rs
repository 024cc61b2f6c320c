//! Responses that are kept in files: `errorfile`, `errorfiles`, `http-request return … file`.

use std::collections::BTreeMap;
use std::fs;

use super::Import;
use super::parse::{Line, Section};
use super::rule::answer;
use crate::http::kept::Kept;
use crate::import::{Loss, quoted};

/// Files by the status of errors.
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
                pages.insert(status, path);
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
        .map(|(status, file)| format!("{status} = {}", quoted(file)));
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
