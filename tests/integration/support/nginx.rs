//! A real nginx as the upstream.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Port, require, until};

/// Serves a folder; stops when dropped.
pub struct Nginx {
    child: Child,
    port: Port,
    folder: TempDir,
}

impl Nginx {
    /// Starts it with one file, `/hello`.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Port::free();
        let root = folder.path().join("html");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("hello"), "hello from nginx\n").unwrap();
        let config = folder.path().join("nginx.conf");
        fs::write(&config, configuration(&port, &folder)).unwrap();
        let child = Command::new(require("nginx"))
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("nginx listens", || {
            TcpStream::connect(port.address()).is_ok()
        });
        Self {
            child,
            port,
            folder,
        }
    }

    /// As a server is written in the configuration.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Adds a file to be served.
    pub fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.path().join("html").join(name), content).unwrap();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process, so that killing it is enough.
fn configuration(port: &Port, folder: &TempDir) -> String {
    let folder = folder.path().display();
    format!(
        r"
daemon off;
master_process off;
pid {folder}/pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{};
        root {folder}/html;
        location = /empty {{ return 204; }}
    }}
}}
",
        port.number()
    )
}
