"""`evert sql`, the client that comes with the server."""

import subprocess

from evert_server import binary


def shell(server, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [binary(), "sql", "--url", f"postgres://evert@{server.sql}/evert", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_tables_and_errors(server):
    made = shell(server, "-c", "CREATE TABLE t (id int PRIMARY KEY, name text)", "-c", "INSERT INTO t VALUES (1, 'a'), (20, NULL)")
    assert made.returncode == 0, made.stderr
    read = shell(server, stdin="SELECT id, name FROM t ORDER BY id;\nSELECT count(*) AS n FROM t")
    assert read.returncode == 0, read.stderr
    assert read.stdout.splitlines()[:5] == [
        "| id | name |",
        "|----|------|",
        "|  1 | a    |",
        "| 20 |      |",
        "(2 rows)",
    ]
    failed = shell(server, "-c", "SELECT nothing FROM t", "-c", "SELECT 1")
    assert failed.returncode == 1
    assert "42703" in failed.stderr and "1 row" not in failed.stdout


def test_no_server_is_an_error():
    done = subprocess.run(
        [binary(), "sql", "--url", "postgres://evert@127.0.0.1:1/evert", "-c", "SELECT 1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "cannot connect" in done.stderr
