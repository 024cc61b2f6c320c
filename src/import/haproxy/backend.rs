//! Backends: their servers, and what is thought of them.

use std::fmt::Write as _;

use super::Import;
use super::format::{deadline, line};
use super::given::{Given, url};
use super::parse::{Line, Section};
use crate::import::{Loss, pattern, quoted};

/// What the servers of a backend say of all of them.
#[derive(Default)]
struct Group {
    tcp: bool,
    options: Vec<String>,
    checked: bool,
    /// Whether checks speak TLS where connections do not.
    asks_tls: bool,
    /// Servers with TLS that are verified, and those that are not.
    verified: bool,
    unverified: Vec<Line>,
    backups: Vec<Line>,
}

impl Import {
    /// Writes a backend as an upstream. `None`: it has no server.
    pub(super) fn upstream(&mut self, section: &Section, name: &str) -> Option<String> {
        let mut text = String::new();
        let mut group = Group {
            tcp: section.is_tcp(),
            ..Group::default()
        };
        let mut servers = String::new();
        for server in section.lines.iter() {
            let at = match server.word(0) {
                "server" => 2,
                "server-template" => 3,
                _ => continue,
            };
            self.seen(server);
            let given = Given::of(section, server, at + 1);
            if let Some(entry) = self.server(server, server.word(at), &given, &mut group) {
                let of = |entry: &str| entry.split('"').nth(1).map(str::to_owned);
                let url = of(&entry);
                if servers.lines().any(|line| of(line) == url) {
                    let advice = "is the same server as one before it, which is enough here";
                    self.tell(server, Loss::Slight, advice);
                    continue;
                }
                servers.push_str(&entry);
            }
        }
        let mut own: Option<&Section> = Some(section);
        while let Some(section) = own {
            section
                .all("default-server")
                .for_each(|line| self.seen(line));
            own = section.defaults.as_deref();
        }
        let Group {
            mut options,
            checked,
            asks_tls,
            verified,
            unverified,
            backups,
            ..
        } = group;
        if section.option("allbackups").is_none() {
            for server in backups.iter().skip(1) {
                let advice = "backups are used together here; without option allbackups HAProxy used \
                              the first that was up";
                self.tell(server, Loss::Slight, advice);
            }
        }
        if let Some(line) = self.not_verified(&unverified, verified) {
            options.push(line.to_owned());
        }
        if servers.is_empty() {
            return None;
        }
        let _ = writeln!(text, "\n[upstream.{name}]  # from {}", section.place);
        let _ = writeln!(text, "servers = [\n{servers}]");
        self.balance(section, &mut text);
        self.keys(section, &mut text);
        options.sort();
        options.dedup_by(|a, b| a.split(' ').next() == b.split(' ').next());
        let (tls, plain): (Vec<_>, Vec<_>) = (options.into_iter()).partition(|option| {
            ["ca ", "name ", "chain ", "verify ", "minimum "]
                .iter()
                .any(|key| option.starts_with(key))
        });
        let (health, plain): (Vec<_>, Vec<_>) = (plain.into_iter()).partition(|option| {
            ["interval ", "rise ", "fall ", "port "]
                .iter()
                .any(|key| option.starts_with(key))
        });
        for option in plain {
            let _ = writeln!(text, "{option}");
        }
        if !tls.is_empty() {
            let comment = match tls.iter().any(|option| option.starts_with("verify ")) {
                true => "  # any certificate will do, as before: better name its `ca`",
                false => "",
            };
            let _ = writeln!(text, "tls = {{ {} }}{comment}", tls.join(", "));
        }
        if checked {
            self.health(section, health, asks_tls, &mut text);
        }
        Some(text)
    }

    /// One server, or nothing where it is switched off.
    fn server(
        &mut self,
        server: &Line,
        address: &str,
        given: &Given,
        group: &mut Group,
    ) -> Option<String> {
        if given.has("disabled") {
            self.tell(server, Loss::None, "is disabled; it is left out");
            return None;
        }
        if given.value("weight") == Some("0") {
            let advice = "has no weight, so that nothing new goes there; it is left out";
            self.tell(server, Loss::Slight, advice);
            return None;
        }
        let secure = given.has("ssl");
        let scheme = match (group.tcp, secure) {
            (true, true) => "tls",
            (true, false) => "tcp",
            (false, true) => "https",
            (false, false) => "http",
        };
        let Some(url) = url(address, scheme) else {
            let advice = "has no port that is known, or no address of IP: write its URL yourself";
            self.tell(server, Loss::Real, advice);
            return None;
        };
        if server.word(0) == "server-template" {
            self.tell(server, Loss::Slight, "all addresses of the name are used");
        }
        let mut more = String::new();
        if let Some(weight) = given.value("weight") {
            let _ = write!(more, ", weight = {weight}");
        }
        if given.has("backup") {
            more.push_str(", backup = true");
        }
        if given.has("backup") {
            group.backups.push(server.clone());
        }
        group.checked |= given.has("check");
        let options = &mut group.options;
        if let Some(most) = given.value("maxconn").filter(|most| *most != "0") {
            options.push(format!("connections = {most}"));
        }
        for key in ["rise", "fall", "port"] {
            options.extend(given.value(key).map(|number| format!("{key} = {number}")));
        }
        for (word, key) in [("inter", "interval"), ("slowstart", "slow_start")] {
            let time = given.value(word).and_then(deadline);
            options.extend(time.map(|time| line(key, &time)));
        }
        let agreed = given.value("alpn").unwrap_or_default();
        let protocol = match (given.value("proto"), agreed.contains("h2")) {
            (Some("h2"), _) => Some("http2"),
            (None, true) if agreed.contains("http/1") => Some("auto"),
            (None, true) => Some("http2"),
            _ => None,
        };
        let protocol = protocol.filter(|_| !group.tcp);
        options.extend(protocol.map(|protocol| line("protocol", protocol)));
        let headers = [
            ("send-proxy", "v1"),
            ("send-proxy-v2", "v2"),
            ("send-proxy-v2-ssl", "v2-tls"),
            ("send-proxy-v2-ssl-cn", "v2-tls"),
        ];
        for (_, version) in headers.into_iter().filter(|(word, _)| given.has(word)) {
            options.push(line("proxy_protocol", version));
        }
        if given.has("check-ssl") && !secure {
            group.asks_tls = true;
            if given.value("verify") == Some("required") {
                let advice = "check-ssl: checks over TLS verify nothing where requests are without";
                self.tell(server, Loss::Slight, advice);
            }
        }
        for (word, loss, advice) in given.lost() {
            self.tell(server, loss, format!("{word}: {advice}"));
        }
        if secure {
            self.server_tls(server, given, group);
        }
        if group.tcp && !agreed.is_empty() {
            let advice = "alpn: nothing is agreed on with the servers of streams here";
            self.tell(server, Loss::Real, advice);
        }
        Some(format!(
            "  {{ url = {}{more} }},  # from {}\n",
            quoted(&url),
            server.place
        ))
    }

    fn server_tls(&mut self, server: &Line, given: &Given, group: &mut Group) {
        let verified = match given.value("verify") {
            Some(word) => word == "required",
            None => !self.unverified,
        };
        match verified {
            true => group.verified = true,
            false => group.unverified.push(server.clone()),
        }
        let files = [("ca-file", "ca"), ("crt", "chain")];
        for (word, key) in files
            .into_iter()
            .filter(|(_, key)| verified || *key != "ca")
        {
            // The system's are those that are used without any.
            let file = given.value(word).filter(|file| *file != "@system-ca");
            let file = file.map(|file| match key {
                "ca" => line(key, &self.authority(file)),
                _ => line(key, &self.absolute(file)),
            });
            group.options.extend(file);
        }
        let newest = given.value("ssl-min-ver") == Some("TLSv1.3") || given.has("force-tlsv13");
        group.options.extend(newest.then(|| line("minimum", "1.3")));
        let sni = given.value("sni");
        let fixed = sni.and_then(|sni| sni.strip_prefix("str(")?.strip_suffix(')'));
        if sni.is_some() && fixed.is_none() {
            let advice = "sni: one name is asked for here, [upstream.NAME.tls] name; without it the \
                          server's own";
            self.tell(server, Loss::Slight, advice);
        }
        let name = fixed.or_else(|| given.value("verifyhost"));
        if verified && name.is_none() && sni.is_none() {
            let advice = "its certificate could have any name; here it has to have that of the URL, or \
                          the one that `name` in [upstream.NAME.tls] says";
            self.tell(server, Loss::Slight, advice);
        }
        group.options.extend(name.map(|name| line("name", name)));
    }

    /// What is said of an upstream for servers that are not verified, if they can stay so.
    fn not_verified(&mut self, servers: &[Line], others: bool) -> Option<&'static str> {
        for server in servers {
            match others {
                true => self.tell(
                    server,
                    Loss::Real,
                    "was not verified, and is here, as other servers of the backend were: name the \
                     authority that signed its certificate as `ca` in [upstream.NAME.tls]",
                ),
                false => self.tell(
                    server,
                    Loss::Slight,
                    "is not verified, as before. To have it verified, write the authority that signed \
                     its certificate as `ca` in the place of `verify = false` in [upstream.NAME.tls]",
                ),
            }
        }
        (!servers.is_empty() && !others).then_some("verify = false")
    }

    fn balance(&mut self, section: &Section, text: &mut String) {
        // What a client is brought back by goes before what new ones are spread by.
        let stick = section.all("stick").last();
        let kept = stick.and_then(|stick| match stick.word(1) {
            "on" => hash_key(stick.word(2)),
            _ => None,
        });
        for stick in section.all("stick") {
            match kept {
                Some(_) => {
                    let advice = "clients are brought back, and new ones spread, by a hash of it";
                    self.tell(stick, Loss::Slight, advice);
                }
                None => self.tell(stick, Loss::Real, "see sticky and hash"),
            }
        }
        let balance = section.nearest("balance");
        if let Some(balance) = &balance {
            self.seen(balance);
        }
        let hash = |key: &str| format!("balance = \"hash\"\nhash = {}\n", quoted(key));
        if let Some(key) = &kept {
            text.push_str(&hash(key));
        } else if let Some(balance) = balance {
            let (name, of) = balance
                .word(1)
                .split_once('(')
                .unwrap_or_else(|| (balance.word(1), ""));
            match name {
                "roundrobin" | "static-rr" => {}
                "first" => self.tell(
                    &balance,
                    Loss::Slight,
                    "filled one server after the other; here all are used alike",
                ),
                "leastconn" => text.push_str("balance = \"least-requests\"\n"),
                "random" => text.push_str("balance = \"random\"\n"),
                "source" => text.push_str(&hash("client")),
                "uri" => text.push_str(&hash("path")),
                "hdr" => text.push_str(&hash(&format!("header:{}", of.trim_end_matches(')')))),
                "hash" => match hash_key(balance.word(2)) {
                    Some(key) => text.push_str(&hash(&key)),
                    None => self.tell(&balance, Loss::Real, "see balance and hash"),
                },
                _ => self.tell(
                    &balance,
                    Loss::Real,
                    "has no equivalent; see balance and hash",
                ),
            }
        }
        for cookie in section.all("cookie") {
            match cookie.has("rewrite") || cookie.has("prefix") {
                true => {
                    let name = format!("{}-server", cookie.word(1));
                    let _ = writeln!(text, "{}", line("sticky", &name));
                    let advice = format!(
                        "a cookie of its own brings clients back here, {name}; that of the server \
                         is passed on as it is, and each client is given a server anew once"
                    );
                    self.tell(cookie, Loss::Slight, advice);
                }
                false => {
                    let _ = writeln!(text, "{}", line("sticky", cookie.word(1)));
                    let more = [
                        "domain", "maxidle", "maxlife", "preserve", "dynamic", "attr",
                    ];
                    let advice = if cookie.has("nocache") {
                        "its values are others here, so each client is given a server anew once; \
                         and Cache-Control: private is not said beside it: where a cache is in \
                         front, let the server behind say it, or response_headers"
                    } else if more.iter().any(|word| cookie.has(word)) {
                        "its values are others here, so each client is given a server anew once; \
                         it is for the host alone, as long as the browser is open: see sticky"
                    } else {
                        "its values are others here, so each client is given a server anew once"
                    };
                    self.tell(cookie, Loss::Slight, advice);
                }
            }
        }
    }

    /// Deadlines, tries.
    fn keys(&mut self, section: &Section, text: &mut String) {
        let mut timeouts = Vec::new();
        // A stream is written for its own defaults, as there are no [timeouts] of all streams.
        let of_defaults = (section.defaults.as_deref().into_iter())
            .flat_map(|defaults| defaults.all("timeout"))
            .filter(|line| match section.is_tcp() {
                true => line.word(1) == "connect",
                false => line.word(1) == "queue",
            })
            .filter(|line| {
                !section
                    .all("timeout")
                    .any(|own| own.word(1) == line.word(1))
            });
        for timeout in section.all("timeout").chain(of_defaults) {
            let keys: &[&str] = match (timeout.word(1), section.is_tcp()) {
                ("connect", _) => &["connect"],
                ("client" | "server" | "client-fin" | "server-fin" | "tunnel", true) => {
                    self.seen(timeout);
                    continue;
                }
                ("server", false) => &["response", "idle"],
                ("queue", _) => &["queue"],
                ("check", _) => continue,
                // Said of its routes.
                ("tunnel", false) => {
                    self.seen(timeout);
                    continue;
                }
                _ => {
                    let advice = "holds for all sites here; see [timeouts]";
                    self.tell(timeout, Loss::Slight, advice);
                    continue;
                }
            };
            let Some(time) = deadline(timeout.word(2)) else {
                self.tell(timeout, Loss::Real, "is not a time that staunch has");
                continue;
            };
            self.seen(timeout);
            match keys {
                ["queue"] => {
                    let _ = writeln!(text, "{}", line("queue_timeout", &time));
                }
                keys => timeouts.extend(keys.iter().map(|key| line(key, &time))),
            }
        }
        if !timeouts.is_empty() {
            let _ = writeln!(text, "timeouts = {{ {} }}", timeouts.join(", "));
        }
        let retries = section.nearest("retries");
        if let Some(retries) = retries {
            self.seen(&retries);
            if let Ok(number) = retries.word(1).parse::<u32>() {
                let _ = writeln!(text, "retries = {number}");
            }
        }
    }

    fn health(
        &mut self,
        section: &Section,
        mut keys: Vec<String>,
        asks_tls: bool,
        text: &mut String,
    ) {
        let mut path = None;
        if let Some(check) = section.option("httpchk") {
            self.seen(&check);
            let (method, uri) = match check.words.len() > 3 {
                true => (check.word(2), check.word(3)),
                false => ("", check.word(2)),
            };
            let uri = if uri.starts_with('/') { uri } else { "/" };
            path = Some(uri.to_owned());
            let sent = section
                .all("http-check")
                .filter_map(|line| line.after("meth"))
                .last();
            // OPTIONS, where nothing is said.
            if sent.unwrap_or(method) != "GET" {
                self.tell(&check, Loss::Slight, "GET is asked here");
            }
            let host = check.words.iter().skip(4).find_map(|word| {
                let (_, host) = word.split_once("Host:")?;
                Some(host.trim().to_owned())
            });
            keys.extend(host.map(|host| line("host", &host)));
        } else {
            self.other_checks(section);
        }
        self.http_checks(section, &mut keys, &mut path);
        if asks_tls {
            keys.push("tls = true".to_owned());
        }
        if let Some(timeout) = section.nearest_two("timeout", "check") {
            self.seen(&timeout);
            keys.extend(deadline(timeout.word(2)).map(|time| line("timeout", &time)));
        }
        keys.extend(path.map(|path| line("path", &path)));
        let _ = match keys.is_empty() {
            true => writeln!(text, "health = {{}}"),
            false => writeln!(text, "health = {{ {} }}", keys.join(", ")),
        };
    }

    fn http_checks(
        &mut self,
        section: &Section,
        keys: &mut Vec<String>,
        path: &mut Option<String>,
    ) {
        // HAProxy has no use for them without `option httpchk`.
        let wanted = path.is_some();
        for check in section.all("http-check") {
            match (check.word(1), check.word(2)) {
                ("send", _) if wanted => {
                    *path = check
                        .after("uri")
                        .map(str::to_owned)
                        .or_else(|| path.take());
                    for at in 0..check.words.len() {
                        let host = check.word(at) == "hdr"
                            && check.word(at + 1).eq_ignore_ascii_case("host");
                        keys.extend(host.then(|| line("host", check.word(at + 2))));
                        if check.word(at) == "hdr" && !host || check.word(at).starts_with("body") {
                            let advice =
                                "a check asks with GET, a path and a host here, nothing else";
                            self.tell(check, Loss::Slight, advice);
                        }
                    }
                    self.seen(check);
                }
                ("expect", _) if wanted => match expected(check) {
                    Some(key) => {
                        keys.push(key);
                        self.seen(check);
                    }
                    None => {
                        let advice = "expects what is not asked for here; see status and body in \
                                      [upstream.NAME.health]";
                        self.tell(check, Loss::Real, advice);
                    }
                },
                ("connect", _) => {
                    let port = check
                        .after("port")
                        .filter(|port| port.parse::<u16>().is_ok());
                    if !keys.iter().any(|key| key.starts_with("port ")) {
                        keys.extend(port.map(|port| format!("port = {port}")));
                    }
                    let other = ["addr", "ssl", "sni", "send-proxy", "via-socks4"];
                    let loss = match other.iter().any(|word| check.has(word)) {
                        true => Loss::Real,
                        false => Loss::Slight,
                    };
                    let advice = "a check speaks as requests do, once, with the server itself; see \
                                  [upstream.NAME.health]";
                    self.tell(check, loss, advice);
                }
                ("disable-on-404", _) => {
                    self.tell(check, Loss::Slight, "404 is a bad answer here; see status");
                }
                _ if !wanted => {
                    self.tell(check, Loss::None, "is nothing without option httpchk");
                }
                _ => self.tell(check, Loss::Real, "see [upstream.NAME.health]"),
            }
        }
    }

    /// Checks in words of a protocol.
    fn other_checks(&mut self, section: &Section) {
        let options = [
            "tcp-check",
            "ssl-hello-chk",
            "pgsql-check",
            "mysql-check",
            "redis-check",
            "smtpchk",
            "ldap-check",
            "spop-check",
        ];
        for option in options.iter().filter_map(|name| section.option(name)) {
            let (loss, advice) = match option.word(1) {
                "tcp-check" => (Loss::None, "a connection that can be made is enough"),
                _ => (
                    Loss::Slight,
                    "a connection that can be made is enough here; see [upstream.NAME.health]",
                ),
            };
            self.tell(&option, loss, advice);
        }
        for check in section.all("tcp-check") {
            let (loss, advice) = match check.word(1) {
                "connect" if check.words.len() > 2 => (
                    Loss::Real,
                    "a connection is made as those of clients are, to the server itself; see \
                     health.port for another port",
                ),
                "connect" | "comment" => (Loss::None, "a connection is what is tried"),
                "expect" => (
                    Loss::Real,
                    "chose servers by what they answer: a connection is enough here; a check by \
                     HTTP beside (health.port, health.path) can choose",
                ),
                _ => (Loss::Slight, "nothing is said; a connection is enough here"),
            };
            self.tell(check, loss, advice);
        }
    }
}

/// What an answer has to be, as a key.
fn expected(check: &Line) -> Option<String> {
    const KINDS: [&str; 4] = ["status", "rstatus", "string", "rstring"];
    let at = (check.words.iter()).position(|word| KINDS.contains(&word.as_str()))?;
    let not = check.word(at - 1) == "!";
    let value = check.word(at + 1);
    let is = |test: &dyn Fn(&str) -> bool| {
        let codes = (100..600_u16).filter(|code| test(&code.to_string()) != not);
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for code in codes {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == code => *last = code,
                _ => ranges.push((code, code)),
            }
        }
        let shown = ranges.iter().map(|(from, to)| match from == to {
            true => from.to_string(),
            false => format!("{from}-{to}"),
        });
        let shown: Vec<_> = shown.collect();
        (!shown.is_empty() && shown.len() < 20).then(|| line("status", &shown.join(",")))
    };
    match check.word(at) {
        "status" if !not => Some(line("status", value)),
        "status" => is(&|code| code == value),
        "rstatus" => {
            let regex = pattern::convert(value, false, false).ok()?;
            let regex = regex::bytes::Regex::new(&regex).ok()?;
            is(&|code| regex.is_match(code.as_bytes()))
        }
        "string" if !not => Some(line("body", value)),
        _ => None,
    }
}

/// What of a request is hashed. `None`: nothing that can be.
fn hash_key(sample: &str) -> Option<String> {
    let sample = sample.split(',').next().unwrap_or_default();
    let sample = sample.strip_prefix("req.").unwrap_or(sample);
    match sample {
        "src" => return Some("client".to_owned()),
        "path" | "pathq" | "url" => return Some("path".to_owned()),
        _ => {}
    }
    let (kind, name) = sample.strip_suffix(')')?.split_once('(')?;
    let kind = match kind {
        "hdr" | "fhdr" => "header",
        "cook" | "cookie" => "cookie",
        _ => return None,
    };
    (!name.is_empty() && !name.contains(',')).then(|| format!("{kind}:{name}"))
}
