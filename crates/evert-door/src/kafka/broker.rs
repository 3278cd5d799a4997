//! The broker: what every connection shares, and the way from a request to its handler.
//!
//! Owns: which handler serves which request.
//! Not here: the handlers themselves, a file each; bytes (`wire`) and sockets (`connection`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use evert_log::{Log, Topic};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{BrokerId, RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::watch;

use super::error::DoorError;
use super::groups::{Coordinator, Offsets, RestoreError};
use super::{KafkaConfig, TopicUse, wire};

/// The one broker's id.
pub(crate) const NODE_ID: BrokerId = BrokerId(1);

/// The leader epoch of every partition: there is one broker, and it leads for ever.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// What every connection shares.
pub(crate) struct Broker {
    pub(crate) log: Log,
    pub(crate) topic_use: Arc<dyn TopicUse>,
    pub(crate) config: KafkaConfig,
    pub(crate) cluster_id: StrBytes,
    pub(crate) groups: Coordinator,
    pub(crate) offsets: Offsets,
}

/// The other end of a connection, and the address it knows this server by.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) client_id: StrBytes,
    /// The host and port at which the client is told to find this broker.
    pub(crate) advertised: (StrBytes, i32),
    /// True once the client has hung up or the server stops: long polls end then.
    pub(crate) leaving: watch::Receiver<bool>,
}

impl Broker {
    /// Reads back what groups have committed, and begins to keep their time.
    pub(crate) async fn open(
        log: Log,
        topic_use: Arc<dyn TopicUse>,
        config: KafkaConfig,
    ) -> Result<Self, RestoreError> {
        // Kafka's cluster ids are UUIDs in URL-safe base64 without padding.
        let cluster_id = text(base64_url(log.id().0.as_bytes()));
        let groups = Coordinator::start(config.group_initial_delay);
        let restored = log.clone();
        let offsets = blocking(move || Offsets::restore(restored)).await?;
        Ok(Self { log, topic_use, config, cluster_id, groups, offsets })
    }

    /// Serves any request but Produce, which the connection begins by itself so that several
    /// may be on their way to the disk at once.
    pub(crate) async fn handle(
        &self,
        version: i16,
        request: RequestKind,
        peer: &Peer,
    ) -> Result<ResponseKind, DoorError> {
        Ok(match request {
            RequestKind::ApiVersions(_) => ResponseKind::ApiVersions(wire::api_versions()),
            RequestKind::Metadata(request) => {
                ResponseKind::Metadata(self.metadata(version, request, peer).await)
            }
            RequestKind::DescribeCluster(request) => {
                ResponseKind::DescribeCluster(self.describe_cluster(&request, peer))
            }
            RequestKind::Fetch(request) => {
                ResponseKind::Fetch(self.fetch(version, request, peer).await)
            }
            RequestKind::ListOffsets(request) => {
                ResponseKind::ListOffsets(self.list_offsets(version, request).await)
            }
            RequestKind::OffsetForLeaderEpoch(request) => {
                ResponseKind::OffsetForLeaderEpoch(self.offset_for_leader_epoch(request))
            }
            RequestKind::CreateTopics(request) => {
                ResponseKind::CreateTopics(self.create_topics(version, request).await)
            }
            RequestKind::DeleteTopics(request) => {
                ResponseKind::DeleteTopics(self.delete_topics(version, request).await)
            }
            RequestKind::DescribeConfigs(request) => {
                ResponseKind::DescribeConfigs(self.describe_configs(&request))
            }
            RequestKind::InitProducerId(request) => {
                ResponseKind::InitProducerId(self.init_producer_id(request).await)
            }
            RequestKind::FindCoordinator(request) => {
                ResponseKind::FindCoordinator(self.find_coordinator(version, request, peer))
            }
            RequestKind::JoinGroup(request) => {
                ResponseKind::JoinGroup(self.join_group(version, request, peer).await)
            }
            RequestKind::SyncGroup(request) => {
                ResponseKind::SyncGroup(self.sync_group(request, peer).await)
            }
            RequestKind::Heartbeat(request) => {
                ResponseKind::Heartbeat(self.heartbeat(request).await)
            }
            RequestKind::LeaveGroup(request) => {
                ResponseKind::LeaveGroup(self.leave_group(version, request).await)
            }
            RequestKind::OffsetCommit(request) => {
                ResponseKind::OffsetCommit(self.offset_commit(request).await)
            }
            RequestKind::OffsetFetch(request) => {
                ResponseKind::OffsetFetch(self.offset_fetch(version, request))
            }
            RequestKind::DescribeGroups(request) => {
                ResponseKind::DescribeGroups(self.describe_groups(version, request))
            }
            RequestKind::ListGroups(request) => {
                ResponseKind::ListGroups(self.list_groups(&request))
            }
            RequestKind::DeleteGroups(request) => {
                ResponseKind::DeleteGroups(self.delete_groups(request).await)
            }
            _ => {
                return Err(DoorError::refused(
                    ResponseError::UnsupportedVersion,
                    "this API is not served",
                ));
            }
        })
    }

    /// Runs what may wait for the disk where waiting hurts nobody.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Log) -> T + Send + 'static,
    ) -> T {
        let log = self.log.clone();
        blocking(move || work(&log)).await
    }

    /// A topic that clients may name.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>, DoorError> {
        self.log.topic(name).ok_or_else(|| DoorError::unknown_topic(name))
    }
}

/// Runs what may block on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled, which happens only when the runtime is going down.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Whether a topic belongs to the server: clients may read it but neither write nor delete it.
pub(crate) fn is_internal(topic: &str) -> bool {
    topic == "__consumer_offsets" || topic == "__transaction_state" || topic.starts_with("__evert_")
}

/// Reads a client's milliseconds; a negative number is none at all.
pub(crate) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Waits until a flag is raised, or nobody is left to raise it.
pub(crate) async fn raised(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|raised| *raised).await;
}

/// A message for a client.
pub(crate) fn text(message: impl Into<String>) -> StrBytes {
    StrBytes::from_string(message.into())
}

fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            out.push(char::from(DIGITS[(word >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_url_safe_and_unpadded() {
        assert_eq!(base64_url(b"Man"), "TWFu");
        assert_eq!(base64_url(b"Ma"), "TWE");
        assert_eq!(base64_url(&[0xfb, 0xff]), "-_8");
        assert_eq!(base64_url(&[0; 16]).len(), 22);
    }
}
