"""Sinks into a real Postgres, a real Redis and a Kafka broker: equal to the view, whatever is killed when."""

import json
import random
import threading
import time

import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from evert_server import wait_until
from redis import Redis as Client
from redis_server import Redis

BY_CITY = "SELECT city, count(*) AS n, sum(amount) AS total FROM orders GROUP BY city"


@pytest.fixture
def server(new_server):
    return new_server().start()


@pytest.fixture
def redis():
    redis = Redis()
    try:
        yield redis.start()
    finally:
        redis.remove()


def orders(server, rows: int = 300) -> None:
    server.query("CREATE TABLE orders (id bigint PRIMARY KEY, city text, amount bigint)")
    values = ", ".join(f"({i}, 'city {i % 7}', {i % 5})" for i in range(rows))
    server.query(f"INSERT INTO orders VALUES {values}")
    server.query(f"CREATE MATERIALIZED VIEW by_city AS {BY_CITY}")


def state(server, name: str) -> str:
    [(state,)] = server.query(f"SELECT state FROM evert.views WHERE name = '{name}'")
    return state


def live(server, name: str, seconds: float = 40) -> None:
    wait_until(lambda: state(server, name) == "live", seconds, f"{name} is live")


def told(server, name: str, part: str, seconds: float = 20) -> str:
    """The state of a sink once it holds `part`: between two tries it is another."""

    def holding():
        now = state(server, name)
        return now if part in now else None

    return wait_until(holding, seconds, f"{name} says {part!r}")


def caught_up(server, name: str, seconds: float = 40) -> None:
    """Waits until a sink is where the log was when this was called."""
    with server.connect() as connection:
        # A session's position is that of its last write: the log's end.
        connection.execute("CREATE TABLE IF NOT EXISTS marks (id bigint PRIMARY KEY)")
        connection.execute("INSERT INTO marks VALUES (1)")
        [position] = connection.execute("SHOW POSITION").fetchone()
    reached = f"SELECT position FROM evert.views WHERE name = '{name}'"
    wait_until(lambda: server.query(reached)[0][0] >= int(position), seconds, f"{name} is at {position}")


class Load:
    """Facts that come, change and go, until the server is killed; each statement may or may not have happened."""

    def __init__(self, server, seed: int):
        self.server, self.random = server, random.Random(seed)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            with self.server.connect() as connection:
                while not self.stop.is_set():
                    key = self.random.randrange(400)
                    if self.random.random() < 0.3:
                        connection.execute(f"DELETE FROM orders WHERE id = {key}")
                    else:
                        city, amount = self.random.randrange(9), self.random.randrange(100)
                        connection.execute(f"INSERT INTO orders VALUES ({key}, 'city {city}', {amount})")
        except psycopg.Error:
            return

    def end(self) -> None:
        self.stop.set()
        self.thread.join()


def kill_under_load(server, cycles: int = 3) -> None:
    chance = random.Random(11)
    for cycle in range(cycles):
        load = Load(server, cycle)
        time.sleep(chance.uniform(0.3, 1.2))
        server.kill9()
        load.end()
        server.start()
    load = Load(server, cycles)
    time.sleep(0.5)
    load.end()


def check_verdict(server, sink: str) -> None:
    rows = server.query(f"VERIFY SINK {sink}")
    assert rows[0][4] is True and rows[0][2] == rows[0][3], rows


@pytest.mark.timeout(180)
def test_postgres_is_equal_whatever_is_killed(server, postgres):
    orders(server)
    server.query(f"CREATE SINK all_orders ON orders INTO POSTGRES '{postgres.url}' TABLE orders WITH (create = 'on')")
    server.query(f"CREATE SINK k FROM by_city INTO POSTGRES '{postgres.url}' TABLE by_city WITH (create = 'on')")
    live(server, "k")
    kill_under_load(server)
    # The target crashes too.
    load = Load(server, 99)
    time.sleep(0.3)
    postgres.restart(how=9)
    time.sleep(0.5)
    load.end()
    for sink, relation in (("all_orders", "orders"), ("k", "by_city")):
        caught_up(server, sink)
        query = f"SELECT * FROM {relation} ORDER BY 1"
        assert server.query(query) == [tuple(row) for row in postgres.query(query)]
        check_verdict(server, sink)
    # VERIFY sees what somebody else has done, and REBUILD mends it.
    postgres.execute("UPDATE by_city SET n = n + 1 WHERE city = 'city 1'", "DELETE FROM by_city WHERE city = 'city 2'")
    rows = server.query("VERIFY SINK k")
    assert rows[0][4] is False and rows[0][5] == "2 rows differ", rows
    server.query("REBUILD SINK k")
    check_verdict(server, "k")


def test_a_target_that_is_down_delays_only_its_sink(server, postgres):
    orders(server)
    server.query(f"CREATE SINK k ON by_city INTO POSTGRES '{postgres.url}' TABLE t WITH (create = 'on')")
    live(server, "k")
    postgres.stop()
    server.query("INSERT INTO orders VALUES (1000, 'Pune', 7)")
    assert server.query("SELECT total FROM by_city WHERE city = 'Pune'") == [(7,)]
    wait_until(lambda: state(server, "k").startswith("retrying: Postgres"), 20, "it is retried")
    postgres.start()
    caught_up(server, "k", 60)
    assert postgres.query("SELECT n, total FROM t WHERE city = 'Pune'") == [(1, 7)]
    assert state(server, "k") == "live"


def test_sinks_that_begin_at_once_do_not_hinder_each_other(server, postgres):
    orders(server)
    names = [f"k{number}" for number in range(8)]
    for name in names:
        server.query(f"CREATE SINK {name} ON by_city INTO POSTGRES '{postgres.url}' TABLE {name} WITH (create = 'on')")
    for name in names:
        live(server, name)
        check_verdict(server, name)
    assert "tried again" not in server.log(), server.log_tail()


def test_a_table_that_has_vanished_is_filled_anew(server, postgres):
    orders(server)
    server.query(f"CREATE SINK k ON by_city INTO POSTGRES '{postgres.url}' TABLE t WITH (create = 'on')")
    live(server, "k")

    def check_equal() -> None:
        caught_up(server, "k")
        live(server, "k")
        assert sorted(postgres.query("SELECT * FROM t")) == sorted(server.query("SELECT * FROM by_city"))
        check_verdict(server, "k")

    # While it follows; while it is paused; while the server is down.
    postgres.execute("DROP TABLE t")
    server.query("INSERT INTO orders VALUES (1000, 'Pune', 7)")
    check_equal()
    server.query("PAUSE SINK k")
    postgres.execute("ALTER TABLE t RENAME TO old")
    server.query("RESUME SINK k")
    server.query("INSERT INTO orders VALUES (1001, 'Pune', 7)")
    check_equal()
    server.terminate()
    postgres.execute("DROP TABLE t")
    server.start()
    server.query("INSERT INTO orders VALUES (1002, 'Pune', 7)")
    check_equal()


def test_a_row_that_postgres_refuses_is_named_and_mended(server, postgres):
    server.query("CREATE TABLE orders (id bigint PRIMARY KEY, note text, qty bigint)")
    server.query("INSERT INTO orders VALUES (1, 'a', 1)")
    # Looked at row by row; and only at the end of a transaction.
    for table, constraint in (("t", "CHECK (qty > 0)"), ("u", "UNIQUE (qty) DEFERRABLE INITIALLY DEFERRED")):
        postgres.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, note text, qty bigint, {constraint})")
        server.query(f"CREATE SINK {table} ON orders INTO POSTGRES '{postgres.url}' TABLE {table}")
        live(server, table)
    values = ", ".join(f"({i}, 'n', {i})" for i in range(2, 500))
    server.query(f"INSERT INTO orders VALUES {values}, (500, 'bad', -5), (501, 'n', 501)")
    why = told(server, "t", "the row of id = 500 is refused")
    assert why.startswith('retrying: Postgres: new row for relation "t" violates check constraint'), why
    server.query("INSERT INTO orders VALUES (502, 'twin', 501)")
    wait_until(lambda: "duplicate key" in state(server, "u"), 20, "twins are refused")
    # What comes after a refused row waits for it, so that nothing is there of a later position.
    assert postgres.query("SELECT count(*) FROM t") == [(1,)]
    server.query("DELETE FROM orders WHERE id = 500")
    server.query("UPDATE orders SET qty = 502 WHERE id = 502")
    for table in ("t", "u"):
        caught_up(server, table)
        live(server, table)
        check_verdict(server, table)
    # A row that is bad for one commit only is never told.
    server.query("PAUSE SINK t")
    server.query("INSERT INTO orders VALUES (600, 'bad', -1)")
    server.query("INSERT INTO orders VALUES (600, 'good', 600)")
    server.query("RESUME SINK t")
    caught_up(server, "t")
    assert postgres.query("SELECT note FROM t WHERE id = 600") == [("good",)]


def test_dates_that_are_far_away(server, postgres):
    server.query("CREATE TABLE t (id int PRIMARY KEY, at timestamptz, ts timestamp, d date)")
    server.query(f"CREATE SINK k ON t INTO POSTGRES '{postgres.url}' TABLE t WITH (create = 'on')")
    moments = ["infinity", "-infinity", "4713-01-01 BC", "0001-12-31 BC", "0001-01-01", "9999-12-31", "12345-01-02", "260000-02-29"]
    for number, moment in enumerate(moments):
        server.query(f"INSERT INTO t VALUES ({number}, '{moment}', '{moment}', '{moment}')")
    caught_up(server, "k")
    query = "SELECT at::text, ts::text, d::text FROM t ORDER BY id"
    rows = postgres.query(query)
    assert [row[2] for row in rows] == moments
    assert server.query(query) == [tuple(row) for row in rows]
    check_verdict(server, "k")


def test_a_text_that_postgres_cannot_hold_is_no_row(server, postgres):
    server.query("CREATE TABLE nu (id bigint PRIMARY KEY, s text)")
    server.query(f"CREATE SINK nus ON nu INTO POSTGRES '{postgres.url}' TABLE nu WITH (create = 'on')")
    producer = Producer({"bootstrap.servers": server.addresses["kafka"]})
    for key, text in (("1", "a"), ("2", "a\0b"), ("3", "c")):
        producer.produce("nu", key=key, value=json.dumps({"id": int(key), "s": text}))
    producer.flush()
    caught_up(server, "nus")
    assert postgres.query("SELECT id FROM nu ORDER BY id") == [(1,), (3,)]
    [(reason,)] = server.query("SELECT reason FROM evert.errors")
    assert reason == 'column "s": a text cannot hold U+0000'
    # JSON may have the escape; the text that it stands for is nowhere.
    server.query("CREATE TABLE j (id bigint PRIMARY KEY, d json)")
    server.query("CREATE MATERIALIZED VIEW texts AS SELECT id, d->>'a' AS a FROM j")
    server.query("""INSERT INTO j VALUES (1, '{"a": "x\\u0000y"}'), (2, '{"a": "b"}')""")
    with pytest.raises(psycopg.errors.UntranslatableCharacter):
        server.query("SELECT d->>'a' FROM j")
    assert server.query("SELECT * FROM texts") == [(2, "b")]
    reasons = [row[0] for row in server.query("SELECT reason FROM evert.errors WHERE relation = 'texts'")]
    assert reasons == ["unsupported Unicode escape sequence: \\u0000 cannot be converted to text"]


def test_mistakes_are_told_and_secrets_are_not(server, postgres):
    orders(server, 10)
    url = postgres.url.replace("postgres@", "postgres:s3cret@")
    server.query(f"CREATE SINK k ON by_city INTO POSTGRES '{url}' TABLE t")
    wait_until(lambda: "does not exist in the target" in state(server, "k"), 20, "the table is missed")
    [(definition,)] = server.query("SELECT definition FROM evert.views WHERE name = 'k'")
    assert definition == f"CREATE SINK k ON by_city INTO POSTGRES '{url.replace('s3cret', '***')}' TABLE t"
    postgres.execute("CREATE TABLE t (city text, n int, total bigint)")
    wait_until(lambda: "unique index over exactly (city)" in state(server, "k"), 20, "the key is missed")
    postgres.execute("ALTER TABLE t ADD PRIMARY KEY (city)", "INSERT INTO t VALUES ('mine', 1, 1)")
    wait_until(lambda: "failed: table \"t\" is not empty" in state(server, "k"), 20, "the rows are spared")
    assert postgres.query("SELECT city FROM t") == [("mine",)]
    server.query("DROP SINK k")
    server.query(f"CREATE SINK k ON by_city INTO POSTGRES '{url}' TABLE t WITH (existing = 'replace')")
    live(server, "k")
    assert sorted(postgres.query("SELECT * FROM t")) == sorted(server.query("SELECT * FROM by_city"))
    assert "s3cret" not in server.log()

    server.query("CREATE MATERIALIZED VIEW cities AS SELECT city FROM orders")
    server.query("CREATE STREAM events (a int)")
    server.query("CREATE MATERIALIZED VIEW seen AS SELECT a FROM events WHERE a > 0")
    # Rows without a key can be kept where none ever leaves.
    server.query(f"CREATE SINK s ON seen INTO POSTGRES '{url}' TABLE seen WITH (create = 'on')")
    server.query("INSERT INTO events VALUES (1), (0), (1)")
    caught_up(server, "s")
    assert postgres.query("SELECT a FROM seen") == [(1,), (1,)]
    for statement, code, hint in [
        (f"CREATE SINK k ON by_city INTO POSTGRES '{url}' TABLE t", "42P07", None),
        (f"CREATE SINK x ON nothing INTO POSTGRES '{url}' TABLE t", "42P01", None),
        (f"CREATE SINK x ON by_city INTO POSTGRES '{url}' TABLE t WITH (bad = 1)", "22023", "Options are"),
        ("CREATE SINK x ON by_city INTO ORACLE 'url'", "0A000", "POSTGRES, REDIS or KAFKA"),
        (f"CREATE SINK x ON cities INTO POSTGRES '{url}' TABLE u", "55000", "GROUP BY columns are its key"),
        ("CREATE SINK x ON seen INTO REDIS 'redis://localhost'", "55000", "GROUP BY columns are its key"),
        ("DROP TABLE k", "42809", "DROP SINK"),
        ("DROP MATERIALIZED VIEW by_city", "2BP01", "CASCADE"),
        ("DROP SINK nothing", "42704", None),
        ("PAUSE SINK nothing", "42P01", None),
    ]:
        with pytest.raises(psycopg.Error) as error:
            server.query(statement)
        assert error.value.sqlstate == code, (statement, error.value)
        assert hint is None or hint in error.value.diag.message_hint, statement
        assert "s3cret" not in str(error.value)
    server.query("DROP SINK IF EXISTS nothing")
    for view in ("cities", "seen", "by_city"):
        server.query(f"DROP MATERIALIZED VIEW {view} CASCADE")
    assert server.query("SELECT name FROM evert.views") == []
    # The rows stay; that they are a sink's is forgotten.
    assert postgres.query("SELECT count(*) FROM evert_sink_positions") == [(0,)]
    assert postgres.query("SELECT count(*) FROM t")[0][0] > 0


def test_a_replaced_view_and_a_pause(server, postgres):
    orders(server, 50)
    server.query(f"CREATE SINK k ON by_city INTO POSTGRES '{postgres.url}' TABLE t WITH (create = 'on')")
    live(server, "k")
    server.query("PAUSE SINK k")
    server.query("INSERT INTO orders VALUES (1000, 'Pune', 7)")
    assert state(server, "k") == "paused"
    assert postgres.query("SELECT * FROM t WHERE city = 'Pune'") == []
    # Where it stands is known without its target.
    stands = "SELECT state, position, lag_records, rows FROM evert.views WHERE name = 'k'"
    [standing] = server.query(stands)
    assert standing[2:] == (1, 7), standing
    postgres.stop()
    server.restart()
    server.query("SELECT count(*) FROM by_city")
    for _ in range(3):
        assert server.query(stands) == [standing]
        time.sleep(0.2)
    postgres.start()
    server.query("RESUME SINK k")
    caught_up(server, "k")
    assert len(postgres.query("SELECT * FROM t WHERE city = 'Pune'")) == 1
    # Other rows with the same columns: the target has those, and only those.
    filtered = BY_CITY.replace("GROUP", "WHERE amount > 2 GROUP")
    server.query(f"CREATE OR REPLACE MATERIALIZED VIEW by_city AS {filtered}")
    caught_up(server, "k")
    live(server, "k")
    check_verdict(server, "k")
    assert sorted(postgres.query("SELECT * FROM t")) == sorted(server.query("SELECT * FROM by_city"))


def test_a_stream_is_appended(server, postgres):
    server.query("CREATE STREAM clicks (who text, at timestamptz, doc json)")
    row = "('a\tb', '2026-01-02 03:04:05.678901+00', '{\"x\": [1]}'), (NULL, NULL, NULL)"
    server.query(f"INSERT INTO clicks VALUES {row}")
    server.query(f"CREATE SINK k ON clicks INTO POSTGRES '{postgres.url}' TABLE clicks WITH (create = 'on')")
    live(server, "k")
    server.query(f"INSERT INTO clicks VALUES {row}")
    server.restart()
    server.query(f"INSERT INTO clicks VALUES {row}")
    caught_up(server, "k")
    assert postgres.query("SELECT who, count(*) FROM clicks GROUP BY 1 ORDER BY 1") == [("a\tb", 3), (None, 3)]
    check_verdict(server, "k")


@pytest.mark.timeout(180)
def test_redis_is_equal_whatever_is_killed(server, redis):
    orders(server)
    server.query("INSERT INTO orders VALUES (1000, NULL, 7)")
    server.query(f"CREATE SINK k ON by_city INTO REDIS '{redis.url}' WITH (prefix = 'city:')")
    live(server, "k")
    kill_under_load(server)
    caught_up(server, "k")

    def expected() -> dict[str, dict[str, str]]:
        rows = server.query("SELECT city, n, total FROM by_city")
        names = ("city", "n", "total")
        return {
            f"city:{row[0] if row[0] is not None else chr(0)}": {
                name: str(value) for name, value in zip(names, row) if value is not None
            }
            for row in rows
        }

    assert redis.rows("city:") == expected()
    check_verdict(server, "k")
    # Keys that the server loses come back.
    redis.command("FLUSHALL")
    server.query("INSERT INTO orders VALUES (1001, 'Pune', 7)")
    caught_up(server, "k")
    live(server, "k")
    assert redis.rows("city:") == expected()


def test_a_hash_is_as_the_key_value_door_shows_it(server, redis):
    server.query(
        "CREATE TABLE t (at timestamptz PRIMARY KEY, ts timestamp, d date, f double precision, r real, o boolean,"
        " n numeric(10,2), b bytea, j json, u uuid, a text[])"
    )
    server.query(
        "INSERT INTO t VALUES ('2026-11-21 01:02:03.5+05:30', '2026-11-21 01:02:03', '12345-01-02', 1e20, 0.1, true, 12.5,"
        " '\\x00ff', '{\"a\": 1}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', ARRAY['a,b', NULL]),"
        " ('4713-01-01 BC', NULL, 'infinity', 'NaN', '-Infinity', false, 0, '', 'null', NULL, NULL)"
    )
    server.query(f"CREATE SINK k ON t INTO REDIS '{redis.url}' WITH (prefix = 't:')")
    live(server, "k")
    host, port = server.address("keyvalue")
    door = Client(host=host, port=port, decode_responses=True)
    keys = sorted(door.scan_iter(match="t:*"))
    assert keys == ["t:2026-11-20 19:32:03.5+00", "t:4713-01-01 00:00:00+00 BC"]
    assert redis.rows("t:") == {key: door.hgetall(key) for key in keys}
    check_verdict(server, "k")


def read_topic(address: str, topic: str) -> list:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.auto.commit": False})
    try:
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
        consumer.assign([TopicPartition(topic, 0, 0)])
        records = []
        while len(records) < high:
            message = consumer.poll(10)
            assert message is not None and not message.error(), message
            records.append((message.key(), message.value(), dict(message.headers())))
        return records
    finally:
        consumer.close()


@pytest.mark.timeout(180)
def test_a_topic_adds_up_to_the_view_and_nothing_is_told_twice(server, new_server):
    broker = new_server().start()
    broker.query("CREATE STREAM raw (x text) WITH (topic = 'cities')")
    orders(server)
    server.query(f"CREATE SINK k ON by_city INTO KAFKA '{broker.kafka}' TOPIC cities")
    live(server, "k")
    kill_under_load(server)
    caught_up(server, "k")
    told, last = {}, {}
    for key, value, headers in read_topic(broker.kafka, "cities"):
        assert int(headers["evert.position"]) > 0
        assert key not in last or last[key] != value, f"{key} is told twice"
        last[key] = value
        if value is None:
            told.pop(key)
        else:
            told[key] = json.loads(value)
    rows = server.query("SELECT city, n, total FROM by_city")
    assert {key.decode(): (row["n"], int(row["total"])) for key, row in told.items()} == {
        city: (n, int(total)) for city, n, total in rows
    }
    check_verdict(server, "k")


def test_a_broker_that_is_gone_is_told(server, new_server):
    broker = new_server().start()
    broker.query("CREATE STREAM raw (x text) WITH (topic = 'cities')")
    orders(server)
    server.query(f"CREATE SINK k ON by_city INTO KAFKA '{broker.kafka}' TOPIC cities")
    live(server, "k")
    broker.kill9()
    server.query("INSERT INTO orders VALUES (1000, 'Pune', 7)")
    wait_until(lambda: state(server, "k").startswith("retrying: Kafka"), 5, "it is retried")
    server.query("INSERT INTO orders VALUES (1001, 'Pune', 7)")
    broker.start()
    caught_up(server, "k", 60)
    live(server, "k")
    told = [json.loads(value)["n"] for key, value, _ in read_topic(broker.kafka, "cities") if key == b"Pune"]
    assert told == [2], "what could not be told is told once, as it is now"
    check_verdict(server, "k")
    # Without anything to tell it is noticed too, a little later.
    broker.kill9()
    server.query("CREATE TABLE other (id bigint PRIMARY KEY)")
    server.query("INSERT INTO other VALUES (1)")
    wait_until(lambda: state(server, "k").startswith("retrying: Kafka"), 15, "it is retried")


def test_a_record_that_a_topic_refuses_is_named_and_mended(server, new_server):
    broker = new_server().start()
    admin = AdminClient({"bootstrap.servers": broker.kafka})
    admin.create_topics([NewTopic("small", 1, 1, config={"max.message.bytes": "2000"})])["small"].result(10)
    server.query("CREATE TABLE t (id int PRIMARY KEY, v text)")
    server.query(f"CREATE SINK k ON t INTO KAFKA '{broker.kafka}' TOPIC small")
    live(server, "k")
    server.query("INSERT INTO t VALUES (1, 'a'), (2, repeat('x', 5000)), (3, 'c')")
    why = told(server, "k", "MessageTooLarge")
    assert why.endswith("(the record of key 2)"), why
    server.query("DELETE FROM t WHERE id = 2")
    caught_up(server, "k")
    assert sorted(key for key, *_ in read_topic(broker.kafka, "small")) == [b"1", b"3"]
    check_verdict(server, "k")
