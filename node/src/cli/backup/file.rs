//! One shard's rows in a file: chunks of a snapshot (`proto/heronry/v1/raft.proto`), each with its length before it (4 bytes, big
//! endian).

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use bytes::Bytes;
use heronry_cluster::{Chunks, Position, StoreError};
use heronry_xmpp::{
    rows::{Key, Value},
    shard::{Phase, ShardMap, place_of},
};
use sha2::{Digest as _, Sha256};

use super::manifest::{MANIFEST_UNFINISHED, hex};

/// A chunk is never longer, bytes: a shard makes them of some hundred KiB and one row more.
const CHUNK_BYTES_MAX: usize = 64 << 20;

const ENDING: &str = ".rows";

/// The name of a shard's file.
pub(in crate::cli) fn name(shard: u32) -> String {
    format!("shard-{shard:05}{ENDING}")
}

/// Whether a file can be a part of a backup that was not finished.
pub(super) fn is_ours(name: &str) -> bool {
    name == MANIFEST_UNFINISHED || (name.starts_with("shard-") && name.ends_with(ENDING))
}

/// A file that is being written.
pub(super) struct ShardFile {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

/// What a file is checked by.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Sum {
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) sha256: String,
}

impl ShardFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        // Keys let others guess passwords: the file is its owner's from the beginning.
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            file: BufWriter::new(file),
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    pub(super) fn add(&mut self, chunk: &[u8]) -> io::Result<()> {
        let length = u32::try_from(chunk.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        for part in [&length.to_be_bytes(), chunk] {
            self.file.write_all(part)?;
            self.hash.update(part);
            self.bytes += part.len() as u64;
        }
        Ok(())
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn finish(self) -> io::Result<Sum> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(Sum {
            bytes: self.bytes,
            sha256: hex(&self.hash.finalize()),
        })
    }
}

/// The sum of a file as it is.
pub(in crate::cli) fn sum(path: &Path, mut progress: impl FnMut(u64)) -> io::Result<Sum> {
    let mut file = File::open(path)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Sum {
                bytes,
                sha256: hex(&hash.finalize()),
            });
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
        progress(read as u64);
    }
}

/// What a file holds.
#[derive(Debug, Default)]
pub(in crate::cli) struct Looked {
    pub(in crate::cli) position: Position,
    pub(in crate::cli) rows: u64,
    pub(in crate::cli) accounts: u64,
}

/// Reads all rows of a file; each that is restored goes to `each` with its phase.
///
/// # Errors
/// A sentence: it is not as it was written, or of a later version; or what `each` says.
pub(in crate::cli) fn look(
    path: &Path,
    mut each: impl FnMut(Phase, (Key, Value)) -> Result<(), String>,
) -> Result<Looked, String> {
    let (mut reader, position) = Position::of(chunks(path)?).map_err(|error| error.to_string())?;
    let mut looked = Looked {
        position,
        ..Looked::default()
    };
    // Only the phase is asked for.
    let map = ShardMap::even(1);
    while let Some(rows) = reader.rows().map_err(|error| error.to_string())? {
        for row in rows {
            looked.rows += 1;
            let place = place_of(&row.key, &row.value, &map).map_err(|error| error.to_string())?;
            let Some((phase, _)) = place else { continue };
            looked.accounts += u64::from(phase == Phase::Accounts);
            each(phase, (row.key, row.value))?;
        }
    }
    Ok(looked)
}

fn chunks(path: &Path) -> Result<Chunks, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut file = BufReader::new(file);
    Ok(Box::new(std::iter::from_fn(move || {
        chunk(&mut file)
            .map_err(|error| StoreError::Io(error.to_string()))
            .transpose()
    })))
}

fn chunk(file: &mut impl io::Read) -> io::Result<Option<Bytes>> {
    let mut length = [0; 4];
    if file.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    file.read_exact(&mut length[1..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > CHUNK_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk is too long"));
    }
    let mut chunk = vec![0; length];
    file.read_exact(&mut chunk)?;
    Ok(Some(chunk.into()))
}
