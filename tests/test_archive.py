"""Archives: Iceberg tables of facts, read back by DuckDB, pyiceberg and SQL, compared with the log."""

import csv
import datetime
import io
import json
import os
import pathlib
import random
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request

import duckdb
import duckdb_extension_avro
import duckdb_extension_httpfs
import duckdb_extension_iceberg
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.table import StaticTable

from evert_server import binary, wait_until
from s3_server import Bucket

UTC = datetime.timezone.utc
PAYMENTS = """CREATE TABLE payments (
    payment_id text PRIMARY KEY, merchant_id text, amount numeric(12,2), status text, paid_at timestamptz
) WITH (topic='payments', format='json', partitions=3)"""


def reached(server, archive: str, seconds: float = 30) -> int:
    """Waits until an archive has all there is now, and returns its position."""
    # The views may be behind the log: its own end counts.
    end = json.loads(server.get("/readyz")[1])["log_end"]

    def position():
        rows = server.query(f"SELECT state, position FROM evert.views WHERE name = '{archive}'")
        assert rows and not rows[0][0].startswith("failed"), rows
        return rows[0][1] if rows[0][1] >= end else None

    return wait_until(position, seconds, f"{archive} reaches {end}")


def lake(server) -> RestCatalog:
    return RestCatalog("evert", uri=f"http://{server.http}/iceberg")


def facts_of_log(server, topic: str, partitions: int) -> list[tuple]:
    """Every record: partition, offset, key, value; read by another implementation of Kafka."""
    consumer = Consumer({"bootstrap.servers": server.kafka, "group.id": "reader", "enable.auto.commit": False})
    facts = []
    for partition in range(partitions):
        place = TopicPartition(topic, partition)
        low, high = consumer.get_watermark_offsets(place, timeout=10)
        place.offset = low
        consumer.assign([place])
        while len([fact for fact in facts if fact[0] == partition]) < high - low:
            message = consumer.poll(10)
            assert message is not None and message.error() is None, message
            value = message.value()
            facts.append(
                (partition, message.offset(), message.key().decode(), value and json.loads(value))
            )
    consumer.close()
    return sorted(facts, key=lambda fact: fact[:2])


def expected_rows(facts: list[tuple]) -> list[tuple]:
    rows = []
    for partition, offset, key, value in facts:
        if value is None:
            rows.append((partition, offset, "d", key, None, None, None))
        else:
            amount = f"{float(value['amount']):.2f}"
            rows.append((partition, offset, "u", key, value["merchant_id"], amount, value["status"]))
    return rows


COLUMNS = "kafka_partition, kafka_offset, evert_op, payment_id, merchant_id, amount, status"


def shown(rows) -> list[tuple]:
    """Rows as text, so that each reader's own number types compare."""
    text = [tuple(value if isinstance(value, int | None) else str(value) for value in row) for row in rows]
    return sorted(text, key=lambda row: row[:2])


def iceberg_rows(table) -> list[tuple]:
    batch = table.scan(selected_fields=tuple(COLUMNS.split(", "))).to_arrow()
    return shown(zip(*(batch.column(name).to_pylist() for name in COLUMNS.split(", "))))


def duckdb_rows(table) -> list[tuple]:
    """DuckDB over the files that the snapshot lists."""
    files = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    return shown(duckdb.sql(f"SELECT {COLUMNS} FROM read_parquet({files!r})").fetchall())


def duckdb_lake(server) -> duckdb.DuckDBPyConnection:
    """DuckDB with the server's catalog attached as `lake`."""
    connection = duckdb.connect()
    for module in (duckdb_extension_httpfs, duckdb_extension_avro, duckdb_extension_iceberg):
        [extension] = pathlib.Path(module.__path__[0]).rglob("*.duckdb_extension")
        connection.execute(f"LOAD '{extension}'")
    endpoint = f"http://{server.http}/iceberg"
    connection.execute(f"ATTACH '' AS lake (TYPE iceberg, ENDPOINT '{endpoint}', AUTHORIZATION_TYPE 'none')")
    return connection


def write_payments(server, count: int, seed: int = 1) -> None:
    """Inserts, updates and deletes."""
    rng = random.Random(seed)
    with server.connect(autocommit=False) as connection:
        for start in range(0, count, 50):
            for number in range(start, min(start + 50, count)):
                key = f"p{rng.randrange(count)}"
                if rng.random() < 0.2:
                    connection.execute("DELETE FROM payments WHERE payment_id = %s", (key,))
                else:
                    connection.execute(
                        "INSERT INTO payments VALUES (%s, %s, %s, %s, now())",
                        (key, f"m{number % 7}", number, rng.choice(["captured", "failed"])),
                    )
            connection.commit()


@pytest.mark.timeout(120)
def test_readers_see_what_was_said(server):
    server.query(PAYMENTS)
    server.query(
        "CREATE ARCHIVE payments_archive ON payments TO 'payments' WITH (flush_interval = '200ms')"
    )
    write_payments(server, 400)
    position = reached(server, "payments_archive")
    expected = expected_rows(facts_of_log(server, "payments", 3))
    assert len(expected) > 200

    catalog = lake(server)
    assert catalog.list_namespaces() == [("public",)]
    assert catalog.list_tables("public") == [("public", "payments_archive")]
    assert catalog.table_exists("public.payments_archive") and not catalog.table_exists("public.nothing")
    table = catalog.load_table("public.payments_archive")
    assert table.metadata.format_version == 2
    assert [field.name for field in table.spec().fields] == ["evert_time_day"]
    assert iceberg_rows(table) == expected
    assert duckdb_rows(table) == expected
    # The path alone is enough.
    location = pathlib.Path(table.location().removeprefix("file://"))
    assert location == (server.data / "archives" / "payments").resolve()
    assert iceberg_rows(StaticTable.from_metadata(str(location))) == expected
    duck = duckdb_lake(server)
    assert shown(duck.sql(f"SELECT {COLUMNS} FROM lake.public.payments_archive").fetchall()) == expected
    assert shown(duck.sql(f"SELECT {COLUMNS} FROM iceberg_scan('{location}')").fetchall()) == expected
    with pytest.raises(duckdb.Error):
        duck.execute("INSERT INTO lake.public.payments_archive SELECT * FROM lake.public.payments_archive")

    assert shown(server.query(f"SELECT {COLUMNS} FROM payments_archive")) == expected
    summary = table.current_snapshot().summary.additional_properties
    [(last,)] = server.query("SELECT max(evert_position) FROM payments_archive")
    assert last <= int(summary["evert.position"]) <= position
    assert server.query("SELECT evert_op, count(*) FROM payments_archive WHERE evert_position > %s GROUP BY 1" % last) == []

    current = """SELECT payment_id, merchant_id, amount, status FROM (
        SELECT *, row_number() OVER (
            PARTITION BY payment_id ORDER BY evert_position DESC, kafka_partition DESC, kafka_offset DESC) AS n
        FROM payments_archive) AS facts
        WHERE n = 1 AND evert_op <> 'd' ORDER BY payment_id"""
    rows = server.query("SELECT payment_id, merchant_id, amount, status FROM payments ORDER BY payment_id")
    assert server.query(current) == rows and len(rows) > 50
    [(_, _, stored, wanted, equal, why), *_] = server.query("VERIFY VIEW payments_archive")
    assert equal and stored == wanted == len(expected), why


@pytest.mark.timeout(60)
def test_an_answer_waits_for_its_position(server):
    server.query(PAYMENTS)
    server.query("CREATE ARCHIVE a ON payments TO 'a' WITH (flush_interval = '500ms')")
    with server.connect() as connection:
        connection.execute("INSERT INTO payments VALUES ('p1', 'm1', 1, 'captured', now())")
        [(position,)] = connection.execute("SHOW POSITION").fetchall()
        connection.execute(f"SET evert.after = {position}")
        assert connection.execute("SELECT payment_id FROM a").fetchall() == [("p1",)]


@pytest.mark.timeout(60)
def test_what_makes_no_sense_is_refused(server):
    server.query(PAYMENTS)
    server.query("CREATE MATERIALIZED VIEW v AS SELECT merchant_id, count(*) AS n FROM payments GROUP BY 1")
    for statement in (
        "CREATE ARCHIVE a ON payments TO 'file:///etc/evert'",
        "CREATE ARCHIVE a ON payments TO '../outside'",
        "CREATE ARCHIVE a ON payments TO 'gs://bucket/x'",
        "CREATE ARCHIVE a ON payments TO 'a' WITH (partition_by = 'status')",
        "CREATE ARCHIVE a ON payments TO 'a' WITH (color = 'red')",
        "CREATE ARCHIVE a ON v TO 'a'",
        "CREATE ARCHIVE a ON nothing TO 'a'",
    ):
        with pytest.raises(psycopg.Error):
            server.query(statement)
    assert server.query("SELECT name FROM evert.views WHERE kind = 'archive'") == []
    assert not (server.data / "archives").exists()
    for method, path in (("POST", "/v1/namespaces"), ("DELETE", "/v1/namespaces/public/tables/a"), ("POST", "/v1/namespaces/public/tables")):
        request = urllib.request.Request(f"http://{server.http}/iceberg{path}", method=method, data=b"{}")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        error = json.loads(refused.value.read())["error"]
        assert (refused.value.code, error["type"]) == (406, "UnsupportedOperationException"), error
    status, body = server.get("/iceberg/v1/namespaces/public/tables/nothing")
    assert (status, json.loads(body)["error"]["type"]) == (404, "NoSuchTableException")


@pytest.mark.timeout(240)
def test_nothing_is_missing_or_twice_after_kills(new_server):
    seed = int(os.environ.get("EVERT_SEED", time.time_ns() % 1_000_000))
    print(f"EVERT_SEED={seed}")
    rng = random.Random(seed)
    server = new_server().start()
    server.query("CREATE STREAM facts (n bigint, at timestamptz) WITH (topic='facts', partitions=2)")
    server.query("CREATE ARCHIVE a ON facts TO 'a' WITH (flush_interval = '100ms', snapshot_age = '1s')")
    stopping = threading.Event()

    def produce():
        settings = {"bootstrap.servers": server.kafka, "enable.idempotence": True, "linger.ms": 5}
        producer = Producer(settings | {"message.timeout.ms": 60_000})
        number = 0
        while not stopping.is_set():
            at = datetime.datetime.now(UTC).isoformat()
            producer.produce("facts", json.dumps({"n": number, "at": at}), partition=number % 2)
            number += 1
            if number % 20 == 0:
                producer.poll(0)
                time.sleep(0.01)
        producer.flush(60)

    thread = threading.Thread(target=produce)
    thread.start()
    for _ in range(int(os.environ.get("EVERT_ARCHIVE_KILLS", "6"))):
        time.sleep(rng.uniform(0.3, 1.5))
        server.kill9()
        server.start()
    stopping.set()
    thread.join()
    reached(server, "a")
    table = lake(server).load_table("public.a")
    rows = table.scan(selected_fields=("kafka_partition", "kafka_offset", "n")).to_arrow().to_pylist()
    stored = sorted((row["kafka_partition"], row["kafka_offset"], row["n"]) for row in rows)
    said = server.query("SELECT n FROM facts")
    assert sorted(n for _, _, n in stored) == sorted(n for (n,) in said)
    for partition in (0, 1):
        offsets = [offset for place, offset, _ in stored if place == partition]
        assert offsets == list(range(len(offsets)))
    [(_, _, live, wanted, equal, why), *_] = server.query("VERIFY VIEW a")
    assert equal and live == wanted == len(stored), why
    assert len(table.snapshots()) < 60, "old snapshots go"
    server.terminate()


@pytest.mark.timeout(120)
def test_rebuild_drop_and_schema(server):
    server.query(PAYMENTS)
    server.query("CREATE ARCHIVE a ON payments TO 'a' WITH (flush_interval = '100ms', partition_by = 'paid_at')")
    write_payments(server, 60)
    reached(server, "a")
    first = lake(server).load_table("public.a")
    rows = iceberg_rows(first)
    assert [field.name for field in first.spec().fields] == ["paid_at_day"]
    server.query("REBUILD VIEW a")
    reached(server, "a")
    again = lake(server).load_table("public.a")
    # To readers that hold it, it is the same table, with what it was before.
    former = first.current_snapshot().snapshot_id
    first.refresh()
    assert iceberg_rows(first) == iceberg_rows(again) == rows
    assert first.metadata.table_uuid == again.metadata.table_uuid
    assert again.current_snapshot().snapshot_id != former
    assert len(again.scan(snapshot_id=former).to_arrow()) == len(rows)
    server.query("DROP ARCHIVE a")
    assert lake(server).list_tables("public") == []
    assert iceberg_rows(StaticTable.from_metadata(again.metadata_location)) == rows, "its files stay"
    server.restart()
    server.query("CREATE ARCHIVE b ON payments TO 'a' WITH (flush_interval = '100ms', partition_by = 'paid_at')")
    reached(server, "b")
    assert iceberg_rows(lake(server).load_table("public.b")) == rows, "taken up again"


def refused(server, statement: str) -> str:
    with pytest.raises(psycopg.Error) as error:
        server.query(statement)
    return f"{error.value.sqlstate} {error.value.diag.message_primary}"


@pytest.mark.timeout(60)
def test_what_lies_at_its_place_is_looked_at_first(server):
    server.query("CREATE TABLE ac (id INT PRIMARY KEY, v TEXT, d DATE)")
    server.query("INSERT INTO ac VALUES (1, 'a', '2026-11-21')")
    server.query("CREATE ARCHIVE one ON ac TO 'ac' WITH (flush_interval = '100ms')")
    reached(server, "one")
    wait_until(lambda: server.query("SELECT count(*) FROM one") == [(1,)], 20, "it is written")
    server.query("DROP ARCHIVE one")
    told = refused(server, "CREATE ARCHIVE two ON ac TO 'ac' WITH (partition_by = 'd')")
    assert told.startswith("55000") and "is parted by evert_time, not by d" in told, told
    server.query("CREATE TABLE other (id INT PRIMARY KEY)")
    told = refused(server, "CREATE ARCHIVE two ON other TO 'ac'")
    assert told.startswith("55000") and told.endswith("holds the facts of another relation or log"), told
    # The same records, read as other columns.
    server.query("DROP TABLE ac")
    server.query("CREATE TABLE ac (id INT PRIMARY KEY, v INT)")
    told = refused(server, "CREATE ARCHIVE two ON ac TO 'ac'")
    assert told.startswith("55000") and told.endswith('or has as another type: "v", "d"'), told
    assert server.query("SELECT name FROM evert.views") == []


@pytest.mark.timeout(60)
def test_days_that_are_far_away(server):
    moments = ["infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "100000-01-01 00:00:00+00", "2026-11-21 01:02:03+00"]
    server.query("CREATE TABLE t (id INT PRIMARY KEY, at TIMESTAMPTZ, day DATE)")
    server.query("CREATE ARCHIVE a ON t TO 'a' WITH (flush_interval = '100ms', partition_by = 'at')")
    server.query("CREATE ARCHIVE d ON t TO 'd' WITH (flush_interval = '100ms', partition_by = 'day')")
    for number, moment in enumerate(moments):
        server.query(f"INSERT INTO t VALUES ({number}, '{moment}', '{moment}')")
    assert server.query("SELECT reason FROM evert.errors") == []
    for archive in ("a", "d"):
        reached(server, archive)
        rows = f"SELECT at::text FROM {archive} ORDER BY id"
        wait_until(lambda: [row[0] for row in server.query(rows)] == moments, 20, "all is written")
        [(*_, equal, why)] = server.query(f"VERIFY ARCHIVE {archive}")
        assert equal, why
        table = lake(server).load_table(f"public.{archive}")
        [id] = table.scan(row_filter="id = 4 and at > '2026-01-01T00:00:00+00:00'").to_arrow()["id"].to_pylist()
        assert id == 4


@pytest.mark.timeout(60)
def test_a_column_of_which_older_records_have_told(server):
    server.query("CREATE TABLE t (id INT PRIMARY KEY) WITH (topic = 't')")
    server.query("CREATE ARCHIVE a ON t TO 'a' WITH (flush_interval = '100ms')")
    producer = Producer({"bootstrap.servers": server.kafka})
    producer.produce("t", key="1", value=json.dumps({"id": 1, "w": 5}))
    producer.flush(10)
    reached(server, "a")
    wait_until(lambda: server.query("SELECT id FROM a") == [(1,)], 20, "it is written")
    former = lake(server).load_table("public.a")
    for column, rows in (("w", [(1, 5), (2, 6)]), ("nobody_s", [(1, 5), (2, 6), (3, 7)])):
        server.query(f"ALTER TABLE t ADD COLUMN {column} INT")
        server.query("INSERT INTO t (id, w) VALUES (%s, %s)" % rows[-1])
        reached(server, "a")
        wait_until(lambda: server.query("SELECT id, w FROM a ORDER BY 1") == rows, 20, "all is written")
        [(*_, equal, why)] = server.query("VERIFY ARCHIVE a")
        assert equal, why
    assert lake(server).load_table("public.a").metadata.table_uuid == former.metadata.table_uuid


@pytest.mark.timeout(60)
def test_arrays_and_columns_that_come_later(server):
    server.query("CREATE TABLE t (id INT PRIMARY KEY, tags TEXT[])")
    server.query("INSERT INTO t VALUES (1, ARRAY['a', NULL, 'b,c']), (2, NULL), (3, ARRAY[]::text[])")
    server.query("CREATE ARCHIVE a ON t TO 'a' WITH (flush_interval = '100ms')")
    reached(server, "a")
    server.query("ALTER TABLE t ADD COLUMN n BIGINT[]")
    server.query("ALTER TABLE t ADD COLUMN x NUMERIC(5,2)")
    server.query("INSERT INTO t VALUES (4, ARRAY['d'], ARRAY[1, -2], 1.5)")
    reached(server, "a")
    rows = [(1, ["a", None, "b,c"], None, None), (2, None, None, None), (3, [], None, None), (4, ["d"], [1, -2], 1.5)]
    read = "SELECT id, tags, n, x FROM a ORDER BY id"
    wait_until(lambda: len(server.query(read)) == 4, 20, "all is written")
    assert [(*row[:3], row[3] and float(row[3])) for row in server.query(read)] == rows
    arrow = lake(server).load_table("public.a").scan().to_arrow().sort_by("id").to_pylist()
    assert [(row["tags"], row["n"]) for row in arrow] == [row[1:3] for row in rows]
    [(*_, equal, why)] = server.query("VERIFY ARCHIVE a")
    assert equal, why
    told = refused(server, "ALTER TABLE t ADD COLUMN kafka_offset BIGINT")
    assert told.endswith('archive "a" reads "t": column "kafka_offset": an archive has one of that name'), told
    assert server.query("SELECT state FROM evert.views WHERE name = 'a'") == [("live",)]
    # Programs that list what can be read list it.
    columns = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'a' ORDER BY ordinal_position"
    assert server.query(columns)[:3] == [("id", "integer"), ("tags", "ARRAY"), ("n", "ARRAY")]
    assert server.query("SELECT relkind FROM pg_class WHERE relname = 'a'") == [("m",)]


def export(server, *arguments: str) -> bytes:
    url = f"postgres://evert@{server.sql}/evert"
    done = subprocess.run(
        [binary(), "export", "--url", url, *arguments], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.timeout(120)
def test_an_export_is_exact_and_the_same_tomorrow(server, tmp_path):
    server.query(PAYMENTS)
    write_payments(server, 200)
    [(position,)] = server.query("SHOW POSITION")
    query = "SELECT merchant_id, sum(amount) AS captured, count(*) AS n FROM payments WHERE status = 'captured' GROUP BY merchant_id"
    rows = server.query(query + " ORDER BY 1")
    first = export(server, "--query", query, "--as-of", str(position), "--format", "csv")
    write_payments(server, 100, seed=2)
    assert server.query(query + " ORDER BY 1") != rows
    read = list(csv.reader(io.StringIO(first.decode())))
    assert read[0] == ["merchant_id", "captured", "n"]
    assert read[1:] == [[merchant, str(captured), str(n)] for merchant, captured, n in rows]
    all_rows = "SELECT * FROM payments"
    files = []
    for turn in range(2):
        out = tmp_path / f"{turn}.parquet"
        export(server, "--query", all_rows, "--as-of", str(position), "--format", "parquet", "--out", str(out))
        files.append(out.read_bytes())
        assert export(server, "--query", query, "--as-of", str(position), "--format", "csv") == first
        server.restart()
    assert files[0] == files[1]
    [(count, total)] = duckdb.sql(f"SELECT count(*), sum(amount) FROM read_parquet('{tmp_path}/0.parquet')").fetchall()
    assert [(count, total)] == server.query(f"SELECT count(*), sum(amount) FROM payments AS OF POSITION {position}")
    bad = subprocess.run(
        [binary(), "export", "--url", f"postgres://evert@{server.sql}/evert", "--query", "SELECT nothing", "--as-of", "1", "--format", "csv", "--out", str(tmp_path / "bad.csv")],
        capture_output=True, timeout=60, check=False,
    )
    assert bad.returncode != 0 and not (tmp_path / "bad.csv").exists()


def test_an_archive_whose_directory_is_gone_says_so(server):
    server.query("CREATE TABLE a (id INT PRIMARY KEY, v INT)")
    server.query("INSERT INTO a SELECT g, g FROM generate_series(1, 100) AS g")
    server.query("CREATE ARCHIVE ar ON a TO 'ar' WITH (flush_interval='300ms')")
    reached(server, "ar")
    state = "SELECT state, rows FROM evert.views WHERE name = 'ar'"
    wait_until(lambda: server.query(state) == [("live", 100)], 20, "all is written")
    [place] = pathlib.Path(server.data).rglob("archives/ar")
    shutil.rmtree(place)
    failed = wait_until(
        lambda: next((row[0] for row in server.query(state) if row[0].startswith("failed")), None), 10, "it says so"
    )
    assert "the table is gone; REBUILD ARCHIVE" in failed
    server.query("INSERT INTO a VALUES (200, 1)")
    server.query("REBUILD ARCHIVE ar")
    reached(server, "ar")
    wait_until(lambda: server.query("SELECT count(*) FROM ar") == [(101,)], 20, "it is written anew")


@pytest.mark.timeout(120)
def test_a_bucket_holds_an_archive(new_server):
    bucket = Bucket()
    try:
        server = new_server(env=bucket.env).start()
        server.query("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        server.query("CREATE ARCHIVE a ON t TO 's3://lake/t' WITH (flush_interval = '100ms')")
        server.query("INSERT INTO t SELECT g, g FROM generate_series(1, 100) AS g")
        reached(server, "a")
        # Commits whose answers are lost are made once; so is one that a kill cuts off.
        bucket.lose_answer_of = [".metadata.json", ".parquet", ".avro", "version-hint.text"]
        for key in range(200, 204):
            server.query(f"INSERT INTO t VALUES ({key}, 0)")
            reached(server, "a")
        assert bucket.lose_answer_of == []
        server.query("DELETE FROM t WHERE id = 200")
        server.kill9()
        server.start()
        reached(server, "a")
        wait_until(lambda: server.query("SELECT count(*), max(v) FROM a") == [(105, 100)], 20, "all is written")
        [(*_, equal, why)] = server.query("VERIFY ARCHIVE a")
        assert equal, why
        options = {"s3.endpoint": bucket.url, "s3.access-key-id": "k", "s3.secret-access-key": "s", "s3.region": "us-east-1"}
        table = RestCatalog("evert", uri=f"http://{server.http}/iceberg", **options).load_table("public.a")
        ids = table.scan(selected_fields=("id",)).to_arrow()["id"].to_pylist()
        assert sorted(ids) == sorted([*range(1, 101), *range(200, 204), 200])
        bucket.is_down = True
        server.query("INSERT INTO t VALUES (300, 0)")
        state = "SELECT state FROM evert.views WHERE name = 'a'"
        wait_until(lambda: server.query(state)[0][0].startswith("retrying: "), 40, "it is tried again")
        bucket.is_down = False
        reached(server, "a", 60)
        wait_until(lambda: server.query("SELECT count(*) FROM a") == [(106,)], 20, "it goes on")
    finally:
        bucket.stop()
