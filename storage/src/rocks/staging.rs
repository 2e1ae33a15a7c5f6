//! A snapshot that comes becomes sorted files beside the store, and then a generation of it: neither write-ahead log nor memtables see its
//! rows, so the shards that are served do not notice.
//!
//! `incoming/SHARD/` holds what has come: `state` (`heronry.raft.v1.Staged`), written anew after each file, and the files it counts; other files
//! there are nobody's. The files' keys have a generation of their own that no other filling will get.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use heronry_proto::raft::{SnapshotRow, Staged as State};
use prost::Message;
use rocksdb::{IngestExternalFileOptions, SstFileWriter, WriteBatch};

use super::{META, RAFT, ROWS, Shared, error, lock::io_error, open};
use crate::{ShardId, SnapshotId, Staged, Staging, StoreError, key, key::Kind, staging::Assembly};

/// Rows become a file when they are this many bytes. They wait in memory.
const FILE_BYTES: usize = 8 << 20;

/// A snapshot on its way into a shard.
pub(super) struct RocksStaging {
    shared: Arc<Shared>,
    shard: ShardId,
    directory: PathBuf,
    id: Option<SnapshotId>,
    generation: u32,
    assembly: Assembly,
    /// Files that are complete.
    files: u32,
    /// What is in no file yet.
    rows: Vec<SnapshotRow>,
    bytes: usize,
    /// What is in files, and not less than what the state on the disk says.
    written: Staged,
    installed: bool,
}

impl RocksStaging {
    pub(super) fn begin(shared: Arc<Shared>, shard: ShardId, id: Option<SnapshotId>) -> Result<Self, StoreError> {
        let directory = shared.incoming(shard);
        if !shared.staging().insert(shard) {
            return Err(StoreError::Io(format!("shard {shard} takes another snapshot")));
        }
        let begun = Self::found(&shared, shard, id, &directory);
        let begun = match begun {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Self::anew(&shared, shard, id, directory),
            Err(error) => Err(error),
        };
        if begun.is_err() {
            shared.staging().remove(&shard);
        }
        begun
    }

    /// What has come of that snapshot before.
    fn found(
        shared: &Arc<Shared>,
        shard: ShardId,
        id: Option<SnapshotId>,
        directory: &Path,
    ) -> Result<Option<Self>, StoreError> {
        let Some(wanted) = id else { return Ok(None) };
        let state = match fs::read(directory.join("state")) {
            Ok(state) => state,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&error)),
        };
        // Written and renamed whole: what cannot be read is damage, and then it begins anew.
        let Ok(state) = State::decode(&state[..]) else {
            return Ok(None);
        };
        let whole = (1..=state.files).all(|file| directory.join(name(file)).exists());
        if state.id[..] != wanted.0.to_be_bytes() || !whole {
            return Ok(None);
        }
        let staged = Staged {
            rows: state.rows,
            last: state.last,
        };
        Ok(Some(Self {
            shared: Arc::clone(shared),
            shard,
            directory: directory.to_owned(),
            id,
            generation: state.generation,
            assembly: Assembly::going_on(state.applied, staged.clone(), false),
            files: state.files,
            rows: Vec::new(),
            bytes: 0,
            written: staged,
            installed: false,
        }))
    }

    fn anew(
        shared: &Arc<Shared>,
        shard: ShardId,
        id: Option<SnapshotId>,
        directory: PathBuf,
    ) -> Result<Self, StoreError> {
        remove(&directory).map_err(|error| io_error(&error))?;
        fs::create_dir_all(&directory).map_err(|error| io_error(&error))?;
        let generation = {
            let _generations = shared.generations();
            let mut batch = WriteBatch::default();
            let generation = shared.new_generation(&mut batch)?;
            shared.write_synced(batch)?;
            generation
        };
        Ok(Self {
            shared: Arc::clone(shared),
            shard,
            directory,
            id,
            generation,
            assembly: Assembly::default(),
            files: 0,
            rows: Vec::new(),
            bytes: 0,
            written: Staged::default(),
            installed: false,
        })
    }

    /// Puts what waits into a file, and says so on the disk.
    fn write(&mut self) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let path = self.directory.join(name(self.files + 1));
        let written = write_file(&path, &rows, self.generation);
        if let Err(error) = written {
            let _ = fs::remove_file(&path);
            // What came since the last file is lost: it is asked for again.
            self.assembly.staged = self.written.clone();
            return Err(error);
        }
        self.files += 1;
        self.written = Staged {
            rows: self.written.rows + rows.len() as u64,
            last: rows.last().map(|row| row.key.clone()),
        };
        self.say()
    }

    fn say(&self) -> Result<(), StoreError> {
        let Some(id) = self.id else { return Ok(()) };
        let state = State {
            id: id.0.to_be_bytes().to_vec().into(),
            generation: self.generation,
            applied: self.assembly.applied.clone(),
            files: self.files,
            rows: self.written.rows,
            last: self.written.last.clone(),
        };
        let (new, path) = (self.directory.join("state.new"), self.directory.join("state"));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&state.encode_to_vec())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|error| io_error(&error))
    }

    /// The files become rows of a generation that is nobody's.
    fn ingest(&mut self) -> Result<(), StoreError> {
        self.write()?;
        // Were the process to die from here on, the generation would be removed at the next start.
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.shared.family(META), key::doomed(self.generation), []);
        self.shared.write_synced(batch)?;
        if self.files == 0 {
            return Ok(());
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let files: Vec<_> = (1..=self.files).map(|file| self.directory.join(name(file))).collect();
        let rows = self.shared.family(ROWS);
        let ingested = self
            .shared
            .db
            .rocks
            .ingest_external_file_cf_opts(&rows, &options, files);
        ingested.map_err(error)
    }

    /// The generation becomes the shard's.
    fn switch(&self, applied: &Bytes) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let current = shared.generation(self.shard);
        let old = current.load(Ordering::Acquire);
        let (meta, raft) = (shared.family(META), shared.family(RAFT));
        let mut batch = WriteBatch::default();
        batch.put_cf(
            &raft,
            key::raft(self.shard, Kind::Generation),
            self.generation.to_be_bytes(),
        );
        batch.put_cf(&raft, key::raft(self.shard, Kind::Applied), applied);
        batch.delete_cf(&meta, key::doomed(self.generation));
        if old != 0 {
            batch.put_cf(&meta, key::doomed(old), []);
        }
        shared.write_synced(batch)?;
        current.store(self.generation, Ordering::Release);
        if old != 0 {
            shared.remove_generation(old)?;
        }
        Ok(())
    }
}

impl Staging for RocksStaging {
    fn staged(&self) -> Staged {
        self.assembly.staged.clone()
    }

    fn take(&mut self, chunk: Bytes) -> Result<bool, StoreError> {
        self.shared.alive()?;
        if self.shared.full() {
            return Err(StoreError::Full("there is no room for a snapshot".to_owned()));
        }
        let rows = self.assembly.take(chunk)?;
        self.bytes += rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
        self.rows.extend(rows);
        if self.bytes >= FILE_BYTES {
            self.write()?;
        }
        Ok(self.assembly.ended)
    }

    fn install(mut self: Box<Self>) -> Result<Bytes, StoreError> {
        self.shared.alive()?;
        let applied = self.assembly.whole()?;
        if let Err(error) = self.ingest() {
            // It may be there in part, and what is left of its files is no snapshot.
            self.id = None;
            let _ = self.shared.remove_generation(self.generation);
            return Err(error);
        }
        self.switch(&applied)?;
        self.installed = true;
        Ok(applied)
    }
}

impl Drop for RocksStaging {
    fn drop(&mut self) {
        let keep = self.id.is_some() && !self.installed && self.shared.alive().is_ok() && self.write().is_ok();
        if !keep && let Err(error) = remove(&self.directory) {
            tracing::warn!(%error, "what has come of a snapshot cannot be removed");
        }
        self.shared.staging().remove(&self.shard);
    }
}

/// One sorted file, on the disk when this returns.
fn write_file(path: &Path, rows: &[SnapshotRow], generation: u32) -> Result<(), StoreError> {
    let options = open::row_file_options();
    let mut writer = SstFileWriter::create(&options);
    writer.open(path).map_err(error)?;
    for row in rows {
        let disk = key::row(&row.key, generation)
            .ok_or_else(|| StoreError::Corrupt("a snapshot has a row without a slot".to_owned()))?;
        writer.put(disk, &row.value).map_err(error)?;
    }
    writer.finish().map_err(error)
}

fn name(file: u32) -> String {
    format!("{file:06}.sst")
}

/// Removes what has come of a snapshot.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes what has come of snapshots that do not say what they are.
pub(super) fn remove_what_nobody_goes_on_with(data: &Path) -> io::Result<()> {
    let shards = match fs::read_dir(data.join("incoming")) {
        Ok(shards) => shards,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for shard in shards {
        let shard = shard?.path();
        if !shard.join("state").exists() {
            remove(&shard)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Options, RocksStore, Rows as _, Store as _, Timestamp, Write};

    const SHARD: ShardId = ShardId(3);

    fn put(row: &str, value: &str) -> Batch {
        let key = Bytes::from([&[0, 7], row.as_bytes()].concat());
        Batch {
            at: Timestamp(1),
            writes: vec![Write::Put(key, value.to_owned().into())],
        }
    }

    fn rows(store: &RocksStore) -> Vec<(Bytes, Bytes)> {
        store.rows(SHARD).scan(&[0, 7], &[], 100).unwrap()
    }

    /// A store with an old row, and a snapshot with a new one that is about to be installed.
    fn staged(path: &Path) -> (RocksStore, RocksStaging) {
        let store = RocksStore::open(path, Options::default()).unwrap();
        store.apply(SHARD, &[put("old", "row")], "old".into()).unwrap();
        store.apply(ShardId(4), &[put("new", "row")], "new".into()).unwrap();
        let mut staging = RocksStaging::begin(Arc::clone(&store.shared), SHARD, Some(SnapshotId(1))).unwrap();
        let view = store.view(ShardId(4)).unwrap();
        for chunk in view.chunks(&Staged::default()) {
            staging.take(chunk.unwrap()).unwrap();
        }
        (store, staging)
    }

    /// The process dies: nothing that ends in order does so.
    fn die(store: RocksStore, staging: RocksStaging) {
        staging.shared.fail(StoreError::Closed);
        // Its files stay where they are.
        let directory = staging.directory.clone();
        let aside = directory.with_extension("aside");
        let _ = fs::rename(&directory, &aside);
        drop(staging);
        let _ = fs::rename(&aside, &directory);
        drop(store);
    }

    #[test]
    fn a_process_that_dies_between_any_two_steps_leaves_the_old_rows_or_the_new_ones() {
        for step in 0..3 {
            let directory = tempfile::tempdir().unwrap();
            let (store, mut staging) = staged(directory.path());
            let applied = staging.assembly.whole().unwrap();
            if step > 0 {
                staging.ingest().unwrap();
            }
            if step > 1 {
                staging.switch(&applied).unwrap();
            }
            let generation = staging.generation;
            die(store, staging);
            let store = RocksStore::open(directory.path(), Options::default()).unwrap();
            let expected = if step > 1 { "new" } else { "old" };
            assert_eq!(rows(&store).len(), 1, "{step}");
            assert!(rows(&store)[0].0.ends_with(expected.as_bytes()), "{step}");
            assert_eq!(store.applied(SHARD), Ok(Some(expected.into())), "{step}");
            // The snapshot can come again, under a number that nothing else has.
            let view = store.view(ShardId(4)).unwrap();
            let mut again = RocksStaging::begin(Arc::clone(&store.shared), SHARD, Some(SnapshotId(2))).unwrap();
            assert!(again.generation > generation);
            for chunk in view.chunks(&again.staged()) {
                again.take(chunk.unwrap()).unwrap();
            }
            Box::new(again).install().unwrap();
            assert!(rows(&store)[0].0.ends_with(b"new"), "{step}");
        }
    }
}
