//! Chains: order, gaps, trust, and the faults that follow.

use rcgen::{ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use crate::cert::load::Roots;
use crate::cert::testing::*;
use crate::cert::{KeyType, Name, Reason};

#[test]
fn a_whole_chain_is_complete_and_trusted() {
    let world = World::new();
    let verified = world.verified(&Leaf::new(&["Example.com", "*.example.com", "192.0.2.1"]));
    let facts = verified.facts();
    assert_eq!(facts.chain_length, 2);
    assert!(facts.chain_complete && facts.trusted && facts.server_usage);
    assert_eq!(facts.key_type, KeyType::EcdsaP256);
    assert_eq!(*facts.issuer, *"Test Intermediate");
    assert_eq!(facts.chain_not_after, day(60));
    assert_eq!(
        *facts.names,
        [
            Name::Dns("example.com".into()),
            Name::Wildcard("example.com".into()),
            Name::Ip([192, 0, 2, 1].into()),
        ]
    );
    assert_eq!(facts.notes, Vec::<String>::new());
    assert_eq!(verified.faults(NOW), []);
    assert!(verified.key().keys_match().is_ok());
}

#[test]
fn the_order_of_a_file_is_repaired() {
    let world = World::new();
    let leaf = Leaf::new(&["a.test"]);
    let expected = world.verified(&leaf);
    let Issued { chain, key } = leaf.issue(&world.intermediate);
    let intermediate = &world.intermediate.pem;
    let root = &world.root.pem;
    let stranger = Authority::root("Stranger").pem;
    for (what, file, note) in [
        (
            "leaf last",
            format!("{intermediate}{chain}"),
            "stands at place 2",
        ),
        (
            "root first",
            format!("{root}{intermediate}{chain}"),
            "stands at place 3",
        ),
        (
            "with the root",
            format!("{chain}{intermediate}{root}"),
            "the root 'Test Root' is left",
        ),
        (
            "twice",
            format!("{chain}{chain}{intermediate}{intermediate}"),
            "more than once",
        ),
        (
            "a stranger",
            format!("{chain}{stranger}{intermediate}"),
            "has no part in the chain",
        ),
    ] {
        let loaded = pair(&file, &key, &world.roots).unwrap();
        // The two leaves differ in their serial numbers only where issued twice: compare issuers.
        assert_eq!(loaded.key().cert[1..], expected.key().cert[1..], "{what}");
        assert!(loaded.facts().trusted, "{what}");
        let notes = loaded.facts().notes.join("\n");
        assert!(notes.contains(note), "{what}: {notes}");
    }
}

#[test]
fn an_untrusted_root_is_kept_so_that_the_chain_stays_whole() {
    let world = World::new();
    let issued = world.issue(&Leaf::new(&["a.test"])).and(&world.root);
    let loaded = issued.load(&Roots::empty()).unwrap();
    assert_eq!(loaded.facts().chain_length, 3);
    assert!(loaded.facts().chain_complete && !loaded.facts().trusted);
    let faults = loaded.faults(NOW);
    assert_eq!(faults[0].reason, Reason::UntrustedChain);
    assert!(
        faults[0].help.contains("openssl verify"),
        "{}",
        faults[0].help
    );
}

#[test]
fn a_missing_intermediate_is_told_by_name() {
    let world = World::new();
    let loaded = Leaf::new(&["a.test"])
        .issue(&world.intermediate)
        .load(&world.roots)
        .unwrap();
    assert!(!loaded.facts().chain_complete && !loaded.facts().trusted);
    let faults = loaded.faults(NOW);
    assert_eq!(faults[0].reason, Reason::BrokenChain);
    assert!(
        faults[0].detail.contains("'Test Intermediate'"),
        "{}",
        faults[0].detail
    );
}

#[test]
fn an_intermediate_of_the_same_name_and_another_key_is_no_link() {
    let world = World::new();
    let other = Authority::under("Test Intermediate", &world.root);
    let issued = Leaf::new(&["a.test"])
        .issue(&world.intermediate)
        .and(&other);
    let loaded = issued.load(&world.roots).unwrap();
    assert!(!loaded.facts().chain_complete);
    assert_eq!(loaded.facts().chain_length, 1);
}

#[test]
fn an_expired_intermediate_breaks_the_chain() {
    let world = World::new();
    let old = Authority::make("Old", Some(&world.root), day(-500), day(-1));
    let issued = Leaf::new(&["a.test"]).issue(&old).and(&old);
    let loaded = issued.load(&world.roots).unwrap();
    assert_eq!(loaded.facts().chain_not_after, day(-1));
    let faults = loaded.faults(NOW);
    assert_eq!(faults[0].reason, Reason::BrokenChain);
    assert!(faults[0].detail.contains("'Old'"), "{}", faults[0].detail);
    // It breaks by itself when the day comes.
    let soon = Authority::make("Soon", Some(&world.root), day(-500), day(5));
    let issued = Leaf::new(&["a.test"]).issue(&soon).and(&soon);
    let loaded = issued.load(&world.roots).unwrap();
    assert_eq!(loaded.faults(day(4)), []);
    assert_eq!(loaded.faults(day(6))[0].reason, Reason::BrokenChain);
}

/// A cross-signed authority whose older certificate has expired: the other way up is taken, and
/// the dead one is not sent.
#[test]
fn the_living_way_up_is_taken() {
    let world = World::new();
    let old_root = Authority::root("Old Root");
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let again = || KeyPair::from_pem(&pem).unwrap();
    let dead = Authority::with_key("Cross", Some(&old_root), day(-900), day(-1), key);
    let alive = Authority::with_key("Cross", Some(&world.root), day(-90), day(900), again());
    let issued = Leaf::new(&["a.test"]).issue(&alive).and(&dead).and(&alive);
    let loaded = issued.load(&world.roots).unwrap();
    assert_eq!(&loaded.key().cert[1..], std::slice::from_ref(&alive.der));
    assert!(loaded.facts().notes[0].contains("it expired at"));
    assert_eq!(loaded.faults(NOW), []);
    // Two living ways are both sent: clients differ in their roots.
    let other = Authority::with_key("Cross", Some(&old_root), day(-90), day(900), again());
    let issued = Leaf::new(&["a.test"]).issue(&alive).and(&alive).and(&other);
    assert_eq!(issued.load(&world.roots).unwrap().facts().chain_length, 3);
}

#[test]
fn chains_are_bounded() {
    let mut authorities = vec![Authority::root("Root")];
    for n in 0..12 {
        let next = Authority::under(&format!("Level {n}"), authorities.last().unwrap());
        authorities.push(next);
    }
    let issued = Leaf::new(&["a.test"]).issue(authorities.last().unwrap());
    let issued = authorities.iter().rev().fold(issued, Issued::and);
    let loaded = issued.load(&Roots::empty()).unwrap();
    assert_eq!(loaded.facts().chain_length, crate::cert::chain::MAX_CHAIN);
    assert_eq!(loaded.faults(NOW)[0].reason, Reason::BrokenChain);
}

#[test]
fn dates_are_faults_and_do_not_touch_trust() {
    let world = World::new();
    let past = world.verified(&Leaf::new(&["a.test"]).valid(day(-90), day(-2)));
    assert!(past.facts().trusted && past.facts().chain_complete);
    let faults = past.faults(NOW);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].reason, Reason::Expired);
    assert!(
        faults[0].detail.contains("2 days ago"),
        "{}",
        faults[0].detail
    );
    let future = world.verified(&Leaf::new(&["a.test"]).valid(day(3), day(90)));
    assert!(future.facts().trusted);
    assert_eq!(future.faults(NOW)[0].reason, Reason::NotYetValid);
    assert_eq!(future.faults(day(3)), []);
}

#[test]
fn usages_that_leave_out_servers_are_told() {
    let world = World::new();
    let client = Leaf::new(&["a.test"])
        .with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let no_signing = Leaf::new(&["a.test"])
        .with(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    for leaf in [client, no_signing] {
        let loaded = world.verified(&leaf);
        let reasons: Vec<_> = loaded.faults(NOW).iter().map(|f| f.reason).collect();
        assert_eq!(reasons, [Reason::WrongUsage]);
        assert!(loaded.facts().trusted);
    }
    let unlimited = Leaf::new(&["a.test"]).with(|params| {
        params.extended_key_usages.clear();
        params.key_usages.clear();
    });
    assert_eq!(world.verified(&unlimited).faults(NOW), []);
}

#[test]
fn weak_signatures_are_served_and_told() {
    for (name, hash) in [("sha1.pem", "SHA-1"), ("md5.pem", "MD5")] {
        let loaded = bundle(fixture(name), &Roots::empty()).unwrap();
        assert!(loaded.facts().weaknesses[0].contains(hash));
        assert!(loaded.facts().chain_complete);
        let faults = loaded.faults(NOW);
        assert!(faults.iter().any(|fault| fault.reason == Reason::WeakKey));
    }
}
