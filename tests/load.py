"""Loads of facts that check themselves: who produced what, what was acknowledged, what was read."""

import dataclasses
import json
import random
import threading
import time
import uuid

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, Producer, TopicPartition
from crc32c import crc32c

PADDING = "x" * 64


def payload(run: str, producer: int, seq: int, topic: str, partition: int) -> bytes:
    """A fact that names its place and carries its own checksum."""
    body = {"run": run, "producer": producer, "seq": seq, "topic": topic, "partition": partition, "pad": PADDING}
    return json.dumps({**body, "crc32c": crc32c(json.dumps(body).encode())}).encode()


def checked(value: bytes, topic: str, partition: int) -> dict:
    """A payload as read back; anything that differs from what was produced is an error."""
    fact = json.loads(value)
    body = {name: part for name, part in fact.items() if name != "crc32c"}
    assert fact["crc32c"] == crc32c(json.dumps(body).encode()), f"damaged: {value!r}"
    assert (fact["topic"], fact["partition"]) == (topic, partition), f"in the wrong place: {value!r}"
    return fact


@dataclasses.dataclass
class Journal:
    """What the harness knows of one producer and partition: the sequence numbers by their fate."""

    sent: list[int] = dataclasses.field(default_factory=list)
    acked: dict[int, int] = dataclasses.field(default_factory=dict)
    unknown: set[int] = dataclasses.field(default_factory=set)


class LoadProducer:
    """One idempotent acks=all producer over all partitions, and its journal of acks."""

    def __init__(self, servers: str, run: str, number: int, topic: str, partitions: int):
        self.servers = servers
        self.run = run
        self.number = number
        self.topic = topic
        self.journals = [Journal() for _ in range(partitions)]
        self.seq = 0
        self.fatal: str | None = None
        self.client = self.connect()

    def connect(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.servers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": random.choice([0, 5]),
                "compression.type": random.choice(["none", "gzip", "snappy", "lz4", "zstd"]),
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 200,
                "retry.backoff.ms": 20,
                "retry.backoff.max.ms": 200,
                "message.timeout.ms": 120_000,
                "error_cb": self.note_error,
                # A killed server is expected here; what matters is asserted.
                "log_level": 2,
            }
        )

    def note_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.fatal = str(error)

    def produce(self, until: threading.Event, rate: float) -> None:
        """Produces at about `rate` records a second until told to stop."""
        started, count = time.monotonic(), 0
        while not until.is_set() and self.fatal is None:
            partition = self.seq % len(self.journals)
            journal = self.journals[partition]
            seq = self.seq
            try:
                self.client.produce(
                    self.topic,
                    payload(self.run, self.number, seq, self.topic, partition),
                    key=f"{self.number}".encode(),
                    partition=partition,
                    on_delivery=lambda error, message, j=journal, s=seq: self.note(j, s, error, message),
                )
            except BufferError:
                self.client.poll(0.05)
                continue
            journal.sent.append(seq)
            self.seq += 1
            count += 1
            ahead = started + count / rate - time.monotonic()
            self.client.poll(max(0.0, ahead) if ahead > 0.002 else 0)

    def note(self, journal: Journal, seq: int, error, message) -> None:
        if error is None:
            journal.acked[seq] = message.offset()
        else:
            journal.unknown.add(seq)

    def flush(self) -> None:
        """Waits for the fate of everything that was sent."""
        left = self.client.flush(90)
        assert self.fatal is None, f"producer {self.number}: {self.fatal}"
        assert left == 0, f"producer {self.number}: {left} records still without an answer"

    def abandon(self) -> None:
        """Dies with what is in flight, as a crashed client would, and comes back as a new one."""
        self.client.purge()
        self.client.flush(10)
        self.client = self.connect()


class LoadReader:
    """Reads everything from offset 0, again and again, and judges it against the journals."""

    def __init__(self, servers: str, topic: str, partitions: int):
        self.servers = servers
        self.topic = topic
        # By partition and offset: the bytes that were once read there.
        self.seen: list[list[bytes]] = [[] for _ in range(partitions)]
        self.facts: list[list[dict]] = [[] for _ in range(partitions)]

    def read_all(self) -> None:
        """Reads from 0 to the end. What was read before must be there unchanged."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": f"reader-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "check.crcs": True,
                "fetch.wait.max.ms": 50,
                "log_level": 2,
            }
        )
        partitions = range(len(self.seen))
        try:
            consumer.assign([TopicPartition(self.topic, partition, 0) for partition in partitions])
            read: list[list[bytes]] = [[] for _ in partitions]
            ended: set[int] = set()
            deadline = time.monotonic() + 90
            while len(ended) < len(read):
                assert time.monotonic() < deadline, f"partitions not read to their end: {set(partitions) - ended}"
                for message in consumer.consume(10_000, timeout=0.2):
                    error = message.error()
                    if error is None:
                        values = read[message.partition()]
                        assert message.offset() == len(values), (
                            f"partition {message.partition()}: offset {message.offset()} after {len(values) - 1}"
                        )
                        assert message.timestamp()[0] != TIMESTAMP_NOT_AVAILABLE
                        values.append(message.value())
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended.add(message.partition())
                    else:
                        assert error.retriable(), f"{error}"
        finally:
            consumer.close()
        self.take(read)

    def take(self, read: list[list[bytes]]) -> None:
        """Takes one reading of every partition from 0; it may only add to the ones before."""
        for partition, values in enumerate(read):
            known = self.seen[partition]
            assert len(values) >= len(known), f"partition {partition}: {len(values)} records, once {len(known)}"
            assert values[: len(known)] == known, f"partition {partition}: a record changed"
            self.facts[partition] += [checked(v, self.topic, partition) for v in values[len(known) :]]
            self.seen[partition] = values

    def judge(self, producers: list[LoadProducer]) -> dict[str, int]:
        """Nothing acknowledged is lost, nothing is there twice, and each producer's order holds."""
        counts = {"read": 0, "acked": 0, "unknown": 0}
        for partition, facts in enumerate(self.facts):
            read: dict[int, list[tuple[int, int]]] = {producer.number: [] for producer in producers}
            for offset, fact in enumerate(facts):
                read[fact["producer"]].append((fact["seq"], offset))
            for producer in producers:
                judge_journal(f"producer {producer.number}, partition {partition}",
                              producer.journals[partition], read[producer.number])  # fmt: skip
                counts["acked"] += len(producer.journals[partition].acked)
                counts["unknown"] += len(producer.journals[partition].unknown)
            counts["read"] += len(facts)
        return counts


def judge_journal(where: str, journal: Journal, read: list[tuple[int, int]]) -> None:
    """One producer's records in one partition, as read in order of offset."""
    seqs = [seq for seq, _ in read]
    places = dict(read)
    repeated = sorted({seq for seq in seqs if seqs.count(seq) > 1}) if len(places) < len(seqs) else []
    assert not repeated, f"{where}: repeated {repeated[:10]}"
    lost = sorted(set(journal.acked) - set(places))
    assert not lost, f"{where}: lost {len(lost)} acknowledged records: {lost[:10]}"
    assert seqs == sorted(seqs), f"{where}: out of order"
    made_up = sorted(set(places) - set(journal.sent))
    assert not made_up, f"{where}: never sent {made_up[:10]}"
    unanswered = set(journal.sent) - set(journal.acked) - journal.unknown
    assert not unanswered, f"{where}: without an answer {sorted(unanswered)[:10]}"
    # A repeat that the server recognised is acknowledged without its offset.
    moved = [seq for seq, offset in journal.acked.items() if offset >= 0 and places[seq] != offset]
    assert not moved, f"{where}: not at the offset that was acknowledged: {moved[:10]}"
