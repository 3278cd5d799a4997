"""Fixtures of the end-to-end tests: servers that are torn down whatever happens."""

import os

import pytest

from evert_server import Server
from postgres_server import Postgres

SERVERS = pytest.StashKey[list]()


@pytest.fixture
def new_server(request, tmp_path):
    """Makes servers, each with a data directory of its own; not started yet."""
    servers = request.node.stash.setdefault(SERVERS, [])

    def make(*arguments: str, **options) -> Server:
        servers.append(Server(tmp_path / f"evert-{len(servers)}", *arguments, **options))
        return servers[-1]

    yield make
    for server in servers:
        if server.running():
            server.kill9()
    for server in servers:
        assert "panicked at" not in server.log(), f"a panic\n{server.log_tail()}"


@pytest.fixture
def server(new_server):
    """A running server that must still be alive, and stop in good order, when the test is over."""
    server = new_server().start()
    yield server
    server.check_unharmed()
    server.terminate()


@pytest.fixture
def postgres():
    """A running Postgres with `wal_level=logical`."""
    postgres = Postgres()
    try:
        yield postgres.start()
    finally:
        postgres.remove()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what its servers said."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for index, server in enumerate(item.stash.get(SERVERS, [])):
            report.sections.append((f"evert {index}: {server.log_path}", server.log_tail(60)))


def pytest_collection_modifyitems(items):
    """Longer runs need longer limits: `cargo xtask battery` sets the factor."""
    factor = int(os.environ.get("EVERT_TEST_TIMEOUT_FACTOR", "1"))
    for item in items:
        marker = item.get_closest_marker("timeout")
        if factor > 1 and marker and marker.args:
            item.add_marker(pytest.mark.timeout(marker.args[0] * factor), append=False)
