"""kafka-python, unmodified."""

import threading

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

from evert_server import wait_until


def consumer(server, *topics, group=None, **options) -> KafkaConsumer:
    return KafkaConsumer(
        *topics,
        bootstrap_servers=server.kafka,
        group_id=group,
        auto_offset_reset="earliest",
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        **options,
    )


def create(server, name: str, partitions: int = 1) -> None:
    client = KafkaAdminClient(bootstrap_servers=server.kafka)
    client.create_topics({name: {"num_partitions": partitions, "replication_factor": 1}})
    client.close()


def read(client: KafkaConsumer, count: int, seconds: float = 30) -> list:
    records = []

    def poll():
        for batch in client.poll(timeout_ms=200).values():
            records.extend(batch)
        return len(records) >= count

    wait_until(poll, seconds, f"{count} records", pause=0)
    return records


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_round_trips(server, codec):
    create(server, "t", 3)
    producer = KafkaProducer(bootstrap_servers=server.kafka, compression_type=codec, linger_ms=5)
    sent = [producer.send("t", key=b"%d" % n, value=b"value %d" % n) for n in range(2000)]
    places = {(it.partition, it.offset) for it in (future.get(30) for future in sent)}
    assert len(places) == 2000
    producer.close()
    client = consumer(server, "t")
    records = read(client, 2000)
    assert sorted(record.value for record in records) == sorted(b"value %d" % n for n in range(2000))
    client.close()


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_every_level_of_acks(server, acks):
    create(server, "t")
    producer = KafkaProducer(bootstrap_servers=server.kafka, acks=acks, enable_idempotence=acks == "all")
    for n in range(100):
        producer.send("t", b"%d" % n, headers=[("h", b"1"), ("h", b"2")])
    producer.flush()
    producer.close()
    client = consumer(server, "t")
    records = read(client, 100)
    assert [record.value for record in records] == [b"%d" % n for n in range(100)]
    assert [(key, value) for key, value in records[0].headers] == [("h", b"1"), ("h", b"2")]
    client.close()


def test_reading_from_any_offset(server):
    create(server, "t")
    producer = KafkaProducer(bootstrap_servers=server.kafka)
    for n in range(50):
        producer.send("t", b"%d" % n, timestamp_ms=1_000_000 + n)
    producer.close()
    client = consumer(server)
    partition = TopicPartition("t", 0)
    client.assign([partition])
    client.seek(partition, 33)
    assert read(client, 1)[0].offset == 33
    assert client.beginning_offsets([partition]) == {partition: 0}
    assert client.end_offsets([partition]) == {partition: 50}
    found = client.offsets_for_times({partition: 1_000_017})[partition]
    assert (found.offset, found.timestamp) == (17, 1_000_017)
    client.close()


def test_offsets_are_committed_with_their_metadata(server):
    create(server, "t")
    producer = KafkaProducer(bootstrap_servers=server.kafka)
    for n in range(10):
        producer.send("t", b"%d" % n)
    producer.close()
    client = consumer(server, "t", group="g", enable_auto_commit=False)
    read(client, 10)
    partition = TopicPartition("t", 0)
    client.commit({partition: OffsetAndMetadata(4, "four", -1)})
    client.close()
    again = consumer(server, "t", group="g", enable_auto_commit=False)
    assert read(again, 1)[0].offset == 4
    assert again.committed(partition, metadata=True).metadata == "four"
    again.close()


def test_members_share_and_take_over(server):
    create(server, "t", 4)
    stop = {name: threading.Event() for name in "ab"}
    share, seen = {}, {name: set() for name in "ab"}

    def work(name):
        client = consumer(server, "t", group="g")
        while not stop[name].is_set():
            for batch in client.poll(timeout_ms=100).values():
                seen[name].update((record.partition, record.offset) for record in batch)
            share[name] = {partition.partition for partition in client.assignment()}
        share[name] = set()
        client.close()

    threads = {name: threading.Thread(target=work, args=(name,), daemon=True) for name in "ab"}
    threads["a"].start()
    wait_until(lambda: len(share.get("a", ())) == 4, 30, "one has everything")
    threads["b"].start()
    wait_until(lambda: len(share["a"]) == 2 and len(share.get("b", ())) == 2, 30, "they share")
    assert share["a"] | share["b"] == {0, 1, 2, 3}
    producer = KafkaProducer(bootstrap_servers=server.kafka)
    for n in range(400):
        producer.send("t", b"%d" % n, key=b"%d" % n)
    producer.flush()
    wait_until(lambda: len(seen["a"] | seen["b"]) == 400, 30, "every record is read")
    stop["a"].set()
    threads["a"].join(30)
    wait_until(lambda: len(share["b"]) == 4, 30, "the other takes over")
    for n in range(400, 800):
        producer.send("t", b"%d" % n, key=b"%d" % n)
    producer.close()
    wait_until(lambda: len(seen["a"] | seen["b"]) == 800, 30, "nothing is skipped")
    stop["b"].set()
    threads["b"].join(30)


def test_the_admin_client(server):
    create(server, "t", 2)
    client = KafkaAdminClient(bootstrap_servers=server.kafka)
    assert "t" in client.list_topics()
    with pytest.raises(TopicAlreadyExistsError):
        create(server, "t")
    client.delete_topics(["t"])
    wait_until(lambda: "t" not in client.list_topics(), 10, "the topic is gone")
    with pytest.raises(KafkaError):
        client.delete_topics(["t"])
    client.close()
