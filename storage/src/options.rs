//! How a store behaves. The defaults suit a laptop as well as a node with a few million sessions.

/// Options of a [`RocksStore`](crate::RocksStore).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Memory for blocks read from disk, bytes. Default 32 MiB.
    pub block_cache_bytes: usize,
    /// Memory for rows and log records not yet in sorted files, over all column families, bytes. Default 64 MiB.
    pub write_buffer_bytes: usize,
    /// When the write-ahead logs together are larger than this, what they hold is written to sorted files, bytes. It bounds the
    /// time a start after a crash takes. Default 128 MiB.
    pub wal_bytes_max: u64,
    /// Files RocksDB keeps open. It must stay well below the process's limit, which sockets need. Default 256.
    pub open_files_max: u32,
    /// RocksDB's background threads for flushes and compactions. Default 2.
    pub background_jobs: u32,
    /// What may wait for the log writer, bytes, before [`Health::pressed`](crate::Health) says that new work must wait.
    /// Default 16 MiB.
    pub queue_bytes_max: usize,
    /// With less room than this on the disk, bytes, [`Health::full`](crate::Health) says so, so that what is under way still fits; but never more
    /// than a sixteenth of the disk. Default 64 MiB.
    pub disk_reserve_bytes: u64,
    /// The most that one write to the write-ahead log carries, bytes; more pending work is a further write. Default 4 MiB.
    pub commit_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_cache_bytes: 32 << 20,
            write_buffer_bytes: 64 << 20,
            wal_bytes_max: 128 << 20,
            open_files_max: 256,
            background_jobs: 2,
            queue_bytes_max: 16 << 20,
            disk_reserve_bytes: 64 << 20,
            commit_bytes_max: 4 << 20,
        }
    }
}
