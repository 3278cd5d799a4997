"""VARCHAR(n) and CHAR(n): statements write no longer texts, other writers' records are taken as they are."""

import json

import psycopg
import pytest
from confluent_kafka import Producer

TOO_LONG = psycopg.errors.StringDataRightTruncation


def test_statements_write_no_longer_texts(server):
    with server.connect() as connection:
        connection.execute("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(3), c CHAR(2), d CHAR, free VARCHAR)")
        insert = "INSERT INTO t VALUES (%s, %s, %s, %s, %s)"
        connection.execute(insert, (1, "añb  ", "x ", "y", "any length"))
        for row, ty in {
            (2, "abcd", None, None, None): "character varying\\(3\\)",
            (2, None, "abc", None, None): "character\\(2\\)",
            (2, None, None, "xy", None): "character\\(1\\)",
        }.items():
            with pytest.raises(TOO_LONG, match=f"value too long for type {ty}"):
                connection.execute(insert, row)
        with pytest.raises(TOO_LONG):
            connection.execute("INSERT INTO t (id, v) SELECT 3, free FROM t")
        with pytest.raises(TOO_LONG):
            connection.execute("UPDATE t SET v = v || v")
        with pytest.raises(TOO_LONG, match="t, line 2, column v"):
            with connection.cursor().copy("COPY t (id, v) FROM STDIN WITH (FORMAT csv)") as copy:
                copy.write("4,abc\n5,abcd\n")
        assert connection.execute("SELECT * FROM t").fetchall() == [(1, "añb", "x", "y", "any length")]
        connection.execute("ALTER TABLE t ADD COLUMN later VARCHAR(1)")
    server.restart()
    with pytest.raises(TOO_LONG):
        server.query("UPDATE t SET later = 'ab'")
    with pytest.raises(TOO_LONG):
        server.query("UPDATE t SET v = 'abcd'")
    server.query("UPDATE t SET later = 'a'")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="at least 1"):
        server.query("CREATE TABLE u (id INT PRIMARY KEY, v VARCHAR(0))")
    producer = Producer({"bootstrap.servers": server.kafka})
    producer.produce("t", key="7", value=json.dumps({"id": 7, "v": "longer"}))
    producer.flush()
    assert server.query("SELECT v FROM t WHERE id = 7") == [("longer",)]
