//! Idempotent producers: which sequence numbers a partition has taken from whom.
//!
//! Source: KIP-98, and the broker's ProducerStateManager for its five remembered batches.

use std::collections::VecDeque;

use evert_model::{BatchHeader, LogTime, Offset, Position, ProducerId};
use hashbrown::HashMap;

use crate::AppendError;

/// How many batches a producer may have in flight, and repeat.
const BATCHES_KEPT: usize = 5;

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Producers(pub(crate) HashMap<ProducerId, Producer>);

/// One producer's newest batches in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    pub(crate) batches: VecDeque<Taken>,
}

/// A batch that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: Offset,
    pub(crate) position: Position,
    pub(crate) log_time: LogTime,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Append it.
    New,
    /// It was taken before, as this.
    Repeated(Taken),
}

impl Producers {
    /// Remembers a batch that [`check`] found new.
    pub(crate) fn take(&mut self, header: &BatchHeader, position: Position, log_time: LogTime) {
        if header.producer_id != ProducerId::NONE {
            let known = self.0.remove(&header.producer_id);
            self.0.insert(header.producer_id, taken(known, header, position, log_time));
        }
    }

    /// Forgets producers that wrote nothing since `time`.
    pub(crate) fn forget_before(&mut self, time: LogTime) {
        self.0.retain(|_, producer| producer.batches.back().is_some_and(|b| b.log_time >= time));
    }
}

/// Checks a batch against what is known of its producer.
pub(crate) fn check(
    known: Option<&Producer>,
    header: &BatchHeader,
) -> Result<Verdict, AppendError> {
    let (epoch, got) = (header.producer_epoch.get(), header.base_sequence);
    if header.producer_id == ProducerId::NONE {
        return Ok(Verdict::New);
    }
    let Some(known) = known else {
        // What was never seen must start at the start: else something before it is missing.
        return match got {
            0 => Ok(Verdict::New),
            _ => Err(AppendError::UnknownProducer(header.producer_id)),
        };
    };
    if epoch < known.epoch {
        return Err(AppendError::FencedProducer { current: known.epoch, got: epoch });
    }
    if epoch > known.epoch {
        return match got {
            0 => Ok(Verdict::New),
            _ => Err(AppendError::OutOfOrderSequence { expected: 0, got }),
        };
    }
    let last = last_sequence(header);
    let same = |taken: &&Taken| taken.first_sequence == got && taken.last_sequence == last;
    if let Some(taken) = known.batches.iter().rev().find(same) {
        return Ok(Verdict::Repeated(*taken));
    }
    let expected = known.batches.back().map_or(0, |taken| advance(taken.last_sequence, 1));
    match got == expected {
        true => Ok(Verdict::New),
        false => Err(AppendError::OutOfOrderSequence { expected, got }),
    }
}

/// What is known of a producer once its new batch is taken.
pub(crate) fn taken(
    known: Option<Producer>,
    header: &BatchHeader,
    position: Position,
    log_time: LogTime,
) -> Producer {
    let epoch = header.producer_epoch.get();
    let mut producer = known
        .filter(|known| known.epoch == epoch)
        .unwrap_or(Producer { epoch, batches: VecDeque::new() });
    if producer.batches.len() == BATCHES_KEPT {
        producer.batches.pop_front();
    }
    producer.batches.push_back(Taken {
        first_sequence: header.base_sequence,
        last_sequence: last_sequence(header),
        base_offset: header.base_offset,
        position,
        log_time,
    });
    producer
}

fn last_sequence(header: &BatchHeader) -> i32 {
    advance(header.base_sequence, header.last_offset_delta)
}

/// Sequence numbers wrap from `i32::MAX` to 0.
fn advance(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use evert_model::{BatchBuilder, Compression, ProducerEpoch, TimestampMs};

    fn header(epoch: i16, sequence: i32, count: i32) -> BatchHeader {
        let mut batch = BatchBuilder::new(Compression::None).producer(
            ProducerId::new(9),
            ProducerEpoch::new(epoch),
            sequence,
        );
        (0..count).for_each(|_| batch.push(TimestampMs::new(0), None, Some(b"v"), &[]));
        *batch.build().header()
    }

    impl Producers {
        fn check(&self, header: &BatchHeader) -> Result<Verdict, AppendError> {
            check(self.0.get(&header.producer_id), header)
        }
    }

    fn take(producers: &mut Producers, position: u64, header: &BatchHeader) {
        assert_eq!(producers.check(header), Ok(Verdict::New));
        producers.take(header, Position::new(position), LogTime::new(position as i64));
    }

    #[test]
    fn five_batches_are_remembered_and_gaps_refused() {
        let mut producers = Producers::default();
        assert_eq!(
            producers.check(&header(0, 3, 1)),
            Err(AppendError::UnknownProducer(ProducerId::new(9)))
        );
        for n in 0..6 {
            take(&mut producers, n + 1, &header(0, n as i32 * 2, 2));
        }
        match producers.check(&header(0, 2, 2)).unwrap() {
            Verdict::Repeated(taken) => assert_eq!(taken.position, Position::new(2)),
            Verdict::New => panic!("the batch was taken before"),
        }
        for got in [0, 11, 13] {
            assert_eq!(
                producers.check(&header(0, got, 2)),
                Err(AppendError::OutOfOrderSequence { expected: 12, got })
            );
        }
    }

    #[test]
    fn epochs_fence_and_restart_sequences() {
        let mut producers = Producers::default();
        take(&mut producers, 1, &header(1, 0, 1));
        assert_eq!(
            producers.check(&header(0, 1, 1)),
            Err(AppendError::FencedProducer { current: 1, got: 0 })
        );
        assert_eq!(
            producers.check(&header(2, 1, 1)),
            Err(AppendError::OutOfOrderSequence { expected: 0, got: 1 })
        );
        take(&mut producers, 2, &header(2, 0, 1));
        producers.forget_before(LogTime::new(2));
        assert_eq!(producers.0.len(), 1);
        producers.forget_before(LogTime::new(3));
        assert!(producers.0.is_empty());
    }

    #[test]
    fn sequences_wrap() {
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 1, 3), 1);
        let mut producers = Producers::default();
        take(&mut producers, 1, &header(0, 0, 1));
        producers.0.get_mut(&ProducerId::new(9)).unwrap().batches[0].last_sequence = i32::MAX - 1;
        take(&mut producers, 2, &header(0, i32::MAX, 3));
        take(&mut producers, 3, &header(0, 2, 1));
    }
}
