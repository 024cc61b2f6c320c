//! What a request is known by: what its route found in its path, its id, its trace.

use std::cell::Cell;

use smallvec::SmallVec;

use super::Rules;
use crate::config::Trace;
use crate::http::RequestHead;
use crate::http::field::Fields;

/// The longest id that is taken from somebody else.
const LONGEST_ID: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub struct Marks {
    /// What follows the route's path, with the query.
    pub(super) rest: Vec<u8>,
    /// The named groups of the route's expression, percent-encoded.
    pub(super) groups: Vec<Vec<u8>>,
    /// Who the client has shown to be.
    pub user: Option<Box<[u8]>>,
    /// What a server that was asked about the request has for the client to keep.
    pub cookies: Vec<Box<[u8]>>,
    request_id: Option<SmallVec<[u8; 32]>>,
    trace: Option<Place>,
}

/// Where a request is in a trace (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    trace: [u8; 32],
    /// The client's span, where it is in that trace.
    parent: Option<[u8; 16]>,
    /// What is to be said; `None` where what the client has said remains true.
    told: Option<[u8; 55]>,
}

/// Of a request that is known by nothing.
pub static UNMARKED: Marks = Marks {
    rest: Vec::new(),
    groups: Vec::new(),
    user: None,
    cookies: Vec::new(),
    request_id: None,
    trace: None,
};

impl Marks {
    /// With what follows the route's path, and the query.
    pub fn of_rest(rest: Vec<u8>) -> Self {
        Self {
            rest,
            ..Self::default()
        }
    }

    /// With the named groups of the route's expression, percent-encoded.
    pub fn of_groups(groups: Vec<Vec<u8>>) -> Self {
        Self {
            groups,
            ..Self::default()
        }
    }

    /// Names the request. `trusted`: what its client says of it is believed. `spans`: it is a span of
    /// its trace, of which somebody will be told.
    pub fn name(
        &mut self,
        rules: &Rules,
        head: &RequestHead,
        trusted: bool,
        spans: bool,
        random: &Random,
    ) {
        if rules.identify {
            let field = rules.request_id.as_ref().filter(|_| trusted);
            let theirs = field.and_then(|name| id_of(&head.fields, name.as_bytes()));
            let ours = || hexadecimal::<32>(random).as_slice().into();
            self.request_id = Some(theirs.map_or_else(ours, SmallVec::from_slice));
        }
        if let Some(trace) = rules.trace {
            let theirs = match trace {
                Trace::Continue => traceparent(&head.fields),
                Trace::Restart => None,
            };
            self.trace = Some(match theirs {
                Some(parent) => Place::within(parent, spans, random),
                None => Place::begin(rules.trace_sample, random),
            });
        }
    }

    /// The id of the request.
    pub fn request_id(&self) -> Option<&[u8]> {
        self.request_id.as_deref()
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> Option<&[u8]> {
        self.trace.as_ref().map(|trace| &trace.trace[..])
    }

    /// Tells the upstream.
    pub(super) fn to_upstream(&self, name: Option<&str>, fields: &mut Fields) {
        if let (Some(name), Some(id)) = (name, &self.request_id) {
            fields.remove_named(name.as_bytes());
            fields.push(name.as_bytes(), id);
        }
        let Some(Place { parent, told, .. }) = &self.trace else {
            return;
        };
        if let Some(told) = told {
            fields.remove_named(b"traceparent");
            fields.push(b"traceparent", told);
            if parent.is_none() {
                // Section 3.3.1: what is said of another trace is of no use.
                fields.remove_named(b"tracestate");
            }
        }
    }

    /// The span that the request is, where it is one that somebody wants to know of: trace, span and
    /// parent.
    pub fn span(&self) -> Option<(&[u8], &[u8], &[u8])> {
        let place = self.trace.as_ref()?;
        let told = place.told.as_ref()?;
        let parent = place.parent.as_ref().map_or(&b""[..], |parent| parent);
        is_sampled(told).then_some((&place.trace, &told[36..52], parent))
    }
}

/// Section 3.2.2.5: whether the least bit of the flags is set.
fn is_sampled(traceparent: &[u8; 55]) -> bool {
    matches!(
        traceparent[54],
        b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f'
    )
}

impl Place {
    /// A trace that begins here.
    fn begin(sample: u32, random: &Random) -> Self {
        let trace = hexadecimal::<32>(random);
        let sampled = random.next() % 1_000_000 < u64::from(sample);
        let mut told = *b"00-00000000000000000000000000000000-0000000000000000-00";
        told[3..35].copy_from_slice(&trace);
        told[36..52].copy_from_slice(&hexadecimal::<16>(random));
        told[54] = if sampled { b'1' } else { b'0' };
        Self {
            trace,
            parent: None,
            told: Some(told),
        }
    }

    /// In a trace that somebody else began.
    fn within(mut traceparent: [u8; 55], spans: bool, random: &Random) -> Self {
        let (mut trace, mut parent) = ([0; 32], [0; 16]);
        trace.copy_from_slice(&traceparent[3..35]);
        parent.copy_from_slice(&traceparent[36..52]);
        // Section 4.3: who writes it anew writes the version that it knows.
        traceparent[..2].copy_from_slice(b"00");
        traceparent[36..52].copy_from_slice(&hexadecimal::<16>(random));
        Self {
            trace,
            parent: Some(parent),
            told: spans.then_some(traceparent),
        }
    }
}

/// The id that a request brings, where it brings one that can be passed on.
fn id_of<'f>(fields: &'f Fields, name: &[u8]) -> Option<&'f [u8]> {
    let mut found = named(fields, name);
    let id = found.next()?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:@,;".contains(byte);
    let fits =
        found.next().is_none() && (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(is_plain);
    fits.then_some(id)
}

/// The id of the trace that a request is in; empty where it is in none.
pub(super) fn trace_id_of(fields: &Fields) -> &[u8] {
    said(fields).map_or(b"", |value| &value[3..35])
}

/// As much of a client's `traceparent` as every version has.
fn traceparent(fields: &Fields) -> Option<[u8; 55]> {
    said(fields)?.get(..55)?.try_into().ok()
}

fn said(fields: &Fields) -> Option<&[u8]> {
    let mut found = named(fields, b"traceparent");
    match (found.next(), found.next()) {
        (Some(value), None) if is_traceparent(value) => Some(value),
        _ => None,
    }
}

/// Section 3.2.2: `version "-" trace-id "-" parent-id "-" trace-flags`, in lower case; what a later
/// version has behind that is not known.
fn is_traceparent(value: &[u8]) -> bool {
    let (Some((head, behind)), true) = (value.split_at_checked(55), value.is_ascii()) else {
        return false;
    };
    let hex = |part: &[u8]| {
        part.iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let dashes = [2, 35, 52].iter().all(|&at| head[at] == b'-');
    let (version, trace, parent, flags) = (&head[..2], &head[3..35], &head[36..52], &head[53..]);
    dashes
        && [version, trace, parent, flags].into_iter().all(hex)
        && version != b"ff"
        && !zero(trace)
        && !zero(parent)
        && match version {
            b"00" => behind.is_empty(),
            _ => behind.is_empty() || behind.starts_with(b"-"),
        }
}

fn named<'f>(fields: &'f Fields, name: &[u8]) -> impl Iterator<Item = &'f [u8]> {
    fields
        .iter()
        .filter(move |(_, found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, _, value)| value)
}

fn hexadecimal<const N: usize>(random: &Random) -> [u8; N] {
    let mut out = [b'0'; N];
    for part in out.chunks_mut(16) {
        let mut bits = random.next();
        for digit in part {
            *digit = b"0123456789abcdef"[(bits & 15) as usize];
            bits >>= 4;
        }
    }
    out
}

/// Numbers that do not come twice, on any machine (xoroshiro128++, Blackman and Vigna, 2019): good
/// for telling requests apart, no secret. A worker has its own, which asks the system once.
#[derive(Debug)]
pub struct Random(Cell<[u64; 2]>);

impl Random {
    /// Begins somewhere.
    pub fn new() -> Self {
        let mut seed = [0; 16];
        let seeded = aws_lc_rs::rand::fill(&mut seed).is_ok();
        let (low, high) = seed.split_at(8);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |all, &byte| all << 8 | u64::from(byte))
        };
        Self(Cell::new(match seeded {
            true => [number(low) | 1, number(high)],
            false => {
                let keys = std::hash::RandomState::new();
                [0_u64, 1].map(|n| std::hash::BuildHasher::hash_one(&keys, n) | 1)
            }
        }))
    }

    /// A name that nobody else has.
    pub(in crate::proxy) fn name(&self) -> String {
        String::from_utf8_lossy(&hexadecimal::<32>(self)).into_owned()
    }

    fn next(&self) -> u64 {
        let [low, high] = self.0.get();
        let number = low.wrapping_add(high).rotate_left(17).wrapping_add(low);
        let mixed = high ^ low;
        self.0.set([
            low.rotate_left(49) ^ mixed ^ mixed << 21,
            mixed.rotate_left(28),
        ]);
        number
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_one_or_is_none() {
        let later = PARENT.replacen("00", "cc", 1);
        for (value, expected) in [
            (PARENT.to_owned(), true),
            (format!("{PARENT}-x"), false),
            (later.clone(), true),
            (format!("{later}-what-the-future-will-be"), true),
            (format!("{later}.what"), false),
            (PARENT.replacen("00", "ff", 1), false),
            (PARENT.to_uppercase(), false),
            (
                PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
                false,
            ),
            (PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)), false),
            (PARENT[..54].to_owned(), false),
            (PARENT.replace('-', "_"), false),
            (String::new(), false),
            ("é".repeat(28), false),
        ] {
            assert_eq!(is_traceparent(value.as_bytes()), expected, "{value}");
        }
        let mut twice = Fields::default();
        twice.push(b"traceparent", PARENT.as_bytes());
        assert_eq!(trace_id_of(&twice), &PARENT.as_bytes()[3..35]);
        twice.push(b"Traceparent", PARENT.as_bytes());
        assert_eq!(trace_id_of(&twice), b"");
    }

    #[test]
    fn what_begins_here_is_well_formed_and_never_the_same() {
        let random = Random::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let begun = Place::begin(super::super::ALL, &random).told.unwrap();
            assert!(is_traceparent(&begun) && begun.ends_with(b"-01"));
            assert!(seen.insert(begun));
        }
        let begun = Place::begin(0, &random).told.unwrap();
        assert!(begun.ends_with(b"-00"));
    }

    #[test]
    fn an_id_from_elsewhere_is_taken_only_if_it_is_one() {
        for (value, expected) in [
            ("0189-ab:c", true),
            ("", false),
            ("a b", false),
            ("\"a\"", false),
            (&"a".repeat(129), false),
        ] {
            let mut fields = Fields::default();
            fields.push(b"x-request-id", value.as_bytes());
            assert_eq!(
                id_of(&fields, b"X-Request-ID").is_some(),
                expected,
                "{value}"
            );
        }
    }
}
