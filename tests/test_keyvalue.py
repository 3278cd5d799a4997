"""Rows by key: what Redis's clients read, wait for and are told."""

import json
import socket
import threading
import time

import pytest
import redis

from evert_server import wait_until

PAYMENTS = "CREATE TABLE payments (id int PRIMARY KEY, merchant text, amount numeric(10,2), note text)"
TOTALS = (
    "CREATE MATERIALIZED VIEW totals AS SELECT merchant, count(*) AS n, sum(amount) AS total"
    " FROM payments GROUP BY merchant"
)


def client(server, **options) -> redis.Redis:
    host, port = server.address("keyvalue")
    return redis.Redis(host=host, port=port, **{"decode_responses": True, "socket_timeout": 20, **options})


def raw(server, data: bytes, expected: bytes) -> None:
    """Sends bytes and reads as many as are expected."""
    with socket.create_connection(server.address("keyvalue"), timeout=20) as connection:
        connection.sendall(data)
        answer = b""
        while len(answer) < len(expected):
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
    assert answer == expected


@pytest.fixture
def shop(server):
    server.query(PAYMENTS)
    server.query(TOTALS)
    server.query("INSERT INTO payments VALUES (1, 'tea', 4.50, 'x'), (2, 'tea', 2, NULL), (3, 'soap', NULL, NULL)")
    server.query("SELECT * FROM totals")
    return server


@pytest.mark.parametrize("protocol", [2, 3])
def test_rows_are_hashes(shop, protocol):
    r = client(shop, protocol=protocol)
    assert r.hgetall("totals:tea") == {"merchant": "tea", "n": "2", "total": "6.50"}
    assert r.hgetall("payments:2") == {"id": "2", "merchant": "tea", "amount": "2.00"}, "NULL is left out"
    assert r.hgetall("public.payments:2") == r.hgetall("payments:2")
    assert r.hget("totals:tea", "total") == "6.50"
    assert r.hget("payments:2", "note") is None
    assert r.hmget("totals:tea", "n", "nothing") == ["2", None]
    assert r.hlen("payments:2") == 3
    assert r.hexists("payments:1", "note") and not r.hexists("payments:2", "note")
    assert r.hkeys("totals:tea") == ["merchant", "n", "total"]
    assert r.hvals("totals:tea") == ["tea", "2", "6.50"]
    assert r.hscan("totals:tea", match="t*") == (0, {"total": "6.50"})
    assert r.exists("totals:tea", "totals:nobody", "payments:1", "payments:x", "nothing:1") == 2
    assert (r.type("totals:tea"), r.type("totals:nobody")) == ("hash", "none")
    assert (r.ttl("totals:tea"), r.pttl("totals:nobody")) == (-1, -2)
    assert r.hgetall("totals:nobody") == {}
    assert r.get("totals:nobody") is None
    assert json.loads(r.execute_command("JSON.GET", "payments:2")) == {
        "id": 2,
        "merchant": "tea",
        "amount": "2.00",
        "note": None,
    }
    assert r.execute_command("JSON.GET", "payments:1", "$.note") == '["x"]'
    assert r.execute_command("JSON.GET", "payments:1", ".note") == '"x"'
    assert r.execute_command("JSON.GET", "payments:1", "$.nothing") == "[]"
    assert r.dbsize() == 5
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        r.get("totals:tea")
    with pytest.raises(redis.ResponseError, match='no relation or view "nothing"'):
        r.hgetall("nothing:1")


def test_every_type_and_keys_of_several_columns(server):
    server.query(
        "CREATE TABLE kinds (a text, b int, big bigint, small smallint, f double precision, g real,"
        " d numeric(12,4), t boolean, day date, at timestamp, zoned timestamptz, u uuid, j jsonb, raw bytea,"
        " PRIMARY KEY (a, b))"
    )
    server.query("CREATE TABLE days (day date PRIMARY KEY, v int)")
    server.query("CREATE TABLE codes (u uuid PRIMARY KEY, v int)")
    server.query(
        "INSERT INTO kinds VALUES ('x:y\\z', -7, 9223372036854775807, -1, 1.5, 0.1, -0.5, true, '2026-02-28',"
        " '2026-02-28 23:59:59.5', '2026-02-28 23:59:59+00', '6ecd8c99-4036-403d-bf84-cf8400f67836',"
        " '{\"a\": [1, null]}', '\\x00ff')"
    )
    server.query("INSERT INTO days VALUES ('2026-02-28', 1)")
    server.query("INSERT INTO codes VALUES ('6ECD8C99-4036-403d-bf84-cf8400f67836', 2)")
    server.query("CREATE MATERIALIZED VIEW by_note AS SELECT note, count(*) AS n FROM"
                 " (VALUES (1)) AS one(x), LATERAL (SELECT NULLIF(a, 'x:y\\z') AS note FROM kinds) k GROUP BY note")
    server.query("SELECT * FROM kinds, days, codes, by_note")
    r = client(server)
    (key,) = r.keys("kinds:*")
    assert key == r"kinds:x\:y\\z:-7"
    assert r.hgetall(key) == {
        "a": "x:y\\z",
        "b": "-7",
        "big": "9223372036854775807",
        "small": "-1",
        "f": "1.5",
        "g": "0.1",
        "d": "-0.5000",
        "t": "t",
        "day": "2026-02-28",
        "at": "2026-02-28 23:59:59.5",
        "zoned": "2026-02-28 23:59:59+00",
        "u": "6ecd8c99-4036-403d-bf84-cf8400f67836",
        "j": '{"a": [1, null]}',
        "raw": "\\x00ff",
    }
    assert r.hget("days:2026-02-28", "v") == "1"
    assert r.hget("codes:6ecd8c99-4036-403d-bf84-cf8400f67836", "v") == "2"
    assert r.hget("codes:6ECD8C99-4036-403D-BF84-CF8400F67836", "v") == "2"
    assert r.hgetall(r"by_note:\N") == {"n": "1"}, "a NULL key"
    assert not r.exists("kinds:x", "kinds:x:y:z:-7", "days:tomorrow", "codes:x")
    assert r.execute_command("JSON.GET", key, "$.j.a[0]") == "[1]"


def test_relations_without_a_key_and_failed_views_say_so(server):
    server.query("CREATE STREAM clicks (page text)")
    server.query("CREATE MATERIALIZED VIEW pages AS SELECT page FROM clicks WHERE page <> ''")
    server.query("SELECT * FROM pages")
    r = client(server)
    for name in ("clicks", "pages", "evert.errors"):
        with pytest.raises(redis.ResponseError, match="has no key"):
            r.hgetall(f"{name}:1")
    assert r.keys("*") == []


def test_writes_say_where_facts_go(shop):
    r = client(shop)
    shop.query("CREATE STREAM clicks (page text) WITH (topic = 'web.clicks')")
    for write, words in [
        (("HSET", "totals:tea", "n", "1"), 'topic "payments"'),
        (("DEL", "payments:1"), 'INSERT, UPDATE or DELETE "payments"'),
        (("XADD", "clicks:1", "*", "a", "b"), 'produce to topic "web.clicks"'),
        (("SET", "anything", "1"), "facts go into the log"),
        (("FLUSHALL",), "facts go into the log"),
    ]:
        with pytest.raises(redis.ResponseError) as refused:
            r.execute_command(*write)
        assert words in str(refused.value), write
    assert r.hget("totals:tea", "n") == "2"


def test_scans_give_every_key_once(server):
    server.query("CREATE TABLE many (id int PRIMARY KEY, v int)")
    server.query("CREATE TABLE more (id text PRIMARY KEY)")
    rows = ", ".join(f"({n}, 0)" for n in range(1000))
    server.query(f"INSERT INTO many VALUES {rows}")
    server.query("INSERT INTO more VALUES ('a'), ('b'), ('c*')")
    server.query("SELECT count(*) FROM many, more")
    r = client(server)
    stop = threading.Event()

    def churn():
        with server.connect() as sql:
            n = 0
            while not stop.is_set():
                n += 1
                sql.execute(f"UPDATE many SET v = {n} WHERE id % 7 = {n % 7}")
                sql.execute(f"INSERT INTO many VALUES ({-n}, 0)")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for count in (7, 100, 5000):
            found = list(r.scan_iter(match="*", count=count))
            assert len(found) == len(set(found))
            stable = {f"many:{n}" for n in range(1000)} | {"more:a", "more:b", "more:c*"}
            assert stable <= set(found)
    finally:
        stop.set()
        thread.join()
    assert sorted(r.scan_iter(match="more:*")) == ["more:a", "more:b", "more:c*"]
    assert list(r.scan_iter(match=r"more:c\*")) == ["more:c*"]
    assert sorted(r.keys("more:[ab]")) == ["more:a", "more:b"]
    assert r.scan(0, _type="string") == (0, [])
    # A cursor may be used by another connection, and one that nobody gave is refused.
    cursor, first = r.scan(0, match="many:*", count=10)
    _, second = client(server).scan(cursor, match="many:*", count=10)
    assert len(first) == len(second) == 10 and not set(first) & set(second)
    with pytest.raises(redis.ResponseError, match="invalid cursor"):
        r.scan(12345)


def test_a_transaction_reads_one_position(server):
    """Two views of the same facts always agree inside MULTI ... EXEC."""
    server.query("CREATE TABLE moves (id int PRIMARY KEY, account text, amount int)")
    server.query("CREATE MATERIALIZED VIEW a AS SELECT account, sum(amount) AS s FROM moves GROUP BY account")
    server.query("CREATE MATERIALIZED VIEW b AS SELECT account, count(*) AS n FROM moves GROUP BY account")
    server.query("INSERT INTO moves VALUES (0, 'x', 1)")
    server.query("SELECT * FROM a, b")
    stop = threading.Event()

    def write():
        with server.connect() as sql:
            n = 0
            while not stop.is_set():
                n += 1
                sql.execute(f"INSERT INTO moves VALUES ({n}, 'x', 1)")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        r = client(server)
        positions = []
        for _ in range(300):
            pipe = r.pipeline(transaction=True)
            pipe.hget("a:x", "s").hget("b:x", "n").execute_command("EVERT.POSITION")
            s, n, position = pipe.execute()
            assert s == n
            positions.append(position)
        assert positions == sorted(positions) and positions[0] < positions[-1]
    finally:
        stop.set()
        thread.join()
    pipe = r.pipeline(transaction=True)
    pipe.hget("a:x", "s").execute_command("KEYS", "*")
    with pytest.raises(redis.ResponseError, match="not allowed in a transaction"):
        pipe.execute()


def test_a_write_is_read_back_by_its_position(shop):
    r = client(shop, single_connection_client=True)
    with shop.connect() as sql:
        for n in range(50):
            sql.execute(f"UPDATE payments SET amount = {n} WHERE id = 1")
            (position,) = sql.execute("SHOW POSITION").fetchone()
            assert r.execute_command("EVERT.AFTER", position) == "OK"
            assert r.hget("totals:tea", "total") == f"{n + 2}.00"
            assert r.execute_command("EVERT.POSITION") >= position
    # A record's place is a position too.
    assert r.execute_command("EVERT.WAIT", "payments/0@2") > 0
    started = time.monotonic()
    with pytest.raises(redis.ResponseError, match="TIMEOUT"):
        r.execute_command("EVERT.AFTER", position + 1000, "TIMEOUT", 200)
    assert time.monotonic() - started < 5
    # It holds for what follows, until it is taken back.
    with pytest.raises(redis.ResponseError, match="TIMEOUT"):
        r.hget("totals:tea", "n")
    assert r.execute_command("EVERT.AFTER", 0) == "OK"
    assert r.hget("totals:tea", "n") == "2"
    for bad in ("soon", "nowhere:0/1", "nothing/0@1"):
        with pytest.raises(redis.ResponseError):
            r.execute_command("EVERT.AFTER", bad)
        r.execute_command("EVERT.AFTER", 0)


def test_every_door_waits_for_a_commit_of_postgres(server, postgres):
    """An application that has just committed in Postgres reads its write in any view."""
    postgres.execute("CREATE TABLE orders (id int PRIMARY KEY, shop text, cents int)")
    server.query(
        f"CREATE SOURCE shop FROM POSTGRES '{postgres.url}' (PUBLICATION 'shop', TABLES (public.orders))"
    )
    server.query("CREATE MATERIALIZED VIEW by_shop AS SELECT shop, sum(cents) AS cents FROM shop.orders GROUP BY shop")
    r = client(server, single_connection_client=True)
    with postgres.connect() as original, server.connect() as sql:
        for n in range(1, 6):
            original.execute(f"INSERT INTO orders VALUES ({n}, 'tea', 1)")
            original.commit()
            (lsn,) = original.execute("SELECT pg_current_wal_lsn()").fetchone()
            original.commit()
            token = f"shop:{lsn}"
            if n % 3 == 0:
                assert r.execute_command("EVERT.AFTER", token) == "OK"
                assert r.hget("by_shop:tea", "cents") == str(n)
            elif n % 3 == 1:
                sql.execute(f"SET evert.after = '{token}'")
                assert sql.execute("SELECT cents FROM by_shop").fetchone() == (n,)
            else:
                status, headers, body = http(server, "GET", "/api/views/by_shop/tea", {"Evert-After": token})
                assert status == 200 and json.loads(body)["cents"] in (n, str(n)), body
                assert int(headers["Evert-Position"]) > 0
        with pytest.raises(redis.ResponseError, match="no source"):
            r.execute_command("EVERT.AFTER", "shoop:0/1")


def http(server, method: str, path: str, headers=None, body=None):
    import http.client

    host, port = server.address("http")
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request(method, path, body=body, headers=headers or {})
    response = connection.getresponse()
    result = response.status, response.headers, response.read().decode()
    connection.close()
    return result


def test_rows_and_statements_over_http(shop):
    status, headers, body = http(shop, "GET", "/api/views/totals/tea")
    assert status == 200 and json.loads(body) == {"merchant": "tea", "n": 2, "total": "6.50"}
    assert int(headers["Evert-Position"]) > 0
    status, _, body = http(shop, "GET", "/api/views/totals/nobody")
    assert status == 404 and "no row" in json.loads(body)["error"]
    pages, after = [], ""
    for _ in range(3):
        _, _, body = http(shop, "GET", f"/api/views/payments?limit=1{after}")
        page = json.loads(body)
        pages += page["rows"]
        after = f"&after={page['next']}"
    assert [row["id"] for row in pages] == [1, 2, 3] and page["next"] is None and page["count"] == 3
    assert http(shop, "GET", "/api/views/nothing")[0] == 404
    sql = "SELECT id, merchant, amount, note IS NULL AS empty FROM payments ORDER BY id LIMIT 2"
    status, headers, body = http(shop, "POST", "/api/sql", body=sql)
    answer = json.loads(body)
    assert status == 200 and answer["rows"] == [[1, "tea", "4.50", False], [2, "tea", "2.00", True]]
    assert answer["columns"][2] == {"name": "amount", "type": "numeric(10,2)"} and answer["tag"] == "SELECT 2"
    insert = json.dumps({"sql": "INSERT INTO payments VALUES (9, 'tea', 1, NULL)"})
    status, headers, body = http(shop, "POST", "/api/sql", {"Content-Type": "application/json"}, insert)
    assert (status, json.loads(body)["tag"]) == (200, "INSERT 0 1")
    # Read back by its position, on another door.
    written = headers["Evert-Position"]
    _, headers, body = http(shop, "GET", "/api/views/totals/tea", {"Evert-After": written})
    assert json.loads(body)["n"] == 3 and int(headers["Evert-Position"]) >= int(written)
    status, _, body = http(shop, "POST", "/api/sql", body="SELECT nothing")
    assert status == 400 and json.loads(body)["sqlstate"] == "42703"
    status, _, body = http(shop, "GET", "/api/views/totals", {"Evert-After": "999999", "Evert-Timeout": "100"})
    assert status == 503 and "not reached" in json.loads(body)["error"]


@pytest.mark.parametrize("protocol", [2, 3])
def test_changes_are_told(shop, protocol):
    r = client(shop, protocol=protocol)
    by_key, by_pattern, by_event = r.pubsub(), r.pubsub(), r.pubsub()
    by_key.subscribe("__keyspace@0__:totals:tea", "__keyspace@0__:payments:1", "__keyspace@0__:later:1")
    by_pattern.psubscribe("__keyspace@0__:pay*")
    by_event.subscribe("__keyevent@0__:del")
    for listener, count in ((by_key, 3), (by_pattern, 1), (by_event, 1)):
        for _ in range(count):
            assert listener.get_message(timeout=10)["type"] in ("subscribe", "psubscribe")

    def told(listener, count):
        found = []
        deadline = time.monotonic() + 10
        while len(found) < count and time.monotonic() < deadline:
            message = listener.get_message(timeout=1)
            if message and message["type"].endswith("message"):
                found.append((message["channel"], message["data"]))
        return sorted(found)

    shop.query("UPDATE payments SET amount = 9 WHERE id = 1")
    assert told(by_key, 2) == [("__keyspace@0__:payments:1", "hset"), ("__keyspace@0__:totals:tea", "hset")]
    assert told(by_pattern, 1) == [("__keyspace@0__:payments:1", "hset")]
    shop.query("DELETE FROM payments WHERE id = 3")
    assert told(by_pattern, 1) == [("__keyspace@0__:payments:3", "del")]
    assert told(by_event, 2) == [("__keyevent@0__:del", "payments:3"), ("__keyevent@0__:del", "totals:soap")]
    # A view that comes later is listened to as soon as it is there.
    shop.query("CREATE TABLE later (id int PRIMARY KEY, v int)")
    shop.query("SELECT * FROM later")

    def noticed():
        shop.query(f"INSERT INTO later VALUES (1, {time.monotonic_ns() % 1_000_000})")
        return told_now(by_key)

    def told_now(listener):
        message = listener.get_message(timeout=0.3)
        return message and message["channel"] == "__keyspace@0__:later:1"

    wait_until(noticed, 20, "a message about a row of the new table")
    by_key.unsubscribe()
    shop.query("UPDATE payments SET amount = 10 WHERE id = 1")
    assert told(by_pattern, 1) == [("__keyspace@0__:payments:1", "hset")]
    assert r.execute_command("PUBSUB", "NUMSUB", "__keyevent@0__:del") == ["__keyevent@0__:del", 1]
    for listener in (by_key, by_pattern, by_event):
        listener.close()


def test_a_listener_that_does_not_read_is_cut(server):
    server.query("CREATE TABLE wide (id text PRIMARY KEY, v int)")
    server.query("SELECT * FROM wide")
    host, port = server.address("keyvalue")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect((host, port))
    deaf.sendall(b"PSUBSCRIBE *\r\n")
    assert deaf.recv(100)
    r = client(server)
    listeners = lambda: r.execute_command("PUBSUB", "NUMPAT")
    assert listeners() == 1
    names = ", ".join(f"('{n}' || repeat('k', 4000), %s)" for n in range(300))
    for n in range(40):
        server.query(f"INSERT INTO wide VALUES {names.replace('%s', str(n))}")
        if listeners() == 0:
            break
    wait_until(lambda: listeners() == 0, 20, "the listener's connection is cut")
    deaf.close()
    assert r.ping()


def test_connections_and_the_server_tell_about_themselves(shop):
    r = client(shop, client_name="me", single_connection_client=True)
    assert r.client_getname() == "me"
    assert r.client_id() > 0
    assert any(found["name"] == "me" for found in r.client_list())
    info = r.info()
    assert info["loading"] == 0 and info["role"] == "master" and info["db0"]["keys"] == 5
    assert r.config_get("notify-keyspace-events") == {"notify-keyspace-events": "KEgh"}
    assert r.command_count() > 40 and "hgetall" in r.command()
    assert r.select(0)
    with pytest.raises(redis.ResponseError):
        r.select(1)
    assert r.execute_command("AUTH", "default", "anything") in (True, "OK")
    with pytest.raises(redis.ResponseError):
        r.execute_command("NOSUCH", "thing")
    with pytest.raises(redis.ResponseError, match="wrong number of arguments"):
        r.execute_command("HGET", "totals:tea")
    raw(shop, b"PING\r\n*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nQUIT\r\n", b"+PONG\r\n+PONG\r\n$2\r\nhi\r\n+OK\r\n")
    raw(shop, b"*1\r\n$99999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n")
    raw(shop, b"HELLO 3\r\nRESET\r\nHGET totals:tea n\r\n"[9:], b"+RESET\r\n$1\r\n2\r\n")


def test_views_survive_restarts_and_replacement(shop):
    r = client(shop)
    assert r.hget("totals:tea", "n") == "2"
    shop.query(
        "CREATE OR REPLACE MATERIALIZED VIEW totals AS SELECT merchant, max(amount) AS top, count(*) AS n"
        " FROM payments GROUP BY merchant"
    )
    shop.query("SELECT * FROM totals")
    assert r.hgetall("totals:tea") == {"merchant": "tea", "top": "4.50", "n": "2"}
    shop.restart()
    r = client(shop)
    assert r.hgetall("totals:tea") == {"merchant": "tea", "top": "4.50", "n": "2"}
    shop.query("DROP MATERIALIZED VIEW totals")
    with pytest.raises(redis.ResponseError, match="no relation or view"):
        r.hgetall("totals:tea")


def test_messages_go_on_when_a_table_has_more_columns(server):
    server.query("CREATE TABLE t (id INT PRIMARY KEY, a TEXT)")
    server.query("INSERT INTO t VALUES (1, 'x')")
    with client(server) as listener, server.connect() as session:
        told = listener.pubsub()
        told.psubscribe("__keyspace@0__:t:*")
        told.get_message(timeout=10)
        session.execute("ALTER TABLE t ADD COLUMN d TEXT")
        session.execute("INSERT INTO t VALUES (5, 'a'), (7, 'zz')")
        wanted = {"__keyspace@0__:t:5", "__keyspace@0__:t:7"}
        channels = set()
        until = time.monotonic() + 10
        while not channels >= wanted and time.monotonic() < until:
            message = told.get_message(timeout=0.2)
            if message and message["type"] == "pmessage":
                channels.add(message["channel"])
        # Where the first row was told late, it is there too.
        assert channels >= wanted


def test_a_place_that_cannot_come_is_refused_and_forgotten(shop):
    with client(shop) as reader:
        for token in ("nothing/0@1", "payments/7@1", "nowhere:0/1"):
            with pytest.raises(redis.ResponseError, match="there is no|no partition"):
                reader.execute_command("EVERT.AFTER", token)
        assert reader.execute_command("DBSIZE") > 0


def test_nothing_is_counted_before_all_is_there(new_server):
    server = new_server().start()
    server.query("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    for part in range(4):
        server.query(f"INSERT INTO t SELECT g, g FROM generate_series({part * 50000 + 1}, {(part + 1) * 50000}) AS g")
    server.query("SELECT count(*) FROM t")
    server.kill9()
    server.start()
    until, loading = time.monotonic() + 20, 0
    with client(server, retry=None) as r:
        while time.monotonic() < until:
            try:
                assert r.dbsize() == 200_000
                assert len(list(r.scan_iter(match="t:1999*", count=5000))) == 111
                break
            except redis.BusyLoadingError:
                loading += 1
    with server.connect() as session, client(server, retry=None) as r:
        session.execute("CREATE MATERIALIZED VIEW m AS SELECT id % 1000 AS a, count(*) AS n FROM t GROUP BY 1")
        while True:
            try:
                assert len(r.keys("m:*")) == 1000
                break
            except redis.BusyLoadingError as error:
                assert "is being built" in str(error)
