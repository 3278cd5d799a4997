"""The commands beside `serve`: views, topics, groups, records."""

import json
import subprocess

import pytest
from confluent_kafka import Consumer

from evert_server import binary


@pytest.fixture
def evert(server):
    def run(*arguments: str, stdin: str | None = None, fails: bool = False) -> str:
        door = (
            ["--url", f"postgres://evert@{server.sql}/evert"] if arguments[0] == "view" else ["--kafka", server.kafka]
        )
        done = subprocess.run(
            [binary(), *arguments, *door], input=stdin, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_views(server, evert):
    server.query("CREATE TABLE t (id bigint PRIMARY KEY, name text)")
    server.query("INSERT INTO t VALUES (1, 'a'), (2, 'a')")
    server.query("CREATE MATERIALIZED VIEW names AS SELECT name, count(*) AS n FROM t GROUP BY name")
    server.query("CREATE MATERIALIZED VIEW above AS SELECT * FROM names")
    server.query("REFRESH MATERIALIZED VIEW above")
    listed = objects(evert("view", "list", "--json"))
    assert {(view["name"], view["rows"]) for view in listed} >= {("names", 1), ("above", 1)}
    assert "| names" in evert("view", "list")
    assert "GROUP BY name" in evert("view", "show", "names")
    assert objects(evert("view", "verify", "names", "--json"))[0]["equal"] is True
    assert evert("view", "rebuild", "names") == "REBUILD VIEW\n"
    evert("view", "pause", "above")
    assert {view["name"]: view["state"] for view in objects(evert("view", "list", "--json"))}["above"] == "paused"
    evert("view", "resume", "above")
    assert "other objects depend on it" in evert("view", "drop", "names", fails=True)
    evert("view", "drop", "names", "--cascade")
    assert "does not exist" in evert("view", "show", "names", fails=True)


def test_topics_records_and_groups(server, evert):
    evert("topic", "create", "events", "--partitions", "2", "--config", "retention.ms=3600000")
    assert {"name": "events", "partitions": 2, "internal": False} in objects(evert("topic", "list", "--json"))
    assert "exists already" in evert("topic", "create", "events", fails=True)
    lines = "".join(f"k{n % 7}:value {n}\n" for n in range(2500))
    evert("produce", "events", "--key-separator", ":", stdin=lines)
    shown = objects(evert("topic", "show", "events", "--json"))
    assert sum(row["end_offset"] for row in shown if "partition" in row) == 2500
    assert {"setting": "retention.ms", "value": "3600000"} in shown
    records = objects(evert("consume", "events", "--json"))
    assert sorted((record["key"], record["value"]) for record in records) == sorted(
        tuple(line.split(":", 1)) for line in lines.splitlines()
    )
    # A key's records are in one partition, in their order.
    for key in {record["key"] for record in records}:
        own = [record for record in records if record["key"] == key]
        assert len({record["partition"] for record in own}) == 1
        assert [record["offset"] for record in own] == sorted(record["offset"] for record in own)
    # Where Kafka's own clients put them.
    consumer = Consumer({"bootstrap.servers": server.kafka, "group.id": "readers", "auto.offset.reset": "earliest"})
    consumer.subscribe(["events"])
    taken = 0
    while taken < 2500:
        message = consumer.poll(10)
        assert message is not None and message.error() is None
        taken += 1
    consumer.commit(asynchronous=False)
    assert "readers" in evert("group", "list")
    group = objects(evert("group", "show", "readers", "--json"))
    consumer.close()
    assert sum(row["offset"] for row in group) == 2500 and all(row["lag"] == 0 for row in group)
    partition = records[0]["partition"]
    assert len(evert("consume", "events", "--partition", str(partition), "--count", "3").splitlines()) == 3
    assert evert("consume", "events", "--from", "latest") == ""
    evert("topic", "delete", "events")
    assert "UnknownTopicOrPartition" in evert("consume", "events", fails=True)
