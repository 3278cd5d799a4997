"""The same facts through SQL, RESP, HTTP, search, the archive and sinks are the same rows at one position."""

import json
import os
import random
import shutil
import threading
import time

import psycopg
import pytest

from evert_server import Server, wait_until
from postgres_server import Postgres
from redis_server import Redis
from same_rows import (
    SETUP,
    Iceberg,
    KafkaWriter,
    Reader,
    SqlWriter,
    archived,
    check_facts,
    create_sinks,
    doors,
    is_down,
    judge,
)

# Every kind of view that there is; each is rebuilt while the others serve.
REBUILT = ("by_merchant", "payments_search", "payments_archive", "payments_postgres", "payments_redis", "merchants_search")


@pytest.fixture
def server(new_server):
    return new_server().start()


@pytest.fixture
def cache():
    redis = Redis()
    try:
        yield redis.start()
    finally:
        redis.remove()


def states(server: Server) -> dict[str, str]:
    return dict(server.query("SELECT name, state FROM evert.views"))


def log_end(server: Server) -> int:
    return json.loads(server.get("/readyz")[1])["log_end"]


def all_at(server: Server, position: int, seconds: float = 60) -> None:
    """Waits until every view, index, archive and sink is live and has what is up to a position."""

    def behind():
        rows = server.query("SELECT name, state, position FROM evert.views")
        late = [row for row in rows if row[1] != "live" or row[2] < position]
        return not late

    wait_until(behind, seconds, f"all are live at {position}: {server.query('SELECT name, state, position FROM evert.views')}")


class Rebuild(threading.Thread):
    """REBUILD, which returns once the view has caught up; the server may be killed meanwhile."""

    def __init__(self, server: Server, name: str):
        super().__init__(daemon=True)
        self.server, self.view = server, name
        self.wrong: psycopg.Error | None = None
        self.done = False
        self.start()

    def run(self) -> None:
        try:
            self.server.query(f"REBUILD VIEW {self.view}")
            self.done = True
        except psycopg.Error as error:
            self.wrong = None if is_down(error) else error

    def finish(self, must: bool) -> None:
        self.join(timeout=60)
        assert not self.is_alive(), f"REBUILD VIEW {self.view} does not end"
        assert self.wrong is None, f"{self.view}: {self.wrong}"
        assert self.done or not must, f"{self.view} was not rebuilt"


class World:
    """A server with every kind of view over payments, writers and readers at work."""

    def __init__(self, server: Server, postgres: Postgres, cache: Redis, seed: int):
        self.server = server
        for statement in SETUP:
            server.query(statement)
        create_sinks(server, postgres, cache)
        # What sinks write into is there from here on.
        all_at(server, log_end(server))
        self.doors = doors(server, postgres, cache)
        self.writers = [SqlWriter(server, seed + 1), SqlWriter(server, seed + 2), KafkaWriter(server, seed + 3)]
        self.readers = {name: Reader(name, open_door) for name, (_, open_door) in self.doors.items()}
        for thread in (*self.writers, *self.readers.values()):
            thread.start()

    def readers_of(self, views: set[str]) -> list[Reader]:
        return [reader for name, reader in self.readers.items() if self.doors[name][0] & views]

    def others_go_on(self, views: set[str], seconds: float = 30) -> None:
        """Doors that show nothing of `views` reach what is in the log now."""
        readers = [reader for reader in self.readers.values() if reader not in self.readers_of(views)]
        assert len(readers) >= 6
        end = log_end(self.server)

        def reached():
            wrong = [reader.wrong for reader in self.readers.values() if reader.wrong]
            assert not wrong, wrong
            return all(reader.reached() >= end for reader in readers)

        wait_until(reached, seconds, f"all but {views} reach {end}")
        troubled = {name: state for name, state in states(self.server).items() if name not in views and state != "live"}
        assert not troubled, troubled

    def judge(self) -> None:
        """Ends the load, reads all doors at one position, and judges all that was ever read."""
        for writer in self.writers:
            writer.finish()
        end = log_end(self.server)
        all_at(self.server, end)
        notes = []
        for reader in self.readers.values():
            assert reader.finish(), f"{reader.name} was never read"
            notes += reader.notes
        last = {name: open_door().read(end) for name, (_, open_door) in self.doors.items()}
        expected = {note.relation: note.rows for note in last["SQL"]}
        assert len(expected["payments"]) > 20 and len(expected["by_merchant"]) > 3, "too little is left to compare"
        for name, read in last.items():
            for note in read:
                # An archive's snapshot says the last position that it had facts of.
                assert note.rows == expected[note.relation], f"{name} at {note.position}: {note.relation}"
            notes += read
        facts = archived(Iceberg(self.server).table())
        check_facts(self.server, facts, self.writers)
        judge(facts, notes)
        counts = {reader.name: (len(reader.notes), reader.down) for reader in self.readers.values()}
        print(f"{len(facts)} facts, {len(notes)} notes; by door, and errors while the server was down: {counts}")
        for name in states(self.server):
            self.server.verify(name)


def seeded() -> int:
    seed = int(os.environ.get("EVERT_SEED", time.time_ns() % 1_000_000))
    print(f"EVERT_SEED={seed}")
    random.seed(seed)
    return seed


@pytest.mark.timeout(400)
def test_every_door_shows_the_same_rows(server, postgres, cache):
    """Under load, through rebuilds of each kind while the others serve, and through kills at random moments."""
    chance = random.Random(seeded())
    world = World(server, postgres, cache, chance.randrange(1_000_000))
    for cycle in range(int(os.environ.get("EVERT_SAME_ROWS_CYCLES", "8"))):
        time.sleep(chance.uniform(0.2, 1.5))
        name = REBUILT[cycle % len(REBUILT)]
        rebuilding = Rebuild(server, name)
        world.others_go_on({name})
        rebuilding.finish(must=True)
        if cycle % 2:
            # Perhaps amid another's.
            rebuilding = Rebuild(server, chance.choice(REBUILT))
            time.sleep(chance.uniform(0, 1.0))
            server.kill9()
            server.start()
            rebuilding.finish(must=False)
    world.judge()
    server.check_unharmed()
    server.terminate()


def in_trouble(server: Server, names: set[str]) -> None:
    """Each of `names` says what is wrong."""

    def troubled():
        now = states(server)
        return all(now[name].startswith(("retrying: ", "failed: ")) for name in names)

    wait_until(troubled, 30, f"{names} say what is wrong")
    print({name: state for name, state in states(server).items() if name in names})


@pytest.mark.timeout(300)
def test_each_kind_fails_alone(server, postgres, cache):
    """What a kind needs is taken away: it says so, the others go on, and it comes back."""
    world = World(server, postgres, cache, seeded())

    def trouble(names: set[str], take, give, rebuild: bool = False) -> None:
        for reader in world.readers_of(names):
            reader.troubled = True
        take()
        in_trouble(server, names)
        world.others_go_on(names)
        world.others_go_on(names)
        give()
        if rebuild:
            for name in names:
                server.query(f"REBUILD VIEW {name}")
        all_at(server, log_end(server), 90)
        for reader in world.readers_of(names):
            reader.troubled = False

    def file_instead_of(directory):
        """A directory that cannot be written, for root neither."""
        away = directory.with_name(directory.name + ".away")

        def take():
            directory.rename(away)
            directory.write_text("no directory")

        def give():
            directory.unlink()
            away.rename(directory)

        return take, give

    trouble({"payments_search", "merchants_search"}, *file_instead_of(server.data / "outlets"), rebuild=True)
    table = server.data / "archives" / "payments"
    trouble({"payments_archive"}, *file_instead_of(table / "data"))
    # For good: the log has it all.
    gone = table.with_name("gone")
    trouble({"payments_archive"}, lambda: table.rename(gone), lambda: shutil.rmtree(gone), rebuild=True)
    trouble({"payments_postgres", "by_merchant_postgres"}, postgres.stop, postgres.start)
    trouble({"payments_redis", "by_merchant_redis"}, cache.stop, cache.start)
    world.judge()
    server.check_unharmed()
    server.terminate()
