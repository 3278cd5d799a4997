"""Bad input: a clear error to whoever sent it, a row in evert.errors, nothing lost, server up."""

import json
import os
import random
import socket
import struct
import time

import psycopg
import pytest
from confluent_kafka import KafkaError, Producer

from evert_server import wait_until

DOORS = ("kafka", "sql", "http")


def produce(server, topic: str, records: list[tuple[bytes | None, bytes | None]], **settings) -> list:
    """Produces to partition 0 and returns, in order, each record's offset or error."""
    producer = Producer({"bootstrap.servers": server.kafka, "enable.idempotence": True, **settings})
    fates: list = [None] * len(records)

    def note(index, error, message):
        fates[index] = error if error is not None else message.offset()

    for index, (key, value) in enumerate(records):
        producer.produce(
            topic, value, key=key, partition=0, on_delivery=lambda e, m, i=index: note(i, e, m)
        )
    assert producer.flush(30) == 0, "records without an answer"
    return fates


def refused(connection, statement: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as refusal:
        connection.execute(statement)
    return refusal.value


def memory_kib(server) -> int:
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def check_every_door(server) -> None:
    """Good clients are served on every door."""
    server.check_unharmed()
    topic = f"alive-{random.randrange(10**9)}"
    assert produce(server, topic, [(b"k", b"v")]) == [0]
    assert server.query("SELECT 1 + 1") == [(2,)]
    assert server.get("/healthz")[0] == 200


def test_records_that_do_not_parse(server):
    server.query(
        """CREATE STREAM payments (id bigint, amount numeric(10,2), paid_at timestamp)
           WITH (topic='payments', format='json', partitions=1)"""
    )
    server.query("CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n, sum(amount) AS total FROM payments")
    good = json.dumps({"id": 1, "amount": "10.50", "paid_at": "2026-01-02T03:04:05"}).encode()
    bad = {
        1: b"{ this is not JSON",
        3: b'{"id": "one", "amount": 1}',
        4: b'{"id": 5, "amount": {"nested": true}}',
        5: b"[1, 2, 3]",
        6: b"\xff\xfe\x00",
        8: b'{"id": 9223372036854775808, "amount": 1}',
        9: b'{"id": 1, "amount": 1, "paid_at": "yesterday"}',
        11: b'{"id": 1, "amount": 123456789012.00}',
    }
    records = [(None, bad.get(offset, good)) for offset in range(13)]
    assert produce(server, "payments", records) == list(range(13)), "a topic takes any bytes"

    with server.connect() as connection:
        connection.execute("WAIT FOR POSITION 'payments/0@12' TIMEOUT '20s'")
        [(n, total)] = connection.execute("SELECT n, total FROM totals").fetchall()
        assert (n, float(total)) == (13 - len(bad), 10.5 * (13 - len(bad)))
        errors = connection.execute(
            """SELECT topic, partition, "offset", reason, position FROM evert.errors
               WHERE topic = 'payments' ORDER BY "offset" """
        ).fetchall()
        assert [(topic, partition, offset) for topic, partition, offset, _, _ in errors] == [
            ("payments", 0, offset) for offset in bad
        ]
        assert all(reason for _, _, _, reason, _ in errors), errors
        assert all(position > 0 for *_, position in errors), errors

    # The errors view is a fold too: it is the same after a replay.
    server.restart()
    again = server.query(
        """SELECT topic, partition, "offset", reason, position FROM evert.errors
           WHERE topic = 'payments' ORDER BY "offset" """
    )
    assert again == errors


def test_a_bad_record_takes_its_row_out(server):
    server.query(
        """CREATE TABLE stock (sku text PRIMARY KEY, amount int)
           WITH (topic='stock', format='json', partitions=1)"""
    )
    records = [
        (b"a", b'{"sku": "a", "amount": 1}'),
        (b"b", b'{"sku": "b", "amount": 2}'),
        (b"c", b'{"sku": "c", "amount": 3}'),
        (b"a", b"not json"),
        (b"b", None),
        (b"c", b'{"sku": "another", "amount": 4}'),
    ]
    assert produce(server, "stock", records) == [0, 1, 2, 3, 4, 5]
    with server.connect() as connection:
        connection.execute("WAIT FOR POSITION 'stock/0@5' TIMEOUT '20s'")
        rows = connection.execute("SELECT sku, amount FROM stock ORDER BY sku").fetchall()
        offsets = connection.execute(
            """SELECT "offset" FROM evert.errors WHERE topic = 'stock' ORDER BY "offset" """
        ).fetchall()
    assert offsets == [(3,), (5,)], "one error for the malformed record, one for the key of another row"
    assert rows == [], "each key's newest record leaves it without a row"
    produce(server, "stock", [(b"a", b'{"sku": "a", "amount": 7}')])
    with server.connect() as connection:
        connection.execute("WAIT FOR POSITION 'stock/0@6' TIMEOUT '20s'")
        assert connection.execute("SELECT sku, amount FROM stock").fetchall() == [("a", 7)]


def test_a_record_longer_than_the_topic_allows(server):
    server.query(
        """CREATE STREAM notes (text text)
           WITH (topic='notes', format='json', partitions=1, "max.message.bytes"='10000')"""
    )
    short = json.dumps({"text": "short"}).encode()
    long = json.dumps({"text": os.urandom(8_000).hex()}).encode()
    assert produce(server, "notes", [(None, short)]) == [0]
    [fate] = produce(server, "notes", [(None, long)], **{"enable.idempotence": False})
    assert isinstance(fate, KafkaError) and fate.code() == KafkaError.MSG_SIZE_TOO_LARGE, fate
    assert produce(server, "notes", [(None, short)]) == [1]
    with server.connect() as connection:
        connection.execute("WAIT FOR POSITION 'notes/0@1' TIMEOUT '20s'")
        assert connection.execute("SELECT count(*) FROM notes").fetchall() == [(2,)]


def test_statements_that_cannot_be(server):
    with server.connect() as connection:
        connection.execute("CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance numeric(10,2))")
        connection.execute("INSERT INTO accounts VALUES (1, 'Riya', 10)")
        connection.execute("CREATE MATERIALIZED VIEW owners AS SELECT owner, count(*) AS n FROM accounts GROUP BY owner")
        expected = {
            "SELEC 1": "42601",
            "SELECT nothing FROM accounts": "42703",
            "INSERT INTO accounts (id, colour) VALUES (2, 'red')": "42703",
            "SELECT * FROM acounts": "42P01",
            "CREATE MATERIALIZED VIEW v AS SELECT * FROM missing": "42P01",
            "CREATE MATERIALIZED VIEW owners AS SELECT id FROM accounts": "42P07",
            "CREATE TABLE accounts (id int PRIMARY KEY)": "42P07",
            "CREATE MATERIALIZED VIEW v AS SELECT id, random() FROM accounts": "0A000",
            "CREATE MATERIALIZED VIEW v AS SELECT colour FROM accounts": "42703",
            "INSERT INTO accounts VALUES (NULL, 'nobody', 0)": "23502",
            "INSERT INTO accounts VALUES (3, 'x', 'much')": "22P02",
            "INSERT INTO accounts VALUES (4000000000, 'x', 0)": "22003",
            "SELECT 1 / 0": "22012",
            "DROP TABLE accounts": "2BP01",
            "WAIT FOR POSITION 'nonsense'": "22023",
        }
        found = {statement: refused(connection, statement).sqlstate for statement in expected}
        assert found == expected
        error = refused(connection, "SELECT id,\n  nothing FROM accounts")
        assert "nothing" in error.diag.message_primary
        similar = refused(connection, "SELECT * FROM acounts").diag
        assert "accounts" in (similar.message_hint or ""), similar.message_hint
        # Nothing that was refused left anything behind.
        assert connection.execute("SELECT id, owner FROM accounts").fetchall() == [(1, "Riya")]
        names = {name for (name,) in connection.execute("SELECT name FROM evert.views").fetchall()}
        assert any(name.endswith("owners") for name in names) and "v" not in names, names


def test_a_failed_transaction_refuses_all_but_its_end(server):
    with server.connect(autocommit=False) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
        connection.commit()
        connection.execute("INSERT INTO t VALUES (1)")
        assert refused(connection, "SELECT nothing FROM t").sqlstate == "42703"
        assert refused(connection, "SELECT 1").sqlstate == "25P02"
        connection.rollback()
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(0,)]


LENGTHS = [2**31 - 1, -1, -(2**31), 2**30, 0, 1, 3]


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_that_lie(server, length):
    """A length in front of a message reserves no memory before it is believed."""
    before = memory_kib(server)
    openings = {
        "kafka": struct.pack(">i", length) + b"\0\x12\0\0\0\0\0\x01\xff\xff",
        "sql": struct.pack(">i", length) + b"\0\x03\0\0user\0x\0\0",
    }
    sockets = []
    for door, opening in openings.items():
        for _ in range(20):
            connection = socket.create_connection(server.address(door), timeout=5)
            connection.sendall(opening)
            sockets.append(connection)
    # After a good startup a SQL message may lie about its length, too.
    for kind in b"QPBDESCX":
        connection = started_sql(server)
        connection.sendall(bytes([kind]) + struct.pack(">i", length) + b"SELECT 1\0")
        sockets.append(connection)
    time.sleep(0.3)
    check_every_door(server)
    for connection in sockets:
        connection.close()
    assert memory_kib(server) < before + 200_000, "memory was reserved on a stranger's word"


def started_sql(server) -> socket.socket:
    """A SQL connection that has been let in, as a raw socket."""
    connection = socket.create_connection(server.address("sql"), timeout=5)
    parameters = struct.pack(">i", 196608) + b"user\0evert\0database\0evert\0\0"
    connection.sendall(struct.pack(">i", len(parameters) + 4) + parameters)
    answer = b""
    while not answer.endswith((b"Z\0\0\0\x05I",)):
        part = connection.recv(4096)
        assert part, f"closed at startup: {answer!r}"
        answer += part
    return connection


def test_a_kafka_length_of_2_31_minus_1_closes_the_connection(server):
    connection = socket.create_connection(server.address("kafka"), timeout=10)
    connection.sendall(struct.pack(">i", 2**31 - 1) + b"\0\0\0\x09")
    try:
        assert connection.recv(1) == b"", "an answer to nonsense"
    except ConnectionResetError:
        pass
    check_every_door(server)


def test_garbage_on_every_port(server):
    seed = int(os.environ.get("EVERT_SEED", time.time_ns() % 1_000_000))
    print(f"EVERT_SEED={seed}")
    rng = random.Random(seed)
    assert produce(server, "kept", [(b"k", b"before")]) == [0]
    for door in DOORS:
        for _ in range(60):
            with socket.create_connection(server.address(door), timeout=5) as connection:
                try:
                    for _ in range(rng.randrange(1, 4)):
                        connection.sendall(rng.randbytes(rng.choice([1, 4, 7, 64, 1000, 70_000])))
                    if rng.random() < 0.5:
                        connection.shutdown(socket.SHUT_WR)
                        connection.settimeout(0.5)
                        connection.recv(1000)
                except OSError:
                    pass
    check_every_door(server)
    assert produce(server, "kept", [(b"k", b"after")]) == [1]


def test_damaged_requests(server):
    """Real Kafka requests with a few bytes changed reach deeper than noise does."""
    seed = int(os.environ.get("EVERT_SEED", time.time_ns() % 1_000_000))
    print(f"EVERT_SEED={seed}")
    rng = random.Random(seed)
    header = struct.pack(">hhih", 0, 0, 7, 4) + b"test"
    metadata = struct.pack(">hhih", 3, 4, 7, 4) + b"test" + struct.pack(">ih", 1, 4) + b"seen" + b"\x01"
    versions = struct.pack(">hhih", 18, 0, 7, 4) + b"test"
    produce_v3 = (
        struct.pack(">hhih", 0, 3, 7, 4) + b"test" + struct.pack(">hhiih", -1, -1, 1000, 1, 4) + b"seen"
        + struct.pack(">iii", 1, 0, 80) + rng.randbytes(80)
    )  # fmt: skip
    for _ in range(300):
        request = bytearray(rng.choice([header, metadata, versions, produce_v3]))
        for _ in range(rng.randrange(1, 4)):
            request[rng.randrange(len(request))] = rng.randrange(256)
        with socket.create_connection(server.address("kafka"), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            connection.settimeout(0.02)
            try:
                connection.recv(1000)
            except OSError:
                pass
    check_every_door(server)


def test_half_open_slow_and_idle_senders(server):
    """Clients that say little and never leave do not keep others out."""
    before = memory_kib(server)
    idle = []
    for door in DOORS:
        for opening in (b"", b"\0", b"\0\0\0", b"GET / HT", struct.pack(">i", 1000) + b"\0\0\0"):
            for _ in range(20):
                connection = socket.create_connection(server.address(door), timeout=5)
                connection.sendall(opening)
                idle.append(connection)
    started = time.monotonic()
    check_every_door(server)
    assert time.monotonic() - started < 10, "idle strangers slow good clients down"
    # One byte at a time is slow, but it is a request.
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(server.address("http"), timeout=10) as slow:
        for byte in request:
            slow.sendall(bytes([byte]))
            time.sleep(0.005)
        assert b" 200 " in slow.recv(1000)
    assert memory_kib(server) < before + 200_000
    for connection in idle:
        connection.close()
    wait_until(lambda: server.get("/healthz")[0] == 200, 10, "a good answer after the strangers left")


def test_thousands_of_conditions_are_no_matter(server):
    with server.connect() as session:
        session.execute("CREATE TABLE t (x INT PRIMARY KEY, k INT)")
        session.execute("INSERT INTO t VALUES (1, 1), (2, 2), (3, 30)")
        apart = " AND ".join(f"x <> {n}" for n in range(3, 5003))
        count = f"SELECT count(*) FROM t WHERE {apart}"
        assert session.execute(count).fetchone() == (2,)
        assert session.execute(f"UPDATE t SET k = k WHERE {apart}").rowcount == 2
        having = " AND ".join(f"count(*) <> {n}" for n in range(100, 3100))
        assert len(session.execute(f"SELECT k FROM t GROUP BY k HAVING {having}").fetchall()) == 3
        pairs = ", ".join(f"({n}, {n})" for n in range(3000))
        assert session.execute(f"SELECT count(*) FROM t WHERE (x, k) IN ({pairs})").fetchone() == (2,)
        assert session.execute(f"SELECT count(*) FROM t WHERE (x, k) NOT IN ({pairs})").fetchone() == (1,)
        for groups, why in (
            ("CUBE (" + ", ".join(f"x + {n}" for n in range(13)) + ")", "CUBE is limited to 12"),
            ("CUBE (x, k, x + 1, x + 2, x + 3, x + 4, x + 5), CUBE (x + 6, x + 7, x + 8, x + 9, x + 10, x + 11)", "too many grouping sets"),
        ):
            with pytest.raises(psycopg.Error, match=why):
                session.execute(f"SELECT count(*) FROM t GROUP BY {groups}")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="search_path"):
            session.execute("SET search_path = shop")
        session.execute("SET search_path = public")
        session.execute('SET search_path = "$user", public')
