//! Laws of the inventory: whatever the way to it, it is what it holds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cert::rank::tests::{candidate, certificate, client, what_it_can};
use crate::cert::source::Files;
use crate::cert::testing::{NOW, day};
use crate::cert::{Fingerprint, Reason, Validity};

fn source(order: u32) -> Arc<Source> {
    let chain = format!("/certificates/{order}.pem");
    Arc::new(Source {
        label: chain.as_str().into(),
        shown: [chain.clone()].into(),
        files: Files {
            chain: chain.into(),
            key: None,
        },
        ocsp: None,
        folder: None,
        order: order as usize,
        accept_worse: false,
        keep: true,
        routine: false,
    })
}

fn held(slot: u32, mut candidates: Vec<Candidate>) -> Arc<Held> {
    for candidate in &mut candidates {
        (candidate.slot, candidate.order) = (slot, slot);
    }
    Arc::new(Held {
        source: source(slot),
        candidates,
        disk: Disk {
            state: DiskState::Same,
            reason: None,
            detail: None,
            file: None,
            since: NOW,
            half: false,
        },
    })
}

fn change(slot: u32, held: Option<Arc<Held>>) -> Change {
    Change { slot, held }
}

fn one(names: &[&str], from: i64, to: i64) -> Candidate {
    let certificate = certificate(|facts| {
        facts.names = names
            .iter()
            .map(|name| match name.strip_prefix("*.") {
                Some(parent) => Name::Wildcard(parent.into()),
                None => Name::Dns((*name).into()),
            })
            .collect();
        facts.validity = Validity {
            not_before: day(from),
            not_after: day(to),
        };
        facts.fingerprint = Fingerprint([u8::try_from(to.rem_euclid(256)).unwrap(); 32]);
    });
    Candidate {
        certificate,
        slot: 0,
        order: 0,
        on_disk: true,
        held_back: false,
    }
}

/// An inventory of these, one source each.
fn of(candidates: Vec<Vec<Candidate>>) -> Inventory {
    let slots = 0..u32::try_from(candidates.len()).unwrap();
    let changes = slots
        .clone()
        .zip(candidates)
        .map(|(slot, all)| change(slot, Some(held(slot, all))));
    Inventory::default().with(changes, slots, &Settings::default())
}

fn is(best: Option<&Candidate>, expected: &Candidate) -> bool {
    best.is_some_and(|best| Arc::ptr_eq(&best.certificate, &expected.certificate))
}

const HOSTS: [&str; 7] = [
    "a.test", "b.test", "c.test", "x.a.test", "y.a.test", "test", ".test",
];

proptest! {
    /// The best is the best of all that cover the name, found without any index.
    #[test]
    fn the_index_finds_what_a_search_through_everything_finds(
        sources in prop::collection::vec(prop::collection::vec(candidate(), 0..3), 0..5),
        only in client(),
        at in -4_i64..8,
    ) {
        let inventory = of(sources);
        let (client, now) = (what_it_can(only), day(at));
        for host in HOSTS {
            let everything = inventory.all().flat_map(|held| &held.candidates).flat_map(|held| {
                let names = held.certificate.facts().names.iter();
                names
                    .filter(|name| name.covers(host))
                    .map(move |name| (held, !matches!(name, Name::Wildcard(_))))
            });
            let rank = |(held, exact): (&Candidate, bool)| held.rank(exact, client, now);
            let expected = everything.map(rank).max();
            let found = inventory.best(host, client, now);
            let found = found.map(|found| {
                let facts = found.certificate.facts();
                let exact = facts.names.contains(&Name::Dns(host.into()));
                found.rank(exact, client, now)
            });
            prop_assert_eq!(found, expected, "{}", host);
        }
    }

    /// An inventory reached by any changes is the one built from what it holds in the end.
    #[test]
    fn changes_lead_where_building_anew_leads(
        changes in prop::collection::vec(
            (0_u32..70, prop::option::of(prop::collection::vec(candidate(), 0..3))),
            0..12,
        ),
        at in -4_i64..8,
    ) {
        let mut inventory = Inventory::default();
        let mut end = BTreeMap::new();
        let settings = Settings::default();
        for (slot, candidates) in changes {
            let now_held = candidates.map(|candidates| held(slot, candidates));
            match &now_held {
                Some(held) => drop(end.insert(slot, Arc::clone(held))),
                None => drop(end.remove(&slot)),
            }
            let fallback: Vec<_> = end.keys().copied().collect();
            inventory = inventory.with([change(slot, now_held)], fallback, &settings);
        }
        let fallback: Vec<_> = end.keys().copied().collect();
        let anew = end.iter().map(|(slot, held)| change(*slot, Some(Arc::clone(held))));
        let anew = Inventory::default().with(anew, fallback, &settings);
        let id = |held: Option<&Candidate>| held.map(|held| Arc::as_ptr(&held.certificate));
        for host in HOSTS {
            let best = |inventory: &Inventory| id(inventory.best(host, Client::Any, day(at)));
            prop_assert_eq!(best(&inventory), best(&anew), "{}", host);
        }
        prop_assert_eq!(id(inventory.fallback(Client::Any, day(at))), id(anew.fallback(Client::Any, day(at))));
        prop_assert_eq!(inventory.all().count(), anew.all().count());
        let json = |inventory: &Inventory| serde_json::to_string(&inventory.report(day(at))).unwrap();
        prop_assert_eq!(json(&inventory), json(&anew));
        let names = |index: &Index| index.names().cloned().collect::<BTreeSet<_>>();
        prop_assert_eq!(names(&inventory.exact), names(&anew.exact));
        prop_assert_eq!(names(&inventory.wildcard), names(&anew.wildcard));
    }

    /// As long as anything is held, nobody is refused.
    #[test]
    fn no_client_gets_nothing_while_something_is_held(
        sources in prop::collection::vec(prop::collection::vec(candidate(), 0..2), 1..5),
        only in client(),
    ) {
        let any = sources.iter().any(|candidates| !candidates.is_empty());
        let inventory = of(sources);
        let client = what_it_can(only);
        prop_assert_eq!(inventory.fallback(client, NOW).is_some(), any);
        // And gets what it can use, if there is any among the first.
        if let Some(chosen) = inventory.fallback(client, NOW) {
            let mut all = inventory.all().flat_map(|held| &held.candidates);
            let can_use = |held: &Candidate| client.can_use(held.certificate.facts().key_type);
            prop_assert_eq!(can_use(chosen), all.any(can_use));
        }
    }
}

#[test]
fn a_valid_wildcard_stands_in_for_an_expired_exact_one() {
    let (exact, wildcard) = (one(&["a.test"], -30, 1), one(&["*.test"], -30, 60));
    let inventory = of(vec![vec![exact.clone()], vec![wildcard.clone()]]);
    assert!(is(inventory.best("a.test", Client::Any, day(1)), &exact));
    assert!(is(
        inventory.best("a.test", Client::Any, day(1).plus(1)),
        &wildcard
    ));
    assert!(is(inventory.best("b.test", Client::Any, NOW), &wildcard));
    assert!(inventory.best("x.a.test", Client::Any, NOW).is_none());
}

#[test]
fn one_renewed_among_ten_thousand_copies_one_shard_and_one_chunk() {
    let many = 10_000;
    let all = (0..many).map(|n| vec![one(&[&format!("n{n}.test")], -30, 60)]);
    let inventory = of(all.collect());
    let renewed = one(&["n777.test"], -1, 89);
    let held = held(777, vec![renewed.clone()]);
    let next = inventory.with([change(777, Some(held))], [0, 1], &Settings::default());
    assert_eq!(next.shards_apart_from(&inventory), 1);
    let chunks = inventory.chunks.iter().zip(&next.chunks);
    assert_eq!(
        chunks
            .filter(|(one, other)| !Arc::ptr_eq(one, other))
            .count(),
        1
    );
    assert!(is(next.best("n777.test", Client::Any, NOW), &renewed));
    assert_eq!(next.generation(), inventory.generation() + 1);
    assert_eq!(next.all().count(), 10_000);
}

#[test]
fn the_default_is_the_default_sites_or_else_the_first() {
    let (first, second) = (one(&["a.test"], -30, -1), one(&["*.b.test"], -30, 60));
    let inventory = of(vec![Vec::new(), vec![first.clone()], vec![second.clone()]]);
    assert!(is(inventory.fallback(Client::Any, NOW), &first));
    let named = |name: &str| {
        let settings = Settings {
            default_name: Some(name.into()),
            ..Settings::default()
        };
        inventory.with([], [0, 1, 2], &settings)
    };
    assert!(is(named("x.b.test").fallback(Client::Any, NOW), &second));
    assert!(is(named("*.b.test").fallback(Client::Any, NOW), &second));
    assert!(is(named("c.test").fallback(Client::Any, NOW), &first));
}

#[test]
fn the_report_has_an_entry_for_each_source_and_for_what_else_is_in_use() {
    let current = Candidate {
        on_disk: false,
        ..one(&["a.test"], -30, 60)
    };
    let waiting = Candidate {
        held_back: true,
        ..one(&["a.test", "new.test"], -90, 50)
    };
    let unused = one(&["a.test"], -40, 40);
    let mut changes = vec![
        held(0, vec![current, waiting]),
        held(1, vec![unused]),
        held(2, Vec::new()),
    ];
    let disk = &mut Arc::get_mut(&mut changes[0]).unwrap().disk;
    (disk.state, disk.reason) = (DiskState::HeldBack, Some(Reason::Older));
    let changes = (0..)
        .zip(changes)
        .map(|(slot, held)| change(slot, Some(held)));
    let settings = Settings {
        default_name: Some("a.test".into()),
        ..Settings::default()
    };
    let inventory = Inventory::default().with(changes, [0, 1, 2], &settings);
    let report = inventory.report(NOW);
    let summary: Vec<_> = report
        .iter()
        .map(|entry| (entry.certificate.is_some(), entry.serving, entry.origin))
        .collect();
    // The source of slot 1 is on disk, and so better for `a.test` than what slot 0 kept.
    assert_eq!(
        summary,
        [
            (true, false, Origin::LastGood),
            (true, true, Origin::Disk),
            (true, true, Origin::Disk),
            (false, false, Origin::Disk),
        ]
    );
    assert_eq!(inventory.stale(), 1);
    let (until, label) = inventory.soonest(NOW).unwrap();
    assert_eq!((until, &*label), (day(40), "/certificates/1.pem"));
}
