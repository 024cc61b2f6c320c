//! Real programs, which must be there: a test that needs one fails without it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Where a program is, or a failure that says how to get it.
#[track_caller]
pub fn require(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| {
        panic!("{program} is not installed: run scripts/install-test-tools, which says how")
    })
}

/// What a program did.
#[derive(Clone, Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What it wrote, if it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{self:#?}");
        self.stdout
    }

    /// Both streams, for those who do not care.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end, with nothing on its standard input.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Ran {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// curl, silent but for errors, never through a proxy, ended if it takes too long.
#[track_caller]
pub fn curl<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ran {
    let quiet = [
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "60",
    ];
    run(Command::new(require("curl")).args(quiet).args(arguments))
}

/// `promtool check metrics`
#[track_caller]
pub fn promtool(metrics: &Path) -> Ran {
    let script = r#""$0" check metrics < "$1""#;
    run(Command::new("sh")
        .args(["-c", script])
        .args([&require("promtool"), metrics]))
}

/// Python with what Debian packages for it.
#[track_caller]
pub fn python() -> Command {
    let debian = Path::new("/usr/bin/python3");
    let program = if debian.is_file() {
        debian.to_owned()
    } else {
        require("python3")
    };
    Command::new(program)
}
