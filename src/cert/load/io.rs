//! Files that cannot be read, in words.

use std::io::{Error, ErrorKind};
use std::path::Path;

use rustix::io::Errno;

use super::{MAX_BYTES, rejection};
use crate::cert::faults::shell;
use crate::cert::{Reason, Rejection};

/// What to say of a file that could not be read. Two kinds of error are the reader's own:
/// [`FileTooLarge`](ErrorKind::FileTooLarge) beyond [`MAX_BYTES`], and
/// [`InvalidInput`](ErrorKind::InvalidInput) for what is neither file nor folder (a device, a pipe,
/// a socket), which may never end.
pub fn rejection_for_io(path: &Path, error: &Error) -> Rejection {
    let file = shell(path);
    let (detail, help) = if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        (
            "its symbolic links lead in a circle".to_owned(),
            format!("see where they lead with: namei -l {file}"),
        )
    } else {
        match error.kind() {
            ErrorKind::NotFound => return missing(path),
            ErrorKind::PermissionDenied => permission(path),
            ErrorKind::IsADirectory => (
                "a file was expected, and it is a folder".to_owned(),
                format!(
                    "name the file in it, or search the folder with: folder = \"{}\"",
                    path.display()
                ),
            ),
            ErrorKind::NotADirectory => (
                "a part of the path is a file, not a folder".to_owned(),
                format!("see which with: namei -l {file}"),
            ),
            ErrorKind::FileTooLarge => (
                format!(
                    "it is larger than {} KiB, the most that is read",
                    MAX_BYTES / 1024
                ),
                format!("a chain with its key has a few KiB; see what it is: file {file}"),
            ),
            ErrorKind::InvalidInput => (
                "a file was expected, and it is a device, a pipe or a socket".to_owned(),
                format!("see what it is with: ls -l {file}"),
            ),
            _ => (
                format!("reading it failed: {error}"),
                format!("try it by hand: cat {file} > /dev/null"),
            ),
        }
    };
    rejection(Reason::Unreadable, path, detail, help)
}

/// The same of a folder that could not be searched.
pub fn rejection_for_folder(path: &Path, error: &Error) -> Rejection {
    match error.kind() {
        ErrorKind::NotFound => Rejection {
            detail: "there is no such folder".to_owned(),
            ..missing(path)
        },
        ErrorKind::PermissionDenied => {
            let (detail, help) = forbidden(path, "search it", "folder", "g+rx");
            rejection(Reason::Unreadable, path, detail, help)
        }
        _ => rejection_for_io(path, error),
    }
}

fn permission(path: &Path) -> (String, String) {
    forbidden(path, "read it", "file", "g+r")
}

fn forbidden(path: &Path, what: &str, kind: &str, mode: &str) -> (String, String) {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let shown = shell(path);
    (
        format!("user {user} (group {group}) may not {what}"),
        format!(
            "see which part of the path forbids it: namei -l {shown}; if it is the {kind}, give \
             the right with: chgrp {group} {shown} && chmod {mode} {shown}"
        ),
    )
}

fn missing(path: &Path) -> Rejection {
    let detail = match std::fs::read_link(path) {
        Ok(target) => format!(
            "it is a symbolic link to {}, which does not exist",
            target.display()
        ),
        Err(_) => match path.ancestors().skip(1).find(|folder| folder.exists()) {
            Some(folder) if Some(folder) != path.parent() => {
                format!(
                    "there is no such file, and beyond {} no folder",
                    folder.display()
                )
            }
            _ => "there is no such file".to_owned(),
        },
    };
    let help = format!(
        "check the path in the configuration, and what is there: namei -l {}",
        shell(path)
    );
    rejection(Reason::Missing, path, detail, help)
}
