//! Names of servers, asked of a real name server.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{Builder, HOST, Origin, Port, Site, Staunch, TestCa, require, run, until};

/// dnsmasq, which answers from a few lines and is started anew when they change.
struct NameServer {
    port: Port,
    folder: TempDir,
    child: Option<Child>,
}

impl NameServer {
    fn start(lines: &[&str]) -> Self {
        let mut server = Self {
            port: Port::free(),
            folder: tempfile::tempdir().unwrap(),
            child: None,
        };
        server.say(lines);
        server
    }

    /// Answers by these lines from now on, which hold for a second.
    fn say(&mut self, lines: &[&str]) {
        self.stop();
        let file = self.folder.path().join("dnsmasq.conf");
        let fixed = format!(
            "port={}\nlisten-address=127.0.0.3\nbind-interfaces\nno-resolv\nno-hosts\nlocal-ttl=1\nlocal=/test/\n\
             keep-in-foreground\nuser=root\npid-file=\n",
            self.port.number()
        );
        fs::write(&file, fixed + &lines.join("\n") + "\n").unwrap();
        let mut command = Command::new(require("dnsmasq"));
        command
            .arg("-C")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
            child.wait().unwrap();
        }
    }

    /// Another than that on which the port is reserved for TCP.
    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 3], self.port.number()).into()
    }

    /// One site, whose servers' names it is asked for.
    fn builder(&self, servers: &[&str]) -> Builder {
        self.before(servers, Site::new(&[HOST], "pool"))
    }

    fn before(&self, servers: &[&str], site: Site) -> Builder {
        Staunch::build()
            .leaf(&TestCa::new().issue(HOST))
            .set("dns.servers", format!("[{:?}]", self.address().to_string()))
            .upstream("pool", servers)
            .sites(site)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn port(origin: &Origin) -> String {
    origin.url().rsplit(':').next().unwrap().to_owned()
}

/// Who answers.
fn asked(proxy: &Staunch) -> String {
    let answer = proxy.get("/").expect(200).json();
    answer["origin"].as_str().unwrap().to_owned()
}

fn servers(proxy: &Staunch) -> String {
    let admin = format!("http://{}", proxy.admin());
    let mut command = Command::new(env!("CARGO_BIN_EXE_staunch"));
    run(command.args(["upstreams", "--admin", &admin])).ok()
}

#[test]
fn a_name_is_asked_for_again_when_its_records_say_so_and_kept_when_nobody_answers() {
    let origin = Origin::named("origin");
    let url = format!("http://web.test:{}", port(&origin));
    let mut names = NameServer::start(&["host-record=web.test,127.0.0.2"]);
    let proxy = names.builder(&[&url]).start();
    let address = |ip: &str| {
        let listed = proxy.admin_get("/api/upstreams").expect(200).json();
        listed["upstreams"][0]["servers"][0]["addresses"]
            .to_string()
            .contains(ip)
    };
    until("it is found", || address("127.0.0.2"));
    names.say(&["host-record=web.test,127.0.0.1,::1"]);
    until("it is found anew", || {
        address("127.0.0.1") && address("::1")
    });
    assert_eq!(asked(&proxy), "origin");
    names.stop();
    proxy.wait_log("cannot be resolved");
    assert!(address("127.0.0.1"));
    assert_eq!(asked(&proxy), "origin");
}

#[test]
fn a_request_waits_for_the_name_and_a_name_that_is_nobodys_is_a_bad_gateway() {
    let origin = Origin::named("origin");
    let names = NameServer::start(&["host-record=web.test,127.0.0.1"]);
    let url = format!("http://web.test:{}", port(&origin));
    let proxy = names
        .before(
            &[&url],
            Site::new(&[HOST], "pool").route("/nobody", "http://nobody.test:1"),
        )
        .start();
    assert_eq!(asked(&proxy), "origin");
    proxy.get("/nobody").expect(502);
}

#[test]
fn a_service_is_made_of_the_servers_that_its_records_name() {
    let origins = ["one", "two", "three"].map(Origin::named);
    let [one, two, three] = origins.each_ref().map(port);
    let host = "host-record=a.test,127.0.0.1";
    let srv = |port: &str, rest: &str| format!("srv-host=_web._tcp.shop.test,a.test,{port},{rest}");
    let (first, second) = (srv(&one, "10,1"), srv(&two, "10,3"));
    let backup = srv(&three, "20,1");
    let mut names = NameServer::start(&[host, &first, &second, &backup]);
    let proxy = names.builder(&["http+srv://_web._tcp.shop.test"]).start();
    proxy.get("/").expect(200);
    until("its servers are known", || {
        let table = servers(&proxy);
        [&one, &two, &three]
            .iter()
            .all(|port| table.contains(&format!("http://a.test:{port}")))
    });
    let mut answers = [0; 3];
    for _ in 0..40 {
        let who = asked(&proxy);
        let at = ["one", "two", "three"].iter().position(|name| *name == who);
        answers[at.unwrap()] += 1;
    }
    assert_eq!(answers, [10, 30, 0], "by their weights, and no backup");
    names.say(&[host, &first]);
    until("one is left", || {
        !servers(&proxy).contains(&format!("http://a.test:{two}"))
    });
    assert_eq!(asked(&proxy), "one");
    names.stop();
    proxy.wait_log("the service cannot be found");
    assert_eq!(asked(&proxy), "one");
}
