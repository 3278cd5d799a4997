//! DescribeConfigs: settings of topics and of the broker, defaults listed.

use evert_log::ConfigEntry;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::broker::{Broker, NODE_ID, text};
use super::error::DoorError;

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;

const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// Where a topic's setting comes from, in Kafka's numbers.
pub(crate) fn source_of(entry: &ConfigEntry) -> i8 {
    if entry.is_default { SOURCE_DEFAULT } else { SOURCE_TOPIC }
}

/// A setting as a response shows it.
struct Setting {
    name: &'static str,
    value: String,
    source: i8,
    read_only: bool,
    doc: &'static str,
}

impl Broker {
    pub(crate) fn describe_configs(
        &self,
        request: &DescribeConfigsRequest,
    ) -> DescribeConfigsResponse {
        let results = request.resources.iter().map(|resource| {
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            match self.settings(resource) {
                Ok(settings) => result.with_configs(shown(settings, resource, request)),
                Err(error) => result
                    .with_error_code(error.code())
                    .with_error_message(Some(text(error.to_string()))),
            }
        });
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    fn settings(&self, resource: &DescribeConfigsResource) -> Result<Vec<Setting>, DoorError> {
        let invalid = |why| Err(DoorError::refused(ResponseError::InvalidRequest, why));
        match resource.resource_type {
            RESOURCE_TOPIC => {
                let topic = self.topic(&resource.resource_name)?;
                Ok(self.log.topic_config(&topic).into_iter().map(of_topic).collect())
            }
            RESOURCE_BROKER => {
                let name = resource.resource_name.as_str();
                if name.is_empty() || name.parse() == Ok(NODE_ID.0) {
                    Ok(self.broker_settings())
                } else {
                    invalid(format!("there is no broker {name}"))
                }
            }
            other => invalid(format!("resources of type {other} have no configuration")),
        }
    }

    /// The broker's settings under Kafka's names.
    fn broker_settings(&self) -> Vec<Setting> {
        let config = &self.config;
        let of_start = |name, value: String, doc| Setting {
            name,
            value,
            source: SOURCE_STATIC_BROKER,
            read_only: true,
            doc,
        };
        let fixed = |name, value: &str, doc| Setting {
            name,
            value: value.to_owned(),
            source: SOURCE_DEFAULT,
            read_only: true,
            doc,
        };
        vec![
            of_start(
                "auto.create.topics.enable",
                config.auto_create_topics.to_string(),
                "Whether a topic is created when a client first asks for it.",
            ),
            fixed("broker.id", &NODE_ID.0.to_string(), "The number of this broker."),
            fixed("default.replication.factor", "1", "One server keeps one copy."),
            fixed("delete.topic.enable", "true", "Whether topics can be deleted."),
            of_start(
                "group.initial.rebalance.delay.ms",
                config.group_initial_delay.as_millis().to_string(),
                "How long a new group waits for more members before it begins.",
            ),
            of_start(
                "group.max.session.timeout.ms",
                config.session_timeout_max.as_millis().to_string(),
                "The longest session timeout that a member may ask for.",
            ),
            of_start(
                "group.min.session.timeout.ms",
                config.session_timeout_min.as_millis().to_string(),
                "The shortest session timeout that a member may ask for.",
            ),
            fixed("log.cleanup.policy", "delete", "The default of cleanup.policy."),
            fixed("log.retention.bytes", "-1", "The default of retention.bytes: no limit."),
            fixed("log.retention.ms", "-1", "The default of retention.ms: for ever."),
            fixed("min.insync.replicas", "1", "An acknowledged record is durable on one disk."),
            of_start(
                "num.partitions",
                config.default_partitions.to_string(),
                "The partitions of a topic that is created without a number of them.",
            ),
            of_start(
                "offset.metadata.max.bytes",
                config.offset_metadata_bytes_max.to_string(),
                "The most bytes of metadata that may be committed with an offset.",
            ),
            of_start(
                "offsets.topic.num.partitions",
                super::groups::OFFSETS_PARTITIONS.to_string(),
                "The partitions of __consumer_offsets.",
            ),
            fixed("offsets.topic.replication.factor", "1", "One server keeps one copy."),
            of_start(
                "socket.request.max.bytes",
                config.frame_bytes_max.to_string(),
                "The most bytes of one request.",
            ),
        ]
    }
}

fn of_topic(entry: ConfigEntry) -> Setting {
    Setting {
        source: source_of(&entry),
        name: entry.name,
        value: entry.value,
        read_only: entry.read_only,
        doc: entry.doc,
    }
}

fn shown(
    settings: Vec<Setting>,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Vec<DescribeConfigsResourceResult> {
    let wanted = |setting: &Setting| match &resource.configuration_keys {
        None => true,
        // Some clients send an empty list for "all".
        Some(keys) => keys.is_empty() || keys.iter().any(|key| key.as_str() == setting.name),
    };
    let shown = settings.into_iter().filter(wanted).map(|setting| {
        let value: StrBytes = text(setting.value);
        let result = DescribeConfigsResourceResult::default()
            .with_name(text(setting.name))
            .with_value(Some(value.clone()))
            .with_read_only(setting.read_only)
            .with_config_source(setting.source)
            .with_config_type(type_of(&value))
            .with_documentation(request.include_documentation.then(|| text(setting.doc)));
        if !request.include_synonyms {
            return result;
        }
        let synonym = DescribeConfigsSynonym::default()
            .with_name(text(setting.name))
            .with_value(Some(value))
            .with_source(setting.source);
        result.with_synonyms(vec![synonym])
    });
    shown.collect()
}

/// Kafka's number of a value's type: boolean, long or string.
fn type_of(value: &str) -> i8 {
    match value {
        "true" | "false" => 1,
        number if number.parse::<i64>().is_ok() => 5,
        _ => 2,
    }
}
