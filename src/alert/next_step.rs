//! The way out: the commands that show what is wrong, and those that mend it.
//!
//! Who renews a certificate is read off the layout its files lie in, so that the sentence names
//! the program that the person at the keyboard knows.

use std::path::Path;

use super::words::shell;

/// How to look at a certificate file.
pub fn look_at(file: &str) -> String {
    format!(
        "openssl x509 -in {} -noout -subject -issuer -dates -ext subjectAltName",
        shell(file)
    )
}

/// Finds out why a renewal did not come.
pub fn renew(file: &str, name: Option<&str>) -> String {
    format!(
        "Find out why it was not renewed: {}. What is on disk: `{}`. staunch takes the new file up \
         by itself.",
        renewer(file, name),
        look_at(file)
    )
}

/// Who renews this file, and how to make them say what is wrong.
fn renewer(file: &str, name: Option<&str>) -> String {
    let path = Path::new(file);
    let folder = path
        .parent()
        .and_then(Path::file_name)
        .map(|it| it.to_string_lossy().into_owned())
        .unwrap_or_default();
    let name = name.unwrap_or("NAME");
    if let Some((_, below)) = file.split_once("/letsencrypt/live/") {
        let lineage = below.split('/').next().unwrap_or(name);
        return format!(
            "`certbot renew --cert-name {} --dry-run`, and `systemctl list-timers certbot.timer`",
            shell(lineage)
        );
    }
    if file.contains("/.acme.sh/") {
        return format!(
            "`acme.sh --renew -d {} --debug`, and `crontab -l`",
            shell(name)
        );
    }
    if file.contains("/dehydrated/") {
        return format!("`dehydrated --cron --domain {}`", shell(name));
    }
    if file.contains("/.lego/") || file.contains("/lego/certificates/") {
        return format!(
            "`lego --domains {} renew`, with the flags of its timer",
            shell(name)
        );
    }
    if path.file_name().is_some_and(|it| it == "tls.crt") {
        return format!(
            "`kubectl describe certificate --all-namespaces`, and look for the one whose secret is \
             mounted at {}",
            shell(&folder)
        );
    }
    "look at the log and the timer of the job that writes it".to_owned()
}

/// Shows why what is on disk is not used.
pub fn check(file: &str) -> String {
    format!(
        "`staunch check` shows it; what is on disk: `{}`.",
        look_at(file)
    )
}

/// Uses what is on disk although it is worse.
pub fn accept(file: &str) -> String {
    format!(
        "Have it issued anew, or use it as it is: `staunch accept {} --because \"…\"`. What is on \
         disk: `{}`.",
        shell(file),
        look_at(file)
    )
}

/// Shows what a client gets for a name.
pub fn probe(name: &str) -> String {
    format!("staunch probe {}", shell(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_renewing_program_is_read_off_the_layout() {
        let of = |file| renewer(file, Some("a.example"));
        assert!(
            of("/etc/letsencrypt/live/a.example-0001/fullchain.pem")
                .starts_with("`certbot renew --cert-name a.example-0001 --dry-run`")
        );
        assert!(of("/root/.acme.sh/a_ecc/fullchain.cer").contains("acme.sh --renew -d a.example"));
        assert!(of("/var/lib/dehydrated/certs/a/fullchain.pem").starts_with("`dehydrated"));
        assert!(of("/etc/lego/certificates/a.crt").starts_with("`lego"));
        assert!(of("/certs/shop/tls.crt").ends_with("mounted at shop"));
        assert!(of("/etc/ssl/a.pem").starts_with("look at the log"));
    }
}
