"""The bank: pgbench's four tables in Postgres, and the views of Evert that must always agree.

Each of pgbench's transactions adds the same delta to one account, one teller and one branch, and
notes it in the history. So the four sums are equal after every transaction and at no moment
between the statements of one: any reader who sees half a transaction sees unequal sums.
"""

import threading
import time

import psycopg

from evert_server import Server, wait_until
from postgres_server import Postgres, finish

SUMS = {
    "accounts_sum": "SELECT sum(abalance) AS total FROM bank.pgbench_accounts",
    "tellers_sum": "SELECT sum(tbalance) AS total FROM bank.pgbench_tellers",
    "branches_sum": "SELECT sum(bbalance) AS total FROM bank.pgbench_branches",
    "history_sum": "SELECT coalesce(sum(delta), 0) AS total, count(*) AS transactions FROM bank.pgbench_history",
}
# Compared with Postgres at rest only: a group-by and a join.
GROUPS = {
    "teller_totals": (
        "SELECT bid, count(*) AS tellers, sum(tbalance) AS total FROM {}pgbench_tellers GROUP BY bid"
    ),
    "branch_history": (
        "SELECT b.bid, b.bbalance, count(*) AS n, sum(h.delta) AS total, min(h.delta) AS least, max(h.delta) AS most "
        "FROM {0}pgbench_branches b JOIN {0}pgbench_history h ON h.bid = b.bid GROUP BY b.bid, b.bbalance"
    ),
}
READ = (
    "SELECT a.total, t.total, b.total, h.total, h.transactions "
    "FROM accounts_sum a, tellers_sum t, branches_sum b, history_sum h"
)


def fill(postgres: Postgres, scale: int) -> None:
    finish(postgres.pgbench("-i", "-q", "-s", str(scale)), 120)
    postgres.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")


def create_source(server: Server, postgres: Postgres) -> None:
    tables = ", ".join(f"public.pgbench_{t}" for t in ("accounts", "tellers", "branches", "history"))
    server.query(
        f"CREATE SOURCE bank FROM POSTGRES '{postgres.url}' (PUBLICATION 'bank', TABLES ({tables}))"
    )


def create_views(server: Server) -> None:
    for name, query in SUMS.items():
        server.query(f"CREATE MATERIALIZED VIEW {name} AS {query}")
    for name, query in GROUPS.items():
        server.query(f"CREATE MATERIALIZED VIEW {name} AS {query.format('bank.')}")


def wait_for_copy(server: Server, accounts: int, seconds: float = 120) -> None:
    def copied():
        try:
            return server.query("SELECT count(*) FROM bank.pgbench_accounts") == [(accounts,)]
        except psycopg.Error as error:
            assert tolerable(error), error
            return False

    wait_until(copied, seconds, f"the copy of {accounts} accounts", pause=0.5)


def check_at_rest(server: Server, postgres: Postgres) -> None:
    """With no writer, every view equals Postgres's own answer."""
    lsn = postgres.wal_position()
    with server.connect() as connection:
        connection.execute(f"WAIT FOR POSITION 'bank:{lsn}' TIMEOUT '60s'")
        for name, query in SUMS.items():
            ours = connection.execute(f"SELECT * FROM {name}").fetchall()
            assert ours == postgres.query(query.replace("bank.", "")), name
        for name, query in GROUPS.items():
            ours = connection.execute(f"SELECT * FROM {name}").fetchall()
            assert sorted(ours) == sorted(postgres.query(query.format(""))), name


def tolerable(error: psycopg.Error) -> bool:
    """Whether a reader may see this error while the server goes down and comes up.

    A lost or refused connection has no SQLSTATE; 57P03 says that the server still catches up.
    """
    return isinstance(error, psycopg.OperationalError) and error.sqlstate in (None, "57P03")


class Reader(threading.Thread):
    """Repeats the one SELECT over the four views, and judges every answer."""

    def __init__(self, server: Server, may_fail: bool):
        super().__init__(daemon=True)
        self.server = server
        self.may_fail = may_fail
        self.stopping = threading.Event()
        self.answers = 0
        self.failures = 0
        self.totals: set[int] = set()
        self.transactions = -1
        self.wrong: list[str] = []

    def run(self) -> None:
        connection = None
        while not self.stopping.is_set():
            try:
                connection = connection or self.server.connect()
                self.judge(connection.execute(READ).fetchall())
            except psycopg.Error as error:
                self.failures += 1
                if not (self.may_fail and tolerable(error)):
                    self.wrong.append(f"{type(error).__name__} {error.sqlstate}: {error}")
                    return
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.05)
            except Exception as error:
                self.wrong.append(repr(error))
                return

    def judge(self, rows: list[tuple]) -> None:
        [(accounts, tellers, branches, history, transactions)] = rows
        if not accounts == tellers == branches == history:
            self.wrong.append(f"accounts {accounts}, tellers {tellers}, branches {branches}, history {history}")
        # A state that was once shown is durable, so that time never runs backwards.
        if transactions < self.transactions:
            self.wrong.append(f"{transactions} transactions after {self.transactions}")
        self.transactions = transactions
        self.totals.add(accounts)
        self.answers += 1

    def finish(self) -> None:
        self.stopping.set()
        self.join(timeout=90)
        assert not self.is_alive(), "the reader hangs"
        print(
            f"{self.answers} answers, {len(self.totals)} different ones, {self.failures} errors, "
            f"{self.transactions} transactions seen"
        )
        assert not self.wrong, f"{len(self.wrong)} wrong answers: {self.wrong[:5]}"
