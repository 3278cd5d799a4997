"""A view's life: replaced, rebuilt, paused, verified; and one view's trouble that stays its own."""

import json
import threading
import time

import psycopg
import pytest
from confluent_kafka import Producer
from evert_server import wait_until


@pytest.fixture
def server(new_server):
    return new_server().start()


def orders(server, rows: int = 300) -> None:
    server.query("CREATE TABLE orders (id bigint PRIMARY KEY, city text, amount bigint)")
    cities = ["Pune", "Delhi", "Kochi"]
    values = ", ".join(f"({i}, '{cities[i % 3]}', {i % 7})" for i in range(rows))
    server.query(f"INSERT INTO orders VALUES {values}")


def notices_of(connection) -> list[str]:
    notices: list[str] = []
    connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    return notices


BY_CITY = "SELECT city, count(*) AS n, sum(amount) AS total FROM orders GROUP BY city"


def test_replace_is_seen_at_once_by_readers_and_dependents(server):
    orders(server)
    server.query(f"CREATE MATERIALIZED VIEW by_city AS {BY_CITY}")
    server.query("CREATE MATERIALIZED VIEW overall AS SELECT sum(n) AS n, sum(total) AS total FROM by_city")
    [(n, total)] = server.query("SELECT n, total FROM overall")
    assert (n, total) == (300, sum(i % 7 for i in range(300)))

    # Readers never see a mixture of the two definitions, nor an error.
    stop, seen, failures = threading.Event(), set(), []

    def read():
        with server.connect() as connection:
            while not stop.is_set():
                try:
                    query = "SELECT (SELECT sum(total) FROM by_city), total FROM overall"
                    seen.add(connection.execute(query).fetchone())
                except psycopg.Error as error:
                    failures.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    doubled = BY_CITY.replace("sum(amount)", "sum(amount * 2)")
    changes = server.query(f"CREATE OR REPLACE MATERIALIZED VIEW by_city DRY RUN AS {doubled}")
    assert server.query("SELECT total FROM overall") == [(total,)], "a dry run changes nothing"
    by_view = {}
    for view, change, weight, key, before, after, by in changes:
        by_view.setdefault(view, []).append((change, key, by))
    assert set(by_view) == {"by_city", "overall"}
    assert [change for change, _, _ in by_view["by_city"]] == ["summary"] + ["changed"] * 3
    pune = sum(i % 7 for i in range(0, 300, 3))
    assert ("changed", "city=Pune", f"total +{pune}") in by_view["by_city"]
    server.query(f"CREATE OR REPLACE MATERIALIZED VIEW by_city AS {doubled}")
    assert server.query("SELECT total FROM overall") == [(2 * total,)], "dependents follow"
    stop.set()
    reader.join()
    assert not failures, failures[:3]
    assert seen <= {(total, total), (2 * total, 2 * total)}, seen
    for view in ("by_city", "overall"):
        server.verify(view)

    # Other columns; a dependent that needs the old ones is named, and nothing changes.
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="by_city") as refused:
        server.query("CREATE OR REPLACE MATERIALIZED VIEW by_city AS SELECT city FROM orders GROUP BY city")
    assert "overall" in refused.value.diag.message_detail
    server.query("CREATE OR REPLACE MATERIALIZED VIEW overall AS SELECT count(*) AS cities FROM by_city")
    assert server.query("SELECT cities FROM overall") == [(3,)]
    server.query("CREATE OR REPLACE MATERIALIZED VIEW by_city AS SELECT city FROM orders GROUP BY city")
    assert sorted(server.query("SELECT * FROM by_city")) == [("Delhi",), ("Kochi",), ("Pune",)]
    server.restart()
    assert server.query("SELECT cities FROM overall") == [(3,)]
    assert len(server.query("SELECT * FROM by_city")) == 3
    # What is not there yet is made.
    server.query("CREATE OR REPLACE MATERIALIZED VIEW fresh AS SELECT id FROM orders WHERE amount = 0")
    assert len(server.query("SELECT * FROM fresh")) == 43
    with pytest.raises(psycopg.errors.WrongObjectType):
        server.query("CREATE OR REPLACE MATERIALIZED VIEW orders AS SELECT 1 AS a")


def test_pause_stands_still_over_a_restart_and_resume_catches_up(server):
    orders(server)
    server.query(f"CREATE MATERIALIZED VIEW by_city AS {BY_CITY}")
    server.query("CREATE MATERIALIZED VIEW overall AS SELECT sum(n) AS n FROM by_city")
    server.query("CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM orders")
    assert server.query("SELECT n FROM overall") == [(300,)]
    server.query("PAUSE VIEW by_city")
    for _ in range(2):
        with server.connect() as connection:
            notices = notices_of(connection)
            connection.execute("INSERT INTO orders VALUES (1000 + 0, 'Pune', 1) ON CONFLICT (id) DO NOTHING")
            assert connection.execute("SELECT n FROM overall").fetchall() == [(300,)]
            assert any('"overall" is paused at position' in notice for notice in notices), notices
            # What reads it elsewhere reads it where it stands, all at that position.
            both = "SELECT (SELECT count(*) FROM orders), (SELECT sum(n) FROM by_city)"
            assert connection.execute(both).fetchall() == [(300, 300)]
            assert connection.execute("SELECT n FROM other").fetchall() == [(301,)]
        states = dict(server.query("SELECT name, state FROM evert.views"))
        assert states == {"by_city": "paused", "overall": "paused", "other": "live"}
        server.restart()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="because \"by_city\" is"):
        server.query("RESUME VIEW overall")
    server.query("RESUME VIEW by_city")
    assert server.query("SELECT n FROM overall") == [(301,)]
    assert sum(n for _, n, _ in server.query("SELECT * FROM by_city")) == 301
    server.verify("overall")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not paused"):
        server.query("RESUME VIEW by_city")


def test_rebuild_and_drop(server):
    orders(server)
    server.query("CREATE STREAM events (kind text, n bigint)")
    server.query(f"CREATE MATERIALIZED VIEW by_city AS {BY_CITY}")
    server.query("CREATE MATERIALIZED VIEW overall AS SELECT sum(n) AS n FROM by_city")
    server.query("CREATE MATERIALIZED VIEW kinds AS SELECT kind, sum(n) AS n FROM events GROUP BY kind")
    before = sorted(server.query("SELECT * FROM by_city"))
    server.query("REBUILD VIEW by_city, kinds")
    assert sorted(server.query("SELECT * FROM by_city")) == before
    assert server.query("SELECT n FROM overall") == [(300,)]
    server.verify("overall")
    rows = server.query("VERIFY VIEW by_city")
    assert [row[2:] for row in rows] == [(3, 3, True, None)]
    with pytest.raises(psycopg.errors.DependentObjectsStillExist) as refused:
        server.query("DROP MATERIALIZED VIEW by_city")
    assert refused.value.diag.message_primary == (
        "cannot drop materialized view by_city because other objects depend on it"
    )
    assert refused.value.diag.message_detail == (
        "materialized view overall depends on materialized view by_city"
    )
    server.query("DROP MATERIALIZED VIEW by_city CASCADE")
    with pytest.raises(psycopg.errors.UndefinedTable):
        server.query("SELECT * FROM overall")


def test_a_flooding_view_holds_nobody_up(server):
    """One view multiplies every fact by ten thousand; producers and another view do not notice."""
    server.query("CREATE STREAM facts (n bigint, sent double precision)")
    server.query("CREATE MATERIALIZED VIEW latest AS SELECT count(*) AS n, max(sent) AS sent FROM facts")
    server.query("CREATE TABLE digits (d bigint PRIMARY KEY)")
    server.query("INSERT INTO digits VALUES " + ", ".join(f"({d})" for d in range(10)))
    server.query("""CREATE MATERIALIZED VIEW flood AS
        SELECT f.n * 10000 + a.d * 1000 + b.d * 100 + c.d * 10 + e.d AS x, count(*) AS n
        FROM facts f, digits a, digits b, digits c, digits e GROUP BY 1""")
    server.query("SELECT count(*) FROM flood")
    producer = Producer({"bootstrap.servers": server.kafka, "linger.ms": 0})
    acks, failed, ends, sent = [], [], [], 0

    def send(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            start = time.monotonic()

            def acknowledged(error, message, start=start):
                failed.append(error) if error else acks.append(time.monotonic() - start)
                ends.append(message.offset())

            value = json.dumps({"n": sent, "sent": time.time()}).encode()
            producer.produce("facts", value, on_delivery=acknowledged)
            sent += 1
        assert producer.flush(20) == 0 and not failed, failed

    lags = []
    with server.connect() as connection:
        until = time.monotonic() + 6
        while time.monotonic() < until:
            send(40)
            last, started = max(ends), time.monotonic()
            # The view that others read is at or after the last fact at once.
            connection.execute(f"SET evert.after = 'facts/0@{last}'")
            [(n, _)] = connection.execute("SELECT n, sent FROM latest").fetchall()
            assert n == sent
            lags.append(time.monotonic() - started)
            time.sleep(0.05)
    lags.sort()
    # The first fold that takes too long is waited for, for less than a second.
    assert lags[len(lags) // 2] < 0.5 and lags[-1] < 3, lags[-5:]
    assert sorted(acks)[len(acks) // 2] < 0.5
    state = dict(server.query("SELECT name, state FROM evert.views"))
    assert state["latest"] == "live", state
    # In its own time the flood arrives too, or says why it gave up; a query over both waits for it.
    def settled():
        [(state,)] = server.query("SELECT state FROM evert.views WHERE name = 'flood'")
        return state in ("live", "behind") or state.startswith("failed")

    wait_until(settled, 60, "the flooding view settles")
    server.check_unharmed()


def test_a_poisoned_row_is_told_and_passed_over(server):
    """Whatever fails in a row is a row of evert.errors, at every operator, and nothing else stops."""
    orders(server, 21)
    poisoned = {
        "projected": "SELECT id, 100 / amount AS share FROM orders",
        "filtered": "SELECT id FROM orders WHERE 100 / amount > 20",
        "joined": "SELECT a.id FROM orders a JOIN orders b ON a.id = b.id AND 10 / a.amount > 0",
        "grouped": "SELECT 100 / amount AS share, count(*) AS n FROM orders GROUP BY 100 / amount",
        "overflown": "SELECT id, amount * 9223372036854775807 AS huge FROM orders",
        "cast": "SELECT id, CAST(city AS bigint) AS n FROM orders",
        "ordered": "SELECT id, 100 / amount AS share FROM orders ORDER BY share DESC, id LIMIT 3",
    }
    for name, query in poisoned.items():
        server.query(f"CREATE MATERIALIZED VIEW {name} AS {query}")
    server.query("CREATE MATERIALIZED VIEW sound AS SELECT count(*) AS n FROM orders")
    assert server.query("SELECT n FROM sound") == [(21,)]
    errors = "SELECT relation, count(*) AS n FROM evert.errors GROUP BY relation"
    for name in poisoned:
        server.query(f"SELECT count(*) FROM {name}")
    found = dict(server.query(errors))
    zeros = 3
    assert {name: found.get(name) for name in ("projected", "filtered", "ordered")} == {
        "projected": zeros, "filtered": zeros, "ordered": zeros
    }  # fmt: skip
    assert found["joined"] == zeros and found["grouped"] == zeros
    assert found["cast"] == 21 and found["overflown"] == 15
    states = {state for (state,) in server.query("SELECT state FROM evert.views")}
    assert states == {"live"}
    # Mended facts leave the errors and come into the views.
    server.query("UPDATE orders SET amount = 4 WHERE amount = 0")
    assert server.query("SELECT count(*) FROM projected") == [(21,)]
    found = dict(server.query(errors))
    assert "projected" not in found and "filtered" not in found and "ordered" not in found
    for name in ("projected", "filtered", "joined", "grouped", "ordered", "sound"):
        server.verify(name)
    server.restart()
    assert dict(server.query(errors)) == found


def test_nothing_is_built_over_a_paused_view(server):
    orders(server)
    server.query(f"CREATE MATERIALIZED VIEW by_city AS {BY_CITY}")
    server.query("CREATE SEARCH INDEX found ON by_city (city)")
    server.query("SELECT * FROM search('found', '*')")
    with server.connect() as session:
        session.execute("SET statement_timeout = '20s'")
        tag = session.execute("PAUSE VIEW by_city").statusmessage
        assert tag == "PAUSE VIEW"
        server.query("INSERT INTO orders VALUES (1000, 'Agra', 1)")
        for statement in (
            "CREATE MATERIALIZED VIEW over AS SELECT city FROM by_city",
            "CREATE SEARCH INDEX other ON by_city (city)",
            "REBUILD SEARCH INDEX found",
            "REFRESH MATERIALIZED VIEW by_city",
        ):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="paused"):
                session.execute(statement)
        [(state,)] = server.query("SELECT state FROM evert.views WHERE name = 'found'")
        assert state == "live"
        session.execute("RESUME VIEW by_city")
        session.execute("REFRESH MATERIALIZED VIEW by_city")
        session.execute("CREATE MATERIALIZED VIEW over AS SELECT city FROM by_city")
        assert session.execute("SELECT count(*) FROM over").fetchone() == (4,)


def test_options_of_a_view_may_be_said_again(server):
    orders(server)
    told = f"CREATE OR REPLACE MATERIALIZED VIEW told WITH (changes = 'on') AS {BY_CITY}"
    with server.connect() as session:
        session.execute(told)
        session.execute(told.replace("sum(amount)", "sum(amount) + 0"))
        session.execute(told.replace("WITH (changes = 'on') ", ""))
        session.execute(f"CREATE MATERIALIZED VIEW plain AS {BY_CITY}")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="changes = 'on'"):
            session.execute(told.replace("VIEW told", "VIEW plain"))


def test_a_failed_view_is_rebuilt_from_the_session_s_own_writes(server):
    cyclic = (
        "CREATE MATERIALIZED VIEW reach AS WITH RECURSIVE r AS (SELECT a, b, 1 AS d FROM e UNION ALL"
        " SELECT r.a, e.b, r.d + 1 FROM r JOIN e ON r.b = e.a) SELECT a, b, d FROM r"
    )
    with server.connect() as session:
        session.execute("CREATE TABLE e (a INT, b INT, PRIMARY KEY (a, b))")
        session.execute("INSERT INTO e VALUES (1, 2), (2, 3)")
        session.execute(cyclic)
        for _ in range(3):
            session.execute("INSERT INTO e VALUES (3, 1)")
            with pytest.raises(psycopg.Error, match="has not come to an end") as failed:
                session.execute("SELECT * FROM reach")
            assert "REBUILD VIEW" in failed.value.diag.message_hint
            session.execute("DELETE FROM e WHERE a = 3")
            session.execute("REBUILD VIEW reach")
            assert session.execute("SELECT count(*) FROM reach").fetchone() == (3,)
