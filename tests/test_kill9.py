"""kill -9 under load: nothing acknowledged is lost, repeated, reordered or changed."""

import os
import random
import threading
import time
import uuid

import pytest

from load import LoadProducer, LoadReader

CYCLES = int(os.environ.get("EVERT_KILL9_CYCLES", "20"))
PARTITIONS = 8
PRODUCERS = 4
RATE = 500.0
TOPIC = "load"
# With a full journal; these cycles never fill one.
RECOVERY_SECONDS_MAX = 3.0


def fold(reader: LoadReader) -> list[tuple]:
    """The view's answer, folded from zero over the records that a consumer read."""
    totals: dict[int, list[int]] = {}
    for facts in reader.facts:
        for fact in facts:
            total = totals.setdefault(fact["producer"], [0, 0, 0])
            total[0] += 1
            total[1] += fact["seq"]
            total[2] = max(total[2], fact["seq"])
    return sorted((producer, *total) for producer, total in totals.items())


def check_views(server, reader: LoadReader) -> None:
    with server.connect() as connection:
        for partition, facts in enumerate(reader.facts):
            if facts:
                connection.execute(f"WAIT FOR POSITION '{TOPIC}/{partition}@{len(facts) - 1}' TIMEOUT '60s'")
        answer = connection.execute("SELECT producer, n, total, highest FROM by_producer").fetchall()
        assert sorted(answer) == fold(reader)
        # An ad-hoc read of the stream takes another way than the view: it scans the log.
        [(rows,)] = connection.execute("SELECT count(*) FROM facts").fetchall()
        assert rows == sum(len(facts) for facts in reader.facts)
    server.verify("by_producer")


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost(new_server):
    seed = int(os.environ.get("EVERT_SEED", time.time_ns() % 1_000_000))
    print(f"EVERT_SEED={seed}")
    rng = random.Random(seed)
    server = new_server().start()
    server.query(
        f"""CREATE STREAM facts (
                run text, producer int, seq bigint, topic text, partition int, crc32c bigint
            ) WITH (topic='{TOPIC}', format='json', partitions={PARTITIONS})"""
    )
    server.query(
        """CREATE MATERIALIZED VIEW by_producer AS
           SELECT producer, count(*) AS n, sum(seq) AS total, max(seq) AS highest
           FROM facts GROUP BY producer"""
    )
    run = str(uuid.uuid4())
    producers = [LoadProducer(server.kafka, run, number, TOPIC, PARTITIONS) for number in range(PRODUCERS)]
    reader = LoadReader(server.kafka, TOPIC, PARTITIONS)
    recoveries = []
    for cycle in range(CYCLES):
        until = threading.Event()
        threads = [threading.Thread(target=p.produce, args=(until, RATE), daemon=True) for p in producers]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.05, 3.0))
        server.kill9()
        clients_die = rng.random() < 0.3
        if clients_die:
            # The load ends with the server down, so that records in flight keep an unknown fate.
            until.set()
            for thread in threads:
                thread.join()
            for producer in producers:
                producer.abandon()
        started = time.monotonic()
        server.start()
        recoveries.append(time.monotonic() - started)
        # The same producers go on for a moment: their retries meet the recovered sequences.
        time.sleep(rng.uniform(0.1, 0.5))
        until.set()
        for thread in threads:
            thread.join()
        for producer in producers:
            producer.flush()
        reader.read_all()
        counts = reader.judge(producers)
        check_views(server, reader)
        print(f"cycle {cycle}: {counts}, recovered in {recoveries[-1]:.2f} s{', clients died' * clients_die}")
    print(f"recovery: median {sorted(recoveries)[len(recoveries) // 2]:.2f} s, worst {max(recoveries):.2f} s")
    assert max(recoveries) < RECOVERY_SECONDS_MAX
    assert counts["acked"] > 100 * CYCLES, "hardly any load"
    server.check_unharmed()
    server.terminate()
