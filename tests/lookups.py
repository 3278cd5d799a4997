"""Point lookups over the SQL door beside Postgres's, under `pgbench -S -M prepared`, in turns.

Run by `cargo xtask bench`, or by hand: python lookups.py [--seconds 10] [--clients 4] [--rows 100000]
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import tempfile

from evert_server import Server
from postgres_server import Postgres, program

ROUNDS = 3


def tps(host: str, port: int, user: str, database: str, clients: int, seconds: int) -> float:
    """Transactions a second of one run."""
    done = subprocess.run(
        [program("pgbench"), "-S", "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds)]
        + ["-h", host, "-p", str(port), "-U", user, database],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PGCONNECT_TIMEOUT": "10"},
    )
    return float(re.search(r"tps = ([\d.]+)", done.stdout)[1])


def load(server: Server, rows: int) -> None:
    # pgbench counts the branches to know the scale.
    server.query("CREATE TABLE pgbench_branches (bid integer PRIMARY KEY)")
    server.query("INSERT INTO pgbench_branches VALUES (1)")
    server.query("CREATE TABLE pgbench_accounts (aid integer PRIMARY KEY, bid integer, abalance integer, filler text)")
    with server.connect() as connection, connection.cursor().copy("COPY pgbench_accounts FROM STDIN") as copy:
        for aid in range(1, rows + 1):
            copy.write(f"{aid}\t1\t0\t{' ' * 84}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="evert-lookups-"))
    postgres, evert = Postgres(), Server(directory)
    try:
        postgres.start()
        evert.start()
        load(evert, options.rows)
        postgres.execute("CREATE TABLE pgbench_branches AS SELECT 1 AS bid")
        postgres.execute("CREATE TABLE pgbench_accounts (aid integer PRIMARY KEY, bid integer, abalance integer, filler text)")
        postgres.execute(
            f"INSERT INTO pgbench_accounts SELECT i, 1, 0, repeat(' ', 84) FROM generate_series(1, {options.rows}) AS s(i)"
        )
        postgres.execute("VACUUM ANALYZE pgbench_accounts")
        host, port = evert.address("sql")
        ratios = []
        for _ in range(ROUNDS):
            theirs = tps("127.0.0.1", postgres.port, "postgres", "postgres", options.clients, options.seconds)
            ours = tps(host, port, "evert", "evert", options.clients, options.seconds)
            ratios.append(ours / theirs)
            print(f"postgres {theirs:9.0f}/s   evert {ours:9.0f}/s   {ours / theirs:.2f}x")
        print(f"median {statistics.median(ratios):.2f}x of Postgres, {options.clients} clients")
        evert.terminate()
    finally:
        if evert.running():
            evert.kill9()
        postgres.remove()


if __name__ == "__main__":
    main()
