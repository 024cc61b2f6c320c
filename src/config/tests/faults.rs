//! What is said of a configuration that cannot be used.

use super::*;

#[test]
fn a_fault_is_shown_like_a_compiler_shows_it() {
    let text = with("[listen]\nhtps = [\"[::]:443\"]\n");
    assert_eq!(
        refused(&text),
        "\
/etc/staunch/staunch.toml:9:1: error: unknown key `htps` in [listen]
  9 | htps = [\"[::]:443\"]
    | ^^^^
      help: did you mean `https`?
"
    );
}

/// Each fault, and something of what must be said of it.
#[test]
fn every_fault_has_its_words() {
    for (text, words) in [
        ("lisen = 1", "did you mean `listen`?"),
        ("https = []", "`https` belongs in `listen`"),
        (
            "[listen]\nstate_dir = '/x'",
            "belongs at the top of the file",
        ),
        (
            "[drain]\nfrobnicate = 1",
            "what can be written here: notice, deadline",
        ),
        (
            "listen = 1",
            "expected a table, written [listen], found the number 1",
        ),
        ("[[listen]]", "in single brackets"),
        (
            "[site]\nnames = ['a.b']",
            "write `[[site]]`, in double brackets",
        ),
        ("site = ['a']", "expected a table, written [[site]]"),
        (
            "upstream = 'http://x'",
            "expected a table, written [upstream.NAME]",
        ),
        ("[timeouts]\nidle = 10", "`\"10s\"`"),
        ("[timeouts]\nidle = '10'", "add the unit: `\"10s\"`"),
        (
            "[timeouts]\nidle = '0s'",
            "write a value from \"1ms\" to \"1d\"",
        ),
        (
            "[timeouts]\nidle = true",
            "expected a duration such as \"10s\", found `true`",
        ),
        (
            "[limits]\nrequest_head = 65536",
            "put it in quotes: `\"65536\"`",
        ),
        (
            "[limits]\nrequest_head = '1KiB'",
            "from \"8KiB\" to \"1MiB\"",
        ),
        (
            "[limits]\nconnections = -1",
            "write a whole number, 0 to 100000000",
        ),
        ("[limits]\nconnections = '7'", "without quotes: `7`"),
        ("keep_last_good = 'false'", "without quotes: `false`"),
        ("[alerts]\noverdue = '0.2'", "without quotes: `0.2`"),
        (
            "[dns]\nservers = ['192.0.2.1']",
            "add the port: `\"192.0.2.1:53\"`",
        ),
        (
            "[limits]\nconnections = 1.5",
            "expected a whole number, found the number 1.5",
        ),
        ("[limits]\nstreams = 0", "write a value from 1 to 10000"),
        ("[workers]\nthreads = 0", "0 is out of range"),
        ("[workers]\nthreads = 5000", "write a value from 1 to 1024"),
        ("[listen]\nhttps = []", "nothing to listen on"),
        ("[listen]\nhttps = '[::]:443'", "put it in brackets"),
        (
            "[listen]\nhttps = [':443']",
            "`\"[::]:443\"` for every address",
        ),
        (
            "[listen]\nhttps = ['::']",
            "add the port, as in `\"[::]:443\"`",
        ),
        ("[listen]\nhttps = ['x']", "write an IP address and a port"),
        ("[listen]\nhttps = [443]", "expected an address and port"),
        (
            "[listen]\nhttp = ['[::]:443']",
            "the address `[::]:443` is there twice",
        ),
        (
            "[listen]\nforwarded_from = ['10.0.0.1/8']",
            "write `\"10.0.0.0/8\"` for the network",
        ),
        (
            "[listen]\nforwarded_from = ['::ffff:10.0.0.0/104']",
            "write it as IPv4",
        ),
        ("[listen]\nforwarded_from = ['all']", "is not a network"),
        ("[[certificate]]", "without `chain` and `folder`"),
        (
            "[[certificate]]\nkey = 'a'",
            "write `chain = …` beside `key`",
        ),
        (
            "[[certificate]]\nchain = 'a'\nfolder = 'b'",
            "write a `[[certificate]]` for each",
        ),
        (
            "[[certificate]]\nkey = 'a'\nfolder = 'b'",
            "does not go with `folder`",
        ),
        (
            "[[certificate]]\nocsp = 'a'\nfolder = 'b'",
            "does not go with `folder`",
        ),
        ("[[certificate]]\nchain = ''\nkey = 'b'", "is not a path"),
        (
            "[[certificate]]\nchain = 'a'\nkey = 7",
            "expected a path in quotes, found the number 7",
        ),
        ("[[site]]", "[[site]] has no `names`"),
        ("[[site]]\nnames = ['a.b']", "a site that leads nowhere"),
        (
            "[[site]]\nnames = []\nupstream = 'http://x'",
            "a site without a name",
        ),
        ("[alerts]\noverdue = 0.1", "is not below `alerts.overdue`"),
        (
            "[alerts]\noverdue = 1.5",
            "write a value from 0.001 to 0.999",
        ),
        ("[alerts]\noverdue = nan", "NaN is out of range"),
        (
            "[alerts]\nexpiring = 0",
            "write a value from 0.001 to 0.999",
        ),
        ("[[alerts.sink]]", "[[alerts.sink]] has no `type`"),
        (
            "[[alerts.sink]]\ntype = 'webhok'",
            "did you mean `\"webhook\"`?",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'",
            "a sink of type \"webhook\" has no `url`",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'\nurl = 'x'",
            "is not a URL",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'\nurl = 'http://u:p@x'",
            "name it with `token_file`",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'\ntoken = 'x'",
            "name that with `token_file`",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\npassword = 'x'",
            "name that with `password_file`",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'\nformat = 'pagerduty'",
            "needs a routing key",
        ),
        ("[[alerts.sink]]\ntype = 'command'", "has no `argv`"),
        (
            "[[alerts.sink]]\ntype = 'command'\nargv = []",
            "names no program",
        ),
        (
            "[[alerts.sink]]\ntype = 'command'\nevery = '1m'",
            "unknown key `every` in a sink of type \"command\"",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\nto = []",
            "nobody to write to",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\nfrom = 'a <a@b.c>'",
            "write the address alone",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\nusername = 'a'",
            "a user name without a password",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\npassword_env = 'A'",
            "a password without a user name",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\nserver = 'mail:25'",
            "write `\"smtp://host:587\"`",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'\ntoken_env = 'A'\ntoken_file = 'B'",
            "both `token_file` and `token_env` name the token",
        ),
        (
            "[log]\nlevel = 'inof'",
            "write one of off, error, warn, info, debug, trace",
        ),
        ("[log]\nformat = 'jsn'", "did you mean `\"json\"`?"),
        ("[log.access]\nto = 'stdot'", "is not a place to log to"),
        ("[log.access]\nsample = 2", "write a value from 0 to 1"),
        (
            "[log]\naccess = 'stdout'",
            "expected a table, written [log.access]",
        ),
    ] {
        let said = refused(text);
        assert!(said.contains(words), "{text}\n{said}");
    }
}

#[test]
fn a_name_has_to_be_one() {
    for (name, words) in [
        ("münchen.de", "begins with `xn--`"),
        ("w*.example.com", "a wildcard is the whole first label"),
        ("a.*.example.com", "a wildcard is the whole first label"),
        ("*.*.example.com", "only letters"),
        ("https://example.com", "write the host name only"),
        ("example.com:443", "write it without the port"),
        ("example.com/x", "write the host name only"),
        ("", "a label is empty"),
        (".", "a label is empty"),
        ("a..b", "a label is empty"),
        ("-a.b", "begins or ends with a hyphen"),
        ("a b", "only letters"),
        ("10.0.0.256", "the last label is a number"),
        (&"a".repeat(64), "longer than 63"),
        (&"a.".repeat(130), "longer than 253"),
    ] {
        let said = refused(&format!(
            "[[site]]\nnames = ['{name}']\nupstream = 'http://x'"
        ));
        assert!(said.contains(words), "{name}\n{said}");
    }
}

#[test]
fn an_upstream_has_to_be_one() {
    for (url, words) in [
        ("http://x/path", "write `\"http://x\"`"),
        ("http://x?q", "has a path or a query"),
        ("http://u:p@x", "has a user name or password in it"),
        ("ftp://x", "a scheme that is not spoken, `ftp`"),
        ("http://", "names no host"),
        ("http://:80", "names no host"),
        ("http://x:0", "a port is a number from 1 to 65535"),
        ("http://x:+80", "a port is a number from 1 to 65535"),
        ("http://x:65536", "a port is a number from 1 to 65535"),
        ("http://x:", "a port is a number from 1 to 65535"),
        ("http://::1:80", "without brackets"),
        ("http://a b", "only letters"),
        ("unix:", "names no socket"),
        ("127.0.0.1:8080", "write `\"http://127.0.0.1:8080\"`"),
        ("", "write `\"http://host:port\"`"),
        (
            &format!("unix:/{}", "x".repeat(107)),
            "longer than the 107 bytes",
        ),
        ("api", "write `[upstream.api]`"),
    ] {
        let said = refused(&format!("[[site]]\nnames = ['a.b']\nupstream = '{url}'"));
        assert!(said.contains(words), "{url}\n{said}");
    }
    // Some write a slash at the end, and it changes nothing.
    let config = parse("[[site]]\nnames = ['a.b']\nupstream = 'http://x/'").unwrap();
    assert!(config.upstreams.contains_key("http://x"));
}

#[test]
fn what_is_there_twice_says_where_else() {
    let said = refused(&with(
        r#"
[[site]]
names = ["EXAMPLE.com"]
default = true
upstream = "http://127.0.0.1:8080"
[[site.route]]
path = "/"
upstream = "http://127.0.0.1:8080"
[[site]]
names = ["b.example.com"]
default = true
upstream = "http://127.0.0.1:8080"
"#,
    ));
    for words in [
        "the name `example.com` is there twice",
        "the other one is on line 6",
        "the path `/` is there twice",
        "a second default site",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
}

#[test]
fn an_upstream_that_is_misspelt_or_unused_is_told_apart() {
    let text = "[[site]]\nnames = ['a.b']\nupstream = 'ap'\n[upstream.api]\nservers = ['http://x']";
    let said = refused(text);
    assert!(said.contains("there is no upstream `ap`") && said.contains("did you mean `api`?"));
    let config = parse(&with("[upstream.api]\nservers = ['http://x']")).unwrap();
    let said = config.warnings.to_string();
    assert!(
        said.contains("warning: nothing uses the upstream `api`"),
        "{said}"
    );
}

#[test]
fn an_upstream_with_a_fault_of_its_own_is_there_all_the_same() {
    for servers in ["['x']", "[]", "7"] {
        let text = format!(
            "[[site]]\nnames = ['a.b']\nupstream = 'api'\n[upstream.api]\nservers = {servers}"
        );
        let said = refused(&text);
        assert!(
            !said.contains("no upstream") && said.contains("server"),
            "{said}"
        );
    }
}

#[test]
fn all_faults_are_told_at_once_in_their_order() {
    let report = parse(
        r#"
colour = "red"
[listen]
https = ["x", "y"]
[timeouts]
idle = 1
[[site]]
names = ["a..b", "c.d"]
upstream = "nowhere"
"#,
    )
    .unwrap_err();
    let lines: Vec<_> = report
        .diagnostics()
        .iter()
        .filter_map(|d| report.position(d))
        .map(|(line, _)| line)
        .collect();
    assert_eq!(lines, [2, 4, 4, 6, 8, 9], "{report}");
}

#[test]
fn faults_of_the_syntax_hide_only_what_they_may_have_caused() {
    let said = refused("[listen]\nhtps = 1\n[limits\nstreams = 0\nconnections = = 1\n");
    assert!(said.contains("unknown key `htps`"), "{said}");
    assert!(said.contains(":3:"), "{said}");
    assert!(!said.contains("no `[[site]]`"), "{said}");
    let said = refused("a = 1\na = 2\n");
    assert!(said.contains("duplicate key"), "{said}");
}

#[test]
fn what_is_served_in_plain_text_asks_for_no_certificate_and_no_password() {
    let site = "[listen]\nhttps = []\nhttp = ['[::]:80']\n\
                [[site]]\nnames = ['a.b']\nplain_text = true\nupstream = 'http://x'\n";
    let config = parse(site).unwrap();
    assert!(!config.sites[0].needs_certificate());
    assert_eq!(config.warnings.to_string(), "");
    for (lines, words) in [
        (
            "[site.client_certificates]\nmode = 'required'\nca = 'ca.pem'\n",
            "never answered in plain text",
        ),
        (
            "basic_auth = { file = 'users' }\n",
            "passwords in plain text",
        ),
        (
            "[[site.route]]\npath = '/x/'\nbasic_auth = { file = 'users' }\n",
            "passwords in plain text",
        ),
    ] {
        let said = parse(&format!("{site}{lines}"))
            .unwrap()
            .warnings
            .to_string();
        assert!(said.contains(words), "{lines}\n{said}");
    }
    let said = parse(
        &site
            .replace("http = ['[::]:80']", "")
            .replace("[]", "['[::]:443']"),
    );
    let said = said.unwrap().warnings.to_string();
    assert!(
        said.contains("no address where anybody could ask"),
        "{said}"
    );
}

#[test]
fn servers_that_are_not_verified_are_warned_of() {
    let with_tls = |tls: &str| {
        with(&format!(
            "[[site]]\nnames = ['a.b']\nupstream = 'api'\n\
             [upstream.api]\nservers = ['https://10.0.0.1']\ntls = {{ {tls} }}"
        ))
    };
    let warnings = |tls: &str| parse(&with_tls(tls)).unwrap().warnings.to_string();
    let said = warnings("verify = false, name = 'api.test'");
    let words = "the servers of the upstream `api` are not verified";
    assert_eq!(said.matches(words).count(), 1, "{said}");
    assert!(said.contains("as `ca` in place of"), "{said}");
    assert_eq!(warnings("verify = true, ca = '/ca.pem'"), "");
    let said = refused(&with_tls("verify = false, ca = '/ca.pem'"));
    assert!(
        said.contains("`ca` has no use beside `verify = false`"),
        "{said}"
    );
}

#[test]
fn a_fault_of_the_text_is_told_once_and_not_all_that_follows_from_it() {
    let said =
        refused("[listen]\nhttps = [\"[::]:443\"\nhttp = [\"[::]:80\"]\n[[site]]\nnames = a\n");
    assert_eq!(said.matches("error:").count(), 1, "{said}");
    assert!(said.contains(":3:1: error: missing comma"), "{said}");
    assert!(said.contains("closed? Write `]`"), "{said}");
    let said = refused("a = example.com\n[listen]\nhttps = []\n[listen]\n");
    assert_eq!(said.matches("error:").count(), 2, "{said}");
    assert!(said.contains("write it in quotes: `\"…\"`"), "{said}");
    assert!(said.contains("put both together"), "{said}");
    for (text, program) in [
        ("worker_processes 2;\nhttp {\n  server {\n", "nginx"),
        ("global\n  daemon\nfrontend web\n  bind :80\n", "haproxy"),
    ] {
        let said = refused(text);
        assert_eq!(said.matches("error:").count(), 1, "{said}");
        let help = format!("`staunch import {program} FILE` converts it");
        assert!(said.contains(&help), "{said}");
    }
    let said = refused("[[stream]]\nlisten = [\"[::]:1\nupstream =\n");
    assert!(!said.contains("import"), "{said}");
}

#[test]
fn an_address_that_something_else_takes_everywhere_is_warned_of() {
    let warnings = |listen: &str| {
        let text = with(&format!("[listen]\n{listen}\n"));
        parse(&text).unwrap().warnings.to_string()
    };
    let words = "`[::]:443` in `listen.https` is for this address too";
    let said = warnings("https = ['[::]:443']\nadmin = '127.0.0.1:443'");
    assert!(said.contains(words), "{said}");
    assert!(said.contains("come to `listen.admin`"), "{said}");
    for apart in [
        "https = ['[::]:443']\nadmin = '127.0.0.1:444'",
        "https = ['0.0.0.0:443']\nadmin = '[::1]:443'",
        "https = ['[::]:443', '127.0.0.1:443']",
        "https = ['0.0.0.0:443']\nhttp = ['[::]:443']",
    ] {
        assert_eq!(warnings(apart), "", "{apart}");
    }
}
