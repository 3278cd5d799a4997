"""Starts from checkpoints: after kill -9 the replay begins where the last one was taken."""

import re
import shutil
import time

from evert_server import wait_until

ROWS = 4000


def make(server) -> None:
    server.query("CREATE TABLE accounts (id bigint PRIMARY KEY, city text, balance bigint)")
    server.query("CREATE STREAM payments (account bigint, amount bigint)")
    server.query("""CREATE MATERIALIZED VIEW by_account AS
                    SELECT account, count(*) AS n, sum(amount) AS total, max(amount) AS most
                    FROM payments GROUP BY account""")
    server.query("""CREATE MATERIALIZED VIEW by_city AS
                    SELECT a.city, count(*) AS n, sum(p.amount) AS total
                    FROM payments p JOIN accounts a ON p.account = a.id GROUP BY a.city""")
    server.query("CREATE MATERIALIZED VIEW large AS SELECT account, amount FROM payments WHERE amount > 900")
    accounts = ", ".join(f"({i}, 'city {i % 7}', {i})" for i in range(500))
    server.query(f"INSERT INTO accounts VALUES {accounts}")
    pay(server, ROWS)


def pay(server, count: int) -> None:
    rows = ", ".join(f"({i * 7919 % 500}, {i * 104729 % 1000})" for i in range(count))
    server.query(f"INSERT INTO payments VALUES {rows}")


def answers(server) -> dict[str, list]:
    views = ("accounts", "by_account", "by_city", "large")
    return {view: sorted(server.query(f"SELECT * FROM {view}")) for view in views}


def position(server) -> int:
    return int(server.query("SHOW POSITION")[0][0])


def starts(server) -> list[int]:
    """The positions of the checkpoints that its starts began at."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", server.log())
    return [int(at) for at in re.findall(r"restored from the checkpoint.*?position=(\d+)", text)]


def saved(server) -> None:
    """Long enough for a checkpoint of all that there is."""
    time.sleep(6)


def test_a_start_replays_what_came_after_the_checkpoint(new_server):
    server = new_server(env={"EVERT_LOG": "info"}).start()
    make(server)
    at = position(server)
    saved(server)
    # This is in no checkpoint, or in part.
    pay(server, 300)
    expected = answers(server)
    server.kill9()
    server.start()
    assert answers(server) == expected
    assert starts(server)[-1] >= at, "the replay began before the checkpoint"
    for view in ("by_account", "by_city", "large"):
        server.verify(view)
    # An orderly stop keeps everything.
    end = position(server)
    server.terminate()
    server.start()
    assert answers(server) == expected
    assert starts(server)[-1] >= end
    # What is derived can be deleted.
    server.kill9()
    shutil.rmtree(server.data / "views")
    server.start()
    assert answers(server) == expected
    assert len(starts(server)) == 2


def test_a_view_that_was_apart_is_in_checkpoints_again(new_server):
    server = new_server(env={"EVERT_LOG": "info"}).start()
    make(server)
    saved(server)
    server.query("PAUSE VIEW by_account")
    pay(server, 500)
    # A checkpoint without it, between two with it.
    saved(server)
    server.query("RESUME VIEW by_account")
    pay(server, 100)
    expected = answers(server)

    def whole():
        server.kill9()
        server.start()
        assert answers(server) == expected
        text = re.sub(r"\x1b\[[0-9;]*m", "", server.log())
        return int(re.findall(r"restored from the checkpoint.*?members=(\d+)", text)[-1]) == 5

    saved(server)
    wait_until(whole, 60, "the view to be in a checkpoint", pause=6)
    server.verify("by_account")


def test_a_damaged_checkpoint_changes_no_answer(new_server):
    server = new_server(env={"EVERT_LOG": "info"}).start()
    make(server)
    saved(server)
    expected = answers(server)
    for damage in range(4):
        server.terminate()
        files = [f for f in sorted((server.data / "views").rglob("*")) if f.is_file() and f.stat().st_size > 64]
        assert files
        for file in files[damage::4]:
            data = bytearray(file.read_bytes())
            for at in range(damage, len(data), max(1, len(data) // 5)):
                data[at] ^= 0x55
            file.write_bytes(bytes(data))
        server.start()
        assert answers(server) == expected
    for view in ("by_account", "by_city", "large"):
        server.verify(view)


def test_dropped_views_come_back_only_by_their_own_facts(new_server):
    server = new_server(env={"EVERT_LOG": "info"}).start()
    make(server)
    saved(server)
    server.query("DROP MATERIALIZED VIEW by_account")
    server.query("CREATE MATERIALIZED VIEW by_account AS SELECT account, count(*) AS n FROM payments GROUP BY account")
    expected = sorted(server.query("SELECT * FROM by_account"))
    assert expected and len(expected[0]) == 2
    server.kill9()
    server.start()
    assert sorted(server.query("SELECT * FROM by_account")) == expected
    server.verify("by_account")


def test_memory_is_told_by_view_and_operator(server):
    make(server)
    server.query("SELECT * FROM by_city")

    def measured():
        rows = server.query("SELECT view, operator, rows, bytes FROM evert.view_state")
        held = {(view.removeprefix("public."), operator): (int(n), int(size)) for view, operator, n, size in rows}
        group = held.get(("by_account", "reduce"))
        return held if group is not None and group[0] == 500 else None

    wait_until(lambda: measured() is not None, 10, "the groups to be measured")
    held = measured()
    assert held[("accounts", "table")][0] == 500
    # A row is held once, however often it is there.
    distinct = {(i * 7919 % 500, i * 104729 % 1000) for i in range(ROWS)}
    assert held[("by_city", "join")][0] == len(distinct) + 500
    assert held[("by_account", "published rows")][0] == 500
    assert all(size > 0 for _, size in held.values())
