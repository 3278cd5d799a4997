"""The demo: facts flow, the views are live, and a replay from zero equals them; a Postgres is left as it was."""

import re
import signal
import subprocess

import pytest

from evert_server import binary, wait_until

PAYMENTS = (
    "payment_id bigint PRIMARY KEY, merchant_id text, amount numeric(12,2), status text, email text,"
    " card_hash text, card_last4 text, paid_at timestamp"
)
LEFT = """SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication),
    to_regclass('public.payments')::text"""


def demo(*arguments: str, cwd) -> str:
    done = subprocess.run(
        [binary(), "demo", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(150)
def test_the_demo_ends_with_equal_views(tmp_path):
    said = demo("--seconds", "5", cwd=tmp_path).lower()
    print(said)
    for word in ("replay", "equal", "p50", "p99"):
        assert word in said, word


@pytest.mark.timeout(150)
def test_a_demo_that_nobody_reads_ends_quietly(tmp_path):
    shell = f"set -o pipefail; '{binary()}' demo --seconds 0 | head -3"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "panicked" not in done.stderr and "Error" not in done.stderr, done


@pytest.mark.timeout(180)
def test_the_demo_leaves_its_data(new_server, tmp_path):
    server = new_server()
    said = demo("--seconds", "3", "--keep", str(server.data), cwd=tmp_path)
    print(said)
    assert "psql" in said and "kcat" in said
    server.start()
    views = dict(server.query("SELECT name, kind FROM evert.views"))
    assert sorted(views.values()) == ["archive", "search", "table", "table", "table", "table"], views
    for name, kind in views.items():
        if kind == "table" and name != "card_last_minute":
            [(rows,)] = server.query(f"SELECT count(*) FROM {name}")
            assert rows > 0, name
        server.verify(name)
    server.check_unharmed()
    server.terminate()


@pytest.mark.timeout(150)
def test_payments_come_from_a_postgres(postgres, tmp_path):
    said = demo("--seconds", "4", "--rate", "500", "--postgres", postgres.url, cwd=tmp_path)
    print(said)
    assert len(re.findall("^verify .*, equal$", said, re.MULTILINE)) == 6
    compared = re.search(r"^compare with Postgres: (\d+) payments, [\d.]+ captured, equal$", said, re.MULTILINE)
    assert compared and int(compared[1]) > 500, said
    assert re.search(r"views at position (\d+) of \1, at LSN [0-9A-F]+/[0-9A-F]+ of .* \(\d+ bytes behind\)", said)
    assert postgres.query(LEFT) == [(0, 0, None)]


@pytest.mark.timeout(60)
def test_a_table_of_another_shape_is_not_touched(postgres, tmp_path):
    postgres.execute("CREATE TABLE payments (id int PRIMARY KEY, paid_at date)", "INSERT INTO payments VALUES (1, now())")
    done = subprocess.run(
        [binary(), "demo", "--seconds", "2", "--postgres", postgres.url], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == "", done
    assert "public.payments of another shape, which is not touched: it is (id integer, paid_at date," in done.stderr
    assert postgres.query("SELECT id FROM payments") == [(1,)]
    assert postgres.query(LEFT) == [(0, 0, "payments")]


@pytest.mark.timeout(120)
def test_an_interrupted_demo_leaves_a_postgres_as_it_was(postgres, tmp_path):
    row = "(41, 'm1', 1.00, 'captured', 'a@b', 'h', '4', '2026-01-01')"
    postgres.execute(f"CREATE TABLE payments ({PAYMENTS})", f"INSERT INTO payments VALUES {row}")
    process = subprocess.Popen(
        [binary(), "demo", "--postgres", postgres.url], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: postgres.query("SELECT count(*) FROM payments")[0][0] > 500, 40, "payments are committed")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert len(re.findall("^verify .*, equal$", said, re.MULTILINE)) == 6 and "captured, equal" in said
    assert postgres.query("SELECT payment_id FROM payments") == [(41,)]
    assert postgres.query(LEFT) == [(0, 0, "payments")]


@pytest.mark.timeout(120)
def test_a_kept_demo_goes_on_with_its_postgres(new_server, postgres, tmp_path):
    server = new_server()
    said = demo("--seconds", "2", "--keep", str(server.data), "--postgres", postgres.url, cwd=tmp_path)
    assert "DROP SOURCE demo CASCADE" in said
    postgres.execute("INSERT INTO payments (payment_id, merchant_id, amount, status) VALUES (0, 'late', 7.00, 'captured')")
    server.start()
    server.query(f"WAIT FOR POSITION 'demo:{postgres.wal_position()}' TIMEOUT '30s'")
    assert server.query("SELECT captured::text FROM settlement WHERE merchant_id = 'late'") == [("7.00",)]
    server.query("DROP SOURCE demo CASCADE")
    assert postgres.query(LEFT) == [(0, 0, "payments")]
    server.terminate()
