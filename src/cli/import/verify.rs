//! `--verify`: the server that runs now and what was imported are asked the same things.
//!
//! staunch is started with the imported configuration on addresses of its own, in a folder that is
//! gone afterwards. Questions are `GET`s, for every name and the paths that the configuration tells
//! apart. Servers behind get each of them twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls_pki_types::{CertificateDer, ServerName};
use toml::{Table, Value};

use crate::cli::probe::{Target, handshake};
use crate::http::{Method, parse};

/// For one question, and for the imported server to start.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions at a time.
const AT_ONCE: usize = 4;
/// Questions that a server leaves without an answer before it is not asked on.
const SILENT: usize = 8;
/// How often it is said how far it is.
const TELL: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: the head, and some of the body.
const MOST: u64 = 1 << 20;
/// What the imported server says of itself, in its folder.
const LOG: &str = "log";
/// What is asked below a path, and of names that stand for many.
const PART: &str = "staunch-verify";

/// Fields that differ with each answer, or that each server writes in its own way.
const VOLATILE: [&str; 18] = [
    "date",
    "server",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "etag",
    "last-modified",
    "expires",
    "age",
    "via",
    "alt-svc",
    "x-request-id",
    "x-runtime",
    "x-response-time",
    "x-correlation-id",
    "traceparent",
    "accept-ranges",
];

/// What came of it.
pub(super) struct Found {
    asked: usize,
    differences: Vec<String>,
}

impl Found {
    /// Whether all answers were alike.
    pub(super) const fn is_alike(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (asked, differ) = (self.asked, self.differences.len());
        writeln!(
            f,
            "verified: {asked} requests sent to both, {differ} {}",
            if differ == 1 {
                "difference"
            } else {
                "differences"
            }
        )?;
        self.differences
            .iter()
            .try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Asks the server at `url` and one with the imported configuration.
pub(super) fn run(url: &str, text: &str) -> Result<Found, String> {
    let target = Target::parse(url)?;
    let table: Table = text.parse().map_err(|error| format!("{error}"))?;
    let questions = questions(&table);
    let imported = Imported::start(table)?;
    let mut found = Found {
        asked: 0,
        differences: Vec::new(),
    };
    let of_both = |(host, path): &(String, String)| {
        let there = || ask(&target.host, target.port, host, path);
        let here = || ask("127.0.0.1", imported.https, host, path);
        (format!("https://{host}{path}"), at_once(there, here))
    };
    found.ask(&questions, url, of_both)?;
    // Which address has the redirects is known only where it is the usual one.
    if target.port == Target::PORT
        && let Some(port) = imported.http
    {
        let plain: Vec<_> = (questions.into_iter())
            .filter(|(_, path)| path == "/")
            .collect();
        let of_both = |(host, path): &(String, String)| {
            let there = || ask_plain(&target.host, 80, host, path);
            let here = || ask_plain("127.0.0.1", port, host, path);
            (format!("http://{host}{path}"), at_once(there, here))
        };
        found.ask(&plain, &format!("http://{}", target.host), of_both)?;
    }
    Ok(found)
}

/// What the one that runs answered, and what the imported one did.
type Both = (Result<Answer, String>, Result<Answer, String>);

/// Asks two servers at once.
fn at_once(
    there: impl FnOnce() -> Result<Answer, String> + Send,
    here: impl FnOnce() -> Result<Answer, String>,
) -> Both {
    thread::scope(|scope| {
        let there = scope.spawn(there);
        let here = here();
        let failed = |_| Err("the question failed".to_owned());
        (there.join().unwrap_or_else(failed), here)
    })
}

/// Every name, with the paths that are told apart for it.
fn questions(table: &Table) -> Vec<(String, String)> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut questions = Vec::new();
    for site in list(table.get("site")) {
        let mut paths = vec!["/".to_owned(), format!("/{PART}")];
        for route in list(site.get("route")) {
            let text = |key| route.get(key).and_then(Value::as_str);
            if let Some(exact) = text("exact") {
                paths.push(exact.to_owned());
            }
            if let Some(path) = text("path") {
                paths.push(path.to_owned());
                paths.push(format!("{}/{PART}?a=b", path.trim_end_matches('/')));
            }
        }
        for name in list(site.get("names")) {
            let host = match name.as_str() {
                Some("*") => format!("{PART}.invalid"),
                Some(name) => name.replacen('*', PART, 1),
                None => continue,
            };
            questions.extend(paths.iter().map(|path| (host.clone(), path.clone())));
        }
    }
    questions
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    certificate: Option<CertificateDer<'static>>,
    status: u16,
    fields: BTreeMap<String, Vec<String>>,
}

fn ask(server: &str, port: u16, host: &str, path: &str) -> Result<Answer, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host}: no name"))?;
    let request = request(host, path);
    let (chain, bytes) = handshake::exchange(server, port, &name, &request, MOST, PATIENCE)?;
    let mut answer = Answer::read(&bytes)?;
    // To itself it may be told with or without its name, and the port that is not known here.
    for location in answer.fields.get_mut("location").into_iter().flatten() {
        if let Some(rest) = location.strip_prefix(&format!("https://{host}"))
            && let Some(begin) = rest.find('/')
            && (begin == 0 || rest.starts_with(':'))
        {
            *location = rest[begin..].to_owned();
        }
    }
    answer.certificate = chain.into_iter().next();
    Ok(answer)
}

fn ask_plain(server: &str, port: u16, host: &str, path: &str) -> Result<Answer, String> {
    let request = request(host, path);
    Answer::read(&handshake::exchange_plain(
        server, port, &request, MOST, PATIENCE,
    )?)
}

fn request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: staunch-verify\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

impl Answer {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let head = parse::complete(parse::response(bytes, Method::Get))
            .map_err(|error| format!("the answer is no HTTP/1.1: {error}"))?;
        let status = head.status;
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (_, name, value) in head.fields.iter() {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            let value = String::from_utf8_lossy(value);
            // What is made up anew each time is behind the name.
            let value = match name.as_str() {
                "set-cookie" => value.split('=').next().unwrap_or_default(),
                _ => &value,
            };
            // Errors and redirects of each server have bodies of their own.
            let own = status >= 300 && name.starts_with("content-");
            if !own && !VOLATILE.contains(&name.as_str()) {
                found.entry(name).or_default().push(value.to_owned());
            }
        }
        Ok(Self {
            certificate: None,
            status,
            fields: found,
        })
    }
}

impl Found {
    /// Asks all of it, several at a time, and says how far that is. A server that answers nothing is
    /// not asked on.
    fn ask<Q: Sync>(
        &mut self,
        questions: &[Q],
        server: &str,
        of_both: impl Fn(&Q) -> (String, Both) + Sync,
    ) -> Result<(), String> {
        let (next, silent) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let answers = Mutex::new(BTreeMap::new());
        let last_told = Mutex::new(Instant::now());
        eprintln!("verify: {} requests to {server}", questions.len());
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while silent.load(Ordering::Relaxed) < SILENT {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(question) = questions.get(index) else {
                            return;
                        };
                        let (text, both) = of_both(question);
                        match both.0 {
                            Ok(_) => silent.store(0, Ordering::Relaxed),
                            Err(_) => _ = silent.fetch_add(1, Ordering::Relaxed),
                        }
                        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                        answers.insert(index, (text, both));
                        let mut told = last_told.lock().unwrap_or_else(PoisonError::into_inner);
                        if told.elapsed() >= TELL {
                            *told = Instant::now();
                            eprintln!("verify: {} of {}", answers.len(), questions.len());
                        }
                    }
                });
            }
        });
        let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        let why =
            (answers.values().rev()).find_map(|(_, (there, _))| there.as_ref().err().cloned());
        let given_up = silent.into_inner() >= SILENT.min(questions.len());
        for (question, (there, here)) in answers.into_values() {
            self.compare(&question, there, here);
        }
        match why {
            Some(why) if given_up => Err(format!(
                "{server} does not answer: {why}; is it the server that runs now?"
            )),
            _ => Ok(()),
        }
    }

    fn compare(
        &mut self,
        question: &str,
        there: Result<Answer, String>,
        here: Result<Answer, String>,
    ) {
        self.asked += 1;
        let mut differs = |what: String| self.differences.push(format!("{question}: {what}"));
        let (there, here) = match (there, here) {
            (Ok(there), Ok(here)) => (there, here),
            (Err(there), Ok(here)) => {
                return differs(format!("the one that runs: {there}; here {}", here.status));
            }
            (Ok(there), Err(here)) => {
                return differs(format!(
                    "{} from the one that runs; here: {here}",
                    there.status
                ));
            }
            (Err(there), Err(here)) => {
                return differs(format!("neither answers: {there}; here: {here}"));
            }
        };
        if there.certificate != here.certificate {
            differs("another certificate is shown".to_owned());
        }
        // Both say that so many questions are too many.
        if here.status == 429 && matches!(there.status, 429 | 503) {
            return;
        }
        let redirects = |status| matches!(status, 301 | 302 | 307 | 308);
        // Plain text is redirected with 308, whatever it was.
        let same =
            redirects(there.status) && redirects(here.status) && question.starts_with("http:");
        if there.status != here.status && !same {
            differs(format!("{}, here {}", there.status, here.status));
        }
        let names = there.fields.keys().chain(here.fields.keys());
        let names: BTreeSet<_> = names.collect();
        for name in names {
            let shown = |answer: &Answer| match answer.fields.get(name) {
                Some(values) => format!("`{}`", values.join(", ")),
                None => "nothing".to_owned(),
            };
            // Where something is compressed it has to be said, and not all that run do so.
            let coding = |values: &Vec<String>| values.iter().all(|v| v == "Accept-Encoding");
            let said = here.fields.get(name).is_some_and(coding);
            if *name == "vary" && !there.fields.contains_key(name) && said {
                continue;
            }
            if there.fields.get(name) != here.fields.get(name) {
                differs(format!("{name}: {}, here {}", shown(&there), shown(&here)));
            }
        }
    }
}

/// staunch with the imported configuration. It ends with this.
struct Imported {
    child: Child,
    folder: PathBuf,
    https: u16,
    http: Option<u16>,
}

impl Imported {
    fn start(mut table: Table) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("{PART}-{}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| format!("{}: {error}", folder.display()))?;
        let (https, http) = (free_port()?, free_port()?);
        let plain = adapt(&mut table, https, http, &folder);
        let config = folder.join("staunch.toml");
        let text = table.to_string();
        fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        // Not a pipe, which would be full at some time.
        let log = fs::File::create(folder.join(LOG)).map_err(|error| error.to_string())?;
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("staunch cannot be started: {error}"))?;
        let mut imported = Self {
            child,
            folder,
            https,
            http: plain.then_some(http),
        };
        imported.wait()?;
        Ok(imported)
    }

    /// Until it listens.
    fn wait(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.https)).is_ok() {
                return Ok(());
            }
            if let Ok(Some(_)) = self.child.try_wait() {
                let said = fs::read_to_string(self.folder.join(LOG)).unwrap_or_default();
                return Err(format!(
                    "staunch does not start with what was imported:\n{said}"
                ));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err("staunch does not begin to listen".to_owned())
    }
}

impl Drop for Imported {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

/// Addresses and files of its own. Whether plain text is listened for.
fn adapt(table: &mut Table, https: u16, http: u16, folder: &Path) -> bool {
    let mut listen = Table::new();
    let address = |port| Value::Array(vec![Value::String(format!("127.0.0.1:{port}"))]);
    let before = table.remove("listen");
    let plain = before
        .as_ref()
        .and_then(|listen| listen.get("http")?.as_array());
    let plain = plain.is_some_and(|addresses| !addresses.is_empty());
    listen.insert("https".to_owned(), address(https));
    if plain {
        listen.insert("http".to_owned(), address(http));
    }
    listen.insert("admin".to_owned(), Value::String(String::new()));
    table.insert("listen".to_owned(), Value::Table(listen));
    // They would take the ports of what runs, and are not asked.
    table.remove("stream");
    let state = folder.join("state").display().to_string();
    table.insert("state_dir".to_owned(), Value::String(state));
    table.insert("keep_last_good".to_owned(), Value::Boolean(false));
    let log = Table::from_iter([("level".to_owned(), Value::String("error".to_owned()))]);
    table.insert("log".to_owned(), Value::Table(log));
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_asked_for_every_path() {
        let table = "[[site]]\nnames = [\"a.test\", \"*.b.test\", \"*\"]\n\
                     [[site.route]]\npath = \"/api/\"\n[[site.route]]\nexact = \"/x\"\n";
        let questions = questions(&table.parse().unwrap());
        assert_eq!(questions.len(), 3 * 5);
        for (host, path) in [
            ("a.test", "/"),
            ("a.test", "/api/staunch-verify?a=b"),
            ("staunch-verify.b.test", "/x"),
            ("staunch-verify.invalid", "/api/"),
        ] {
            let wanted = (host.to_owned(), path.to_owned());
            assert!(questions.contains(&wanted), "{wanted:?} in {questions:?}");
        }
    }

    #[test]
    fn what_runs_keeps_its_ports() {
        let text = "[listen]\nhttps = [\"[::]:443\"]\n[[stream]]\nlisten = [\"[::]:5432\"]\n";
        let mut table = text.parse().unwrap();
        assert!(!adapt(&mut table, 1, 2, Path::new("/x")));
        let text = table.to_string();
        assert!(!text.contains("443") && !text.contains("5432"), "{text}");
    }

    #[test]
    fn what_differs_is_told_and_what_always_does_is_not() {
        let read = |text: &str| Answer::read(text.as_bytes());
        let mut found = Found {
            asked: 0,
            differences: Vec::new(),
        };
        let there = "HTTP/1.1 200 OK\r\nDate: a\r\nX-A: 1\r\nSet-Cookie: s=1\r\n\r\n";
        let here = "HTTP/1.1 200 OK\r\nDate: b\r\nSet-Cookie: s=2\r\n\r\n";
        found.compare("https://a.test/", read(there), read(here));
        assert_eq!(
            found.differences,
            ["https://a.test/: x-a: `1`, here nothing"]
        );
        let there = "HTTP/1.1 301 Moved\r\nLocation: https://a.test/\r\n\r\n";
        let here = "HTTP/1.1 308 Moved\r\nLocation: https://a.test/\r\n\r\n";
        found.compare("http://a.test/", read(there), read(here));
        let plain = "HTTP/1.1 200 OK\r\n\r\n";
        let coded = "HTTP/1.1 200 OK\r\nVary: Accept-Encoding\r\n\r\n";
        found.compare("https://a.test/", read(plain), read(coded));
        let limited = |status: &str| read(&format!("HTTP/1.1 {status}\r\n\r\n"));
        found.compare("https://a.test/", limited("503 Busy"), limited("429 Slow"));
        assert_eq!(found.differences.len(), 1);
        found.compare("https://a.test/", read(there), read(here));
        assert_eq!(
            found.differences.last().unwrap(),
            "https://a.test/: 301, here 308"
        );
    }
}
