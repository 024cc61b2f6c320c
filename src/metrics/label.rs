//! Labels with a known, closed set of values.

use std::marker::PhantomData;

use super::handle::Counter;
use super::names::Metric;
use super::registry::Registry;

/// A label's values as an enum.
pub(super) trait Label: Copy {
    /// All values as they are written, in the enum's order.
    const CODES: &'static [&'static str];

    /// Its place in `CODES`.
    fn index(self) -> usize;
}

/// Declares an enum that is a [`Label`].
macro_rules! label {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$doc:meta])* $variant:ident = $code:literal, )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$doc])* $variant, )* }

        impl $name {
            /// As the metric's label has it.
            pub const fn code(self) -> &'static str {
                match self { $( Self::$variant => $code, )* }
            }
        }

        impl $crate::metrics::label::Label for $name {
            const CODES: &'static [&'static str] = &[ $( $code, )* ];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(super) use label;

/// A counter for each value of a label, so that those that never happened are 0 and not absent.
#[derive(Debug)]
pub(super) struct Set<L> {
    counters: Box<[Counter]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label> Set<L> {
    /// `fixed` are the labels before this one.
    pub(super) fn new(
        registry: &Registry,
        metric: Metric,
        fixed: &[(&'static str, &str)],
        label: &'static str,
    ) -> Self {
        let counter = |code: &&'static str| {
            let labels: Vec<_> = fixed.iter().copied().chain([(label, *code)]).collect();
            metric.counter(registry, &labels)
        };
        Self {
            counters: L::CODES.iter().map(counter).collect(),
            label: PhantomData,
        }
    }

    /// Counts one.
    pub(super) fn inc(&self, value: L) {
        self.counters[value.index()].inc();
    }

    /// Counts `n`.
    pub(super) fn add(&self, value: L, n: u64) {
        self.counters[value.index()].add(n);
    }
}
