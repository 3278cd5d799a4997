//! Shapes: what the bytes of each served request may look like.
//!
//! Owns: the table of served APIs and versions, and the check that a request's arrays are no
//! longer than its bytes allow. The decoder reserves memory for an array's claimed length
//! before it reads the elements, so nothing may reach it unchecked.
//! Not here: values. A request that passes may still make no sense.
//!
//! Source: the message definitions of Apache Kafka 4.0 (`clients/src/main/resources`).
//!
//! Invariants
//! - Fields stand in the order of the wire.
//! - No served request has an array inside a tagged field.

use kafka_protocol::messages::ApiKey;
use thiserror::Error;

/// How many array elements one request may hold in all.
const ELEMENTS_MAX: usize = 1 << 17;

/// The same where a short name is answered with kilobytes.
const DESCRIBED_MAX: usize = 10_000;

/// One API that is served.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    /// The lowest version advertised. Versions of Produce below 3 are refused all the same.
    pub(crate) min: i16,
    pub(crate) max: i16,
    /// From this version on lengths are varints and structs end in tagged fields.
    flexible: i16,
    fields: &'static [Field],
}

/// A field that exists in some versions.
#[derive(Debug)]
struct Field {
    since: i16,
    until: i16,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string, perhaps null.
    Text,
    /// Bytes with a length of four bytes, perhaps null.
    Blob,
    /// An array of elements of so many bytes.
    Numbers(usize),
    /// An array of strings.
    Texts,
    /// An array of structs.
    Structs(&'static [Field]),
}

use Kind::{Blob, Fixed, Numbers, Structs, Text, Texts};

const LAST: i16 = i16::MAX;

const fn all(kind: Kind) -> Field {
    Field { since: 0, until: LAST, kind }
}

const fn since(since: i16, kind: Kind) -> Field {
    Field { since, until: LAST, kind }
}

const fn until(until: i16, kind: Kind) -> Field {
    Field { since: 0, until, kind }
}

const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, kind }
}

const fn api(key: ApiKey, min: i16, max: i16, flexible: i16, fields: &'static [Field]) -> Api {
    Api { key, min, max, flexible, fields }
}

/// Every API that is served, by key.
pub(crate) static SERVED: &[Api] = &[
    api(
        ApiKey::Produce,
        // librdkafka drops compression silently unless version 0 is offered.
        0,
        12,
        9,
        &[
            all(Text),
            all(Fixed(2)),
            all(Fixed(4)),
            all(Structs(&[all(Text), all(Structs(&[all(Fixed(4)), all(Blob)]))])),
        ],
    ),
    api(
        ApiKey::Fetch,
        4,
        12,
        12,
        &[
            all(Fixed(4)),
            all(Fixed(4)),
            all(Fixed(4)),
            all(Fixed(4)),
            all(Fixed(1)),
            since(7, Fixed(8)),
            all(Structs(&[
                all(Text),
                all(Structs(&[
                    all(Fixed(4)),
                    since(9, Fixed(4)),
                    all(Fixed(8)),
                    since(12, Fixed(4)),
                    since(5, Fixed(8)),
                    all(Fixed(4)),
                ])),
            ])),
            since(7, Structs(&[all(Text), all(Numbers(4))])),
            since(11, Text),
        ],
    ),
    api(
        ApiKey::ListOffsets,
        1,
        8,
        6,
        &[
            all(Fixed(4)),
            since(2, Fixed(1)),
            all(Structs(&[
                all(Text),
                all(Structs(&[all(Fixed(4)), since(4, Fixed(4)), all(Fixed(8))])),
            ])),
        ],
    ),
    api(
        ApiKey::Metadata,
        0,
        12,
        9,
        &[
            all(Structs(&[since(10, Fixed(16)), all(Text)])),
            since(4, Fixed(1)),
            between(8, 10, Fixed(1)),
            since(8, Fixed(1)),
        ],
    ),
    api(
        ApiKey::OffsetCommit,
        2,
        9,
        8,
        &[
            all(Text),
            all(Fixed(4)),
            all(Text),
            since(7, Text),
            until(4, Fixed(8)),
            all(Structs(&[
                all(Text),
                all(Structs(&[all(Fixed(4)), all(Fixed(8)), since(6, Fixed(4)), all(Text)])),
            ])),
        ],
    ),
    api(
        ApiKey::OffsetFetch,
        1,
        9,
        6,
        &[
            until(7, Text),
            until(7, Structs(&[all(Text), all(Numbers(4))])),
            since(
                8,
                Structs(&[
                    all(Text),
                    since(9, Text),
                    since(9, Fixed(4)),
                    all(Structs(&[all(Text), all(Numbers(4))])),
                ]),
            ),
            since(7, Fixed(1)),
        ],
    ),
    api(ApiKey::FindCoordinator, 0, 6, 3, &[until(3, Text), since(1, Fixed(1)), since(4, Texts)]),
    api(
        ApiKey::JoinGroup,
        0,
        9,
        6,
        &[
            all(Text),
            all(Fixed(4)),
            since(1, Fixed(4)),
            all(Text),
            since(5, Text),
            all(Text),
            all(Structs(&[all(Text), all(Blob)])),
            since(8, Text),
        ],
    ),
    api(ApiKey::Heartbeat, 0, 4, 4, &[all(Text), all(Fixed(4)), all(Text), since(3, Text)]),
    api(
        ApiKey::LeaveGroup,
        0,
        5,
        4,
        &[all(Text), until(2, Text), since(3, Structs(&[all(Text), all(Text), since(5, Text)]))],
    ),
    api(
        ApiKey::SyncGroup,
        0,
        5,
        4,
        &[
            all(Text),
            all(Fixed(4)),
            all(Text),
            since(3, Text),
            since(5, Text),
            since(5, Text),
            all(Structs(&[all(Text), all(Blob)])),
        ],
    ),
    api(ApiKey::DescribeGroups, 0, 6, 5, &[all(Texts), since(3, Fixed(1))]),
    api(ApiKey::ListGroups, 0, 5, 3, &[since(4, Texts), since(5, Texts)]),
    api(ApiKey::ApiVersions, 0, 4, 3, &[since(3, Text), since(3, Text)]),
    api(
        ApiKey::CreateTopics,
        2,
        7,
        5,
        &[
            all(Structs(&[
                all(Text),
                all(Fixed(4)),
                all(Fixed(2)),
                all(Structs(&[all(Fixed(4)), all(Numbers(4))])),
                all(Structs(&[all(Text), all(Text)])),
            ])),
            all(Fixed(4)),
            all(Fixed(1)),
        ],
    ),
    api(
        ApiKey::DeleteTopics,
        1,
        6,
        4,
        &[since(6, Structs(&[all(Text), all(Fixed(16))])), until(5, Texts), all(Fixed(4))],
    ),
    api(
        ApiKey::InitProducerId,
        0,
        5,
        2,
        &[all(Text), all(Fixed(4)), since(3, Fixed(8)), since(3, Fixed(2))],
    ),
    api(
        ApiKey::OffsetForLeaderEpoch,
        2,
        4,
        4,
        &[
            since(3, Fixed(4)),
            all(Structs(&[
                all(Text),
                all(Structs(&[all(Fixed(4)), all(Fixed(4)), all(Fixed(4))])),
            ])),
        ],
    ),
    api(
        ApiKey::DescribeConfigs,
        1,
        4,
        4,
        &[all(Structs(&[all(Fixed(1)), all(Text), all(Texts)])), all(Fixed(1)), since(3, Fixed(1))],
    ),
    api(ApiKey::DeleteGroups, 0, 2, 2, &[all(Texts)]),
    api(ApiKey::DescribeCluster, 0, 2, 0, &[all(Fixed(1)), since(1, Fixed(1)), since(2, Fixed(1))]),
];

/// Why a request's bytes are not what its API and version say.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum ShapeError {
    #[error("a field runs past the end of the request")]
    Short,
    #[error("a negative length")]
    NegativeLength,
    #[error("an array of {claimed} elements, where at most {possible} are possible")]
    LongArray { claimed: u32, possible: usize },
}

/// The served API of a key.
pub(crate) fn served(key: i16) -> Option<&'static Api> {
    SERVED.iter().find(|api| api.key as i16 == key)
}

impl Api {
    /// Checks the body of a request: every length in it lies within it. Gives the number of
    /// bytes that follow the request.
    pub(crate) fn check(&self, version: i16, body: &[u8]) -> Result<usize, ShapeError> {
        let elements = match self.key {
            ApiKey::DescribeConfigs | ApiKey::DescribeGroups => DESCRIBED_MAX,
            _ => ELEMENTS_MAX,
        };
        let flexible = version >= self.flexible;
        let mut walk = Walk { rest: body, version, flexible, elements };
        walk.fields(self.fields)?;
        Ok(walk.rest.len())
    }
}

/// A walk over a request's bytes.
struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    /// How many more array elements are allowed.
    elements: usize,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &[Field]) -> Result<(), ShapeError> {
        for field in fields {
            if (field.since..=field.until).contains(&self.version) {
                self.kind(&field.kind)?;
            }
        }
        if self.flexible { self.tagged() } else { Ok(()) }
    }

    fn kind(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Fixed(bytes) => self.skip(*bytes),
            Text => self.text(),
            Blob => {
                let len = if self.flexible { self.compact()? } else { self.long_length()? };
                self.skip(len as usize)
            }
            Numbers(bytes) => {
                let count = self.count()?;
                self.skip(count * bytes)
            }
            Texts => {
                for _ in 0..self.count()? {
                    self.text()?;
                }
                Ok(())
            }
            Structs(fields) => {
                for _ in 0..self.count()? {
                    self.fields(fields)?;
                }
                Ok(())
            }
        }
    }

    fn text(&mut self) -> Result<(), ShapeError> {
        let len = if self.flexible { self.compact()? } else { self.short_length()? };
        self.skip(len as usize)
    }

    /// The length of an array. Every element takes at least one byte.
    fn count(&mut self) -> Result<usize, ShapeError> {
        let claimed = if self.flexible { self.compact()? } else { self.long_length()? };
        let possible = self.rest.len().min(self.elements);
        let count = claimed as usize;
        if count > possible {
            return Err(ShapeError::LongArray { claimed, possible });
        }
        self.elements -= count;
        Ok(count)
    }

    fn tagged(&mut self) -> Result<(), ShapeError> {
        for _ in 0..self.varint()? {
            // Each tag becomes an entry of a map, so it counts as an element.
            self.elements = self
                .elements
                .checked_sub(1)
                .ok_or(ShapeError::LongArray { claimed: 1, possible: 0 })?;
            self.varint()?;
            let len = self.varint()?;
            self.skip(len as usize)?;
        }
        Ok(())
    }

    /// A varint length, which is one more than what it counts; null counts nothing.
    fn compact(&mut self) -> Result<u32, ShapeError> {
        Ok(self.varint()?.saturating_sub(1))
    }

    fn short_length(&mut self) -> Result<u32, ShapeError> {
        let bytes = self.rest.first_chunk::<2>().ok_or(ShapeError::Short)?;
        let len = i16::from_be_bytes(*bytes);
        self.skip(2)?;
        length(i32::from(len))
    }

    fn long_length(&mut self) -> Result<u32, ShapeError> {
        let bytes = self.rest.first_chunk::<4>().ok_or(ShapeError::Short)?;
        let len = i32::from_be_bytes(*bytes);
        self.skip(4)?;
        length(len)
    }

    /// Reads at most five bytes, as the decoder does.
    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(ShapeError::Short)?;
            self.rest = rest;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), ShapeError> {
        self.rest = self.rest.get(bytes..).ok_or(ShapeError::Short)?;
        Ok(())
    }
}

/// -1 is null, which has no bytes.
fn length(len: i32) -> Result<u32, ShapeError> {
    if len == -1 { Ok(0) } else { u32::try_from(len).map_err(|_| ShapeError::NegativeLength) }
}
