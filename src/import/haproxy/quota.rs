//! Counters of stick tables, as quotas.

use std::fmt::Write as _;

use super::format::{milliseconds, template};
use super::parse::{Line, Section};
use super::{Import, array, quoted};
use crate::import::Loss;

/// `sc_http_req_rate(0) gt 20`, taken apart.
struct Count<'w> {
    /// Its number, where what is counted is said by `track-sc`.
    counter: Option<&'w str>,
    table: Option<&'w str>,
    most: u32,
}

impl<'w> Count<'w> {
    fn of(what: &'w str) -> Option<Self> {
        let words: Vec<_> = what.split_whitespace().collect();
        let sample = *words.first()?;
        let at = words.iter().position(|word| matches!(*word, "gt" | "ge"))?;
        let most: u32 = words.get(at + 1)?.parse().ok()?;
        let most = most.checked_sub(u32::from(words[at] == "ge"))?;
        if words.len() != at + 2 || most == 0 {
            return None;
        }
        let (name, of) = sample.split_once('(').unwrap_or((sample, ")"));
        let mut of = of.strip_suffix(')')?.split(',').filter(|of| !of.is_empty());
        let counter = match name.strip_suffix("_http_req_rate")? {
            "src" => None,
            "sc" => Some(of.next()?),
            sc => Some(sc.strip_prefix("sc").filter(|n| !n.is_empty())?),
        };
        let table = of.next();
        Some(Self {
            counter,
            table,
            most,
        })
    }
}

impl Import {
    /// The name of the quota for a rule that refuses by the rate of requests. `None`: it is told.
    pub(super) fn quota(
        &mut self,
        section: &Section,
        rule: &Line,
        what: &str,
        except: &[String],
    ) -> Option<String> {
        let Some((text, used)) = self.quota_text(section, what, except) else {
            self.bounded(rule, what);
            return None;
        };
        used.iter().for_each(|line| self.seen(line));
        let advice = "429 here, and as soon as the rate allows it clients are let in again; those \
                      that went on were kept out in HAProxy";
        self.tell(rule, Loss::Slight, advice);
        if let Some(name) = self.quota_names.get(&text) {
            return Some(name.clone());
        }
        let taken = self.quota_names.len();
        let mut name = super::key_of(&section.name);
        if taken > 0 {
            let _ = write!(name, "-{}", taken + 1);
        }
        let _ = write!(
            self.quotas,
            "\n[quota.{name}]  # from {}\n{text}",
            rule.place
        );
        self.quota_names.insert(text, name.clone());
        Some(name)
    }

    /// What is written, and the lines that it is made of.
    fn quota_text(
        &self,
        section: &Section,
        what: &str,
        except: &[String],
    ) -> Option<(String, Vec<Line>)> {
        let count = Count::of(what)?;
        let mut used = Vec::new();
        let (mut by, mut table) = (None, count.table.map(str::to_owned));
        if let Some(counter) = count.counter {
            let action = format!("track-sc{counter}");
            let is = |line: &&Line| line.word(1) == action || line.word(2) == action;
            let track = section.lines.iter().find(is)?;
            // What is counted for some requests only would bound others too.
            if track.has("if") || track.has("unless") {
                return None;
            }
            let key = track.after(&action)?;
            if key != "src" {
                by = Some(template(&format!("%[{key}]")).ok()?);
            }
            table = table.or_else(|| track.after("table").map(str::to_owned));
            used.push(track.clone());
        }
        let table = self.tables.get(table.as_deref().unwrap_or(&section.name))?;
        let period = (table.words.iter())
            .flat_map(|word| word.split([',', ' ']))
            .find_map(|word| word.strip_prefix("http_req_rate(")?.strip_suffix(')'))?;
        let rate = rate(count.most, milliseconds(period)?)?;
        used.push(table.clone());
        let mut text = format!("requests = {}\nburst = {}\n", quoted(&rate), count.most);
        if let Some(by) = by {
            let _ = writeln!(text, "by = {}", quoted(&by));
        }
        if !except.is_empty() {
            let _ = writeln!(text, "except = {}", array(except));
        }
        Some((text, used))
    }
}

/// So many in so long, by the smallest unit that keeps it whole.
fn rate(most: u32, period: u64) -> Option<String> {
    const MOST: u64 = 1_000_000;
    let of = |unit: u64| u64::from(most) * unit / period.max(1);
    let whole = |unit: u64| (u64::from(most) * unit).is_multiple_of(period);
    let (count, unit) = match period {
        0 => return None,
        _ if whole(1000) => (of(1000), "s"),
        _ if whole(60_000) => (of(60_000), "m"),
        _ => (of(3_600_000).max(1), "h"),
    };
    (count <= MOST).then(|| format!("{count}/{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_taken_apart() {
        let of = |what| Count::of(what).map(|c| (c.counter, c.table, c.most));
        assert_eq!(of("sc_http_req_rate(0) gt 20"), Some((Some("0"), None, 20)));
        assert_eq!(
            of("sc1_http_req_rate(t) ge 9"),
            Some((Some("1"), Some("t"), 8))
        );
        assert_eq!(
            of("sc_http_req_rate(2,t) gt 1"),
            Some((Some("2"), Some("t"), 1))
        );
        assert_eq!(of("src_http_req_rate(t) gt 5"), Some((None, Some("t"), 5)));
        assert_eq!(of("src_http_req_rate gt 5"), Some((None, None, 5)));
        for other in [
            "sc_conn_rate(0) gt 3",
            "!sc_http_req_rate(0) gt 3",
            "sc_http_req_rate(0) lt 3",
            "sc_http_req_rate(0)",
            "sc_http_req_rate(0) gt 3 and more",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_rate_keeps_its_share_of_time() {
        assert_eq!(rate(20, 10_000).as_deref(), Some("2/s"));
        assert_eq!(rate(5, 10_000).as_deref(), Some("30/m"));
        assert_eq!(rate(100, 3_600_000).as_deref(), Some("100/h"));
        assert_eq!(rate(1, 86_400_000).as_deref(), Some("1/h"));
        assert_eq!(rate(1, 0), None);
    }
}
