//! The registry: which series there are, and where their shards are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::handle::{Cell, Counter, Distribution, Gauge, Histogram, Own, Shards, is_held};
use super::names::Metric;
use super::requests::CodeTable;
use super::scrape::{Kind, Sample, Scrape, Value, render_labels};

/// All series of the program. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry(Arc<Inner>);

/// Called at each scrape to add what has no handle.
type Collector = dyn Fn(&mut Scrape) + Send + Sync;

#[derive(Default)]
struct Inner {
    families: Mutex<BTreeMap<&'static str, Arc<Family>>>,
    collectors: Mutex<Vec<Arc<Collector>>>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new shard of a counter. `name` ends in `_total`; `help` is the family's, and the first one
    /// given is kept. The lock behind this is held for a moment only, never while text is written.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Counter {
        debug_assert!(name.ends_with("_total"), "{name}: counters end in _total");
        let empty = || Series::Counter(Shards::new(Cell::default()));
        let shard = self.shard(
            name,
            help,
            Kind::Counter,
            labels,
            empty,
            |series| match series {
                Series::Counter(shards) => Some(shards.push(Cell::default())),
                _ => None,
            },
        );
        shard.map_or_else(Counter::default, |shard| Counter(shard.into()))
    }

    /// A new shard of a gauge, at 0.
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Gauge {
        let empty = || Series::Gauge(Vec::new());
        let shard = self.shard(name, help, Kind::Gauge, labels, empty, |series| {
            series.retire();
            let Series::Gauge(shards) = series else {
                return None;
            };
            let shard = Arc::new(Cell::default());
            shards.push(Arc::clone(&shard));
            Some(shard)
        });
        shard.map_or_else(Gauge::default, |shard| Gauge(shard.into()))
    }

    /// A new shard of a histogram. `buckets` are upper bounds in seconds, ascending, without the
    /// infinite one.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: &'static [f64],
        labels: &[(&'static str, &str)],
    ) -> Histogram {
        debug_assert!(buckets.is_sorted(), "{name}: buckets ascend");
        let empty = || Series::Histogram(buckets, Shards::new(Distribution::new(buckets)));
        let shard = self.shard(name, help, Kind::Histogram, labels, empty, |series| {
            match series {
                // All series of a family have the buckets of the first shard.
                Series::Histogram(bounds, shards) => Some(shards.push(Distribution::new(bounds))),
                _ => None,
            }
        });
        shard.map_or_else(Histogram::default, |shard| Histogram(shard.into()))
    }

    /// A new shard of the requests of a site, by method and status.
    pub(super) fn codes(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Own<CodeTable> {
        let empty = || Series::Codes(Shards::new(CodeTable::default()));
        let (name, help) = (metric.name, metric.help);
        let shard = self.shard(
            name,
            help,
            Kind::Counter,
            labels,
            empty,
            |series| match series {
                Series::Codes(shards) => Some(shards.push(CodeTable::default())),
                _ => None,
            },
        );
        shard.unwrap_or_default().into()
    }

    /// Adds a function that is called at each scrape, for what is known only when asked. It runs on
    /// the thread that encodes and holds no lock of the registry.
    pub fn collector(&self, collect: impl Fn(&mut Scrape) + Send + Sync + 'static) {
        lock(&self.0.collectors).push(Arc::new(collect));
    }

    /// The Prometheus text exposition format, version 0.0.4: families sorted by name, series by
    /// labels.
    pub fn encode(&self) -> String {
        let mut scrape = Scrape::default();
        let families: Vec<_> = lock(&self.0.families).values().cloned().collect();
        for family in families {
            family.collect(&mut scrape);
        }
        let collectors = lock(&self.0.collectors).clone();
        for collect in collectors {
            collect(&mut scrape);
        }
        scrape.render()
    }

    /// A shard made by `push` in the series of that name and those labels. `None` where the name
    /// is taken by a metric of another kind: a mistake in this program, for which a handle that
    /// counts into the void is better than a panic.
    fn shard<T>(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &[(&'static str, &str)],
        empty: impl FnOnce() -> Series,
        push: impl FnOnce(&mut Series) -> Option<Arc<T>>,
    ) -> Option<Arc<T>> {
        let family = Arc::clone(lock(&self.0.families).entry(name).or_insert_with(|| {
            Arc::new(Family {
                name,
                help,
                kind,
                series: Mutex::default(),
            })
        }));
        let labels = render_labels(labels);
        let mut series = lock(&family.series);
        let shard = (family.kind == kind)
            .then(|| push(series.entry(labels.into()).or_insert_with(empty)))
            .flatten();
        debug_assert!(shard.is_some(), "{name} is registered as another kind");
        shard
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").finish_non_exhaustive()
    }
}

/// All series of one name.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    /// By their labels as they are written.
    series: Mutex<BTreeMap<Arc<str>, Series>>,
}

enum Series {
    Counter(Shards<Cell>),
    /// Those with a handle: of a gauge, nothing remains.
    Gauge(Vec<Arc<Cell>>),
    Histogram(&'static [f64], Shards<Distribution>),
    Codes(Shards<CodeTable>),
}

impl Family {
    /// Adds the sums. The lock is held while numbers are read, not while text is written.
    fn collect(&self, scrape: &mut Scrape) {
        let mut series = lock(&self.series);
        series.retain(|_, series| series.retire());
        let samples = series.iter().map(|(labels, series)| Sample {
            labels: Arc::clone(labels),
            value: series.sum(),
        });
        scrape.extend(self.name, self.help, self.kind, samples);
    }
}

impl Series {
    /// Folds the shards whose handles are gone. False when the series itself is gone.
    fn retire(&mut self) -> bool {
        match self {
            Self::Counter(shards) => shards.retire(),
            Self::Histogram(_, shards) => shards.retire(),
            Self::Codes(shards) => shards.retire(),
            Self::Gauge(shards) => {
                shards.retain_mut(is_held);
                return !shards.is_empty();
            }
        }
        true
    }

    fn sum(&self) -> Value {
        match self {
            Self::Counter(shards) => {
                Value::Integer(shards.iter().map(Cell::count).fold(0, u64::wrapping_add))
            }
            Self::Gauge(shards) => Value::Float(shards.iter().map(|shard| shard.value()).sum()),
            Self::Histogram(bounds, shards) => {
                let mut counts = vec![0; bounds.len() + 1];
                let mut micros = 0_u64;
                for shard in shards.iter() {
                    for (sum, count) in counts.iter_mut().zip(shard.counts()) {
                        *sum += count;
                    }
                    micros = micros.wrapping_add(shard.micros());
                }
                Value::Histogram {
                    bounds,
                    counts,
                    micros,
                }
            }
            Self::Codes(shards) => Value::Codes(CodeTable::sum(shards.iter())),
        }
    }
}

/// A thread that panicked while it held the lock left plain maps behind, not broken ones.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{RequestSeries, method_index};

    #[test]
    fn the_text_is_exactly_what_the_format_wants() {
        let registry = Registry::new();
        let seen = registry.counter(
            "b_total",
            "Seen\nand \\ \"counted\"",
            &[("who", "a\"\\\nz")],
        );
        seen.add(3);
        let open = registry.gauge("a_open", "Open", &[]);
        open.set(1.5);
        let took = registry.histogram("c_seconds", "Took", &[0.1, 1.0], &[("site", "x")]);
        took.observe(Duration::from_secs_f64(0.1));
        took.observe(Duration::from_secs_f64(0.5));
        took.observe(Duration::from_secs_f64(7.0));
        registry.collector(|scrape| {
            let asked = Metric {
                name: "asked_total",
                help: "Asked",
            };
            scrape.counter(asked, &[("n", "2")], 2);
            scrape.counter(asked, &[("n", "1")], 1);
            scrape.counter(asked, &[("n", "1")], 9);
        });
        let expected = r#"# HELP a_open Open
# TYPE a_open gauge
a_open 1.5
# HELP asked_total Asked
# TYPE asked_total counter
asked_total{n="1"} 1
asked_total{n="2"} 2
# HELP b_total Seen\nand \\ "counted"
# TYPE b_total counter
b_total{who="a\"\\\nz"} 3
# HELP c_seconds Took
# TYPE c_seconds histogram
c_seconds_bucket{site="x",le="0.1"} 1
c_seconds_bucket{site="x",le="1"} 2
c_seconds_bucket{site="x",le="+Inf"} 3
c_seconds_sum{site="x"} 7.6
c_seconds_count{site="x"} 3
"#;
        assert_eq!(registry.encode(), expected);
    }

    #[test]
    fn shards_of_a_series_are_summed_and_survive_their_handles() {
        let registry = Registry::new();
        let total = || registry.counter("n_total", "N", &[]);
        let took = || registry.histogram("t_seconds", "T", &[1.0], &[]);
        let (one, two) = (total(), total());
        one.add(2);
        two.add(3);
        let (early, late) = (took(), took());
        early.observe(Duration::from_secs_f64(0.5));
        late.observe(Duration::from_secs_f64(2.0));
        drop((one, early));
        for _ in 0..2 {
            let text = registry.encode();
            assert!(text.contains("\nn_total 5\n"), "{text}");
            assert!(text.contains("\nt_seconds_bucket{le=\"1\"} 1\n"), "{text}");
            assert!(text.contains("\nt_seconds_sum 2.5\n"), "{text}");
            assert!(text.ends_with("\nt_seconds_count 2\n"), "{text}");
        }
        drop((two, late));
        assert!(registry.encode().contains("\nn_total 5\n"));
    }

    #[test]
    fn a_gauge_without_handles_disappears_with_its_family() {
        let registry = Registry::new();
        let one = registry.gauge("up", "Up", &[]);
        let two = registry.gauge("up", "Up", &[]);
        two.inc();
        drop(one);
        assert!(registry.encode().ends_with("\nup 1\n"));
        drop(two);
        assert_eq!(registry.encode(), "");
    }

    #[test]
    fn requests_are_counted_by_method_and_code() {
        let registry = Registry::new();
        let workers = [(); 2].map(|()| RequestSeries::new(&registry, "a.test"));
        for worker in &workers {
            worker.record(method_index("GET"), 200, Duration::from_millis(2));
            worker.record(method_index("BREW"), 418, Duration::from_millis(2));
            worker.record(usize::MAX, 999, Duration::ZERO);
        }
        let [one, _two] = workers;
        drop(one);
        let text = registry.encode();
        let counts: Vec<_> = (text.lines())
            .filter(|line| line.starts_with("staunch_requests_total"))
            .collect();
        let expected = [
            r#"staunch_requests_total{site="a.test",method="GET",code="200"} 2"#,
            r#"staunch_requests_total{site="a.test",method="other",code="418"} 2"#,
            r#"staunch_requests_total{site="a.test",method="other",code="other"} 2"#,
        ];
        assert_eq!(counts, expected);
        assert!(text.contains("staunch_request_duration_seconds_count{site=\"a.test\"} 6"));
    }

    #[test]
    fn counting_and_scraping_at_once_loses_nothing() {
        let registry = Registry::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let shard = registry.counter("n_total", "N", &[]);
                        (0..50).for_each(|_| shard.inc());
                    }
                });
            }
            (0..50).for_each(|_| drop(registry.encode()));
        });
        assert!(registry.encode().ends_with("\nn_total 40000\n"));
    }
}
