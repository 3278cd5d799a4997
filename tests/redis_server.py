"""A real redis-server on a free port, in a directory of its own."""

import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from postgres_server import free_port

ALL_HASHES = """
local all = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local fields, row = redis.call('HGETALL', key), {}
  for i = 1, #fields, 2 do row[fields[i]] = fields[i + 1] end
  all[key] = row
end
return cjson.encode(all)
"""


class Redis:
    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="evert-redis-"))
        self.port = free_port()
        self.process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "Redis":
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        with open(self.directory / "redis.log", "ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", *arguments, "--dir", str(self.directory)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while self.command("PING", check=False) != "PONG":
            assert self.process.poll() is None, "redis-server exited"
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=20)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self, *words: str, check: bool = True):
        """What redis-cli answers, as it would be in JSON."""
        run = subprocess.run(
            ["redis-cli", "-3", "--json", "-p", str(self.port), *words], capture_output=True, text=True, timeout=20
        )
        assert run.returncode == 0 or not check, run.stderr
        # While it reads its file again it says so, and that is no JSON.
        answered = run.returncode == 0 and run.stdout.strip() and not run.stdout.startswith("error:")
        assert answered or not check, run.stdout
        return json.loads(run.stdout) if answered else None

    def rows(self, prefix: str) -> dict[str, dict[str, str]]:
        """All hashes under a prefix. Their keys may hold what no argument of a program can."""
        return json.loads(self.command("EVAL", ALL_HASHES, "0", f"{prefix}*"))
