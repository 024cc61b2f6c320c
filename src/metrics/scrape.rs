//! One scrape: samples of all families, and their text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::names::Metric;
use super::requests::CodeCount;

/// The samples of one scrape, as they are gathered.
#[derive(Default)]
pub struct Scrape {
    families: BTreeMap<&'static str, Gathered>,
}

struct Gathered {
    help: &'static str,
    kind: Kind,
    samples: Vec<Sample>,
}

/// What a family counts, as `# TYPE` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub(super) struct Sample {
    /// As they are written, without the braces.
    pub(super) labels: Arc<str>,
    pub(super) value: Value,
}

pub(super) enum Value {
    Integer(u64),
    Float(f64),
    Histogram {
        bounds: &'static [f64],
        /// For each bucket, not cumulative.
        counts: Vec<u64>,
        micros: u64,
    },
    /// Several samples: the labels `method` and `code` are added.
    Codes(Vec<CodeCount>),
}

impl Scrape {
    /// Adds one sample of a gauge. Of several with equal labels the first is kept.
    pub fn gauge(&mut self, metric: Metric, labels: &[(&'static str, &str)], value: f64) {
        self.add(metric, Kind::Gauge, labels, Value::Float(value));
    }

    /// Adds one sample of a counter that is kept elsewhere. Of several with equal labels the first
    /// is kept.
    pub fn counter(&mut self, metric: Metric, labels: &[(&'static str, &str)], value: u64) {
        self.add(metric, Kind::Counter, labels, Value::Integer(value));
    }

    /// Adds one sample of a counter of seconds.
    pub(super) fn seconds(&mut self, metric: Metric, value: f64) {
        self.add(metric, Kind::Counter, &[], Value::Float(value));
    }

    fn add(&mut self, metric: Metric, kind: Kind, labels: &[(&'static str, &str)], value: Value) {
        let labels = render_labels(labels).into();
        let sample = std::iter::once(Sample { labels, value });
        self.extend(metric.name, metric.help, kind, sample);
    }

    /// Adds samples to a family.
    pub(super) fn extend(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        samples: impl Iterator<Item = Sample>,
    ) {
        let family = self.families.entry(name).or_insert_with(|| Gathered {
            help,
            kind,
            samples: Vec::new(),
        });
        family.samples.extend(samples);
    }

    /// The text.
    pub(super) fn render(self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for (name, mut family) in self.families {
            family.samples.sort_by(|a, b| a.labels.cmp(&b.labels));
            family.samples.dedup_by(|b, a| a.labels == b.labels);
            let mut body = Body {
                text: &mut text,
                name,
                head: Some((family.help, family.kind)),
            };
            for sample in &family.samples {
                body.sample(sample);
            }
        }
        text
    }
}

/// Writes one family; its `# HELP` and `# TYPE` with the first line, so that none is written for a
/// family without any.
struct Body<'a> {
    text: &'a mut String,
    name: &'static str,
    head: Option<(&'static str, Kind)>,
}

impl Body<'_> {
    fn sample(&mut self, sample: &Sample) {
        let labels = &*sample.labels;
        match &sample.value {
            Value::Integer(value) => self.line("", &[labels], *value),
            Value::Float(value) => self.line("", &[labels], Number(*value)),
            Value::Codes(counts) => {
                for count in counts {
                    self.line("", &[labels, &count.labels()], count.requests);
                }
            }
            Value::Histogram {
                bounds,
                counts,
                micros,
            } => self.histogram(labels, bounds, counts, *micros),
        }
    }

    #[allow(clippy::cast_precision_loss)] // the format's numbers are doubles
    fn histogram(&mut self, labels: &str, bounds: &[f64], counts: &[u64], micros: u64) {
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let mut total = 0;
        for (bound, count) in bounds.zip(counts) {
            total += count;
            let le = format!("le=\"{}\"", Number(bound));
            self.line("_bucket", &[labels, &le], total);
        }
        self.line("_sum", &[labels], Number(micros as f64 / 1e6));
        self.line("_count", &[labels], total);
    }

    fn line(&mut self, suffix: &str, labels: &[&str], value: impl std::fmt::Display) {
        let (text, name) = (&mut *self.text, self.name);
        if let Some((help, kind)) = self.head.take() {
            let kind = kind.word();
            text.push_str("# HELP ");
            text.push_str(name);
            text.push(' ');
            escape_into(text, help, false);
            // Writing to a String cannot fail; the results below are dropped for that reason.
            let _ = writeln!(text, "\n# TYPE {name} {kind}");
        }
        text.push_str(name);
        text.push_str(suffix);
        let mut opening = '{';
        for labels in labels.iter().filter(|labels| !labels.is_empty()) {
            text.push(opening);
            text.push_str(labels);
            opening = ',';
        }
        if opening == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A number as the format writes it, infinities included.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            value if value == f64::INFINITY => f.write_str("+Inf"),
            value if value == f64::NEG_INFINITY => f.write_str("-Inf"),
            value => write!(f, "{value}"),
        }
    }
}

/// Labels as they are written, without the braces.
pub(super) fn render_labels(labels: &[(&'static str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        escape_into(&mut text, value, true);
        text.push('"');
    }
    text
}

/// Backslash and line feed are escaped, in a label's value the quotation mark too.
fn escape_into(text: &mut String, value: &str, quotes: bool) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a reader of the format makes of an escaped value.
    fn unescape(text: &str) -> Option<String> {
        let mut chars = text.chars();
        let mut value = String::new();
        while let Some(c) = chars.next() {
            value.push(match c {
                '"' | '\n' => return None,
                '\\' => match chars.next()? {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    _ => return None,
                },
                c => c,
            });
        }
        Some(value)
    }

    proptest! {
        #[test]
        fn any_label_value_reads_back(value in "(\\PC|[\\\\\"\n\r\0])*") {
            let text = render_labels(&[("a", &value), ("b", "x")]);
            let escaped = text.strip_prefix("a=\"").and_then(|t| t.strip_suffix("\",b=\"x\""));
            prop_assert_eq!(escaped.and_then(unescape), Some(value));
        }
    }

    #[test]
    fn numbers_are_written_as_the_format_wants() {
        let text = |value| Number(value).to_string();
        assert_eq!(text(1_717_545_600.0), "1717545600");
        assert_eq!(text(0.005), "0.005");
        assert_eq!(text(f64::INFINITY), "+Inf");
        assert_eq!(text(f64::NEG_INFINITY), "-Inf");
        assert_eq!(text(f64::NAN), "NaN");
    }
}
