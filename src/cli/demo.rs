//! `staunch demo`: everything a newcomer needs in one go.
//!
//! It makes a certificate authority and a certificate, starts a web server as the upstream, writes
//! a configuration, and runs it: what serves is what `staunch run` would be, nothing simulated.

mod authority;
mod origin;

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use self::authority::{Authority, Folder};
use super::{Exit, say};
use crate::clock::Clock;
use crate::listen::{self, BindError};
use crate::{config, server};

const HTTPS_PORT: u16 = 8443;
const HTTP_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9180;

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address for HTTPS; may be repeated [default: localhost, port 8443]
    #[arg(long, value_name = "ADDR")]
    https: Vec<SocketAddr>,
    /// Address for plain HTTP, which redirects [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Admin address [default: 127.0.0.1:9180]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Where certificates and state are kept
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    dir: PathBuf,
    /// Only put a new certificate into place, for a demo that is already running
    #[arg(long, conflicts_with_all = ["https", "http", "admin"])]
    renew: bool,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let done = if args.renew {
        renew(&args.dir)
    } else {
        demo(args)
    };
    match done {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("staunch: {error}");
            Exit::Failed
        }
    }
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Certificate(#[from] authority::Error),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the demo's web server cannot start: {0}")]
    Origin(std::io::Error),
    #[error("{0}")]
    Config(#[from] config::Report),
    #[error(transparent)]
    Server(#[from] server::Error),
}

fn demo(args: Args) -> Result<(), Error> {
    let folder = Folder::new(args.dir.clone());
    let now = Clock::system().now();
    Authority::load_or_make(&folder, now)?.issue(&folder, now)?;
    let addresses = Addresses::choose(&args)?;
    let upstream = origin::start().map_err(Error::Origin)?;
    let path = folder.config();
    authority::write(&path, &configuration(&addresses, upstream), 0o644)?;
    let config = config::load(&path)?;
    let guide = Guide {
        program: program(),
        dir: &args.dir,
        folder: &folder,
        addresses: &addresses,
        upstream,
    };
    let guide = guide.to_string();
    let listening = addresses.https.clone();
    thread::spawn(move || {
        if listening.into_iter().all(is_listened_on) {
            // Whether or not somebody reads it, it serves.
            let _unread = say(format_args!("{guide}\n"), Exit::Ok);
        }
    });
    server::run(
        config,
        server::Source::File(path),
        &server::Debugging::default(),
        server::Start::default(),
    )?;
    Ok(())
}

/// Waits until somebody listens there: what is printed must work when it is pasted. False when it
/// took too long, and then the server has said why.
fn is_listened_on(address: SocketAddr) -> bool {
    const PATIENCE: Duration = Duration::from_secs(10);
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if TcpStream::connect_timeout(&address, PATIENCE).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Puts a new certificate and key into place, as an ACME client would.
fn renew(dir: &Path) -> Result<(), Error> {
    let folder = Folder::new(dir.to_path_buf());
    let now = Clock::system().now();
    let fingerprint = Authority::load(&folder, now)?.issue(&folder, now)?;
    let (chain, key) = (folder.chain(), folder.key());
    // It is done, whether or not somebody reads of it.
    let _unread = say(
        format_args!(
            "A new certificate and key are in place:\n  {}\n  {}\nSHA-256 {fingerprint}\n",
            chain.display(),
            key.display()
        ),
        Exit::Ok,
    );
    Ok(())
}

/// Where the demo listens.
#[derive(Debug)]
struct Addresses {
    https: Vec<SocketAddr>,
    http: SocketAddr,
    admin: SocketAddr,
    /// What to say of defaults that were taken.
    notes: Vec<String>,
}

impl Addresses {
    /// What was asked for, as it is; for what was not, the defaults, or free ports where those are
    /// taken.
    fn choose(args: &Args) -> Result<Self, BindError> {
        let mut notes = Vec::new();
        let https = match args.https.is_empty() {
            false => args.https.clone(),
            true => local_https(&mut notes)?,
        };
        let mut or_default = |given: Option<SocketAddr>, port| match given {
            Some(address) => Ok(address),
            None => free(port, &mut notes),
        };
        Ok(Self {
            https,
            http: or_default(args.http, HTTP_PORT)?,
            admin: or_default(args.admin, ADMIN_PORT)?,
            notes,
        })
    }
}

/// `127.0.0.1` and, where there is IPv6, `[::1]`, with the same port: `localhost` may mean either.
fn local_https(notes: &mut Vec<String>) -> Result<Vec<SocketAddr>, BindError> {
    let four = free(HTTPS_PORT, notes)?;
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, four.port()));
    match listen::bind(six, 1) {
        Ok(_) => Ok(vec![four, six]),
        Err(BindError::InUse { .. }) => {
            notes.push(format!("{six} is taken: only {four} is used"));
            Ok(vec![four])
        }
        Err(_) => Ok(vec![four]),
    }
}

/// This port of `127.0.0.1`, or another when it is taken.
fn free(port: u16, notes: &mut Vec<String>) -> Result<SocketAddr, BindError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match listen::bind(address, 1) {
        Ok(_) => Ok(address),
        Err(BindError::InUse { holder, .. }) => {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let chosen = listen::bind(any, 1)?
                .first()
                .and_then(|socket| socket.local_addr().ok())
                .unwrap_or(any);
            let by = holder.map_or_else(String::new, |holder| format!(" by {holder}"));
            notes.push(format!("{address} is in use{by}; {chosen} is used instead"));
            Ok(chosen)
        }
        Err(error) => Err(error),
    }
}

/// The file that is written for `staunch run`. Its paths are relative to its folder.
fn configuration(addresses: &Addresses, upstream: SocketAddr) -> String {
    let https: Vec<_> = addresses.https.iter().map(SocketAddr::to_string).collect();
    format!(
        r#"# Written by `staunch demo` each time it starts.

state_dir = "{state}"

[listen]
https = {https:?}
http  = ["{http}"]
admin = "{admin}"

[[certificate]]
chain = "fullchain.pem"
key   = "privkey.pem"

[[site]]
names    = ["localhost", "127.0.0.1", "[::1]", "*"]
upstream = "http://{upstream}"

[drain]
notice   = "0s"
deadline = "5s"

[log.access]
to = "stdout"
"#,
        state = Folder::STATE,
        http = addresses.http,
        admin = addresses.admin,
    )
}

/// The program as it was called, for lines that can be pasted.
fn program() -> String {
    std::env::args_os().next().map_or_else(
        || "staunch".to_owned(),
        |program| quoted(Path::new(&program)),
    )
}

/// A path as one word for a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// What to try, on standard output.
struct Guide<'a> {
    program: String,
    dir: &'a Path,
    folder: &'a Folder,
    addresses: &'a Addresses,
    upstream: SocketAddr,
}

impl Guide<'_> {
    /// `curl` with what it needs to reach the demo as `https://localhost`.
    fn curl(&self) -> (String, String) {
        let mut curl = format!("curl --cacert {}", quoted(&self.folder.authority()));
        let address = self.addresses.https.first();
        let port = address.map_or(HTTPS_PORT, SocketAddr::port);
        if let Some(ip) = address.map(SocketAddr::ip)
            && !ip.is_loopback()
            && !ip.is_unspecified()
        {
            let _ = write!(curl, " --resolve localhost:{port}:{ip}");
        }
        let url = match port {
            443 => "https://localhost".to_owned(),
            port => format!("https://localhost:{port}"),
        };
        (curl, url)
    }

    fn renew(&self) -> String {
        let mut command = format!("{} demo --renew", self.program);
        if self.dir != Path::new("certs") {
            let _ = write!(command, " --dir {}", quoted(self.dir));
        }
        command
    }
}

impl fmt::Display for Guide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (curl, url) = self.curl();
        let renew = self.renew();
        let config = quoted(&self.folder.config());
        let chain = quoted(&self.folder.chain());
        let (http, admin) = (self.addresses.http, self.addresses.admin);
        let program = &self.program;
        writeln!(
            f,
            "Serving {url}/. Requests go to a small web server that was started with it, http://{}/",
            self.upstream
        )?;
        for note in &self.addresses.notes {
            writeln!(f, "Note: {note}")?;
        }
        write!(
            f,
            "
Try it from another terminal:
  {curl} {url}/
  {curl} {url}/json
  curl -i http://{http}/json

Look inside:
  {program} certs --admin http://{admin}
  {program} upstreams --admin http://{admin}
  curl http://{admin}/metrics

Renew the certificate while it is in use:
  {renew}

Break the certificate file, and see that the site stays up:
  echo garbage > {chain}
  {curl} {url}/json
After a few seconds (the file might still be being written) this says what is wrong with it:
  {program} certs --admin http://{admin}
Repair it:
  {renew}

The log warns of an untrusted_chain: this system does not know the authority of the demo.
The configuration is {config}. Press Ctrl-C to stop.
"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn addresses(https: &[&str]) -> Addresses {
        Addresses {
            https: https.iter().copied().map(at).collect(),
            http: at("127.0.0.1:8080"),
            admin: at("127.0.0.1:9180"),
            notes: Vec::new(),
        }
    }

    #[test]
    fn its_configuration_can_be_used_as_it_is() {
        let chosen = addresses(&["127.0.0.1:8443", "[::1]:8443"]);
        let text = configuration(&chosen, at("127.0.0.1:4000"));
        let config = config::parse(&text, Path::new("/d/certs/demo/staunch.toml"));
        let config = config.unwrap_or_else(|report| panic!("{report}"));
        assert!(config.warnings.is_empty(), "{}", config.warnings);
        assert_eq!(config.listen.https, chosen.https);
        assert_eq!(config.listen.http, [chosen.http]);
        assert_eq!(config.listen.admin, Some(chosen.admin));
    }

    #[test]
    fn a_taken_default_gives_way_and_says_so() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut notes = Vec::new();
        let chosen = free(port, &mut notes).unwrap();
        assert_ne!(chosen.port(), port);
        let [note] = &notes[..] else {
            panic!("{notes:?}");
        };
        assert!(note.contains("in use by this process itself; "), "{note}");
        assert!(
            note.ends_with(&format!("{chosen} is used instead")),
            "{note}"
        );
    }

    #[test]
    fn what_to_try_can_be_pasted() {
        let guide = |https: &[&str], dir: &str| {
            Guide {
                program: "target/release/staunch".to_owned(),
                dir: Path::new(dir),
                folder: &Folder::new(dir.into()),
                addresses: &addresses(https),
                upstream: at("127.0.0.1:4000"),
            }
            .to_string()
        };
        let text = guide(&["127.0.0.1:8443"], "certs");
        assert!(
            text.contains("\n  curl --cacert certs/demo-ca.pem https://localhost:8443/\n"),
            "{text}"
        );
        assert!(
            text.contains("\n  target/release/staunch demo --renew\n"),
            "{text}"
        );
        let text = guide(&["192.0.2.2:443"], "my certs");
        assert!(
            text.contains(
                "curl --cacert 'my certs/demo-ca.pem' --resolve localhost:443:192.0.2.2 \
                 https://localhost/\n"
            ),
            "{text}"
        );
        assert!(text.contains("demo --renew --dir 'my certs'\n"), "{text}");
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_wants_it() {
        for (path, expected) in [
            ("certs/demo-ca.pem", "certs/demo-ca.pem"),
            ("my certs", "'my certs'"),
            ("it's", r"'it'\''s'"),
            ("~/x", "'~/x'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}
