//! The program under test: its configuration, its process, and ways to look at it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::ca::Root;
use super::{Connection, HOST, Leaf, Metrics, Origin, Placed, Port, Ran, Response, TestCa, Tls};
use super::{eventually, until};

/// The program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_staunch");

/// One `[[site]]`.
#[derive(Clone, Debug)]
pub struct Site(String);

impl Site {
    /// With these names and everything going to one upstream: a URL or a name.
    pub fn new(names: &[&str], upstream: &str) -> Self {
        Self(format!("names = {names:?}\nupstream = {upstream:?}\n"))
    }

    /// With routes only.
    pub fn without_upstream(names: &[&str]) -> Self {
        Self(format!("names = {names:?}\n"))
    }

    /// Whose TLS is passed through to an upstream.
    pub fn passed(names: &[&str], upstream: &str) -> Self {
        Self(format!("names = {names:?}\npassthrough = {upstream:?}\n"))
    }

    /// The one for clients that name none.
    pub fn default(mut self) -> Self {
        self.0.push_str("default = true\n");
        self
    }

    /// With further lines of the file.
    pub fn also(mut self, text: &str) -> Self {
        self.0.push_str(text);
        self
    }

    /// With a path that goes elsewhere.
    pub fn route(mut self, path: &str, upstream: &str) -> Self {
        write!(
            self.0,
            "[[site.route]]\npath = {path:?}\nupstream = {upstream:?}\n"
        )
        .unwrap();
        self
    }
}

/// A configuration, and a program to be started with it.
#[derive(Clone)]
pub struct Builder {
    home: Arc<TempDir>,
    ports: Arc<Ports>,
    /// Table, then key, then value as TOML.
    tables: BTreeMap<String, BTreeMap<String, String>>,
    certificates: Vec<String>,
    sites: Vec<Site>,
    streams: Vec<String>,
    root: Option<Arc<Root>>,
    environment: Vec<(String, String)>,
}

struct Ports {
    https: Port,
    http: Port,
    admin: Port,
}

impl Builder {
    /// Sets a key to a value written as TOML: `.set("timeouts.idle", "\"1s\"")`.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.change(key, value);
        self
    }

    /// The same, in place.
    pub fn change(&mut self, key: &str, value: impl ToString) {
        let (table, key) = key.rsplit_once('.').unwrap_or(("", key));
        let table = self.tables.entry(table.to_owned()).or_default();
        table.insert(key.to_owned(), value.to_string());
    }

    /// Puts a certificate on disk and uses it.
    pub fn leaf(self, leaf: &Leaf) -> Self {
        let folder = self.path(&format!("certificates/{}", self.certificates.len()));
        let placed = Placed::pair(&folder, leaf);
        let mut builder = self.certificate(&placed);
        builder.root.get_or_insert_with(|| Arc::clone(&leaf.root));
        builder
    }

    /// Uses a certificate that is on disk.
    pub fn certificate(self, placed: &Placed) -> Self {
        self.pair(&placed.chain, &placed.key)
    }

    /// Uses two files, whatever is in them.
    pub fn pair(mut self, chain: &Path, key: &Path) -> Self {
        self.certificates
            .push(format!("chain = {chain:?}\nkey = {key:?}\n"));
        self
    }

    /// Uses one file that holds both.
    pub fn bundle(mut self, file: &Path) -> Self {
        self.certificates.push(format!("chain = {file:?}\n"));
        self
    }

    /// Uses whatever is in a folder.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.certificates.push(format!("folder = {folder:?}\n"));
        self
    }

    /// Adds a site for one name.
    pub fn site(self, name: &str, origin: &Origin) -> Self {
        self.sites(Site::new(&[name], &origin.url()))
    }

    /// Adds a site.
    pub fn sites(mut self, site: Site) -> Self {
        self.add_site(site);
        self
    }

    /// The same, in place.
    pub fn add_site(&mut self, site: Site) {
        self.sites.push(site);
    }

    /// Takes all sites away.
    pub fn clear_sites(&mut self) {
        self.sites.clear();
    }

    /// Adds a `[[stream]]` on a port, with these lines.
    pub fn stream(mut self, port: &Port, lines: &str) -> Self {
        let listen = format!("listen = [\"{}\"]\n", port.address());
        self.streams.push(listen + lines);
        self
    }

    /// Takes all streams away.
    pub fn clear_streams(&mut self) {
        self.streams.clear();
    }

    /// Adds an `[upstream.NAME]`.
    pub fn upstream(self, name: &str, servers: &[&str]) -> Self {
        self.set(&format!("upstream.{name}.servers"), format!("{servers:?}"))
    }

    /// Lets the program trust this root as if the system did.
    pub fn trusting(mut self, ca: &TestCa) -> Self {
        self.root = Some(Arc::clone(ca.root()));
        self
    }

    /// Sets an environment variable for the program.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A path in the folder that is this program's alone.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Where the configuration is.
    pub fn config_path(&self) -> PathBuf {
        self.path("staunch.toml")
    }

    pub fn https(&self) -> SocketAddr {
        self.ports.https.address()
    }

    pub fn http(&self) -> SocketAddr {
        self.ports.http.address()
    }

    pub fn admin(&self) -> SocketAddr {
        self.ports.admin.address()
    }

    /// The configuration as it stands.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Keys without a table sort first, as TOML wants it.
        for (table, keys) in &self.tables {
            if !table.is_empty() {
                writeln!(text, "\n[{table}]").unwrap();
            }
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        for certificate in &self.certificates {
            write!(text, "\n[[certificate]]\n{certificate}").unwrap();
        }
        for site in &self.sites {
            write!(text, "\n[[site]]\n{}", site.0).unwrap();
        }
        for stream in &self.streams {
            write!(text, "\n[[stream]]\n{stream}").unwrap();
        }
        text
    }

    /// Writes the configuration to its file.
    pub fn write(&self) {
        super::disk::replace(&self.config_path(), &self.text());
    }

    /// The program, with this environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command
            .current_dir(self.home.path())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("STATE_DIRECTORY")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        if let Some(root) = &self.root {
            let file = self.path("roots.pem");
            fs::write(&file, &root.pem).unwrap();
            command
                .env("SSL_CERT_FILE", file)
                .env_remove("SSL_CERT_DIR");
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// Writes the configuration and runs a command that takes it.
    #[track_caller]
    pub fn run(&self, command: &str, arguments: &[&str]) -> Ran {
        self.write();
        let mut program = self.command();
        program
            .arg(command)
            .arg("--config")
            .arg(self.config_path())
            .args(arguments);
        super::run(&mut program)
    }

    /// Starts serving, and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Staunch {
        self.write();
        let mut command = self.command();
        command.arg("run").arg("--config").arg(self.config_path());
        let staunch = self.spawn(command);
        staunch.wait_ready();
        staunch
    }

    /// Starts the command as it is.
    #[track_caller]
    pub fn spawn(self, mut command: Command) -> Staunch {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Lines::collect(child.stdout.take().unwrap());
        let stderr = Lines::collect(child.stderr.take().unwrap());
        Staunch {
            builder: self,
            child: Mutex::new(child),
            stdout,
            stderr,
        }
    }
}

/// The program, running; killed when dropped.
pub struct Staunch {
    builder: Builder,
    child: Mutex<Child>,
    stdout: Lines,
    stderr: Lines,
}

impl Staunch {
    /// A configuration with listeners on ports of its own, short pauses, and no site.
    pub fn build() -> Builder {
        // Keys lie in it.
        let private = fs::Permissions::from_mode(0o700);
        let home = tempfile::Builder::new().permissions(private).tempdir();
        let home = Arc::new(home.unwrap());
        let ports = Arc::new(Ports {
            https: Port::free(),
            http: Port::free(),
            admin: Port::free(),
        });
        let builder = Builder {
            home,
            tables: BTreeMap::new(),
            certificates: Vec::new(),
            sites: Vec::new(),
            streams: Vec::new(),
            root: None,
            environment: Vec::new(),
            ports,
        };
        let (https, http, admin) = (builder.https(), builder.http(), builder.admin());
        let state = builder.path("state");
        builder
            .set("state_dir", format!("{state:?}"))
            .set("listen.https", format!("[\"{https}\"]"))
            .set("listen.http", format!("[\"{http}\"]"))
            .set("listen.admin", format!("\"{admin}\""))
            .set("workers.threads", 2)
            .set("drain.notice", "\"0s\"")
            .set("drain.deadline", "\"20s\"")
    }

    /// The same with one site, [`HOST`], and a certificate for it.
    pub fn serving(origin: &Origin) -> Builder {
        Self::build()
            .leaf(&TestCa::new().issue(HOST))
            .site(HOST, origin)
    }

    /// What it was started with.
    pub const fn config(&self) -> &Builder {
        &self.builder
    }

    pub fn https(&self) -> SocketAddr {
        self.builder.https()
    }

    pub fn http(&self) -> SocketAddr {
        self.builder.http()
    }

    pub fn admin(&self) -> SocketAddr {
        self.builder.admin()
    }

    /// A TLS client that asks for this name.
    pub fn tls(&self, name: &str) -> Tls {
        Tls::to(self.https()).name(name)
    }

    /// A connection to [`HOST`], over HTTP/1.1.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        self.tls(HOST).connect()
    }

    /// `GET` of [`HOST`] on a new connection.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.connect().get(HOST, target)
    }

    /// Arguments for curl to reach this name here, whatever its certificate.
    pub fn curl(&self, host: &str, target: &str, arguments: &[&str]) -> Ran {
        let port = self.https().port();
        let resolve = format!("{host}:{port}:127.0.0.1");
        let url = format!("https://{host}:{port}{target}");
        let here = ["--insecure", "--resolve", &resolve, &url];
        super::curl(&[arguments, &here].concat())
    }

    /// `GET` of the admin address; `Err` where it does not answer.
    pub fn try_admin_get(&self, target: &str) -> std::io::Result<Response> {
        Connection::plain(self.admin())?.try_get("localhost", target)
    }

    /// `GET` of the admin address.
    #[track_caller]
    pub fn admin_get(&self, target: &str) -> Response {
        self.try_admin_get(target)
            .unwrap_or_else(|error| panic!("GET {target} of the admin address: {error}"))
    }

    /// Waits until it says that it is ready.
    #[track_caller]
    pub fn wait_ready(&self) {
        until("staunch is ready", || {
            if let Some(status) = self.try_wait() {
                panic!("staunch ended with {status}");
            }
            matches!(self.try_admin_get("/readyz"), Ok(response) if response.status == 200)
        });
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin_get("/metrics").expect(200).text())
    }

    /// Counts a metric.
    #[track_caller]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().count(name, labels)
    }

    /// The inventory.
    #[track_caller]
    pub fn certificates(&self) -> Vec<Value> {
        let mut body = self.admin_get("/api/certificates").expect(200).json();
        match body["certificates"].take() {
            Value::Array(certificates) => certificates,
            other => panic!("certificates are {other}"),
        }
    }

    /// The inventory's entry for the source with this path.
    #[track_caller]
    pub fn certificate(&self, path: &Path) -> Value {
        let path = path.to_str().unwrap();
        let certificates = self.certificates();
        let found = (certificates.iter()).find(|c| c["source"].to_string().contains(path));
        found
            .cloned()
            .unwrap_or_else(|| panic!("no certificate from {path} in {certificates:#?}"))
    }

    /// The inventory's entry for this certificate.
    #[track_caller]
    pub fn certificate_for(&self, leaf: &Leaf) -> Value {
        let certificates = self.certificates();
        let fingerprint = leaf.fingerprint.as_str();
        let found = (certificates.iter()).find(|c| c["fingerprint_sha256"] == fingerprint);
        found
            .cloned()
            .unwrap_or_else(|| panic!("no {fingerprint} in {certificates:#?}"))
    }

    /// `POST /api/reload`
    #[track_caller]
    pub fn reload(&self) -> Response {
        let mut connection = Connection::plain(self.admin()).unwrap();
        connection.post("localhost", "/api/reload", b"")
    }

    /// Writes a changed configuration; it is read at the next reload.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Builder)) {
        change(&mut self.builder);
        self.builder.write();
    }

    /// Writes this as the configuration.
    pub fn write_config(&self, text: &str) {
        super::disk::replace(&self.builder.config_path(), text);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn usr2(&self) {
        self.signal(Signal::USR2);
    }

    /// Of the process that was started, not of one that took over from it.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child.lock().unwrap())
    }

    pub fn hup(&self) {
        self.signal(Signal::HUP);
    }

    /// Has it read a configuration from a disk that does not answer, for as long as what is returned
    /// lives.
    #[track_caller]
    pub fn reload_without_end(&self) -> fs::File {
        let path = self.builder.config_path();
        fs::remove_file(&path).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        self.hup();
        let mut write = fs::OpenOptions::new();
        write
            .write(true)
            .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap());
        // It can be written to once somebody reads.
        eventually("the reload reads", || write.open(&path).ok())
    }

    pub fn term(&self) {
        self.signal(Signal::TERM);
    }

    pub fn usr1(&self) {
        self.signal(Signal::USR1);
    }

    fn try_wait(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_exit(&self) -> ExitStatus {
        eventually("staunch ends", || self.try_wait())
    }

    pub fn is_running(&self) -> bool {
        self.try_wait().is_none()
    }

    /// Everything written so far, both streams.
    pub fn log(&self) -> String {
        self.stdout.text() + &self.stderr.text()
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits until the log has this.
    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        until(&format!("the log says {text:?}"), || {
            self.log().contains(text)
        });
    }

    /// Memory of its own that is resident now, in bytes: without the program's code, of which more
    /// is resident the more of it has run.
    pub fn memory(&self) -> u64 {
        self.status("RssAnon:")
    }

    fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() << 10
    }
}

impl Drop for Staunch {
    fn drop(&mut self) {
        let mut child = self
            .child
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let ended = child.try_wait();
        let _ = child.kill();
        let _ = child.wait();
        if thread::panicking() {
            // eprintln!, because the test runner shows it with the test that failed.
            eprintln!(
                "=== configuration ===\n{}=== ended: {ended:?} ===\n\
                 === standard output ===\n{}=== standard error ===\n{}=== end ===",
                fs::read_to_string(self.builder.config_path()).unwrap_or_default(),
                self.stdout.text(),
                self.stderr.text(),
            );
        }
    }
}

/// Lines that a thread reads from a pipe.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<String>>);

impl Lines {
    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let shared = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { return };
                let mut text = shared.0.lock().unwrap();
                text.push_str(&String::from_utf8_lossy(&line));
                text.push('\n');
            }
        });
        lines
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}
