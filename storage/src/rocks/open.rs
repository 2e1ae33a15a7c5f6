//! Opening a data directory, and refusing those that we must not touch.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
    sync::{Arc, atomic::AtomicU32},
};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, IteratorMode, LogLevel,
    WriteBatch, WriteOptions,
};

use super::{
    Db, LOG, META, RAFT, ROWS, error,
    lock::{DataLock, io_error},
    open_stores::OpenStore,
    sync_mark::SyncMark,
    u32_of,
};
use crate::{NodeId, OpenError, Options, ShardId, StoreError, key};

/// RocksDB begins to delay writes at 20 files in level 0, and we ask callers to wait before that.
pub(super) const LEVEL0_FILES_PRESSED: u64 = 16;
const LEVEL0_FILES_DELAYED: i32 = 20;
const LEVEL0_FILES_STOPPED: i32 = 36;
/// RocksDB stops writes when this many memtables of a column family are full and none is written yet.
const MEMTABLES: i32 = 4;
pub(super) const MEMTABLES_PRESSED: u64 = 3;
/// Write-ahead logs kept to be written again: a sync of a file that does not grow need not wait for its metadata.
const RECYCLED_LOGS: usize = 4;

pub(super) struct Opened {
    pub(super) db: Arc<Db>,
    pub(super) node: NodeId,
    pub(super) generations: BTreeMap<ShardId, Arc<AtomicU32>>,
    pub(super) mark: SyncMark,
}

pub(super) fn open(path: &Path, options: &Options) -> Result<Opened, OpenError> {
    let failed = |error| OpenError::Failed {
        path: path.to_owned(),
        error,
    };
    std::fs::create_dir_all(path).map_err(|error| failed(io_error(&error)))?;
    let lock = DataLock::take(path)?;
    let (mark, synced) = SyncMark::open(path).map_err(|error| failed(io_error(&error)))?;

    let store = path.join("store");
    let families = families(&store).map_err(failed)?;
    refuse_unknown(path, &store, &families)?;
    if families.is_empty() && synced.is_some() {
        return Err(failed(StoreError::Corrupt("its rows are gone".to_owned())));
    }
    let rocks = DB::open_cf_descriptors(&database_options(options), &store, descriptors(options));
    let rocks = rocks.map_err(|failure| failed(open_error(failure)))?;
    let db = Db {
        rocks,
        _lock: lock,
        _open: OpenStore::new(),
    };

    let found = db.format().map_err(failed)?;
    match found {
        Some(found) if found > key::FORMAT => {
            return Err(OpenError::Newer {
                path: path.to_owned(),
                found,
                known: key::FORMAT,
            });
        }
        Some(_) if families.len() <= FAMILIES.len() => {
            return Err(failed(StoreError::Corrupt(
                "one of its column families is gone".to_owned(),
            )));
        }
        Some(_) => {}
        None if db.is_empty().map_err(failed)? => {
            db.found().map_err(failed)?;
            sync_directories(path).map_err(|error| failed(io_error(&error)))?;
        }
        None => {
            return Err(failed(StoreError::Corrupt(
                "it does not say which format it has".to_owned(),
            )));
        }
    }
    let recovered = db.rocks.latest_sequence_number();
    if synced.is_some_and(|synced| recovered < synced) {
        let text = format!(
            "it ends at write {recovered}, but write {} had been synced",
            synced.unwrap_or_default()
        );
        return Err(failed(StoreError::Corrupt(text)));
    }
    let node = db.node().map_err(failed)?;
    let generations = db.generations().map_err(failed)?;
    Ok(Opened {
        db: Arc::new(db),
        node,
        generations,
        mark,
    })
}

/// Makes the names of new files and directories durable.
fn sync_directories(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()?;
    match path.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

const FAMILIES: [&str; 4] = [LOG, RAFT, ROWS, META];

/// The column families of a store; none: there is no store.
fn families(store: &Path) -> Result<BTreeSet<String>, StoreError> {
    if !store.join("CURRENT").exists() {
        return Ok(BTreeSet::new());
    }
    let families = DB::list_cf(&rocksdb::Options::default(), store).map_err(open_error)?;
    Ok(families.into_iter().collect())
}

/// A column family that we do not know: only a newer version of this program has made it, or nobody.
fn refuse_unknown(path: &Path, store: &Path, families: &BTreeSet<String>) -> Result<(), OpenError> {
    let Some(unknown) = families
        .iter()
        .find(|family| *family != "default" && !FAMILIES.contains(&&***family))
    else {
        return Ok(());
    };
    let failed = |error| OpenError::Failed {
        path: path.to_owned(),
        error,
    };
    let rocks = DB::open_cf_for_read_only(&rocksdb::Options::default(), store, [META], false)
        .map_err(|failure| failed(open_error(failure)))?;
    let found = rocks
        .cf_handle(META)
        .and_then(|meta| rocks.get_cf(&meta, key::META_FORMAT).ok().flatten());
    match found.and_then(|found| u32_of(&found).ok()) {
        Some(found) if found > key::FORMAT => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: key::FORMAT,
        }),
        _ => Err(failed(StoreError::Corrupt(format!(
            "it has a column family that is not ours, {unknown}"
        )))),
    }
}

impl Db {
    fn format(&self) -> Result<Option<u32>, StoreError> {
        let format = self.rocks.get_cf(&self.family(META), key::META_FORMAT).map_err(error)?;
        format.map(|format| u32_of(&format)).transpose()
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        for family in FAMILIES {
            if let Some(row) = self.rocks.iterator_cf(&self.family(family), IteratorMode::Start).next() {
                row.map_err(error)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes an empty store ours.
    fn found(&self) -> Result<(), StoreError> {
        let node = loop {
            match getrandom::u64().map_err(|error| StoreError::Io(error.to_string()))? {
                0 => {}
                node => break node,
            }
        };
        let meta = self.family(META);
        let mut batch = WriteBatch::default();
        batch.put_cf(&meta, key::META_FORMAT, key::FORMAT.to_be_bytes());
        batch.put_cf(&meta, key::META_NODE, node.to_be_bytes());
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.rocks.write_opt(batch, &options).map_err(error)
    }

    fn node(&self) -> Result<NodeId, StoreError> {
        let node = self.rocks.get_cf(&self.family(META), key::META_NODE).map_err(error)?;
        let node = node.and_then(|node| Some(u64::from_be_bytes(node.try_into().ok()?)));
        node.map(NodeId)
            .ok_or_else(|| StoreError::Corrupt("it does not say whose it is".to_owned()))
    }

    fn generations(&self) -> Result<BTreeMap<ShardId, Arc<AtomicU32>>, StoreError> {
        let mut generations = BTreeMap::new();
        for row in self.rocks.iterator_cf(&self.family(RAFT), IteratorMode::Start) {
            let (row, value) = row.map_err(error)?;
            if let [high, low, kind] = row[..]
                && kind == key::Kind::Generation as u8
            {
                let shard = ShardId(u16::from_be_bytes([high, low]));
                generations.insert(shard, Arc::new(AtomicU32::new(u32_of(&value)?)));
            }
        }
        Ok(generations)
    }
}

/// A failure to open: what is missing or does not fit together is damage.
fn open_error(failure: rocksdb::Error) -> StoreError {
    match error(failure) {
        StoreError::Io(text) if text.contains("No such file") || text.starts_with("Invalid argument") => {
            StoreError::Corrupt(text)
        }
        error => error,
    }
}

fn database_options(options: &Options) -> rocksdb::Options {
    let mut rocks = rocksdb::Options::default();
    rocks.create_if_missing(true);
    rocks.create_missing_column_families(true);
    rocks.set_paranoid_checks(true);
    // What a crash leaves is a prefix of what was written. That the prefix is long enough is ours to check: `sync_mark`.
    rocks.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    rocks.set_recycle_log_file_num(RECYCLED_LOGS);
    rocks.set_max_total_wal_size(options.wal_bytes_max);
    rocks.set_db_write_buffer_size(options.write_buffer_bytes);
    rocks.set_max_open_files(i32::try_from(options.open_files_max).unwrap_or(i32::MAX));
    rocks.set_max_background_jobs(i32::try_from(options.background_jobs).unwrap_or(i32::MAX));
    // RocksDB's own diary, beside its files.
    rocks.set_log_level(LogLevel::Warn);
    rocks.set_max_log_file_size(4 << 20);
    rocks.set_keep_log_file_num(4);
    rocks.set_stats_dump_period_sec(0);
    rocks.set_stats_persist_period_sec(0);
    rocks
}

/// Of files that are made beside the store and become rows of it.
pub(super) fn row_file_options() -> rocksdb::Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_bloom_filter(10.0, false);
    let mut rocks = rocksdb::Options::default();
    rocks.set_block_based_table_factory(&blocks);
    rocks.set_compression_type(DBCompressionType::Lz4);
    rocks
}

fn descriptors(options: &Options) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    let family = |bloom: bool, compression, write_buffer_bytes| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        if bloom {
            blocks.set_bloom_filter(10.0, false);
        }
        let mut rocks = rocksdb::Options::default();
        rocks.set_block_based_table_factory(&blocks);
        rocks.set_compression_type(compression);
        rocks.set_write_buffer_size(write_buffer_bytes);
        rocks.set_max_write_buffer_number(MEMTABLES);
        rocks.set_level_zero_slowdown_writes_trigger(LEVEL0_FILES_DELAYED);
        rocks.set_level_zero_stop_writes_trigger(LEVEL0_FILES_STOPPED);
        rocks
    };
    let quarter = options.write_buffer_bytes / 4;
    let (none, lz4) = (DBCompressionType::None, DBCompressionType::Lz4);
    vec![
        ColumnFamilyDescriptor::new("default", family(false, none, 64 << 10)),
        // Most of it is purged before it would be written to a sorted file.
        ColumnFamilyDescriptor::new(LOG, family(false, none, quarter)),
        ColumnFamilyDescriptor::new(RAFT, family(false, none, 1 << 20)),
        ColumnFamilyDescriptor::new(ROWS, family(true, lz4, quarter)),
        ColumnFamilyDescriptor::new(META, family(false, none, 1 << 20)),
    ]
}
