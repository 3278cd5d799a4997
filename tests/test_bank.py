"""The bank, under load: four sums are equal in every answer, whatever is killed meanwhile."""

import os
import signal
import time

import pytest

import bank
from postgres_server import finish

SCALE = 5
ACCOUNTS = 100_000 * SCALE
ANSWERS_MIN = 500
SECONDS = int(os.environ.get("EVERT_BANK_SECONDS", "60"))


@pytest.mark.timeout(240 + SECONDS)
def test_four_equal_sums_under_load(new_server, postgres):
    bank.fill(postgres, SCALE)
    server = new_server().start()
    bank.create_source(server, postgres)
    bank.create_views(server)
    bank.wait_for_copy(server, ACCOUNTS)
    bank.check_at_rest(server, postgres)

    reader = bank.Reader(server, may_fail=False)
    reader.start()
    print(finish(postgres.pgbench("-n", "-c", "4", "-T", str(SECONDS)), SECONDS + 60))
    caught_up = time.monotonic()
    bank.check_at_rest(server, postgres)
    print(f"at rest {time.monotonic() - caught_up:.1f} s after the load ended")
    reader.finish()

    assert reader.answers >= ANSWERS_MIN
    assert len(reader.totals) >= 50, "the answers hardly moved: the load was not seen while it ran"
    assert len(reader.nulls) > 5, "the board's NULLs hardly came and went"
    server.check_unharmed()
    server.terminate()


@pytest.mark.timeout(420)
def test_four_equal_sums_through_crashes(new_server, postgres):
    bank.fill(postgres, SCALE)
    server = new_server().start()
    bank.create_source(server, postgres)
    # The first crash falls into the initial copy, which must begin again and count nothing twice.
    server.kill9()
    server.start()
    bank.wait_for_copy(server, ACCOUNTS)
    bank.create_views(server)
    bank.check_at_rest(server, postgres)

    reader = bank.Reader(server, may_fail=True)
    reader.start()
    load = postgres.pgbench("-n", "-c", "4", "-T", "40")
    for _ in range(3):
        time.sleep(8)
        server.kill9()
        time.sleep(1)
        started = time.monotonic()
        server.start()
        print(f"ready again after {time.monotonic() - started:.1f} s")
    print(finish(load, 120))

    # Postgres ends its sessions when it goes down, pgbench's among them: it loads in legs, with -n
    # because each would else empty the history first.
    postgres.restart(signal.SIGQUIT)
    print(finish(postgres.pgbench("-n", "-c", "4", "-T", "10"), 60))
    postgres.restart()
    print(finish(postgres.pgbench("-n", "-c", "4", "-T", "10"), 60))
    bank.check_at_rest(server, postgres)
    reader.finish()

    assert reader.answers >= ANSWERS_MIN
    assert len(reader.totals) >= 50, "the answers hardly moved: the load was not seen while it ran"
    for name in (*bank.SUMS, "board", "top_tellers"):
        server.verify(name)
    server.check_unharmed()
    server.terminate()
