"""asyncpg, unmodified: everything in binary, every statement prepared."""

import asyncio
import datetime
import decimal

import asyncpg
import pytest


def run(server, scenario):
    async def connected():
        host, port = server.address("sql")
        connection = await asyncpg.connect(host=host, port=port, user="evert", database="evert")
        try:
            return await scenario(connection)
        finally:
            await connection.close()

    return asyncio.run(connected())


def test_types_parameters_and_transactions(server):
    moment = datetime.datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=datetime.timezone.utc)
    row = (1, "tea", decimal.Decimal("4.50"), moment, True, 0.1, b"\x00", moment.date())

    async def scenario(connection):
        await connection.execute(
            "CREATE TABLE payments (id bigint PRIMARY KEY, merchant text, amount numeric(10,2), "
            "paid_at timestamptz, good boolean, score double precision, raw bytea, day date)"
        )
        marks = ", ".join(f"${index}" for index in range(1, len(row) + 1))
        await connection.execute(f"INSERT INTO payments VALUES ({marks})", *row)
        found = await connection.fetchrow("SELECT * FROM payments WHERE id = $1", 1)
        assert tuple(found) == row
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM payments WHERE id = $1", 1)
        await transaction.rollback()
        assert await connection.fetchval("SELECT count(*) FROM payments") == 1
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.fetch("SELECT * FROM missing")

    run(server, scenario)


def test_cursors_fetch_in_portions(server):
    async def scenario(connection):
        await connection.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
        values = ",".join(f"({number})" for number in range(1000))
        await connection.execute(f"INSERT INTO numbers VALUES {values}")
        async with connection.transaction():
            found = [row["n"] async for row in connection.cursor("SELECT n FROM numbers ORDER BY n", prefetch=70)]
        assert found == list(range(1000))

    run(server, scenario)
