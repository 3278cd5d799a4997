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
    *("\\db", "\\dc", "\\dC", "\\do", "\\dF", "\\dL", "\\dA", "\\dRp", "\\dRs", "\\dX", "\\drds", "\\dP"),
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
