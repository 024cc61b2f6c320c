//! Typical configurations, each run by the program that they were written for and, imported, by
//! staunch: the same requests get the same answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Builder, Origin, Port, Staunch, TestCa, curl, require, run, until};

/// Ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is compared of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    status: String,
    fields: BTreeMap<String, Vec<String>>,
    /// Who answered, and what it was asked for; or what was answered at once.
    origin: BTreeMap<&'static str, Value>,
}

/// Fields of responses that a configuration can say something of.
const FIELDS: [&str; 11] = [
    "content-encoding",
    "expires",
    "location",
    "strict-transport-security",
    "x-frame-options",
    "x-content-type-options",
    "referrer-policy",
    "x-robots-tag",
    "cache-control",
    "x-powered-by",
    "set-cookie",
];

/// Fields of requests.
const ASKED: [&str; 7] = [
    "host",
    "x-real-ip",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-ssl",
    "x-forwarded-port",
    "x-via",
];

/// What is asked: `# try: HOST PATH`, `# plain: HOST PATH` without TLS, or `# other: HOST PATH` at
/// another port.
#[derive(Clone, Debug)]
struct Question {
    scheme: &'static str,
    /// Which of the ports.
    port: usize,
    host: String,
    /// It may have an option of curl's behind it.
    path: String,
}

impl Question {
    fn read(line: &str) -> Option<Self> {
        let of = |begin| line.strip_prefix(begin);
        let kinds = [
            ("# try: ", "https"),
            ("# plain: ", "http"),
            ("# other: ", "https"),
        ];
        let (port, (scheme, rest)) = (kinds.into_iter())
            .map(|(begin, scheme)| Some((scheme, of(begin)?)))
            .enumerate()
            .find_map(|(port, found)| Some((port, found?)))?;
        let (host, path) = rest.split_once(' ')?;
        Some(Self {
            scheme,
            port,
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }
}

fn ask(question: &Question, ports: [u16; 3], bare: bool) -> Answer {
    let Question {
        scheme,
        port,
        host,
        path,
    } = question;
    let ([https, http, _], port) = (ports, ports[*port]);
    let (path, option) = path.split_once(' ').unwrap_or((path, "--http1.1"));
    let resolve = format!("{host}:{port}:127.0.0.1");
    let url = format!("{scheme}://{host}:{port}{path}");
    let field = match bare {
        true => format!("Host: {host}"),
        false => format!("Host: {host}:{port}"),
    };
    let ran = curl(&[
        "-k",
        "-i",
        "--http1.1",
        option,
        "--resolve",
        &resolve,
        "-H",
        &field,
        &url,
    ]);
    let (head, body) = ran.stdout.split_once("\r\n\r\n").unwrap_or_default();
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    let status = status.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name = name.to_ascii_lowercase();
        // A time that goes by the clock is told of.
        let by_clock = name == "expires" && !value.contains("2037");
        if FIELDS.contains(&name.as_str()) && !by_clock {
            // Each makes up its own value.
            let value = match name.as_str() {
                // That of the server behind is the same, with attributes in any order.
                "set-cookie" if value.starts_with("sid=") => {
                    let mut parts: Vec<_> = value.split(';').map(str::trim).collect();
                    parts.sort_unstable();
                    parts.join("; ").to_ascii_lowercase()
                }
                "set-cookie" => value.split('=').next().unwrap_or_default().to_owned(),
                _ => value.to_owned(),
            };
            // Each writes the port or not, relative or not.
            let value = value.replace(&format!("https://{host}:{https}"), "");
            let value = value.replace(&format!("https://{host}/"), "/");
            let value = value.replace(&format!("http://{host}:{http}"), "");
            fields.entry(name).or_default().push(value);
        }
    }
    let mut origin = BTreeMap::new();
    if let Ok(body) = serde_json::from_str::<Value>(body)
        && let Some(asked) = body["fields"].as_array()
    {
        for key in ["origin", "method", "target"] {
            origin.insert(key, body[key].clone());
        }
        for name in ASKED {
            let is = |field: &&Value| {
                field[0]
                    .as_str()
                    .is_some_and(|key| key.eq_ignore_ascii_case(name))
            };
            origin.extend(asked.iter().find(is).map(|field| (name, field[1].clone())));
        }
    } else if status == "200" {
        origin.insert("body", Value::from(body));
    }
    Answer {
        status,
        fields,
        origin,
    }
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

/// One configuration with its places filled in.
struct Case {
    folder: tempfile::TempDir,
    text: String,
    https: Port,
    http: Port,
    other: Port,
    builder: Builder,
    _origins: [Origin; 2],
    questions: Vec<Question>,
    /// Clients leave the port out, as they do where it is the usual one.
    bare: bool,
}

impl Case {
    fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(fixture(path)).unwrap();
        let origin = |name| {
            let cookie = "Set-Cookie: sid=1; Path=/cookie/a; Domain=app.internal\r\n";
            let crumb = "Set-Cookie: sid=1; Path=/\r\n";
            Origin::plan(name)
                .route("/broken/", |it| it.respond(500, "", b"broken"))
                .route("/cookie/", move |it| it.respond(200, cookie, b"cookie"))
                .route("/stranger/", |it| {
                    it.respond(401, "X-Vouch-Err: unknown\r\n", b"")
                })
                .route("/member/", |it| {
                    it.respond(200, "X-Vouch-User: zoe\r\n", b"")
                })
                .route("/crumb/", move |it| it.respond(200, crumb, b"crumb"))
                .start()
        };
        let origins = [origin("a"), origin("b")];
        let builder = Staunch::build().leaf(&TestCa::new().issue("one.test"));
        let written = builder.text();
        let place = |key: &str| {
            let line = written
                .lines()
                .find(|line| line.trim_start().starts_with(key));
            line.unwrap().split('"').nth(1).unwrap().to_owned()
        };
        let [https, http, other] = std::array::from_fn(|_| Port::free());
        let questions = text.lines().filter_map(Question::read).collect();
        let folder = tempfile::tempdir().unwrap();
        let pem = folder.path().join("both.pem");
        let [chain, key] = ["chain", "key"].map(|name| std::fs::read_to_string(place(name)));
        std::fs::write(&pem, chain.unwrap() + &key.unwrap()).unwrap();
        let list = folder.path().join("list");
        std::fs::write(
            &list,
            format!("# all\n{} [alpn h2] *.test\n", pem.display()),
        )
        .unwrap();
        let text = text
            .replace("@HTTPS@", &https.address().to_string())
            .replace("@HTTP@", &http.address().to_string())
            .replace("@OTHER@", &other.address().to_string())
            .replace("@CHAIN@", &place("chain"))
            .replace("@KEY@", &place("key"))
            .replace("@PEM@", pem.to_str().unwrap())
            .replace("@LIST@", list.to_str().unwrap())
            .replace("@FOLDER@", folder.path().to_str().unwrap())
            .replace("@A@", origins[0].url().trim_start_matches("http://"))
            .replace("@B@", origins[1].url().trim_start_matches("http://"));
        Self {
            folder,
            text,
            https,
            http,
            other,
            builder,
            _origins: origins,
            questions,
            bare: path.ends_with(".cfg"),
        }
    }

    /// Starts a program and waits until it answers.
    fn start(&self, mut command: Command) -> Program {
        let program = command
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Program)
            .unwrap();
        let first = self.questions.first().unwrap();
        until("it answers", || {
            !ask(first, self.ports(), self.bare).status.is_empty()
        });
        program
    }

    fn ports(&self) -> [u16; 3] {
        [&self.https, &self.http, &self.other].map(|port| port.address().port())
    }

    /// Starts a program and asks it all the questions.
    fn answers(&self, command: Command) -> Vec<Answer> {
        let program = self.start(command);
        let answers = (self.questions.iter())
            .map(|question| ask(question, self.ports(), self.bare))
            .collect();
        drop(program);
        answers
    }

    /// Imports a file and starts staunch with what came of it.
    fn imported(&self, from: &str, file: &Path) -> (Vec<Answer>, String) {
        let ran = run((self.builder.command()).args(["import", from]).arg(file));
        assert!(
            !ran.stderr.contains("needs a hand"),
            "{}\n{}",
            ran.stderr,
            ran.stdout
        );
        let text = format!("state_dir = \"state\"\n{}", ran.stdout);
        let text = text.replacen("[listen]\n", "[listen]\nadmin = \"\"\n", 1);
        let config = self.folder.path().join("staunch.toml");
        std::fs::write(&config, text).unwrap();
        let mut command = self.builder.command();
        command.args(["run", "--config"]).arg(&config);
        (self.answers(command), ran.output())
    }

    fn compare(&self, before: &[Answer], after: &[Answer], output: &str) {
        for (at, question) in self.questions.iter().enumerate() {
            let (mut before, mut after) = (before[at].clone(), after[at].clone());
            // staunch tells of the client even where it was not told to.
            if !before.origin.is_empty() {
                let asked = before.origin.clone();
                after.origin.retain(|name, _| asked.contains_key(name));
            }
            // What an error says besides its status is each one's own business.
            if before.status.starts_with('4') {
                before.fields.clear();
                after.fields.clear();
            }
            // What staunch says of responses, it says of redirects too.
            if before.status.starts_with('3') {
                let said = before.fields.clone();
                after.fields.retain(|name, _| said.contains_key(name));
            }
            assert_eq!(after, before, "{question:?}\n{output}");
        }
    }
}

/// A fixture for nginx on disk, and the command that runs nginx with it.
fn nginx(name: &str) -> (Case, PathBuf, Command) {
    let case = Case::read(&format!("nginx/{name}.conf"));
    let folder = case.folder.path();
    std::fs::write(folder.join("site.conf"), &case.text).unwrap();
    let parameters = "proxy_set_header Host $http_host;\nproxy_set_header X-Real-IP $remote_addr;\n\
                      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
                      proxy_set_header X-Forwarded-Proto $scheme;\n";
    std::fs::write(folder.join("proxy_params"), parameters).unwrap();
    let users = "alice:$apr1$o43IcYAW$8aSAZyq.1GQC0ScMIJ4Bz0\n";
    std::fs::write(folder.join("users"), users).unwrap();
    let main = "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {}\n\
                http {\n access_log off;\n client_body_temp_path t1; proxy_temp_path t2;\n\
                fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n\
                include site.conf;\n}\n";
    let file = folder.join("nginx.conf");
    std::fs::write(&file, main).unwrap();
    let mut command = Command::new(require("nginx"));
    command.arg("-p").arg(folder).args(["-c", "nginx.conf"]);
    (case, file, command)
}

/// Runs one under nginx and imported.
fn nginx_and_staunch_agree(name: &str) -> String {
    let (case, file, command) = nginx(name);
    let before = case.answers(command);
    let (after, output) = case.imported("nginx", &file);
    case.compare(&before, &after, &output);
    output
}

/// Runs one under HAProxy and imported.
fn haproxy_and_staunch_agree(name: &str) -> String {
    haproxy_and_staunch_agree_with(name, &[])
}

fn haproxy_and_staunch_agree_in(case: &Case) -> String {
    let file = case.folder.path().join("haproxy.cfg");
    // It cannot become another user, nor has to.
    let text = case.text.replace("user haproxy", "");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(require("haproxy"));
    command.arg("-db").arg("-f").arg(&file);
    let before = case.answers(command);
    std::fs::write(&file, &case.text).unwrap();
    let (after, output) = case.imported("haproxy", &file);
    case.compare(&before, &after, &output);
    output
}

/// What must not be in what is told.
#[track_caller]
fn nothing_is_lost(output: &str) {
    assert!(!output.contains("not imported"), "{output}");
}

#[test]
fn what_mozilla_generates_needs_no_hand() {
    nothing_is_lost(&nginx_and_staunch_agree("mozilla"));
}

#[test]
fn what_certbot_edits_needs_no_hand() {
    nothing_is_lost(&nginx_and_staunch_agree("certbot"));
}

#[test]
fn what_asks_for_a_password_or_asks_a_server_needs_no_hand() {
    nothing_is_lost(&nginx_and_staunch_agree("authentication"));
}

#[test]
fn a_proxy_before_wordpress_needs_no_hand() {
    nothing_is_lost(&nginx_and_staunch_agree("wordpress"));
}

#[test]
fn a_proxy_before_nextcloud_needs_no_hand() {
    nothing_is_lost(&nginx_and_staunch_agree("nextcloud"));
}

#[test]
fn a_proxy_before_gitlab_needs_no_hand() {
    nothing_is_lost(&nginx_and_staunch_agree("gitlab"));
}

#[test]
fn a_proxy_before_grafana_needs_no_hand() {
    nothing_is_lost(&nginx_and_staunch_agree("grafana"));
}

#[test]
fn what_an_ingress_controller_writes_needs_no_hand() {
    nothing_is_lost(&nginx_and_staunch_agree("ingress"));
}

#[test]
fn a_typical_frontend_of_haproxy_needs_no_hand() {
    nothing_is_lost(&haproxy_and_staunch_agree("typical"));
}

#[test]
fn what_haproxy_asks_of_requests_needs_no_hand() {
    nothing_is_lost(&haproxy_and_staunch_agree("asked"));
}

#[test]
fn how_paths_begin_in_haproxy_needs_no_hand() {
    nothing_is_lost(&haproxy_and_staunch_agree("begun"));
}

#[test]
fn several_hosts_of_haproxy_need_no_hand() {
    nothing_is_lost(&haproxy_and_staunch_agree("hosts"));
}

/// What a fixture says is not carried over is told, and nothing else.
#[track_caller]
fn as_it_says(name: &str) {
    let output = nginx_and_staunch_agree(name);
    let text = std::fs::read_to_string(fixture(&format!("nginx/{name}.conf"))).unwrap();
    let lost: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# lost: "))
        .collect();
    let told = || {
        output
            .lines()
            .filter(|line| line.contains(": not imported: "))
    };
    for line in told() {
        assert!(
            lost.iter().any(|piece| line.contains(piece)),
            "{line}\n{output}"
        );
    }
    for piece in lost {
        assert!(
            told().any(|line| line.contains(piece)),
            "{piece} is not told\n{output}"
        );
    }
}

macro_rules! well_known {
    ($($name:ident),* $(,)?) => {
        mod well_known {
            $(
                #[test]
                fn $name() {
                    super::as_it_says(stringify!($name));
                }
            )*
        }
    };
}

well_known! {
    artifactory, asked, begun, discourse, generated, h5bp, homeassistant, inside, jellyfin, jenkins, keycloak, kibana, locations, managed, mapped,
    mastodon, methods, plain, portainer, ports, precise, prometheus, puma, sentry, sonarqube, synapse, vaultwarden,
    vouched,
}

#[test]
fn limits_are_those_of_the_location() {
    nothing_is_lost(&nginx_and_staunch_agree("limited"));
}

/// Files beside a configuration of HAProxy.
fn haproxy_and_staunch_agree_with(name: &str, files: &[(&str, &str)]) -> String {
    let case = Case::read(&format!("haproxy/{name}.cfg"));
    for (name, text) in files {
        std::fs::write(case.folder.path().join(name), text).unwrap();
    }
    haproxy_and_staunch_agree_in(&case)
}

#[test]
fn what_haproxy_serves_in_plain_text_is_served_so_here() {
    nothing_is_lost(&haproxy_and_staunch_agree("plain"));
}

#[test]
fn what_haproxy_does_by_tls_or_without_it_is_told_apart() {
    nothing_is_lost(&haproxy_and_staunch_agree("doors"));
}

#[test]
fn backends_that_haproxy_looks_up_are_sites_and_routes_here() {
    let hosts = "# host backend\none.test app\nshop app\n.four.test nobody\n";
    let paths = "/api/ api\n/api/v2/ app\n";
    let moved = "/moved https://elsewhere.test/?from=here\n/moved/too /there\n";
    let files = [
        ("hosts.map", hosts),
        ("paths.map", paths),
        ("moved.map", moved),
    ];
    nothing_is_lost(&haproxy_and_staunch_agree_with("looked-up", &files));
}

#[test]
fn parts_of_paths_and_what_haproxy_says_of_the_scheme_need_no_hand() {
    let files = [("listed.map", "/listed\n")];
    nothing_is_lost(&haproxy_and_staunch_agree_with("parts", &files));
}

#[test]
fn fields_that_haproxy_says_in_all_answers_are_in_its_redirects_too() {
    nothing_is_lost(&haproxy_and_staunch_agree("after"));
}

#[test]
fn what_haproxy_writes_anew_for_some_is_written_anew_here() {
    nothing_is_lost(&haproxy_and_staunch_agree("rewritten"));
}

#[test]
fn what_haproxy_keeps_behind_a_password_is_not_open_here() {
    let people = "alice:$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.\n";
    let masons = "bob:$5$abcdefgh$Ah.olTBNiu5aUesB36SI0rYGmXIxg2ZsbETU/owy6i8\n";
    let files = [("people.users", people), ("staff-masons.users", masons)];
    let output = haproxy_and_staunch_agree_with("kept", &files);
    let line = format!("the line `{}` belongs in it", masons.trim_end());
    for line in [
        "basic_auth = { file = \"people.users\", realm = \"Inner\" }",
        "basic_auth = { file = \"staff-masons.users\", realm = \"Masons\" }",
        "user alice insecure-password secret: people.users, beside the configuration",
        "`htpasswd -B people.users alice` writes such a line anew; nobody is let in before",
        &line,
        "not imported: http-response return status 404",
    ] {
        assert!(output.contains(line), "{line}\n{output}");
    }
    assert!(!output.contains("carol:"), "{output}");
}

/// A page for an error, with the head that HAProxy sends with it.
const KEPT: &str = "HTTP/1.0 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nnot here\n";

#[test]
fn hosts_of_haproxy_by_parts_of_their_names_need_no_hand() {
    let output = haproxy_and_staunch_agree_with("ends", &[("403.http", KEPT)]);
    nothing_is_lost(&output);
    for line in [
        "error_pages = { 403 = ",
        "is in errors that staunch answers itself, too",
        "403.http is written as a body, as it is now",
    ] {
        assert!(output.contains(line), "{line}\n{output}");
    }
}

#[test]
fn rates_of_haproxy_are_quotas_here() {
    nothing_is_lost(&haproxy_and_staunch_agree("limited"));
}

#[test]
fn what_haproxy_answers_in_its_own_words_is_answered_so_here() {
    let output = haproxy_and_staunch_agree_with("answered", &[("gone.map", "/listed/ 1\n")]);
    nothing_is_lost(&output);
    for line in [
        "body = '{\"error\":\"slow\"}'",
        "error_pages = { 503 = { redirect = \"https://sorry.test/now\" } }",
    ] {
        assert!(output.contains(line), "{line}\n{output}");
    }
}

#[test]
fn names_that_haproxy_tells_apart_without_terminating_are_told_apart_here() {
    nothing_is_lost(&haproxy_and_staunch_agree("layers"));
}

#[test]
fn compression_is_carried_over_to_each_site() {
    nothing_is_lost(&nginx_and_staunch_agree("compressed"));
}

#[test]
fn compression_of_haproxy_is_carried_over() {
    nothing_is_lost(&haproxy_and_staunch_agree("compressed"));
}

#[test]
fn verify_asks_both_and_tells_where_they_differ() {
    let (case, file, command) = nginx("wordpress");
    let running = case.start(command);
    let verify = || {
        let url = format!("https://{}", case.https.address());
        let mut command = case.builder.command();
        command
            .args(["import", "nginx", "--verify", &url])
            .arg(&file);
        run(&mut command)
    };
    let ran = verify();
    assert!(
        ran.stderr.contains("requests sent to both, 0 differences"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    // On disk it says something else than what runs.
    let changed = case
        .text
        .replace("SAMEORIGIN", "DENY")
        .replace("return 404", "return 410");
    std::fs::write(case.folder.path().join("site.conf"), changed).unwrap();
    let ran = verify();
    for part in [
        "https://one.test/: x-frame-options: `SAMEORIGIN`, here `DENY`",
        "https://one.test/readme.html: 404, here 410",
    ] {
        assert!(ran.stderr.contains(part), "{part} is not in {}", ran.stderr);
    }
    assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
    // Two that do not answer are not alike.
    drop(running);
    let ran = verify();
    assert!(ran.stderr.contains(" does not answer: "), "{}", ran.stderr);
    assert_ne!(ran.status.code(), Some(0), "{}", ran.stderr);
}
