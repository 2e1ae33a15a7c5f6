//! How far the store is known to have been synced.
//!
//! RocksDB cannot tell a write that a crash cut off from one that was synced and has been damaged since: it drops both, and
//! all that follows, without a word. So the number of the last synced write is kept in a file of its own, overwritten in place
//! after every fsync and not synced itself. It may be behind after a power cut, but never ahead; so a store that opens with less
//! than it says has lost something that was acknowledged.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// The file `synced`: the number of the last synced write and its complement, 8 bytes each, big endian.
pub(super) struct SyncMark(File);

impl SyncMark {
    /// Opens or makes the file; also what it says, where it says something.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("synced"))?;
        let mut bytes = [0; 16];
        let read = file.read_exact_at(&mut bytes, 0);
        Ok((Self(file), read.ok().and_then(|()| decode(bytes))))
    }

    pub(super) fn store(&self, sequence: u64) -> io::Result<()> {
        self.0.write_all_at(&encode(sequence), 0)
    }
}

fn encode(sequence: u64) -> [u8; 16] {
    (u128::from(sequence) << 64 | u128::from(!sequence)).to_be_bytes()
}

fn decode(bytes: [u8; 16]) -> Option<u64> {
    let both = u128::from_be_bytes(bytes);
    let (sequence, complement) = ((both >> 64) as u64, both as u64);
    (sequence == !complement).then_some(sequence)
}
