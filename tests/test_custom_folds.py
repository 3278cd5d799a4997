"""Custom folds: a view in JavaScript, through every door and across restarts."""

import json
import os
import random
import re
import time

import psycopg
import pytest
import redis
from confluent_kafka import Consumer
from evert_server import wait_until

STREAKS = """
({ init: () => ({ longest: 0, run: 0 }),
   step: (s, row) => {
     s.run = row.status === 'failed' ? s.run + 1 : 0;
     s.longest = Math.max(s.longest, s.run);
     return s;
   },
   row: (s) => s.longest ? { longest: s.longest, now_at: s.run } : null })
"""

FOLD = "ON payments KEY (card) ORDER BY (at, id) LANGUAGE javascript AS"


def payments(server) -> None:
    server.query("CREATE TABLE payments (id bigint PRIMARY KEY, card text, status text, amount bigint, at timestamptz)")


def pay(server, rows) -> None:
    values = ", ".join(f"({id}, '{card}', '{status}', {id % 97}, '2026-11-21 12:00:00Z'::timestamptz + interval '{at} seconds')" for id, card, status, at in rows)
    server.query(f"INSERT INTO payments VALUES {values}")


def streaks(rows) -> list[tuple]:
    """What the fold answers, folded here."""
    found = {}
    for _, card, status, _ in sorted(rows, key=lambda row: (row[3], row[0])):
        longest, run = found.get(card, (0, 0))
        run = run + 1 if status == "failed" else 0
        found[card] = (max(longest, run), run)
    return sorted((card, *streak) for card, streak in found.items() if streak[0])


def held(server, view="streaks") -> list[tuple]:
    return sorted(server.query(f"SELECT * FROM {view}"))


def test_a_fold_follows_its_rows_through_changes_and_restarts(new_server):
    server = new_server().start()
    payments(server)
    rng = random.Random(7)
    rows = {}

    def change(count: int) -> None:
        batch = []
        for id in rng.sample(range(400), count):
            row = (id, f"card {id % 23}", rng.choice(["failed", "failed", "captured"]), rng.randrange(1000))
            batch.append(row)
            rows[id] = row
        pay(server, batch)
        for id in rng.sample(sorted(rows), 5):
            server.query(f"DELETE FROM payments WHERE id = {id}")
            del rows[id]

    change(50)
    server.query(f"CREATE VIEW streaks (card text, longest bigint, now_at bigint) {FOLD} $${STREAKS}$$")
    for _ in range(5):
        change(40)
        assert held(server) == streaks(rows.values())
    # With a checkpoint, and without one for what came last.
    time.sleep(6)
    change(40)
    server.kill9()
    server.start()
    assert held(server) == streaks(rows.values())
    change(40)
    server.restart()
    assert held(server) == streaks(rows.values())
    change(40)
    assert held(server) == streaks(rows.values())
    # A fold reads the columns that there were.
    server.query("ALTER TABLE payments ADD COLUMN note text")
    server.query("UPDATE payments SET note = 'x' WHERE id < 9")
    server.verify("streaks")
    server.query("REBUILD VIEW streaks")
    assert held(server) == streaks(rows.values())

    # Other code is another view; the same statement again is no longer one.
    twice = STREAKS.replace("longest: s.longest,", "longest: s.longest * 2,")
    columns = "(card text, longest bigint, now_at bigint)"
    dry = server.query(f"CREATE OR REPLACE VIEW streaks DRY RUN {columns} {FOLD} $${twice}$$")
    assert dry, "a dry run tells what would differ"
    server.query(f"CREATE OR REPLACE VIEW streaks {columns} {FOLD} $${twice}$$")
    doubled = [(card, longest * 2, run) for card, longest, run in streaks(rows.values())]
    assert held(server) == doubled
    server.restart()
    assert held(server) == doubled
    server.verify("streaks")
    server.query("DROP MATERIALIZED VIEW streaks")
    with pytest.raises(psycopg.errors.UndefinedTable):
        held(server)


def test_a_fold_is_read_through_every_door(server):
    payments(server)
    columns = "(longest bigint, card text, now_at bigint)"
    server.query(
        f"CREATE MATERIALIZED VIEW streaks {columns} WITH (changes = 'on') {FOLD} $${STREAKS}$$"
    )
    pay(server, [(1, "a", "failed", 1), (2, "a", "failed", 2), (3, "b", "captured", 3)])
    assert held(server) == [(2, "a", 2)]
    host, _, port = server.addresses["keyvalue"].rpartition(":")
    client = redis.Redis(host, int(port), decode_responses=True)
    assert client.hgetall("streaks:a") == {"longest": "2", "card": "a", "now_at": "2"}
    assert client.exists("streaks:b") == 0
    # Views and queries read it as any other.
    server.query("CREATE MATERIALIZED VIEW worst AS SELECT max(longest) AS longest FROM streaks")
    pay(server, [(4, "b", "failed", 4)])
    assert server.query("SELECT * FROM worst") == [(2,)]
    [(definition,)] = server.query("SELECT definition FROM evert.views WHERE name = 'streaks'")
    assert "LANGUAGE javascript" in definition and "s.longest" in definition
    plan = "\n".join(line for line, in server.query("EXPLAIN streaks"))
    assert "javascript(" in plan and "Key: card" in plan, plan
    # A definition over a fold's columns has them with their types.
    types = server.query(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_name = 'streaks' ORDER BY ordinal_position"
    )
    assert types == [("longest", "bigint"), ("card", "text"), ("now_at", "bigint")]
    consumer = Consumer(
        {
            "bootstrap.servers": server.addresses["kafka"],
            "group.id": "folds",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["streaks.changes"])
    seen = {}

    def read() -> bool:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            value = message.value()
            seen[message.key().decode()] = value and json.loads(value)["longest"]
        return seen == {"a": 2, "b": 1}

    wait_until(read, 30, "the fold's changes")
    consumer.close()
    # Gone when its rows are.
    server.query("DELETE FROM payments WHERE card = 'a'")
    assert held(server) == [(1, "b", 1)]
    assert client.exists("streaks:a") == 0
    server.verify("streaks")


COUNT = "({ init: () => 0, step: (n) => n + 1, row: (n) => ({ n }) })"


def test_a_fold_reads_what_a_select_gives(server):
    server.query("CREATE STREAM events (id bigint, kind text, at timestamptz)")
    old = ", ".join(f"({id}, 'a', '2026-01-01 00:00:00Z')" for id in range(5))
    with server.connect() as connection:
        connection.execute(f"INSERT INTO events VALUES {old}, (5, NULL, '2026-01-01 00:00:00Z')")
        before = connection.execute("SHOW POSITION").fetchone()[0]

    def make(name: str, columns: str, rest: str) -> None:
        server.query(f"CREATE VIEW {name} ({columns}) {rest} LANGUAGE javascript AS $${COUNT}$$")

    recent = "SELECT kind, at FROM events WHERE at > now() - INTERVAL '5 seconds'"
    make("recent", "kind text, n bigint", f"ON ({recent}) KEY (kind) ORDER BY (at)")
    make("whole", "n bigint", "ON events ORDER BY id DESC NULLS FIRST")
    start = f"START AT POSITION {before}"
    make("later", "kind text, n int", f"{start} ON events KEY (kind) ORDER BY id")
    assert held(server, "whole") == [(6,)] and held(server, "recent") == []
    server.query("INSERT INTO events SELECT 6, 'a', now()")
    assert held(server, "recent") == [("a", 1)]
    assert held(server, "whole") == [(7,)]
    assert held(server, "later") == [("a", 1)]
    # It leaves as time passes, and nothing else happens.
    wait_until(lambda: held(server, "recent") == [], 15, "the event is no longer recent")
    for view in ("recent", "whole", "later"):
        server.verify(view)


def test_what_fails_is_a_row_of_errors_and_stops_nothing(server):
    payments(server)
    code = """({ init: () => 0,
      step: (n, row) => {
        if (row.status === 'throws') throw new RangeError(`no ${row.card}`);
        if (row.status === 'endless') for (;;) ;
        if (row.status === 'huge') { const all = []; for (;;) all.push([n]); }
        if (row.status === 'deep') (function deep() { deep(); })();
        return row.status === 'half' ? n + 0.5 : n + 1;
      },
      row: (n) => ({ n }) })"""
    server.query(f"CREATE VIEW counts (card text, n bigint) {FOLD} $${code}$$")
    bad = ["throws", "endless", "huge", "deep", "half"]
    pay(server, [(id, f"card {status}", status, id) for id, status in enumerate(bad)])
    pay(server, [(10, "good", "captured", 10), (11, "good", "captured", 11)])
    assert held(server, "counts") == [("good", 2)]
    reasons = dict(
        (re.search("card (\\w+)", row).group(1), reason)
        for row, reason in server.query("SELECT value, reason FROM evert.errors WHERE relation = 'counts'")
    )
    assert sorted(reasons) == sorted(bad)
    assert "RangeError: no card throws" in reasons["throws"] and "line 3" in reasons["throws"]
    assert "steps" in reasons["endless"]
    assert "MiB" in reasons["huge"]
    assert "call stack" in reasons["deep"]
    assert reasons["half"].endswith('column "n": 0.5 is no bigint')
    # What is mended is a row again, and no error.
    server.query("UPDATE payments SET status = 'captured' WHERE status <> 'endless'")
    assert len(held(server, "counts")) == 5
    errors = server.query("SELECT count(*) FROM evert.errors WHERE relation = 'counts'")
    assert errors == [(1,)]
    server.verify("counts")


def test_built_in_functions_cost_what_they_take(server):
    payments(server)
    code = "({ init: () => 0, step: () => { for (;;) 'a'.repeat(5e6).indexOf('b'); }, row: () => null })"
    server.query(f"CREATE VIEW counts (card text, n bigint) {FOLD} $${code}$$")
    pay(server, [(1, "a", "captured", 1)])
    errors = "SELECT reason FROM evert.errors WHERE relation = 'counts'"
    wait_until(lambda: server.query(errors), 40, "the fold is stopped")
    assert server.query(errors) == [("the fold was stopped: it makes more steps than 1 rows may take",)]
    server.query("REBUILD VIEW counts")
    server.query("DROP MATERIALIZED VIEW counts")


def test_what_built_in_functions_walk_counts(server):
    payments(server)
    pay(server, [(1, "a", "captured", 1)])
    code = """({ init: () => 0, row: (n) => ({ n }),
      step: (n, row) => {
        if (row.card === 'good') return n + 1;
        const long = 'x'.repeat(10000000);
        for (let i = 0; i < 30000; i++) long.indexOf('y');
        return 1;
      } })"""
    server.query(f"CREATE VIEW counts (card text, n bigint) {FOLD} $${code}$$")
    errors = "SELECT reason FROM evert.errors WHERE relation = 'counts'"
    wait_until(lambda: server.query(errors), 20, "the fold is stopped")
    assert server.query(errors) == [("the fold was stopped: it makes more steps than 1 rows may take",)]
    pay(server, [(2, "good", "captured", 2)])
    assert held(server, "counts") == [("good", 1)]
    server.verify("counts")


def processor_seconds(server) -> float:
    with open(f"/proc/{server.process.pid}/stat") as stat:
        times = stat.read().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("rows_first", [True, False])
def test_a_dropped_fold_works_no_more(server, rows_first):
    payments(server)
    code = """({ init: () => ({ long: 'a'.repeat(1e6), other: 'a'.repeat(1e6) }),
      step: (s) => { for (;;) s.long === s.other; }, row: () => null })"""
    rows = [(id, f"card {id}", "slow", id) for id in range(5)]
    # A fold that hydrates, or one that is lost by the follower.
    if rows_first:
        pay(server, rows)
    server.query(f"CREATE VIEW counts (card text, n bigint) {FOLD} $${code}$$")
    if not rows_first:
        pay(server, rows)
    time.sleep(2)
    server.query("DROP MATERIALIZED VIEW counts")
    # Left alone it would work until its 10 s are over.
    time.sleep(2.5)
    before = processor_seconds(server)
    time.sleep(2)
    assert processor_seconds(server) - before < 1


@pytest.mark.timeout(240)
def test_a_fold_that_takes_too_long_fails_its_view_alone(new_server):
    server = new_server().start()
    payments(server)
    # Few steps and no memory: only the clock can tell.
    code = """({ init: () => ({ long: 'a'.repeat(1e6), other: 'a'.repeat(1e6), n: 0 }),
      step: (s, row) => {
        if (row.status === 'slow') for (;;) s.long === s.other;
        s.n += 1;
        return s;
      },
      row: (s) => ({ n: s.n }) })"""
    server.query(f"CREATE VIEW counts (card text, n bigint) {FOLD} $${code}$$")
    server.query("CREATE MATERIALIZED VIEW cards AS SELECT card, count(*) AS n FROM payments GROUP BY card")
    pay(server, [(1, "good", "captured", 1)])
    assert held(server, "counts") == [("good", 1)]

    def state() -> str:
        return server.query("SELECT state FROM evert.views WHERE name = 'counts'")[0][0]

    # The first group says it for all: one after the other they would take a minute.
    pay(server, [(id, f"card {id}", "slow", id) for id in range(2, 8)])
    wait_until(lambda: state().startswith("failed: the fold of group"), 40, "the view fails")
    assert "took more than 10 s" in state() and "REBUILD" in state(), state()
    assert len(held(server, "cards")) == 7
    assert server.query("SELECT count(*) FROM evert.errors") == [(0,)]
    with pytest.raises(psycopg.Error, match="took more than 10 s"):
        held(server, "counts")
    server.query("UPDATE payments SET status = 'captured'")
    server.query("REBUILD VIEW counts")
    wait_until(lambda: state() == "live", 30, "the view is mended")
    assert len(held(server, "counts")) == 7
    # Nobody waits longer for it than that.
    pay(server, [(8, "slow", "slow", 8)])
    time.sleep(1)
    started = time.monotonic()
    server.query("DROP MATERIALIZED VIEW counts")
    assert time.monotonic() - started < 25
    server.query(f"CREATE VIEW again (card text, n bigint) {FOLD} $${COUNT}$$")
    server.terminate()


def test_what_is_no_fold_is_refused_where_it_is_wrong(server):
    payments(server)

    def refused(code: str, columns: str = "(card text, n bigint)", rest: str = FOLD):
        with pytest.raises(psycopg.Error) as error:
            server.query(f"CREATE VIEW counts {columns} {rest} $${code}$$")
        return error.value.diag

    found = refused("({ init: () => 0,\n   step: (s) => s +,\n   row: (s) => null })")
    assert (found.sqlstate, "line 2, column" in found.message_primary) == ("42601", True)
    statement = f"CREATE VIEW counts (card text, n bigint) {FOLD} $$"
    assert int(found.statement_position) > len(statement) + 17
    found = refused("({ init: () => 0, row: (s) => null })")
    assert (found.sqlstate, found.message_primary) == (
        "42601",
        'the code gives no object with a function "step"',
    )
    assert refused("({ init: () => Date.now(), step: (s) => s, row: (s) => null })").sqlstate == "42601"
    good = "({ init: () => 0, step: (s) => s, row: (s) => null })"
    unordered = "ON payments KEY (card) LANGUAGE javascript AS"
    assert refused(good, rest=unordered).sqlstate == "42601"
    assert refused(good, rest=FOLD.replace("javascript", "plpgsql")).sqlstate == "42704"
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        server.query("CREATE VIEW plain AS SELECT * FROM payments")
    assert server.query("SELECT count(*) FROM evert.views") == [(0,)]
