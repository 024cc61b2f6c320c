//! Names, addresses and URLs as they are written in a configuration.
//!
//! Each function reads one form and says, where it cannot, what to write instead. None resolves a
//! name or looks at a file.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::diagnostic::Complaint;
use super::{Server, ServerAddress, SiteName};

/// The longest path a unix socket can have: `sun_path` is 108 bytes, with a zero at the end.
const UNIX_PATH_LONGEST: usize = 107;

/// The address of a name server.
pub(super) fn name_server(text: &str) -> Result<SocketAddr, Complaint> {
    text.parse().map_err(|_| {
        let help = match bare_ip(text) {
            Some(ip) => format!("add the port: `\"{}\"`", SocketAddr::new(ip, 53)),
            None => "write an IP address and a port, as in `\"192.0.2.53:53\"`".to_owned(),
        };
        Complaint::new("is not the address of a name server", help)
    })
}

/// An address to listen on.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Complaint> {
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().and_then(|port| port.parse().ok());
        let help = match (bare_ip(text), port) {
            (Some(ip), _) => format!("add the port, as in `\"{}\"`", SocketAddr::new(ip, 443)),
            (None, Some::<u16>(port)) => format!(
                "write an IP address and the port: `\"[::]:{port}\"` for every address, \
                 `\"127.0.0.1:{port}\"` for this machine only"
            ),
            (None, None) => "write an IP address and a port, as in `\"[::]:443\"`".to_owned(),
        };
        Complaint::new("is not an address to listen on", help)
    })
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Complaint> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            Complaint::new(
                "is not a network",
                "write an address and the length of its prefix, as in `\"10.0.0.0/8\"` or \
                 `\"fd00::/8\"`, or an address alone",
            )
        })?;
    if net != net.trunc() {
        return Err(Complaint::new(
            "has bits set beyond its prefix",
            format!(
                "write `\"{}\"` for the network, or `\"{}\"` for the address",
                net.trunc(),
                net.addr()
            ),
        ));
    }
    if let IpAddr::V6(ip) = net.addr()
        && ip.to_ipv4_mapped().is_some()
        && net.prefix_len() >= 96
    {
        return Err(Complaint::new(
            "is an IPv4 network written as IPv6",
            "write it as IPv4: clients are compared that way, on a dual-stack socket too",
        ));
    }
    Ok(net)
}

/// A name for a site: a host name, `*.example.com`, an IP address, or `*`.
pub(super) fn site_name(text: &str) -> Result<SiteName, Complaint> {
    if text == "*" {
        return Ok(SiteName::Any);
    }
    if let Some(ip) = bare_ip(text) {
        return Ok(SiteName::Exact(ip.to_string().into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    match name.strip_prefix("*.") {
        Some(parent) => host_name(parent).map(SiteName::Wildcard),
        None if name.contains('*') => Err(Complaint::new(
            "has a `*` where it cannot be",
            "a wildcard is the whole first label, as in `\"*.example.com\"`; `\"*\"` alone is \
             any name",
        )),
        None if name.contains("://") || name.contains('/') => Err(Complaint::new(
            "is a URL, not a name",
            "write the host name only, as in `\"example.com\"`",
        )),
        None if name.contains(':') => Err(Complaint::new(
            "is not a name",
            "write it without the port: a site answers on every address listened on",
        )),
        None => host_name(name).map(SiteName::Exact),
    }
}

/// An IP address, IPv6 with or without its brackets.
fn bare_ip(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// A DNS name in lower case, by the rules of RFC 1123 with underscores let through: they occur.
fn host_name(name: &str) -> Result<Arc<str>, Complaint> {
    let bad = |why: &str| {
        Complaint::new(
            format!("is not a host name: {why}"),
            "write a name as in `\"www.example.com\"`",
        )
    };
    if !name.is_ascii() {
        return Err(Complaint::new(
            "is not a host name: it holds characters beyond ASCII",
            "write the form that goes over the wire, which begins with `xn--`",
        ));
    }
    if name.len() > 253 {
        return Err(bad("it is longer than 253 characters"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(bad("a label is empty"));
        }
        if label.len() > 63 {
            return Err(bad("a label is longer than 63 characters"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(bad("a label begins or ends with a hyphen"));
        }
        if !label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            return Err(bad(
                "only letters, digits, hyphens, underscores and dots can be in it",
            ));
        }
    }
    // `10.0.0.256` and the like would be a name to us and an address to every client.
    if name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(bad("the last label is a number"));
    }
    Ok(name.to_ascii_lowercase().into())
}

/// A name that a server's certificate covers: a host name or an IP address.
pub(super) fn tls_name(text: &str) -> Result<Arc<str>, Complaint> {
    match bare_ip(text) {
        Some(ip) => Ok(ip.to_string().into()),
        None => host_name(text.strip_suffix('.').unwrap_or(text)),
    }
}

/// Whether an upstream is meant by URL rather than by the name of an `[upstream.NAME]`.
pub(super) fn is_server_url(text: &str) -> bool {
    text.contains("://") || text.starts_with("unix:")
}

/// A server behind: `http://host[:port]`, `https://host[:port]`, `tcp://host:port`,
/// `tls://host:port` or `unix:/path`, a relative path being below `folder`.
pub(super) fn server(text: &str, folder: &Path) -> Result<Server, Complaint> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_server(path, folder);
    }
    // Before anything that repeats a part of the text.
    if text.contains('@') {
        return Err(Complaint::new(
            "has a user name or password in it",
            "take it out: credentials in a URL end up in logs, and nothing would send them",
        ));
    }
    if let Some((scheme, rest)) = text.split_once("+srv://") {
        return service(text, scheme, rest);
    }
    let is = |scheme: &str, names: [&str; 2]| names.iter().any(|n| scheme.eq_ignore_ascii_case(n));
    let (tls, default_port, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is(scheme, ["http", "https"]) => match scheme.len() {
            4 => (false, Some(80), rest),
            _ => (true, Some(443), rest),
        },
        Some((scheme, rest)) if is(scheme, ["tcp", "tls"]) => {
            (scheme.eq_ignore_ascii_case("tls"), None, rest)
        }
        Some((scheme, _)) => {
            return Err(Complaint::new(
                format!("has a scheme that is not spoken, `{scheme}`"),
                "upstreams are `http://host:port`, `https://host:port` or `unix:/path`; for streams \
                 `tcp://host:port` and `tls://host:port` too",
            ));
        }
        None => {
            return Err(Complaint::new(
                "is not the URL of a server",
                match text.is_empty() {
                    true => "write `\"http://host:port\"`".to_owned(),
                    false => format!("write `\"http://{text}\"`, or `https://`, or `unix:/path`"),
                },
            ));
        }
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !path.is_empty() && path != "/" {
        return Err(Complaint::new(
            "has a path or a query, which an upstream cannot have",
            format!(
                "requests are passed on with the path that the client asked for; write \
                 `\"{}\"`",
                &text[..text.len() - path.len()]
            ),
        ));
    }
    let (host, port) = split_port(authority)?;
    let Some(port) = port.or(default_port) else {
        return Err(Complaint::new(
            "has no port",
            format!("write it, as in `\"{text}:5432\"`"),
        ));
    };
    let address = match bare_ip(host) {
        Some(ip) => ServerAddress::Ip(SocketAddr::new(ip, port)),
        None => ServerAddress::Name(host_name(host.strip_suffix('.').unwrap_or(host))?, port),
    };
    Ok(Server {
        url: text[..text.len() - path.len()].into(),
        address,
        tls,
        weight: 1,
        backup: false,
        domain: None,
    })
}

/// A service, whose servers the DNS names: `http+srv://_web._tcp.example.com`.
fn service(text: &str, scheme: &str, rest: &str) -> Result<Server, Complaint> {
    let scheme = scheme.to_ascii_lowercase();
    if !["http", "https", "tcp", "tls"].contains(&scheme.as_str()) {
        return Err(Complaint::new(
            format!("has a scheme that is not spoken, `{scheme}+srv`"),
            "services are `http+srv://`, `https+srv://`, and for streams `tcp+srv://`, `tls+srv://`",
        ));
    }
    let name = rest.strip_suffix('/').unwrap_or(rest);
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut parts = name.splitn(3, '.');
    let label = |part: Option<&str>| {
        part.and_then(|part| part.strip_prefix('_'))
            .is_some_and(|part| super::upstream::token(part).is_ok())
    };
    let labelled = label(parts.next()) && label(parts.next());
    let domain = parts.next().filter(|_| labelled).ok_or_else(|| {
        Complaint::new(
            "is not the name of a service",
            "write it as in `\"http+srv://_web._tcp.example.com\"`, without a port",
        )
    })?;
    let domain = host_name(domain)?;
    Ok(Server {
        url: text.into(),
        address: ServerAddress::Service(name.to_ascii_lowercase().into()),
        tls: ["https", "tls"].contains(&scheme.as_str()),
        weight: 1,
        backup: false,
        domain: Some(domain),
    })
}

fn unix_server(path: &str, folder: &Path) -> Result<Server, Complaint> {
    // `unix:///run/api.sock` is how some write it.
    let path = match path.starts_with("//") {
        true => path.trim_start_matches('/'),
        false => path,
    };
    let absolute = match path.len() {
        0 => PathBuf::new(),
        _ => folder.join(path),
    };
    if path.is_empty() || path.contains('\0') {
        return Err(Complaint::new(
            "names no socket",
            "write its path, as in `\"unix:/run/api.sock\"`",
        ));
    }
    if absolute.as_os_str().len() > UNIX_PATH_LONGEST {
        return Err(Complaint::new(
            format!("is longer than the {UNIX_PATH_LONGEST} bytes a socket's path can have"),
            "use a shorter path, or a symbolic link to the folder",
        ));
    }
    Ok(Server {
        url: format!("unix:{}", absolute.display()).into(),
        address: ServerAddress::Unix(absolute),
        tls: false,
        weight: 1,
        backup: false,
        domain: None,
    })
}

/// Splits `host:port`, where the host may be an IPv6 address in brackets.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), Complaint> {
    let (host, port) = match authority.rsplit_once(':') {
        _ if authority.ends_with(']') => (authority, None),
        None => (authority, None),
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => {
            return Err(Complaint::new(
                "has an IPv6 address without brackets",
                "write it as in `\"http://[::1]:8080\"`",
            ));
        }
        Some((host, port)) => (host, Some(port)),
    };
    if host.is_empty() {
        return Err(Complaint::new(
            "names no host",
            "write `\"http://host:port\"`",
        ));
    }
    let Some(port) = port else {
        return Ok((host, None));
    };
    match port.parse::<u16>() {
        Ok(number) if number > 0 && !port.starts_with('+') => Ok((host, Some(number))),
        _ => Err(Complaint::new(
            "has a port that is none",
            "a port is a number from 1 to 65535",
        )),
    }
}

/// The name of an `[upstream.NAME]` or of a sink: it goes into labels of metrics.
pub(super) fn label(text: &str) -> Result<Arc<str>, Complaint> {
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match fits {
        true => Ok(text.into()),
        false => Err(Complaint::new(
            "is not a name",
            "use up to 64 letters, digits, hyphens, underscores and dots",
        )),
    }
}

/// A route's path prefix.
pub(super) fn route_path(text: &str) -> Result<Arc<str>, Complaint> {
    let (message, help) = if !text.starts_with('/') {
        ("does not begin with `/`", "write it as in `\"/api/\"`")
    } else if text.contains(['?', '#']) {
        (
            "has a query or a fragment",
            "a route is chosen by the path alone",
        )
    } else if text.contains('*') {
        (
            "has a `*` in it",
            "a path matches as a prefix: `\"/api/\"` is everything below it",
        )
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        (
            "has a character that no path has on the wire",
            "write it percent-encoded, as in `\"/caf%C3%A9\"`",
        )
    } else if text.contains("//") || text.split('/').any(|part| matches!(part, "." | "..")) {
        (
            "is never asked for like that",
            "paths are compared with their dot segments and repeated slashes taken out",
        )
    } else {
        return Ok(text.into());
    };
    Err(Complaint::new(message, help))
}

/// What the paths of a route begin with: its last segment may go on.
pub(super) fn path_start(text: &str) -> Result<Arc<str>, Complaint> {
    route_path(&format!("{text}x")).map(|_| text.into())
}

/// What a check asks for: a path, and a query where it takes one.
pub(super) fn check_path(text: &str) -> Result<Arc<str>, Complaint> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if query.contains('#') || !query.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Complaint::new(
            "has a character that no query has on the wire",
            "write it percent-encoded, as in `\"/health?name=caf%C3%A9\"`",
        ));
    }
    route_path(path).map(|_| text.into())
}

/// A URL to call, path and query included.
pub(super) fn call_url(text: &str) -> Result<Arc<str>, Complaint> {
    let wrong = || {
        Complaint::new(
            "is not a URL",
            "write it as in `\"https://alerts.example.com/hook\"`",
        )
    };
    let url: http::Uri = text.parse().map_err(|_| wrong())?;
    let authority = url.authority().ok_or_else(wrong)?.as_str();
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong());
    }
    if authority.contains('@') {
        return Err(Complaint::new(
            "has a user name or password in it",
            "put the secret into a file of its own and name it with `token_file`",
        ));
    }
    host_and_port(authority)?;
    Ok(text.into())
}

/// A mail server: `smtp://host[:port]` or `smtps://host[:port]`.
pub(super) fn mail_server(text: &str) -> Result<Arc<str>, Complaint> {
    let rest = ["smtp://", "smtps://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let Some(rest) = rest else {
        return Err(Complaint::new(
            "is not the URL of a mail server",
            "write `\"smtp://host:587\"`, or `\"smtps://host:465\"`",
        ));
    };
    if rest.contains('@') {
        return Err(Complaint::new(
            "has a user name or password in it",
            "write them as `username` and `password_file`",
        ));
    }
    if rest.contains(['/', '?', '#']) {
        return Err(Complaint::new(
            "has a path or a query",
            "write the host and the port only",
        ));
    }
    host_and_port(rest)?;
    Ok(text.into())
}

fn host_and_port(authority: &str) -> Result<(), Complaint> {
    let (host, _) = split_port(authority)?;
    match bare_ip(host) {
        Some(_) => Ok(()),
        None => host_name(host.strip_suffix('.').unwrap_or(host)).map(drop),
    }
}

/// A mail address, bare: it goes into SMTP commands and headers as it is.
pub(super) fn mail_address(text: &str) -> Result<Arc<str>, Complaint> {
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"<>()[]\\,;:@\"".contains(&byte))
    };
    match text.split_once('@') {
        Some((local, domain)) if text.len() <= 254 && plain(local) && plain(domain) => {
            Ok(text.into())
        }
        _ => Err(Complaint::new(
            "is not a mail address",
            "write the address alone, as in `\"ops@example.com\"`",
        )),
    }
}

/// The name of an environment variable.
pub(super) fn variable(text: &str) -> Result<Arc<str>, Complaint> {
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match fits {
        true => Ok(text.into()),
        false => Err(Complaint::new(
            "is not the name of an environment variable",
            "use letters, digits and underscores",
        )),
    }
}

/// Filter directives for the log: levels, each for everything or for one `target=`.
pub(super) fn log_level(text: &str) -> Result<Arc<str>, Complaint> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',') {
        let (target, level) = directive.split_once('=').unwrap_or(("staunch", directive));
        let target_fits = !target.is_empty()
            && target
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte));
        if !target_fits || !LEVELS.contains(&level) {
            return Err(Complaint::new(
                "is not a level",
                format!(
                    "write one of {}; or for parts of the program, as in \
                     `\"info,staunch::cert=debug\"`",
                    LEVELS.join(", ")
                ),
            ));
        }
    }
    Ok(text.into())
}
