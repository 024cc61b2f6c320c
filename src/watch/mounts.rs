//! The kernel's table of mounts: where something is mounted over a folder, or no longer, inotify
//! tells nothing.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

const TABLE: &str = "/proc/self/mountinfo";

/// What a line of the table says (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// It is a file or folder of another file system that was deleted there.
    pub is_deleted: bool,
}

impl Mount {
    /// All of this moment.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn all() -> io::Result<Vec<Self>> {
        let table = fs::read(TABLE)?;
        Ok(lines(&table).filter_map(Self::parse).collect())
    }

    fn parse(line: &[u8]) -> Option<Self> {
        const ROOT: usize = 3;
        let mut fields = line.split(|byte| *byte == b' ').skip(ROOT);
        let root = fields.next()?;
        Some(Self {
            point: unescape(fields.next()?),
            is_deleted: root.ends_with(b"//deleted"),
        })
    }
}

/// The table, and what it held when it was last looked at.
pub(super) struct Mounts {
    /// Has urgent data (`POLLPRI`) when the table was changed since it was last polled.
    pub(super) file: OwnedFd,
    lines: HashSet<Vec<u8>>,
}

impl Mounts {
    pub(super) fn open() -> io::Result<Self> {
        // Opened first, so that no change comes in between.
        let file = fs::File::open(TABLE)?.into();
        let mut mounts = Self {
            file,
            lines: HashSet::new(),
        };
        mounts.look(&fs::read(TABLE)?);
        Ok(mounts)
    }

    /// Where something was mounted, unmounted or mounted otherwise since the last time.
    pub(super) fn changed(&mut self) -> io::Result<HashSet<PathBuf>> {
        Ok(self.look(&fs::read(TABLE)?))
    }

    fn look(&mut self, table: &[u8]) -> HashSet<PathBuf> {
        let now: HashSet<_> = lines(table).map(<[u8]>::to_vec).collect();
        let changed = self.lines.symmetric_difference(&now);
        let points = changed.filter_map(|line| Some(Mount::parse(line)?.point));
        let points = points.collect();
        self.lines = now;
        points
    }
}

fn lines(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    table.split(|byte| *byte == b'\n')
}

/// Undoes the octal escapes of a path in the table.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                tail @ ..,
            ] => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"36 35 98:0 /host/a//deleted /etc/my\\040cert.pem rw - ext4 /dev/x rw\n\
                           37 35 98:0 /host/b /etc/b.pem rw - ext4 /dev/x rw\n";

    #[test]
    fn a_deleted_mount_is_found_in_the_table() {
        let found: Vec<_> = lines(TABLE).filter_map(Mount::parse).collect();
        let expected = [("/etc/my cert.pem", true), ("/etc/b.pem", false)];
        let expected = expected.map(|(point, is_deleted)| Mount {
            point: point.into(),
            is_deleted,
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_mounted_unmounted_or_mounted_otherwise_has_changed() {
        let mut mounts = Mounts::open().unwrap();
        mounts.look(TABLE);
        assert_eq!(mounts.look(TABLE), HashSet::new());
        let other = b"38 35 98:0 /host/c /etc/b.pem rw - ext4 /dev/x rw\n\
                      39 35 0:40 / /mnt rw - tmpfs none rw\n";
        let changed = ["/etc/my cert.pem", "/etc/b.pem", "/mnt"].map(PathBuf::from);
        assert_eq!(mounts.look(other), HashSet::from(changed));
    }
}
