//! The data directory as the process sees it: made when absent, private, and locked while the process lives.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::StartError;

/// A data directory that no other process uses; the lock is released when this is dropped, or with the process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory when it is absent (mode 0700) and takes its lock.
    ///
    /// # Errors
    /// [`StartError::DataInUse`], or what the file system says.
    pub fn open(path: &Path) -> Result<Self, StartError> {
        let failed = |error| StartError::data(path, error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let file = path.join("heronry.lock");
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(file)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StartError::DataInUse { data: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a file that only its owner may read, whole or not at all, and durably.
pub(crate) fn write_secret(path: &Path, contents: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    // A leftover of an earlier attempt may have another mode.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_is_used_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let held = DataDirectory::open(&path).unwrap();
        let error = DataDirectory::open(&path).unwrap_err();
        assert!(matches!(error, StartError::DataInUse { .. }), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(held);
        DataDirectory::open(&path).unwrap();
    }

    #[test]
    fn a_file_in_its_place_is_an_error_that_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let error = DataDirectory::open(&path).unwrap_err();
        assert!(matches!(error, StartError::DataUnusable { .. }), "{error}");
    }

    #[test]
    fn secrets_are_private_even_when_a_leftover_was_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(path.with_extension("new"), "leftover").unwrap();
        write_secret(&path, b"s").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"s");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
