"""Reading beyond a plain SELECT: SUBSCRIBE by every door, AS OF, cursors, by real clients."""

import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import psycopg
import pytest

TABLE = "CREATE TABLE pay (id bigint PRIMARY KEY, shop text, cents bigint)"
VIEW = "CREATE MATERIALIZED VIEW by_shop AS SELECT shop, count(*) AS n, sum(cents) AS cents FROM pay GROUP BY shop"


def position(connection) -> int:
    return int(connection.execute("SHOW POSITION").fetchone()[0])


def table_of(rows) -> dict:
    """What changes add up to: row to weight, those that cancel left out."""
    sums: dict = {}
    for weight, row in rows:
        sums[row] = sums.get(row, 0) + weight
    return {row: weight for row, weight in sums.items() if weight}


class Copied:
    """A SUBSCRIBE as COPY OUT, read line by line in a thread."""

    def __init__(self, server, statement: str):
        self.connection = server.connect(autocommit=True)
        self.lines: list[list[str]] = []
        self.error = None
        self.thread = threading.Thread(target=self._read, args=(statement,), daemon=True)
        self.thread.start()

    def _read(self, statement: str) -> None:
        try:
            with self.connection.cursor().copy(statement) as copy:
                while data := copy.read():
                    self.lines.extend(line.split("\t") for line in bytes(data).decode().splitlines())
        except psycopg.Error as error:
            self.error = error

    def wait_for(self, condition, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition(self.lines):
            assert time.monotonic() < deadline, f"{self.lines} {self.error}"
            assert self.error is None, self.error
            time.sleep(0.01)

    def close(self) -> None:
        self.connection.cancel()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.connection.close()


def changes_of(lines: list[list[str]]) -> list:
    return [(int(line[1]), tuple(line[2:])) for line in lines]


def test_subscribe_as_copy_out(server):
    with server.connect(autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute(VIEW)
        connection.execute("INSERT INTO pay VALUES (1, 'a', 10), (2, 'b\tc', 20)")
        copied = Copied(server, "COPY (SUBSCRIBE by_shop WITH SNAPSHOT) TO STDOUT")
        copied.wait_for(lambda lines: len(lines) == 2)
        first = position(connection)
        assert table_of(changes_of(copied.lines)) == {("a", "1", "10"): 1, ("b\\tc", "1", "20"): 1}
        connection.execute("INSERT INTO pay VALUES (3, 'a', 5)")
        second = position(connection)
        copied.wait_for(lambda lines: len(lines) == 4)
        assert copied.lines[2:] == [[str(second), "-1", "a", "1", "10"], [str(second), "1", "a", "2", "15"]]
        connection.execute("DELETE FROM pay WHERE shop = 'a'")
        copied.wait_for(lambda lines: len(lines) == 5)
        assert table_of(changes_of(copied.lines)) == {("b\\tc", "1", "20"): 1}
        copied.close()
        assert copied.error.sqlstate == "57014"

        # Plain SUBSCRIBE is the same; it goes on after any position, and ends where it is told to.
        last = position(connection)
        for text in (f"SUBSCRIBE by_shop AS OF POSITION {first} UP TO {last}",
                     f"SUBSCRIBE TO by_shop UP TO POSITION {last} AS OF POSITION {first}"):  # fmt: skip
            again = Copied(server, text)
            again.thread.join(20)
            assert again.error is None and changes_of(again.lines) == changes_of(copied.lines[2:])
        whole = Copied(server, f"SUBSCRIBE by_shop WITH (SNAPSHOT, PROGRESS) AS OF POSITION {first} UP TO {last}")
        whole.thread.join(20)
        marks = [int(line[0]) for line in whole.lines if line[2] == "t"]
        assert marks[0] == first and marks[-1] == last and marks == sorted(marks)
        rows = [(int(line[1]), tuple(line[3:])) for line in whole.lines if line[2] == "f"]
        assert table_of(rows) == {("b\\tc", "1", "20"): 1}

        # Tables and streams are followed like views.
        connection.execute("CREATE STREAM clicks (who text)")
        connection.execute("INSERT INTO clicks VALUES ('x'), ('y')")
        clicks = Copied(server, "SUBSCRIBE clicks WITH SNAPSHOT")
        clicks.wait_for(lambda lines: len(lines) == 2)
        connection.execute("INSERT INTO clicks VALUES ('z')")
        clicks.wait_for(lambda lines: len(lines) == 3)
        assert sorted(line[2] for line in clicks.lines) == ["x", "y", "z"]
        clicks.close()

        # It ends with a clear error when its view is gone.
        gone = Copied(server, "SUBSCRIBE by_shop")
        time.sleep(0.3)
        connection.execute("DROP MATERIALIZED VIEW by_shop")
        gone.thread.join(20)
        assert gone.error.sqlstate == "55000" and "dropped or replaced" in str(gone.error)
        for text, state in [("SUBSCRIBE nothing", "42P01"), ("SUBSCRIBE pay AS OF POSITION 999999", "22023"),
                            ("SUBSCRIBE (SELECT 1)", "0A000"), ("SUBSCRIBE pay WITH (SPEED)", "22023")]:  # fmt: skip
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(text)
            assert refused.value.sqlstate == state, text


def test_subscribers_hear_of_another_select(server):
    other = "SELECT shop, count(*) AS n, sum(cents) * 2 AS cents FROM pay WHERE shop <> 'b' GROUP BY shop"
    with server.connect(autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute(VIEW.replace("by_shop AS", "by_shop WITH (changes = 'on') AS"))
        connection.execute("CREATE MATERIALIZED VIEW above AS SELECT shop, cents FROM by_shop")
        connection.execute("INSERT INTO pay VALUES (1, 'a', 10), (2, 'b', 20), (3, 'c', 0)")
        copies = {name: Copied(server, f"COPY (SUBSCRIBE {name} WITH SNAPSHOT) TO STDOUT") for name in ("by_shop", "above")}
        for copied in copies.values():
            copied.wait_for(lambda lines: len(lines) == 3)
        connection.execute("INSERT INTO pay VALUES (4, 'a', 1)")
        for copied in copies.values():
            copied.wait_for(lambda lines: len(lines) == 5)
        connection.execute(f"CREATE OR REPLACE MATERIALIZED VIEW by_shop AS {other}")
        # Of c nothing differs, so nothing is told.
        copies["by_shop"].wait_for(lambda lines: len(lines) >= 8)
        copies["above"].wait_for(lambda lines: len(lines) >= 8)
        assert table_of(changes_of(copies["by_shop"].lines[5:8])) == {("a", "2", "11"): -1, ("a", "2", "22"): 1, ("b", "1", "20"): -1}
        connection.execute("INSERT INTO pay VALUES (5, 'c', 3)")
        for name, copied in copies.items():
            copied.wait_for(lambda lines: len(lines) == 10)
            held = {tuple(map(str, row)): 1 for row in connection.execute(f"SELECT * FROM {name}").fetchall()}
            assert table_of(changes_of(copied.lines)) == held, name
        records_of(server, "by_shop.changes", 7)
        # An open SUBSCRIBE does not delay the server's end.
        began = time.monotonic()
        server.restart()
        assert time.monotonic() - began < 2.5
        assert copies["above"].error is not None or not copies["above"].thread.is_alive()


def test_psql_copies_changes(server):
    with server.connect(autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("INSERT INTO pay VALUES (1, 'a', 10)")
        end = position(connection)
    host, port = server.address("sql")
    out = subprocess.run(
        ["psql", "-h", host, "-p", str(port), "-U", "evert", "-d", "evert", "-X", "-c",
         f"COPY (SUBSCRIBE pay WITH SNAPSHOT UP TO {end}) TO STDOUT"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (out.returncode, out.stdout) == (0, f"{end}\t1\t1\ta\t10\n"), out.stderr


def test_cursors(server):
    with server.connect() as connection:
        connection.autocommit = True
        connection.execute(TABLE)
        connection.execute(VIEW)
        connection.execute("INSERT INTO pay SELECT value, 's' || (value % 3), 1 FROM generate_series(1, 10) AS t(value)")
        connection.autocommit = False
        with connection.cursor(name="all") as cursor:
            cursor.itersize = 4
            cursor.execute("SELECT id FROM pay ORDER BY id")
            assert [row[0] for row in cursor] == list(range(1, 11))
        connection.rollback()

        connection.execute("DECLARE c CURSOR FOR SUBSCRIBE by_shop WITH SNAPSHOT")
        fetched = connection.execute("FETCH ALL c WITH (TIMEOUT = '5s')").fetchall()
        assert sorted(row[2] for row in fetched) == ["s0", "s1", "s2"]
        assert connection.execute("FETCH 5 c").fetchall() == []
        began = time.monotonic()
        assert connection.execute("FETCH 5 FROM c WITH (TIMEOUT = '400ms')").fetchall() == []
        assert 0.3 < time.monotonic() - began < 5
        with server.connect(autocommit=True) as other:
            other.execute("INSERT INTO pay VALUES (11, 's9', 7)")
            at = position(other)
        assert connection.execute("FETCH 5 FROM c WITH (TIMEOUT = '20s')").fetchall() == [(at, 1, "s9", 1, 7)]
        connection.execute("CLOSE c")
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("FETCH c")
        assert refused.value.sqlstate == "34000"
        connection.rollback()

        connection.autocommit = True
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("DECLARE c CURSOR FOR SELECT 1")
        assert refused.value.sqlstate == "25P01"
        connection.execute("DECLARE h CURSOR WITH HOLD FOR SELECT id FROM pay ORDER BY id")
        assert connection.execute("FETCH FORWARD 2 FROM h").fetchall() == [(1,), (2,)]
        assert connection.execute("MOVE 3 FROM h").statusmessage == "MOVE 3"
        assert connection.execute("FETCH NEXT FROM h").fetchall() == [(6,)]
        connection.execute("CLOSE ALL")


class Events:
    """Server-sent events of a view, as a browser would take them."""

    def __init__(self, server, path: str, last_id: str | None = None):
        host, port = server.address("http")
        headers = {"Last-Event-ID": last_id} if last_id else {}
        request = urllib.request.Request(f"http://{host}:{port}{path}", headers=headers)
        self.answer = urllib.request.urlopen(request, timeout=20)
        self.last_id = last_id

    def next(self) -> tuple[str, object]:
        """The next event's name and data; comments are passed over."""
        name, data, last_id = None, [], self.last_id
        while True:
            line = self.answer.readline()
            if not line:
                return "end", None
            line = line.decode().rstrip("\n")
            if not line and name:
                self.last_id = last_id
                return name, json.loads("\n".join(data))
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                last_id = value

    def close(self) -> None:
        self.answer.close()


def test_server_sent_events_resume(new_server):
    server = new_server().start()
    with server.connect(autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute(VIEW)
        connection.execute("INSERT INTO pay VALUES (1, 'a', 10), (2, 'b', 20)")
    state: list = []

    def take(events: Events, until: int) -> None:
        """Reads on until everything up to a position was told."""
        while events.last_id is None or int(events.last_id) < until:
            name, data = events.next()
            assert name in ("changes", "progress"), data
            if name == "changes":
                state.extend((row.pop("evert_weight"), (row["shop"], row["n"], row["cents"])) for row in data)

    def insert(row: str) -> int:
        with server.connect(autocommit=True) as connection:
            connection.execute(f"INSERT INTO pay VALUES {row}")
            return position(connection)

    end = insert("(3, 'a', 1)")
    events = Events(server, "/api/views/by_shop/changes?snapshot=true")
    take(events, end)
    assert table_of(state) == {("a", 2, "11"): 1, ("b", 1, "20"): 1}
    take(events, insert("(4, 'b', 1)"))
    events.close()
    missed = insert("(5, 'c', 5)")
    events = Events(server, "/api/views/by_shop/changes?snapshot=true", events.last_id)
    take(events, missed)
    assert table_of(state) == {("a", 2, "11"): 1, ("b", 2, "21"): 1, ("c", 1, "5"): 1}
    events.close()
    # After a crash the changes come from the log again.
    missed = insert("(6, 'a', 100)")
    server.kill9()
    server.start()
    events = Events(server, "/api/views/by_shop/changes?snapshot=true", events.last_id)
    take(events, missed)
    take(events, insert("(7, 'd', 1)"))
    assert table_of(state) == {("a", 3, "111"): 1, ("b", 2, "21"): 1, ("c", 1, "5"): 1, ("d", 1, "1"): 1}

    # Positions move on although the view does not change.
    with server.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE other (id int PRIMARY KEY)")
        connection.execute("INSERT INTO other VALUES (1)")
        take(events, position(connection))
    # A place may be said as a record, too.
    with server.connect(autocommit=True) as connection:
        connection.execute("INSERT INTO other VALUES (2)")
    missed = insert("(8, 'b', 9)")
    take(events, missed)
    for query, last_id in (("?after=other/0@1", None), ("", "other/0@1")):
        after = Events(server, f"/api/views/by_shop/changes{query}", last_id)
        name, data = after.next()
        assert name == "changes" and {row["evert_position"] for row in data} == {missed}, data
        after.close()
    for path, status in [
        ("/api/views/nothing/changes", 404),
        ("/api/views/by_shop/changes?after=99999999", 400),
        ("/api/views/by_shop/changes?after=nothing/0@1", 400),
        ("/api/views/by_shop/changes?after=soon", 400),
    ]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            Events(server, path)
        assert refused.value.code == status
    # An open stream does not keep the server from stopping.
    began = time.monotonic()
    server.terminate()
    assert time.monotonic() - began < 6
    assert events.next()[0] == "end"


def test_server_sent_events_of_one_key(server):
    with server.connect(autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute(VIEW)
        connection.execute("CREATE TABLE seats (hall text, seat int, who text, PRIMARY KEY (hall, seat))")
        connection.execute("CREATE STREAM clicks (page text)")
        connection.execute("INSERT INTO pay VALUES (1, 'a', 10), (2, 'b', 20)")
        end = position(connection)
        one = Events(server, f"/api/views/by_shop/changes?snapshot=true&key=b&after={end}")
        seat = Events(server, "/api/views/seats/changes?key=x:y%5C:z:7".replace("x:y", "x%5C:y"))
        connection.execute("INSERT INTO seats VALUES ('x:y:z', 8, 'other'), ('x:y:z', 7, 'me')")
        connection.execute("INSERT INTO pay VALUES (3, 'a', 1), (4, 'c', 1)")
        connection.execute("INSERT INTO pay VALUES (5, 'b', 2), (6, 'a', 3)")
        end = position(connection)
        told = []
        while int(one.last_id or 0) < end:
            name, data = one.next()
            told += [(row["evert_weight"], row["shop"], row["n"], row["cents"]) for row in data] if name == "changes" else []
        assert sorted(told) == [(-1, "b", 1, "20"), (1, "b", 1, "20"), (1, "b", 2, "22")]
        name, data = seat.next()
        assert (name, [row["who"] for row in data]) == ("changes", ["me"])
        one.close()
        seat.close()
    for path in ("clicks/changes?key=a", "seats/changes?key=a&what=b"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            Events(server, f"/api/views/{path}")
        assert refused.value.code == 400


def test_a_subscriber_that_does_not_read_holds_nobody_up(server):
    with server.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE wide (id bigint PRIMARY KEY, filler text)")
        host, port = server.address("http")
        stalled = socket.create_connection((host, port))
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(b"GET /api/views/wide/changes HTTP/1.1\r\nHost: x\r\n\r\n")
        copied = Copied(server, "SUBSCRIBE wide WITH (SNAPSHOT, PROGRESS)")
        for _ in range(20):
            connection.execute(
                "INSERT INTO wide SELECT value, repeat(cast(value AS text), 200) FROM generate_series(1, 2000) AS t(value)"
            )
        end = position(connection)
        copied.wait_for(lambda lines: lines and int(lines[-1][0]) >= end)
        assert connection.execute("SELECT count(*) FROM wide").fetchone() == (2000,)
        assert len(table_of((int(line[1]), line[3]) for line in copied.lines if line[2] == "f")) == 2000
        copied.close()
        stalled.close()


def test_as_of(new_server):
    server = new_server().start()
    with server.connect(autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("CREATE STREAM clicks (who text)")
        connection.execute(VIEW)
        seen = {}
        for value in range(1, 6):
            connection.execute(f"INSERT INTO pay VALUES ({value}, 'a', {value})")
            connection.execute(f"INSERT INTO clicks VALUES ('c{value}')")
            at = position(connection)
            seen[at] = (value, value * (value + 1) // 2)

        def check() -> None:
            for at, (count, cents) in seen.items():
                rows = connection.execute(f"SELECT n, cents FROM by_shop AS OF POSITION {at}").fetchall()
                assert rows == [(count, cents)]
                query = "SELECT (SELECT count(*) FROM clicks), count(*) FROM pay"
                assert connection.execute(f"{query} AS OF POSITION {at}").fetchone() == (count, count)
                assert position(connection) == at
                found = connection.execute(f"SELECT cents FROM pay WHERE id = %s AS OF POSITION {at}", [count]).fetchall()
                assert found == [(count,)]

        check()
        time.sleep(1.2)
        before = connection.execute("SELECT now()").fetchone()[0]
        time.sleep(1.2)
        connection.execute("INSERT INTO pay VALUES (100, 'z', 100)")
        for text in ("AS OF TIMESTAMP %s", "AS OF TIMESTAMP now() - INTERVAL '1 second'"):
            parameters = [before.isoformat()] if "%s" in text else []
            cursor = psycopg.ClientCursor(connection)
            assert cursor.execute(f"SELECT count(*) FROM pay {text}", parameters).fetchone() == (5,)
        # now() is the log's time then: that of the last commit before.
        then = connection.execute(f"SELECT now() AS OF TIMESTAMP '{before.isoformat()}'").fetchone()[0]
        assert then is not None
        old = connection.execute(f"SELECT now(), count(*) FROM pay AS OF TIMESTAMP '{before.isoformat()}'").fetchone()
        assert old[1] == 5 and old[0] <= before
        for text, state in [("AS OF POSITION 1000000", "22023"), ("AS OF TIMESTAMP '2000-01-01'", "22023"),
                            ("AS OF TIMESTAMP '2999-01-01'", "22023"), ("AS OF POSITION soon", "42601")]:  # fmt: skip
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(f"SELECT * FROM pay {text}")
            assert refused.value.sqlstate == state, text
    # Long after, and after a restart, the log tells it.
    server.restart()
    with server.connect(autocommit=True) as connection:
        check()
    server.terminate()


def records_of(server, topic: str, at_least: int, seconds: float = 30) -> list:
    """All records of a topic's one partition, once there are so many."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": server.kafka, "group.id": "reader", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        records, deadline = [], time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = consumer.poll(0.3)
            if message is None:
                if len(records) >= at_least:
                    return records
                continue
            assert message.error() is None, message.error()
            value = None if message.value() is None else json.loads(message.value())
            at = int(dict(message.headers())["evert.position"])
            records.append((message.key(), value, at))
        raise AssertionError(f"{len(records)} of {at_least} records: {records}")
    finally:
        consumer.close()


def test_changes_as_a_topic(new_server):
    server = new_server().start()
    with server.connect(autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("INSERT INTO pay VALUES (1, 'a', 10), (2, 'b', 20)")
        connection.execute(VIEW.replace(" AS SELECT", " WITH (changes = 'on') AS SELECT", 1))
        connection.execute("CREATE MATERIALIZED VIEW cheap WITH (changes = 'on') AS SELECT shop FROM pay WHERE cents < 15")
        first = records_of(server, "by_shop.changes", 2)
        assert sorted(record[:2] for record in first) == [
            (b"a", {"shop": "a", "n": 1, "cents": "10"}),
            (b"b", {"shop": "b", "n": 1, "cents": "20"}),
        ]
        connection.execute("INSERT INTO pay VALUES (3, 'a', 5)")
        grown = position(connection)
        connection.execute("DELETE FROM pay WHERE shop = 'b'")
        gone = position(connection)
        records = records_of(server, "by_shop.changes", 4)
        assert [record[:2] for record in records[2:]] == [(b"a", {"shop": "a", "n": 2, "cents": "15"}), (b"b", None)]
        # The position is that of the tick, which may have held commits of others too.
        assert grown <= records[2][2] <= records[3][2] and gone <= records[3][2]
        weighted = [(value["evert_weight"], value["shop"]) for _, value, _ in records_of(server, "cheap.changes", 2)]
        assert weighted == [(1, "a"), (1, "a")]
    # Whatever happens to the server, each change is there once.
    for round_ in range(3):
        stop = threading.Event()

        def write(begin: int) -> None:
            try:
                with server.connect(autocommit=True) as other:
                    for value in range(begin, begin + 100_000):
                        other.execute(f"INSERT INTO pay VALUES ({value}, 's{value % 7}', {value})")
                        if stop.is_set():
                            return
            except psycopg.Error:
                pass

        writer = threading.Thread(target=write, args=(1000 * (round_ + 1),))
        writer.start()
        time.sleep(0.7)
        server.kill9()
        stop.set()
        writer.join(20)
        server.start()
    with server.connect(autocommit=True) as connection:
        connection.execute("INSERT INTO pay VALUES (999999, 'last', 1)")
        rows = {shop: (n, cents) for shop, n, cents in connection.execute("SELECT * FROM by_shop").fetchall()}
        deadline = time.monotonic() + 30
        while True:
            told, seen = {}, set()
            for key, value, at in records_of(server, "by_shop.changes", 5):
                assert (key, at) not in seen, "one record a key and commit"
                seen.add((key, at))
                before = told.get(key)
                assert value != before, f"{key} was told {value} twice"
                told[key] = value
            told = {value["shop"]: (value["n"], int(value["cents"])) for value in told.values() if value}
            if told == {shop: (n, int(cents)) for shop, (n, cents) in rows.items()}:
                break
            assert time.monotonic() < deadline, (told, rows)
        # A view that is made anew only adds what differs.
        count = len(records_of(server, "by_shop.changes", 5))
        connection.execute("DROP MATERIALIZED VIEW by_shop")
        connection.execute(VIEW.replace("FROM pay", "FROM pay WHERE shop <> 'last'").replace(" AS SELECT", " WITH (changes = 'on') AS SELECT", 1))
        after = records_of(server, "by_shop.changes", count + 1)
        assert [record[:2] for record in after[count:]] == [(b"last", None)]
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("CREATE MATERIALIZED VIEW w WITH (changes = 'maybe') AS SELECT * FROM pay")
        assert refused.value.sqlstate == "22023"
    server.terminate()


def test_views_start_in_the_past(new_server):
    server = new_server().start()
    with server.connect(autocommit=True) as connection:
        connection.execute("CREATE STREAM clicks (who text, n int)")
        connection.execute("CREATE TABLE names (who text PRIMARY KEY, name text)")
        connection.execute("INSERT INTO names VALUES ('a', 'Anna'), ('b', 'Bert')")
        connection.execute("INSERT INTO clicks VALUES ('a', 1), ('b', 1)")
        middle = position(connection)
        time.sleep(1.2)
        at = connection.execute("SELECT now()").fetchone()[0].isoformat()
        time.sleep(0.3)
        connection.execute("INSERT INTO clicks VALUES ('a', 10), ('a', 100)")
        query = "SELECT name, sum(n) AS n FROM clicks c JOIN names m ON c.who = m.who GROUP BY name"
        connection.execute(f"CREATE MATERIALIZED VIEW late START AT POSITION {middle} AS {query}")
        connection.execute(f"CREATE MATERIALIZED VIEW timed START AT TIMESTAMP '{at}' AS {query}")
        connection.execute(f"CREATE MATERIALIZED VIEW whole AS {query}")

        def check(a_late: int, a_whole: int) -> None:
            for view in ("late", "timed"):
                assert connection.execute(f"SELECT * FROM {view}").fetchall() == [("Anna", a_late)]
                assert connection.execute(f"VERIFY VIEW {view}").fetchone() is not None
            assert sorted(connection.execute("SELECT * FROM whole").fetchall()) == [("Anna", a_whole), ("Bert", 1)]

        check(110, 111)
        connection.execute("INSERT INTO clicks VALUES ('a', 1000)")
        check(1110, 1111)
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(f"CREATE MATERIALIZED VIEW x START AT POSITION 999999 AS {query}")
        assert "future" in str(refused.value)
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("DROP STREAM clicks")
        assert refused.value.sqlstate == "2BP01"
    server.kill9()
    server.start()
    with server.connect(autocommit=True) as connection:
        check(1110, 1111)
        # What such a view reads of the stream is no stream that anyone can name.
        for listed in ("evert.relations WHERE name", "information_schema.tables WHERE table_name"):
            assert connection.execute(f"SELECT count(*) FROM {listed} LIKE '%@%'").fetchone() == (0,)
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(f'SELECT * FROM "clicks@{middle}"')
        assert refused.value.sqlstate == "42P01"
        # It has the columns that the stream gets.
        connection.execute("ALTER STREAM clicks ADD COLUMN city text")
        connection.execute("INSERT INTO clicks VALUES ('a', 10000, 'Pune')")
        connection.execute(
            f"CREATE MATERIALIZED VIEW by_city START AT POSITION {middle} AS SELECT city, sum(n) AS n FROM clicks GROUP BY city"
        )
        by_city = "SELECT city, n FROM by_city ORDER BY city"
        assert connection.execute(by_city).fetchall() == [("Pune", 10000), (None, 1110)]
        check(11110, 11111)
    server.kill9()
    server.start()
    with server.connect(autocommit=True) as connection:
        assert connection.execute(by_city).fetchall() == [("Pune", 10000), (None, 1110)]
        connection.execute("INSERT INTO clicks VALUES ('a', 5, 'Pune')")
        assert connection.execute(by_city).fetchall() == [("Pune", 10005), (None, 1110)]
        connection.execute("DROP STREAM clicks CASCADE")
        assert connection.execute("SELECT count(*) FROM evert.relations WHERE name LIKE '%@%'").fetchone() == (0,)
    server.terminate()


def test_indexes(new_server):
    server = new_server().start()
    with server.connect(autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("INSERT INTO pay SELECT value, 's' || (value % 100), value % 10 FROM generate_series(1, 5000) AS t(value)")
        connection.execute("CREATE MATERIALIZED VIEW small AS SELECT shop, cents FROM pay WHERE cents < 5")

        def plan(query: str) -> str:
            return "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}").fetchall())

        query = "SELECT count(*), min(id) FROM pay WHERE shop = 's7'"
        assert "Lookup" not in plan(query)
        connection.execute("CREATE INDEX ON pay (shop)")
        connection.execute("CREATE INDEX both_columns ON pay USING btree (shop, cents)")
        connection.execute("CREATE INDEX of_small ON small (cents)")
        assert "Lookup in pay by index pay_shop_idx (shop)" in plan(query)
        assert "by index both_columns (shop, cents)" in plan("SELECT * FROM pay WHERE cents = 7 AND shop = 's7'")
        assert "by key (id)" in plan("SELECT * FROM pay WHERE id = 7 AND shop = 's7'")
        assert connection.execute(query).fetchone() == (50, 7)
        assert connection.execute("SELECT count(*) FROM pay WHERE shop = %s AND cents = %s", ["s7", 7]).fetchone() == (50,)
        assert connection.execute("SELECT count(*) FROM small WHERE cents = 3").fetchone() == (500,)
        assert connection.execute("SELECT id FROM pay WHERE shop = NULL").fetchall() == []
        # Rows come, change and go.
        connection.execute("UPDATE pay SET shop = 'moved' WHERE id = 7")
        connection.execute("DELETE FROM pay WHERE id = 107")
        connection.execute("INSERT INTO pay VALUES (10001, 's7', 3)")
        assert connection.execute(query).fetchone() == (49, 207)
        assert connection.execute("SELECT id FROM pay WHERE shop = 'moved'").fetchall() == [(7,)]
        assert connection.execute("SELECT count(*) FROM small WHERE cents = 3").fetchone() == (501,)
        # A transaction finds its own rows too.
        with connection.transaction():
            connection.execute("INSERT INTO pay VALUES (10002, 's7', 3)")
            connection.execute("DELETE FROM pay WHERE id = 207")
            assert connection.execute(query).fetchone() == (49, 307)
        for text, state in [("CREATE INDEX ON pay (nothing)", "42703"), ("CREATE INDEX ON nothing (x)", "42P01"),
                            ("CREATE INDEX both_columns ON pay (shop)", "42P07"), ("DROP INDEX nothing", "42704"),
                            ("CREATE UNIQUE INDEX ON pay (shop)", "0A000")]:  # fmt: skip
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(text)
            assert refused.value.sqlstate == state, text
        connection.execute("CREATE INDEX IF NOT EXISTS both_columns ON pay (shop)")
    server.restart()
    with server.connect(autocommit=True) as connection:
        assert "pay_shop_idx" in plan(query)
        assert connection.execute(query).fetchone() == (49, 307)
        connection.execute("DROP INDEX pay_shop_idx")
        connection.execute("DROP INDEX both_columns")
        assert "Lookup" not in plan(query)
        assert connection.execute(query).fetchone() == (49, 307)
        connection.execute("DROP MATERIALIZED VIEW small")
        with pytest.raises(psycopg.Error):
            connection.execute("DROP INDEX of_small")
    server.terminate()


def test_transactions_of_two_sessions(server):
    with server.connect(autocommit=False) as one, server.connect(autocommit=False) as two:
        one.autocommit = True
        one.execute(TABLE)
        one.execute("INSERT INTO pay VALUES (1, 'a', 10), (2, 'b', 20)")
        one.autocommit = False
        # Both touch a key: the second to commit is told to begin again.
        for connection in (one, two):
            connection.execute("UPDATE pay SET cents = cents + 1 WHERE id = 1")
        one.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            two.commit()
        two.rollback()
        # A key that was not there for either, too; keys apart do not meet.
        one.execute("INSERT INTO pay VALUES (3, 'c', 1)")
        two.execute("INSERT INTO pay VALUES (3, 'd', 2)")
        two.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            one.commit()
        one.rollback()
        one.execute("UPDATE pay SET cents = 0 WHERE id = 1")
        two.execute("UPDATE pay SET cents = 0 WHERE id = 2")
        one.commit()
        two.commit()
        # What a transaction reads stays, and it sees what it wrote.
        one.execute("UPDATE pay SET cents = 7 WHERE id = 1")
        assert two.execute("SELECT sum(cents) FROM pay").fetchone() == (2,)
        one.commit()
        assert two.execute("SELECT sum(cents) FROM pay").fetchone() == (2,)
        two.rollback()
        assert two.execute("SELECT sum(cents) FROM pay").fetchone() == (9,)
        two.rollback()


def test_identical_queries_run_once(server):
    with server.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE n (id bigint PRIMARY KEY)")
        connection.execute("INSERT INTO n SELECT value FROM generate_series(1, 1500) AS t(value)")
    query = "SELECT count(*) FROM n a, n b WHERE a.id * 7 + b.id <> 3 AND a.id + b.id % 11 <> 5"
    results = []

    def ask() -> None:
        with server.connect(autocommit=True) as connection:
            results.append(connection.execute(query).fetchone()[0])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 8 and len(set(results)) == 1
    host, port = server.address("http")
    page = urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10).read().decode()
    counted = [line for line in page.splitlines() if line.startswith("evert_queries_coalesced_total ")]
    assert int(counted[0].split()[1]) >= 1


def test_a_subscription_to_the_past_tells_each_change_at_its_position(server):
    with server.connect() as session:
        session.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        session.execute("CREATE MATERIALIZED VIEW s AS SELECT count(*) AS n, sum(v) AS total FROM t")
        changed = []
        for statement in (
            "INSERT INTO t VALUES (1, 1)",
            "INSERT INTO t VALUES (2, 2), (3, 3)",
            "UPDATE t SET v = 10 WHERE id = 1",
            "DELETE FROM t WHERE id = 2",
        ):
            session.execute(statement)
            changed.append(int(session.execute("SHOW POSITION").fetchone()[0]))
    server.kill9()
    server.start()
    with server.connect() as session:
        begin, end = changed[0] - 1, changed[-1]
        copy = f"COPY (SUBSCRIBE s WITH SNAPSHOT AS OF POSITION {begin} UP TO POSITION {end}) TO STDOUT"
        with session.cursor().copy(copy) as rows:
            rows.set_types(["int8", "int8", "int8", "int8"])
            told = [tuple(map(int, row)) for row in rows.rows() if row[2] is not None and row[3] is not None]
        assert [row for row in told if row[1] > 0] == [
            (changed[0], 1, 1, 1),
            (changed[1], 1, 3, 6),
            (changed[2], 1, 3, 15),
            (changed[3], 1, 2, 13),
        ]


def test_a_place_that_is_still_to_come_is_no_past(server):
    with server.connect() as session:
        session.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        session.execute("INSERT INTO t VALUES (1, 1)")
        for place, why in (
            ("'t/0@99'", "record t/0@99 is in the future"),
            ("999999", "is in the future"),
            ("'t/5@0'", "no partition 5"),
            ("'x/0@0'", 'no topic "x"'),
            ("'nowhere:0/1'", "there is no source"),
        ):
            with pytest.raises(psycopg.errors.InvalidParameterValue, match=why):
                session.execute(f"SELECT count(*) FROM t AS OF POSITION {place}")
