"""Arrays in tables and views, through every door and out of it."""

import asyncio
import datetime
import decimal
import json

import asyncpg
import psycopg
import pytest
import redis
from confluent_kafka import Consumer, TopicPartition
from evert_server import wait_until
from redis_server import Redis

MOMENT = datetime.datetime(2026, 11, 21, 15, 0, 0, 1, tzinfo=datetime.timezone.utc)

# A value of every array type.
TYPES = {
    "boolean[]": [True, None, False],
    "smallint[]": [1, None, -(2**15)],
    "integer[]": [],
    "bigint[]": [2**63 - 1, None],
    "real[]": [1.5, None],
    "double precision[]": [0.1, float("inf"), None],
    "numeric(12,2)[]": [decimal.Decimal("-250.00"), None],
    "text[]": ["", None, "NULL", 'a "quoted" \\ text', "{a,b}", "naïve"],
    "bytea[]": [b"\x00\xff", None],
    "date[]": [datetime.date(2026, 11, 21), None],
    "timestamp[]": [MOMENT.replace(tzinfo=None), None],
    "timestamptz[]": [MOMENT, None],
}

VIEW = """CREATE MATERIALIZED VIEW orders_of WITH (changes = 'on') AS
    SELECT customer, array_agg(id ORDER BY id) AS ids, array_agg(note ORDER BY id) AS notes
    FROM orders GROUP BY customer"""

ROWS = [
    ("a", [1, 3], ["x, y", None]),
    ("b", [2], ['"q"']),
]
# The second row as JSON.
JSON = {"customer": "b", "ids": [2], "notes": ['"q"']}


@pytest.fixture
def orders(server):
    server.query("CREATE TABLE orders (id bigint PRIMARY KEY, customer text, note text)")
    server.query(VIEW)
    server.query("INSERT INTO orders VALUES (1, 'a', 'x, y'), (2, 'b', '\"q\"'), (3, 'a', NULL)")
    server.query("SELECT * FROM orders_of")
    return server


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_every_type_goes_through_tables_and_views(server, binary):
    columns = ", ".join(f"c{index} {name}" for index, name in enumerate(TYPES))
    names = ", ".join(f"c{index}" for index in range(len(TYPES)))
    marks = ", ".join(["%b" if binary else "%t"] * (len(TYPES) + 1))
    with server.connect() as connection:
        connection.execute(f"CREATE TABLE kinds (id integer PRIMARY KEY, {columns})")
        connection.execute(f"CREATE MATERIALIZED VIEW seen AS SELECT {names} FROM kinds")
        connection.execute(f"INSERT INTO kinds (id, {names}) VALUES ({marks})", [1, *TYPES.values()])
        connection.execute("INSERT INTO kinds (id) VALUES (2)")
        for relation in ("kinds", "seen"):
            cursor = connection.cursor(binary=binary).execute(f"SELECT {names} FROM {relation} ORDER BY c0")
            assert cursor.fetchall() == [tuple(TYPES.values()), (None,) * len(TYPES)], relation
            oids = [column.type_code for column in cursor.description]
            assert oids == [1000, 1005, 1007, 1016, 1021, 1022, 1231, 1009, 1001, 1182, 1115, 1185]
        [found] = connection.execute("SELECT id FROM kinds WHERE c7 = %s", [TYPES["text[]"]]).fetchall()
        assert found == (1,)
    server.restart()
    assert server.query("SELECT c7 FROM seen ORDER BY c0") == [(TYPES["text[]"],), (None,)]
    server.verify("seen")


def test_asyncpg_reads_and_writes_lists(orders):
    async def scenario():
        host, port = orders.address("sql")
        connection = await asyncpg.connect(host=host, port=port, user="evert", database="evert")
        try:
            rows = await connection.fetch("SELECT * FROM orders_of WHERE $1 = ANY (ids) ORDER BY customer", 3)
            assert [tuple(row) for row in rows] == ROWS[:1]
            await connection.execute("CREATE TABLE tags (id int PRIMARY KEY, names text[], days date[])")
            days = [MOMENT.date(), None]
            await connection.execute("INSERT INTO tags VALUES ($1, $2, $3)", 1, ["x", None, ""], days)
            [row] = await connection.fetch("SELECT names, days FROM tags WHERE names = $1", ["x", None, ""])
            assert tuple(row) == (["x", None, ""], days)
        finally:
            await connection.close()

    asyncio.run(scenario())


def test_catalogs_know_them(orders):
    columns = orders.query(
        "SELECT column_name, data_type, udt_name FROM information_schema.columns "
        "WHERE table_name = 'orders_of' ORDER BY ordinal_position"
    )
    assert columns == [("customer", "text", "text"), ("ids", "ARRAY", "_int8"), ("notes", "ARRAY", "_text")]
    types = orders.query(
        "SELECT attname, format_type(atttypid, atttypmod), typname, typcategory, attndims::int FROM pg_attribute "
        "JOIN pg_type t ON t.oid = atttypid WHERE attrelid = 'orders_of'::regclass AND attnum > 1 ORDER BY attnum"
    )
    assert types == [("ids", "bigint[]", "_int8", "A", 1), ("notes", "text[]", "_text", "A", 1)]


def test_views_over_views_follow_changes_and_restarts(orders):
    orders.query(
        "CREATE MATERIALIZED VIEW flat AS SELECT o.customer, n, ids[1] AS first, cardinality(ids) AS count "
        "FROM orders_of o, unnest(o.ids) AS n"
    )
    orders.query("CREATE MATERIALIZED VIEW alike AS SELECT notes, count(*) AS n FROM orders_of GROUP BY notes")
    for cycle in range(3):
        orders.query(f"INSERT INTO orders VALUES ({4 + cycle}, 'c', 'x, y'), ({10 + cycle}, 'd', 'x, y')")
        orders.query(f"DELETE FROM orders WHERE id = {1 + cycle}")
        if cycle == 1:
            orders.kill9()
        else:
            orders.terminate()
        orders.start()
    expected = {(c, n, min(ids), len(ids)) for c, ids in (("c", [4, 5, 6]), ("d", [10, 11, 12])) for n in ids}
    assert set(orders.query("SELECT * FROM flat")) == expected
    assert orders.query("SELECT * FROM alike") == [(["x, y"] * 3, 2)]
    for view in ("orders_of", "flat", "alike"):
        orders.verify(view)


def test_doors_tell_them_as_json(orders):
    status, body = orders.get("/api/views/orders_of/b")
    assert (status, json.loads(body)) == (200, JSON)
    orders.query("CREATE MATERIALIZED VIEW alike AS SELECT notes, count(*) AS n FROM orders_of GROUP BY notes")
    host, port = orders.address("keyvalue")
    with redis.Redis(host=host, port=port, decode_responses=True) as cache:
        assert cache.hgetall("orders_of:b") == {"customer": "b", "ids": "[2]", "notes": '["\\"q\\""]'}
        assert json.loads(cache.execute_command("JSON.GET", "orders_of:b")) == JSON
        orders.query("SELECT * FROM alike")
        # A key is in Postgres's text.
        keys = sorted(cache.scan_iter("alike:*"))
        assert [cache.hget(key, "n") for key in keys] == ["1", "1"], keys
    consumer = Consumer({"bootstrap.servers": orders.kafka, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition("orders_of.changes", 0, 0)])
    told = {}
    while told.get("a", {}).get("ids") != [1, 3] or "b" not in told:
        message = consumer.poll(20)
        assert message is not None and message.error() is None
        row = json.loads(message.value())
        told[row["customer"]] = row
    consumer.close()
    assert told["b"] == JSON


def test_files_and_searches_hold_them(orders):
    with orders.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY (SELECT * FROM orders_of ORDER BY customer) TO STDOUT WITH (FORMAT csv)") as copy:
            text = b"".join(copy).decode()
        assert text == 'a,"{1,3}","{""x, y"",NULL}"\nb,{2},"{""\\""q\\""""}"\n'
        cursor.execute("CREATE TABLE copied (customer text PRIMARY KEY, ids bigint[], notes text[])")
        with cursor.copy("COPY copied FROM STDIN WITH (FORMAT csv)") as copy:
            copy.write(text)
        assert cursor.execute("SELECT * FROM copied ORDER BY customer").fetchall() == ROWS
    orders.query("CREATE SEARCH INDEX found ON orders_of (ids, notes)")

    def hits():
        status, body = orders.get("/found/_search?q=notes:y")
        return json.loads(body)["hits"]["hits"] if status == 200 else []

    [hit] = wait_until(hits, 20, "the index has the rows")
    assert hit["_source"] == {"customer": "a", "ids": [1, 3], "notes": ["x, y", None]}
    assert orders.query("SELECT customer, ids FROM search('found', 'ids:2')") == [("b", [2])]


def test_sinks_keep_them(orders, postgres):
    cache = Redis()
    try:
        cache.start()
        target = f"INTO POSTGRES '{postgres.url}' TABLE kept WITH (create = 'on')"
        orders.query(f"CREATE SINK in_postgres ON orders_of {target}")
        orders.query(f"CREATE SINK in_redis ON orders_of INTO REDIS '{cache.url}'")
        orders.query("INSERT INTO orders VALUES (4, 'b', 'late')")
        query = "SELECT * FROM kept ORDER BY customer"
        expected = [ROWS[0], ("b", [2, 4], ['"q"', "late"])]

        def kept():
            try:
                return postgres.query(query) == expected
            except psycopg.Error:
                return False

        wait_until(kept, 30, "Postgres has the rows")
        [verdict, *_] = orders.query("VERIFY SINK in_postgres")
        assert verdict[4] is True, verdict
        wait_until(lambda: cache.command("HGET", "orders_of:b", "ids") == "[2,4]", 30, "Redis has the rows")
    finally:
        cache.remove()


def test_what_is_wrong_is_told(server):
    server.query("CREATE TABLE t (id int PRIMARY KEY, a smallint[])")
    for statement, message in {
        "INSERT INTO t VALUES (1, '{1,2')": "malformed array literal",
        "INSERT INTO t VALUES (1, '{1,x}')": "x",
        "INSERT INTO t VALUES (1, ARRAY[1, 40000])": "smallint out of range",
        "CREATE TABLE u (id int PRIMARY KEY, a uuid[])": "type UUID\\[\\] is not known here",
        "CREATE TABLE u (id int PRIMARY KEY, a int[][])": "is not known here",
        "CREATE MATERIALIZED VIEW v AS SELECT id, ARRAY[a] AS b FROM t": 'column "b" has type',
    }.items():
        with pytest.raises(psycopg.Error, match=message):
            server.query(statement)
    assert server.query("SELECT count(*) FROM t") == [(0,)]
    server.check_unharmed()
