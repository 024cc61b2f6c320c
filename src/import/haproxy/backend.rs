//! Backends: their servers, and what is thought of them.

use std::fmt::Write as _;

use super::Import;
use super::format::{deadline, line};
use super::parse::{Line, Section};
use crate::import::{Loss, quoted};

impl Import {
    /// Writes a backend as an upstream. `None`: it has no server.
    pub(super) fn upstream(&mut self, section: &Section, name: &str) -> Option<String> {
        let mut text = String::new();
        let mut options: Vec<String> = Vec::new();
        let default = section
            .last("default-server")
            .or_else(|| self.inherited("default-server"));
        let default = default.cloned();
        let mut servers = String::new();
        let mut checked = false;
        for server in section.all("server") {
            self.seen(server);
            let words = default.iter().flat_map(|line| line.words[1..].iter());
            let words: Vec<String> = server.words[3.min(server.words.len())..]
                .iter()
                .chain(words)
                .cloned()
                .collect();
            let Some(entry) = self.server(server, &words, &mut options, &mut checked) else {
                continue;
            };
            servers.push_str(&entry);
        }
        for template in section.all("server-template") {
            let address = template.word(3);
            let port = if address.contains(':') { "" } else { ":80" };
            let _ = writeln!(
                servers,
                "  {{ url = {} }},  # from {}",
                quoted(&format!("http://{address}{port}")),
                template.place
            );
            self.tell(template, Loss::Slight, "all addresses of the name are used");
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
            ["ca ", "name ", "chain "]
                .iter()
                .any(|key| option.starts_with(key))
        });
        let (health, plain): (Vec<_>, Vec<_>) = (plain.into_iter()).partition(|option| {
            ["interval", "rise", "fall"]
                .iter()
                .any(|key| option.starts_with(key))
        });
        for option in plain {
            let _ = writeln!(text, "{option}");
        }
        if !tls.is_empty() {
            let _ = writeln!(text, "tls = {{ {} }}", tls.join(", "));
        }
        if checked {
            self.health(section, health, &mut text);
        }
        Some(text)
    }

    /// One server, or nothing where it is switched off.
    fn server(
        &mut self,
        server: &Line,
        words: &[String],
        options: &mut Vec<String>,
        checked: &mut bool,
    ) -> Option<String> {
        let address = server.word(2);
        let has = |word: &str| words.iter().any(|w| w == word);
        let value = |word: &str| {
            let at = words.iter().position(|w| w == word)?;
            words.get(at + 1).map(String::as_str)
        };
        if has("disabled") {
            self.tell(server, Loss::None, "is disabled; it is left out");
            return None;
        }
        let secure = has("ssl");
        let (scheme, port) = if secure { ("https", 443) } else { ("http", 80) };
        let url = match address {
            unix if unix.starts_with('/') => format!("unix:{unix}"),
            unix if unix.starts_with("unix@") => unix.replacen('@', ":", 1),
            address => {
                let address = address
                    .trim_start_matches("ipv4@")
                    .trim_start_matches("ipv6@");
                let has_port = address
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                match has_port {
                    true => format!("{scheme}://{address}"),
                    false => format!("{scheme}://{}:{port}", address.trim_end_matches(':')),
                }
            }
        };
        let mut more = String::new();
        if let Some(weight) = value("weight").filter(|weight| *weight != "0") {
            let _ = write!(more, ", weight = {weight}");
        }
        if has("backup") {
            more.push_str(", backup = true");
        }
        *checked |= has("check");
        if let Some(most) = value("maxconn") {
            options.push(format!("connections = {most}"));
        }
        for (word, key) in [("rise", "rise"), ("fall", "fall")] {
            options.extend(value(word).map(|number| format!("{key} = {number}")));
        }
        if let Some(time) = value("inter").and_then(deadline) {
            options.push(line("interval", &time));
        }
        if let Some(time) = value("slowstart").and_then(deadline) {
            options.push(line("slow_start", &time));
        }
        if value("proto") == Some("h2") || value("alpn").is_some_and(|alpn| alpn.contains("h2")) {
            options.push("protocol = \"http2\"".to_owned());
        }
        let headers = [
            ("send-proxy", "v1"),
            ("send-proxy-v2", "v2"),
            ("send-proxy-v2-ssl", "v2-tls"),
        ];
        for (_, version) in headers.into_iter().filter(|(word, _)| has(word)) {
            options.push(line("proxy_protocol", version));
        }
        if secure {
            match value("verify") {
                Some("required") => {}
                _ => self.tell(
                    server,
                    Loss::Real,
                    "was not verified; it is verified here: see [upstream.NAME.tls]",
                ),
            }
            options.extend(value("ca-file").map(|file| line("ca", &self.absolute(file))));
            options.extend(value("crt").map(|file| line("chain", &self.absolute(file))));
            let sni = value("sni").and_then(|sni| sni.strip_prefix("str(")?.strip_suffix(')'));
            options.extend(
                sni.or_else(|| value("verifyhost"))
                    .map(|name| line("name", name)),
            );
        }
        Some(format!(
            "  {{ url = {}{more} }},  # from {}\n",
            quoted(&url),
            server.place
        ))
    }

    fn balance(&mut self, section: &Section, text: &mut String) {
        let balance = section
            .last("balance")
            .or_else(|| self.inherited("balance"))
            .cloned();
        if let Some(balance) = balance {
            self.seen(&balance);
            let hash = |key: &str| format!("balance = \"hash\"\nhash = {}\n", quoted(key));
            let (name, of) = balance
                .word(1)
                .split_once('(')
                .unwrap_or_else(|| (balance.word(1), ""));
            match name {
                "roundrobin" | "static-rr" => {}
                "leastconn" => text.push_str("balance = \"least-requests\"\n"),
                "random" => text.push_str("balance = \"random\"\n"),
                "source" => text.push_str(&hash("client")),
                "uri" => text.push_str(&hash("path")),
                "hdr" => text.push_str(&hash(&format!("header:{}", of.trim_end_matches(')')))),
                _ => self.tell(
                    &balance,
                    Loss::Real,
                    "has no equivalent; see balance and hash",
                ),
            }
        }
        for cookie in section.all("cookie") {
            match cookie.has("rewrite") || cookie.has("prefix") {
                true => self.tell(
                    cookie,
                    Loss::Real,
                    "changed a cookie of the server's; see sticky",
                ),
                false => {
                    let _ = writeln!(text, "{}", line("sticky", cookie.word(1)));
                    self.seen(cookie);
                }
            }
        }
        for stick in section.all("stick") {
            match stick.words.get(1..3) {
                Some([on, src]) if on == "on" && src == "src" => {
                    if !text.contains("balance = ") {
                        text.push_str(&hash_of_client());
                    }
                    let advice = "a client is brought back by the hash of its address";
                    self.tell(stick, Loss::Slight, advice);
                }
                _ => self.tell(stick, Loss::Real, "see sticky and hash"),
            }
        }
    }

    /// Deadlines, tries.
    fn keys(&mut self, section: &Section, text: &mut String) {
        let mut timeouts = Vec::new();
        for timeout in section.all("timeout") {
            let keys: &[&str] = match timeout.word(1) {
                "connect" => &["connect"],
                "server" => &["response", "idle"],
                "queue" => &["queue"],
                "check" | "tunnel" => continue,
                _ => {
                    self.tell(
                        timeout,
                        Loss::Slight,
                        "holds for all sites here; see [timeouts]",
                    );
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
        let retries = section
            .last("retries")
            .or_else(|| self.inherited("retries"))
            .cloned();
        if let Some(retries) = retries {
            self.seen(&retries);
            if let Ok(number) = retries.word(1).parse::<u32>() {
                let _ = writeln!(text, "retries = {number}");
            }
        }
    }

    fn health(&mut self, section: &Section, mut keys: Vec<String>, text: &mut String) {
        let options = section
            .all("option")
            .find(|line| line.word(1) == "httpchk")
            .cloned();
        let options = options.or_else(|| {
            let defaults = self.defaults.iter().rev();
            let mut options = defaults.flat_map(|section| section.all("option"));
            options.find(|line| line.word(1) == "httpchk").cloned()
        });
        let mut path = None;
        if let Some(check) = options {
            self.seen(&check);
            let uri = if check.words.len() > 3 {
                check.word(3)
            } else {
                check.word(2)
            };
            path = Some(if uri.starts_with('/') {
                uri.to_owned()
            } else {
                "/".to_owned()
            });
        }
        for check in section.all("http-check") {
            match (check.word(1), check.word(2)) {
                ("send", _) => {
                    path = check.after("uri").map(str::to_owned).or(path);
                    if let Some(at) = check.words.iter().position(|word| word == "hdr")
                        && check.word(at + 1).eq_ignore_ascii_case("host")
                    {
                        keys.push(line("host", check.word(at + 2)));
                    }
                    self.seen(check);
                }
                ("expect", "status") => {
                    keys.push(line("status", check.word(3)));
                    self.seen(check);
                }
                ("expect", "string") => {
                    keys.push(line("body", check.word(3)));
                    self.seen(check);
                }
                _ => self.tell(check, Loss::Real, "see [upstream.NAME.health]"),
            }
        }
        let timeout = section
            .all("timeout")
            .find(|line| line.word(1) == "check")
            .cloned();
        if let Some(timeout) = timeout {
            self.seen(&timeout);
            keys.extend(deadline(timeout.word(2)).map(|time| line("timeout", &time)));
        }
        keys.extend(path.map(|path| line("path", &path)));
        let _ = writeln!(text, "health = {{ {} }}", keys.join(", "));
    }
}

fn hash_of_client() -> String {
    "balance = \"hash\"\nhash = \"client\"\n".to_owned()
}
