"""ioredis, unmodified: the script beside this file asserts, this one runs it."""

import pathlib
import subprocess

SCRIPTS = pathlib.Path(__file__).parent / "ioredis"


def test_ioredis(server):
    server.query("CREATE TABLE payments (id int PRIMARY KEY, merchant text, amount numeric(10,2))")
    server.query(
        "CREATE MATERIALIZED VIEW totals AS SELECT merchant, count(*) AS n, sum(amount) AS total"
        " FROM payments GROUP BY merchant"
    )
    server.query("INSERT INTO payments VALUES (1, 'tea', 4.50), (2, 'tea', 2), (3, 'soap', NULL)")
    server.query("SELECT * FROM totals")
    script = subprocess.Popen(
        ["node", SCRIPTS / "tour.mjs", server.keyvalue],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    try:
        if script.stdout.readline().strip() == "listening":
            server.query("INSERT INTO payments VALUES (4, 'tea', 1)")
        out, errors = script.communicate(timeout=60)
    finally:
        script.kill()
    assert script.returncode == 0, out + errors
    assert out.strip() == "done"
