//! The checkpoint: what order and segments durably hold, and where the journal goes on.
//!
//! One small file, replaced as a whole: magic, CRC-32C of the rest, then varints.

use std::io;
use std::path::{Path, PathBuf};

use evert_env::{Files, OpenMode};
use evert_model::{LogTime, Offset, Position, ProducerId, TopicId};
use uuid::Uuid;

use crate::entry::{Slot, crc, put_varint, varint};
use crate::journal::Place;
use crate::order::{OrderFileSize, create_over};
use crate::producer::{Producer, Producers, Taken};
use crate::segment::{SegmentInfo, SegmentName};
use crate::{LogId, OpenError};

const MAGIC: [u8; 4] = *b"EVC1";

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) id: LogId,
    /// Everything up to here is in order and segments.
    pub(crate) position: Position,
    pub(crate) log_time: LogTime,
    /// Where the journal's later groups begin.
    pub(crate) journal: Place,
    pub(crate) order: Vec<OrderFileSize>,
    /// At which position each topic, by number, was created: records do not hold positions.
    pub(crate) created: Vec<(u32, Position)>,
    pub(crate) partitions: Vec<PartitionInfo>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PartitionInfo {
    pub(crate) slot: Slot,
    pub(crate) topic: TopicId,
    pub(crate) log_start: Offset,
    pub(crate) next: Offset,
    pub(crate) segments: Vec<SegmentInfo>,
    pub(crate) producers: Producers,
}

impl Checkpoint {
    /// The checkpoint in `dir`, if there is one.
    pub(crate) fn load(files: &dyn Files, dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = path(dir);
        if !files.exists(&path).map_err(OpenError::io(&path))? {
            return Ok(None);
        }
        let file = files.open(&path, OpenMode::Read).map_err(OpenError::io(&path))?;
        let mut bytes = vec![0; file.len().map_err(OpenError::io(&path))? as usize];
        file.read_exact_at(&mut bytes, 0).map_err(OpenError::io(&path))?;
        match Self::decode(&bytes) {
            Some(checkpoint) => Ok(Some(checkpoint)),
            None => Err(OpenError::damaged(&path, 0, "the checkpoint fails its CRC")),
        }
    }

    /// Replaces the checkpoint in `dir`, durably.
    pub(crate) fn store(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        let new = dir.join("checkpoint.new");
        let file = create_over(files, &new)?;
        file.write_all_at(&self.encode(), 0)?;
        file.sync_data()?;
        files.rename(&new, &path(dir))?;
        files.sync_dir(dir)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 8];
        let id = self.id.0.as_u128();
        put(&mut out, (id >> 64) as u64);
        put(&mut out, id as u64);
        put(&mut out, self.position.get());
        put(&mut out, self.log_time.get() as u64);
        put(&mut out, self.journal.generation);
        put(&mut out, self.journal.byte);
        put(&mut out, self.order.len() as u64);
        for file in &self.order {
            put(&mut out, file.first.get());
            put(&mut out, file.bytes);
        }
        put(&mut out, self.created.len() as u64);
        for (number, position) in &self.created {
            put(&mut out, u64::from(*number));
            put(&mut out, position.get());
        }
        put(&mut out, self.partitions.len() as u64);
        self.partitions.iter().for_each(|partition| partition.encode(&mut out));
        let checksum = crc(&out[8..]);
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_at_checked(8)?;
        let stored = u32::from_le_bytes(std::array::from_fn(|i| head[4 + i]));
        if head[0..4] != MAGIC || stored != crc(rest) {
            return None;
        }
        let bytes = &mut rest;
        let checkpoint = Self {
            id: LogId(uuid(bytes)?),
            position: Position::new(varint(bytes)?),
            log_time: LogTime::new(varint(bytes)? as i64),
            journal: Place { generation: varint(bytes)?, byte: varint(bytes)? },
            order: list(bytes, |bytes| {
                Some(OrderFileSize { first: Position::new(varint(bytes)?), bytes: varint(bytes)? })
            })?,
            created: list(bytes, |bytes| {
                Some((u32::try_from(varint(bytes)?).ok()?, Position::new(varint(bytes)?)))
            })?,
            partitions: list(bytes, PartitionInfo::decode)?,
        };
        bytes.is_empty().then_some(checkpoint)
    }
}

impl PartitionInfo {
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, u64::from(self.slot.topic));
        put(out, self.slot.partition as u64);
        let id = self.topic.uuid().as_u128();
        put(out, (id >> 64) as u64);
        put(out, id as u64);
        put(out, self.log_start.get() as u64);
        put(out, self.next.get() as u64);
        put(out, self.segments.len() as u64);
        for segment in &self.segments {
            match segment.name {
                SegmentName::Base(base) => [0, base.get() as u64],
                SegmentName::Copy(number) => [1, number],
            }
            .into_iter()
            .chain([segment.base.get() as u64, segment.end.get() as u64, segment.bytes])
            .chain([segment.first_position.get(), segment.max_timestamp as u64])
            .for_each(|number| put(out, number));
        }
        put(out, self.producers.0.len() as u64);
        // In the order of their ids, so that equal states give equal files.
        let mut producers: Vec<_> = self.producers.0.iter().collect();
        producers.sort_by_key(|(id, _)| **id);
        for (id, producer) in producers {
            put(out, id.get() as u64);
            put(out, producer.epoch as u16 as u64);
            put(out, producer.batches.len() as u64);
            for taken in &producer.batches {
                put(out, taken.first_sequence as u32 as u64);
                put(out, taken.last_sequence as u32 as u64);
                put(out, taken.base_offset.get() as u64);
                put(out, taken.position.get());
                put(out, taken.log_time.get() as u64);
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let topic = u32::try_from(varint(bytes)?).ok()?;
        let partition = i32::try_from(varint(bytes)?).ok()?;
        Some(Self {
            slot: Slot { topic, partition },
            topic: TopicId::new(uuid(bytes)?),
            log_start: offset(bytes)?,
            next: offset(bytes)?,
            segments: list(bytes, segment)?,
            producers: Producers(list(bytes, producer)?.into_iter().collect()),
        })
    }
}

fn segment(bytes: &mut &[u8]) -> Option<SegmentInfo> {
    let name = match (varint(bytes)?, varint(bytes)?) {
        (0, base) => SegmentName::Base(Offset::new(base as i64)),
        (1, number) => SegmentName::Copy(number),
        _ => return None,
    };
    Some(SegmentInfo {
        name,
        base: offset(bytes)?,
        end: offset(bytes)?,
        bytes: varint(bytes)?,
        first_position: Position::new(varint(bytes)?),
        max_timestamp: varint(bytes)? as i64,
    })
}

fn producer(bytes: &mut &[u8]) -> Option<(ProducerId, Producer)> {
    let id = ProducerId::new(varint(bytes)? as i64);
    let epoch = varint(bytes)? as u16 as i16;
    let batches = list(bytes, |bytes| {
        Some(Taken {
            first_sequence: varint(bytes)? as u32 as i32,
            last_sequence: varint(bytes)? as u32 as i32,
            base_offset: offset(bytes)?,
            position: Position::new(varint(bytes)?),
            log_time: LogTime::new(varint(bytes)? as i64),
        })
    })?;
    Some((id, Producer { epoch, batches: batches.into() }))
}

fn list<T>(bytes: &mut &[u8], item: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = usize::try_from(varint(bytes)?).ok()?;
    // Every item takes a byte at least, which bounds what is reserved.
    if count > bytes.len() {
        return None;
    }
    (0..count).map(|_| item(bytes)).collect()
}

fn offset(bytes: &mut &[u8]) -> Option<Offset> {
    i64::try_from(varint(bytes)?).ok().map(Offset::new)
}

fn uuid(bytes: &mut &[u8]) -> Option<Uuid> {
    let high = varint(bytes)?;
    Some(Uuid::from_u64_pair(high, varint(bytes)?))
}

fn put(out: &mut Vec<u8>, number: u64) {
    put_varint(out, number);
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        let taken = Taken {
            first_sequence: 5,
            last_sequence: i32::MAX,
            base_offset: Offset::new(77),
            position: Position::new(9),
            log_time: LogTime::new(-3),
        };
        let segment = |name, base| SegmentInfo {
            name,
            base: Offset::new(base),
            end: Offset::new(base + 10),
            bytes: 1000,
            first_position: Position::new(3),
            max_timestamp: i64::MIN,
        };
        let producer = Producer { epoch: -1, batches: [taken].into() };
        Checkpoint {
            id: LogId(Uuid::from_u128(u128::MAX - 5)),
            position: Position::new(1 << 40),
            log_time: LogTime::new(1_700_000_000_000_000),
            journal: Place { generation: 3, byte: 800 },
            order: vec![OrderFileSize { first: Position::new(1), bytes: 99 }],
            created: vec![(4, Position::new(2))],
            partitions: vec![PartitionInfo {
                slot: Slot { topic: 4, partition: 2 },
                topic: TopicId::new(Uuid::from_u128(12)),
                log_start: Offset::new(1),
                next: Offset::new(20),
                segments: vec![
                    segment(SegmentName::Base(Offset::new(0)), 0),
                    segment(SegmentName::Copy(u64::MAX), 10),
                ],
                producers: Producers([(ProducerId::new(8), producer)].into_iter().collect()),
            }],
        }
    }

    #[test]
    fn it_reads_back_and_every_flipped_bit_shows() {
        let mut bytes = sample().encode();
        assert_eq!(Checkpoint::decode(&bytes), Some(sample()));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::decode(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..length]), None);
        }
    }
}
