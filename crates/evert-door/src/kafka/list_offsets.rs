//! ListOffsets: from times, and from the names of places, to offsets.

use evert_log::{Log, ReadError};
use evert_model::{Offset, PartitionId, TimestampMs, TopicId};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::broker::{Broker, LEADER_EPOCH};
use super::epoch::check_epoch;
use super::error::DoorError;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The record with the largest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// The first offset that is not in tiered storage; there is none here (KIP-405).
const EARLIEST_LOCAL: i64 = -4;

/// No such record, or no timestamp asked for.
const NONE: i64 = -1;

/// The version from which a response carries the leader's epoch.
const EPOCH_VERSION_MIN: i16 = 4;

impl Broker {
    pub(crate) async fn list_offsets(
        &self,
        version: i16,
        request: ListOffsetsRequest,
    ) -> ListOffsetsResponse {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let id = self.topic(&topic.name).map(|topic| topic.id);
            let id = id.map_err(|error| error.code());
            let asked = topic.partitions;
            let found = self
                .blocking(move |log| {
                    asked.iter().map(|part| answer(log, version, id, part)).collect::<Vec<_>>()
                })
                .await;
            topics.push(
                ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(found),
            );
        }
        ListOffsetsResponse::default().with_topics(topics)
    }
}

fn answer(
    log: &Log,
    version: i16,
    id: Result<TopicId, i16>,
    asked: &ListOffsetsPartition,
) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_offset(NONE)
        .with_timestamp(NONE);
    let found = check_epoch(asked.current_leader_epoch)
        .and(id)
        .and_then(|id| find(log, id, asked).map_err(|error| error.code()));
    match found {
        Ok((offset, timestamp)) => {
            let answer = answer.with_offset(offset).with_timestamp(timestamp);
            if version >= EPOCH_VERSION_MIN {
                answer.with_leader_epoch(LEADER_EPOCH)
            } else {
                answer
            }
        }
        Err(code) => answer.with_error_code(code),
    }
}

fn find(log: &Log, id: TopicId, asked: &ListOffsetsPartition) -> Result<(i64, i64), DoorError> {
    let partition = PartitionId::new(asked.partition_index);
    let ends = log.partition_ends(id, partition)?;
    let found = match asked.timestamp {
        LATEST => return Ok((ends.high_watermark.get(), NONE)),
        EARLIEST | EARLIEST_LOCAL => return Ok((ends.log_start.get(), NONE)),
        MAX_TIMESTAMP => latest_timestamp(|at| log.offset_for_timestamp(id, partition, at))?,
        timestamp if timestamp >= 0 => {
            log.offset_for_timestamp(id, partition, TimestampMs::new(timestamp))?
        }
        other => {
            return Err(DoorError::refused(
                ResponseError::UnsupportedVersion,
                format!("{other} names no offset"),
            ));
        }
    };
    Ok(found.map_or((NONE, NONE), |(offset, timestamp)| (offset.get(), timestamp.get())))
}

/// The first record with the largest timestamp, by bisection over what `at_or_after` finds.
fn latest_timestamp(
    at_or_after: impl Fn(TimestampMs) -> Result<Option<(Offset, TimestampMs)>, ReadError>,
) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
    let mut best = None;
    // Nothing is found at or after `high`; whatever is found lies at or after `low`.
    let (mut low, mut high) = (0i64, i64::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        match at_or_after(TimestampMs::new(middle))? {
            Some(found) => {
                best = Some(found);
                low = found.1.get().max(middle).saturating_add(1);
            }
            None => high = middle,
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_timestamp_is_found_wherever_it_stands() {
        for times in [&[][..], &[0], &[5, 9, 9, 3], &[i64::MAX - 1, 0], &[1, 2, 3, 2, 1]] {
            let lookup = |at: TimestampMs| {
                let found = times.iter().position(|time| *time >= at.get());
                Ok(found.map(|i| (Offset::new(i as i64), TimestampMs::new(times[i]))))
            };
            let max = times.iter().max();
            let expected = max.map(|max| {
                let first = times.iter().position(|time| time == max).expect("it is there");
                (Offset::new(first as i64), TimestampMs::new(*max))
            });
            assert_eq!(latest_timestamp(lookup).expect("reads"), expected, "{times:?}");
        }
    }
}
