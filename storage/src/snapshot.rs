//! The form in which the rows of a shard travel between stores.
//!
//! A snapshot is a sequence of chunks: one header, any number of chunks with rows in the order of their keys, one end. A chunk
//! is a CRC-32 of all that follows (4 bytes, big endian), one byte that says which of the three it is, and a protobuf message
//! (`heronry/v1/raft.proto`). Keys are those of rows, without a generation.

use bytes::{BufMut, Bytes, BytesMut};
use heronry_proto::raft::{SnapshotEnd, SnapshotHeader, SnapshotRow, SnapshotRows};
use prost::Message;

use crate::{ShardId, StoreError};

/// The chunks of a snapshot, in order. Taking the next one may block.
pub type Chunks = Box<dyn Iterator<Item = Result<Bytes, StoreError>> + Send>;

/// Version of this form.
const VERSION: u32 = 1;

/// Rows are put into a chunk until it is this large, bytes.
const CHUNK_BYTES: usize = 256 << 10;

const HEADER: u8 = 1;
const ROWS: u8 = 2;
const END: u8 = 3;

/// Puts rows into chunks.
pub(crate) struct Writer {
    rows: SnapshotRows,
    bytes: usize,
    count: u64,
}

impl Writer {
    /// The writer, and the first chunk; `before`: rows that are there already.
    pub(crate) fn start(shard: ShardId, applied: Bytes, before: u64) -> (Self, Bytes) {
        let header = SnapshotHeader {
            version: VERSION,
            shard: shard.0.into(),
            applied,
        };
        (
            Self {
                rows: SnapshotRows::default(),
                bytes: 0,
                count: before,
            },
            seal(HEADER, &header),
        )
    }

    /// Takes a row; returns a chunk when one has become full.
    pub(crate) fn row(&mut self, key: Bytes, value: Bytes) -> Option<Bytes> {
        self.bytes += key.len() + value.len();
        self.count += 1;
        self.rows.rows.push(SnapshotRow { key, value });
        (self.bytes >= CHUNK_BYTES).then(|| self.flush())
    }

    /// The last chunks.
    pub(crate) fn end(mut self) -> impl Iterator<Item = Bytes> {
        let rest = (!self.rows.rows.is_empty()).then(|| self.flush());
        rest.into_iter().chain([seal(END, &SnapshotEnd { rows: self.count })])
    }

    fn flush(&mut self) -> Bytes {
        self.bytes = 0;
        let chunk = seal(ROWS, &self.rows);
        self.rows.rows.clear();
        chunk
    }
}

/// Takes rows out of chunks and checks that all are there.
pub struct SnapshotReader {
    chunks: Chunks,
    count: u64,
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotReader({} rows so far)", self.count)
    }
}

impl SnapshotReader {
    /// The reader, and the position of the snapshot's rows.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when that is no snapshot, or one of a later form; what `chunks` gives.
    pub fn start(mut chunks: Chunks) -> Result<(Self, Bytes), StoreError> {
        match read(chunks.next().ok_or_else(|| corrupt("it has no header"))??)? {
            Chunk::Header { applied } => Ok((Self { chunks, count: 0 }, applied)),
            Chunk::Rows(_) | Chunk::End { .. } => Err(corrupt("it does not start with a header")),
        }
    }

    /// The rows of the next chunk; `None`: that was all, and nothing is missing.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the snapshot is not as it was made; what `chunks` gives.
    pub fn rows(&mut self) -> Result<Option<Vec<SnapshotRow>>, StoreError> {
        match read(self.chunks.next().ok_or_else(|| corrupt("it has no end"))??)? {
            Chunk::Rows(rows) => {
                self.count += rows.len() as u64;
                Ok(Some(rows))
            }
            Chunk::End { rows } if rows == self.count => Ok(None),
            Chunk::End { .. } => Err(corrupt("rows are missing")),
            Chunk::Header { .. } => Err(corrupt("it has two headers")),
        }
    }
}

/// One chunk, read.
pub(crate) enum Chunk {
    Header { applied: Bytes },
    Rows(Vec<SnapshotRow>),
    End { rows: u64 },
}

/// Reads a chunk that [`Writer`] made.
pub(crate) fn read(chunk: Bytes) -> Result<Chunk, StoreError> {
    let (kind, body) = open(chunk)?;
    match kind {
        HEADER => {
            let header = SnapshotHeader::decode(body).map_err(|_| corrupt("its header cannot be read"))?;
            if header.version != VERSION {
                return Err(corrupt(&format!("its form {} is not known", header.version)));
            }
            Ok(Chunk::Header {
                applied: header.applied,
            })
        }
        ROWS => {
            let rows = SnapshotRows::decode(body).map_err(|_| corrupt("its rows cannot be read"))?;
            Ok(Chunk::Rows(rows.rows))
        }
        END => {
            let end = SnapshotEnd::decode(body).map_err(|_| corrupt("its end cannot be read"))?;
            Ok(Chunk::End { rows: end.rows })
        }
        _ => Err(corrupt("it contains something unknown")),
    }
}

fn seal(kind: u8, message: &impl Message) -> Bytes {
    let mut chunk = BytesMut::with_capacity(message.encoded_len() + 5);
    chunk.put_u32(0);
    chunk.put_u8(kind);
    // A BytesMut grows, so this cannot run out of room.
    let encoded = message.encode_to_vec();
    chunk.put_slice(&encoded);
    let sum = crc32fast::hash(&chunk[4..]);
    chunk[..4].copy_from_slice(&sum.to_be_bytes());
    chunk.freeze()
}

fn open(mut chunk: Bytes) -> Result<(u8, Bytes), StoreError> {
    if chunk.len() < 5 {
        return Err(corrupt("a chunk is too short"));
    }
    let sum = chunk.split_to(4);
    if sum != crc32fast::hash(&chunk).to_be_bytes()[..] {
        return Err(corrupt("the checksum of a chunk is wrong"));
    }
    Ok((chunk.split_to(1)[0], chunk))
}

pub(crate) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a snapshot cannot be installed: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A chunk with a right checksum, whatever it contains.
    fn sealed(kind: u8, body: &[u8]) -> Bytes {
        let mut chunk = BytesMut::new();
        chunk.put_u32(0);
        chunk.put_u8(kind);
        chunk.put_slice(body);
        let sum = crc32fast::hash(&chunk[4..]);
        chunk[..4].copy_from_slice(&sum.to_be_bytes());
        chunk.freeze()
    }

    fn read_all(chunks: Vec<Bytes>) -> Result<Vec<SnapshotRow>, StoreError> {
        let (mut reader, _) = SnapshotReader::start(Box::new(chunks.into_iter().map(Ok)))?;
        let mut rows = Vec::new();
        while let Some(more) = reader.rows()? {
            rows.extend(more);
        }
        Ok(rows)
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_written(rows: Vec<(Vec<u8>, Vec<u8>)>, applied: Vec<u8>) {
            let (mut writer, header) = Writer::start(ShardId(1), applied.clone().into(), 0);
            let mut chunks = vec![header];
            chunks.extend(rows.iter().filter_map(|(key, value)| writer.row(key.clone().into(), value.clone().into())));
            chunks.extend(writer.end());
            prop_assert_eq!(SnapshotReader::start(Box::new(chunks.clone().into_iter().map(Ok))).unwrap().1, applied);
            let read = read_all(chunks).unwrap().into_iter().map(|row| (row.key.to_vec(), row.value.to_vec()));
            prop_assert_eq!(read.collect::<Vec<_>>(), rows);
        }

        #[test]
        fn chunks_of_anything_are_refused_and_cause_no_panic(chunks: Vec<(u8, Vec<u8>)>, header: bool) {
            let mut sealed: Vec<_> = chunks.iter().map(|(kind, body)| sealed(kind % 5, body)).collect();
            if header {
                sealed.insert(0, Writer::start(ShardId(1), Bytes::new(), 0).1);
            }
            let _ = read_all(sealed);
            let raw = chunks.into_iter().map(|(_, body)| body.into()).collect();
            prop_assert!(read_all(raw).is_err());
        }
    }

    #[test]
    fn a_form_that_is_not_known_is_refused() {
        let header = SnapshotHeader {
            version: 2,
            shard: 1,
            applied: Bytes::new(),
        };
        let text = "a snapshot cannot be installed: its form 2 is not known".to_owned();
        assert_eq!(read_all(vec![seal(HEADER, &header)]), Err(StoreError::Corrupt(text)));
    }
}
