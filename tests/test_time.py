"""Views by time: rows leave as log time passes, with no traffic at all."""

import datetime
import time

CARDS = 5
# A time tick a second at most, and what the machine takes to commit and fold it.
BEHIND_SECONDS = 1.25


def utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def insert(connection, payments: dict[int, float]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO payments VALUES (%s, %s, %s, %s)",
            [(id, f"card {id % CARDS}", 100 + id, utc(paid_at)) for id, paid_at in payments.items()],
        )


def totals(payments: dict[int, float]) -> dict[str, tuple[int, int]]:
    """Number and sum of the payments by card."""
    by_card: dict[str, tuple[int, int]] = {}
    for id in payments:
        n, total = by_card.get(f"card {id % CARDS}", (0, 0))
        by_card[f"card {id % CARDS}"] = (n + 1, total + 100 + id)
    return by_card


def position(connection) -> int:
    return int(connection.execute("SHOW POSITION").fetchone()[0])


def test_payments_by_card_in_the_last_60_seconds(server):
    connection = server.connect()
    connection.execute("CREATE TABLE payments (payment_id bigint PRIMARY KEY, card text, amount int, paid_at timestamptz)")
    connection.execute(
        "CREATE MATERIALIZED VIEW recent AS SELECT card, count(*) AS n, sum(amount) AS total "
        "FROM payments WHERE paid_at > now() - INTERVAL '60 seconds' GROUP BY card"
    )
    # Some are older than the window already, some leave it within seconds, one stays.
    now = time.time()
    payments = {id: now - 59 + id / 5 for id in range(20)}
    insert(connection, payments | {100: now - 61, 101: now - 3600, 102: now})
    payments[102] = now
    start, quiet = time.time(), position(connection)
    while time.time() < start + 6:
        before = time.time()
        rows = connection.execute("SELECT card, n, total FROM recent").fetchall()
        after = time.time()
        seen = {card: (n, int(total)) for card, n, total in rows}
        # It is what it was at some moment not longer ago than it may be behind.
        ends = [paid_at + 60 for paid_at in payments.values()]
        moments = [before - BEHIND_SECONDS, after] + [t for t in ends if before - BEHIND_SECONDS < t <= after]
        possible = [totals({id: at for id, at in payments.items() if t < at + 60}) for t in moments]
        assert seen in possible, f"{seen} at {before - now:.3f} s is none of {possible}"
        time.sleep(0.03)
    assert totals({102: now}) == seen
    ticks = position(connection) - quiet
    assert 2 <= ticks <= 7, f"{ticks} time ticks in 6 seconds"
    # Nothing is due for most of a minute: no ticks.
    quiet = position(connection)
    time.sleep(1.5)
    assert position(connection) == quiet

    # A replay gives the same answer, now and after a crash.
    server.verify("recent")
    server.kill9()
    server.start()
    connection = server.connect()
    rows = connection.execute("SELECT card, n, total FROM recent").fetchall()
    assert [(card, n, int(total)) for card, n, total in rows] == [("card 2", 1, 202)]
    # A late payment is a correction; one that is too late is none.
    insert(connection, {7: time.time() - 30, 8: time.time() - 90})
    rows = connection.execute("SELECT card, n FROM recent ORDER BY card").fetchall()
    assert rows == [("card 2", 2)]
    server.verify("recent")


def test_windows_and_ad_hoc_time(server):
    connection = server.connect()
    connection.execute("CREATE STREAM clicks (user_id int, clicked_at timestamp)")
    for view, query in WINDOWS.items():
        connection.execute(f"CREATE MATERIALIZED VIEW {view} AS {query}")
    midnight = datetime.datetime(2026, 3, 1)
    seconds = [5, 12, 61, 64, 300, 62, 59]
    for second in seconds:
        at = midnight + datetime.timedelta(seconds=second)
        connection.execute("INSERT INTO clicks VALUES (%s, %s)", (second % 2, at))
    for view, query in WINDOWS.items():
        kept = connection.execute(f"SELECT * FROM {view}").fetchall()
        asked = connection.execute(query).fetchall()
        assert sorted(kept) == sorted(asked), view
        assert len(kept) > 2, view
        server.verify(view)
    sessions = connection.execute("SELECT user_id, window_start, n FROM sessions ORDER BY 1, 2").fetchall()
    at = [midnight + datetime.timedelta(seconds=second) for second in (12, 62, 300, 5, 59)]
    assert sessions == [(0, at[0], 1), (0, at[1], 2), (0, at[2], 1), (1, at[3], 1), (1, at[4], 2)]

    # Ad hoc, now() is the wall clock, anew for each statement.
    first = connection.execute("SELECT now(), current_timestamp = now(), current_date, localtimestamp").fetchone()
    time.sleep(0.02)
    second = connection.execute("SELECT now()").fetchone()
    assert first[0] < second[0] and first[1]
    assert abs(first[0].timestamp() - time.time()) < 60
    with connection.transaction():
        begun = connection.execute("SELECT now()").fetchone()
        time.sleep(0.02)
        assert connection.execute("SELECT now()").fetchone() == begun
    assert connection.execute("SELECT now()").fetchone() > begun
    assert first[3].replace(tzinfo=datetime.timezone.utc) == first[0] and first[2] == first[3].date()


WINDOWS = {
    "minutes": "SELECT window_start, window_end, count(*) AS n "
    "FROM TUMBLE(TABLE clicks, DESCRIPTOR(clicked_at), INTERVAL '1' MINUTE) GROUP BY window_start, window_end",
    "hops": "SELECT window_start, user_id, count(*) AS n FROM TABLE(HOP(TABLE clicks, "
    "DESCRIPTOR(clicked_at), INTERVAL '30' SECONDS, INTERVAL '2' MINUTES)) GROUP BY window_start, user_id",
    "sessions": "SELECT user_id, window_start, window_end, count(*) AS n FROM SESSION("
    "TABLE clicks PARTITION BY user_id, DESCRIPTOR(clicked_at), INTERVAL '10' SECONDS) "
    "GROUP BY user_id, window_start, window_end",
}
