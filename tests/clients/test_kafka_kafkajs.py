"""kafkajs, unmodified: the scripts beside this file assert, this one runs them."""

import pathlib
import subprocess

import pytest

SCRIPTS = pathlib.Path(__file__).parent / "kafkajs"


@pytest.mark.parametrize("script", ["roundtrip", "group"])
def test_kafkajs(server, script):
    done = subprocess.run(
        ["node", SCRIPTS / f"{script}.mjs", server.kafka],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "KAFKAJS_NO_PARTITIONER_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "done"
