"""State of four times the memory budget: the views are right, and memory stays near the budget."""

import pytest

from evert_server import wait_until

BUDGET = 64 << 20
ROWS = 500_000
BATCH = 50_000
GROUPS = 250_000
CHANGED = 100_000
# What the process comes to hold besides: more of its code, its query planner, buffers of the log,
# of checkpoints and of statements.
OTHERS = 160 << 20


def resident(server) -> int:
    """Bytes of memory without those of the program's own file."""
    with open(f"/proc/{server.process.pid}/status") as status:
        sizes = dict(line.split(":", 1) for line in status)
    return sum(int(sizes[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))


def rows(session, statement: str) -> list[tuple]:
    return session.execute(statement).fetchall()


def insert(session, first: int, round: int) -> None:
    session.execute(f"""INSERT INTO payments SELECT i, i % {GROUPS}, (i * 7 + {round}) % 1000,
                     'round {round}, a note of about eighty bytes for the payment with number ' || i
                     FROM generate_series({first}, {first + BATCH - 1}) AS g(i)""")


@pytest.mark.timeout(300)
def test_views_of_four_budgets_are_right(new_server):
    server = new_server("--memory", str(BUDGET)).start()
    own = resident(server)
    server.query("""CREATE TABLE payments (id bigint PRIMARY KEY, account bigint, amount bigint,
                    note text) WITH (partitions=1)""")
    server.query("""CREATE MATERIALIZED VIEW totals AS
                    SELECT account, count(*) AS n, sum(amount) AS total, max(note) AS newest
                    FROM payments GROUP BY account""")
    server.query("""CREATE MATERIALIZED VIEW pairs AS
                    SELECT p.id, p.amount, t.total, t.n FROM payments p
                    JOIN totals t ON t.account = p.account WHERE p.amount < 50""")
    server.query("""CREATE MATERIALIZED VIEW largest AS
                    SELECT id, amount FROM payments ORDER BY amount DESC, id LIMIT 10""")
    amounts = [(i * 7 + (CHANGED <= i < CHANGED + BATCH)) % 1000 for i in range(ROWS)]
    totals = [0] * GROUPS
    for i, amount in enumerate(amounts):
        totals[i % GROUPS] += amount
    few = [i for i, amount in enumerate(amounts) if amount < 50]
    # A session reads what it has written, and so waits for the views.
    with server.connect() as session:
        for first in range(0, ROWS, BATCH):
            insert(session, first, 0)
        # Some of the rows change.
        insert(session, CHANGED, 1)
        assert rows(session, "SELECT count(*), sum(amount) FROM payments") == [(ROWS, sum(amounts))]
        found = rows(session, "SELECT count(*), sum(n), sum(total), sum(total * (account % 1009)) FROM totals")
        weighed = sum(total * (account % 1009) for account, total in enumerate(totals))
        assert [int(v) for v in found[0]] == [GROUPS, ROWS, sum(amounts), weighed]
        found = rows(session, "SELECT count(*), sum(id), sum(amount), sum(total) FROM pairs")
        assert [int(v) for v in found[0]] == [
            len(few), sum(few), sum(amounts[i] for i in few), sum(totals[i % GROUPS] for i in few)]
        best = sorted((-amount, i) for i, amount in enumerate(amounts))[:10]
        found = rows(session, "SELECT id, amount FROM largest ORDER BY amount DESC, id")
        assert found == [(i, -amount) for amount, i in best]
        newest = rows(session, "SELECT newest FROM totals WHERE account = 120000")
        assert newest[0][0].startswith("round 1") and newest[0][0].endswith(" 120000")
        after = resident(server)
        # It is measured once a second, by each thread that folds.
        held = lambda: int(rows(session, "SELECT sum(bytes) FROM evert.view_state")[0][0])  # noqa: E731
        wait_until(lambda: held() > 4 * BUDGET, 30, "the views hold four budgets")
        spilled, disk, refused = map(int, rows(session, "SELECT * FROM evert.spilled")[0])
        assert spilled > 2 * BUDGET and disk >= spilled and refused == 0
        assert after < own + BUDGET + OTHERS, f"{after >> 20} MiB, {own >> 20} MiB when it started"
