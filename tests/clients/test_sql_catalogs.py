"""What clients ask of the catalogs when they connect and look around."""

import pytest
import sqlalchemy as sa
from test_sql_psql import psql

SCHEMA = """
    CREATE TABLE orders (id bigint PRIMARY KEY, city text, amount numeric(10,2), at timestamp, doc json);
    CREATE STREAM clicks (id bigint, page text);
    CREATE MATERIALIZED VIEW by_city AS SELECT city, count(*) AS n FROM orders GROUP BY city;
    CREATE INDEX orders_city ON orders (city);
    INSERT INTO orders VALUES (1, 'Pune', 2.50, NULL, '{}');
"""


@pytest.fixture
def shop(server):
    with server.connect() as connection:
        connection.execute(SCHEMA)
    return server


def test_sqlalchemy_reflects(shop):
    engine = sa.create_engine(f"postgresql+psycopg://evert@{shop.sql}/evert")
    look = sa.inspect(engine)
    assert sorted(look.get_table_names()) == ["clicks", "orders"]
    assert look.get_materialized_view_names() == ["by_city"]
    assert "public" in look.get_schema_names()
    columns = {column["name"]: column for column in look.get_columns("orders")}
    assert isinstance(columns["id"]["type"], sa.BigInteger) and not columns["id"]["nullable"]
    assert (columns["amount"]["type"].precision, columns["amount"]["type"].scale) == (10, 2)
    assert look.get_pk_constraint("orders")["constrained_columns"] == ["id"]
    assert [index["column_names"] for index in look.get_indexes("orders")] == [["city"]]
    assert look.get_foreign_keys("orders") == [] and look.get_unique_constraints("orders") == []
    assert "GROUP BY city" in look.get_view_definition("by_city")
    assert look.has_table("orders") and not look.has_table("nix")
    metadata = sa.MetaData()
    metadata.reflect(engine, views=True)
    assert set(metadata.tables) >= {"orders", "clicks"}
    orders = metadata.tables["orders"]
    with engine.begin() as connection:
        connection.execute(orders.insert(), [{"id": 2, "city": "Goa"}, {"id": 3, "city": "Goa"}])
    with engine.connect() as connection:
        assert connection.execute(sa.select(orders.c.id).where(orders.c.city == "Goa")).scalars().all() in ([2, 3], [3, 2])
    engine.dispose()


DESCRIBING = [
    *("\\d", "\\d+", "\\d orders", "\\d+ by_city", "\\dt", "\\dt+", "\\dt *.*", "\\dv", "\\dm", "\\di", "\\ds", "\\dE"),
    *("\\df", "\\dn", "\\dn+", "\\l", "\\du", "\\dT", "\\dx", "\\dp", "\\z", "\\dD", "\\dy"),
    *("\\db", "\\dc", "\\dC", "\\do", "\\dF", "\\dL", "\\dA", "\\dRp", "\\dRs", "\\dX", "\\drds", "\\dP", "\\dO"),
]


def test_psql_describes(shop):
    done = psql(shop, *(part for command in DESCRIBING for part in ("-c", command)))
    assert "ERROR" not in done.stderr and done.returncode == 0, done.stderr
    for found in ("orders_city", '"orders_pkey" PRIMARY KEY', "by_city", "numeric(10,2)"):
        assert found in done.stdout, found


# What tools send when they connect and look around, from their sources; `$` marks the relation.
QUESTIONS = {
    "pgjdbc: types": "SELECT t.typname,t.oid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON (t.typnamespace = n.oid) WHERE n.nspname != 'pg_toast' AND (t.typrelid = 0 OR (SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid))",
    "pgjdbc: keys": "SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, ct.relname AS TABLE_NAME, a.attname AS COLUMN_NAME, (information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ, ci.relname AS PK_NAME, information_schema._pg_expandarray(i.indkey) AS KEYS, a.attnum AS A_ATTNUM FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid) JOIN pg_catalog.pg_index i ON ( a.attrelid = i.indrelid) JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid) WHERE true AND n.nspname = 'public' AND ct.relname = 'orders' AND i.indisprimary",
    "pgjdbc: isolation": "SHOW TRANSACTION ISOLATION LEVEL",
    "pgjdbc: start": "SET extra_float_digits = 3",
    "DBeaver: database": "SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datname='evert'",
    "DBeaver: schemas": "SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass ORDER BY nspname",
    "DBeaver: where am I": "SELECT current_schema(),session_user",
    "DBeaver: settings": "SELECT * FROM pg_catalog.pg_settings where name='standard_conforming_strings'",
    "DBeaver: relations": "SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass WHERE c.relnamespace=2200 AND c.relkind not in ('i','I','c')",
    "Metabase: version": "SELECT version()",
    "Metabase: relations": "SELECT n.nspname AS schema, c.relname AS name, CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'm' THEN 'MATERIALIZED VIEW' END AS type, d.description AS description FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON c.relnamespace = n.oid LEFT JOIN pg_catalog.pg_description d ON c.oid = d.objoid AND d.objsubid = 0 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'f', 'm')",
    "Metabase: enums": "SELECT nspname, typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid IN (SELECT DISTINCT enumtypid FROM pg_enum e)",
    "Metabase: zone": "show timezone",
    "Grafana: relations": "SELECT CASE WHEN quote_ident(table_schema) = 'public' THEN quote_ident(table_name) ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \"table\" FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog')",
    "Grafana: columns": "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns WHERE quote_ident(table_name) = 'orders'",
    "Grafana: version": "SELECT current_setting('server_version_num')::int/100 as version",
    "dbt: relations": "select 'evert' as database, tablename as name, schemaname as schema, 'table' as type from pg_tables where schemaname ilike 'public' union all select 'evert' as database, matviewname as name, schemaname as schema, 'materialized_view' as type from pg_matviews where schemaname ilike 'public'",
    "dbt: schemas": "select distinct nspname from pg_namespace",
    "psycopg: types": "SELECT typname AS name, t.oid, typarray AS array_oid, t.oid::regtype::text AS regtype, typdelim AS delimiter FROM pg_type t WHERE t.oid = to_regtype('text') ORDER BY t.oid",
    "asyncpg: settings": "SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new",
    "asyncpg: reset": "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
    "npgsql: arrays": "SELECT t.oid, t.typname, t.typtype, e.typname AS element FROM (SELECT typ.oid, typ.typname, CASE WHEN proc.proname='array_recv' THEN 'a' ELSE typ.typtype END AS typtype, CASE WHEN proc.proname='array_recv' THEN typ.typelem END AS elemtypoid FROM pg_type AS typ LEFT JOIN pg_class AS cls ON (cls.oid = typ.typrelid) LEFT JOIN pg_proc AS proc ON proc.oid = typ.typreceive) AS t LEFT JOIN pg_type AS e ON e.oid = t.elemtypoid",
    "pgjdbc: array types": "SELECT typinput='pg_catalog.array_in'::regproc as is_array, typtype, typname FROM pg_catalog.pg_type WHERE oid = 1007",
    "DataGrip: schemas": "select N.oid::bigint as id, N.xmin as state_number, nspname as name, D.description, pg_catalog.pg_get_userbyid(N.nspowner) as \"owner\" from pg_catalog.pg_namespace N left join pg_catalog.pg_description D on N.oid = D.objoid order by case when nspname = pg_catalog.current_schema() then -1::bigint else N.oid::bigint end",
    "DataGrip: transaction": "select case when pg_catalog.pg_is_in_recovery() then null else (pg_catalog.txid_current() % 4294967296)::varchar::bigint end as current_txid",
    "DataGrip: changed relations": "select T.relname as name, T.oid, T.xmin as state_number from pg_catalog.pg_class T where T.relnamespace = 2200 and pg_catalog.age(T.xmin) <= coalesce(nullif(greatest(pg_catalog.age('3'::varchar::xid), -1), -1), 2147483647)",
    "DBeaver: sessions": "SELECT sa.*, sa.client_addr, sa.backend_start, sa.wait_event, sa.leader_pid FROM pg_catalog.pg_stat_activity sa",
    "pgAdmin: sizes": "SELECT pg_size_pretty(pg_relation_size(c.oid)) AS size FROM pg_class c WHERE c.relname = 'orders'",
    "npgsql: types": "SELECT ns.nspname, t.oid, t.typname, t.typtype, t.typnotnull, t.elemtypoid FROM (SELECT typ.oid, typ.typnamespace, typ.typname, typ.typtype, typ.typrelid, typ.typnotnull, typ.typelem AS elemtypoid FROM pg_type AS typ) AS t JOIN pg_namespace AS ns ON (ns.oid = t.typnamespace)",
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_tools_ask(shop, name):
    with shop.connect() as connection:
        cursor = connection.execute(QUESTIONS[name])
        rows = cursor.fetchall() if cursor.description else []
    if "relations" in name:
        assert any("orders" in row for row in rows), rows


def test_set_config_sets(server):
    with server.connect() as connection:
        assert connection.execute("SELECT set_config('application_name', 'me', false)").fetchone() == ("me",)
        assert connection.execute("SHOW application_name").fetchone() == ("me",)


def test_vectors_count_from_zero_and_arrays_from_one(shop):
    with shop.connect() as connection:
        connection.execute("CREATE TABLE pairs (a bigint, b bigint, c text, PRIMARY KEY (b, a))")

        def of_pairs(columns: str, rest: str = "") -> list:
            return connection.execute(
                f"SELECT {columns} FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid {rest} WHERE c.relname = 'pairs_pkey'"
            ).fetchall()

        assert of_pairs("unnest(i.indkey) AS attnum, generate_subscripts(i.indkey, 1) AS ord") == [(2, 0), (1, 1)]
        assert of_pairs("s", "CROSS JOIN LATERAL generate_subscripts(i.indkey, 1) AS s") == [(0,), (1,)]
        assert of_pairs("i.indkey[0], i.indkey[1], i.indkey[2], i.indkey[0:0]") == [(2, 1, None, [2])]
        key = "SELECT conkey[1] AS first, generate_subscripts(conkey, 1) AS ord FROM pg_constraint WHERE conname = 'pairs_pkey'"
        assert connection.execute(key).fetchall() == [(2, 1), (2, 2)]


def test_a_view_has_the_indexes_that_were_made(shop):
    named = "SELECT c.relname, i.indisunique FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class v ON v.oid = i.indrelid WHERE v.relname = 'by_city'"
    with shop.connect() as connection:
        assert connection.execute(named).fetchall() == []
        assert connection.execute("SELECT hasindexes FROM pg_matviews").fetchone() == (False,)
        connection.execute("CREATE INDEX by_city_n ON by_city (n)")
        assert connection.execute(named).fetchall() == [("by_city_n", False)]
        assert connection.execute("SELECT relhasindex FROM pg_class WHERE relname = 'by_city'").fetchone() == (True,)


def test_types_name_their_functions(shop):
    kinds = {row[1]: row[2:] for row in ask(shop, "npgsql: arrays")}
    assert kinds["int4"] == ("b", None) and kinds["_int4"] == ("a", "int4")
    assert ask(shop, "pgjdbc: array types") == [(True, "b", "_int4")]


def ask(server, question: str) -> list:
    with server.connect() as connection:
        return connection.execute(QUESTIONS[question]).fetchall()


EMPTY = [
    *("pg_stat_activity", "pg_stat_bgwriter", "pg_stat_replication", "pg_replication_slots", "pg_stat_ssl"),
    *("pg_stat_gssapi", "pg_prepared_xacts", "pg_group", "pg_publication_tables", "pg_timezone_abbrevs"),
    *("information_schema.element_types", "information_schema.character_sets", "information_schema.collations"),
    *("information_schema.sql_features", "information_schema.foreign_tables", "information_schema.user_defined_types"),
]


def test_catalogs_of_what_is_not_here_are_empty(server):
    with server.connect() as connection:
        for name in EMPTY:
            assert connection.execute(f"SELECT * FROM {name}").fetchall() == [], name
        assert connection.execute("SELECT rolname, rolsuper FROM pg_authid").fetchall() == [("evert", True)]
        assert connection.execute("SELECT usename FROM pg_shadow").fetchall() == [("evert",)]


def test_settings_that_change_nothing_are_set_and_shown(server):
    shown = "SELECT setting, unit, source FROM pg_settings WHERE name = %s"
    with server.connect() as connection:
        assert connection.execute(shown, ["work_mem"]).fetchone() == ("4096", "kB", "default")
        for setting in ["work_mem = '64MB'", "enable_seqscan = false", "check_function_bodies = false", "xmloption = content", "statement_timeout = '5s'"]:
            connection.execute(f"SET {setting}")
        assert connection.execute("SHOW enable_seqscan").fetchone() == ("off",)
        assert connection.execute(shown, ["work_mem"]).fetchone() == ("65536", "kB", "session")
        assert connection.execute(shown, ["enable_seqscan"]).fetchone() == ("off", None, "session")
        assert connection.execute(shown, ["statement_timeout"]).fetchone() == ("5000", "ms", "session")


def test_sizes_are_worded(server):
    sizes = "SELECT pg_size_pretty(0), pg_size_pretty(10240::bigint), pg_size_pretty(1.5), pg_size_pretty(NULL::bigint)"
    with server.connect() as connection:
        assert connection.execute(sizes).fetchone() == ("0 bytes", "10 kB", "1.5 bytes", None)
        asked = "SELECT pg_is_wal_replay_paused(), txid_current() >= 0"
        assert connection.execute(asked).fetchone() == (False, True)
