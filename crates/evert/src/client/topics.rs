//! `evert topic`: topics, by Kafka's protocol.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::broker::{Broker, check};
use super::shown::Rows;
use crate::output::print;

/// The flags of `evert topic`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
    /// Where the server's Kafka door is
    #[arg(long, global = true, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Print JSON, an object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum TopicCommand {
    /// All topics
    List,
    /// One topic: its partitions and its own settings
    Show {
        /// The topic
        name: String,
    },
    /// Make a topic
    Create {
        /// The topic
        name: String,
        /// How many partitions it has
        #[arg(long, default_value_t = 1)]
        partitions: i32,
        /// A setting, such as retention.ms=3600000
        #[arg(long = "config", value_name = "NAME=VALUE")]
        configs: Vec<String>,
    },
    /// Delete a topic and its records
    Delete {
        /// The topic
        name: String,
    },
}

/// Runs `evert topic`.
///
/// # Errors
/// When the server cannot be reached, or refuses.
pub(crate) async fn run(args: TopicArgs) -> Result<()> {
    let mut broker = Broker::connect(&args.kafka).await?;
    match args.command {
        TopicCommand::List => list(&mut broker, args.json).await,
        TopicCommand::Show { name } => show(&mut broker, &name, args.json).await,
        TopicCommand::Create { name, partitions, configs } => {
            create(&mut broker, &name, partitions, &configs).await
        }
        TopicCommand::Delete { name } => delete(&mut broker, &name).await,
    }
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A topic's partitions.
pub(super) async fn partitions_of(broker: &mut Broker, name: &str) -> Result<Vec<i32>> {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(false);
    let answer: MetadataResponse = broker.ask(ApiKey::Metadata, 9, &request).await?;
    let topic = answer.topics.first().context("the server knows nothing of the topic")?;
    check(&format!("topic \"{name}\""), topic.error_code, None)?;
    let mut partitions: Vec<i32> =
        topic.partitions.iter().map(|partition| partition.partition_index).collect();
    partitions.sort_unstable();
    Ok(partitions)
}

/// The offset that each partition has at a time: -2 is the first, -1 the one after the last.
pub(super) async fn offsets_at(
    broker: &mut Broker,
    name: &str,
    partitions: &[i32],
    timestamp: i64,
) -> Result<BTreeMap<i32, i64>> {
    let wanted = partitions.iter().map(|&partition| {
        ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp)
    });
    let topic =
        ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(wanted.collect());
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer: ListOffsetsResponse = broker.ask(ApiKey::ListOffsets, 6, &request).await?;
    let mut offsets = BTreeMap::new();
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let what = format!("topic \"{name}\", partition {}", partition.partition_index);
        check(&what, partition.error_code, None)?;
        offsets.insert(partition.partition_index, partition.offset);
    }
    Ok(offsets)
}

async fn list(broker: &mut Broker, json: bool) -> Result<()> {
    let request = MetadataRequest::default().with_topics(None);
    let answer: MetadataResponse = broker.ask(ApiKey::Metadata, 9, &request).await?;
    let mut topics: Vec<_> = answer
        .topics
        .iter()
        .filter_map(|topic| {
            let name = topic.name.as_ref()?.to_string();
            Some((name, topic.partitions.len(), topic.is_internal))
        })
        .collect();
    topics.sort();
    let mut rows = Rows::new(["name", "partitions", "internal"]);
    for (name, partitions, internal) in topics {
        rows.push(vec![name.into(), partitions.into(), internal.into()]);
    }
    print(&rows.render(json))
}

async fn show(broker: &mut Broker, name: &str, json: bool) -> Result<()> {
    let partitions = partitions_of(broker, name).await?;
    let first = offsets_at(broker, name, &partitions, -2).await?;
    let end = offsets_at(broker, name, &partitions, -1).await?;
    let mut rows = Rows::new(["partition", "first_offset", "end_offset"]);
    for partition in &partitions {
        let at = |offsets: &BTreeMap<i32, i64>| offsets.get(partition).copied().into();
        rows.push(vec![(*partition).into(), at(&first), at(&end)]);
    }
    print(&rows.render(json))?;
    const TOPIC: i8 = 2;
    const SET_ON_TOPIC: i8 = 1;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(StrBytes::from_string(name.to_owned()))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer: DescribeConfigsResponse = broker.ask(ApiKey::DescribeConfigs, 4, &request).await?;
    let mut rows = Rows::new(["setting", "value"]);
    for result in &answer.results {
        check(&format!("topic \"{name}\""), result.error_code, result.error_message.as_ref())?;
        let own = result.configs.iter().filter(|config| config.config_source == SET_ON_TOPIC);
        for config in own {
            let value = config.value.as_ref().map(ToString::to_string);
            rows.push(vec![config.name.to_string().into(), value.into()]);
        }
    }
    if !rows.is_empty() {
        print(&format!("{}{}", if json { "" } else { "\n" }, rows.render(json)))?;
    }
    Ok(())
}

async fn create(
    broker: &mut Broker,
    name: &str,
    partitions: i32,
    configs: &[String],
) -> Result<()> {
    let config = |text: &String| {
        let (key, value) =
            text.split_once('=').with_context(|| format!("--config {text}: not NAME=VALUE"))?;
        Ok(CreatableTopicConfig::default()
            .with_name(StrBytes::from_string(key.to_owned()))
            .with_value(Some(StrBytes::from_string(value.to_owned()))))
    };
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect::<Result<_>>()?);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let answer: CreateTopicsResponse = broker.ask(ApiKey::CreateTopics, 5, &request).await?;
    for topic in &answer.topics {
        check(&format!("topic \"{name}\""), topic.error_code, topic.error_message.as_ref())?;
    }
    print(&format!("topic \"{name}\" was created\n"))
}

async fn delete(broker: &mut Broker, name: &str) -> Result<()> {
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(name)])
        .with_timeout_ms(30_000);
    let answer: DeleteTopicsResponse = broker.ask(ApiKey::DeleteTopics, 5, &request).await?;
    for topic in &answer.responses {
        check(&format!("topic \"{name}\""), topic.error_code, topic.error_message.as_ref())?;
    }
    print(&format!("topic \"{name}\" was deleted\n"))
}
