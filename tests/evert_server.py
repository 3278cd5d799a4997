"""An Evert server under test: one process, one data directory, real ports."""

import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import threading
import time
import urllib.request

import psycopg

# From the start of the process to `evert ready`; a replay of what the tests write fits well in it.
READY_SECONDS = 60
STOP_SECONDS = 30


def binary() -> pathlib.Path:
    """The binary under test: EVERT_BIN, else the release build of this workspace."""
    named = os.environ.get("EVERT_BIN")
    if named:
        return pathlib.Path(named)
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"],
        cwd=pathlib.Path(__file__).parent,
        check=True,
        capture_output=True,
    )
    return pathlib.Path(json.loads(metadata.stdout)["target_directory"]) / "release" / "evert"


class Server:
    """`evert serve` on a directory. Ports are free ones at first and stay the same ever after."""

    def __init__(self, directory: pathlib.Path, *arguments: str, env: dict[str, str] | None = None):
        self.data = directory / "data"
        self.log_path = directory / "evert.log"
        self.arguments = list(arguments)
        self.env = env or {}
        self.process: subprocess.Popen | None = None
        self.addresses = {door: "127.0.0.1:0" for door in ("kafka", "sql", "keyvalue", "http")}
        directory.mkdir(parents=True, exist_ok=True)

    # Life and death.

    def start(self) -> "Server":
        """Starts the process and returns once every door is open."""
        assert not self.running(), "the server is already running"
        doors = [part for door, address in self.addresses.items() for part in (f"--{door}", address)]
        with open(self.log_path, "ab") as log:
            log.write(b"---- start\n")
            log.flush()
            self.process = subprocess.Popen(
                [binary(), "serve", "--data", self.data, *doors, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "RUST_BACKTRACE": "1", **self.env},
            )
        self._wait_until_ready()
        return self

    def _wait_until_ready(self) -> None:
        lines: queue.Queue[str | None] = queue.Queue()

        def read(stdout):
            for line in stdout:
                lines.put(line)
            lines.put(None)

        # The thread goes on reading so that the server never blocks on a full pipe.
        threading.Thread(target=read, args=(self.process.stdout,), daemon=True).start()
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.kill9()
                raise AssertionError(f"not ready in {READY_SECONDS} s\n{self.log_tail()}") from None
            if line is None:
                code = self.process.wait()
                raise AssertionError(f"exited with {code} before it was ready\n{self.log_tail()}")
            if line.startswith("evert ready"):
                self.addresses.update(
                    (door, address)
                    for door, address in re.findall(r"(\w+)=(\S+)", line)
                    if door in self.addresses
                )
                return

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill9(self) -> None:
        """Kills the process as a crash would: nothing of its own runs any more."""
        assert self.process is not None, "the server was never started"
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> None:
        """Stops the server in good order; it must exit with 0."""
        assert self.running(), f"the server is not running\n{self.log_tail()}"
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(f"SIGTERM: alive after {STOP_SECONDS} s\n{self.log_tail()}") from None
        assert code == 0, f"SIGTERM: exit code {code}\n{self.log_tail()}"

    def restart(self) -> "Server":
        """Stops in good order and starts on the same data and ports."""
        self.terminate()
        return self.start()

    def check_unharmed(self) -> None:
        """Whatever was done to the server, it runs and no thread of it panicked."""
        assert self.running(), f"the server died\n{self.log_tail()}"
        assert "panicked at" not in self.log(), f"a panic\n{self.log_tail()}"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    # Doors.

    @property
    def kafka(self) -> str:
        return self.addresses["kafka"]

    @property
    def sql(self) -> str:
        return self.addresses["sql"]

    @property
    def keyvalue(self) -> str:
        return self.addresses["keyvalue"]

    @property
    def http(self) -> str:
        return self.addresses["http"]

    @property
    def dsn(self) -> str:
        host, port = self.sql.rsplit(":", 1)
        return f"host={host} port={port} user=evert dbname=evert"

    def address(self, door: str) -> tuple[str, int]:
        """A door's address as sockets take it."""
        host, port = self.addresses[door].rsplit(":", 1)
        return host, int(port)

    def connect(self, **options) -> psycopg.Connection:
        """A SQL connection, in autocommit unless asked otherwise."""
        return psycopg.connect(self.dsn, **{"autocommit": True, "connect_timeout": 10, **options})

    def query(self, statement: str, parameters=None) -> list[tuple]:
        """The rows of one statement on a connection of its own; none when it returns no rows."""
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def verify(self, view: str) -> None:
        """Has the view folded again from zero; the live one must hold the same rows."""
        (_, position, live, replayed, equal, why), *rows = self.query(f"VERIFY VIEW {view}")
        assert equal and live == replayed, f"{view} at {position}: {live} rows live, {replayed} replayed; {why} {rows}"

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of an HTTP GET."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def wait_until(check, seconds: float, what: str, pause: float = 0.1):
    """Calls `check` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(pause)
