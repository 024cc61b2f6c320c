//! The keeper as a whole, on real files, with a clock that stands still.

mod clock;
mod copies;
mod halves;
mod lasting;
mod needed;
mod refused;
mod roots;
mod scale;
mod settle;
mod staples;
mod ways;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustls::SignatureScheme;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::{AcceptError, Degraded, Keeper, Options, Timing, Wanted};
use crate::cert::inventory::{Inventory, Settings};
use crate::cert::load::Roots;
use crate::cert::rank::Client;
use crate::cert::testing::{Issued, Leaf, NOW, World, day};
use crate::cert::{DiskState, Event, Fingerprint, Origin, Reason, Report, Stage};
use crate::clock::{Clock, Timestamp};
use crate::config::{CertificateSource, Location, SiteName};
use crate::state::StateDir;

/// Long enough for any machine that works at all.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    dir: tempfile::TempDir,
    world: World,
    clock: Clock,
    timing: Timing,
    sites: Vec<SiteName>,
}

struct Running {
    keeper: Keeper,
    events: Receiver<Arc<Event>>,
    seen: Vec<Arc<Event>>,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            world: World::new(),
            clock: Clock::manual(NOW),
            timing: Timing {
                settle: Duration::from_millis(100),
                tell: Duration::from_millis(400),
                tell_half: Duration::from_secs(3600),
                grace: Duration::from_millis(300),
                forget: Duration::from_secs(3600),
                steady: Duration::from_millis(50),
                rewrite: Duration::from_millis(100),
                poll: Duration::from_secs(3600),
                poll_unwatched: Duration::from_millis(100),
            },
            sites: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, names: &[&str], from: i64, to: i64) -> Issued {
        self.world
            .issue(&Leaf::new(names).valid(day(from), day(to)))
    }

    /// Writes a pair as `NAME.crt` and `NAME.key`.
    fn write(&self, name: &str, issued: &Issued) {
        self.write_chain(name, issued);
        self.write_key(name, issued);
    }

    fn write_chain(&self, name: &str, issued: &Issued) {
        self.put(&format!("{name}.crt"), &issued.chain);
    }

    fn write_key(&self, name: &str, issued: &Issued) {
        self.put(&format!("{name}.key"), &issued.key);
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn pair(&self, name: &str) -> CertificateSource {
        source(Location::Pair {
            chain: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            ocsp: None,
        })
    }

    fn folder(&self, name: &str) -> CertificateSource {
        let folder = self.path(name);
        source(Location::Folder { folder })
    }

    fn wanted(&self, sources: Vec<CertificateSource>) -> Wanted {
        Wanted {
            sources,
            sites: self.sites.clone(),
            settings: Settings::default(),
        }
    }

    fn roots(&self) -> Arc<Roots> {
        Arc::clone(&self.world.roots)
    }

    fn start(&self, sources: Vec<CertificateSource>) -> Running {
        let keeper = Keeper::start(Options {
            wanted: self.wanted(sources),
            state: Some(StateDir::open(&self.path("state")).unwrap()),
            clock: self.clock.clone(),
            roots: self.roots(),
            timing: self.timing,
        });
        Running {
            events: keeper.subscribe(),
            keeper,
            seen: Vec::new(),
        }
    }

    /// Waits until a copy of this certificate is in the state directory.
    fn wait_for_copy(&self, of: Fingerprint) {
        let folder = self.path("state/last-good");
        until("a copy was made", || {
            let names = fs::read_dir(&folder).unwrap();
            let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.any(|name| name.contains(&of.to_string()) && !name.ends_with("unfinished"))
        });
    }
}

fn source(location: Location) -> CertificateSource {
    CertificateSource {
        location,
        accept_worse: false,
        keep: true,
        routine: false,
        line: 0,
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn print(issued: &Issued) -> Fingerprint {
    issued.load(&Roots::empty()).unwrap().facts().fingerprint
}

impl Running {
    fn inventory(&self) -> Arc<Inventory> {
        self.keeper.inventory().load_full()
    }

    /// What is served for a name now.
    fn served(&self, host: &str, now: Timestamp) -> Option<Fingerprint> {
        let choice = self.inventory().choice(host, now)?;
        Some(choice.certificate.facts().fingerprint)
    }

    fn expect_served(&self, host: &str, issued: &Issued) {
        let expected = print(issued);
        until("the certificate is served", || {
            self.served(host, NOW) == Some(expected)
        });
    }

    fn report(&self, now: Timestamp) -> Vec<Report> {
        self.inventory().report(now)
    }

    fn disk(&self) -> (DiskState, Option<Reason>) {
        let report = self.report(NOW);
        (report[0].disk.state, report[0].disk.reason)
    }

    fn expect_disk(&self, state: DiskState, reason: impl Into<Option<Reason>>) {
        let expected = (state, reason.into());
        until(&format!("the disk is {expected:?}"), || {
            self.disk() == expected
        });
    }

    fn collect(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.seen.push(event),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn expect_event(&mut self, what: &str, mut is: impl FnMut(&Event) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.collect();
            if self.seen.iter().any(|event| is(event)) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {:?}", self.seen);
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn complaints(&mut self) -> usize {
        self.collect();
        let is_complaint = |event: &&Arc<Event>| {
            matches!(***event, Event::Rejected { .. } | Event::HeldBack { .. })
        };
        self.seen.iter().filter(is_complaint).count()
    }

    fn verified(&self) -> u64 {
        self.keeper.work().verified.load(Ordering::Relaxed)
    }
}

#[test]
fn a_renewed_pair_is_served_in_whichever_order_its_files_are_written() {
    let bench = Bench::new();
    let mut previous = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &previous);
    let mut running = bench.start(vec![bench.pair("a")]);
    running.expect_served("a.test", &previous);
    for n in 1..=6 {
        let next = bench.issue(&["a.test"], -30 + n, 60 + n);
        let first: fn(&Bench, &str, &Issued) = match n % 2 {
            0 => Bench::write_chain,
            _ => Bench::write_key,
        };
        first(&bench, "a", &next);
        assert_eq!(running.served("a.test", NOW), Some(print(&previous)));
        running.expect_disk(DiskState::Rejected, Reason::KeyMismatch);
        assert_eq!(running.served("a.test", NOW), Some(print(&previous)));
        bench.write("a", &next);
        running.expect_served("a.test", &next);
        running.expect_disk(DiskState::Same, None);
        previous = next;
    }
    assert_eq!(running.complaints(), 0, "{:?}", running.seen);
}

#[test]
fn a_pair_renewed_by_rename_by_certbot_and_by_kubernetes_is_served() {
    let bench = Bench::new();
    let first = bench.issue(&["a.test"], -30, 60);
    for place in ["rename/a", "archive/a/1", "k8s/..1/tls"] {
        bench.write(place, &first);
    }
    fs::create_dir_all(bench.path("live/a")).unwrap();
    let link = |target: &str, name: &str| {
        let temporary = bench.path("temporary-link");
        symlink(target, &temporary).unwrap();
        fs::rename(&temporary, bench.path(name)).unwrap();
    };
    link("../../archive/a/1.crt", "live/a/fullchain.pem");
    link("../../archive/a/1.key", "live/a/privkey.pem");
    link("..1", "k8s/..data");
    link("..data/tls.crt", "k8s/tls.crt");
    link("..data/tls.key", "k8s/tls.key");
    let alone = |folder: &str| bench.start(vec![bench.folder(folder)]);
    let running = [alone("rename"), alone("live"), alone("k8s")];
    for running in &running {
        running.expect_served("a.test", &first);
    }
    for n in 2..5 {
        let next = bench.issue(&["a.test"], -30 + n, 60 + n);
        bench.write("new", &next);
        fs::rename(bench.path("new.crt"), bench.path("rename/a.crt")).unwrap();
        fs::rename(bench.path("new.key"), bench.path("rename/a.key")).unwrap();
        bench.write(&format!("archive/a/{n}"), &next);
        link(&format!("../../archive/a/{n}.crt"), "live/a/fullchain.pem");
        link(&format!("../../archive/a/{n}.key"), "live/a/privkey.pem");
        bench.write(&format!("k8s/..{n}/tls"), &next);
        link(&format!("..{n}"), "k8s/..data");
        for running in &running {
            running.expect_served("a.test", &next);
        }
    }
}

#[test]
fn what_is_broken_changes_nothing_and_is_told_once() {
    let bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &good);
    let mut running = bench.start(vec![bench.pair("a")]);
    let other = bench.issue(&["a.test"], -20, 70);
    let truncated = &other.chain[..other.chain.len() / 3];
    let cases = [
        (truncated, Reason::MalformedPem),
        ("", Reason::NoCertificate),
        ("garbage", Reason::NoCertificate),
    ];
    for (n, (content, reason)) in cases.into_iter().enumerate() {
        bench.put("a.crt", content);
        if n > 0 {
            bench.put("a.key", &other.key);
        }
        running.expect_disk(DiskState::Rejected, reason);
        running.expect_event("rejected", |event| {
            matches!(event, Event::Rejected { rejection, .. } if rejection.reason == reason)
        });
        until("it is told", || running.complaints() == n + 1);
        assert_eq!(running.served("a.test", NOW), Some(print(&good)));
        assert_eq!(running.report(NOW)[0].origin, Origin::LastGood);
    }
    bench.write("a", &good);
    running.expect_disk(DiskState::Same, None);
    running.expect_event("recovered", |event| {
        matches!(event, Event::Recovered { .. })
    });
}

#[test]
fn a_folder_removed_and_recreated_keeps_serving_and_is_followed() {
    let bench = Bench::new();
    let first = bench.issue(&["a.test"], -30, 60);
    bench.write("d/a", &first);
    let running = bench.start(vec![bench.pair("d/a")]);
    for n in 1..4 {
        fs::remove_dir_all(bench.path("d")).unwrap();
        running.expect_disk(DiskState::Missing, Reason::Missing);
        assert!(running.served("a.test", NOW).is_some());
        let next = bench.issue(&["a.test"], -30 + n, 60 + n);
        bench.write("d/a", &next);
        running.expect_served("a.test", &next);
    }
}

#[test]
fn a_worse_one_is_held_back_until_accepted() {
    let mut bench = Bench::new();
    bench.sites = vec![
        SiteName::Exact("a.test".into()),
        SiteName::Exact("b.test".into()),
    ];
    let good = bench.issue(&["a.test", "b.test"], -30, 60);
    bench.write("a", &good);
    let mut running = bench.start(vec![bench.pair("a")]);
    let fewer = bench.issue(&["a.test"], -1, 89);
    bench.write("a", &fewer);
    running.expect_disk(DiskState::HeldBack, Reason::NamesLost);
    assert_eq!(running.served("a.test", NOW), Some(print(&good)));
    running.expect_event("held back", |event| {
        matches!(event, Event::HeldBack { fingerprint, .. } if *fingerprint == print(&fewer))
    });
    let unknown = running.keeper.accept("nothing", "because");
    assert!(matches!(unknown, Err(AcceptError::UnknownSource(_))));
    let label = bench.path("a.crt").to_string_lossy().into_owned();
    let accepted = running.keeper.accept(&label, "b is gone").unwrap();
    assert_eq!(
        (accepted.fingerprint, accepted.changed),
        (print(&fewer), true)
    );
    assert_eq!(running.served("a.test", NOW), Some(print(&fewer)));
    assert_eq!(running.served("b.test", NOW), None);
    assert!(!running.keeper.accept(&label, "again").unwrap().changed);
    running.expect_event(
        "accepted",
        |event| matches!(event, Event::Accepted { because, .. } if **because == *"b is gone"),
    );
    bench.put("a.key", "nothing");
    assert!(matches!(
        running.keeper.accept(&label, "no"),
        Err(AcceptError::CannotBeServed(_))
    ));
}

#[test]
fn accept_in_the_configuration_takes_what_is_worse() {
    let bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &good);
    let sources = vec![CertificateSource {
        accept_worse: true,
        ..bench.pair("a")
    }];
    let running = bench.start(sources);
    let older = bench.issue(&["a.test"], -60, 30);
    bench.write("a", &older);
    running.expect_served("a.test", &older);
}

#[test]
fn a_held_back_one_is_used_when_the_other_dies_and_one_from_the_future_at_its_time() {
    let bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 10);
    bench.write("a", &good);
    let mut running = bench.start(vec![bench.pair("a")]);
    let older = bench.issue(&["a.test"], -40, 50);
    bench.write("a", &older);
    running.expect_disk(DiskState::HeldBack, Reason::Older);
    assert_eq!(running.served("a.test", day(10)), Some(print(&good)));
    // With no event at all: at that second.
    assert_eq!(
        running.served("a.test", day(10).plus(1)),
        Some(print(&older))
    );
    let future = bench.issue(&["a.test"], 2, 90);
    bench.write("a", &future);
    running.expect_disk(DiskState::HeldBack, Reason::NotYetValid);
    assert_eq!(
        running.served("a.test", day(2).plus(-1)),
        Some(print(&good))
    );
    assert_eq!(running.served("a.test", day(2)), Some(print(&future)));
    bench.clock.set(day(2));
    running.expect_event("swapped", |event| {
        matches!(event, Event::Swapped { new, .. } if new.facts().fingerprint == print(&future))
    });
    running.expect_disk(DiskState::Same, None);
}

#[test]
fn a_restart_serves_what_was_good_while_the_disk_is_broken() {
    let bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 60);
    type Breakage = fn(&Bench, &Issued);
    let breakages: [(&str, Breakage); 4] = [
        ("truncated", |bench, good| {
            bench.put("a.crt", &good.chain[..99])
        }),
        ("another's key", |bench, _| {
            bench.write_key("a", &bench.issue(&["a.test"], 0, 9));
        }),
        ("missing", |bench, _| {
            fs::remove_file(bench.path("a.crt")).unwrap()
        }),
        ("worse", |bench, _| {
            bench.write("a", &bench.issue(&["a.test"], -90, -1));
        }),
    ];
    for (what, breakage) in breakages {
        bench.write("a", &good);
        let running = bench.start(vec![bench.pair("a")]);
        bench.wait_for_copy(print(&good));
        drop(running);
        breakage(&bench, &good);
        let running = bench.start(vec![bench.pair("a")]);
        assert_eq!(running.served("a.test", NOW), Some(print(&good)), "{what}");
        let report = running.report(NOW);
        assert_eq!(report[0].origin, Origin::LastGood, "{what}");
        assert_ne!(report[0].disk.state, DiskState::Same, "{what}");
        bench.write("a", &good);
        running.expect_disk(DiskState::Same, None);
    }
}

#[test]
fn a_damaged_state_folder_is_neither_fatal_nor_believed() {
    let bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &good);
    let running = bench.start(vec![bench.pair("a")]);
    bench.wait_for_copy(print(&good));
    drop(running);
    for entry in fs::read_dir(bench.path("state/last-good")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let key = memchr::memmem::find(&bytes, b"PRIVATE").unwrap();
        bytes[key + 60] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    bench.put("a.crt", "");
    let running = bench.start(vec![bench.pair("a")]);
    assert_eq!(running.served("a.test", NOW), None);
    assert_eq!(
        running.disk(),
        (DiskState::Rejected, Some(Reason::NoCertificate))
    );
}

#[test]
fn an_unwritable_state_folder_is_said_and_stops_nothing() {
    let bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &good);
    bench.put("state/last-good", "a file where a folder should be");
    let running = bench.start(vec![bench.pair("a")]);
    running.expect_served("a.test", &good);
    until("it is said", || {
        let said = running.keeper.degraded();
        said.iter().any(|said| matches!(said, Degraded::State(_)))
    });
}

#[test]
fn an_expired_certificate_is_served_and_one_that_is_broken_harms_itself_only() {
    let bench = Bench::new();
    let expired = bench.issue(&["old.test"], -90, -1);
    let good = bench.issue(&["a.test"], -30, 60);
    bench.write("old", &expired);
    bench.write("a", &good);
    bench.put("broken.crt", "x");
    bench.put("broken.key", "x");
    let names = ["old", "broken", "missing", "a"];
    let running = bench.start(names.iter().map(|name| bench.pair(name)).collect());
    assert_eq!(running.served("old.test", NOW), Some(print(&expired)));
    assert_eq!(running.served("a.test", NOW), Some(print(&good)));
    let report = running.report(NOW);
    let states: Vec<_> = report.iter().map(|entry| entry.disk.state).collect();
    assert_eq!(
        states,
        [
            DiskState::Same,
            DiskState::Rejected,
            DiskState::Missing,
            DiskState::Same
        ]
    );
    let stage = report[0].certificate.as_ref().unwrap().stage;
    assert_eq!(stage, Stage::Expired);
    assert!(report[1].certificate.is_none() && report[3].serving);
    // Unknown names get the first that is held.
    let default = running.inventory().default_choice(NOW).unwrap();
    assert_eq!(default.certificate.facts().fingerprint, print(&expired));
}

#[test]
fn certificates_appear_in_a_folder_and_are_let_go() {
    let mut bench = Bench::new();
    bench.sites = vec![SiteName::Exact("needed.test".into()), SiteName::Any];
    for folder in ["live", "beside"] {
        fs::create_dir(bench.path(folder)).unwrap();
    }
    let mut running = bench.start(vec![bench.folder("live"), bench.folder("beside")]);
    for name in ["a", "b", "needed"] {
        let issued = bench.issue(&[&format!("{name}.test")], -30, 60);
        bench.write(&format!("live/{name}/tls"), &issued);
        running.expect_served(&format!("{name}.test"), &issued);
    }
    fs::remove_dir_all(bench.path("live/a")).unwrap();
    fs::remove_dir_all(bench.path("live/needed")).unwrap();
    until("a is let go", || running.served("a.test", NOW).is_none());
    running.expect_event("removed", |event| matches!(event, Event::Removed { .. }));
    assert!(running.served("b.test", NOW).is_some());
    assert!(
        running.served("needed.test", NOW).is_some(),
        "a site needs it"
    );
    // Nobody empties a folder, or takes it away, on purpose.
    fs::remove_dir_all(bench.path("live")).unwrap();
    until("the folder is missed", || {
        running
            .report(NOW)
            .iter()
            .all(|entry| entry.disk.state == DiskState::Missing)
    });
    bench.outlast(&running, "beside");
    assert!(running.served("b.test", NOW).is_some());
    let issued = bench.issue(&["b.test"], -20, 70);
    bench.write("live/b/tls", &issued);
    running.expect_served("b.test", &issued);
}

#[test]
fn a_restart_with_a_lost_folder_serves_what_was_in_it() {
    let bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 60);
    bench.write("live/a/tls", &good);
    let running = bench.start(vec![bench.folder("live")]);
    bench.wait_for_copy(print(&good));
    drop(running);
    fs::remove_dir_all(bench.path("live")).unwrap();
    let running = bench.start(vec![bench.folder("live")]);
    assert_eq!(running.served("a.test", NOW), Some(print(&good)));
}

#[test]
fn a_reload_brings_new_sources_lets_go_of_old_ones_and_says_what_is_wrong() {
    let bench = Bench::new();
    let (a, b) = (
        bench.issue(&["a.test"], -30, 60),
        bench.issue(&["b.test"], -30, 60),
    );
    bench.write("a", &a);
    bench.write("b", &b);
    let mut running = bench.start(vec![bench.pair("a")]);
    bench.put("c.crt", "x");
    bench.put("c.key", "x");
    let wanted = bench.wanted(vec![bench.pair("b"), bench.pair("c")]);
    let report = running.keeper.reload(wanted.clone(), bench.roots());
    assert_eq!((report.sources, report.held), (2, 1));
    assert_eq!(report.changed, [bench.path("b.crt").to_string_lossy()]);
    assert_eq!(report.removed, [bench.path("a.crt").to_string_lossy()]);
    assert_eq!(report.refused[0].reason, Some(Reason::NoCertificate));
    assert_eq!(running.served("a.test", NOW), None);
    assert_eq!(running.served("b.test", NOW), Some(print(&b)));
    assert_eq!(running.complaints(), 1);
    let again = running.keeper.reload(wanted, bench.roots());
    assert!(again.changed.is_empty() && again.removed.is_empty());
    assert_eq!((again.refused.len(), running.complaints()), (1, 1));
}

#[test]
fn a_repaired_chain_or_a_new_staple_is_taken_although_the_leaf_is_the_same() {
    let bench = Bench::new();
    let leaf = Leaf::new(&["a.test"]);
    let bare = leaf.issue(&bench.world.intermediate);
    bench.write("a", &bare);
    let running = bench.start(vec![bench.pair("a")]);
    let length = |running: &Running| {
        running.report(NOW)[0]
            .certificate
            .as_ref()
            .unwrap()
            .chain_length
    };
    assert_eq!(length(&running), 1);
    let whole = bare.clone().and(&bench.world.intermediate);
    bench.write("a", &whole);
    until("the chain is whole", || length(&running) == 2);
    bench.write("a", &bare);
    running.expect_disk(DiskState::HeldBack, Reason::BrokenChain);
    assert_eq!(length(&running), 2);
}

#[test]
fn a_renewal_costs_only_itself() {
    let bench = Bench::new();
    let many = 60;
    for n in 0..many {
        let issued = bench.issue(&[&format!("n{n}.test")], -30, 60);
        bench.write(&format!("live/n{n}/tls"), &issued);
    }
    let running = bench.start(vec![bench.folder("live")]);
    assert_eq!(running.verified(), many);
    let before = running.inventory();
    let renewed = bench.issue(&["n7.test"], -20, 70);
    bench.write("live/n7/tls", &renewed);
    running.expect_served("n7.test", &renewed);
    // Chain and key were two writes, of which the first may have been looked at by itself.
    assert!(running.verified() - many <= 2);
    let after = running.inventory();
    assert_eq!(after.shards_apart_from(&before), 1);
    let candidates: usize = after.all().map(|held| held.candidates.len()).sum();
    assert_eq!(
        candidates,
        usize::try_from(many).unwrap(),
        "the old one is let go"
    );
}

#[test]
fn rsa_stands_beside_ecdsa() {
    let bench = Bench::new();
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let rsa = bench.world.issue(&Leaf::new(&["a.test"]).key(rsa.unwrap()));
    let ecdsa = bench.issue(&["a.test"], -30, 50);
    bench.write("rsa", &rsa);
    bench.write("ecdsa", &ecdsa);
    let running = bench.start(vec![bench.pair("rsa"), bench.pair("ecdsa")]);
    let inventory = running.inventory();
    let best = |schemes: &[SignatureScheme]| {
        let best = inventory
            .best("a.test", Client::Offers(schemes), NOW)
            .unwrap();
        best.certificate.facts().fingerprint
    };
    let old = [SignatureScheme::RSA_PSS_SHA256];
    let modern = [
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ];
    assert_eq!(best(&old), print(&rsa));
    assert_eq!(best(&modern), print(&ecdsa));
    assert!(running.report(NOW).iter().all(|entry| entry.serving));
}

#[test]
fn odd_files_are_named_for_what_they_are() {
    let bench = Bench::new();
    fs::create_dir(bench.path("folder.crt")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bench.path("pipe.crt"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    symlink("loop.crt", bench.path("loop.crt")).unwrap();
    fs::File::create(bench.path("huge.crt"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    for name in ["empty.crt", "empty.key"] {
        bench.put(name, "");
    }
    let names = ["folder", "pipe", "loop", "huge", "empty"];
    let running = bench.start(names.iter().map(|name| bench.pair(name)).collect());
    let reasons: Vec<_> = running
        .report(NOW)
        .iter()
        .filter_map(|entry| entry.disk.reason)
        .collect();
    let unreadable = [Reason::Unreadable; 4];
    assert_eq!(reasons[..4], unreadable);
    assert_eq!(reasons[4], Reason::NoCertificate);
}

#[test]
fn nothing_is_held_and_nothing_is_refused_without_a_word() {
    let bench = Bench::new();
    let running = bench.start(Vec::new());
    assert!(running.report(NOW).is_empty());
    assert_eq!(running.served("a.test", NOW), None);
    assert!(Path::new(&bench.path("state/ledger.jsonl")).exists());
}
