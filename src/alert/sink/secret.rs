//! Reads a secret at the moment it is used, so that a new one needs no reload.

use std::io;
use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::error::SecretError;
use crate::config::Secret;

/// More than this is no token.
const MOST: u64 = 16 * 1024;

/// Reads it, without the newline that editors put at the end.
pub async fn read(secret: &Secret) -> Result<String, SecretError> {
    let text = match secret {
        Secret::File(path) => bounded(path).await.map_err(|source| SecretError::File {
            path: path.clone(),
            source,
        })?,
        Secret::Environment(name) => {
            std::env::var(&**name).map_err(|_| SecretError::Environment(name.clone()))?
        }
    };
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretError::Empty(secret.clone())),
        text => Ok(text.to_owned()),
    }
}

async fn bounded(path: &PathBuf) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)
        .await?
        .take(MOST)
        .read_to_string(&mut text)
        .await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_read_without_its_newline_and_an_error_does_not_tell_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        assert_eq!(read(&Secret::File(path.clone())).await.unwrap(), "hunter2");
        std::fs::write(&path, "\n").unwrap();
        let empty = read(&Secret::File(path.clone())).await.unwrap_err();
        assert!(empty.to_string().contains("token is empty"), "{empty}");
        std::fs::write(&path, [0xff, b'h', b'u', b'n', b't']).unwrap();
        assert!(
            !read(&Secret::File(path))
                .await
                .unwrap_err()
                .to_string()
                .contains("hunt")
        );
        let unset = Secret::Environment("STAUNCH_NO_SUCH_VARIABLE".into());
        assert!(read(&unset).await.is_err());
    }
}
