"""COPY, by psycopg and psql: text and csv over the connection, csv and Parquet by files."""

import base64
import datetime
import decimal
import uuid

import duckdb
import psycopg
import pytest
from psycopg import errors
from test_sql_psql import psql

COLUMNS = (
    "id bigint PRIMARY KEY, b boolean, n numeric(10,2), x double precision, t text, "
    "d date, at timestamptz, u uuid, j json, raw bytea"
)
ROWS = [
    (
        1,
        True,
        decimal.Decimal("12.50"),
        0.1,
        'tab\t"quoted", new\nline \\ é',
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=datetime.timezone.utc),
        uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        {"a": [1, None]},
        b"\x00\xff\\",
    ),
    (2, False, None, float("inf"), "", None, None, None, None, b""),
    (3, None, decimal.Decimal("-0.01"), None, None, datetime.date(1, 1, 1), None, None, None, None),
]


def read(connection, table="kinds"):
    return connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()


@pytest.fixture
def kinds(server):
    with server.connect() as connection:
        connection.execute(f"CREATE TABLE kinds ({COLUMNS})")
        connection.execute(f"CREATE TABLE again ({COLUMNS})")
        with connection.cursor().copy("COPY kinds FROM STDIN") as copy:
            for row in ROWS:
                copy.write_row([psycopg.types.json.Json(v) if isinstance(v, dict) else v for v in row])
        yield connection


@pytest.mark.parametrize(
    "options",
    ["", "(FORMAT csv)", "(FORMAT csv, HEADER match, DELIMITER ';', NULL 'NA', ESCAPE '\\', FORCE_QUOTE (t))"],
    ids=["text", "csv", "csv with options"],
)
def test_rows_go_out_and_come_back(kinds, options):
    assert read(kinds) == ROWS
    going = options.replace("match", "on")
    with kinds.cursor().copy(f"COPY kinds TO STDOUT {going}") as copy:
        data = b"".join(bytes(block) for block in copy)
    coming = options.replace(", FORCE_QUOTE (t)", "")
    with kinds.cursor().copy(f"COPY again FROM STDIN {coming}") as copy:
        # Lines are cut wherever the bytes were.
        for at in range(0, len(data), 7):
            copy.write(data[at : at + 7])
    assert read(kinds, "again") == ROWS


def test_a_copy_is_one_commit_and_views_follow_it(server):
    with server.connect() as connection:
        connection.execute("CREATE STREAM events (id bigint, kind text)")
        connection.execute("CREATE MATERIALIZED VIEW kinds AS SELECT kind, count(*) AS n FROM events GROUP BY kind")
        before = connection.execute("SHOW POSITION").fetchone()[0]
        cursor = connection.cursor()
        with cursor.copy("COPY events (kind, id) FROM STDIN (FORMAT csv)") as copy:
            for block in range(100):
                copy.write("".join(f"k{n % 3},{n}\n" for n in range(block * 1000, block * 1000 + 1000)))
        assert cursor.rowcount == 100_000
        assert connection.execute("SELECT * FROM kinds ORDER BY kind").fetchall() == [
            ("k0", 33334),
            ("k1", 33333),
            ("k2", 33333),
        ]
        # One commit, and the next position is the one after it.
        assert int(connection.execute("SHOW POSITION").fetchone()[0]) == int(before) + 1


def test_a_bad_line_is_named_and_nothing_is_kept(server):
    with server.connect() as connection:
        connection.execute("CREATE TABLE t (id integer PRIMARY KEY, name text NOT NULL, n numeric(4,1))")

        def refusal(statement, data):
            with pytest.raises(psycopg.Error) as error, connection.cursor().copy(statement) as copy:
                copy.write(data)
            return error.value.sqlstate, error.value.diag.message_primary, error.value.diag.context

        assert refusal("COPY t FROM STDIN", "1\ta\t1\nx\tb\t2\n") == (
            "22P02",
            'invalid input syntax for type integer: "x"',
            'COPY t, line 2, column id: "x"',
        )
        assert refusal("COPY t FROM STDIN", "99999999999\ta\t1\n") == (
            "22003",
            'value "99999999999" is out of range for type integer',
            'COPY t, line 1, column id: "99999999999"',
        )
        assert refusal("COPY t FROM STDIN", "1\ta\n") == (
            "22P04",
            'missing data for column "n"',
            'COPY t, line 1: "1\ta"',
        )
        assert refusal("COPY t FROM STDIN (FORMAT csv)", "1,a,1\n2,b,2,3\n") == (
            "22P04",
            "extra data after last expected column",
            'COPY t, line 2: "2,b,2,3"',
        )
        assert refusal("COPY t FROM STDIN (FORMAT csv)", "1,,1\n") == (
            "23502",
            'null value in column "name" of relation "t" violates not-null constraint',
            'COPY t, line 1: "1,,1"',
        )
        assert refusal("COPY t FROM STDIN", "1\ta\t12345\n")[:2] == ("22003", "numeric field overflow")
        assert refusal("COPY t FROM STDIN (FORMAT csv, HEADER match)", "id,nome,n\n")[:2] == (
            "22P04",
            'column name mismatch in header line field 2: got "nome", expected "name"',
        )
        assert refusal("COPY t FROM STDIN", b"1\t\xff\t1\n")[0] == "22021"
        with pytest.raises(errors.UndefinedColumn):
            connection.execute("COPY t (id, nix) FROM STDIN")
        with pytest.raises(errors.UndefinedTable):
            connection.execute("COPY nix FROM STDIN")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_a_copy_in_a_transaction_is_its_part(server):
    with server.connect(autocommit=False) as connection:
        connection.execute("CREATE TABLE t (id integer PRIMARY KEY, name text)")
        connection.commit()
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write("1\ta\n2\tb\n")
        connection.execute("UPDATE t SET name = 'c' WHERE id = 2")
        assert connection.execute("SELECT name FROM t ORDER BY id").fetchall() == [("a",), ("c",)]
        assert server.query("SELECT count(*) FROM t") == [(0,)]
        connection.rollback()
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
        # A client that breaks off keeps nothing, and its transaction has failed.
        with pytest.raises(ZeroDivisionError), connection.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write("3\tc\n")
            1 / 0
        with pytest.raises(errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        connection.rollback()
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write("4\td\n")
        connection.commit()
    assert server.query("SELECT id FROM t") == [(4,)]


def test_keys_that_are_there_are_refused_where_the_table_says_so(server):
    with server.connect() as connection:
        connection.execute("CREATE TABLE t (id integer PRIMARY KEY) WITH (on_conflict = 'error')")
        connection.execute("CREATE TABLE r (id integer PRIMARY KEY, n integer)")
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write("1\n2\n")
        for data in ("3\n2\n", "4\n4\n"):
            with pytest.raises(errors.UniqueViolation), connection.cursor().copy("COPY t FROM STDIN") as copy:
                copy.write(data)
        assert connection.execute("SELECT id FROM t ORDER BY id").fetchall() == [(1,), (2,)]
        # By default the last row of a key stands.
        with connection.cursor().copy("COPY r FROM STDIN") as copy:
            copy.write("1\t1\n1\t2\n")
        assert connection.execute("SELECT * FROM r").fetchall() == [(1, 2)]


def test_queries_and_changes_are_copied_out(server):
    with server.connect() as connection:
        connection.execute("CREATE TABLE t (id integer PRIMARY KEY, name text)")
        connection.execute("INSERT INTO t VALUES (1, 'a,b')")
        position = connection.execute("SHOW POSITION").fetchone()[0]
        connection.execute("INSERT INTO t VALUES (2, NULL)")

        def out(statement):
            with connection.cursor().copy(statement) as copy:
                return b"".join(bytes(block) for block in copy).decode()

        assert out("COPY t (name) TO STDOUT WITH CSV HEADER") == 'name\n"a,b"\n\n'
        assert out("COPY (SELECT id * 2 AS twice FROM t ORDER BY id DESC) TO STDOUT") == "4\n2\n"
        assert out(f"COPY (SELECT * FROM t AS OF POSITION {position}) TO STDOUT (FORMAT csv)") == '1,"a,b"\n'
        changes = f"SUBSCRIBE t WITH (SNAPSHOT) UP TO POSITION {position}"
        with pytest.raises(psycopg.Error):
            connection.execute("COPY (DELETE FROM t) TO STDOUT")
        assert out(f"COPY ({changes.replace(str(position), str(int(position) + 1))}) TO STDOUT (FORMAT csv)").endswith(
            ",1,2,\n"
        )


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_files_under_the_root(new_server, tmp_path, format):
    root = tmp_path / "files"
    root.mkdir()
    (tmp_path / "secret").write_text("1\n")
    server = new_server("--files", str(root)).start()
    with server.connect() as connection:
        connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, name text, n numeric(8,2), at timestamptz, j json)")
        connection.execute("CREATE TABLE back (name text, id bigint PRIMARY KEY, j json, n numeric(8,2), at timestamptz)")
        connection.execute(
            "INSERT INTO t SELECT i, 'name ' || i, i / 4.0, to_timestamp(i), '[1]' FROM generate_series(1, 20000) AS s(i)"
        )
        assert connection.execute(f"COPY t TO 'out.{format}' (FORMAT {format})").rowcount == 20_000
        listed = "(id, name, n, at, j)" if format == "csv" else ""
        path = root / f"out.{format}"
        assert connection.execute(f"COPY back {listed} FROM '{path}' (FORMAT {format})").rowcount == 20_000
        query = "SELECT count(*), sum(id), sum(n), max(at), max(name), max(j) FROM"
        assert connection.execute(f"{query} back").fetchone() == connection.execute(f"{query} t").fetchone()
        for refused in ("../secret", "/etc/passwd", str(tmp_path / "secret")):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(f"COPY t FROM '{refused}' (FORMAT {format})")
        with pytest.raises(errors.UndefinedFile):
            connection.execute(f"COPY t FROM 'none' (FORMAT {format})")
        (root / "bad").write_text("1,2\n")
        with pytest.raises(errors.BadCopyFileFormat):
            connection.execute(f"COPY back FROM 'bad' (FORMAT {format})")
    assert sorted(path.name for path in root.iterdir()) == ["bad", f"out.{format}"]
    if format == "parquet":
        kept = duckdb.sql(f"SELECT key, value FROM parquet_kv_metadata('{path}')").fetchall()
        [schema] = [base64.b64decode(value) for key, value in kept if key == b"ARROW:schema"]
        assert b"name" in schema and b"evert.origin" not in schema, "a file is no relation's"


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_columns_that_a_file_lacks_have_their_defaults(new_server, tmp_path, format):
    server = new_server("--files", str(tmp_path)).start()
    with server.connect() as connection:
        connection.execute("CREATE TABLE given (id bigint PRIMARY KEY, name text)")
        connection.execute("INSERT INTO given SELECT i, 'n' FROM generate_series(1, 20000) AS s(i)")
        connection.execute(f"COPY given TO 'out' (FORMAT {format})")
        connection.execute(
            "CREATE TABLE t (u uuid PRIMARY KEY DEFAULT gen_random_uuid(), id bigint, name text,"
            " state text NOT NULL DEFAULT 'new', at timestamptz DEFAULT now())"
        )
        assert connection.execute(f"COPY t (id, name) FROM 'out' (FORMAT {format})").rowcount == 20_000
        query = "SELECT count(DISTINCT u), count(*), min(state), max(state), count(at) FROM t"
        assert connection.execute(query).fetchone() == (20_000, 20_000, "new", "new", 20_000)


def test_files_are_off_by_default(server):
    with server.connect() as connection:
        connection.execute("CREATE TABLE t (id integer PRIMARY KEY)")
        for statement in ("COPY t FROM '/etc/hostname'", "COPY t TO '/tmp/x'"):
            with pytest.raises(errors.InsufficientPrivilege, match="--files"):
                connection.execute(statement)


def test_psql_copies(server, tmp_path):
    data = tmp_path / "in.csv"
    data.write_text('id,name\n1,"a ""b"""\n2,\n')
    script = rf"""
        CREATE TABLE t (id integer PRIMARY KEY, name text);
        \copy t FROM '{data}' WITH (FORMAT csv, HEADER)
        COPY t FROM STDIN;
3	three
\.
        \copy (SELECT * FROM t ORDER BY id) TO STDOUT WITH CSV
        SELECT count(*) FROM t;
    """
    done = psql(server, "-At", "-v", "ON_ERROR_STOP=1", stdin=script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines == ["CREATE TABLE", "COPY 2", "COPY 1", '1,"a ""b"""', "2,", "3,three", "3"]
