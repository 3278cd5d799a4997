"""The commands beside `serve`: views, topics, groups, records."""

import json
import os
import subprocess

import duckdb
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
    server.query("CREATE MATERIALIZED VIEW names AS SELECT name, count(*) AS n FROM t GROUP BY name")
    server.query("CREATE SEARCH INDEX found ON names (name)")
    server.query("CREATE ARCHIVE kept ON t TO 'kept'")
    evert("view", "drop", "names", "found", "kept")
    assert server.query("SELECT name FROM evert.views WHERE name IN ('names', 'found', 'kept')") == []


def through_head(*arguments: str) -> subprocess.CompletedProcess:
    """A command whose reader leaves after the first line."""
    command = subprocess.Popen([binary(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        command.stdout.readline()
        command.stdout.close()
        said = command.stderr.read()
        return subprocess.CompletedProcess(arguments, command.wait(60), None, said)
    finally:
        command.kill()


def test_a_reader_that_leaves_ends_a_command_quietly(server):
    server.query("CREATE TABLE wide (id bigint PRIMARY KEY, filler text)")
    server.query("INSERT INTO wide SELECT g, repeat('x', 1000) FROM generate_series(1, 2000) AS g")
    [(position,)] = server.query("SHOW POSITION")
    url = f"postgres://evert@{server.sql}/evert"
    export = ["export", "--url", url, "--as-of", str(position), "--query", "SELECT * FROM wide"]
    for arguments in (
        [*export, "--format", "csv"],
        ["sql", "--url", url, "-c", "SELECT * FROM wide"],
        ["consume", "wide", "--kafka", server.kafka],
    ):
        done = through_head(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done


def test_errors_are_without_a_backtrace(server):
    done = subprocess.run(
        [binary(), "topic", "show", "nothing", "--kafka", server.kafka],
        capture_output=True, text=True, timeout=60, env={**os.environ, "RUST_BACKTRACE": "1"},
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("Error: "), done.stderr


def test_what_changes_is_not_exported(server, tmp_path):
    server.query("CREATE TABLE t (id bigint PRIMARY KEY, tags text[])")
    server.query("INSERT INTO t VALUES (1, '{a,NULL}')")
    [(position,)] = server.query("SHOW POSITION")

    def refused(query: str, as_of: str = str(position)) -> str:
        url = f"postgres://evert@{server.sql}/evert"
        done = subprocess.run(
            [binary(), "export", "--url", url, "--query", query, "--as-of", as_of, "--format", "csv"],
            capture_output=True, text=True, timeout=60,
        )
        assert done.returncode == 1 and done.stdout == "", done
        return done.stderr

    for query, what in (
        ("SELECT id, random() FROM t", "random()"),
        ("SELECT gen_random_uuid()", "gen_random_uuid()"),
        ("SELECT name FROM evert.views", "the system relation evert.views"),
    ):
        assert f"an export is the same whenever it is made, and {what} is not" in refused(query), query
    for query in ("DELETE FROM t", "SELECT 1; SELECT 2", "EXPLAIN SELECT 1"):
        assert refused(query) == "Error: the query must be one SELECT\n"
    assert "AS OF of its own" in refused(f"SELECT * FROM t AS OF POSITION {position}")
    assert "POSITION" not in refused("SELECT id FROM t WHERE")
    refused("SELECT * FROM t", as_of="999999999")
    lists = tmp_path / "lists.parquet"
    arguments = ["--as-of", str(position), "--format", "parquet", "--out", str(lists), "--query", "SELECT * FROM t"]
    subprocess.run([binary(), "export", "--url", f"postgres://evert@{server.sql}/evert", *arguments], check=True, timeout=60)
    assert duckdb.sql(f"SELECT * FROM read_parquet('{lists}')").fetchall() == [(1, ["a", None])]


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
