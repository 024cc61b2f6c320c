//! Whether one certificate may take the place of another, law by law.

use proptest::prelude::*;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};

use super::*;
use crate::cert::load::Roots;
use crate::cert::testing::*;

fn exact(name: &str) -> SiteName {
    SiteName::Exact(name.into())
}

fn needs(names: &[SiteName]) -> Needs {
    Needs::new(names)
}

/// The site of these tests.
fn site() -> Needs {
    needs(&[exact("a.test")])
}

fn leaf() -> Leaf {
    Leaf::new(&["a.test"])
}

/// The reason for which `new` is held back; the message must say what to do.
fn held(old: &Verified, new: &Verified, needs: &Needs) -> Option<Reason> {
    let rejection = judge(old, new, needs, NOW).err()?;
    assert!(rejection.detail.starts_with("held back: "), "{rejection}");
    let path = &*new.facts().path;
    assert_eq!(rejection.path, path);
    let accept = format!("staunch accept {} --because", path.display());
    assert!(rejection.help.contains(&accept), "{rejection}");
    assert!(rejection.help.contains("openssl"), "{rejection}");
    Some(rejection.reason)
}

#[test]
fn what_sites_need_of_a_certificate_is_what_it_covers_of_their_names() {
    let ip = SiteName::Exact("192.0.2.1".into());
    let wildcard = |parent: &str| SiteName::Wildcard(parent.into());
    let needs = needs(&[
        exact("a.test"),
        exact("b.wild.test"),
        exact("c.d.wild.test"),
        exact("other.test"),
        wildcard("wild.test"),
        wildcard("other.test"),
        ip,
        SiteName::Any,
    ]);
    let covered = |names: &[&str]| {
        let certificate = World::new().verified(&Leaf::new(names));
        needs
            .covered_by(&certificate)
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(covered(&["a.test", "no.test"]), ["a.test"]);
    assert_eq!(covered(&["*.wild.test"]), ["*.wild.test", "b.wild.test"]);
    assert_eq!(covered(&["192.0.2.1"]), ["192.0.2.1"]);
    assert!(covered(&["wild.test", "x.other.test"]).is_empty());
}

#[test]
fn a_renewal_is_taken() {
    let world = World::new();
    let old = world.verified(&leaf().valid(day(-60), day(30)));
    let new = world.verified(&leaf().valid(day(-1), day(89)));
    assert_eq!(held(&old, &new, &site()), None);
    assert_eq!(held(&new, &new, &site()), None);
    assert_eq!(held(&new, &old, &site()), Some(Reason::Older));
}

#[test]
fn what_clients_refuse_by_its_dates_is_held_back() {
    let world = World::new();
    let old = world.verified(&leaf());
    let expired = world.verified(&leaf().valid(day(-20), day(-1)));
    let future = world.verified(&leaf().valid(day(1), day(90)));
    assert_eq!(held(&old, &expired, &site()), Some(Reason::Expired));
    assert_eq!(held(&old, &future, &site()), Some(Reason::NotYetValid));
    let text = judge(&old, &expired, &site(), NOW).unwrap_err().detail;
    assert!(
        text.contains(&day(-1).to_string()) && text.contains("24 hours ago"),
        "{text}"
    );
}

#[test]
fn a_name_that_a_site_answers_to_is_not_lost() {
    let world = World::new();
    let both = world.verified(&Leaf::new(&["a.test", "b.test", "*.w.test", "x.w2.test"]));
    let one = world.verified(&Leaf::new(&["a.test"]).valid(day(-1), day(80)));
    let lost = Some(Reason::NamesLost);
    assert_eq!(held(&both, &one, &site()), None);
    assert_eq!(held(&both, &one, &needs(&[exact("b.test")])), lost);
    assert_eq!(held(&both, &one, &needs(&[exact("z.w.test")])), lost);
    assert_eq!(
        held(&both, &one, &needs(&[SiteName::Wildcard("w.test".into())])),
        lost
    );
    assert_eq!(
        held(&both, &one, &needs(&[SiteName::Wildcard("w2.test".into())])),
        lost
    );
    assert_eq!(
        held(&both, &one, &needs(&[SiteName::Wildcard("test".into())])),
        lost
    );
    assert_eq!(held(&both, &one, &needs(&[SiteName::Any])), lost);
    assert_eq!(held(&both, &one, &needs(&[exact("c.test")])), None);
    assert_eq!(held(&both, &one, &needs(&[])), None);
    // A wildcard takes the place of the names below it, and not the other way round.
    let wildcard = world.verified(&Leaf::new(&["*.test"]).valid(day(-1), day(80)));
    let named = world.verified(&Leaf::new(&["a.test", "b.test"]));
    assert_eq!(held(&named, &wildcard, &needs(&[SiteName::Any])), None);
    let later = world.verified(&Leaf::new(&["a.test"]).valid(day(0), day(80)));
    let below = needs(&[SiteName::Wildcard("test".into())]);
    assert_eq!(held(&wildcard, &later, &below), lost);
    let rejection = judge(&both, &one, &needs(&[exact("b.test")]), NOW).unwrap_err();
    assert!(
        rejection.detail.contains("does not cover b.test"),
        "{rejection}"
    );
    assert!(rejection.detail.contains("it covers a.test"), "{rejection}");
}

#[test]
fn an_address_is_a_name_too() {
    let world = World::new();
    let old = world.verified(&Leaf::new(&["192.0.2.1", "a.test"]));
    let new = world.verified(&Leaf::new(&["a.test"]).valid(day(-1), day(80)));
    let address = needs(&[exact("192.0.2.1")]);
    assert_eq!(held(&old, &new, &address), Some(Reason::NamesLost));
}

#[test]
fn a_chain_is_not_broken() {
    let world = World::new();
    let old = world.verified(&leaf());
    let newer = leaf().valid(day(-1), day(80));
    let gap = newer.issue(&world.intermediate).load(&world.roots).unwrap();
    assert_eq!(held(&old, &gap, &site()), Some(Reason::BrokenChain));
    let dead = Authority::make("Dead", Some(&world.root), day(-90), day(-1));
    let dead = newer.issue(&dead).and(&dead).load(&world.roots).unwrap();
    assert_eq!(held(&old, &dead, &site()), Some(Reason::BrokenChain));
    let own = newer.self_signed().load(&world.roots).unwrap();
    assert_eq!(held(&old, &own, &site()), Some(Reason::UntrustedChain));
}

#[test]
fn a_chain_that_was_never_trusted_may_stay_so() {
    let world = World::new();
    let old = leaf().self_signed().load(&Roots::empty()).unwrap();
    let new = leaf().valid(day(-1), day(80)).self_signed();
    let new = new.load(&Roots::empty()).unwrap();
    assert_eq!(held(&old, &new, &site()), None);
    let gap = leaf().valid(day(-1), day(80)).issue(&world.intermediate);
    let gap = gap.load(&Roots::empty()).unwrap();
    assert_eq!(held(&gap, &gap, &site()), None);
}

#[test]
fn a_usage_is_not_lost() {
    let world = World::new();
    let old = world.verified(&leaf());
    let client = leaf()
        .valid(day(-1), day(80))
        .with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let client = world.verified(&client);
    assert_eq!(held(&old, &client, &site()), Some(Reason::WrongUsage));
    assert_eq!(held(&client, &old, &site()), None);
}

#[test]
fn a_weakness_is_not_new() {
    // All self-signed: only the signature differs.
    let weak = bundle(fixture("sha1.pem"), &Roots::empty()).unwrap();
    let old = Leaf::new(&["fixture.test"]).valid(day(-400), day(60));
    let old = old.self_signed().load(&Roots::empty()).unwrap();
    let fixture_site = needs(&[exact("fixture.test")]);
    assert_eq!(held(&old, &weak, &fixture_site), Some(Reason::WeakKey));
    // The cure is taken although it is older.
    assert_eq!(held(&weak, &old, &fixture_site), None);
}

#[test]
fn an_older_one_is_held_back_unless_it_is_better() {
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    let long = world.verified(&leaf().key(key).valid(day(-10), day(80)));
    let short = world.verified(&leaf().valid(day(-10), day(70)));
    assert_eq!(held(&long, &short, &site()), Some(Reason::Older));
    assert_eq!(held(&short, &long, &site()), None);
    // A placeholder made today gives way to what was bought last week.
    let placeholder = leaf().valid(day(0), day(365)).self_signed();
    let placeholder = placeholder.load(&world.roots).unwrap();
    assert_eq!(held(&placeholder, &long, &site()), None);
    // So does one that lacks a name.
    let more = world.verified(&Leaf::new(&["a.test", "b.test"]).valid(day(-20), day(70)));
    assert_eq!(
        held(&long, &more, &needs(&[exact("a.test"), exact("b.test")])),
        None
    );
    assert_eq!(held(&long, &more, &site()), Some(Reason::Older));
}

#[test]
fn where_the_old_one_is_dead_anything_alive_is_taken() {
    let world = World::new();
    let dead = world.verified(&Leaf::new(&["a.test", "b.test"]).valid(day(-90), day(-5)));
    let future = world.verified(&leaf().valid(day(5), day(90)));
    let alive = leaf().valid(day(-100), day(1)).self_signed();
    let alive = alive.load(&world.roots).unwrap();
    let both = needs(&[exact("a.test"), exact("b.test")]);
    assert_eq!(held(&dead, &alive, &both), None);
    assert_eq!(held(&future, &alive, &both), None);
}

#[test]
fn between_two_dead_ones_the_nearer_to_life_wins() {
    let world = World::new();
    let dead = |from, to| world.verified(&leaf().valid(day(from), day(to)));
    let (yesterday, last_year) = (dead(-90, -1), dead(-400, -300));
    let (tomorrow, next_year) = (dead(1, 90), dead(300, 400));
    assert_eq!(held(&last_year, &yesterday, &site()), None);
    assert_eq!(held(&yesterday, &last_year, &site()), Some(Reason::Expired));
    assert_eq!(held(&next_year, &tomorrow, &site()), None);
    assert_eq!(
        held(&tomorrow, &next_year, &site()),
        Some(Reason::NotYetValid)
    );
    assert_eq!(held(&yesterday, &tomorrow, &site()), None);
    assert_eq!(held(&tomorrow, &yesterday, &site()), Some(Reason::Expired));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The law itself: what is taken in the place of a valid certificate is valid, covers what
    /// was covered, and is trusted if that was. And nothing is worse than itself.
    #[test]
    fn what_is_taken_is_never_worse(
        old in any_leaf(), new in any_leaf(), names in proptest::sample::subsequence(NAMES, 0..4),
    ) {
        let world = world();
        let (old, new) = (old.verified(world), new.verified(world));
        let sites: Vec<_> = names.iter().map(|name| exact(name)).collect();
        let needs = needs(&sites);
        prop_assert!(judge(&old, &old, &needs, NOW).is_ok());
        let taken = judge(&old, &new, &needs, NOW).is_ok();
        let alive = |verified: &Verified| verified.facts().validity.contains(NOW);
        if taken && alive(&old) {
            prop_assert!(alive(&new));
            prop_assert!(new.facts().trusted || !old.facts().trusted);
            prop_assert!(new.facts().chain_complete || !old.facts().chain_complete);
            for name in names {
                prop_assert!(new.covers(name) || !old.covers(name));
            }
        }
        // One of the two can always take the other's place: a source is never stuck for good
        // with both sides held back, unless each covers what the other does not.
        let back = judge(&new, &old, &needs, NOW);
        if let (false, Err(back)) = (taken, back) {
            let there = judge(&old, &new, &needs, NOW).map_err(|r| r.reason);
            let traded = [there.unwrap_err(), back.reason];
            prop_assert!(
                traded.iter().any(|reason| matches!(
                    reason,
                    Reason::NamesLost | Reason::BrokenChain | Reason::UntrustedChain
                )),
                "{traded:?}"
            );
        }
    }
}

const NAMES: &[&str] = &["a.test", "b.test", "c.test", "a.w.test"];

#[derive(Clone, Debug)]
struct AnyLeaf {
    names: Vec<&'static str>,
    from: i64,
    to: i64,
    how: u8,
}

fn any_leaf() -> impl Strategy<Value = AnyLeaf> {
    let names = proptest::sample::subsequence(NAMES, 0..=NAMES.len());
    (names, -100_i64..10, 1_i64..120, 0_u8..3).prop_map(|(names, from, length, how)| AnyLeaf {
        names: names.to_vec(),
        from,
        to: from + length,
        how,
    })
}

impl AnyLeaf {
    fn verified(&self, world: &World) -> Verified {
        let leaf = Leaf::new(&self.names).valid(day(self.from), day(self.to));
        let issued = match self.how {
            0 => world.issue(&leaf),
            1 => leaf.issue(&world.intermediate),
            _ => leaf.self_signed(),
        };
        issued.load(&world.roots).unwrap()
    }
}

fn world() -> &'static World {
    static WORLD: std::sync::OnceLock<World> = std::sync::OnceLock::new();
    WORLD.get_or_init(World::new)
}
