//! Files as operators, crashes and enemies leave them: whatever is put in the place of a good
//! certificate, at a reload, at a restart and at the first start, the site is served as well as it
//! can be, the others do not notice, and the inventory names the right reason.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Builder, KeyKind, Leaf, Origin, Placed, Site, Staunch, TestCa, require, run, until,
};

/// A name that is served from a certificate that nobody touches.
const UNTOUCHED: &str = "untouched.test";

/// What should come of a case.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// It cannot be served: the one from before goes on.
    Rejected(&'static str),
    /// It could be served and is worse: the one from before goes on. Alone it is served.
    HeldBack(&'static str),
    /// The file is not there.
    Missing,
    /// It is odd, and good.
    Taken,
}
use Then::{HeldBack, Missing, Rejected, Taken};

/// What a case has to work with.
struct Scene {
    name: String,
    /// Issues as the certificate from before was.
    ca: TestCa,
    intermediate: TestCa,
    chain: PathBuf,
    key: PathBuf,
}

impl Scene {
    /// A renewal as it should be.
    fn renewed(&self) -> Leaf {
        self.intermediate.leaf(&[&self.name]).issue()
    }

    fn put(&self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) {
        put(&self.chain, chain);
        put(&self.key, key);
    }

    fn leaf(&self, leaf: &Leaf) {
        self.put(&leaf.chain, &leaf.key);
    }

    /// A renewal that covers these names besides.
    fn also(&self, names: &[&str]) {
        let names = [&[self.name.as_str()], names].concat();
        self.leaf(&self.intermediate.leaf(&names).issue());
    }

    fn instead_of_chain(&self, make: impl FnOnce(&Path)) {
        fs::remove_file(&self.chain).unwrap();
        make(&self.chain);
    }
}

fn put(path: &Path, content: impl AsRef<[u8]>) {
    let _ = fs::remove_file(path);
    fs::write(path, content).unwrap();
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/certificates");
    fs::read(folder.join(name)).unwrap()
}

fn cut(text: &str, percent: usize) -> &str {
    &text[..text.len() * percent / 100]
}

/// The first certificate of a chain, and what follows.
fn parted(chain: &str) -> (&str, &str) {
    let end = chain.find("-----END CERTIFICATE-----\n").unwrap() + 26;
    chain.split_at(end)
}

fn openssl(arguments: &[&OsStr]) {
    run(Command::new(require("openssl")).args(arguments)).ok();
}

type Case = (&'static str, fn(&Scene), Then);

const CASES: &[Case] = &[
    (
        "chain-cut-10",
        |it| it.put(cut(&it.renewed().chain, 10), it.renewed().key),
        Rejected("malformed_pem"),
    ),
    (
        "chain-cut-30",
        |it| it.put(cut(&it.renewed().chain, 30), it.renewed().key),
        Rejected("malformed_pem"),
    ),
    (
        "chain-cut-70",
        |it| it.put(cut(&it.renewed().chain, 70), it.renewed().key),
        Rejected("malformed_pem"),
    ),
    (
        "chain-cut-99",
        |it| it.put(cut(&it.renewed().chain, 99), it.renewed().key),
        Rejected("malformed_pem"),
    ),
    (
        "key-cut-20",
        |it| {
            let new = it.renewed();
            it.put(&new.chain, cut(&new.key, 20));
        },
        Rejected("malformed_pem"),
    ),
    (
        "key-cut-60",
        |it| {
            let new = it.renewed();
            it.put(&new.chain, cut(&new.key, 60));
        },
        Rejected("malformed_pem"),
    ),
    (
        "key-cut-95",
        |it| {
            let new = it.renewed();
            it.put(&new.chain, cut(&new.key, 95));
        },
        Rejected("malformed_pem"),
    ),
    (
        "key-of-another",
        |it| it.put(it.renewed().chain, it.renewed().key),
        Rejected("key_mismatch"),
    ),
    (
        "chain-empty",
        |it| it.put("", it.renewed().key),
        Rejected("no_certificate"),
    ),
    (
        "key-empty",
        |it| it.put(it.renewed().chain, ""),
        Rejected("no_key"),
    ),
    (
        "chain-zeros",
        |it| it.put([0; 4096], it.renewed().key),
        Rejected("malformed_pem"),
    ),
    (
        "chain-text",
        |it| it.put("to be done", it.renewed().key),
        Rejected("no_certificate"),
    ),
    (
        "chain-html",
        |it| it.put("<!DOCTYPE html><h1>404</h1>", it.renewed().key),
        Rejected("no_certificate"),
    ),
    (
        "chain-is-the-key",
        |it| {
            let new = it.renewed();
            it.put(&new.key, &new.key);
        },
        Rejected("no_certificate"),
    ),
    (
        "key-is-the-chain",
        |it| {
            let new = it.renewed();
            it.put(&new.chain, &new.chain);
        },
        Rejected("no_key"),
    ),
    (
        "chain-request",
        |it| it.put(fixture("p256.request.pem"), it.renewed().key),
        Rejected("no_certificate"),
    ),
    (
        "chain-pkcs12",
        |it| it.put(fixture("p256.p12"), it.renewed().key),
        Rejected("no_certificate"),
    ),
    (
        "chain-pkcs7",
        |it| it.put(fixture("p256.pkcs7.pem"), it.renewed().key),
        Rejected("no_certificate"),
    ),
    (
        "chain-keystore",
        |it| it.put(fixture("keystore.jks"), it.renewed().key),
        Rejected("no_certificate"),
    ),
    (
        "key-encrypted",
        |it| it.put(it.renewed().chain, fixture("p256.encrypted.key")),
        Rejected("no_key"),
    ),
    (
        "key-public",
        |it| it.put(it.renewed().chain, fixture("p256.public.pem")),
        Rejected("no_key"),
    ),
    (
        "key-ssh",
        |it| it.put(it.renewed().chain, fixture("openssh.key")),
        Rejected("no_key"),
    ),
    (
        "chain-utf-16",
        |it| {
            let new = it.renewed();
            let wide: Vec<u8> = new
                .chain
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect();
            it.put([b"\xff\xfe", wide.as_slice()].concat(), &new.key);
        },
        Rejected("malformed_pem"),
    ),
    (
        "chain-damaged",
        |it| {
            let new = it.renewed();
            it.put(new.chain.replacen("MII", "MIJ", 1), &new.key);
        },
        Rejected("malformed_certificate"),
    ),
    (
        "unsupported-key",
        |it| it.put(fixture("secp256k1.pem"), fixture("secp256k1.pem")),
        Rejected("unsupported_key"),
    ),
    (
        "sha-1",
        |it| {
            let name = format!("subjectAltName=DNS:{}", it.name);
            let make = "req -x509 -sha1 -days 90 -subj /CN=a -newkey ec -pkeyopt \
                        ec_paramgen_curve:P-256 -noenc -addext";
            let mut arguments: Vec<&OsStr> = make.split(' ').map(OsStr::new).collect();
            arguments.push(OsStr::new(&name));
            arguments.extend(
                ["-out", "-keyout"]
                    .map(OsStr::new)
                    .iter()
                    .zip([&it.chain, &it.key])
                    .flat_map(|(option, file)| [*option, file.as_os_str()]),
            );
            openssl(&arguments);
        },
        HeldBack("untrusted_chain"),
    ),
    (
        "rsa-1024",
        |it| it.put(fixture("rsa-1024.pem"), fixture("rsa-1024.pem")),
        Rejected("weak_key"),
    ),
    (
        "chain-folder",
        |it| it.instead_of_chain(|path| fs::create_dir(path).unwrap()),
        Rejected("unreadable"),
    ),
    (
        "chain-fifo",
        |it| {
            it.instead_of_chain(|path| {
                run(Command::new("mkfifo").arg(path)).ok();
            })
        },
        Rejected("unreadable"),
    ),
    (
        "chain-socket",
        |it| it.instead_of_chain(|path| drop(UnixListener::bind(path).unwrap())),
        Rejected("unreadable"),
    ),
    (
        "chain-device",
        |it| it.instead_of_chain(|path| symlink("/dev/zero", path).unwrap()),
        Rejected("unreadable"),
    ),
    (
        "chain-gigabyte",
        |it| {
            it.instead_of_chain(|path| {
                fs::File::create(path).unwrap().set_len(1 << 30).unwrap();
            })
        },
        Rejected("unreadable"),
    ),
    (
        "chain-loop",
        |it| it.instead_of_chain(|path| symlink(path, path).unwrap()),
        Rejected("unreadable"),
    ),
    (
        "chain-dangling",
        |it| it.instead_of_chain(|path| symlink("gone.pem", path).unwrap()),
        Missing,
    ),
    ("chain-gone", |it| it.instead_of_chain(|_| ()), Missing),
    ("key-gone", |it| fs::remove_file(&it.key).unwrap(), Missing),
    (
        "no-intermediate",
        |it| {
            let new = it.renewed();
            it.put(parted(&new.chain).0, &new.key);
        },
        HeldBack("broken_chain"),
    ),
    (
        "intermediate-of-another",
        |it| {
            let (new, other) = (it.renewed(), TestCa::new().intermediate().issue("x.test"));
            it.put(
                [parted(&new.chain).0, parted(&other.chain).1].concat(),
                &new.key,
            );
        },
        HeldBack("broken_chain"),
    ),
    (
        "other-root",
        |it| it.leaf(&TestCa::new().issue(&it.name)),
        HeldBack("broken_chain"),
    ),
    (
        "expired",
        |it| it.leaf(&it.intermediate.leaf(&[&it.name]).expired().issue()),
        HeldBack("expired"),
    ),
    (
        "from-the-future",
        |it| it.leaf(&it.intermediate.leaf(&[&it.name]).days(5, 90).issue()),
        HeldBack("not_yet_valid"),
    ),
    (
        "other-names",
        |it| it.leaf(&it.intermediate.issue("elsewhere.test")),
        HeldBack("names_lost"),
    ),
    (
        "no-names",
        |it| it.leaf(&it.intermediate.leaf(&[]).issue()),
        HeldBack("names_lost"),
    ),
    (
        "older",
        |it| it.leaf(&it.intermediate.leaf(&[&it.name]).days(-30, 50).issue()),
        HeldBack("older"),
    ),
    (
        "leaf-last",
        |it| {
            let new = it.renewed();
            let (leaf, rest) = parted(&new.chain);
            it.put([rest, leaf].concat(), &new.key);
        },
        Taken,
    ),
    (
        "chain-twice",
        |it| {
            let new = it.renewed();
            it.put(new.chain.repeat(2), &new.key);
        },
        Taken,
    ),
    (
        "with-the-root",
        |it| {
            let new = it.renewed();
            it.put([new.chain.as_str(), &it.ca.root().pem].concat(), &new.key);
        },
        Taken,
    ),
    (
        "two-keys",
        |it| {
            let new = it.renewed();
            it.put(&new.chain, [it.renewed().key, new.key].concat());
        },
        Taken,
    ),
    (
        "byte-order-mark",
        |it| {
            let new = it.renewed();
            it.put(
                ["\u{feff}", &new.chain].concat(),
                ["\u{feff}", &new.key].concat(),
            );
        },
        Taken,
    ),
    (
        "crlf",
        |it| {
            let new = it.renewed();
            it.put(
                new.chain.replace('\n', "\r\n"),
                new.key.replace('\n', "\r\n"),
            );
        },
        Taken,
    ),
    (
        "key-in-the-chain",
        |it| {
            let new = it.renewed();
            it.put([&*new.chain, &*new.key].concat(), &new.key);
        },
        Taken,
    ),
    (
        "text-around",
        |it| {
            let new = it.renewed();
            it.put(
                ["Bag Attributes\n  a: b\n", &*new.chain, "\nend\n"].concat(),
                &new.key,
            );
        },
        Taken,
    ),
    (
        "der-key",
        |it| {
            let new = it.renewed();
            let pem = it.key.with_extension("pem-key");
            it.put(&new.chain, &new.key);
            fs::rename(&it.key, &pem).unwrap();
            let words = [
                "pkey",
                "-in",
                pem.to_str().unwrap(),
                "-outform",
                "DER",
                "-out",
                it.key.to_str().unwrap(),
            ];
            openssl(&words.map(OsStr::new));
        },
        Taken,
    ),
    (
        "rsa-for-ecdsa",
        |it| {
            it.leaf(
                &it.intermediate
                    .leaf(&[&it.name])
                    .key(KeyKind::Rsa2048)
                    .issue(),
            )
        },
        Taken,
    ),
    ("name-asterisk", |it| it.also(&["*"]), Taken),
    ("name-all-of-com", |it| it.also(&["*.com"]), Taken),
    (
        "name-part-of-label",
        |it| it.also(&["f*.example.test"]),
        Taken,
    ),
    (
        "name-two-asterisks",
        |it| it.also(&["*.*.example.test"]),
        Taken,
    ),
    (
        "name-upper-case",
        |it| it.also(&["LOUD.Example.Test"]),
        Taken,
    ),
    (
        "name-trailing-dot",
        |it| it.also(&["dot.example.test."]),
        Taken,
    ),
    ("name-idn", |it| it.also(&["xn--bcher-kva.test"]), Taken),
    (
        "name-addresses",
        |it| it.also(&["192.0.2.1", "2001:db8::1"]),
        Taken,
    ),
];

/// All cases, each with a site, a name and a certificate of its own.
struct Bench {
    scenes: Vec<(Scene, Leaf, Then)>,
    untouched: Leaf,
}

impl Bench {
    fn new(builder: Builder, origin: &Origin) -> (Self, Builder) {
        let ca = TestCa::new();
        let untouched = ca.issue(UNTOUCHED);
        let place = Placed::pair(&builder.path("untouched"), &untouched);
        let mut builder = builder
            .trusting(&ca)
            .certificate(&place)
            .site(UNTOUCHED, origin);
        let mut scenes = Vec::new();
        let ca = std::rc::Rc::new(ca);
        for (name, _, then) in CASES {
            let host = format!("{name}.test");
            let intermediate = ca.intermediate();
            let old = intermediate.leaf(&[&host]).days(-2, 60).issue();
            let placed = Placed::pair(&builder.path(name), &old);
            builder = builder
                .certificate(&placed)
                .sites(Site::new(&[&host], &origin.url()));
            let scene = Scene {
                name: host,
                ca: TestCa::new(),
                intermediate,
                chain: placed.chain.clone(),
                key: placed.key.clone(),
            };
            scenes.push((scene, old, *then));
        }
        (Self { scenes, untouched }, builder)
    }

    fn spoil(&self) {
        for ((scene, ..), (_, spoil, _)) in self.scenes.iter().zip(CASES) {
            spoil(scene);
        }
    }

    /// Waits until every case is as it should be, and says which are not.
    #[track_caller]
    fn check(
        &self,
        proxy: &Staunch,
        is_right: impl Fn(&Staunch, &Scene, &Leaf, Then) -> Result<(), String>,
    ) {
        let mut wrong = Vec::new();
        let begin = std::time::Instant::now();
        loop {
            let served = proxy.tls(UNTOUCHED).leaf();
            assert_eq!(
                served, self.untouched.fingerprint,
                "who is not touched does not notice"
            );
            wrong.clear();
            for (scene, old, then) in &self.scenes {
                if let Err(why) = is_right(proxy, scene, old, *then) {
                    wrong.push(format!("{} ({then:?}): {why}", scene.name));
                }
            }
            if wrong.is_empty() {
                return;
            }
            assert!(
                begin.elapsed() < crate::support::PATIENCE,
                "{}",
                wrong.join("\n")
            );
        }
    }
}

/// The entry of the inventory that speaks of these files.
fn entry<'a>(all: &'a [Value], scene: &Scene) -> Option<&'a Value> {
    let path = scene.chain.to_str().unwrap();
    all.iter().find(|entry| entry["source"][0] == path)
}

fn disk(all: &[Value], scene: &Scene) -> Result<(String, String), String> {
    let entry = entry(all, scene).ok_or("it is not in the inventory")?;
    let word = |key: &str| entry["disk"][key].as_str().unwrap_or_default().to_owned();
    Ok((word("state"), word("reason")))
}

fn expect(found: (String, String), state: &str, reason: &str) -> Result<(), String> {
    match found == (state.to_owned(), reason.to_owned()) {
        true => Ok(()),
        false => Err(format!("the disk is {found:?}, not {state} {reason}")),
    }
}

/// With a certificate held from before.
fn after_a_good_one(proxy: &Staunch, scene: &Scene, old: &Leaf, then: Then) -> Result<(), String> {
    let found = disk(&proxy.certificates(), scene)?;
    match then {
        Rejected(reason) => expect(found, "rejected", reason)?,
        HeldBack(reason) => expect(found, "held-back", reason)?,
        Missing => expect(found, "missing", "missing")?,
        Taken => expect(found, "same", "")?,
    }
    let is_old = proxy.tls(&scene.name).leaf() == old.fingerprint;
    match is_old == matches!(then, Taken) {
        true => Err("the wrong certificate is served".to_owned()),
        false => Ok(()),
    }
}

/// With nothing else.
fn alone(proxy: &Staunch, scene: &Scene, _: &Leaf, then: Then) -> Result<(), String> {
    let found = disk(&proxy.certificates(), scene)?;
    match then {
        Rejected(reason) => expect(found, "rejected", reason),
        Missing => expect(found, "missing", "missing"),
        HeldBack(_) | Taken => expect(found, "same", ""),
    }
}

#[test]
fn every_broken_and_odd_file_costs_itself_only_at_reload_restart_and_start() {
    let origin = Origin::echo();
    let (bench, builder) = Bench::new(Staunch::build(), &origin);
    let proxy = builder.clone().start();
    bench.check(&proxy, |proxy, scene, old, _| {
        match proxy.tls(&scene.name).leaf() == old.fingerprint {
            true => Ok(()),
            false => Err("it is not served".to_owned()),
        }
    });
    let copies = builder.path("state/last-good");
    until("everything is copied", || {
        fs::read_dir(&copies).is_ok_and(|all| all.count() > CASES.len())
    });

    bench.spoil();
    bench.check(&proxy, after_a_good_one);
    proxy.reload().expect(200);
    bench.check(&proxy, after_a_good_one);
    assert!(proxy.is_running());
    proxy.term();
    assert!(proxy.wait_exit().success());
    drop(proxy);

    let again = builder.clone().start();
    bench.check(&again, after_a_good_one);
    drop(again);

    let elsewhere = builder.path("fresh");
    let fresh = builder.set("state_dir", format!("{elsewhere:?}")).start();
    bench.check(&fresh, alone);
    let checked = fresh.config().run("check", &[]);
    assert_eq!(checked.status.code(), Some(2));
    for (name, _, then) in CASES {
        if let Rejected(reason) = then {
            let said = (checked.stdout.lines())
                .any(|line| line.contains(&format!("/{name}/")) && line.contains(reason));
            assert!(
                said,
                "check does not say {reason} of {name}: {}",
                checked.stdout
            );
        }
    }
}

#[test]
fn names_in_a_folder_may_be_no_text() {
    let origin = Origin::echo();
    let ca = TestCa::new();
    let builder = Staunch::build().trusting(&ca);
    let folder = builder.path("certificates");
    fs::create_dir(&folder).unwrap();
    let leaf = ca.issue("odd.test");
    for (end, content) in [(b"crt", &leaf.chain), (b"key", &leaf.key)] {
        let name = [b"\xff\xfe\x80.", end.as_slice()].concat();
        fs::write(folder.join(OsStr::from_bytes(&name)), content).unwrap();
    }
    fs::write(folder.join("new\nline.crt"), "x").unwrap();
    fs::create_dir(folder.join("folder.pem")).unwrap();
    symlink(&folder, folder.join("loop")).unwrap();
    let proxy = builder.folder(&folder).site("odd.test", &origin).start();
    until("it is served", || {
        proxy.tls("odd.test").leaf() == leaf.fingerprint
    });
    let metrics = proxy.admin_get("/metrics").expect(200).text();
    assert!(metrics.contains("name=\"odd.test\""), "{metrics}");
}

/// A way to run a program that is bound by the permissions of files, as everybody but root is.
fn bound_by_permissions(program: &Command) -> Command {
    let mut command = Command::new(require("setpriv"));
    if rustix::process::geteuid().is_root() {
        command.args(["--bounding-set", "-dac_override,-dac_read_search"]);
    }
    command.arg(program.get_program()).args(program.get_args());
    command.current_dir(program.get_current_dir().unwrap());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn start_bound(builder: Builder) -> Staunch {
    builder.write();
    let mut command = builder.command();
    command
        .arg("run")
        .arg("--config")
        .arg(builder.config_path());
    let command = bound_by_permissions(&command);
    let proxy = builder.spawn(command);
    proxy.wait_ready();
    proxy
}

#[test]
fn what_may_not_be_read_costs_itself_only() {
    let origin = Origin::echo();
    let ca = TestCa::new();
    let builder = Staunch::build().trusting(&ca);
    let (one, other) = (ca.issue("one.test"), ca.issue("other.test"));
    let place = Placed::pair(&builder.path("one"), &one);
    let beside = builder.path("beside");
    Placed::pair(&beside.join("other"), &other);
    let builder = builder
        .certificate(&place)
        .folder(&beside)
        .site("one.test", &origin)
        .site("other.test", &origin);
    let copies = builder.path("state/last-good");
    let proxy = start_bound(builder.clone());
    until("both are served", || {
        proxy.tls("one.test").leaf() == one.fingerprint
            && proxy.tls("other.test").leaf() == other.fingerprint
    });
    until("both are copied", || {
        fs::read_dir(&copies).is_ok_and(|all| all.count() >= 2)
    });
    // The key of one, as a job that runs as somebody else leaves it; the other's whole folder.
    let allow = |path: &Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, mode).unwrap();
    };
    put(&place.chain, &ca.issue("one.test").chain);
    allow(&place.key, 0o000);
    allow(&beside.join("other"), 0o000);
    let is_told = |proxy: &Staunch| {
        let disk = &proxy.certificate(&place.chain)["disk"];
        disk["state"] == "rejected" && disk["reason"] == "unreadable"
    };
    until("it is told", || is_told(&proxy));
    let disk = proxy.certificate(&place.chain)["disk"].to_string();
    assert!(disk.contains(place.key.to_str().unwrap()), "{disk}");
    let both_served = |proxy: &Staunch| {
        assert_eq!(proxy.tls("one.test").leaf(), one.fingerprint);
        assert_eq!(proxy.tls("other.test").leaf(), other.fingerprint);
    };
    both_served(&proxy);
    proxy.reload().expect(200);
    both_served(&proxy);
    proxy.term();
    assert!(proxy.wait_exit().success());

    let again = start_bound(builder);
    both_served(&again);
    until("it is told again", || is_told(&again));
    allow(&place.key, 0o600);
    allow(&beside.join("other"), 0o700);
    let renewed = ca.issue("one.test");
    put(&place.key, &renewed.key);
    put(&place.chain, &renewed.chain);
    until("it is served", || {
        again.tls("one.test").leaf() == renewed.fingerprint
    });
}
