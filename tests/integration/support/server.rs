//! Real programs as the servers behind.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Port, require, run, until};

/// A program that listens; killed when dropped.
pub struct Server {
    child: Child,
    port: Port,
    folder: TempDir,
}

impl Server {
    /// `begin` is told the port and a folder.
    pub fn start(begin: impl FnOnce(&Port, &Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Port::free();
        let child = begin(&port, folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("it listens", || TcpStream::connect(port.address()).is_ok());
        Self {
            child,
            port,
            folder,
        }
    }

    pub fn redis() -> Self {
        Self::start(|port, folder| {
            let mut redis = Command::new(require("redis-server"));
            redis
                .args(["--port", &port.number().to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no", "--dir"])
                .arg(folder);
            redis
        })
    }

    /// One that lets everybody in. It refuses to run as root, and is then run as its own user.
    pub fn postgresql() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let newest = versions
            .filter_map(|version| Some(version.ok()?.path()))
            .max();
        let newest = newest.expect("PostgreSQL is installed by scripts/install-test-tools");
        let as_itself = |program: &str| {
            let program = newest.join("bin").join(program);
            if !rustix::process::geteuid().is_root() {
                return Command::new(program);
            }
            let mut command = Command::new(require("setpriv"));
            command.args([
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                "--",
            ]);
            command.arg(program);
            command
        };
        Self::start(|port, folder| {
            if rustix::process::geteuid().is_root() {
                let ran = run(Command::new("chown").arg("postgres").arg(folder));
                assert!(ran.status.success(), "{ran:?}");
            }
            let data = folder.join("data");
            let mut initialise = as_itself("initdb");
            initialise.args(["--auth=trust", "--no-sync", "--username=postgres", "-D"]);
            run(initialise.arg(&data)).ok();
            let mut postgres = as_itself("postgres");
            postgres
                .args(["-F", "-c", "listen_addresses=127.0.0.1", "-c"])
                .arg(format!("unix_socket_directories={}", folder.display()))
                .args(["-p", &port.number().to_string(), "-D"])
                .arg(&data);
            postgres
        })
    }

    /// `http` is what stands in its section of that name.
    pub fn nginx(http: impl FnOnce(&Port, &Path) -> String) -> Self {
        Self::start(|port, folder| {
            let config = folder.join("nginx.conf");
            let at = folder.display();
            let text = format!(
                "daemon off;\nmaster_process off;\npid {at}/pid;\nevents {{ }}\nhttp {{\n\
                 access_log off;\nclient_body_temp_path {at}/body;\nproxy_temp_path {at}/proxy;\n\
                 fastcgi_temp_path {at}/fastcgi;\nuwsgi_temp_path {at}/uwsgi;\n\
                 scgi_temp_path {at}/scgi;\n{}\n}}\n",
                http(port, folder)
            );
            fs::write(&config, text).unwrap();
            let mut nginx = Command::new(require("nginx"));
            nginx.arg("-p").arg(folder).arg("-c").arg(&config);
            nginx.args(["-e", "stderr"]);
            nginx
        })
    }

    pub fn haproxy(lines: impl FnOnce(&Port) -> String) -> Self {
        Self::start(|port, folder| {
            let config = folder.join("haproxy.cfg");
            let text = format!(
                "defaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect \
                 1s\nfrontend f\n {}\n",
                lines(port)
            );
            fs::write(&config, text).unwrap();
            let mut haproxy = Command::new(require("haproxy"));
            haproxy.arg("-f").arg(&config);
            haproxy
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn tcp(&self) -> String {
        format!("tcp://{}", self.port.address())
    }

    pub fn http(&self) -> String {
        format!("http://{}", self.port.address())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
