"""The demo: facts flow, both views are live, and a replay from zero equals them."""

import subprocess

import pytest

from evert_server import binary


def demo(*arguments: str, cwd) -> str:
    done = subprocess.run(
        [binary(), "demo", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(150)
def test_the_demo_ends_with_equal_views(tmp_path):
    said = demo("--seconds", "5", cwd=tmp_path).lower()
    print(said)
    for word in ("replay", "equal", "p50", "p99"):
        assert word in said, word


@pytest.mark.timeout(180)
def test_the_demo_leaves_its_data(new_server, tmp_path):
    server = new_server()
    said = demo("--seconds", "3", "--keep", str(server.data), cwd=tmp_path)
    print(said)
    assert "psql" in said and "kcat" in said
    server.start()
    views = dict(server.query("SELECT name, kind FROM evert.views"))
    assert sorted(views.values()) == ["archive", "search", "table", "table", "table", "table"], views
    for name, kind in views.items():
        if kind == "table" and name != "card_last_minute":
            [(rows,)] = server.query(f"SELECT count(*) FROM {name}")
            assert rows > 0, name
        server.verify(name)
    server.check_unharmed()
    server.terminate()
