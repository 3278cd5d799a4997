"""psql, unmodified."""

import subprocess


def psql(server, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess:
    host, port = server.address("sql")
    return subprocess.run(
        ["psql", "-X", "-h", host, "-p", str(port), "-U", "evert", "-d", "evert", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PGCONNECT_TIMEOUT": "10"},
    )


def rows(server, sql: str) -> str:
    done = psql(server, "-v", "ON_ERROR_STOP=1", "-At", "-c", sql)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_tour(server):
    script = """
        CREATE TABLE payments (id bigint PRIMARY KEY, merchant text, amount numeric(10,2), paid_at timestamptz);
        CREATE MATERIALIZED VIEW totals AS
            SELECT merchant, count(*) AS payments, sum(amount) AS total FROM payments GROUP BY merchant;
        INSERT INTO payments VALUES (1, 'tea', 4.50, '2024-02-29 12:00:00+05:30'), (2, 'tea', 0.75, NULL);
        SELECT * FROM totals;
        SELECT paid_at, paid_at IS NULL AS unknown FROM payments ORDER BY id;
    """
    done = psql(server, "-v", "ON_ERROR_STOP=1", stdin=script)
    assert done.returncode == 0, done.stderr
    assert " tea      |        2 |  5.25" in done.stdout
    assert "2024-02-29 06:30:00+00" in done.stdout
    assert "(2 rows)" in done.stdout
    assert "INSERT 0 2" in done.stdout


def test_several_statements_in_one_string_stop_at_the_first_error(server):
    done = psql(server, "-c", "SELECT 1; SELECT * FROM missing; SELECT 2")
    assert done.returncode == 1
    assert 'ERROR:  relation "missing" does not exist' in done.stderr
    # psql prints results as they come.
    assert "(1 row)" in done.stdout and " 2" not in done.stdout


def test_transactions(server):
    rows(server, "CREATE TABLE t (id int PRIMARY KEY)")
    done = psql(server, stdin="BEGIN; INSERT INTO t VALUES (1); SELECT 1/0; INSERT INTO t VALUES (2); COMMIT; SELECT count(*) FROM t;")
    assert "division by zero" in done.stderr
    assert "current transaction is aborted" in done.stderr
    assert "ROLLBACK" in done.stdout, "a failed transaction's COMMIT rolls back"
    assert rows(server, "SELECT count(*) FROM t") == "0\n"


def test_variables_are_bound_by_the_extended_protocol(server):
    done = psql(server, "-At", stdin="SELECT $1::int + $2::int \\bind 40 2 \\g\n")
    if "invalid command" in done.stderr:  # psql before 16
        return
    assert done.stdout == "42\n", done.stderr


def test_portions_by_fetch_count_are_not_needed_for_a_long_result(server):
    rows(server, "CREATE TABLE t (id int PRIMARY KEY)")
    values = ",".join(f"({number})" for number in range(5000))
    rows(server, f"INSERT INTO t VALUES {values}")
    found = rows(server, "SELECT id FROM t ORDER BY id").split()
    assert found == [str(number) for number in range(5000)]


def test_what_is_here(server):
    rows(server, "CREATE TABLE t (id int PRIMARY KEY)")
    rows(server, "CREATE MATERIALIZED VIEW v AS SELECT id FROM t WHERE id > 1")
    assert "v" in rows(server, "SHOW VIEWS")
    assert "t" in rows(server, "SHOW TOPICS")
    assert rows(server, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1") == "t\nv\n"
    assert int(rows(server, "SHOW POSITION")) > 0


def test_savepoints(server):
    rows(server, "CREATE TABLE t (id int PRIMARY KEY, word text)")
    script = """
        BEGIN;
        INSERT INTO t VALUES (1, 'kept');
        SAVEPOINT a;
        INSERT INTO t VALUES (2, 'undone');
        SELECT 1/0;
        ROLLBACK TO SAVEPOINT a;
        INSERT INTO t VALUES (3, 'after');
        SAVEPOINT b;
        RELEASE SAVEPOINT a;
        ROLLBACK TO b;
        COMMIT;
    """
    done = psql(server, stdin=script)
    assert 'savepoint "b" does not exist' in done.stderr, "releasing a releases what came after it"
    assert rows(server, "SELECT count(*) FROM t") == "0\n", "the error has failed the transaction"
    script = script.replace("ROLLBACK TO b;", "")
    done = psql(server, stdin=script)
    assert "division by zero" in done.stderr and done.stdout.endswith("COMMIT\n")
    assert rows(server, "SELECT * FROM t ORDER BY id") == "1|kept\n3|after\n"


def test_describing_commands(server):
    rows(server, "CREATE TABLE orders (id bigint PRIMARY KEY, city text NOT NULL, amount numeric(10,2), at timestamptz, doc json)")
    rows(server, "CREATE STREAM clicks (who text, n int)")
    rows(server, "CREATE MATERIALIZED VIEW by_city AS SELECT city, count(*) AS n FROM orders GROUP BY city")

    def told(command: str) -> str:
        done = psql(server, "-c", command)
        # What there is none of is said beside the output, as psql does of any server.
        said = [line for line in done.stderr.splitlines() if not line.startswith("Did not find any ")]
        assert done.returncode == 0 and not said, f"{command}: {done.stderr}"
        return done.stdout

    everything = told("\\d")
    assert " public | by_city | materialized view | evert" in everything
    assert " public | orders  | table             | evert" in everything
    assert "pg_class" not in everything
    tables = told("\\dt")
    assert "orders" in tables and "clicks" in tables and "by_city" not in tables
    assert "by_city" in told("\\dm") and "orders" not in told("\\dm")
    orders = told("\\d orders")
    assert 'Table "public.orders"' in orders
    assert " city   | text                     |           | not null |" in orders
    assert " amount | numeric(10,2)            |" in orders
    assert " at     | timestamp with time zone |" in orders
    assert '"orders_pkey" PRIMARY KEY, btree (id)' in orders
    view = told("\\d+ by_city")
    assert 'Materialized view "public.by_city"' in view
    assert "SELECT city, count(*) AS n FROM orders GROUP BY city" in view
    assert "orders_pkey" in told("\\di")
    assert "public" in told("\\dn")
    assert "Superuser" in told("\\du")
    assert "UTF8" in told("\\l")
    for command in ["\\df", "\\dT", "\\dp", "\\dx", "\\dD", "\\ds", "\\dRp", "\\dt+", "\\dy", "\\des", "\\dconfig"]:
        told(command)
