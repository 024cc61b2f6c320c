//! What becomes of cookies that servers set: `proxy_cookie_path`, `proxy_cookie_domain`,
//! `proxy_cookie_flags`.

use super::scope::Scope;
use super::{Directive, Import};
use crate::import::quoted;
use crate::import::site::Rules;

/// What was read so far.
#[derive(Default)]
struct Cookies {
    paths: Vec<(String, String)>,
    domains: Vec<(String, String)>,
    secure: bool,
    http_only: bool,
    same_site: Option<&'static str>,
}

/// Reads one directive. `None`: it cannot be said here.
type Read = fn(&mut Cookies, &[String]) -> Option<()>;

impl Cookies {
    /// `Secure`, `HttpOnly`, `SameSite=Lax`, of all of them. `None`: something else.
    fn flag(&mut self, flag: &str) -> Option<()> {
        let flag = flag.trim().to_ascii_lowercase();
        match flag.as_str() {
            "" => {}
            "secure" => self.secure = true,
            "httponly" => self.http_only = true,
            "samesite=strict" => self.same_site = Some("Strict"),
            "samesite=lax" => self.same_site = Some("Lax"),
            "samesite=none" => self.same_site = Some("None"),
            _ => return None,
        }
        Some(())
    }

    /// `None`: it cannot be said here.
    fn path(&mut self, args: &[String]) -> Option<()> {
        let [from, to] = args else {
            return (args == ["off"]).then_some(());
        };
        // Attributes behind the path are a way to add them.
        let (path, flags) = to.split_once(';').unwrap_or((to.as_str(), ""));
        let path = path.trim();
        let plain = |text: &str| !text.starts_with('~') && !text.contains('$');
        if !plain(from) || !plain(to) || !(flags.is_empty() || from == "/") {
            return None;
        }
        flags.split(';').try_for_each(|flag| self.flag(flag))?;
        if from != path {
            self.paths.push((from.clone(), path.to_owned()));
        }
        Some(())
    }

    fn domain(&mut self, args: &[String]) -> Option<()> {
        let [from, to] = args else {
            return (args == ["off"]).then_some(());
        };
        let plain = |text: &str| !text.starts_with('~') && !text.contains(['$', ';']);
        if !plain(from) || !plain(to) {
            return None;
        }
        self.domains.push((from.clone(), to.clone()));
        Some(())
    }

    fn flags(&mut self, args: &[String]) -> Option<()> {
        let (cookie, flags) = args.split_first()?;
        match cookie.as_str() {
            "off" => Some(()),
            "~" | "~.*" | "~*" => flags.iter().try_for_each(|flag| self.flag(flag)),
            _ => None,
        }
    }

    fn text(&self) -> String {
        let table = |pairs: &[(String, String)]| {
            let pairs = pairs.iter();
            let pairs = pairs.map(|(from, to)| format!("{} = {}", quoted(from), quoted(to)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        };
        let mut keys = Vec::new();
        if self.secure {
            keys.push("secure = true".to_owned());
        }
        if self.http_only {
            keys.push("http_only = true".to_owned());
        }
        keys.extend(self.same_site.map(|word| format!("same_site = \"{word}\"")));
        for (key, pairs) in [("path", &self.paths), ("domain", &self.domains)] {
            if !pairs.is_empty() {
                keys.push(format!("{key} = {}", table(pairs)));
            }
        }
        keys.join(", ")
    }
}

impl Import {
    /// What becomes of the cookies of a location's responses.
    pub(super) fn cookies(&mut self, scope: &Scope<'_>, rules: &mut Rules) {
        let mut cookies = Cookies::default();
        let readers: [(&str, Read); 3] = [
            ("proxy_cookie_path", Cookies::path),
            ("proxy_cookie_domain", Cookies::domain),
            ("proxy_cookie_flags", Cookies::flags),
        ];
        for (name, read) in readers {
            for directive in scope.all(name) {
                if read(&mut cookies, &directive.args).is_none() {
                    self.not_for_all(directive);
                }
            }
        }
        let text = cookies.text();
        if !text.is_empty() {
            rules.insert("cookies", format!("{{ {text} }}"));
        }
    }

    fn not_for_all(&mut self, directive: &Directive) {
        let advice = "changed some cookies, by expressions, variables or their names: `cookies` of a \
                      site changes all of them, or let the upstream write them so";
        self.lost(directive, advice);
    }
}
