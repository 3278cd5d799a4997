"""Views under random facts, against a real Postgres that holds the same rows."""

import decimal
import json
import os
import random
import threading
import time

import psycopg
import pytest
from confluent_kafka import Producer

ROUNDS = int(os.environ.get("EVERT_VIEW_ROUNDS", "40"))

RELATIONS = {
    "customers": "TABLE customers (id int PRIMARY KEY, name text, tier text, city text)",
    "orders": """TABLE orders (order_id bigint PRIMARY KEY, customer int, amount numeric(12,2),
                 status text, rush boolean, placed timestamp)""",
    "events": "STREAM events (customer int, kind text, score int, day date)",
}
KEYS = {"customers": "id", "orders": "order_id", "events": None}

# The same text is a view in Postgres, in this order.
VIEWS = {
    "large_orders": """
        SELECT order_id, customer, amount * 2 AS twice,
               CASE WHEN status = 'paid' THEN 'P' WHEN status IS NULL THEN '?' ELSE upper(status) END AS mark,
               CAST(order_id AS text) AS label
        FROM orders WHERE amount >= 50 AND (rush OR customer % 2 = 0)""",
    "by_customer": """
        SELECT customer, count(*) AS n, count(status) AS known, sum(amount) AS total, min(amount) AS least,
               max(amount) AS most, min(placed) AS first_placed, CAST(avg(amount) AS numeric(20,2)) AS mean
        FROM orders GROUP BY customer""",
    "statuses": """
        SELECT coalesce(status, 'none') AS status, rush, count(*) AS n, max(amount) AS most
        FROM orders GROUP BY coalesce(status, 'none'), rush""",
    "city_kinds": """
        SELECT c.city, e.kind, count(*) AS n, sum(o.amount) AS total, sum(e.score) AS score, max(e.day) AS latest
        FROM orders o JOIN customers c ON o.customer = c.id JOIN events e ON e.customer = c.id
        WHERE o.status IN ('paid', 'open') GROUP BY c.city, e.kind""",
    "pairs": """
        SELECT o.order_id, c.name, o.amount FROM orders o, customers c
        WHERE o.customer = c.id AND c.tier <> 'none' AND o.amount > 20""",
    "cities": "SELECT city, sum(n) AS n, count(*) AS kinds, sum(total) AS total FROM city_kinds GROUP BY city",
    "spenders": """
        SELECT c.tier, count(*) AS n, sum(b.total) AS total, max(b.most) AS most
        FROM by_customer b JOIN customers c ON b.customer = c.id WHERE b.n > 1 GROUP BY c.tier""",
    "busiest": "SELECT kind, count(*) AS n FROM events WHERE score > 0 GROUP BY kind HAVING count(*) > 3",
    "overall": "SELECT count(*) AS n, coalesce(sum(amount), 0) AS total FROM orders",
}


class World:
    """Random facts, sent to Evert as Kafka records and to Postgres as rows."""

    def __init__(self, rng: random.Random, server, postgres):
        self.rng = rng
        self.server = server
        self.oracle = postgres.connect()
        self.ends: dict[tuple[str, int], int] = {}
        self.bad = 0
        for relation in RELATIONS.values():
            self.oracle.execute(f"CREATE {relation.replace('STREAM', 'TABLE')}")
        for name, query in VIEWS.items():
            self.oracle.execute(f"CREATE VIEW {name} AS {query}")

    def advance(self) -> None:
        """Sends a batch of random facts; returns when all are acknowledged."""
        producer = Producer({
            "bootstrap.servers": self.server.kafka,
            "enable.idempotence": True,
            "compression.type": self.rng.choice(["none", "lz4", "zstd", "gzip", "snappy"]),
        })  # fmt: skip
        failed = []

        def note(error, message):
            if error is not None:
                failed.append(error)
                return
            place = (message.topic(), message.partition())
            self.ends[place] = max(self.ends.get(place, -1), message.offset())

        for _ in range(self.rng.choice([1, 5, 50, 400])):
            topic, key, value = self.fact()
            producer.produce(topic, value, key=key, on_delivery=note)
            producer.poll(0)
        assert producer.flush(30) == 0
        assert not failed, failed

    def fact(self) -> tuple[str, bytes | None, bytes | None]:
        """One fact: its row is in Postgres when this returns."""
        rng = self.rng
        kind = rng.choices(["customers", "orders", "events"], [2, 5, 3])[0]
        row = getattr(self, f"random_{kind}")()
        key = KEYS[kind]
        if key is not None:
            self.oracle.execute(f"DELETE FROM {kind} WHERE {key} = %s", [row[key]])
        name = str(row[key]).encode() if key else None
        fate = rng.random()
        if fate < 0.05:
            # Whatever the record was to say, its key has no row until the next good one.
            self.bad += 1
            broken = [b"", b"{", b"null and void", json.dumps({**row, "customer": "x", "id": "y"}).encode()]
            return kind, name, rng.choice(broken)
        if key is not None and fate < 0.2:
            return kind, name, None
        columns = ", ".join(row)
        marks = ", ".join(["%s"] * len(row))
        self.oracle.execute(f"INSERT INTO {kind} ({columns}) VALUES ({marks})", list(row.values()))
        return kind, name, json.dumps(row).encode()

    def random_customers(self) -> dict:
        rng = self.rng
        return {
            "id": rng.randrange(12),
            "name": rng.choice(["Riya", "Amélie", "李雷", "O'Neil", 'a "b"', ""]),
            "tier": rng.choice(["gold", "none", None]),
            "city": rng.choice(["Bengaluru", "Paris", None]),
        }

    def random_orders(self) -> dict:
        rng = self.rng
        return {
            "order_id": rng.randrange(60),
            "customer": rng.choice([*range(12), None]),
            "amount": rng.choice([None, *(f"{rng.randrange(-5000, 20000) / 100:.2f}" for _ in range(9))]),
            "status": rng.choice(["paid", "open", "void", None]),
            "rush": rng.choice([True, False, None]),
            "placed": f"2026-0{rng.randrange(1, 9)}-1{rng.randrange(9)}T1{rng.randrange(9)}:30:00.{rng.randrange(10**6):06}",
        }

    def random_events(self) -> dict:
        rng = self.rng
        return {
            "customer": rng.randrange(12),
            "kind": rng.choice(["click", "view", "buy"]),
            "score": rng.choice([None, rng.randrange(-100, 100)]),
            "day": f"2026-02-{rng.randrange(10, 28)}",
        }

    def check(self, views) -> None:
        """Every view equals Postgres's answer over the same rows, all of them read at one position."""
        with self.server.connect() as connection:
            for (topic, partition), offset in self.ends.items():
                connection.execute(f"WAIT FOR POSITION '{topic}/{partition}@{offset}' TIMEOUT '30s'")
            for name in [*RELATIONS, *views]:
                columns = self.columns(name)
                ours = connection.execute(f"SELECT {columns} FROM {name}").fetchall()
                theirs = self.oracle.execute(f"SELECT {columns} FROM {name}").fetchall()
                assert normal(ours) == normal(theirs), name
            # A query over views is answered from one cut, so that the join agrees, too.
            if {"cities", "overall"} <= set(views):
                query = "SELECT c.city, c.n, o.n, o.total FROM cities c, overall o"
                assert normal(connection.execute(query).fetchall()) == normal(self.oracle.execute(query).fetchall())
            errors = connection.execute(
                "SELECT count(*) FROM evert.errors WHERE topic IN ('customers', 'orders', 'events')"
            ).fetchall()
            assert errors == [(self.bad,)]

    def columns(self, name: str) -> str:
        found = self.oracle.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position", [name]
        )
        return ", ".join(column for (column,) in found.fetchall())


def normal(rows: list[tuple]) -> list[tuple]:
    """Rows as a bag whose numbers compare by value."""

    def value(cell):
        return decimal.Decimal(cell).normalize() if isinstance(cell, (int, decimal.Decimal)) and not isinstance(cell, bool) else cell

    return sorted((tuple(map(value, row)) for row in rows), key=repr)


@pytest.mark.timeout(400)
def test_views_equal_postgres(new_server, postgres):
    seed = int(os.environ.get("EVERT_SEED", time.time_ns() % 1_000_000))
    print(f"EVERT_SEED={seed}")
    rng = random.Random(seed)
    server = new_server().start()
    world = World(rng, server, postgres)
    for name, relation in RELATIONS.items():
        server.query(f"CREATE {relation} WITH (topic='{name}', format='json', partitions={rng.randrange(1, 5)})")
    views: list[str] = []
    waiting = list(VIEWS)
    for _ in range(ROUNDS):
        world.advance()
        # Views arrive meanwhile and are filled from what is already there.
        if waiting and rng.random() < 0.4:
            name = waiting.pop(0)
            server.query(f"CREATE MATERIALIZED VIEW {name} AS {VIEWS[name]}")
            views.append(name)
        end = rng.random()
        if end < 0.05:
            server.restart()
        elif end < 0.1:
            server.kill9()
            server.start()
        if end < 0.7:
            world.check(views)
    for name in waiting:
        server.query(f"CREATE MATERIALIZED VIEW {name} AS {VIEWS[name]}")
    world.check(VIEWS)
    server.restart()
    world.check(VIEWS)
    for name in VIEWS:
        server.verify(name)
    server.check_unharmed()
    server.terminate()


@pytest.mark.timeout(120)
def test_a_statement_sees_one_position(server):
    """Two tables that change in one commit never differ in one SELECT, while views come and go."""
    for side in ("a", "b"):
        server.query(f"CREATE TABLE {side} (id int PRIMARY KEY, amount int)")
        server.query(f"CREATE MATERIALIZED VIEW sum_{side} AS SELECT count(*) AS n, sum(amount) AS total FROM {side}")
    stop = threading.Event()
    wrong: list[str] = []
    commits = [0]

    def write():
        rng = random.Random(7)
        with server.connect(autocommit=False) as connection:
            while not stop.is_set():
                key, amount = rng.randrange(50), rng.randrange(1000)
                try:
                    for side in ("a", "b"):
                        if amount < 200:
                            connection.execute(f"DELETE FROM {side} WHERE id = %s", [key])
                        else:
                            connection.execute(f"INSERT INTO {side} VALUES (%s, %s)", [key, amount])
                    connection.commit()
                    commits[0] += 1
                except psycopg.Error as error:
                    wrong.append(f"writer: {error}")
                    return

    def read():
        query = """SELECT sa.n, sb.n, sa.total, sb.total, (SELECT count(*) FROM a), (SELECT sum(amount) FROM b)
                   FROM sum_a sa, sum_b sb"""
        with server.connect() as connection:
            while not stop.is_set():
                try:
                    [(an, bn, at, bt, rows, total)] = connection.execute(query).fetchall()
                except psycopg.Error as error:
                    wrong.append(f"reader: {error}")
                    return
                if not (an == bn == rows and at == bt == total):
                    wrong.append(f"{an} {bn} {rows}, {at} {bt} {total}")
                answers.append(at)

    answers: list = []
    threads = [threading.Thread(target=work, daemon=True) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and not wrong:
        # A view that hydrates meanwhile joins at a cut and must agree with the older one at once.
        server.query("CREATE MATERIALIZED VIEW late AS SELECT count(*) AS n FROM a")
        for _ in range(20):
            [(late, early)] = server.query("SELECT late.n, sum_a.n FROM late, sum_a")
            assert late == early
        server.query("DROP MATERIALIZED VIEW late")
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert not wrong, wrong[:5]
    assert commits[0] > 100 and len(set(answers)) > 50, (commits, len(set(answers)))


def test_a_session_reads_its_own_writes(server):
    server.query("CREATE TABLE t (id int PRIMARY KEY, amount int)")
    server.query("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(amount) AS total FROM t")
    with server.connect() as connection:
        for id in range(200):
            connection.execute("INSERT INTO t VALUES (%s, %s)", [id, id])
            [(n, total)] = connection.execute("SELECT n, total FROM total").fetchall()
            assert (n, total) == (id + 1, id * (id + 1) // 2)
        [(position,)] = connection.execute("SHOW POSITION").fetchall()
    with server.connect() as other:
        other.execute(f"SET evert.after = '{position}'")
        assert other.execute("SELECT n FROM total").fetchall() == [(200,)]
