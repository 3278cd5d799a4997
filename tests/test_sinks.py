"""Sinks into a real Postgres, a real Redis and a Kafka broker: equal to the view, whatever is killed when."""

import json
import random
import threading
import time

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from evert_server import wait_until
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

    for statement, code, hint in [
        (f"CREATE SINK k ON by_city INTO POSTGRES '{url}' TABLE t", "42P07", None),
        (f"CREATE SINK x ON nothing INTO POSTGRES '{url}' TABLE t", "42P01", None),
        (f"CREATE SINK x ON by_city INTO POSTGRES '{url}' TABLE t WITH (bad = 1)", "22023", "Options are"),
        ("CREATE SINK x ON by_city INTO ORACLE 'url'", "0A000", "POSTGRES, REDIS or KAFKA"),
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
    server.query("DROP MATERIALIZED VIEW by_city CASCADE")
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
