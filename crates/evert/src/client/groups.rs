//! `evert group`: consumer groups, by Kafka's protocol.

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kafka_protocol::messages::{
    ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, GroupId, ListGroupsRequest,
    ListGroupsResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::broker::{Broker, check};
use super::shown::Rows;
use super::topics::offsets_at;
use crate::output::print;

/// The flags of `evert group`.
#[derive(Args, Clone, Debug)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
    /// Where the server's Kafka door is
    #[arg(long, global = true, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Print JSON, an object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum GroupCommand {
    /// All groups
    List,
    /// One group: how far it is in each partition
    Show {
        /// The group
        name: String,
    },
}

/// Runs `evert group`.
///
/// # Errors
/// When the server cannot be reached, or refuses.
pub(crate) async fn run(args: GroupArgs) -> Result<()> {
    let mut broker = Broker::connect(&args.kafka).await?;
    match args.command {
        GroupCommand::List => list(&mut broker, args.json).await,
        GroupCommand::Show { name } => show(&mut broker, &name, args.json).await,
    }
}

async fn list(broker: &mut Broker, json: bool) -> Result<()> {
    let answer: ListGroupsResponse =
        broker.ask(ApiKey::ListGroups, 4, &ListGroupsRequest::default()).await?;
    check("groups", answer.error_code, None)?;
    let mut groups: Vec<_> = answer
        .groups
        .iter()
        .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
        .collect();
    groups.sort();
    let mut rows = Rows::new(["name", "state"]);
    groups.into_iter().for_each(|(name, state)| rows.push(vec![name.into(), state.into()]));
    print(&rows.render(json))
}

async fn show(broker: &mut Broker, name: &str, json: bool) -> Result<()> {
    let id = GroupId(StrBytes::from_string(name.to_owned()));
    let request = DescribeGroupsRequest::default().with_groups(vec![id.clone()]);
    let answer: DescribeGroupsResponse = broker.ask(ApiKey::DescribeGroups, 5, &request).await?;
    let group = answer.groups.first().context("the server knows nothing of the group")?;
    check(&format!("group \"{name}\""), group.error_code, None)?;
    let request = OffsetFetchRequest::default().with_group_id(id).with_topics(None);
    let answer: OffsetFetchResponse = broker.ask(ApiKey::OffsetFetch, 7, &request).await?;
    check(&format!("group \"{name}\""), answer.error_code, None)?;
    if !json {
        print(&format!("{}, {} members\n\n", group.group_state, group.members.len()))?;
    }
    let mut rows = Rows::new(["topic", "partition", "offset", "end_offset", "lag"]);
    for topic in &answer.topics {
        let partitions: Vec<i32> =
            topic.partitions.iter().map(|partition| partition.partition_index).collect();
        let name = topic.name.to_string();
        // A topic that was deleted has no end.
        let ends = offsets_at(broker, &name, &partitions, -1).await.unwrap_or_default();
        for partition in &topic.partitions {
            let (index, offset) = (partition.partition_index, partition.committed_offset);
            let end = ends.get(&index).copied();
            let lag = end.map(|end| (end - offset).max(0));
            rows.push(vec![
                name.clone().into(),
                index.into(),
                offset.into(),
                end.into(),
                lag.into(),
            ]);
        }
    }
    print(&rows.render(json))
}
