"""node-postgres, unmodified: the script beside this file asserts, this one runs it."""

import pathlib
import subprocess

import pytest

SCRIPTS = pathlib.Path(__file__).parent / "node-postgres"


@pytest.mark.parametrize("script", ["tour"])
def test_node_postgres(server, script):
    done = subprocess.run(
        ["node", SCRIPTS / f"{script}.mjs", server.sql],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "done"
