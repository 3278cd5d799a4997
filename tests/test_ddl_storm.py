"""Views are made, replaced, rebuilt and dropped by several hands at once, under load."""

import contextlib
import random
import threading
import time

import psycopg
import pytest

SECONDS = 15
SELECTS = [
    "SELECT a.g, sum(b.w) AS x, count(*) AS n FROM a JOIN b ON a.g = b.g GROUP BY a.g",
    "SELECT id, v FROM a ORDER BY v DESC, id LIMIT 7",
    "SELECT g, s FROM base WHERE c > 2",
    "SELECT b.id, base.s FROM b LEFT JOIN base ON b.g = base.g",
    "SELECT g, max(v) AS m, min(v) AS i FROM a GROUP BY g",
    "SELECT g FROM a WHERE g NOT IN (SELECT g FROM b WHERE w > 50)",
    "SELECT id, row_number() OVER (PARTITION BY g ORDER BY v, id) AS rn FROM a",
    "SELECT g, c FROM base UNION ALL SELECT g, count(*) FROM b GROUP BY g",
]
BASE = "SELECT g, count(*) AS c, sum(v){} AS s FROM a GROUP BY g"
# A refusal is an answer: the view was dropped meanwhile, is there already, is not there, others
# depend on it, or a transaction lost a race.
REFUSED = ("42P07", "42P01", "55000", "2BP01", "40001", "42703", "25001")


def write(session, chance):
    row = f"{chance.randint(1, 300)}, {chance.randint(0, 8)}, {chance.randint(0, 100)}"
    match chance.randint(0, 4):
        case 0 | 1:
            session.execute(f"INSERT INTO a VALUES ({row})")
        case 2:
            session.execute(f"INSERT INTO b VALUES ({row})")
        case 3:
            session.execute(f"DELETE FROM a WHERE id % 17 = {chance.randint(0, 16)}")
        case 4:
            session.execute(f"UPDATE a SET v = v + 1 WHERE g = {chance.randint(0, 8)}")


def change(session, chance):
    name = f"v{chance.randint(0, 5)}"
    either = chance.choice([name, "base"])
    statements = {
        f"CREATE MATERIALIZED VIEW {name} AS {chance.choice(SELECTS)}": 20,
        f"CREATE OR REPLACE MATERIALIZED VIEW {name} AS {chance.choice(SELECTS)}": 15,
        f"DROP MATERIALIZED VIEW {name} CASCADE": 7,
        f"REBUILD VIEW {either}": 10,
        f"VERIFY VIEW {either}": 6,
        f"PAUSE VIEW {either}": 10,
        f"RESUME VIEW {either}": 16,
        "CREATE OR REPLACE MATERIALIZED VIEW base AS "
        + BASE.format(chance.choice(["", "+0", "+1"])): 5,
        f"CREATE MATERIALIZED VIEW w{name} AS SELECT * FROM {name}": 4,
        f"DROP MATERIALIZED VIEW w{name} CASCADE": 2,
    }
    session.execute(chance.choices(list(statements), list(statements.values()))[0])


def read(session, chance):
    name = f"v{chance.randint(0, 5)}"
    session.execute(
        chance.choice(
            [
                f"SELECT count(*) FROM {name}",
                "SELECT sum(c) FROM base",
                f"SELECT (SELECT count(*) FROM {name}), (SELECT sum(c) FROM base)",
                "SELECT name, state FROM evert.views",
            ]
        )
    )


def test_whatever_is_done_to_views_they_are_right_in_the_end(server):
    with psycopg.connect(server.dsn, autocommit=True) as session:
        session.execute("CREATE TABLE a (id INT PRIMARY KEY, g INT, v INT)")
        session.execute("CREATE TABLE b (id INT PRIMARY KEY, g INT, w INT)")
        session.execute(f"CREATE MATERIALIZED VIEW base AS {BASE.format('')}")
    until = time.monotonic() + SECONDS
    wrong = []

    def hand(act, seed):
        chance = random.Random(seed)
        try:
            with psycopg.connect(server.dsn, autocommit=True) as session:
                session.execute("SET statement_timeout = '20s'")
                while time.monotonic() < until and not wrong:
                    try:
                        act(session, chance)
                    except psycopg.Error as error:
                        if error.sqlstate not in REFUSED or "internal error" in str(error):
                            raise
                    time.sleep(0.005)
        except Exception as error:
            wrong.append(error)

    hands = [write, write, change, change, change, read, read]
    threads = [threading.Thread(target=hand, args=(act, seed)) for seed, act in enumerate(hands)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    with psycopg.connect(server.dsn, autocommit=True) as session:
        session.execute("SET statement_timeout = '60s'")
        for name, state in session.execute("SELECT name, state FROM evert.views").fetchall():
            assert not state.startswith("failed"), (name, state)
        names = [row[0] for row in session.execute("SELECT name FROM evert.views").fetchall()]
        while paused := session.execute(
            "SELECT name FROM evert.views WHERE state LIKE 'paused%'"
        ).fetchall():
            for (name,) in paused:
                # Those that are paused because of another are refused.
                with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
                    session.execute(f"RESUME VIEW {name}")
        for name in names:
            _, _, live, replayed, equal, report = session.execute(f"VERIFY VIEW {name}").fetchone()
            assert equal, (name, live, replayed, report)
        sums = "SELECT g, count(*) FROM a GROUP BY g ORDER BY g"
        assert session.execute("SELECT g, c FROM base ORDER BY g").fetchall() == session.execute(
            sums
        ).fetchall()


def test_views_that_were_paused_one_after_the_other_go_on_together(server):
    with psycopg.connect(server.dsn, autocommit=True) as session:
        for statement in [
            "SET statement_timeout = '20s'",
            "CREATE TABLE a (id INT PRIMARY KEY, g INT, v INT)",
            "CREATE TABLE b (id INT PRIMARY KEY, g INT, w INT)",
            "INSERT INTO a VALUES (1, 1, 10), (2, 2, 20)",
            f"CREATE MATERIALIZED VIEW base AS {BASE.format('')}",
            "CREATE MATERIALIZED VIEW over AS SELECT g, s FROM base WHERE s > 5",
            "CREATE MATERIALIZED VIEW apart AS SELECT count(*) AS n FROM b",
            "PAUSE VIEW over",
            "INSERT INTO a VALUES (3, 3, 30)",
            "PAUSE VIEW base",
            "INSERT INTO a VALUES (4, 4, 40)",
            "CREATE OR REPLACE MATERIALIZED VIEW apart AS SELECT sum(w) AS x, count(*) AS n FROM b",
        ]:
            session.execute(statement)
        read = "SELECT g, s FROM {} ORDER BY g"
        assert session.execute(read.format("over")).fetchall() == [(1, 10), (2, 20)]
        both = "SELECT (SELECT count(*) FROM over), (SELECT count(*) FROM base)"
        # Both where the first was paused, unless the other had yet to join then; not a wait.
        with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
            assert session.execute(both).fetchone() == (2, 2)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is not kept"):
            session.execute("SELECT (SELECT count(*) FROM apart), (SELECT count(*) FROM base)")
        because = 'view "over" is paused: resume it first'
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=because):
            session.execute("CREATE OR REPLACE MATERIALIZED VIEW over AS SELECT g FROM a")
        session.execute("RESUME VIEW over")
        because = 'view "over" is paused because "base" is: resume that first'
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=because):
            session.execute("CREATE OR REPLACE MATERIALIZED VIEW over AS SELECT g FROM a")
        session.execute("RESUME VIEW base")
        rows = [(1, 10), (2, 20), (3, 30), (4, 40)]
        assert session.execute(read.format("base")).fetchall() == rows
        assert session.execute(read.format("over")).fetchall() == rows
        for name in ("base", "over"):
            assert session.execute(f"VERIFY VIEW {name}").fetchone()[4]
