"""The bank: pgbench's four tables in Postgres, and the views of Evert that must always agree.

Each of pgbench's transactions adds the same delta to one account, one teller and one branch, and
notes it in the history. So the four sums are equal after every transaction and at no moment
between the statements of one: any reader who sees half a transaction sees unequal sums.

Two more views stand beside the sums. The board joins each teller to what the history says of it,
outside: the history's total is NULL for as long as it is not above zero. The top five are the
board's first five. Both are read in the same SELECT as the sums.
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
# Compared with Postgres at rest: a group-by, joins, the first rows in an order.
GROUPS = {
    "board": (
        "SELECT t.tid, t.tbalance, h.total FROM {0}pgbench_tellers t LEFT JOIN "
        "(SELECT tid, sum(delta) AS total FROM {0}pgbench_history GROUP BY tid HAVING sum(delta) > 0) h "
        "ON h.tid = t.tid"
    ),
    "top_tellers": "SELECT tid, tbalance FROM {}pgbench_tellers ORDER BY tbalance DESC, tid LIMIT 5",
    "teller_totals": (
        "SELECT bid, count(*) AS tellers, sum(tbalance) AS total FROM {}pgbench_tellers GROUP BY bid"
    ),
    "branch_history": (
        "SELECT b.bid, b.bbalance, count(*) AS n, sum(h.delta) AS total, min(h.delta) AS least, max(h.delta) AS most "
        "FROM {0}pgbench_branches b JOIN {0}pgbench_history h ON h.bid = b.bid GROUP BY b.bid, b.bbalance"
    ),
}
# All views in one statement, so at one position: the sums, the board, the top five.
READ = (
    "SELECT 's' AS view, a.total AS x, t.total AS y, b.total AS z, h.total AS n, h.transactions AS transactions "
    "FROM accounts_sum a, tellers_sum t, branches_sum b, history_sum h "
    "UNION ALL SELECT 'b', tid, tbalance, total, NULL, NULL FROM board "
    "UNION ALL SELECT 't', tid, tbalance, NULL, NULL, NULL FROM top_tellers"
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


def wrong_of_board(board: dict, top: list[tuple], accounts: int) -> list[str]:
    """What no order of commits explains in the tellers' board and the top five of one position."""
    wrong = [
        f"teller {tid} has {balance}, its history {total}"
        for tid, (balance, total) in board.items()
        if total != (balance if balance > 0 else None)
    ]
    balances = sum(balance for balance, _ in board.values())
    if balances != accounts:
        wrong.append(f"the board's tellers have {balances}, the accounts {accounts}")
    first = sorted(((tid, balance) for tid, (balance, _) in board.items()), key=lambda row: (-row[1], row[0]))[:5]
    if sorted(first) != sorted(top):
        wrong.append(f"the top five are {sorted(top)}, the board's first five {sorted(first)}")
    return wrong


class Reader(threading.Thread):
    """Repeats the one SELECT over all views, and judges every answer."""

    def __init__(self, server: Server, may_fail: bool):
        super().__init__(daemon=True)
        self.server = server
        self.may_fail = may_fail
        self.stopping = threading.Event()
        self.answers = 0
        self.failures = 0
        self.totals: set[int] = set()
        # How many tellers of an answer had no history above zero.
        self.nulls: set[int] = set()
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
        [(accounts, tellers, branches, history, transactions)] = [row[1:] for row in rows if row[0] == "s"]
        if not accounts == tellers == branches == history:
            self.wrong.append(f"accounts {accounts}, tellers {tellers}, branches {branches}, history {history}")
        board = {tid: (balance, total) for view, tid, balance, total, *_ in rows if view == "b"}
        top = [(tid, balance) for view, tid, balance, *_ in rows if view == "t"]
        self.wrong.extend(wrong_of_board(board, top, accounts))
        self.nulls.add(sum(total is None for _, total in board.values()))
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
            f"{self.transactions} transactions seen, {min(self.nulls)} to {max(self.nulls)} tellers below zero"
        )
        assert not self.wrong, f"{len(self.wrong)} wrong answers: {self.wrong[:5]}"
