//! A renewed certificate comes into use by itself, whatever way it is written, and nobody notices.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::support::{
    Builder, HOST, KeyKind, Leaf, Origin, Placed, Staunch, TestCa, Traffic, Way, continually, until,
};

/// What is promised; a test is more patient, because it shares its machine with others.
const PROMISED: Duration = Duration::from_secs(1);

/// Swaps for each way; more for a long look (`STAUNCH_TEST_SWAPS=200`).
fn rounds() -> usize {
    let rounds = std::env::var("STAUNCH_TEST_SWAPS");
    rounds.map_or(8, |rounds| rounds.parse().expect("STAUNCH_TEST_SWAPS"))
}

/// A site whose certificate is written in this way.
fn placed(way: Way, leaf: &Leaf, origin: &Origin) -> (Placed, Builder) {
    let builder = Staunch::build();
    let placed = Placed::new(way, &builder.path("certificate"), leaf);
    let builder = builder.certificate(&placed).site(HOST, origin);
    (placed, builder)
}

fn wait_served(proxy: &Staunch, leaf: &Leaf) {
    until("the certificate is served", || {
        proxy.tls(HOST).leaf() == leaf.fingerprint
    });
}

fn swaps_under_load(way: Way) {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let first = ca.issue(HOST);
    let (mut placed, builder) = placed(way, &first, &origin);
    let proxy = builder.start();
    let mut known = BTreeSet::from([first.fingerprint]);
    let traffic = Traffic::start(&proxy);
    let mut took = Vec::new();
    for _ in 0..rounds() {
        let renewed = ca.issue(HOST);
        known.insert(renewed.fingerprint.clone());
        placed.write(&renewed);
        let begin = Instant::now();
        wait_served(&proxy, &renewed);
        took.push(begin.elapsed());
        traffic.go_on_for(20);
    }
    let report = traffic.stop();
    report.assert_flawless();
    assert!(report.leaves.is_subset(&known), "{:?}", report.leaves);
    let late = took.iter().filter(|took| **took > PROMISED).count();
    println!(
        "{way:?}: {} requests, {} handshakes; served after {took:.1?}, {late} later than promised",
        report.requests, report.handshakes
    );
    let swaps = proxy.count("staunch_certificate_swaps_total", &[]);
    assert!(swaps >= took.len() as f64, "{swaps} swaps are counted");
}

#[test]
fn swaps_in_place_go_unnoticed() {
    swaps_under_load(Way::InPlace);
}

#[test]
fn swaps_by_rename_go_unnoticed() {
    swaps_under_load(Way::Rename);
}

#[test]
fn swaps_chain_first_go_unnoticed() {
    swaps_under_load(Way::ChainThenKey);
}

#[test]
fn swaps_key_first_go_unnoticed() {
    swaps_under_load(Way::KeyThenChain);
}

#[test]
fn swaps_of_links_as_certbot_makes_them_go_unnoticed() {
    swaps_under_load(Way::Certbot);
}

#[test]
fn swaps_of_the_data_link_of_kubernetes_go_unnoticed() {
    swaps_under_load(Way::Kubernetes);
}

#[test]
fn swaps_by_recreating_the_folder_go_unnoticed() {
    swaps_under_load(Way::FolderRecreated);
}

fn half_a_pair_raises_no_alarm(way: Way) {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let first = ca.issue(HOST);
    let (mut placed, builder) = placed(way, &first, &origin);
    let proxy = builder.start();
    let renewed = ca.issue(HOST);
    placed.write_with_gap(&renewed, || {
        continually("the old pair is served", Duration::from_secs(2), || {
            proxy.tls(HOST).leaf() == first.fingerprint
        });
        let alarms = proxy.count("staunch_certificate_rejections_total", &[]);
        assert!(alarms == 0.0, "{alarms} rejections are counted");
    });
    wait_served(&proxy, &renewed);
    let alarms = proxy.count("staunch_certificate_rejections_total", &[]);
    assert!(alarms == 0.0, "{alarms} rejections are counted");
    assert!(!proxy.log().contains("key_mismatch"));
}

#[test]
fn a_chain_seconds_before_its_key_raises_no_alarm() {
    half_a_pair_raises_no_alarm(Way::ChainThenKey);
}

#[test]
fn a_key_seconds_before_its_chain_raises_no_alarm() {
    half_a_pair_raises_no_alarm(Way::KeyThenChain);
}

#[test]
fn open_connections_and_requests_in_flight_outlive_a_swap() {
    let ca = TestCa::new();
    let gate = crate::support::Gate::new();
    let origin = Origin::plan("origin").gated("/slow", &gate).start();
    let (mut placed, builder) = placed(Way::Rename, &ca.issue(HOST), &origin);
    let proxy = builder.start();
    let mut kept = proxy.connect();
    kept.get(HOST, "/").expect(200);
    let mut waiting = proxy.connect();
    waiting.ask("GET", HOST, "/slow", "").unwrap();
    until("it is in flight", || origin.requests().len() == 2);
    let renewed = ca.issue(HOST);
    placed.write(&renewed);
    wait_served(&proxy, &renewed);
    kept.get(HOST, "/").expect(200);
    gate.open();
    waiting.read("GET").expect(200);
}

#[test]
fn a_renewal_may_change_the_kind_of_key() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let (mut placed, builder) = placed(Way::Rename, &ca.issue(HOST), &origin);
    let proxy = builder.start();
    for kind in [KeyKind::Rsa2048, KeyKind::Ed25519, KeyKind::P384] {
        let renewed = ca.leaf(&[HOST]).key(kind).issue();
        placed.write(&renewed);
        wait_served(&proxy, &renewed);
    }
}

#[test]
fn a_swap_shows_in_the_inventory() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let (mut placed, builder) = placed(Way::Rename, &ca.issue(HOST), &origin);
    let proxy = builder.start();
    let renewed = ca.leaf(&[HOST]).days(-1, 119).issue();
    let before = proxy.metrics();
    let not_after = "staunch_certificate_not_after_timestamp_seconds";
    let before = before.get(not_after, &[]).unwrap();
    placed.write(&renewed);
    until("the inventory shows it", || {
        let entry = proxy.certificate(&placed.chain);
        entry["fingerprint_sha256"] == renewed.fingerprint.as_str()
            && entry["disk"]["state"] == "same"
            && entry["origin"] == "disk"
            && entry["serving"] == true
    });
    until("the metric shows it", || {
        proxy.metrics().get(not_after, &[]).unwrap() > before
    });
}

/// Makes the files unusable, and says which codes are right for it.
type Spoil = fn(&Placed, &Leaf) -> &'static [&'static str];

fn a_bad_file_changes_nothing_but_what_is_told(spoil: Spoil) {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let first = ca.issue(HOST);
    let (mut placed, builder) = placed(Way::Rename, &first, &origin);
    let proxy = builder.start();
    let mut kept = proxy.connect();
    kept.get(HOST, "/").expect(200);
    let codes = spoil(&placed, &ca.issue(HOST));

    until("the inventory tells it", || {
        assert_eq!(proxy.tls(HOST).leaf(), first.fingerprint);
        let entry = proxy.certificate(&placed.chain);
        let disk = &entry["disk"];
        let told = disk["reason"]
            .as_str()
            .is_some_and(|reason| codes.contains(&reason))
            && ["rejected", "missing"].contains(&disk["state"].as_str().unwrap_or_default());
        if told {
            assert_eq!(entry["fingerprint_sha256"], first.fingerprint.as_str());
            assert_eq!(entry["serving"], true);
            assert_eq!(entry["origin"], "last-good");
            assert!(
                disk["detail"]
                    .as_str()
                    .is_some_and(|detail| !detail.is_empty())
            );
            assert!(disk["since"].is_string());
        }
        told
    });
    until("the metrics tell it", || {
        let metrics = proxy.metrics();
        metrics.count("staunch_certificate_stale", &[]) >= 1.0
    });
    until("the log tells it", || {
        codes.iter().any(|code| proxy.log().contains(code))
    });
    assert_eq!(proxy.admin_get("/readyz").status, 200);
    kept.get(HOST, "/").expect(200);

    if placed.chain.is_dir() {
        fs::remove_dir(&placed.chain).unwrap();
    }
    let renewed = ca.issue(HOST);
    placed.write(&renewed);
    wait_served(&proxy, &renewed);
    until("all is well again", || {
        let entry = proxy.certificate(&placed.chain);
        entry["disk"]["state"] == "same" && proxy.count("staunch_certificate_stale", &[]) == 0.0
    });
}

#[test]
fn a_truncated_chain_changes_nothing() {
    a_bad_file_changes_nothing_but_what_is_told(|placed, leaf| {
        fs::write(&placed.chain, &leaf.chain[..leaf.chain.len() / 2]).unwrap();
        fs::write(&placed.key, &leaf.key).unwrap();
        &["malformed_pem"]
    });
}

#[test]
fn empty_files_change_nothing() {
    a_bad_file_changes_nothing_but_what_is_told(|placed, _| {
        fs::write(&placed.chain, "").unwrap();
        fs::write(&placed.key, "").unwrap();
        &["no_certificate", "no_key"]
    });
}

#[test]
fn garbage_changes_nothing() {
    a_bad_file_changes_nothing_but_what_is_told(|placed, _| {
        fs::write(&placed.chain, [0xff; 4096]).unwrap();
        &["no_certificate", "malformed_pem", "malformed_certificate"]
    });
}

#[test]
fn a_key_of_another_changes_nothing() {
    a_bad_file_changes_nothing_but_what_is_told(|placed, leaf| {
        // Both are new: one alone could be half of a renewal, for which there is more patience.
        fs::write(&placed.chain, &leaf.chain).unwrap();
        fs::write(&placed.key, TestCa::new().issue(HOST).key).unwrap();
        &["key_mismatch"]
    });
}

#[test]
fn a_key_of_another_that_is_there_at_the_start_is_told_at_once() {
    let (ca, origin) = (TestCa::new(), Origin::echo());
    let first = ca.issue(HOST);
    let (placed, builder) = placed(Way::Rename, &first, &origin);
    let proxy = builder.clone().start();
    wait_served(&proxy, &first);
    until("a copy was made", || {
        let kept = fs::read_dir(proxy.config().path("state/last-good"));
        kept.is_ok_and(|mut kept| kept.next().is_some())
    });
    proxy.term();
    assert!(proxy.wait_exit().success());
    drop(proxy);
    // One of two, as an interrupted renewal leaves it; nobody is at it any more.
    fs::write(&placed.chain, ca.issue(HOST).chain).unwrap();
    let proxy = builder.start();
    wait_served(&proxy, &first);
    let alarms = proxy.count("staunch_certificate_rejections_total", &[]);
    assert!(alarms == 1.0, "{alarms} rejections are counted");
    proxy.wait_log("key_mismatch");
}

#[test]
fn a_truncated_key_changes_nothing() {
    a_bad_file_changes_nothing_but_what_is_told(|placed, leaf| {
        fs::write(&placed.chain, &leaf.chain).unwrap();
        fs::write(&placed.key, &leaf.key[..leaf.key.len() / 2]).unwrap();
        &["malformed_pem", "no_key"]
    });
}

#[test]
fn a_removed_file_changes_nothing() {
    a_bad_file_changes_nothing_but_what_is_told(|placed, _| {
        fs::remove_file(&placed.key).unwrap();
        &["missing"]
    });
}

/// Permissions would not stop root, whom tests may run as; a folder cannot be read by anybody.
#[test]
fn a_file_that_cannot_be_read_changes_nothing() {
    a_bad_file_changes_nothing_but_what_is_told(|placed, _| {
        fs::remove_file(&placed.chain).unwrap();
        fs::create_dir(&placed.chain).unwrap();
        &["unreadable"]
    });
}

#[test]
fn a_certificate_that_is_worse_is_held_back() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    for worse in [
        ca.leaf(&[HOST]).expired().issue(),
        ca.leaf(&[HOST]).days(1, 90).issue(),
        ca.issue("other.test"),
    ] {
        let first = ca.issue(HOST);
        let (mut placed, builder) = placed(Way::Rename, &first, &origin);
        let proxy = builder.start();
        placed.write(&worse);
        until("it is held back", || {
            assert_eq!(proxy.tls(HOST).leaf(), first.fingerprint);
            let entry = proxy.certificate(&placed.chain);
            entry["disk"]["state"] == "held-back"
        });
    }
}

#[test]
fn a_new_certificate_in_a_folder_is_picked_up() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let builder = Staunch::build();
    let folder = builder.path("live");
    Placed::pair(&folder.join("one"), &ca.issue("one.test"));
    let proxy = builder
        .folder(&folder)
        .site("one.test", &origin)
        .site("two.test", &origin)
        .start();
    let two = ca.issue("two.test");
    Placed::pair(&folder.join("two"), &two);
    until("it is served", || {
        proxy.tls("two.test").leaf() == two.fingerprint
    });
}
