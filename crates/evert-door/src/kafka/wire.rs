//! Requests and responses as bytes.
//!
//! Owns: headers, versions, and the two answers that the protocol wants for versions that are
//! not served. It holds bytes, never a socket.
//! Not here: frames (`frame`), what a request does (`broker`).
//!
//! Source: the Kafka protocol guide; KIP-511 (ApiVersions), KIP-482 (flexible versions).
//!
//! Invariants
//! - A request is decoded only after its shape was checked.
//! - The header of an ApiVersions response is never flexible: a client that does not know the
//!   server's versions yet must be able to read it.

#[cfg(test)]
mod tests;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
    api_versions_response::ApiVersion,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use thiserror::Error;

use super::shape::{self, ShapeError};

/// The first version of Produce that carries message format v2.
const PRODUCE_VERSION_MIN: i16 = 3;

/// Bytes that are no request that can be answered. The connection is closed.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    #[error("a request shorter than its header")]
    Short,
    #[error("API {0} is not served")]
    UnknownApi(i16),
    #[error("version {version} of {api:?} is not served")]
    UnknownVersion { api: ApiKey, version: i16 },
    #[error("a malformed {api:?} request, version {version}: {source}")]
    Shape { api: ApiKey, version: i16, source: ShapeError },
    #[error("a malformed {api:?} request, version {version}: {why}")]
    Malformed { api: ApiKey, version: i16, why: String },
    #[error("the response cannot be written: {0}")]
    Encode(String),
}

/// What a response needs to know of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
}

/// A request that can be answered.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: Head,
    pub(crate) client_id: Option<StrBytes>,
    pub(crate) body: RequestKind,
}

/// What a frame turned out to be.
#[derive(Debug)]
pub(crate) enum Decoded {
    Request(Box<Request>),
    /// A request whose version has one fixed answer, which is here as a frame.
    Answered(Bytes),
}

/// Reads one frame.
pub(crate) fn decode(mut frame: Bytes) -> Result<Decoded, WireError> {
    let fixed = frame.first_chunk::<8>().ok_or(WireError::Short)?;
    let key = i16::from_be_bytes([fixed[0], fixed[1]]);
    let version = i16::from_be_bytes([fixed[2], fixed[3]]);
    let correlation = i32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let api = shape::served(key).ok_or(WireError::UnknownApi(key))?;
    let head = Head { api: api.key, version, correlation };
    if !(api.min..=api.max).contains(&version) {
        if api.key == ApiKey::ApiVersions {
            return Ok(Decoded::Answered(unknown_api_versions(correlation)?));
        }
        return Err(WireError::UnknownVersion { api: api.key, version });
    }
    if api.key == ApiKey::Produce && version < PRODUCE_VERSION_MIN {
        return old_produce(head, &frame).map(Decoded::Answered);
    }
    let malformed = |why: String| WireError::Malformed { api: api.key, version, why };
    let header_version = api.key.request_header_version(version);
    let header = RequestHeader::decode(&mut frame, header_version)
        .map_err(|error| malformed(error.to_string()))?;
    api.check(version, &frame).map_err(|source| WireError::Shape {
        api: api.key,
        version,
        source,
    })?;
    let body = RequestKind::decode(api.key, &mut frame, version)
        .map_err(|error| malformed(error.to_string()))?;
    let request = Request { head, client_id: header.client_id, body };
    Ok(Decoded::Request(Box::new(request)))
}

/// Writes one response as a frame.
pub(crate) fn encode(head: Head, response: &ResponseKind) -> Result<Bytes, WireError> {
    let mut out = BytesMut::new();
    out.put_u32(0);
    ResponseHeader::default()
        .with_correlation_id(head.correlation)
        .encode(&mut out, head.api.response_header_version(head.version))
        .and_then(|()| response.encode(&mut out, head.version))
        .map_err(|error| WireError::Encode(error.to_string()))?;
    finish(out)
}

/// What ApiVersions says is served.
pub(crate) fn api_versions() -> ApiVersionsResponse {
    let versions = shape::SERVED.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.min)
            .with_max_version(api.max)
    });
    ApiVersionsResponse::default().with_api_keys(versions.collect())
}

/// KIP-511: an unknown version is answered in version 0, with the versions that there are.
fn unknown_api_versions(correlation: i32) -> Result<Bytes, WireError> {
    let head = Head { api: ApiKey::ApiVersions, version: 0, correlation };
    let response = api_versions().with_error_code(ResponseError::UnsupportedVersion.code());
    encode(head, &ResponseKind::ApiVersions(response))
}

/// Refuses Produce 0 to 2, whose message formats are not kept, partition by partition.
///
/// It is advertised, since old clients decide by it whether to compress, and so it is answered.
fn old_produce(head: Head, frame: &Bytes) -> Result<Bytes, WireError> {
    let mut body = frame.slice(8..);
    let topics = old_topics(&mut body).ok_or_else(|| WireError::Malformed {
        api: head.api,
        version: head.version,
        why: "a field runs past the end of the request".to_owned(),
    })?;
    let mut out = BytesMut::new();
    out.put_u32(0);
    out.put_i32(head.correlation);
    out.put_i32(topics.len() as i32);
    for (topic, partitions) in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(&topic);
        out.put_i32(partitions.len() as i32);
        for partition in partitions {
            out.put_i32(partition);
            out.put_i16(ResponseError::UnsupportedVersion.code());
            out.put_i64(-1);
            if head.version >= 2 {
                out.put_i64(-1);
            }
        }
    }
    if head.version >= 1 {
        out.put_i32(0);
    }
    finish(out)
}

/// The topics and partitions that a Produce of version 0 to 2 writes to, or `None` if it is
/// malformed.
fn old_topics(body: &mut Bytes) -> Option<Vec<(Bytes, Vec<i32>)>> {
    let client_id = body.try_get_i16().ok()?;
    take(body, i64::from(client_id.max(0)))?;
    let _acks = body.try_get_i16().ok()?;
    let _timeout_ms = body.try_get_i32().ok()?;
    // Memory grows with the bytes that are there: no count is trusted.
    let mut topics = Vec::new();
    for _ in 0..body.try_get_i32().ok()? {
        let name = body.try_get_i16().ok()?;
        let name = take(body, i64::from(name))?;
        let mut partitions = Vec::new();
        for _ in 0..body.try_get_i32().ok()? {
            partitions.push(body.try_get_i32().ok()?);
            let records = body.try_get_i32().ok()?;
            take(body, i64::from(records.max(0)))?;
        }
        topics.push((name, partitions));
    }
    Some(topics)
}

fn take(bytes: &mut Bytes, len: i64) -> Option<Bytes> {
    let len = usize::try_from(len).ok()?;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

/// Writes the frame's length over the four bytes that were left for it.
fn finish(mut out: BytesMut) -> Result<Bytes, WireError> {
    let len = i32::try_from(out.len() - 4)
        .map_err(|_| WireError::Encode("it is larger than a frame can be".to_owned()))?;
    out[..4].copy_from_slice(&len.to_be_bytes());
    Ok(out.freeze())
}
