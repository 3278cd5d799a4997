"""A real Postgres with logical decoding, in a directory of its own, on a free port."""

import glob
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg

SETTINGS = {
    "wal_level": "logical",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "listen_addresses": "127.0.0.1",
    # The operating system outlives every crash of these tests.
    "fsync": "off",
    "full_page_writes": "off",
    "log_min_messages": "warning",
}


def program(name: str) -> str:
    """A Postgres program: the newest that Debian installed, else the one on the path."""
    installed = glob.glob(f"/usr/lib/postgresql/*/bin/{name}")
    newest = max(installed, key=lambda path: int(path.split("/")[4]), default=None)
    found = newest or shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def account() -> dict:
    """Popen's arguments that drop root, under which Postgres refuses to run."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise AssertionError("neither a postgres nor a nobody account to run Postgres under")


class Postgres:
    """One cluster. Trusts the loopback; superuser `postgres`."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="evert-postgres-"))
        self.account = account()
        if self.account:
            os.chown(self.directory, self.account["user"], self.account["group"])
        self.port = free_port()
        self.process: subprocess.Popen | None = None
        self.log_path = self.directory / "postgres.log"
        self._run(
            "initdb", "-D", str(self.directory / "data"), "-U", "postgres", "-A", "trust",
            "-E", "UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> "Postgres":
        settings = {**SETTINGS, "port": str(self.port), "unix_socket_directories": str(self.directory)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [program("postgres"), "-D", self.directory / "data", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                **self.account,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connect().close()
                return self
            except psycopg.OperationalError:
                assert self.process.poll() is None, f"Postgres exited\n{self.log()}"
                assert time.monotonic() < deadline, f"Postgres did not start\n{self.log()}"
                time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT disconnects everyone and shuts down; SIGQUIT is a crash."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=30)
            raise AssertionError(f"Postgres did not stop\n{self.log()}") from None

    def restart(self, how: signal.Signals = signal.SIGINT) -> "Postgres":
        self.stop(how)
        return self.start()

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self, **options) -> psycopg.Connection:
        return psycopg.connect(self.url, **{"autocommit": True, "connect_timeout": 10, **options})

    def execute(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def query(self, statement: str) -> list[tuple]:
        with self.connect() as connection:
            return connection.execute(statement).fetchall()

    def wal_position(self) -> str:
        """The end of the WAL: whatever was committed before is at or before it."""
        [[lsn]] = self.query("SELECT pg_current_wal_insert_lsn()::text")
        return lsn

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:] if self.log_path.exists() else ""

    def pgbench(self, *arguments: str) -> subprocess.Popen:
        """Starts pgbench; its report goes to stdout."""
        return subprocess.Popen(
            [program("pgbench"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *arguments, "postgres"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [program(name), *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            **self.account,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


def finish(pgbench: subprocess.Popen, seconds: float) -> str:
    """Waits for pgbench and returns its report; a failed transaction is a failure."""
    try:
        report, _ = pgbench.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        pgbench.kill()
        pgbench.communicate()
        raise AssertionError(f"pgbench did not end in {seconds} s") from None
    assert pgbench.returncode == 0, report
    return report
